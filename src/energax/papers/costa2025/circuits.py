"""What experiments on circuits share: weights of given signs, certified trainings, and their numbers."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

import energax as ex
from energax.certificates import certify
from energax.data import Dataset
from energax.dynamics.directed import as_graph
from energax.graph import EdgeList
from energax.papers.cells import Cells
from energax.papers.training import Row, fit_cell
from energax.solvers import certified_flow

SOLVER = certified_flow(ex.Stopping(1e-2, 500, check_every=5))
BATCH = 50
HEADINGS = ["test %, last epoch", "from least to most", "seeds", "certified", "converged %", "cosine", "seconds"]


def draw_weights(edges: EdgeList, signs: np.ndarray, key: PRNGKeyArray) -> np.ndarray:
    """Half-normal sizes over the root of the number of synapses that reach the target, with signs."""
    entering = np.bincount(edges.targets, minlength=len(edges.names))
    sizes = np.abs(np.asarray(jax.random.normal(key, (len(edges),))))
    return signs * sizes / np.sqrt(entering)[edges.targets]


def train_circuit(cells: Cells, name: str, learner: ex.Learner, data: Dataset, **plan: Any) -> Row:
    """One training; `before` and `after` it, the criterion that certifies the net, or none."""
    before = name_criterion(learner)
    row = fit_cell(
        cells, name, learner, data, examine=lambda trained: {"after": name_criterion(trained)}, batch=BATCH, **plan
    )
    return {"before": before, **row}


def name_criterion(learner: ex.Learner) -> str:
    """The criterion that certifies the net, or none."""
    return eqx.filter_jit(certify)(learner.dynamics, as_graph(learner.graph)).criterion


def is_certified(row: Row) -> bool:
    """Whether the net was certified before and after its training."""
    return "none" not in (row["before"], row.get("after", "none"))


def gather(rows: Sequence[Row], names: Sequence[str]) -> dict[tuple, list[Row]]:
    """Seeds together, by the values under these names, in the order in which they come up."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return {key: sorted(found, key=lambda row: row["seed"]) for key, found in groups.items()}


def accuracies(rows: Iterable[Row]) -> list[float]:
    """Test accuracies of the last epoch in per cent; 0 for a training that diverged."""
    return [0.0 if row["diverged"] is not None else 100 * row["test_accuracy"] for row in rows]


def gains(own: Sequence[Row], others: Sequence[Row]) -> list[float]:
    """Points of test accuracy above the others, seed by seed; no gain over a training that diverged."""
    return [
        min(a - b, 0.0) if other["diverged"] is not None else a - b
        for a, b, other in zip(accuracies(own), accuracies(others), others, strict=True)
    ]


def average_course(rows: Iterable[Row]) -> list[float]:
    """Validation accuracy of every epoch in per cent, mean over the seeds that did not diverge."""
    known = [row["history"] for row in rows if row["diverged"] is None]
    return [100 * statistics.fmean(one["validation_accuracy"] for one in epoch) for epoch in zip(*known, strict=True)]


def describe(rows: Sequence[Row]) -> list[str]:
    """What stands under `HEADINGS`."""
    tests, sound = accuracies(rows), [row for row in rows if row["diverged"] is None]
    spread = f" ± {statistics.stdev(tests):.2f}" if len(tests) > 1 else ""
    measured = (
        [
            f"{100 * statistics.fmean(row['converged_fraction'] for row in sound):.2f}",
            f"{statistics.fmean(row['gradient_cosine'] for row in sound):.2f}",
            f"{statistics.median(row['seconds'] for row in sound):.0f}",
        ]
        if sound
        else ["-"] * 3
    )
    return [
        f"{statistics.fmean(tests):.2f}{spread}",
        f"{min(tests):.1f} to {max(tests):.1f}",
        str(len(rows)),
        str(sum(map(is_certified, rows))),
        *measured,
    ]
