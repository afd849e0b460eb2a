"""Beyond the paper: every way into the infinitesimal-inference limit, its order, and what does not lead there.

References: backprop where the feed-forward pass is the free equilibrium, implicit differentiation for Hopfield nets.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from matplotlib.figure import Figure

import energax as ex
from energax import rules
from energax.activations import Tanh, hard_sigmoid
from energax.papers.cells import Cells
from energax.papers.experiment import Experiment, Judgement, Numbers, judged
from energax.papers.fits import order
from energax.papers.millidge2023.common import PAPER, gradient, relative
from energax.papers.pictures import QUIET, panels
from energax.phase import Phase, prepared
from energax.rules.base import energy_gradient
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


@dataclasses.dataclass(frozen=True)
class Limit:
    """One way into the limit.

    Attributes:
        label: what the picture calls it.
        family: PC, Hopfield or two-hop; each has a panel.
        parameter: what tends to 0.
        expected: the order that the theory predicts; 0 for what never leaves its distance.
        decades: exponents of the smallest and the largest value.
        error: `(parameter, graph, batch, reference) -> relative distance`.
    """

    label: str
    family: str
    parameter: str
    expected: int
    decades: tuple[float, float]
    error: Callable[..., Any]


PC, COST = ex.PredictiveCoding(ex.CrossEntropy()), ex.SquaredError()
TWO_HOP = {"coupling": 0.7, "scale": 0.5}


def newton() -> ex.Optimistix:
    """Equilibria to rounding, whatever the stiffness."""
    return ex.Optimistix(optx.Newton(1e-14, 1e-14), tol=1e-9, max_steps=40)


def sweeps() -> ex.FixedPoint:
    """Alternating exact blocks to rounding; these also take complex states."""
    return ex.FixedPoint(stop=ex.Stopping(1e-14, 400, 5, 0))


def flow() -> ex.GradientFlow:
    """Gradient flow, which takes complex states too."""
    return ex.GradientFlow(step_size=1.0, momentum=0.6, stop=ex.Stopping(1e-13, 3000))


def contrast(dynamics: Callable[[], Any], quadrature: Callable, solver: Callable):
    """The error of `Contrastive(quadrature(parameter))`."""

    def error(parameter, graph, batch, reference):
        return relative(
            gradient(rules.Contrastive(quadrature(parameter)), dynamics(), graph, batch, solver()), reference
        )

    return error


def weak_feedback(parameter, graph, batch, reference):
    """Contrastive Hebbian learning with feedback scale gamma (Xie & Seung 2003)."""
    solver = ex.FixedPoint(stop=ex.Stopping(max_steps=40, check_every=0))
    return relative(gradient(rules.ContrastiveHebbian(), ex.Hopfield(COST, parameter), graph, batch, solver), reference)


def precision_ratio(parameter, graph, batch, reference):
    """Predictive coding with the output clamped and Pi_l+1 / Pi_l = parameter (Whittington & Bogacz 2017)."""
    depth = len(graph.nodes) - 1
    names = [node.name for node in graph.nodes[1:]]
    precisions = {name: parameter ** (level + 1 - depth) for level, name in enumerate(names)}
    # Pi_L = 1 and Pi_l = ratio^-(L - l): the output pulls with 1, every layer below resists more
    found = gradient(rules.ContrastiveHebbian(), ex.PredictiveCoding(COST, precisions), graph, batch, newton())
    return relative(found, reference)


def printed_correction(parameter, graph, batch, reference):
    """The contrast of Eq. 16 with H delta_x subtracted, as the paper proposes after it; hidden maps only."""
    return relative(hidden(corrected(graph, batch, jnp.asarray(parameter))), hidden(reference))


def uncorrected(parameter, graph, batch, reference):
    """The same contrast as it is; hidden maps only."""
    found = gradient(rules.Contrastive(rules.nudge(parameter)), PC, graph, batch, newton())
    return relative(hidden(found), hidden(reference))


def hidden(tree):
    """The maps below the output."""
    names = sorted(name for name in tree.fns if name.startswith("layer"))[:-1]
    return {name: tree.fns[name] for name in names}


@eqx.filter_jit
def corrected(graph, batch, beta):
    """(dF/dtheta(v*) - dE/dtheta(vbar) - H delta_x) / beta, H = d2F/dtheta dv at vbar."""
    clamped = graph.clamp(batch.x)
    phase = prepared(PC, graph, clamped, None, batch.y, beta)
    free = prepared(PC, graph, clamped)
    at = PC.start(graph, phase.context).states
    moved = newton().solve(phase, at).states
    weights = jnp.ones(len(batch.y))

    def learned(phase: Phase, states):
        return energy_gradient(phase, clamped, states, weights, len(batch.y))

    first_order = jax.jvp(lambda v: learned(phase, v), (at,), (jax.tree.map(jnp.subtract, moved, at),))[1]
    plain = jax.tree.map(jnp.subtract, learned(phase, moved), learned(free, at))
    return jax.tree.map(lambda g, h: (g - h) / beta, plain, first_order)


def hebbian_part(parameter, graph, batch, reference):
    """Two-hop equilibria with predictive coding's local gradient, which lacks the coupling's share of dE/dtheta."""
    return relative(hidden(partial_gradient(graph, batch, jnp.asarray(parameter))), hidden(reference))


@eqx.filter_jit
def partial_gradient(graph, batch, beta):
    """dF/dtheta of predictive coding at the equilibrium of two-hop coding."""
    clamped = graph.clamp(batch.x)
    energy = two_hop()
    phase = prepared(energy, graph, clamped, None, batch.y, beta)
    at = newton().solve(phase, energy.start(graph, phase.context).states).states
    plain = prepared(PC, graph, clamped, None, batch.y, beta)
    return energy_gradient(plain, clamped, at, jnp.ones(len(batch.y)) / beta, len(batch.y))


def two_hop() -> ex.TwoHopCoding:
    """This library's new energy."""
    return ex.TwoHopCoding(ex.CrossEntropy(), **TWO_HOP)


