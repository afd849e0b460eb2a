"""`train`: epochs, the regime after each, checkpoints, and the test at the end."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from energax.checking import require_count, require_kind
from energax.compilation import make_room
from energax.diagnostics.regime import measure_regime
from energax.exceptions import DataError, DivergenceError, RunError, SettingError
from energax.metrics import COST, ENERGY, Metric
from energax.opening import refuse_broken
from energax.training.alarms import Ending, find_alarms, gather_alarms
from energax.training.batches import AbstractBatches, restore_source, save_source
from energax.training.callbacks import Callback, Plan
from energax.training.display import WarningsOnly
from energax.training.epoch import Programs
from energax.training.evaluation import Evaluation, evaluate, metrics_of
from energax.training.identity import describe_learner, require_same_learner
from energax.training.learner import (
    Learner,
    Progress,
    begin,
    find_lost_parameters,
    require_finite_parameters,
    root_key,
)
from energax.training.metrics import RELAXATION_METRICS, Sums, name_averages, name_regime
from energax.training.pages import write_results
from energax.training.run_folder import History, RunFolder, machine, require_names
from energax.training.stream import as_batches

TESTED = 500  # rows at a time where rows are tested


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training leaves behind.

    Attributes:
        learner: the learner after the last epoch.
        best: the learner of the epoch that validation chose by the first metric; the last one without validation.
        history: one row per epoch: the metrics, verdicts of the relaxations, the regime, seconds of training and of
            compiling, and warnings. `first_cost` is that of the first batch, before any update.
        result: the metrics of the last epoch and, with rows for it, of the test of that and of the epoch chosen by
            validation; the regime of the last epoch; `warnings` are those of all epochs.
        metrics: what is told of the outputs.
        progress: where the training stands, with the optimiser's state.
    """

    learner: Learner
    best: Learner
    history: History
    result: dict[str, Any]
    metrics: tuple[Metric, ...]
    progress: Progress

    def continue_(self, batches: AbstractBatches | Any, **options: Any) -> "Run":
        """Train on, with the optimiser's state as it is: on more of the same, or on something else.

        Args:
            batches: as `train` takes them.
            options: other arguments of `train`; `epochs` are epochs more.

        Returns:
            A run whose history goes on where this one's ends.
        """
        return train(self.learner, batches, after=self, **options)


def train(
    learner: Learner,
    batches: AbstractBatches | Any,
    *,
    epochs: int = 1,
    validation: AbstractBatches | Any = None,
    test: AbstractBatches | Any = None,
    metrics: Sequence[Metric] | None = None,
    seed: int = 0,
    regime: bool = True,
    folder: RunFolder | str | Path | None = None,
    resume: bool = False,
    display: Callback | None = None,
    callbacks: Sequence[Callback] = (),
    config: dict[str, Any] | None = None,
    after: Run | None = None,
) -> Run:
    """Train a learner on batches of anything.

    Args:
        learner: what to train.
        batches: `Arrays(x, y, batch=64)`, a tuple `(x, y)` or `(x, y, weights)` of arrays (64 rows per update), or
            a mapping of them by these names, or any iterable of batches `(x, y)`, as `Stream` takes it: a generator, a
            list, a `DataLoader`. Targets are left out where the rule does without.
        epochs: passes over the batches, those before a resumption included.
        validation: rows that choose the best epoch, given likewise; None chooses none.
        test: rows that are tested once, at the end; None tests none.
        metrics: what is told of the outputs, the one that chooses the best epoch first; left out, what the cost brings
            (the energy, where there are no targets).
        seed: fixes the order of the rows and all that is random.
        regime: whether the regime is measured on the first rows after every epoch; that compiles for some seconds.
        folder: where to keep the run; None keeps nothing.
        resume: continue the run in `folder` from its last finished epoch, as if it had never stopped.
        display: who is told of the progress; None hears of warnings alone, as Python warnings (`TrainingWarning`).
        callbacks: who else is told, and may end the training.
        config: further settings to be recorded.
        after: a run of this learner that is continued, as `Run.continue_` does.

    Raises:
        SettingError: settings out of range.
        DataError: batches that hold nothing, or do not fit the graph.
        DivergenceError: parameters or cost are not finite.
        RunError: the folder cannot be used, holds a run with other settings, or the batches cannot go on exactly.
    """
    require_kind("train: learner", learner, Learner, "give a Learner(graph, dynamics, solver, rule, optimiser)")
    require_count("epochs", epochs)
    require_kind("train: callbacks", callbacks, (list, tuple), "give a list, as [EarlyStopping(3)]")
    if metrics is not None:
        require_kind("train: metrics", metrics, (list, tuple), "give a list, as [energax.metrics.ACCURACY]")
    for number, callback in enumerate(callbacks):
        require_kind(f"train: callbacks[{number}]", callback, Callback, "give a Callback, as EarlyStopping(3)")
    require_finite_parameters(learner.model, "before the first batch")
    make_room()
    if folder is not None and not isinstance(folder, RunFolder):
        folder = RunFolder(folder)
    sources = {"train": as_batches("train: batches", batches)}
    for part, given in (("validation", validation), ("test", test)):
        if given is not None:
            sources[part] = as_batches(f"train: {part}", given)
    listeners = [WarningsOnly() if display is None else display, *callbacks]
    trainer = _Trainer(learner, sources, metrics, seed, regime, listeners)
    chosen = {"data": "arrays", "epochs": epochs, "seed": seed, **(config or {})}
    settings = {**chosen, **machine()}
    progress, history = begin(learner), []
    if after is not None:
        if resume:
            raise SettingError("resume continues the run in a folder, and `after` another one: give one of them")
        progress, history = after.progress, after.history
        epochs += len(history)
    if folder is None:
        if resume:
            raise SettingError("resume needs the folder of the run")
        return trainer.run(copy_progress(progress), history, epochs, None, settings, None)
    with folder.hold(new=not resume):
        best = None
        if resume:
            progress, facts = folder.restore(learner)
            history = facts["history"]
            folder.require_same(chosen, facts)
            require_same_learner(folder.last, facts.get("learner"), learner)
            require_names(folder.last, history, trainer.names)
            with refuse_broken(folder.last, "Give the batches of before.", what="says no place in them", kind=RunError):
                restore_source(sources["train"], facts["source"])
            folder.resume(chosen, facts)
            found, facts = folder.restore(learner, best=True)
            best = found.as_learner(learner), facts["history"][-1]
        else:
            folder.start(settings)
        return trainer.run(copy_progress(progress), history, epochs, folder, settings, best)


