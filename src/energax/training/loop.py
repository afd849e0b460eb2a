"""`fit`: epochs, the regime after each, checkpoints, and the test at the end."""

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from energax.checking import require_kind, require_whole
from energax.compilation import make_room
from energax.data import Dataset
from energax.diagnostics.regime import Regime, measure_regime
from energax.dynamics.model import Model, name_parts
from energax.exceptions import DivergenceError, SettingError
from energax.training.alarms import Ending, find_alarms, gather_alarms
from energax.training.device_split import DeviceSplit, make_device_split
from energax.training.display import Display, WarningsOnly
from energax.training.epoch import stretch_in_place
from energax.training.evaluation import evaluate_device_split
from energax.training.learner import Learner, Progress, begin, root_key
from energax.training.metrics import METRICS, RELAXATION_METRICS, Sums, name_averages
from energax.training.pages import draw_curve, write_summary
from energax.training.run_folder import History, RunFolder, machine

STRETCHES = 10  # compiled calls per epoch: often enough for a bar, seldom enough to cost nothing


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run leaves behind.

    Attributes:
        learner: the learner after the last epoch.
        history: one row per epoch: cost and accuracy, verdicts of the relaxations, the regime, seconds of training and
            of compiling, and warnings. `first_cost` is that of the first batch, before any update.
        result: test and validation accuracy of the last epoch and of the epoch chosen by validation, and the
            regime of the last epoch; `warnings` are those of all epochs.
    """

    learner: Learner
    history: History
    result: dict[str, Any]


def fit(
    learner: Learner,
    data: Dataset,
    *,
    epochs: int,
    batch: int = 64,
    seed: int = 0,
    folder: RunFolder | None = None,
    resume: bool = False,
    standardise: bool = False,
    display: Display | None = None,
    config: dict[str, Any] | None = None,
) -> Run:
    """Train a learner.

    Rows are shuffled every epoch; the rows beyond the last whole batch rest in that epoch. The test split is used
    once, at the end.

    Args:
        learner: what to train.
        data: the data set.
        epochs: passes over the training split, those before a resumption included.
        batch: rows per update.
        seed: fixes the order of the rows and all random layers and augmentations.
        folder: where to keep the run; None keeps nothing.
        resume: continue the run in `folder` from its last finished epoch, as if it had never stopped.
        standardise: normalise pixels per channel instead of leaving them in [0, 1].
        display: who is told of the progress; None hears of warnings alone, as Python warnings (`TrainingWarning`).
        config: further settings to be recorded.

    Raises:
        SettingError: settings out of range.
        DivergenceError: parameters or cost are not finite.
        RunError: the folder cannot be used, or holds a run with other settings.
    """
    require_settings(learner, data, epochs, batch)
    make_room()
    trainer = _Trainer(learner, data, batch, seed, standardise, display or WarningsOnly())
    chosen = {
        "data": data.name,
        "epochs": epochs,
        "batch": batch,
        "seed": seed,
        "standardise": standardise,
        **(config or {}),
    }
    settings = {**chosen, "origin": data.origin, "checksums": dict(data.checksums), **machine()}
    progress, history = begin(learner), []
    if resume:
        if folder is None:
            raise SettingError("resume needs the folder of the run")
        progress, facts = folder.restore(learner)
        history = facts["history"]
        folder.resume(chosen, len(history))
    elif folder is not None:
        folder.start(settings)
    return trainer.run(copy_progress(progress), history, epochs, folder, settings)


def require_settings(learner: Learner, data: Dataset, epochs: int, batch: int) -> None:
    """Refuse settings that cannot work, before anything is compiled or written."""
    require_kind("fit: learner", learner, Learner, "give a Learner(graph, dynamics, solver, rule, optimiser)")
    remedy = "give a Dataset, as energax.load_data('digits') or data.Dataset.from_arrays(...) makes them"
    require_kind("fit: data", data, Dataset, remedy)
    require_whole("epochs", epochs, 1)
    require_whole("batch", batch, 1)
    if batch > len(data.train):
        raise SettingError(f"batch={batch}: give a size between 1 and the {len(data.train)} training rows")
    if len(learner.graph.inputs) != 1 or len(learner.graph.outputs) != 1:
        raise SettingError("fit trains on images and their classes: give the graph one input and one output")
    shape = learner.graph.node(learner.graph.inputs[0]).shape
    if shape != data.image_shape:
        raise SettingError(
            f"the graph's input has shape {shape}, and the images of {data.name} have {data.image_shape}"
        )
    outputs = learner.graph.node(learner.graph.outputs[0].node).shape
    if outputs != (data.classes,):
        raise SettingError(f"the graph's output has shape {outputs}, and {data.name} has {data.classes} classes")
    require_finite_parameters(learner.model, "before the first batch")


def require_finite_parameters(model: Model, when: str) -> None:
    """Refuse NaN and infinite parameters, naming the function, or the field of the dynamics, that holds them."""
    for name, fn in name_parts(model).items():
        for leaf in jax.tree.leaves(eqx.filter(fn, eqx.is_inexact_array)):
            if not bool(jnp.all(jnp.isfinite(leaf))):
                raise DivergenceError(
                    f"parameters of {name!r} are not finite {when}: lower the learning rate, or start from "
                    "a checkpoint that is sound"
                )


class _Trainer:
    """One training in progress; holds the data on the device."""

    def __init__(self, learner: Learner, data: Dataset, batch: int, seed: int, standardise: bool, display: Display):
        def place(split, augment=False) -> DeviceSplit:
            return make_device_split(data, split, standardise=standardise, augment=augment)

        self.learner, self.size, self.display = learner, batch, display
        self.bare = eqx.tree_at(lambda l: (l.graph, l.solver), learner, (None, None))
        self.train, self.validation, self.test = place(data.train, True), place(data.validation), place(data.test)
        self.key, self.first_cost, self.compiled = root_key(seed), None, None
        self.ending = Ending.of(learner)
        self.batches = len(data.train) // batch
        first = self.train.batch(jnp.arange(min(64, len(data.train))))
        # not augmented; rules and layers that draw at random draw the same in every report, the reference too
        self.probe = dataclasses.replace(first, key=jax.random.fold_in(self.key, 0))
        self.regime = eqx.filter_jit(measure_regime)

    def run(self, progress: Progress, history: History, epochs: int, folder: RunFolder | None, settings) -> Run:
        """Train up to `epochs`, then test."""
        best, best_row = progress, max(history, key=_validation, default=None)
        if folder is not None and best_row is not None:
            best, _ = folder.restore(self.learner, best=True)
        self.first_cost, told = history[0]["first_cost"] if history else None, set()
        self.display.begin(epochs, self.batches, len(history))
        try:
            for epoch in range(len(history) + 1, epochs + 1):
                progress, row = self.epoch(progress, epoch)
                history = [*history, row]
                chosen = best_row is None or _validation(row) > _validation(best_row)
                if chosen:
                    best, best_row = copy_progress(progress), row
                if folder is not None:
                    folder.save(progress, {"history": history}, best=chosen)
                self.display.epoch(row)
                for alarm in find_alarms(row, self.ending):
                    if alarm.kind not in told:  # once a run: every epoch's stands in the log
                        self.display.warn(alarm.message)
                        told.add(alarm.kind)
        finally:
            self.display.end()
        result = self.result(progress, best, best_row, history)
        if folder is not None:
            write_results(folder, settings, result, history)
        return Run(progress.as_learner(self.learner), history, result)

    def epoch(self, progress: Progress, epoch: int) -> tuple[Progress, dict[str, Any]]:
        """One pass over the training split, and everything measured after it; `progress` is used up."""
        key = jax.random.fold_in(self.key, epoch)
        total = Sums.zero()
        compiled, compile_seconds = self.compile(progress, key)
        begun = time.perf_counter()
        edges = {self.batches * part // STRETCHES for part in range(STRETCHES + 1)}
        if self.first_cost is None:
            edges |= {1}  # the first batch alone: its cost is that of the untrained network
        for first, last in itertools.pairwise(sorted(edges)):
            progress, sums = compiled(self.arguments(key, first, last), progress)
            total = total.merge(sums)
            averages = total.averages()
            if self.first_cost is None:
                self.first_cost = averages["cost"]
            if not averages["cost"] < float("inf"):
                raise DivergenceError(
                    f"the cost became {averages['cost']} in epoch {epoch}, between batches {first} and "
                    f"{last}: lower the learning rate or the nudge strength; earlier epochs are kept"
                )
            self.display.advance(epoch, last - first, averages)
        require_finite_parameters(progress.model, f"after epoch {epoch}")
        seconds = time.perf_counter() - begun
        times = {"seconds": seconds, "compile_seconds": compile_seconds}
        return progress, self.row(progress, epoch, total.averages(), times)

    def arguments(self, key, first: int, last: int):
        """What a stretch is given besides the progress."""
        return self.bare, self.train, self.size, key, jnp.asarray(first), jnp.asarray(last)

    def compile(self, progress: Progress, key):
        """The compiled stretch, and the seconds that this took: none to speak of where it was compiled before."""
        begun = time.perf_counter()
        if self.compiled is None:
            lower = cast(Any, stretch_in_place).lower  # which the type of a wrapped function does not show
            self.compiled = lower(self.arguments(key, 0, 0), progress).compile()
        return self.compiled, time.perf_counter() - begun

    def row(
        self, progress: Progress, epoch: int, averages: dict[str, float], times: dict[str, float]
    ) -> dict[str, Any]:
        """The log's line of one epoch."""
        learner = progress.as_learner(self.learner)
        tested = evaluate_device_split(learner, self.validation, 500)
        regime = self.regime(learner.dynamics, learner.graph, self.probe, learner.solver, learner.rule)
        row = {
            "epoch": epoch,
            "first_cost": self.first_cost,
            **name_averages("train", averages),
            **name_averages("validation", tested.averages),
            "validation_settled": tested.settled,
            **regime_row(regime),
            **times,
        }
        return {**row, "warnings": [alarm.message for alarm in find_alarms(row, self.ending)]}

    def result(self, progress: Progress, best: Progress, best_row, history: History) -> dict[str, Any]:
        """Test the last epoch and the epoch that validation chooses."""
        last = history[-1]
        tested = evaluate_device_split(progress.as_learner(self.learner), self.test, 500)
        selected = tested
        if best_row is not last:
            selected = evaluate_device_split(best.as_learner(self.learner), self.test, 500)
        names = (
            *(f"validation_{metric.name}" for metric in METRICS),
            *(metric.name for metric in RELAXATION_METRICS),
            "gradient_cosine",
            "reference",
        )
        return {
            **name_averages("test", tested.averages),
            "test_settled": tested.settled,
            **name_averages("selected_test", selected.averages),
            "selected_epoch": best_row["epoch"],
            "least_gradient_cosine": min(row["gradient_cosine"] for row in history),
            **{name: last[name] for name in names},
            "epochs": len(history),
            **{name: sum(row[name] for row in history) for name in ("seconds", "compile_seconds")},
            "warnings": gather_alarms(history, self.ending),
        }


