"""Beyond the paper: the order of every way into the infinitesimal-inference limit, and what does not lead there.

References: backprop where the feed-forward pass is the free equilibrium, implicit differentiation for Hopfield nets.
"""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import energax as ex
from energax import rules
from energax.activations import Tanh, hard_sigmoid
from energax.papers.cells import Cells
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.fits import order
from energax.papers.millidge2023.common import PAPER, gradient, relative
from energax.papers.millidge2023.ways import COST, DIRECT, LIMITS, PC, Limit, hopfield, sweeps
from energax.papers.pictures import QUIET, panels
from energax.training.learner import root_key


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the orders are measured on.

    Attributes:
        sizes: units per layer.
        rows: samples.
        seeds: initialisations and inputs.
        points: values of each limit's parameter.
    """

    sizes: tuple[int, ...] = (6, 8, 7, 4)
    rows: int = 4
    seeds: tuple[int, ...] = (0, 1, 2)
    points: int = 11


def parts(settings: Settings, limit: Limit, seed: int):
    """The network, the batch and the reference gradient of one family."""
    key = jax.random.fold_in(root_key(seed), 7)
    activation = {"PC": jnp.tanh, "two-hop": jnp.tanh, "correction": jnp.tanh, "box": hard_sigmoid()}
    free = limit.family not in DIRECT or limit.label == "precision ratio"
    graph = ex.networks.mlp(settings.sizes, activation.get(limit.family, Tanh()), output_state=free, gain=0.8, key=key)
    x = jax.random.normal(jax.random.fold_in(key, 1), (settings.rows, settings.sizes[0]))
    y = jax.nn.one_hot(jnp.arange(settings.rows) % settings.sizes[-1], settings.sizes[-1], dtype=x.dtype)
    batch = ex.Batch(x, y)
    if limit.family in ("Hopfield", "box"):
        return graph, batch, gradient(rules.Adjoint(), hopfield(), graph, batch, sweeps())
    dynamics = PC if not free else ex.PredictiveCoding(COST)
    return graph, batch, gradient(rules.Backprop(), dynamics, graph, batch, None)


def values(settings: Settings, limit: Limit) -> list[float]:
    """The parameter's values."""
    return np.logspace(*limit.decades, settings.points).tolist()


def one_limit(settings: Settings, limit: Limit) -> list[list[float]]:
    """Errors per seed."""
    found = []
    for seed in settings.seeds:
        graph, batch, reference = parts(settings, limit, seed)
        scales = [jnp.asarray(value) for value in values(settings, limit)]
        found.append([float(limit.error(scale, graph, batch, reference)) for scale in scales])
    return found


def first_step(settings: Settings) -> list[float]:
    """Distance of `FirstStep` from backprop, per seed."""
    errors = []
    for seed in settings.seeds:
        graph, batch, reference = parts(settings, LIMITS["pc_nudge"], seed)
        errors.append(float(relative(gradient(rules.FirstStep(), PC, graph, batch, None), reference)))
    return errors


def run(settings: Settings, cells: Cells) -> Numbers:
    """Every limit, in float64."""
    limits = {}
    with jax.enable_x64(True):
        for name, limit in LIMITS.items():
            errors = cells(name, lambda limit=limit: one_limit(settings, limit))
            limits[name] = {"scales": values(settings, limit), "errors": errors}
        exact = cells("first_step", lambda: first_step(settings))
    return {"limits": limits, "first_step": exact}


def orders(numbers: Numbers, name: str) -> list[tuple[float, int]]:
    """Order and number of points, per seed."""
    one = numbers["limits"][name]
    return [order(one["scales"], errors) for errors in one["errors"]]


PANELS = {
    "predictive coding, to backprop": ("PC",),
    "Hopfield, to the adjoint": ("Hopfield", "box", "CHL"),
    "two-hop coding, to backprop": ("two-hop",),
    "what does not lead there": ("correction",),
}

FLOOR = 1e-13  # of the picture


