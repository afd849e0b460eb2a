"""Figure 3A: distance between the gradients of PC-Nudge and backprop against lambda, at initialisation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import energax as ex
from energax import rules
from energax.papers.cells import Cells
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.fits import power, straightness
from energax.papers.millidge2023.common import (
    PAPER,
    backprop,
    converged_solver,
    distance,
    energy,
    first_rows,
    gradient,
    network,
    over_seeds,
    print_values,
    printed_solver,
)
from energax.papers.pictures import QUIET, band, panels


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the figure depends on.

    Attributes:
        data: data set.
        rows: training images that the gradient is averaged over.
        seeds: initialisations.
        betas: weights of the cost (the paper's lambda).
        tol: relative residual of the converged relaxation.
        steps: bound on its steps.
    """

    data: str = "mnist"
    rows: int = 512
    seeds: tuple[int, ...] = tuple(range(10))
    betas: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, *np.linspace(0.01, 0.1, 10).tolist())
    tol: float = 1e-7
    steps: int = 3000


RELAXATIONS = {
    "converged": "relaxed to equilibrium",
    "smooth": "the same with tanh units",
    "printed": "as printed: 50 steps of .1",
}


def one_seed(settings: Settings, data, seed: int) -> dict:
    """Distances over all parameters, in both relaxations."""
    batch, careful = first_rows(data, settings.rows), converged_solver(settings.tol, settings.steps)
    relu, tanh = (network(data, seed, activation) for activation in (jax.nn.relu, jnp.tanh))
    found = {}
    for name, graph, solver in (
        ("converged", relu, careful),
        ("smooth", tanh, careful),
        ("printed", relu, printed_solver()),
    ):
        exact = backprop(graph, batch)
        schemes = [rules.nudge(beta) for beta in settings.betas]
        gradients = [gradient(rules.Contrastive(one), energy(), graph, batch, solver) for one in schemes]
        found[name] = [float(distance(one, exact)) for one in gradients]
    return found


def run(settings: Settings, cells: Cells) -> Numbers:
    """All initialisations, in float64."""
    with jax.enable_x64(True):
        data = ex.load_data(settings.data)
        seeds = [cells(f"seed{seed}", lambda seed=seed: one_seed(settings, data, seed)) for seed in settings.seeds]
    return {"data": data.origin, "betas": settings.betas, "seeds": seeds}


def draw(numbers: Numbers) -> Figure:
    """Mean and standard deviation over the initialisations, linear as in the paper and logarithmic."""
    figure, (linear, log) = panels(2)
    for index, (name, label) in enumerate(RELAXATIONS.items()):
        mean, spread = over_seeds([one[name] for one in numbers["seeds"]])
        for axes in (linear, log):
            band(axes, numbers["betas"], mean, spread, color=f"C{index}", marker="o", markersize=3, label=label)
    linear.set(title="A  distance to backprop's gradient", ylim=(0, None), xlim=(0, None))
    log.set(xscale="log", yscale="log", title="the same, logarithmic")
    for axes in (linear, log):
        axes.set(xlabel="lambda", ylabel="distance of the gradients")
        axes.legend(**QUIET)
    return figure


def judge(numbers: Numbers) -> list[Judgement]:
    """Linearity of the mean over seeds, as drawn, and of every seed."""
    betas, seeds = numbers["betas"], numbers["seeds"]
    mean = {name: over_seeds([one[name] for one in seeds])[0] for name in RELAXATIONS}
    each = {name: [straightness(betas, one[name]) for one in seeds] for name in RELAXATIONS}
    straight = straightness(betas, mean["converged"])
    slopes = [power(betas, one["smooth"]) for one in seeds]
    floors = [min(one["printed"]) / min(one["converged"]) for one in seeds]
    return [
        judge_claim(
            "Fig. 3A",
            f"the distance between PC-Nudge's gradient and backprop's is linear in lambda, here up to {betas[-1]:g}",
            straight > 0.99,
            f"R^2 {straight:.4f} of the mean over {len(seeds)} initialisations; "
            f"of each {print_values(each['converged'])}",
            change="relaxed to equilibrium instead of for 50 steps of .1",
            tried="relaxed to equilibrium",
        ),
        judge_claim(
            "energax",
            "what departs from the line are ReLU units that change sides: with tanh every initialisation is straight",
            min(each["smooth"]) > 0.999 and all(abs(slope - 1) < 0.05 for slope in slopes),
            f"R^2 of each {print_values(each['smooth'], 5)}; log-log slopes "
            f"{print_values(slopes, 4)}: proportional to lambda",
        ),
        judge_claim(
            "energax",
            "50 steps of .1 stop at a distance that lambda does not reduce",
            min(floors) > 10,
            f"{print_values(floors, 2)} times the least distance of the converged relaxation",
        ),
    ]


EXPERIMENT = Experiment(
    name="millidge2023-fig3a",
    paper=PAPER,
    summary="distance between the gradients of PC-Nudge and backprop against lambda",
    small=Settings(data="digits", rows=256, seeds=(0, 1)),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
)
