"""Whether feedback keeps relaxations from exploding: a net in training, at ever longer steps of the states.

The states take a fixed number of plain steps, as in Chen et al. 2025, under predictive coding, under the same with a
weaker nudge, and under both bidirectional energies. The step is the same for all: a multiple of the longest that
predictive coding stands at the initial weights, 2 / curvature. What a training stands is seen from the relaxations that
explode; beside it stands step times curvature, which of a quadratic energy explodes above 2.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import energax as ex
from energax import rules
from energax.data import Dataset
from energax.dynamics.base import AbstractDynamics
from energax.graph.structure import AnyGraph
from energax.papers.cells import Cells
from energax.papers.chen2025.grid import NETS, make_choice
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.names import require_name
from energax.papers.pictures import QUIET, panels
from energax.papers.tables import Table
from energax.papers.training import keep_rows, train_net
from energax.recipes import make_learner
from energax.solvers import StateCoordinates, Unbounded
from energax.solvers.spectrum import largest_curvature
from energax.training.learner import Learner, Progress
from energax.training.rows import make_device_split

COST = ex.CrossEntropy()


@dataclasses.dataclass(frozen=True)
class Energy:
    """What is relaxed.

    Attributes:
        title: in pictures and tables.
        make: makes the energy.
        beta: nudge strength.
    """

    title: str
    make: Callable[[], AbstractDynamics]
    beta: float = 1.0


ENERGIES = {
    "hpc": Energy("HPC", lambda: ex.PredictiveCoding(COST)),
    "hpc-weak": Energy("HPC, beta = .1", lambda: ex.PredictiveCoding(COST), 0.1),
    "skew": Energy("skew feedback", ex.SkewFeedback),
    "balanced": Energy("balanced feedback", ex.BalancedFeedback),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the experiment depends on.

    Attributes:
        data: data set, pixels normalised per channel.
        net: a key of `NETS`; a recurrent one unless another is given, as conv or chain.
        width: factor of its units or channels, where it is a paper's.
        length: steps of time, where it is recurrent.
        steps: of the states, each relaxation.
        multiples: steps of the states over 2 / curvature of predictive coding at the initial weights.
        optimiser: of the parameters.
        rate: its learning rate, the paper's.
        epochs: passes over the training rows.
        rows: of the training split, from the first.
        stretches: points per epoch.
        batch: rows per update.
        seeds: number of seeds, from 0.
    """

    data: str = "mnist"
    net: str = "scrn-dense"
    width: float = 1.0
    length: int = 6
    steps: int = 30
    multiples: tuple[float, ...] = (0.125, 0.25, 0.35, 0.5, 0.7, 1.0)
    optimiser: str = "adam"
    rate: float = 0.01
    epochs: int = 4
    rows: int = 4096
    stretches: int = 4
    batch: int = 64
    seeds: int = 4


@eqx.filter_jit
def measure_curvature(dynamics: AbstractDynamics, graph: AnyGraph, batch: ex.Batch, beta: float) -> jax.Array:
    """The largest curvature of F where the nudged phase begins, averaged over the batch."""
    phase = ex.prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=jnp.asarray(beta))
    start = phase.start()
    view, point = StateCoordinates().view(phase, start)
    return jnp.mean(largest_curvature(view, point))


def make_plain_steps(settings: Settings, size: float) -> ex.GradientFlow:
    """A counted number of steps of one size, whatever becomes of them."""
    return ex.GradientFlow(step_size=size, stop=ex.Stopping(1e-2, settings.steps, 0), bound=Unbounded())


def make_learners(settings: Settings, data: Dataset) -> Iterator[tuple[dict[str, Any], Learner]]:
    """Every training and where it stands: backprop's, and every energy's at every step, by seeds.

    They share one optimiser, so that what is compiled for one of them serves the others of its energy.
    """
    net, size = require_name("net", settings.net, NETS), (settings.batch, settings.width, settings.length)
    choice = make_choice(net, "backprop", settings.optimiser, settings.rate, *size)
    exact, _ = make_learner("backprop", data.image_shape, data.classes, seed=0, settings=choice)
    first = make_device_split(data, data.train, standardise=True).batch(jnp.arange(settings.batch))
    for seed in range(settings.seeds):
        graph = make_learner("backprop", data.image_shape, data.classes, seed=seed, settings=choice)[0].graph
        yield {"energy": "backprop", "seed": seed}, dataclasses.replace(exact, graph=graph)
        limit = 2 / float(measure_curvature(ENERGIES["hpc"].make(), graph, first, 1.0))
        for (key, energy), multiple in itertools.product(ENERGIES.items(), settings.multiples):
            dynamics, step = energy.make(), multiple * limit
            rule = rules.Contrastive(rules.unit_nudge() if energy.beta == 1 else rules.nudge(energy.beta))
            curvature = float(measure_curvature(dynamics, graph, first, energy.beta))
            facts = {"energy": key, "multiple": multiple, "seed": seed, "step": step, "first_curvature": curvature}
            solver = make_plain_steps(settings, step)
            yield facts, dataclasses.replace(exact, graph=graph, dynamics=dynamics, solver=solver, rule=rule)


