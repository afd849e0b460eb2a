"""What the figures share: the paper's network (A.2), its relaxation, the converged one, and distances.

The paper's Eq. 3 has no factor 2, so its dynamics are those of E = 1/2 sum |e|^2, this library's energy.
"""

import statistics
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

import energax as ex
from energax.data import Dataset
from energax.diagnostics.regime import flat
from energax.dynamics.phase import Phase, prepare_phase
from energax.graph.parts import States
from energax.rules.base import open_batch, require_target
from energax.solvers import Unbounded
from energax.training.learner import root_key
from energax.training.rows import make_device_split

PAPER = "Millidge et al. 2023"
HIDDEN = (128, 64)


def energy() -> ex.PredictiveCoding:
    """Predictive coding with a softmax output under the cross-entropy."""
    return ex.PredictiveCoding(ex.CrossEntropy())


def network(data: Dataset, seed: int, activation: Callable = jax.nn.relu) -> ex.Graph:
    """784-128-64-10 ReLU on MNIST, with a direct softmax output and weights from U(+-1 / sqrt(fan_in))."""
    height, width, channels = data.image_shape
    key = jax.random.fold_in(root_key(seed), 2**31 - 1)
    sizes = [height * width * channels, *HIDDEN, data.classes]
    return ex.networks.mlp(sizes, activation, shape=data.image_shape, output_state=False, key=key)


def first_rows(data: Dataset, rows: int) -> ex.Batch:
    """The first training images, pixels in [0, 1]."""
    return make_device_split(data, data.train, standardise=False).batch(jnp.arange(rows))


def printed_solver(step: float = 0.1, steps: int = 50) -> ex.GradientFlow:
    """The paper's relaxation: 50 explicit steps of .1, whatever comes of it."""
    return ex.GradientFlow(step_size=step, bound=Unbounded(), stop=ex.Stopping(max_steps=steps, check_every=0))


def converged_solver(tol: float, steps: int = 5000) -> ex.GradientFlow:
    """Relaxation to a relative residual of `tol`, its step bounded by the measured curvature."""
    return ex.GradientFlow(step_size=1.0, momentum=0.8, stop=ex.Stopping(tol, steps))


def nudge_net(graph: ex.Graph, batch: ex.Batch, beta: Array | float) -> tuple[Phase, ex.Start]:
    """The nudged phase of predictive coding and its start, the feed-forward pass."""
    dynamics = energy()
    phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=jnp.asarray(beta))
    return phase, phase.start()


@eqx.filter_jit
def gradient(rule, dynamics, graph, batch: ex.Batch, solver) -> PyTree:
    """The parameter gradient of one update."""
    return rule(dynamics, graph, batch, solver, rule.init(dynamics, graph, batch))[0]


def backprop(graph: ex.Graph, batch: ex.Batch) -> PyTree:
    """The exact gradient; nothing is relaxed."""
    return ex.Backprop()(energy(), graph, batch, printed_solver(), ())[0]


def distance(found: PyTree, exact: PyTree) -> Array:
    """Euclidean distance over all parameters."""
    return jnp.linalg.norm(flat(found) - flat(exact))


def relative(found: PyTree, exact: PyTree) -> Array:
    """|found - exact| / |exact| over all parameters."""
    return distance(found, exact) / jnp.linalg.norm(flat(exact))


def cosine(found: PyTree, exact: PyTree) -> Array:
    """Cosine between two gradients (2023, Eq. 23)."""
    a, b = flat(found), flat(exact)
    return jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))


def backprop_of_states(graph: ex.Graph, batch: ex.Batch) -> States:
    """dC/dv of every free state along the feed-forward pass, the vector that backprop hands down, per sample."""
    dynamics = energy()
    target = require_target(open_batch(graph, batch), "backprop")
    rest = jax.tree.map(jnp.zeros_like, nudge_net(graph, batch, 1.0)[1].states)

    def cost(errors):
        return jnp.sum(dynamics.cost(graph.output_value(graph.sweep(batch.x, errors)), target))

    return jax.grad(cost)(rest)


def over_seeds(rows: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation over seeds, point by point."""
    points = list(zip(*rows, strict=True))
    spread = [statistics.stdev(point) if len(point) > 1 else 0.0 for point in points]
    return [statistics.fmean(point) for point in points], spread


def print_values(values: Sequence[float], digits: int = 3) -> str:
    """A range of numbers for a sentence."""
    low, high = f"{min(values):.{digits}g}", f"{max(values):.{digits}g}"
    return low if low == high else f"{low}..{high}"
