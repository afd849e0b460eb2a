"""The ways into the infinitesimal-inference limit: their parameters, their orders, and the errors that are measured."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx

import energax as ex
from energax import rules
from energax.dynamics.phase import Phase, prepare_phase
from energax.papers.millidge2023.common import gradient, relative
from energax.papers.millidge2023.two_hop import TwoHopCoding
from energax.rules.base import energy_gradient


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


def contrast(dynamics: Callable[[], Any], scheme: Callable, solver: Callable):
    """The error of `Contrastive(scheme(parameter))`."""

    def error(parameter, graph, batch, reference):
        return relative(gradient(rules.Contrastive(scheme(parameter)), dynamics(), graph, batch, solver()), reference)

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
    return relative(hidden(correct_gradient(graph, batch, jnp.asarray(parameter))), hidden(reference))


def measure_uncorrected(parameter, graph, batch, reference):
    """The same contrast as it is; hidden maps only."""
    found = gradient(rules.Contrastive(rules.nudge(parameter)), PC, graph, batch, newton())
    return relative(hidden(found), hidden(reference))


def hidden(tree):
    """The maps below the output."""
    functions = tree.graph.functions
    names = sorted(name for name in functions if name.startswith("layer"))[:-1]
    return {name: functions[name] for name in names}


@eqx.filter_jit
def correct_gradient(graph, batch, beta):
    """(dF/dtheta(v*) - dE/dtheta(vbar) - H delta_x) / beta, H = d2F/dtheta dv at vbar."""
    clamped = graph.clamp(batch.x)
    phase = prepare_phase(PC, graph, clamped, target=batch.y, beta=beta)
    free = prepare_phase(PC, graph, clamped)
    at = phase.start().states
    moved = newton().solve(phase, phase.start()).states
    weights = jnp.ones(len(batch.y)) / len(batch.y)

    def learned(phase: Phase, states):
        return energy_gradient(phase, states, weights)

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
    phase = prepare_phase(energy, graph, clamped, target=batch.y, beta=beta)
    at = newton().solve(phase, phase.start()).states
    plain = prepare_phase(PC, graph, clamped, target=batch.y, beta=beta)
    return energy_gradient(plain, at, jnp.ones(len(batch.y)) / beta / len(batch.y))


def two_hop() -> TwoHopCoding:
    """This library's new energy."""
    return TwoHopCoding(ex.CrossEntropy(), **TWO_HOP)


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
    "pc_uncorrected": Limit("PC-Nudge, hidden maps", "correction", "beta", 1, ONE, measure_uncorrected),
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
DIRECT = ("PC", "correction", "two-hop")  # families whose output holds no state