def train_cell(settings: Settings, cells: Cells, name: str, data: Dataset, seed: int, learner: Learner, beta: float):
    """One training, of which the largest curvature is measured after every stretch."""

    def measure(progress: Progress, batch: ex.Batch) -> dict[str, float]:
        model = progress.model
        return {"curvature": float(measure_curvature(model.dynamics, model.graph, batch, beta))}

    return train_net(
        cells,
        name,
        learner,
        data,
        epochs=settings.epochs,
        stretches=settings.stretches,
        seed=seed,
        measure=measure,
        batch=settings.batch,
        standardise=True,
        tested="validation",
    )


def train_cells(settings: Settings, cells: Cells) -> list[dict[str, Any]]:
    """All trainings."""
    data, found = keep_rows(ex.load_data(settings.data), settings.rows), []
    for facts, learner in make_learners(settings, data):
        seed, beta = facts["seed"], ENERGIES[facts["energy"]].beta if facts["energy"] in ENERGIES else 0.0
        name = "-".join(f"{facts[key]}" for key in ("energy", "multiple", "seed") if key in facts)
        given = (settings, cells, name, data, seed, learner, beta)
        found.append({**facts, **cells(name, lambda given=given: train_cell(*given))})
    return found


def run(settings: Settings, cells: Cells) -> Numbers:
    """All trainings."""
    return {"cells": train_cells(settings, cells), "steps": settings.steps}


EXPLODED = 0.01
"""Share of the relaxations of a stretch of training from which on it counts as exploding."""


def select(numbers: Numbers, energy: str, multiple: float | None = None) -> list[dict[str, Any]]:
    """The cells of an energy, or of a step of it."""
    own = [cell for cell in numbers["cells"] if cell["energy"] == energy]
    return own if multiple is None else [cell for cell in own if cell["multiple"] == multiple]


def list_multiples(numbers: Numbers) -> list[float]:
    """The steps that were tried."""
    return sorted({cell["multiple"] for cell in numbers["cells"] if cell["energy"] != "backprop"})


def worst(cell: dict[str, Any]) -> float:
    """The largest share of exploded relaxations of any stretch."""
    return max(row["diverged"] for row in cell["rows"])


def accuracy(cells: Sequence[dict[str, Any]]) -> float:
    """Validation accuracy of the last epoch, mean over seeds, in per cent."""
    return 100 * statistics.fmean(cell["validation_accuracy"][-1] for cell in cells)


def stands(numbers: Numbers, energy: str) -> float:
    """The longest step, as a multiple, up to which no training explodes; 0 where the shortest does."""
    longest = 0.0
    for multiple in list_multiples(numbers):
        if max(worst(cell) for cell in select(numbers, energy, multiple)) >= EXPLODED:
            break
        longest = multiple
    return longest


def products(numbers: Numbers, energy: str) -> tuple[list[float], list[float]]:
    """Step times curvature of all stretches that are calm, and of those that explode.

    A stretch's curvature is the larger of those before and after it: early in training it triples within a stretch.
    """
    calm, exploding = [], []
    for cell in select(numbers, energy):
        before = cell["first_curvature"]
        for row in cell["rows"]:
            after = row["curvature"] if row["curvature"] is not None else math.inf
            (exploding if row["diverged"] >= EXPLODED else calm).append(cell["step"] * max(before, after))
            before = after
    return calm, exploding


