"""When the local rule of a directed net learns: bounds on the angle between its update and the gradient's.

With J the Jacobian at the equilibrium, S = (J + J^T) / 2 and A = (J - J^T) / 2, the exact signal a = -J^-T g and the
response nu = -J^-1 g (in the sign of the signals of `energax.rules`) obey a - nu = -K (a + nu), K = S^-1 A. Where the
norm kappa of K in the metric Q is below 1, cos_Q(a, nu) >= (1 - kappa^2) / (1 + kappa^2) for every cost (theorem 3 of
docs/directed.md, this library's own).
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from energax.activations import Box
from energax.certificates.comparison import Comparison
from energax.dynamics.base import AbstractDynamics
from energax.dynamics.directed import leaks_of
from energax.dynamics.leaky_directed import LeakyDirected
from energax.dynamics.leaky_flow import LeakyFlow, NoOutflow
from energax.dynamics.model import split_parameters
from energax.dynamics.phase import Phase
from energax.exceptions import SettingError
from energax.graph.graph import Graph
from energax.graph.parts import States
from energax.graph.synapses import push


class Alignment(eqx.Module):
    """Bounds for every sample, shape `(batch,)`.

    Attributes:
        signal: kappa of the signals, Q = I.
        update: kappa of the whole parameter updates, Q = (dforce/dtheta) (dforce/dtheta)^T: below 1, the rule descends.
    """

    signal: Array
    update: Array

    @property
    def cosine(self) -> Array:
        """The least cosine of a sample's update with its gradient that is proved; -1 where nothing is."""
        return least_cosine(self.update)


def least_cosine(kappa: Array) -> Array:
    """(1 - kappa^2) / (1 + kappa^2), which holds for kappa up to 1; -1 above."""
    return jnp.where(kappa <= 1, (1 - kappa**2) / (1 + kappa**2), -1.0)


def certify_alignment(phase: Phase, states: States) -> Alignment:
    """Bounds at the free equilibria of a batch; writes Jacobians out, for small nets.

    Args:
        phase: a free phase.
        states: its equilibria. Units at the walls of a box, or where their activation is flat, have no part in either
            signal and are left out.
    """
    samples = len(next(iter(states.values())))

    def of_one(row):
        return align(phase.take(row[None]), jax.tree.map(lambda v: v[row][None], states))

    signal, update = jax.lax.map(of_one, jnp.arange(samples))
    return Alignment(signal, update)


def align(phase: Phase, states: States) -> tuple[Array, Array]:
    """Kappa in both metrics, of one sample."""
    vector, unravel = ravel_pytree(states)

    def shown(vector):
        return ravel_pytree(phase.activities(unravel(vector)))[0]

    def force_of(model, vector):
        again = phase.prepare_again(model)
        return ravel_pytree(again.force(unravel(vector)))[0]

    jacobian = jax.jacfwd(lambda v: force_of(phase.model, v))(vector)
    slopes = jnp.diag(jax.jacfwd(shown)(vector))
    # at a wall the force pulls a unit back and reads no other
    alone = jnp.sum(jnp.abs(jacobian), axis=1) <= jnp.abs(jnp.diag(jacobian)) * (1 + 8 * jnp.finfo(vector.dtype).eps)
    active = ~(alone & at_walls(phase, states)) & (slopes != 0)
    both = active[:, None] & active[None, :]
    jacobian = jnp.where(
        both, jacobian / jnp.where(active, slopes, 1)[None, :], -jnp.eye(len(vector), dtype=vector.dtype)
    )
    symmetric, skew = (jacobian + jacobian.T) / 2, (jacobian - jacobian.T) / 2
    coupling = jnp.linalg.solve(symmetric, skew)
    parameters, rest = split_parameters(phase.model)
    flat, spread = ravel_pytree(parameters)
    effects = jax.jacrev(lambda given: force_of(eqx.combine(spread(given), rest), vector))(flat)
    metric = jnp.where(both, effects @ effects.T, jnp.eye(len(vector), dtype=vector.dtype))
    values, axes = jnp.linalg.eigh(metric)
    roots = jnp.sqrt(jnp.maximum(values, jnp.finfo(values.dtype).eps * values[-1]))
    turned = axes.T @ coupling @ axes
    return jnp.linalg.norm(coupling, 2), jnp.linalg.norm(roots[:, None] * turned / roots[None, :], 2)


def at_walls(phase: Phase, states: States) -> Array:
    """Which units the box of the dynamics holds; none where it has none."""
    box = getattr(phase.dynamics, "box", Box())

    # a step of h along (P - s) / h ends at the wall but for rounding
    reach = 8 * max([1.0, *(abs(wall) for wall in (box.lower, box.upper) if math.isfinite(wall))])

    def held_of(v):
        room = reach * jnp.finfo(v.dtype).eps
        return (v <= box.lower + room) | (v >= box.upper - room)

    held = jax.tree.map(held_of, states)
    return jnp.concatenate([one.reshape(-1) for one in jax.tree.leaves(held)])


def bound_alignment(dynamics: AbstractDynamics, graph: Graph) -> Array:
    """Kappa of the signals at every equilibrium of any input, shape `()`; infinite where nothing is proved.

    Corollary 4: |A| / -mu_2(J) of a flow, |skew W| / (l - lambda_max(sym W)) of an additive net whose activations rise
    by at most 1 and never fall, with l the least leak. Leak buys alignment, and costs signal. For small nets: W is
    written out.

    Raises:
        SettingError: another dynamics, or activations that are steeper than 1.
    """
    net = Comparison.of(dynamics, graph)
    matrix = net.matrix()
    losses = jnp.concatenate([loss.reshape(-1) for loss in net.losses.values()])
    if isinstance(dynamics, LeakyDirected):
        if net.steepest() > 1:
            raise SettingError(f"activations rise by up to {net.steepest():g}: the bound holds for slopes up to 1")
        losses = jnp.full_like(losses, jnp.min(losses))  # a larger leak only adds to the diagonal
    jacobian = matrix - jnp.diag(losses)
    room = -jnp.linalg.eigvalsh((jacobian + jacobian.T) / 2)[-1]
    skew = jnp.linalg.norm((jacobian - jacobian.T) / 2, 2)
    return jnp.where(room > 0, skew / jnp.where(room > 0, room, 1), jnp.inf)


def is_cooperative(dynamics: AbstractDynamics, graph: Graph) -> Array:
    """Whether theorem 5 holds, shape `()`: every unit's response then has the sign of its exact signal.

    A flow of signed or absolute outflow with a leak everywhere, no negative weight among its free units and one output
    unit; weights from the input may have any sign.
    """
    net = Comparison.of(dynamics, graph)
    if not isinstance(dynamics, LeakyFlow) or isinstance(dynamics.outflow, NoOutflow):
        return jnp.asarray(False)
    outputs = sum(net.losses[place.node][0].size for place in graph.outputs)
    leaks = leaks_of(dynamics.leak, graph, net.losses)
    leaky = jnp.all(jnp.stack([jnp.all(leak > 0) for leak in leaks.values()]))
    negative = push(graph, lambda weight: jnp.minimum(weight, 0), net.ones)
    none = jnp.all(jnp.stack([jnp.all(arrived >= 0) for arrived in negative.values()]))
    return leaky & none & (outputs == 1)
