"""Error coordinates: v_n = vhat_n + e_n, swept through the graph."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.coordinates.base import AbstractChart, AbstractCoordinates, Model
from energax.dynamics import AbstractErrorEnergy
from energax.errors import SettingError
from energax.graph import Graph
from energax.phase import Phase, dot
from energax.structure import States


class ErrorCoordinates(AbstractCoordinates):
    """Move the prediction errors: v_n = vhat_n + e_n / sqrt(Pi_n), computed in feed-forward order.

    F(e) = 1/2 sum |e|^2 + beta C(sweep(e)) has the same equilibria as F(v) and the same local weight gradient there,
    and a condition number that hardly grows with depth. The sweeps run forward and backward inside the relaxation:
    this is a fast way to an equilibrium, *not* a local neural dynamics. Needs a graph without cycles whose free
    nodes all receive a prediction. Reference: Innocenti et al. 2025; Goemaere et al. 2025; the scaling by
    sqrt(Pi) and the exact line search are this library's own.

    Raises:
        SettingError: an energy that is no function of errors, a cyclic graph, or a free node without a prediction.
    """

    def chart(self, phase, start):
        """The errors of `start`."""
        dynamics, graph = phase.dynamics, phase.graph
        if not isinstance(dynamics, AbstractErrorEnergy):
            raise SettingError(
                f"error coordinates need an energy of prediction errors, and {type(dynamics).__name__} is none; "
                "use StateCoordinates(), or subclass AbstractErrorEnergy"
            )
        if not isinstance(graph, Graph) or graph.order is None:
            raise SettingError(
                "error coordinates sweep the graph in feed-forward order, and this one has none; use StateCoordinates()"
            )
        unpredicted = sorted(set(start) - {edge.target for edge in graph.edges})
        if unpredicted:
            raise SettingError(
                f"error coordinates need a prediction of every free node, and nothing arrives at "
                f"{', '.join(map(repr, unpredicted))}; clamp it, or use StateCoordinates()"
            )
        chart = ErrorChart(phase, dynamics, {name: jnp.sqrt(dynamics.precision(name)) for name in start})
        return chart, chart.point(start)


class ErrorChart(AbstractChart):
    """A phase in the errors of its free nodes, each times sqrt(Pi).

    Attributes:
        phase: the phase.
        dynamics: its energy of errors.
        roots: node name -> sqrt(Pi_n).
    """

    phase: Phase
    dynamics: AbstractErrorEnergy
    roots: dict[str, Array]

    def point(self, states: States) -> States:
        """Where the states lie."""
        predicted = self.phase.graph.predict(self.phase.context.everywhere(states), self.phase.context.constant)
        return {name: (root * (states[name] - predicted[name])) for name, root in self.roots.items()}

    def errors(self, point: States) -> States:
        """The errors themselves."""
        return {name: point[name] / root for name, root in self.roots.items()}

    def states(self, point):
        """One feed-forward pass."""
        context = self.phase.context
        swept = self.phase.graph.sweep(context.clamped, self.errors(point), context.constant)
        return {name: swept[name] for name in point}

    def force(self, point):
        """-dF/de: one pass forward, one backward."""
        return self.model(point).force

    def model(self, point):
        """F, -dF/de, and the Gauss-Newton curvature: the network linearised, cost and energy of errors as they are.

        F depends on the errors directly, and through the sweep on what the cost and the clamped nodes see of it.
        """
        seen, push = jax.linearize(self._seen, point)
        pull = jax.linear_transpose(push, point)

        def slopes(point, seen):
            energy, pull = jax.vjp(self._energy, point, seen)
            return pull(jnp.ones_like(energy))

        (direct, through), bend = jax.linearize(slopes, point, seen)
        force = jax.tree.map(lambda a, b: -(a + b), direct, pull(through)[0])

        def curvature(direction):
            pushed = push(direction)
            bent, bent_through = bend(direction, pushed)
            return dot(direction, bent) + dot(pushed, bent_through)

        return Model(self._energy(point, seen), force, curvature)

    def dot(self, a, b):
        """Euclidean."""
        return dot(a, b)

    def probe(self, point):
        """Here."""
        return self, point

    def _seen(self, point: States) -> States:
        """The output, and the predictions of clamped nodes."""
        phase = self.phase
        states = phase.context.everywhere(self.states(point))
        received = {name for name in phase.context.clamped for edge in phase.graph.edges if edge.target == name}
        seen = {"": phase.graph.output_value(states, phase.context.constant)}
        if received:
            predicted = phase.graph.predict(states, phase.context.constant)
            seen |= {name: predicted[name] for name in received}
        return seen

    def _energy(self, point: States, seen: States) -> Array:
        """F per sample."""
        phase = self.phase
        clamped = {name: phase.context.clamped[name] - value for name, value in seen.items() if name}
        energy = self.dynamics.error_energy(self.errors(point) | clamped)
        if phase.target is None or phase.beta is None:
            return energy
        return energy + phase.beta * self.dynamics.cost(seen[""], phase.target)
