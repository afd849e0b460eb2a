"""Backpropagation of the cost through the feed-forward pass: the reference."""

import equinox as eqx
import jax.numpy as jnp

from energax.rules.base import AbstractRule, make_info, open_batch, require_target


class Backprop(AbstractRule):
    """g = dC(sweep(x), y)/dtheta by reverse-mode differentiation (Rumelhart et al. 1986). Relaxes nothing."""

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Differentiate the average cost."""
        rows = open_batch(graph, batch)
        target = require_target(rows, "Backprop")
        weights = jnp.where(rows.finite, rows.weights, 0)

        def objective(graph):
            output = graph.output_value(graph.sweep(rows.clamped))
            cost = dynamics.cost(output, target)
            return jnp.sum(weights * cost), output

        gradient, output = eqx.filter_grad(objective, has_aux=True)(graph)
        return gradient, carry, make_info(dynamics, rows, output, {})