def hopfield() -> ex.Hopfield:
    """Symmetric feedback."""
    return ex.Hopfield(COST)


def pc() -> ex.PredictiveCoding:
    """Unit precisions."""
    return PC


def ring(points: int):
    """`holomorphic` with so many points."""
    return lambda radius: rules.holomorphic(radius, points)


ONE, TWO, FOUR, EIGHT = (-6.0, -2.5), (-4.0, -1.4), (-2.0, -0.9), (-1.3, -0.6)
LIMITS: dict[str, Limit] = {
    "pc_nudge": Limit("PC-Nudge", "PC", "beta", 1, ONE, contrast(pc, rules.nudge, newton)),
    "pc_precisions": Limit("precision ratio", "PC", "ratio", 1, (-4.5, -2.0), precision_ratio),
    "pc_centred": Limit("centred", "PC", "beta", 2, TWO, contrast(pc, rules.centred, newton)),
    "pc_richardson": Limit("Richardson", "PC", "beta", 2, TWO, contrast(pc, rules.richardson, newton)),
    "pc_four": Limit("holomorphic, 4 points", "PC", "beta", 4, (-1.9, -0.8), contrast(pc, ring(4), flow)),
    "pc_uncorrected": Limit("PC-Nudge, hidden maps", "correction", "beta", 1, ONE, uncorrected),
    "pc_corrected": Limit("with Eq. 16's correction", "correction", "beta", 0, ONE, printed_correction),
    "hopfield_one": Limit("EP, one-sided", "Hopfield", "beta", 1, ONE, contrast(hopfield, rules.one_sided, sweeps)),
    "hopfield_box": Limit("EP, hard sigmoid", "box", "beta", 1, ONE, contrast(hopfield, rules.one_sided, sweeps)),
    "hopfield_gamma": Limit("CHL, weak feedback, to backprop", "CHL", "gamma", 1, (-4.5, -2.0), weak_feedback),
    "hopfield_centred": Limit("EP, centred", "Hopfield", "beta", 2, TWO, contrast(hopfield, rules.centred, sweeps)),
    "hopfield_richardson": Limit(
        "EP, Richardson", "Hopfield", "beta", 2, TWO, contrast(hopfield, rules.richardson, sweeps)
    ),
    "hopfield_four": Limit("EP, 4 points", "Hopfield", "beta", 4, FOUR, contrast(hopfield, ring(4), sweeps)),
    "hopfield_eight": Limit("EP, 8 points", "Hopfield", "beta", 8, EIGHT, contrast(hopfield, ring(8), sweeps)),
    "two_hop_nudge": Limit("two-hop, nudged", "two-hop", "beta", 1, ONE, contrast(two_hop, rules.nudge, newton)),
    "two_hop_centred": Limit("two-hop, centred", "two-hop", "beta", 2, TWO, contrast(two_hop, rules.centred, newton)),
    "two_hop_four": Limit("two-hop, 4 points", "two-hop", "beta", 4, (-2.2, -1.2), contrast(two_hop, ring(4), flow)),
    "two_hop_hebbian": Limit("two-hop, Hebbian part only", "correction", "beta", 0, ONE, hebbian_part),
}
DIRECT, FREE = ("PC", "correction", "two-hop"), ("Hopfield", "CHL")


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
        for index, (name, limit) in enumerate(chosen(families)):
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


def chosen(families: tuple[str, ...]) -> Iterator[tuple[str, Limit]]:
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
    exact = judged("section 3.2", "the first step is backprop", worst < 1e-12, f"relative distance {worst:.1g}")
    return [exact, *found, *negative(numbers)]


def of_order(numbers: Numbers, name: str, limit: Limit) -> Judgement:
    """Whether all seeds have the order."""
    fits = orders(numbers, name)
    slopes = [slope for slope, _ in fits]
    holds = all(abs(slope - limit.expected) < TOLERANCE[limit.expected] for slope in slopes)
    told = f"slopes {', '.join(f'{slope:.3f}' for slope in slopes)}; at least {min(n for _, n in fits)} points"
    claim = f"{limit.label}: error of order {limit.expected} in {limit.parameter}"
    return judged(SOURCES.get(name, "energax"), claim, holds, told)


def negative(numbers: Numbers) -> list[Judgement]:
    """Eq. 16's correction, as printed; and the Hebbian part of a coupled energy."""
    least = {name: float(np.min(numbers["limits"][name]["errors"])) for name in ("pc_corrected", "two_hop_hebbian")}
    fits = [slope for slope, _ in orders(numbers, "pc_corrected")]
    return [
        judged(
            "after Eq. 16",
            "with H delta_x subtracted the contrast approximates backprop to second order",
            all(abs(slope - 2) < TOLERANCE[2] for slope in fits),
            f"hidden maps: relative distance at least {least['pc_corrected']:.3f} at every beta",
            tried="subtracted as printed: it removes the signal itself; centred nudging and Richardson reach order 2",
        ),
        judged(
            "energax",
            "H delta_x is the signal: without it nothing of the hidden maps' gradient is left",
            least["pc_corrected"] > 0.99,
            f"relative distance at least {least['pc_corrected']:.3f}",
        ),
        judged(
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
