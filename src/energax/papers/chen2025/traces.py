"""Trainings followed every few batches: the cost, and norms of parameters, gradient and step, layer by layer."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import equinox as eqx
import jax

import energax as ex
from energax.data import Dataset
from energax.dynamics.model import select_parameters
from energax.graph.groups import group_norms
from energax.papers.cells import Cells
from energax.papers.chen2025.grid import METHODS, make_choice
from energax.papers.training import Measure, keep_rows, train_net
from energax.recipes import make_learner
from energax.training.learner import Learner, Progress


@dataclasses.dataclass(frozen=True)
class TraceSettings:
    """What the trainings of a figure share.

    Attributes:
        net: network, as in Table 3.
        width, length: of it.
        epochs: passes over the training rows.
        rows: of the training split, from the first.
        stretches: points per epoch.
        batch: rows per update.
        seed: fixes parameters and the order of the rows.
    """

    net: str
    width: float = 0.125
    length: int = 6
    epochs: int = 6
    rows: int = 2048
    stretches: int = 8
    batch: int = 64
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Trace(TraceSettings):
    """One training to be traced.

    Attributes:
        data, method, optimiser: names, as in a grid.
        rate: learning rate.
    """

    data: str = ""
    method: str = ""
    optimiser: str = ""
    rate: float = 0.0

    @classmethod
    def of(cls, settings: TraceSettings, data: str, method: str, optimiser: str, rate: float) -> "Trace":
        """The trace with what the trainings of a figure share."""
        shared = {field.name: getattr(settings, field.name) for field in dataclasses.fields(TraceSettings)}
        return cls(**shared, data=data, method=method, optimiser=optimiser, rate=rate)

    @property
    def name(self) -> str:
        """What its cell is called."""
        return f"{self.data}-{self.net}-{self.method}-{self.optimiser}-{self.rate:g}-{self.seed}"

    def prepare(self) -> tuple[Learner, Dataset]:
        """What is trained, and on what."""
        data = keep_rows(ex.load_data(self.data), self.rows)
        choice = make_choice(self.net, self.method, self.optimiser, self.rate, self.batch, self.width, self.length)
        recipe = METHODS[self.method][0]
        learner, _ = make_learner(recipe, data.image_shape, data.classes, seed=self.seed, settings=choice)
        return learner, data


@eqx.filter_jit
def measure_norms(learner: Learner, progress: Progress, batch: ex.Batch) -> dict[str, dict[str, jax.Array]]:
    """Norms of the parameters, the gradient and the optimiser's step of every function, on one batch."""
    model, rule = progress.model, learner.rule
    carry = rule.init(model.dynamics, model.graph, batch)
    found = rule(model.dynamics, model.graph, batch, progress.solver, carry)[0]
    gradient, parameters = (cast(Any, select_parameters(tree, learner.freeze)) for tree in (found, model))
    step, _ = learner.optimiser.update(gradient, progress.optimiser, parameters)
    return {"weights": group_norms(parameters), "gradient": group_norms(gradient), "step": group_norms(step)}


def follow_norms(learner: Learner) -> Measure:
    """Measure the norms as plain numbers."""

    def measure(progress: Progress, batch: ex.Batch) -> dict[str, Any]:
        norms = measure_norms(learner, progress, batch)
        return {kind: {name: float(value) for name, value in own.items()} for kind, own in norms.items()}

    return measure


def follow_costs(learner: Learner) -> Measure:
    """Measure nothing besides what every point of a course has: half as much to compile."""
    return lambda progress, batch: {}


def train_trace(cells: Cells, trace: Trace, follow: Callable[[Learner], Measure]) -> dict[str, Any]:
    """Train: `rows`, a point of the course each, with what is measured; and the accuracy after every epoch.

    A training goes on when its cost is no number any more: what is no number is None in the cell.
    """
    learner, data = trace.prepare()
    found = train_net(
        cells,
        trace.name,
        learner,
        data,
        epochs=trace.epochs,
        stretches=trace.stretches,
        seed=trace.seed,
        measure=follow(learner),
        batch=trace.batch,
        standardise=True,
        augment=True,
    )
    return {"method": trace.method, "optimiser": trace.optimiser, "rate": trace.rate, "data": trace.data, **found}


def run_traces(
    cells: Cells, traces: Sequence[Trace], follow: Callable[[Learner], Measure] = follow_norms
) -> list[dict[str, Any]]:
    """All of them, in order; `follow` makes of a learner what is measured at every point of its course."""
    return [cells(trace.name, lambda trace=trace: train_trace(cells, trace, follow)) for trace in traces]


def finite_costs(trace: dict[str, Any]) -> list[float]:
    """The course of the training cost; infinite where it is no number."""
    return [math.inf if row["cost"] is None else row["cost"] for row in trace["rows"]]
