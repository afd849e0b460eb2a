"""The first step of relaxation in error coordinates, which is exactly backprop."""

import jax
import jax.numpy as jnp

from energax.arithmetic import add_all, total
from energax.dynamics.model import Model
from energax.rules.base import AbstractRule, differentiate, make_info, open_batch, require_target, require_whole_nodes


class FirstStep(AbstractRule):
    """One step of size 1 in error coordinates from e = 0 at the sweep, then the local weight gradient there.

    With v = vhat + e, the first step is e_n = -(1 / Pi_n) dC/de_n, and the gradient of every weight is
    -Pi_n e_n dvhat_n/dtheta at the sweep's states, plus the direct output's own dC/dtheta: backprop on any acyclic
    graph, and free of the schedule "layer l at step L - l" of Song et al. 2020 (Z-IL), which holds on chains only.
    Precisions cancel. Reference: Millidge et al. 2023, section 3.2.
    """

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Sweep, one step of the errors, local gradients."""
        rows = open_batch(graph, batch)
        require_whole_nodes(rows, "FirstStep")
        target = require_target(rows, "FirstStep")
        swept = graph.sweep(rows.clamped)
        output = graph.output_value(swept, rows.clamped)
        weights = jnp.where(rows.finite, rows.weights, 0)

        def cost(errors):
            return jnp.sum(dynamics.cost(graph.output_value(graph.sweep(rows.clamped, errors), rows.clamped), target))

        rest = jax.tree.map(jnp.zeros_like, {name: swept[name] for name in graph.free(rows.clamped.values)})
        step = jax.tree.map(jnp.negative, jax.grad(cost)(rest))  # Pi_n e_n after one step
        states = jax.lax.stop_gradient(swept)

        def local(model):
            """-Pi e . vhat(theta) per node, and C's own parameters; the states stay where they are."""
            graph = model.graph
            predictions = graph.predict(states, rows.clamped)
            per_sample = add_all(total(-e * predictions[name]) for name, e in step.items())
            if any(not graph.node(place.node).state for place in graph.outputs):
                per_sample = per_sample + model.dynamics.cost(graph.output_value(states, rows.clamped), target)
            return jnp.sum(weights * per_sample)

        gradient = differentiate(Model(graph, dynamics), local)
        return gradient, carry, make_info(dynamics, rows, output, {})
