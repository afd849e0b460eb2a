"""What the dynamics of directed nets share: leaks, and what a unit loses by itself."""

import abc
import math
from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.checking import as_setting, require_between, tell
from energax.dynamics.base import AbstractDynamics
from energax.dynamics.phase import Phase
from energax.exceptions import GraphError, SettingError
from energax.graph.graph import Graph
from energax.graph.parts import States
from energax.graph.structure import AnyGraph

Leak = Array | dict[str, Array]


def as_leak(place: str) -> Callable:
    """The converter of a field that holds a leak: one for all units, or node -> one or one for each of its units."""

    def convert(given) -> Leak:
        if isinstance(given, Mapping):
            return {name: as_setting(f"{place} of {name!r}")(leak) for name, leak in given.items()}
        return as_setting(place)(given)

    return convert


def require_leak(place: str, leak: Leak, *, positive: bool) -> None:
    """Refuse a leak below 0, and one of 0 where units must forget."""
    for name, value in leak.items() if isinstance(leak, dict) else (("", leak),):
        require_between(f"{place} of {name!r}" if name else place, value, 0, math.inf, open_least=positive)


def as_graph(graph: AnyGraph) -> Graph:
    """The network, if it has edges: a synapse is a part of one.

    Raises:
        SettingError: another structure.
    """
    if not isinstance(graph, Graph):
        raise SettingError(f"graph={tell(graph)}: directed nets are made of edges: give a Graph, as directed_mlp makes")
    return graph


def leaks_of(leak: Leak, graph: AnyGraph, free: States) -> States:
    """Free node -> its leak, shaped like the node's states.

    Raises:
        GraphError: a node without one, one of another shape than its node, or a leak of no free node.
    """
    given = leak if isinstance(leak, dict) else dict.fromkeys(free, leak)
    if missing := sorted(set(free) ^ set(given)):
        raise GraphError(f"leaks of {sorted(given)}, free nodes {sorted(free)}: {missing} are in one of them only")
    for name, value in given.items():
        shape = graph.full_shape(name)
        fits = zip(reversed(value.shape), reversed(shape), strict=False)
        if value.ndim > len(shape) or any(size not in (1, units) for size, units in fits):
            raise GraphError(
                f"node {name!r} has shape {shape} and its leak {value.shape}: give one number, or that shape"
            )
    return jax.tree.map(lambda value, like: jnp.broadcast_to(value, like.shape).astype(like.dtype), given, free)


class AbstractDirected(AbstractDynamics):
    """A net of leaky units: J = -diag(losses) + what synapses deliver, with no synapse from a unit to itself.

    What certificates need of a dynamics (`energax.certificates`).

    Attributes:
        leak: l, a number, or node -> one number or one for each of its units.
    """

    leak: eqx.AbstractVar[Leak]

    @abc.abstractmethod
    def losses(self, graph: AnyGraph, free: States) -> States:
        """How fast every free unit forgets its state by itself, at least 0; of one sample, shaped like `free`."""

    @abc.abstractmethod
    def slope(self, graph: AnyGraph, name: str) -> float:
        """The steepest that what the node sends rises with its state."""

    def linearise(self, phase):
        """The losses: nothing of them depends on the states, or on the sample."""
        like = phase.clamped.example[:1]
        return self.losses(phase.graph, phase.graph.zeros(phase.graph.free(phase.clamped.values), like))

    def safe_step(self, phase: Phase) -> Array:
        """1 / max(loss + |beta| rho'), shape `()` or `(batch,)`: no unit overshoots by what it loses in such a step.

        rho' is the steepest slope of an output, and no less than 1; it is multiplied by the curvature of a squared
        error, 1, below which that of a cross-entropy is.
        """
        fastest = jnp.max(jnp.stack([jnp.max(jnp.abs(loss)) for loss in phase.linear.values()]))
        if phase.beta is not None:
            slopes = (self.slope(phase.graph, place.node) for place in phase.graph.outputs)
            fastest = fastest + max(1.0, *slopes) * jnp.abs(phase.beta)
        return 1 / jnp.maximum(fastest, jnp.finfo(fastest.dtype).tiny)

    def lose(self, phase: Phase, states: States, arriving: States) -> States:
        """What arrives minus what is lost, of every free node."""
        lost = {name: phase.linear[name] * state for name, state in states.items()}
        return {name: arriving[name] - loss if name in arriving else -loss for name, loss in lost.items()}
