"""Error coordinates: v_n = vhat_n + e_n, swept through the graph."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from energax.arithmetic import dot
from energax.dynamics.base import AbstractErrorEnergy
from energax.dynamics.phase import Phase
from energax.exceptions import SettingError
from energax.graph.graph import Graph
from energax.graph.parts import Output, States, list_names
from energax.solvers.coordinates.base import AbstractCoordinates, AbstractView, LocalModel, gram
from energax.solvers.plane import minimise_in_plane


class ErrorCoordinates(AbstractCoordinates):
    """Move the prediction errors: v_n = vhat_n + e_n / sqrt(Pi_n), computed in feed-forward order.

    F(e) = 1/2 sum |e|^2 + beta C(sweep(e)) has the same equilibria as F(v) and the same local weight gradient there,
    and a condition number that hardly grows with depth. The sweeps run forward and backward inside the relaxation:
    this is a fast way to an equilibrium, *not* a local neural dynamics. Needs a graph without cycles whose free
    nodes all receive a prediction. Reference: Innocenti et al. 2025; Goemaere et al. 2025; the scaling by
    sqrt(Pi) and the model that keeps the cost are this library's own.

    Raises:
        SettingError: an energy that is no function of errors, a cyclic graph, a free node without a prediction, or one
            of which some units are held.
    """

    def view(self, phase, start):
        """The errors of `start`: where they are 0 by construction, the compiler shall know it too.

        The first pass forward is then the one that made `start`, and is not computed twice.
        """
        dynamics, graph, states = phase.dynamics, phase.graph, start.states
        if not isinstance(dynamics, AbstractErrorEnergy):
            raise SettingError(
                f"error coordinates need an energy of prediction errors, and {type(dynamics).__name__} is none; "
                "use StateCoordinates(), or subclass AbstractErrorEnergy"
            )
        if not isinstance(graph, Graph) or graph.order(phase.clamped.values) is None:
            raise SettingError(
                "error coordinates sweep the graph in feed-forward order, and this one has none; use StateCoordinates()"
            )
        if phase.clamped.known:
            raise SettingError(
                f"error coordinates move whole nodes, and of {list_names(phase.clamped.known)} some units are held; "
                "use StateCoordinates()"
            )
        unpredicted = sorted(set(states) - {edge.target for edge in graph.edges})
        if unpredicted:
            raise SettingError(
                f"error coordinates need a prediction of every free node, and nothing arrives at "
                f"{', '.join(map(repr, unpredicted))}; clamp it, or use StateCoordinates()"
            )
        view = ErrorView(phase, dynamics, {name: jnp.sqrt(dynamics.precision(name)) for name in states})
        return view, jax.tree.map(jnp.zeros_like, states) if start.settled else view.point(states)


class ErrorView(AbstractView):
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
        predicted = self.phase.graph.predict(self.phase.everywhere(states), self.phase.sent)
        return {name: (root * (states[name] - predicted[name])) for name, root in self.roots.items()}

    def errors(self, point: States) -> States:
        """The errors themselves."""
        return {name: point[name] / root for name, root in self.roots.items()}

    def states(self, point):
        """One feed-forward pass."""
        swept = self.phase.graph.sweep(self.phase.sent, self.errors(point))
        return {name: swept[name] for name in point}

    def force(self, point):
        """-dF/de: one pass forward, one backward."""
        return self.model(point).force

    def model(self, point):
        """F and -dF/de, with the network linearised, the energy of errors to second order, and the cost as it is.

        F depends on the errors directly, and through the sweep on the output and on the predictions of clamped nodes:
        these are the image.
        """
        seen, push = jax.linearize(self._seen, point)
        pull = jax.linear_transpose(push, point)
        cost, back = jax.vjp(self._cost, seen[0])
        (direct, through), bend = jax.linearize(self._slopes, point, seen[1])
        through_all = (back(jnp.ones_like(cost))[0], through)
        force = jax.tree.map(jnp.subtract, pull(jax.tree.map(jnp.negative, through_all))[0], direct)

        def least(directions, pushed):
            steps = [(direction, moved[1]) for direction, moved in zip(directions, pushed, strict=True)]
            outputs = jnp.stack([moved[0] for moved in pushed])
            slope = jnp.stack([-dot(force, direction) for direction in directions])
            # a secant is not quite the derivative: the slope without the cost is what makes the whole slope exact
            smooth = slope - jax.vmap(lambda output: dot(through_all[0], output))(outputs)
            z = minimise_in_plane(
                smooth, gram(dot, [bend(*step) for step in steps], steps), self._cost, seen[0], outputs
            )
            return z, -jnp.sum(z * slope, axis=0)

        return LocalModel(self._errors_alone(point, seen[1]) + cost, force, seen, push, least)

    def energy(self, point):
        """From the errors themselves."""
        output, predicted = self._seen(point)
        return self._errors_alone(point, predicted) + self.dynamics.offset(self.phase.graph) + self._cost(output)

    def dot(self, a, b):
        """Euclidean."""
        return dot(a, b)

    def _seen(self, point: States) -> tuple[Array, States]:
        """The output, as one array, and the predictions of clamped nodes."""
        phase = self.phase
        states = phase.everywhere(self.states(point))
        output = flatten_samples(phase.graph.output_value(states, phase.sent))
        received = {name for name in phase.clamped.values for edge in phase.graph.edges if edge.target == name}
        predicted = phase.graph.predict(states, phase.sent) if received else {}
        return output, {name: predicted[name] for name in received}

    def _cost(self, output: Array) -> Array:
        """C times beta per sample; 0 in a free phase."""
        phase = self.phase
        if phase.target is None or phase.beta is None:
            return jnp.zeros(output.shape[0], output.dtype)
        return phase.beta * self.dynamics.cost(unflatten_samples(output, phase.target), phase.target)

    def _errors_alone(self, point: States, predicted: States) -> Array:
        """E per sample."""
        clamped = {name: self.phase.clamped.values[name] - value for name, value in predicted.items()}
        if self.dynamics.separate and not clamped:
            return dot(point, point) / 2
        return self.dynamics.error_energy(self.errors(point) | clamped)

    def _slopes(self, point: States, predicted: States) -> tuple[States, States]:
        """dE/de at fixed predictions, and dE of the predictions of clamped nodes."""
        if self.dynamics.separate and not predicted:
            return point, {}
        energy, pull = jax.vjp(self._errors_alone, point, predicted)
        return pull(jnp.ones_like(energy))


def flatten_samples(output: Output) -> Array:
    """Several outputs as one array, shape `(batch, numbers)`; one output as it is."""
    if not isinstance(output, dict):
        return output
    return jnp.concatenate([output[name].reshape(output[name].shape[0], -1) for name in sorted(output)], axis=1)


def unflatten_samples(flat: Array, like: Output) -> Output:
    """The outputs again, in the shapes of their targets."""
    if not isinstance(like, dict):
        return flat
    ends = np.cumsum([math.prod(like[name].shape[1:]) for name in sorted(like)])[:-1]
    parts = jnp.split(flat, ends, axis=1)
    return {name: part.reshape(like[name].shape) for name, part in zip(sorted(like), parts, strict=True)}
