"""A directed net bounded from above: what every unit loses, and the most that synapses can deliver."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.certificates.norms import bound_norm
from energax.checking import tell
from energax.dynamics.base import AbstractDynamics
from energax.dynamics.directed import AbstractDirected, as_graph
from energax.exceptions import SettingError
from energax.graph.graph import Graph
from energax.graph.parts import States
from energax.graph.structure import AnyGraph
from energax.graph.synapses import pull, push


class Comparison(eqx.Module):
    """J_jk <= -losses_j [j = k] + (delivery)_jk in size, at every state.

    Attributes:
        graph: the network.
        dynamics: how its states move.
        losses: of every free unit, with a batch of 1.
    """

    graph: Graph
    dynamics: AbstractDirected
    losses: States

    @classmethod
    def of(cls, dynamics: AbstractDynamics, graph: AnyGraph) -> "Comparison":
        """The comparison of a directed net.

        Raises:
            SettingError: another dynamics, nodes with axes, an edge that is not linear, an activation of unknown slope.
        """
        if not isinstance(dynamics, AbstractDirected):
            raise SettingError(f"dynamics={tell(dynamics)}: only directed nets are certified, as LeakyFlow()")
        graph = as_graph(graph)
        for node in graph.nodes:
            if graph.axes(node.name):
                raise SettingError(f"node {node.name!r} has axes, along which edges may add up: give a net without any")
        arrays = [leaf for leaf in jax.tree.leaves(graph.functions) if eqx.is_inexact_array(leaf)]
        like = jnp.zeros(1, jnp.result_type(*arrays) if arrays else float)
        free = graph.zeros(graph.free(graph.inputs), like)
        return cls(graph, dynamics, dynamics.losses(graph, free))

    @property
    def ones(self) -> States:
        """1 for every free unit."""
        return jax.tree.map(jnp.ones_like, self.losses)

    def deliver(self, states: States) -> States:
        """|W| times the slopes times non-negative states."""
        return push(self.graph, jnp.abs, self._steepen(states))

    def collect(self, states: States) -> States:
        """The transpose of `deliver`."""
        return self._steepen(pull(self.graph, jnp.abs, states))

    def _steepen(self, states: States) -> States:
        return {name: self.dynamics.slope(self.graph, name) * state for name, state in states.items()}

    def steepest(self) -> float:
        """The largest slope of any free node."""
        return max(self.dynamics.slope(self.graph, name) for name in self.losses)

    def blocks(self) -> tuple[Array, Array]:
        """Least loss of a unit of every free node, and N: bounds on the norms of what node b delivers to node a."""
        names = list(self.losses)
        least = jnp.stack([jnp.min(self.losses[name]) for name in names])
        gains = jnp.zeros((len(names), len(names)), least.dtype)
        for edge in self.graph.edges:
            if edge.source in self.losses and edge.target in self.losses:
                shape = self.graph.full_shape(edge.source)
                bound = bound_norm(self.graph.functions[edge.function], shape)
                steep = self.dynamics.slope(self.graph, edge.source)
                gains = gains.at[names.index(edge.target), names.index(edge.source)].add(steep * bound)
        return least, gains

    @property
    def units(self) -> int:
        """How many free units there are."""
        return sum(loss.size for loss in self.losses.values())

    def degree(self) -> Array:
        """The most synapses that reach or leave a free unit, shape `()`."""
        ends = [move(self.graph, jnp.ones_like, self.ones) for move in (push, pull)]
        return jnp.max(jnp.stack([jnp.max(count) for counts in ends for count in counts.values()]))

    def matrix(self) -> Array:
        """W of all free units, [to, from], written out: for small nets."""
        ends, units = [], self.units
        eye = jnp.eye(units, dtype=next(iter(self.losses.values())).dtype)
        start, states = 0, {}
        for name, loss in self.losses.items():
            states[name] = eye[:, start : start + loss.size].reshape(units, *loss.shape[1:])
            start += loss.size
        for name, arrived in push(self.graph, lambda weight: weight, states).items():
            ends.append(arrived.reshape(units, self.losses[name].size))
        return jnp.concatenate(ends, axis=1).T
