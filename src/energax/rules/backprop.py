"""Backpropagation of the cost through the feed-forward pass: the reference."""

import jax.numpy as jnp

from energax.dynamics.model import Model
from energax.rules.base import AbstractRule, differentiate, make_info, open_batch, require_target, require_whole_nodes


class Backprop(AbstractRule):
    """g = dC(sweep(x), y)/dtheta by reverse-mode differentiation (Rumelhart et al. 1986). Relaxes nothing."""

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Differentiate the average cost."""
        rows = open_batch(graph, batch)
        require_whole_nodes(rows, "Backprop")
        target = require_target(rows, "Backprop")
        weights = jnp.where(rows.finite, rows.weights, 0)

        def objective(model):
            output = model.graph.output_value(model.graph.sweep(rows.clamped), rows.clamped)
            cost = model.dynamics.cost(output, target)
            return jnp.sum(weights * cost), output

        gradient, output = differentiate(Model(graph, dynamics), objective, has_aux=True)
        return gradient, carry, make_info(dynamics, rows, output, {})
