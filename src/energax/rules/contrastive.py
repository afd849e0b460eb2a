"""The contrast of equilibria at several nudge strengths: PC, PC-Nudge and equilibrium propagation in one rule."""

import jax
import jax.numpy as jnp

from energax.errors import SettingError
from energax.graph import Graph
from energax.layers import is_analytic
from energax.phase import Batch, prepared
from energax.rules.base import (
    AbstractRule,
    Info,
    add,
    batch_size,
    energy_gradient,
    free_phase,
    phase_info,
    sound,
    with_energy,
)
from energax.rules.quadrature import AbstractQuadrature


class Contrastive(AbstractRule):
    """g = w_0 dF/dtheta(v^0; 0) + sum_k w_k dF/dtheta(v^beta_k; beta_k).

    One quadrature object selects the algorithm: `clamped()` predictive coding, `nudge(beta)` PC-Nudge,
    `one_sided`, `centred`, `richardson`, `holomorphic`, `RandomSign` equilibrium propagation. All nudged phases
    start from the free equilibrium and are settled together, as samples of one larger batch.

    Samples that diverge do not move the parameters; the verdicts say how many did.

    Attributes:
        quadrature: points and weights.

    Reference: Scellier & Bengio 2017; Laborieux & Zenke 2022; Millidge et al. 2023, Eq. 8.
    """

    quadrature: AbstractQuadrature

    @property
    def updates_per_batch(self):
        """One."""
        return 1

    def init(self, dynamics, graph, batch):
        """Nothing is carried."""
        return ()

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Settle the free and the nudged phases, and take the weighted difference of dF/dtheta."""
        with_energy(dynamics, "Contrastive")
        clamped = graph.clamp(batch.x)
        size = batch_size(clamped)
        free, settled, report = free_phase(dynamics, graph, clamped, batch, solver)
        nudged, weights, free_weight, many = self._nudged(dynamics, graph, clamped, batch)
        start = jax.tree.map(lambda v: tiled(v, len(weights)).astype(jnp.result_type(v, weights)), settled.states)
        end = solver.solve(nudged, start)

        keep = sound(settled.result, end.result)
        gradient = energy_gradient(nudged, many, end.states, jnp.where(keep, weights, 0).reshape(-1), size, batch.key)
        if free_weight is not None:
            weight = jnp.where(keep, free_weight, 0)
            gradient = add(gradient, energy_gradient(free, clamped, settled.states, weight, size, batch.key))
        output = free.output(settled.states)
        info = Info(output, dynamics.cost(output, batch.y), {"free": report, "nudged": phase_info(nudged, start, end)})
        return gradient, carry, info

    def _nudged(self, dynamics, graph, clamped, batch: Batch):
        """The phase of all points at once, its weights `(points, batch)`, the free weight, and its clamped values."""
        points, weights, free_weight = self.quadrature.at(batch_size(clamped), batch.key)
        if jnp.iscomplexobj(points):
            require_analytic(graph)
        many = jax.tree.map(lambda a: tiled(a, len(points)), clamped)
        target = tiled(batch.y, len(points))
        return prepared(dynamics, graph, many, batch.key, target, points.reshape(-1)), weights, free_weight, many

    def tune(self, dynamics, graph, batch, solver):
        """Measure where the nudged phases start."""
        clamped = graph.clamp(batch.x)
        nudged, weights, _, _ = self._nudged(dynamics, graph, clamped, batch)
        start = dynamics.start(graph, nudged.context).states
        start = jax.tree.map(lambda v: v.astype(jnp.result_type(v, weights)), start)
        return solver.tuned(nudged, start)


def tiled(array, times: int):
    """`times` copies along the batch axis."""
    return jnp.concatenate([array] * times) if times > 1 else array


def require_analytic(graph) -> None:
    """Refuse complex nudging on a graph that complex numbers would break silently."""
    if not isinstance(graph, Graph):
        raise SettingError("complex nudge strengths need a Graph whose layers say that they are analytic")
    for name, fn in graph.fns.items():
        if not is_analytic(fn):
            raise SettingError(
                f"complex nudge strengths need analytic layers, and {name!r} ({fn!r}) is not one: use "
                "tanh or sigmoid and average or softmax pooling, wrap a layer of your own in "
                "layers.Analytic, or take at most 2 points"
            )
