"""Figure 2C: distance between the gradients against distance between the equilibria, for several initialisations."""

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
    backprop,
    converged_solver,
    distance,
    first_rows,
    network,
    nudge_net,
    print_values,
    printed_solver,
)
from energax.papers.pictures import QUIET, panels
from energax.rules.base import energy_gradient


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the figure depends on.

    Attributes:
        data: data set; its first training image is used.
        seeds: initialisations.
        betas: weights of the cost (the paper's lambda), which set the distance of the equilibria.
        tol: relative residual of the converged relaxation.
        steps: bound on its steps.
    """

    data: str = "mnist"
    seeds: tuple[int, ...] = tuple(range(10))
    betas: tuple[float, ...] = tuple(np.logspace(-4, 0, 13).tolist())
    tol: float = 1e-8
    steps: int = 4000


@eqx.filter_jit
def distances(graph, batch, beta, solver) -> tuple:
    """Distances of equilibria, summed over layers, and of gradients, over all parameters (A.2.1)."""
    phase, start = nudge_net(graph, batch, beta)
    settled = solver.solve(phase, start)
    exact = backprop(graph, batch)
    found = energy_gradient(phase, settled.states, jnp.ones(1) / beta)
    moved = sum(jnp.linalg.norm(settled.states[name] - v) for name, v in start.states.items())
    return moved, distance(found, exact), jnp.mean(settled.result <= 1)


def one_seed(settings: Settings, data, seed: int) -> dict:
    """Both relaxations, every weight of the cost."""
    graph, batch = network(data, seed), first_rows(data, 1)
    solvers = {"converged": converged_solver(settings.tol, settings.steps), "printed": printed_solver()}
    found = {}
    for name, solver in solvers.items():
        rows = [distances(graph, batch, jnp.asarray(beta), solver) for beta in settings.betas]
        found[name] = [[float(value) for value in row] for row in rows]
    return found


def run(settings: Settings, cells: Cells) -> Numbers:
    """All initialisations, in float64."""
    with jax.enable_x64(True):
        data = ex.load_data(settings.data)
        seeds = [cells(f"seed{seed}", lambda seed=seed: one_seed(settings, data, seed)) for seed in settings.seeds]
    return {"data": data.origin, "betas": settings.betas, "seeds": seeds}


TITLES = {"converged": "C  relaxed to equilibrium", "printed": "as printed: 50 steps of .1"}


def draw(numbers: Numbers) -> Figure:
    """One line per initialisation, in both relaxations."""
    figure, axes = panels(3)
    for one in numbers["seeds"]:
        for panel, name in zip(axes, ("converged", "converged", "printed"), strict=True):
            moved, apart, _ = zip(*one[name], strict=True)
            panel.plot(moved, apart, marker="o", markersize=3, alpha=0.7)
    for panel, title in zip(
        axes, ("C  relaxed to equilibrium", "the same, logarithmic", TITLES["printed"]), strict=True
    ):
        panel.set(xlabel="distance of the equilibria", ylabel="distance of the gradients", title=title)
    for panel in axes[1:]:
        panel.set(xscale="log", yscale="log")
    low, high = axes[1].get_xlim()
    scale = np.median([one["converged"][0][1] / one["converged"][0][0] for one in numbers["seeds"]])
    axes[1].plot([low, high], [scale * low, scale * high], "k:", label="slope 1")
    axes[1].legend(**QUIET)
    return figure


def judge(numbers: Numbers) -> list[Judgement]:
    """The slope when relaxed, and what 50 steps leave."""
    slopes, unsettled, floors = [], 0, []
    for one in numbers["seeds"]:
        moved, apart, settled = zip(*one["converged"], strict=True)
        slopes.append(order(moved, apart)[0])
        unsettled += sum(share < 1 for share in settled)
        floors.append(min(row[1] for row in one["printed"]) / min(apart))
    claim = "the distance of the gradients grows linearly with the distance of the equilibria"
    found = (
        f"log-log slopes {print_values(slopes, 5)} over {len(slopes)} initialisations, "
        "at distances of gradients below .01"
    )
    within = all(abs(slope - 1) <= 0.05 for slope in slopes)
    change = "relaxed to equilibrium; the paper's 50 steps of .1 leave a floor"
    return [
        judge_claim("Fig. 2C", claim, within and not unsettled, found, change=change, tried="relaxed to equilibrium"),
        judge_claim(
            "energax",
            "with 50 steps of .1 the distance of the gradients has a floor that no lambda removes",
            min(floors) > 10,
            f"{print_values(floors, 2)} times the least distance of the converged relaxation",
        ),
    ]


EXPERIMENT = Experiment(
    name="millidge2023-fig2c",
    paper=PAPER,
    summary="distance of the gradients against distance of the equilibria",
    small=Settings(data="digits", seeds=(0, 1, 2, 3)),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
)
