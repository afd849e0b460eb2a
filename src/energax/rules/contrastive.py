"""The contrast of equilibria at several nudge strengths: PC, PC-Nudge and equilibrium propagation in one rule."""

from collections.abc import Collection

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.checking import require_kind
from energax.dynamics.base import AbstractDynamics, FreeGradient, Start
from energax.dynamics.phase import Phase
from energax.exceptions import SettingError
from energax.graph.graph import Graph
from energax.graph.structure import AnyGraph
from energax.layers import is_analytic
from energax.rules.base import (
    AbstractRule,
    differentiate,
    free_phase,
    make_info,
    open_batch,
    phase_info,
    require_energy,
    require_target,
    weigh_sound,
)
from energax.rules.nudging import AbstractNudgingScheme


class Contrastive(AbstractRule):
    """g = w_0 dF/dtheta(v^0; 0) + sum_k w_k dF/dtheta(v^beta_k; beta_k).

    One scheme selects the algorithm: `unit_nudge()` predictive coding, `nudge(beta)` PC-Nudge, `one_sided`,
    `centred`, `richardson`, `holomorphic`, `RandomSign` equilibrium propagation. All nudged phases start from the free
    equilibrium and are settled together, as samples of one larger batch.

    Samples that diverge do not move the parameters; the verdicts say how many did.

    Attributes:
        scheme: points and weights.
        drop_free_term: True lets a scheme whose weights do not cancel run on an energy whose free phase has a gradient
            of its own, as some papers print it. It is then no contrast: what it follows is not the cost's gradient.

    Raises:
        SettingError: such a scheme on such an energy, a dynamics without an energy, or complex points on layers that
            are not analytic.

    Reference: Scellier & Bengio 2017; Laborieux & Zenke 2022; Millidge et al. 2023, Eq. 8.
    """

    scheme: AbstractNudgingScheme
    drop_free_term: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        remedy = "give a scheme, as rules.nudge(1e-3) or rules.centred(0.2)"
        require_kind("Contrastive: scheme", self.scheme, AbstractNudgingScheme, remedy)

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Settle the free and the nudged phases, and take the weighted difference of dF/dtheta."""
        require_energy(dynamics, "Contrastive")
        rows = open_batch(graph, batch)
        if not (self.scheme.balanced or self.drop_free_term):
            require_free_gradient(dynamics, graph, self.scheme, rows.clamped.held)
        target = require_target(rows, "Contrastive")
        points, weights, free_weight = self.scheme.at(len(rows.weights), batch.key)
        points, weights = (cast_like(a, rows.weights) for a in (points, weights))
        if jnp.iscomplexobj(points):
            require_analytic(graph)

        def nudge(base: Phase) -> Phase:
            """All nudged phases at once, one batch after the other."""
            targets = jax.tree.map(lambda y: jnp.concatenate([y] * len(points)), target)
            return base.tile(len(points)).nudge_by(points.reshape(-1), targets)

        free, settled, report = free_phase(dynamics, graph, rows, solver)
        base = free.prepare_again(reference=settled.states)
        nudged = nudge(base)
        start = jax.tree.map(
            lambda v: jnp.concatenate([v] * len(points)).astype(jnp.result_type(v, weights)), settled.states
        )
        end = solver.solve(nudged, Start(start, settled.known))
        shares = weigh_sound(rows, settled, end)

        def objective(model):
            """Weighted sum of F at fixed states.

            One preparation serves all phases, so that what it computes is pulled back once. The free phase's as well:
            a reference leaves the energy as it is at the states that it holds.
            """
            again = base.prepare_again(model)
            value = jnp.sum((shares * weights).reshape(-1) * nudge(again).energy(end.states))
            if free_weight is not None:
                value = value + jnp.sum(shares * free_weight * again.nudge_by(None, None).energy(settled.states))
            return jnp.real(value)

        output = free.output(settled.states)
        phases = {"free": report, "nudged": phase_info(nudged, start, end, rows)}
        return differentiate(free.model, objective), carry, make_info(dynamics, rows, output, phases)


def cast_like(values: Array, like: Array) -> Array:
    """Real or complex values in the precision of `like`, so that states keep theirs."""
    return values.astype(jnp.result_type(like.dtype, jnp.complex64) if jnp.iscomplexobj(values) else like.dtype)


def require_free_gradient(
    dynamics: AbstractDynamics, graph: AnyGraph, scheme: AbstractNudgingScheme, held: Collection[str]
) -> None:
    """Refuse a scheme that leaves the free phase out where the free phase has a gradient of its own."""
    kind = require_energy(dynamics, "Contrastive").free_gradient(graph)
    if kind is FreeGradient.ZERO and any(edge.target in held for edge in graph.edges):
        kind = FreeGradient.VARIATIONAL  # a predicted node of which anything is held keeps its error
    if kind is FreeGradient.ZERO or (kind is FreeGradient.VARIATIONAL and scheme.whole):
        return
    raise SettingError(
        f"the free phase of {type(dynamics).__name__} has a gradient of its own on this graph, and the scheme leaves "
        "it out (nudge and unit_nudge suit predictive coding from its feed-forward pass): use rules.centred(beta) or "
        "rules.one_sided(beta); Contrastive(scheme, drop_free_term=True) runs it as it is"
    )


def require_analytic(graph) -> None:
    """Refuse complex nudging on a graph that complex numbers would break silently."""
    if not isinstance(graph, Graph):
        raise SettingError("complex nudge strengths need a Graph whose layers say that they are analytic")
    for name, fn in graph.functions.items():
        if not is_analytic(fn):
            kind = getattr(fn, "__name__", type(fn).__name__)
            raise SettingError(
                f"complex nudge strengths need analytic layers, and {name!r} ({kind}) is not one: use tanh or sigmoid "
                "and average or softmax pooling, no rounded products, wrap a layer of your own in layers.Analytic, "
                "or take at most 2 points"
            )
