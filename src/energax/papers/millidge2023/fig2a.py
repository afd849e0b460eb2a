"""Figure 2A: internal, supervised and total energy while the clamped phase relaxes from the free equilibrium."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import energax as ex
from energax.papers.cells import Cells
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.fits import order
from energax.papers.millidge2023.common import (
    PAPER,
    energy,
    first_rows,
    network,
    nudge_net,
    over_seeds,
    print_values,
    printed_solver,
)
from energax.papers.pictures import QUIET, band, panels
from energax.solvers import trace


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the figure depends on.

    Attributes:
        data: data set.
        rows: training images that the energies are averaged over.
        seeds: initialisations.
        beta: weight of the cost (the paper's lambda).
        step: step size of the relaxation.
        steps: number of steps.
        short: step sizes at which the first step is compared with the slope.
    """

    data: str = "mnist"
    rows: int = 64
    seeds: tuple[int, ...] = tuple(range(10))
    beta: float = 1.0
    step: float = 0.1
    steps: int = 50
    short: tuple[float, ...] = tuple(np.logspace(-6, -1.5, 10).tolist())


ENERGIES = {"internal": "internal energy E", "supervised": "supervised loss C", "total": "total energy F"}


@eqx.filter_jit
def energies(graph, batch, beta, step, steps: int) -> dict:
    """E, beta C and F averaged over the batch, before and after each step."""
    phase, start = nudge_net(graph, batch, beta)

    def observe(states):
        supervised = jnp.mean(beta * phase.cost(states, batch.y))
        total = jnp.mean(phase.energy(states))
        internal = jnp.mean(energy().energy(phase, states))
        return {"internal": internal, "supervised": supervised, "total": total}

    return trace(printed_solver(step, steps), phase, start, steps, observe)[1]


@eqx.filter_jit
def slopes(graph, batch, beta) -> dict:
    """dF/dt and beta dC/dt at t = 0, averaged over the batch."""
    phase, start = nudge_net(graph, batch, beta)
    force = phase.force(start.states)
    total = jax.jvp(lambda v: jnp.mean(phase.energy(v)), (start.states,), (force,))[1]
    supervised = jax.jvp(lambda v: jnp.mean(beta * phase.cost(v, batch.y)), (start.states,), (force,))[1]
    return {"total": total, "supervised": supervised}


def one_seed(settings: Settings, data, seed: int) -> dict:
    """The traces, the slopes at t = 0, and how far one short step departs from them."""
    graph, batch, beta = network(data, seed), first_rows(data, settings.rows), jnp.asarray(settings.beta)
    traced = energies(graph, batch, beta, jnp.asarray(settings.step), settings.steps)
    departures = []
    for step in settings.short:
        one = energies(graph, batch, beta, jnp.asarray(step), 1)
        change = {name: float(values[1] - values[0]) for name, values in one.items()}
        departures.append(abs(change["internal"] / change["supervised"]))
    return {
        "trace": {name: np.asarray(values).tolist() for name, values in traced.items()},
        "slope": {name: float(value) for name, value in slopes(graph, batch, beta).items()},
        "departure": departures,
    }


def run(settings: Settings, cells: Cells) -> Numbers:
    """All seeds, in float64."""
    with jax.enable_x64(True):
        data = ex.load_data(settings.data)
        seeds = [cells(f"seed{seed}", lambda seed=seed: one_seed(settings, data, seed)) for seed in settings.seeds]
    return {"data": data.origin, "step": settings.step, "short": settings.short, "seeds": seeds}


def draw(numbers: Numbers) -> Figure:
    """The energies as the paper draws them, and the first step against its slope."""
    figure, (course, first) = panels(2)
    time = np.arange(len(numbers["seeds"][0]["trace"]["total"]))
    for index, (name, label) in enumerate(ENERGIES.items()):
        mean, spread = over_seeds([one["trace"][name] for one in numbers["seeds"]])
        band(course, time, mean, spread, color=f"C{index}", label=label)
    mean = float(np.mean([one["slope"]["supervised"] for one in numbers["seeds"]]))
    begin = float(np.mean([one["trace"]["supervised"][0] for one in numbers["seeds"]]))
    steep = time[:9]
    course.plot(
        steep, begin + mean * numbers["step"] * steep, color="k", linestyle=":", label="slope of C at the start"
    )
    course.set(xlabel="relaxation step", ylabel="energy", title="A  energies from the free equilibrium", ylim=(0, None))
    course.legend(**QUIET)
    for one in numbers["seeds"]:
        first.loglog(numbers["short"], one["departure"], color="C2", alpha=0.5, marker="o", markersize=3)
    first.set(xlabel="size of the first step", ylabel="|dE / dC|", title="first step: dF = dC up to the step's size")
    return figure


def judge(numbers: Numbers) -> list[Judgement]:
    """The caption's four statements."""
    seeds = numbers["seeds"]
    internal, supervised, total = (np.asarray([one["trace"][name] for one in seeds]) for name in ENERGIES)
    rises = np.maximum(np.diff(total, axis=1), 0).max(1) / (total[:, 0] - total[:, -1])
    ratio = [one["slope"]["total"] / one["slope"]["supervised"] - 1 for one in seeds]
    fits = [order(numbers["short"], one["departure"])[0] for one in seeds]
    where = "Fig. 2A"
    return [
        judge_claim(
            where,
            "the internal energy starts at 0 and rises",
            bool(np.all(internal[:, 0] == 0) and np.all(internal[:, -1] > 0) and np.all(internal[:, 1] > 0)),
            f"0 at the start, {print_values(internal[:, -1].tolist())} at the end",
        ),
        judge_claim(
            where,
            "the supervised loss falls",
            bool(np.all(supervised[:, -1] < supervised[:, 0])),
            f"from {print_values(supervised[:, 0].tolist())} to {print_values(supervised[:, -1].tolist())}",
        ),
        judge_claim(
            where,
            "the total energy falls",
            bool(np.all(total[:, -1] < total[:, 0]) and np.all(rises < 1e-2)),
            f"by {print_values((1 - total[:, -1] / total[:, 0]).tolist())} of itself; largest rise in a step "
            f"{rises.max():.1g} of the fall (kinks of ReLU)",
        ),
        judge_claim(
            where,
            "at the start the total energy changes as the supervised loss does",
            bool(np.all(np.abs(ratio) < 1e-12)),
            f"slopes differ by {max(map(abs, ratio)):.1g} of themselves",
        ),
        judge_claim(
            "energax",
            "after a step of size h they differ by a share of order h",
            bool(np.all(np.abs(np.asarray(fits) - 1) < 0.05)),
            f"log-log slope {print_values(fits, 4)} over seeds",
        ),
    ]


EXPERIMENT = Experiment(
    name="millidge2023-fig2a",
    paper=PAPER,
    summary="internal, supervised and total energy while the clamped phase relaxes",
    small=Settings(data="digits", seeds=(0, 1, 2)),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
)
