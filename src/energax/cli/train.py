"""`energax train`."""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.console
import rich.table

from energax import checking
from energax.cli.options import TrainOptions
from energax.data import load_data
from energax.exceptions import EnergaxError, RunError, SettingError
from energax.opening import find_memory
from energax.recipes import complete_settings, count_parameter_bytes, make_learner
from energax.recipes.settings import KINDS, Settings, read_settings, write_settings
from energax.training import Run, RunFolder, fit
from energax.training.callbacks import Callback
from energax.training.display import Terminal
from energax.training.pages import result_rows
from energax.training.run_folder import finite


def train(options: TrainOptions) -> None:
    """Train, print the result, and with --json one last line of JSON."""
    if options.resume is not None:
        folder, run = resume_run(options)
        config = folder.config()
    else:
        path = options.out or require_unused(Path("runs") / f"{options.recipe}-{options.data}-{options.seed}")
        folder, config = RunFolder(path), {"recipe": options.recipe, "data": options.data, "seed": options.seed}
        epochs = epochs_of(options.recipe, options.data, options.epochs)
        run = run_recipe(options.recipe, options.data, options.seed, epochs, options.settings, folder, Terminal())
    show(run, config, folder)
    if options.json:
        facts = {"recipe": config["recipe"], "data": config["data"], "seed": config["seed"], "folder": str(folder.path)}
        print(json.dumps(finite({**facts, **run.result})))


def require_unused(path: Path) -> Path:
    """The path, with a number behind it where a run is kept there already."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], numbered) if not one.exists())


def epochs_of(recipe: str, data: str, epochs: int | None) -> int:
    """The customary number of epochs where none is given: the digits are few."""
    if epochs is not None:
        checking.require_count("epochs", epochs)
        return epochs
    return 30 if data == "digits" else complete_settings(recipe)[0].epochs


def run_recipe(
    recipe: str,
    data: str,
    seed: int,
    epochs: int,
    settings: Settings,
    folder: RunFolder,
    display: Callback,
    *,
    resume: bool = False,
) -> Run:
    """Load the data, build the recipe and train it."""
    dataset = load_data(data)
    require_memory(recipe, dataset.image_shape, dataset.classes, settings)
    learner, complete = make_learner(recipe, dataset.image_shape, dataset.classes, seed=seed, settings=settings)
    return fit(
        learner,
        dataset,
        epochs=epochs,
        batch=complete.batch or 0,
        seed=seed,
        folder=folder,
        resume=resume,
        standardise=bool(complete.standardise),
        display=display,
        config={"recipe": recipe, "settings": write_settings(complete)},
    )


COPIES = 4  # of the parameters that a training holds at least: they, their gradient, momentum, the best epoch's


def require_memory(recipe: str, shape: Sequence[int], classes: int, settings: Settings) -> None:
    """Refuse a network whose parameters alone do not fit into the machine's memory, before anything is allocated."""
    try:
        bytes_needed = COPIES * count_parameter_bytes(recipe, shape, classes, settings)
    except (OverflowError, TypeError, ValueError) as error:  # more numbers in one array than can be counted
        if isinstance(error, EnergaxError):
            raise
        raise SettingError(f"hidden={settings.hidden}: no array is so large; give fewer units") from error
    if bytes_needed > (there := find_memory()):
        raise SettingError(
            f"hidden={settings.hidden}, channels={settings.channels}, width={settings.width}: training such a network "
            f"takes {bytes_needed / 1e9:.3g} GB and more, and this machine has {there / 1e9:.3g} GB; make it smaller"
        )


def resume_run(options: TrainOptions) -> tuple[RunFolder, Run]:
    """Continue a run with the settings it was started with."""
    if options.settings != Settings() or options.out is not None:
        raise SettingError("--resume continues with the settings of the run: of the others only --epochs may be given")
    if options.resume is None or not options.resume.is_dir():
        raise RunError(f"--resume {options.resume}: no such folder")
    folder = RunFolder(options.resume)
    file, config = folder.path / "config.json", folder.config()
    try:
        settings = read_settings(config["settings"])
        for name, kind in (("recipe", str), ("data", str), ("seed", int), ("epochs", int)):
            holds, told = KINDS[kind]
            if not holds(config[name]):
                raise SettingError(f"{name}={checking.tell(config[name])}: give {told}")
        checking.require_count("epochs", config["epochs"])
        complete_settings(config["recipe"], settings)
    except KeyError as error:
        raise RunError(f"{file} lacks the settings of a recipe ({error}); start the run anew") from error
    except SettingError as error:
        raise RunError(f"{file}: {error}; restore it from a copy, or start the run anew") from error
    recipe, data, seed, epochs = config["recipe"], config["data"], config["seed"], config["epochs"]
    for name, value in (("recipe", recipe), ("data", data), ("seed", seed)):
        given_value = getattr(options, name)
        if given_value not in (value, getattr(TrainOptions(), name)):
            raise SettingError(
                f"--{name} {given_value}: the run in {folder.path} was started with {value}, and --resume "
                "continues it; leave the option out, or start a new run"
            )
    epochs = epochs if options.epochs is None else epochs_of(recipe, data, options.epochs)
    folder.require_settings()
    over = folder.epochs() == epochs
    run = run_recipe(recipe, data, seed, epochs, settings, folder, Terminal(), resume=True)
    if over:
        print(f"energax: {folder.path} has its {epochs} epochs; give a larger --epochs to go on", file=sys.stderr)
    return folder, run


def show(run: Run, config: dict[str, Any], folder: RunFolder) -> None:
    """Print the result for a person."""
    result, console = run.result, rich.console.Console(highlight=False)
    title = f"{config['recipe']} on {config['data']}, seed {config['seed']}"
    table = rich.table.Table(title=title, title_justify="left")
    table.add_column("result")
    table.add_column("", justify="right")
    for row in result_rows(result, run.metrics):
        table.add_row(*row)
    console.print(table)
    if result["stalled_fraction"] > 0:
        console.print("what stalled and the other verdicts promise: docs/verdicts.md", style="dim", soft_wrap=True)
    for message in result["warnings"]:
        console.print(f"warning: {message}", style="yellow", soft_wrap=True)
    console.print(f"kept in {folder.path}: summary.md, curve.png, metrics.jsonl, last.ckpt, best.ckpt", soft_wrap=True)