class _Trainer:
    """One training in progress."""

    def __init__(
        self,
        learner: Learner,
        sources: dict[str, AbstractBatches],
        metrics: Sequence[Metric] | None,
        seed: int,
        regime: bool,
        listeners: Sequence[Callback],
    ):
        self.learner, self.sources, self.listeners = learner, sources, listeners
        self.batches = sources["train"]
        self.key, self.first_cost = root_key(seed), None
        self.ending = Ending.of(learner)
        for source in sources.values():
            source.bind(learner.graph, learner.dynamics.cost)
        first = self.batches.probe()
        self.objective = ENERGY if first.y is None else COST
        told = metrics_of(learner, first.y is not None) if metrics is None else tuple(metrics)
        for number, metric in enumerate(told):
            require_kind(f"train: metrics[{number}]", metric, Metric, "give Metrics, as energax.metrics.ACCURACY")
        names = [metric.name for metric in (*told, *RELAXATION_METRICS)]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise SettingError(f"train: metrics: two are called {twice!r}: give every metric a name of its own")
        # what is minimised is always told: a training that diverges shows there
        self.metrics = told if self.objective.name in names else (*told, self.objective)
        self.programs = Programs(learner, self.metrics)
        parts = [part for part in ("train", "validation") if part in sources]
        self.names = [f"{part}_{metric.name}" for part in parts for metric in self.metrics]
        self.names += ["first_cost", *(metric.name for metric in RELAXATION_METRICS), "seconds", "compile_seconds"]
        # not augmented; rules and layers that draw at random draw the same in every report, the reference too
        self.probe = dataclasses.replace(first, key=jax.random.fold_in(self.key, 0))
        measurable = first.y is not None or learner.rule.reference() is not None
        self.regime = eqx.filter_jit(measure_regime) if regime and measurable else None

    def run(
        self,
        progress: Progress,
        history: History,
        epochs: int,
        folder: RunFolder | None,
        settings: dict[str, Any],
        chosen: tuple[Learner, dict[str, Any]] | None,
    ) -> Run:
        """Train up to `epochs`, then test.

        Args:
            progress: where the training stands; it is used up.
            history: the rows so far.
            epochs: the last epoch.
            folder: where the run is kept, or None.
            settings: what its page says.
            chosen: learner and row of the best epoch so far; None where there is none yet.
        """
        best, best_row = (progress.as_learner(self.learner), None) if chosen is None else chosen
        self.first_cost, told = history[0].get("first_cost") if history else None, set()
        parts = tuple(part for part in ("train", "validation") if part in self.sources)
        made_of = None if folder is None else describe_learner(self.learner)
        self.tell("begin", Plan(epochs, self.batches.per_epoch, len(history), self.metrics, parts))
        try:
            for epoch in range(len(history) + 1, epochs + 1):
                progress, row = self.epoch(progress, epoch)
                history = [*history, row]
                if best_row is None or self.is_better(row, best_row):
                    best, best_row = copy_progress(progress).as_learner(self.learner), row
                if folder is not None:
                    facts = {"history": history, "source": save_source(self.batches), "learner": made_of}
                    folder.save(progress, facts, best=best_row["epoch"])
                # every listener hears of it, whoever wants to end
                ends = self.tell("epoch", row, progress.as_learner(self.learner))
                for alarm in find_alarms(row, self.ending):
                    if alarm.kind not in told:  # once a run: every epoch's stands in the log
                        self.tell("warn", alarm.message)
                        told.add(alarm.kind)
                if any(ends):
                    break
        finally:
            self.tell("end")
        result = self.result(progress, best, best_row, history)
        if folder is not None:
            write_results(folder, settings, result, history, self.metrics)
        last = progress.as_learner(self.learner)
        return Run(last, best, history, result, self.metrics, progress)

    def tell(self, what: str, *given: Any) -> list[Any]:
        """Tell every listener."""
        return [getattr(listener, what)(*given) for listener in self.listeners]

    def is_better(self, row: dict[str, Any], best: dict[str, Any]) -> bool:
        """Whether validation chooses an epoch over the best one so far; without validation it does the last."""
        if "validation" not in self.sources:
            return True
        first = self.metrics[0]
        return first.better(row[f"validation_{first.name}"], best[f"validation_{first.name}"])

    def epoch(self, progress: Progress, epoch: int) -> tuple[Progress, dict[str, Any]]:
        """One pass over the batches, and everything measured after it; `progress` is used up."""
        key = jax.random.fold_in(self.key, epoch)
        begun, compiled = time.perf_counter(), self.programs.seconds
        averages: dict[str, float] = {}
        weighed = False  # a batch of which no row has a weight has no cost, and is no divergence
        for part in self.batches.train(self.programs, progress, key, alone=self.first_cost is None):
            progress, averages = part.progress, part.sums.averages()
            value = averages[self.objective.name]
            if self.first_cost is None:
                self.first_cost = value
            weighed = bool(part.sums.weighed)
            if weighed and not value < float("inf"):
                raise self.divergence(value, epoch, part.first, part.last, part.sums, progress)
            for listener in self.listeners:
                listener.advance(epoch, part.last - part.first, averages)
        if not weighed:
            raise DataError(f"every row of epoch {epoch} has a weight of 0: give some row a weight")
        require_finite_parameters(progress.model, f"after epoch {epoch}")
        compile_seconds = self.programs.seconds - compiled
        seconds = time.perf_counter() - begun - compile_seconds
        times = {"seconds": seconds, "compile_seconds": compile_seconds}
        return progress, self.row(progress, epoch, averages, times)

    def divergence(self, value: float, epoch: int, first: int, last: int, sums: Sums, progress: Progress):
        """What a training that lost its numbers says."""
        lost = find_lost_parameters(progress.model)
        where = f"at batch {int(sums.lost)}" if int(sums.lost) >= 0 else f"between batches {first} and {last}"
        parts = f", and parameters of {', '.join(map(repr, lost))} are no numbers" if lost else ""
        return DivergenceError(
            f"the {self.objective.title} became {value} in epoch {epoch}, {where} (counted from 0){parts}: lower the "
            "learning rate or the nudge strength; earlier epochs are kept"
        )

    def test(self, learner: Learner, part: str) -> Evaluation:
        """Test one part of the data."""
        return evaluate(learner, self.sources[part], metrics=self.metrics, batch=TESTED)

    def row(
        self, progress: Progress, epoch: int, averages: dict[str, float], times: dict[str, float]
    ) -> dict[str, Any]:
        """The log's line of one epoch."""
        row = {"epoch": epoch, "first_cost": self.first_cost, **name_averages("train", averages)}
        if "validation" in self.sources:
            tested = self.test(progress.as_learner(self.learner), "validation")
            row |= {**name_averages("validation", tested.averages), "validation_settled": tested.settled}
        if self.regime is not None:
            learner = progress.as_learner(self.learner)
            found = self.regime(learner.dynamics, learner.graph, self.probe, learner.solver, learner.rule)
            row |= name_regime(found)
        row |= times
        return {**row, "warnings": [alarm.message for alarm in find_alarms(row, self.ending)]}

    def result(self, progress: Progress, best: Learner, best_row, history: History) -> dict[str, Any]:
        """What the last epoch says, and tests of it and of the epoch that validation chose."""
        last, found = history[-1], {}
        if "test" in self.sources:
            tested = self.test(progress.as_learner(self.learner), "test")
            found |= {**name_averages("test", tested.averages), "test_settled": tested.settled}
            if "validation" in self.sources:
                selected = tested if best_row is last else self.test(best, "test")
                found |= name_averages("selected_test", selected.averages)
        part = "validation" if "validation" in self.sources else "train"
        names = [*(f"{part}_{metric.name}" for metric in self.metrics), *(metric.name for metric in RELAXATION_METRICS)]
        found["selected_epoch"] = best_row["epoch"]
        if "gradient_cosine" in last:
            names += ["gradient_cosine", "reference"]
            found["least_gradient_cosine"] = min(row["gradient_cosine"] for row in history if "gradient_cosine" in row)
        return {
            **found,
            **{name: last[name] for name in names},
            "epochs": len(history),
            **{name: sum(row[name] for row in history) for name in ("seconds", "compile_seconds")},
            "warnings": gather_alarms(history, self.ending),
        }


def copy_progress(progress: Progress) -> Progress:
    """The same numbers in memory of their own: what an epoch is given, it uses up."""
    return jax.tree.map(lambda a: jnp.copy(a) if eqx.is_array(a) else a, progress)
