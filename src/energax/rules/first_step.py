"""The first step of relaxation in error coordinates, which is exactly backprop."""

import equinox as eqx
import jax
import jax.numpy as jnp

from energax.rules.base import AbstractRule, Info, batch_size


class FirstStep(AbstractRule):
    """One step of size 1 in error coordinates from e = 0 at the sweep, then the local weight gradient there.

    With v = vhat + e, the first step is e_n = -(1 / Pi_n) dC/de_n, and the gradient of every weight is
    -Pi_n e_n dvhat_n/dtheta at the sweep's states, plus the direct output's own dC/dtheta: backprop on any acyclic
    graph, and free of the schedule "layer l at step L - l" of Song et al. 2020 (Z-IL), which holds on chains only.
    Precisions cancel. Reference: Millidge et al. 2023, section 3.2.
    """

    @property
    def updates_per_batch(self):
        """One."""
        return 1

    def init(self, dynamics, graph, batch):
        """Nothing is carried."""
        return ()

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Sweep, one step of the errors, local gradients."""
        clamped = graph.clamp(batch.x)
        size = batch_size(clamped)
        swept = graph.sweep(clamped)
        output = graph.output_value(swept)

        def cost(errors):
            return jnp.sum(dynamics.cost(graph.output_value(graph.sweep(clamped, errors)), batch.y))

        rest = jax.tree.map(jnp.zeros_like, {name: swept[name] for name in graph.free(clamped)})
        step = jax.tree.map(jnp.negative, jax.grad(cost)(rest))  # Pi_n e_n after one step
        states = jax.lax.stop_gradient(swept)

        def local(graph):
            """-Pi e . vhat(theta) per node, and C's own parameters; the states stay where they are."""
            predictions = graph.predict(states)
            pulled = sum(jnp.sum(-e * predictions[name]) for name, e in step.items())
            direct = (
                0.0 if graph.node(graph.output).state else jnp.sum(dynamics.cost(graph.output_value(states), batch.y))
            )
            return (pulled + direct) / size

        gradient = eqx.filter_grad(local)(graph)
        return gradient, carry, Info(output, dynamics.cost(output, batch.y), {})

    def tune(self, dynamics, graph, batch, solver):
        """One step needs no measure."""
        return solver