def _validation(row: dict[str, Any]) -> float:
    return row["validation_accuracy"]


def copy_progress(progress: Progress) -> Progress:
    """The same numbers in memory of their own: what an epoch is given, it uses up."""
    return jax.tree.map(lambda a: jnp.copy(a) if eqx.is_array(a) else a, progress)


def regime_row(regime: Regime) -> dict[str, Any]:
    """The regime as plain numbers."""
    layers = [name for name in regime.cosine if name != "all"]
    return {
        "reference": regime.reference,
        "gradient_cosine": float(regime.cosine["all"]),
        "norm_ratio": float(regime.norm_ratio["all"]),
        "layer_cosine": {name: float(regime.cosine[name]) for name in layers},
        "layer_norm_ratio": {name: float(regime.norm_ratio[name]) for name in layers},
        "relaxed_fraction": float(regime.relaxed),
        "curvature": float(regime.curvature),
        "step_bound": float(regime.step_bound),
        "step_margin": float(regime.step_margin),
    }


def write_results(folder: RunFolder, settings: dict[str, Any], result: dict[str, Any], history: History) -> None:
    """Write what people look at."""
    folder.write_json("result.json", result)
    title = f"{settings.get('recipe', 'run')} on {settings['data']}, seed {settings['seed']}"
    draw_curve(Path(folder.path) / "curve.png", history, title)
    write_summary(Path(folder.path) / "summary.md", settings, result, history)