def draw(numbers: Numbers) -> Figure:
    """One panel per family: error against the limit's parameter, first seed, the order in the legend."""
    figure, axes = panels(4, width=3.6, height=5.2)
    for panel, (title, families) in zip(axes, PANELS.items(), strict=True):
        for index, (name, limit) in enumerate(choose_limits(families)):
            one = numbers["limits"][name]
            slope = orders(numbers, name)[0][0]
            told = f": order {slope:.2f}" if limit.expected else ""
            style = {"color": f"C{index}", "marker": "o" if limit.parameter == "beta" else "s", "markersize": 3}
            panel.loglog(one["scales"], one["errors"][0], label=f"{limit.label} ({limit.parameter}){told}", **style)
        panel.set(xlabel="parameter of the limit", title=title, ylim=(FLOOR, 5))
        panel.axhspan(1e-11, 1e-2, color="0.5", alpha=0.06, linewidth=0)
    exact = numbers["first_step"][0]
    where = " (off the scale)" if exact < FLOOR else ""
    axes[0].axhline(max(exact, 1.2 * FLOOR), color="k", linestyle=":", label=f"first step: {exact:.1g}{where}")
    axes[0].set(ylabel="relative distance of gradients")
    for panel in axes:
        panel.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.14), **QUIET)
    return figure


def choose_limits(families: tuple[str, ...]) -> Iterator[tuple[str, Limit]]:
    """The limits of these families."""
    return ((name, limit) for name, limit in LIMITS.items() if limit.family in families)


TOLERANCE = {1: 0.05, 2: 0.1, 4: 0.1, 8: 0.1}
SOURCES = {
    "pc_nudge": "section 4",
    "pc_precisions": "section 3.3",
    "hopfield_one": "section 3.4",
    "hopfield_box": "section 3.4",
    "hopfield_gamma": "section 3.3",
}


def judge(numbers: Numbers) -> list[Judgement]:
    """Orders of what leads to the limit, distances of what does not."""
    found = [of_order(numbers, name, limit) for name, limit in LIMITS.items() if limit.expected]
    worst = max(numbers["first_step"])
    exact = judge_claim("section 3.2", "the first step is backprop", worst < 1e-12, f"relative distance {worst:.1g}")
    return [exact, *found, *negative(numbers)]


def of_order(numbers: Numbers, name: str, limit: Limit) -> Judgement:
    """Whether all seeds have the order."""
    fits = orders(numbers, name)
    slopes = [slope for slope, _ in fits]
    holds = all(abs(slope - limit.expected) < TOLERANCE[limit.expected] for slope in slopes)
    told = f"slopes {', '.join(f'{slope:.3f}' for slope in slopes)}; at least {min(n for _, n in fits)} points"
    claim = f"{limit.label}: error of order {limit.expected} in {limit.parameter}"
    return judge_claim(SOURCES.get(name, "energax"), claim, holds, told)


def negative(numbers: Numbers) -> list[Judgement]:
    """Eq. 16's correction, as printed; and the Hebbian part of a coupled energy."""
    least = {name: float(np.min(numbers["limits"][name]["errors"])) for name in ("pc_corrected", "two_hop_hebbian")}
    fits = [slope for slope, _ in orders(numbers, "pc_corrected")]
    return [
        judge_claim(
            "after Eq. 16",
            "with H delta_x subtracted the contrast approximates backprop to second order",
            all(abs(slope - 2) < TOLERANCE[2] for slope in fits),
            f"hidden maps: relative distance at least {least['pc_corrected']:.3f} at every beta",
            tried="subtracted as printed: it removes the signal itself; centred nudging and Richardson reach order 2",
        ),
        judge_claim(
            "energax",
            "H delta_x is the signal: without it nothing of the hidden maps' gradient is left",
            least["pc_corrected"] > 0.99,
            f"relative distance at least {least['pc_corrected']:.3f}",
        ),
        judge_claim(
            "energax",
            "a coupled energy needs its complete dE/dtheta: the Hebbian part alone stays away from backprop",
            least["two_hop_hebbian"] > 0.1,
            f"relative distance at least {least['two_hop_hebbian']:.3f}",
        ),
    ]


EXPERIMENT = Experiment(
    name="millidge2023-limits",
    paper=PAPER,
    summary="beyond the paper: every way into the infinitesimal-inference limit, and its order",
    small=Settings(seeds=(0,), points=9),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
)
