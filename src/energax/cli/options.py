"""Options that several commands share; tyro turns them into flags and help texts."""

import dataclasses
import typing
from pathlib import Path
from typing import Annotated, Any

import tyro

from energax.exceptions import RunError
from energax.recipes import RECIPES, settings_read
from energax.recipes.settings import COMMON, Settings

SHAPE = (28, 28, 1)  # of the images for which the recipes' settings are told: no recipe chooses by it


def read_folder(words: list[str]) -> Path:
    """A path; one that no folder can have is refused before anything is done.

    Raises:
        RunError: no name, that of a file, or one that the system does not take. (The parser would swallow a ValueError:
            it would go on and try whether the words are None.)
    """
    (text,) = words
    if not text.strip():
        raise RunError(f"{text!r} is no name of a folder: give one, or leave the option out")
    try:
        is_file = Path(text).exists() and not Path(text).is_dir()
    except OSError as error:
        raise RunError(f"{text!r} cannot be used: {error.strerror}; give another folder") from error
    if is_file:
        raise RunError(f"{text!r} is a file: give the name of a folder")
    return Path(text)


Folder = Annotated[
    Path,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FOLDER",
        instance_from_str=read_folder,
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    ),
]


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Train one network by one recipe and report how well, how far from equilibrium, and how far from backprop.

    Values in brackets are those of the recipe that stands on this command line; without one, of all recipes.
    """

    data: Annotated[str, tyro.conf.arg(help="data set: see `energax data`")] = "digits"
    recipe: Annotated[str, tyro.conf.arg(help="algorithm: see `energax recipes`")] = "pc-nudge"
    epochs: Annotated[
        int | None, tyro.conf.arg(help="passes over the training rows (30 on digits, elsewhere the recipe's own)")
    ] = None
    seed: Annotated[int, tyro.conf.arg(help="fixes parameters, order of rows and augmentations")] = 0
    out: Annotated[Folder | None, tyro.conf.arg(help="run folder (runs/RECIPE-DATA-SEED if left out)")] = None
    resume: Annotated[
        Folder | None, tyro.conf.arg(help="continue the run in this folder; only --epochs may be changed")
    ] = None
    json: Annotated[bool, tyro.conf.arg(help="print the result as one last line of JSON")] = False
    settings: Annotated[Settings, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Settings)


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """Train several recipes with several seeds on the same splits, and print one table and draw one picture.

    Settings that are left out are each recipe's own, in brackets: see `energax recipes NAME`.
    """

    recipes: Annotated[str, tyro.conf.arg(help="recipes, separated by commas")] = "backprop,pc-nudge,ep"
    data: Annotated[str, tyro.conf.arg(help="data set: see `energax data`")] = "digits"
    seeds: Annotated[int, tyro.conf.arg(help="number of seeds, from 0")] = 3
    epochs: Annotated[
        int | None, tyro.conf.arg(help="passes over the training rows (30 on digits, elsewhere the recipe's own)")
    ] = None
    out: Annotated[
        Folder | None, tyro.conf.arg(help="folder (runs/compare-DATA if left out); what is done is kept")
    ] = None
    json: Annotated[bool, tyro.conf.arg(help="print the table as one last line of JSON")] = False
    settings: Annotated[Settings, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Settings)


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """List the data sets and where they would be read from, or fetch one."""

    fetch: Annotated[str | None, tyro.conf.arg(help="data set to make available, by download if need be")] = None


@dataclasses.dataclass(frozen=True)
class RecipesOptions:
    """List the recipes, or the settings of one of them with their flags."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(help="one recipe")] = None


@dataclasses.dataclass(frozen=True)
class ReproduceOptions:
    """Reproduce figures and tables of papers: picture, numbers, and a verdict on every claim.

    With the name of one experiment its own settings are options too: see `energax reproduce NAME --help`.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(help="experiments: see --list")] = ()
    list: Annotated[bool, tyro.conf.arg(help="list the experiments")] = False
    all: Annotated[bool, tyro.conf.arg(help="run all of them that were run in full before")] = False
    small: Annotated[bool, tyro.conf.arg(help="smaller settings, about a minute each, without any download")] = False
    out: Annotated[
        Folder | None,
        tyro.conf.arg(
            help="folder of the results' folders (results; runs/small with --small, runs/own with settings of your own)"
        ),
    ] = None
    redraw: Annotated[bool, tyro.conf.arg(help="draw and judge again from the numbers that are there")] = False
    json: Annotated[bool, tyro.conf.arg(help="print the reports as one last line of JSON")] = False
    settings: tyro.conf.Suppress[Any] = None


def with_settings(given: Any) -> type[ReproduceOptions]:
    """`ReproduceOptions` with the settings of one experiment among the options, as they are where they are left out."""
    field = (Annotated[type(given), tyro.conf.arg(name="")], dataclasses.field(default=given))
    made = dataclasses.make_dataclass(
        "ReproduceOptions", [("settings", *field)], bases=(ReproduceOptions,), frozen=True, kw_only=True
    )
    made.__doc__ = ReproduceOptions.__doc__
    return made


def with_recipe_values(options: type) -> type:
    """The options of a command with every recipe's value beside each setting, for help texts."""
    read = {name: settings_read(name, SHAPE, 10) for name in RECIPES}
    fields = []
    for field in dataclasses.fields(Settings):
        annotation = typing.get_type_hints(Settings, include_extras=True)[field.name]
        values = {name: value for name, one in read.items() if (value := getattr(one, field.name)) is not None}
        if not values and (value := getattr(COMMON, field.name)) is not None:  # read with another network or solver
            values = dict.fromkeys(RECIPES, value)
        text = summarise_values(values, len(RECIPES))
        told = dataclasses.replace(annotation.__metadata__[0], help_behavior_hint=f"({text})" if text else "")
        fields.append((field.name, Annotated[typing.get_args(annotation)[0], told], None))
    shown = dataclasses.make_dataclass("Settings", fields, frozen=True)
    made = dataclasses.make_dataclass(
        options.__name__,
        [("settings", Annotated[shown, tyro.conf.arg(name="")], dataclasses.field(default_factory=shown))],
        bases=(options,),
        frozen=True,
    )
    made.__doc__ = options.__doc__
    return made


def summarise_values(values: dict[str, Any], of: int) -> str:
    """Recipes by their value of one setting: `0.05; ipc, ep 0.02`. What half of all have, or more, stands alone."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(tell_value(value), []).append(name)
    common = next((value for value, names in groups.items() if 2 * len(names) >= of), None)
    others = [f"{', '.join(names)} {value}" for value, names in groups.items() if value != common]
    return "; ".join(([] if common is None else [common]) + others)


def tell_value(value: Any) -> str:
    """A setting's value as it is given on the command line; a dash where there is none."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else "-" if value is None else str(value)
