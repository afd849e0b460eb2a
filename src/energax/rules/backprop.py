"""Backpropagation of the cost through the feed-forward pass: the reference."""

import equinox as eqx
import jax.numpy as jnp

from energax.rules.base import AbstractRule, Info


class Backprop(AbstractRule):
    """g = dC(sweep(x), y)/dtheta by reverse-mode differentiation (Rumelhart et al. 1986). Relaxes nothing."""

    @property
    def updates_per_batch(self):
        """One."""
        return 1

    def init(self, dynamics, graph, batch):
        """Nothing is carried."""
        return ()

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Differentiate the average cost."""

        def objective(graph):
            output = graph.output_value(graph.sweep(batch.x))
            cost = dynamics.cost(output, batch.y)
            return jnp.mean(cost), (output, cost)

        gradient, (output, cost) = eqx.filter_grad(objective, has_aux=True)(graph)
        return gradient, carry, Info(output, cost, {})

    def tune(self, dynamics, graph, batch, solver):
        """Nothing is relaxed, so nothing is measured."""
        return solver