def judge(numbers: Numbers) -> list[Judgement]:
    """What a training stands, why, and at what price."""
    longest = {key: stands(numbers, key) for key in ENERGIES}
    border = {}
    for key, energy in ENERGIES.items():
        calm, exploding = products(numbers, key)
        border[key] = f"{energy.title} calm up to {max(calm, default=0):.2g}" + (
            f", exploding from {min(exploding):.2g}" if exploding else ""
        )
    exact = accuracy(select(numbers, "backprop"))
    best = {
        key: max(accuracy(select(numbers, key, multiple)) for multiple in list_multiples(numbers)) for key in ENERGIES
    }
    early = [min(found) for key in ENERGIES if (found := products(numbers, key)[1])]
    told = ", ".join(f"{ENERGIES[key].title} {value:g}" for key, value in longest.items())
    return [
        judge_claim(
            "section 6.2",
            "a bidirectional energy stands longer steps of the states in training than HPC",
            min(longest["skew"], longest["balanced"]) > longest["hpc"],
            f"longest step without explosions, times 2 / HPC's first curvature: {told}",
        ),
        judge_claim(
            "energax",
            "so does HPC with a weaker nudge, as much as the better of the two",
            longest["hpc-weak"] >= max(longest["skew"], longest["balanced"]),
            f"the same: {told}",
        ),
        judge_claim(
            "energax",
            "no relaxation explodes at less than 1.5 / curvature, whatever the energy",
            not early or min(early) > 1.5,
            f"step times curvature: {'; '.join(border.values())}",
        ),
        judge_claim(
            "energax",
            "at its best step every energy is within 2 points of backprop",
            min(best.values()) > exact - 2,
            f"validation accuracy of the last epoch, %: backprop {exact:.2f}, "
            + ", ".join(f"{ENERGIES[key].title} {value:.2f}" for key, value in best.items()),
        ),
    ]


def draw(numbers: Numbers):
    """Exploded relaxations, accuracy, and curvature over the course, by energy."""
    figure, (left, middle, right) = panels(3)
    steps = list_multiples(numbers)
    for index, (key, energy) in enumerate(ENERGIES.items()):
        style = {"marker": "o", "markersize": 3, "color": f"C{index}", "label": energy.title}
        groups = [select(numbers, key, multiple) for multiple in steps]
        left.plot(steps, [100 * statistics.fmean(worst(cell) for cell in group) for group in groups], **style)
        middle.plot(steps, [accuracy(group) for group in groups], **style)
        course = select(numbers, key, steps[0])
        epochs = [0.0, *(row["epoch"] for row in course[0]["rows"])]
        curvature = [statistics.fmean(cell["first_curvature"] for cell in course)]
        curvature += [
            statistics.fmean(row["curvature"] for row in rows)
            for rows in zip(*(cell["rows"] for cell in course), strict=True)
        ]
        right.plot(epochs, curvature, **style)
    middle.axhline(accuracy(select(numbers, "backprop")), color="0.5", linestyle=":", label="backprop")
    left.set(title="relaxations that explode, worst stretch, %", xscale="log")
    middle.set(title="validation accuracy, last epoch, %", xscale="log")
    for at in (left, middle):
        at.set_xlabel("step / (2 / first curvature of HPC)")
    right.set(title=f"largest curvature, step {steps[0]:g}", xlabel="epoch", yscale="log")
    middle.legend(**QUIET)
    return figure


def tabulate(numbers: Numbers) -> Table:
    """Every energy at every step: means over seeds."""
    lines = []
    for key, energy in ENERGIES.items():
        for multiple in list_multiples(numbers):
            group = select(numbers, key, multiple)
            ends = [cell["rows"][-1]["curvature"] for cell in group]
            end = "-" if None in ends else f"{statistics.fmean(ends):.3g}"
            lines.append(
                [
                    energy.title,
                    f"{multiple:g}",
                    f"{statistics.fmean(cell['step'] for cell in group):.3g}",
                    f"{statistics.fmean(cell['first_curvature'] for cell in group):.3g}",
                    end,
                    f"{100 * statistics.fmean(worst(cell) for cell in group):.1f}",
                    f"{accuracy(group):.2f}",
                    str(len(group)),
                ]
            )
    headings = ["energy", "multiple", "step", "curvature, first", "last", "exploded % (worst stretch)"]
    return Table("Steps that a training stands", [*headings, "validation %, last epoch", "seeds"], lines)


EXPERIMENT = Experiment(
    name="beyond-stability",
    small_decides=False,  # curvatures of a net that learns 512 digits grow too little to tell the energies apart
    paper="Chen et al. 2025",
    summary="steps of the states at which relaxations explode in training: HPC, weaker nudges, feedback",
    small=Settings(data="digits", length=4, multiples=(0.25, 0.5, 1.0), rows=256, stretches=2, seeds=1),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
    tabulate=tabulate,
)
