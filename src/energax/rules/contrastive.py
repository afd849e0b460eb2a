"""The contrast of equilibria at several nudge strengths: PC, PC-Nudge and equilibrium propagation in one rule."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.dynamics.base import Start
from energax.dynamics.phase import Batch, Phase, prepare_phase
from energax.exceptions import SettingError
from energax.graph.graph import Graph
from energax.graph.structure import Constant, States
from energax.layers import is_analytic
from energax.rules.base import AbstractRule, Info, batch_size, free_phase, not_diverged, phase_info, require_energy
from energax.rules.nudging import AbstractNudgingScheme


class Contrastive(AbstractRule):
    """g = w_0 dF/dtheta(v^0; 0) + sum_k w_k dF/dtheta(v^beta_k; beta_k).

    One scheme object selects the algorithm: `unit_nudge()` predictive coding, `nudge(beta)` PC-Nudge,
    `one_sided`, `centred`, `richardson`, `holomorphic`, `RandomSign` equilibrium propagation. All nudged phases
    start from the free equilibrium and are settled together, as samples of one larger batch.

    Samples that diverge do not move the parameters; the verdicts say how many did.

    Attributes:
        scheme: points and weights.

    Reference: Scellier & Bengio 2017; Laborieux & Zenke 2022; Millidge et al. 2023, Eq. 8.
    """

    scheme: AbstractNudgingScheme

    @property
    def updates_per_batch(self):
        """One."""
        return 1

    def init(self, dynamics, graph, batch):
        """Nothing is carried."""
        return ()

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Settle the free and the nudged phases, and take the weighted difference of dF/dtheta."""
        require_energy(dynamics, "Contrastive")
        clamped = graph.clamp(batch.x)
        free, settled, report = free_phase(dynamics, graph, clamped, batch, solver)
        nudged, weights, free_weight = self._nudged(free, clamped, batch)
        start = jax.tree.map(lambda v: tile_rows(v, len(weights)).astype(jnp.result_type(v, weights)), settled.states)
        end = solver.solve(nudged, Start(start, settled.known))
        keep = not_diverged(settled, end)

        def objective(graph):
            """Weighted sum of F at fixed states; one preparation serves all phases, so one map back from the input."""
            again = prepare_phase(dynamics, graph, clamped, batch.key)
            energies = self._nudged(again, clamped, batch)[0].energy(end.states)
            value = jnp.sum(jnp.where(keep, weights, 0).reshape(-1) * energies)
            if free_weight is not None:
                value = value + jnp.sum(jnp.where(keep, free_weight, 0) * again.energy(settled.states))
            return jnp.real(value) / batch_size(clamped)

        output = free.output(settled.states)
        info = Info(output, dynamics.cost(output, batch.y), {"free": report, "nudged": phase_info(nudged, start, end)})
        return eqx.filter_grad(objective)(graph), carry, info

    def _nudged(self, free: Phase, clamped: States, batch: Batch) -> tuple[Phase, Array, Array | None]:
        """The phase of all points at once, its weights `(points, batch)`, and the free weight."""
        points, weights, free_weight = self.scheme.at(batch_size(clamped), batch.key)
        if jnp.iscomplexobj(points):
            require_analytic(free.graph)
        many = jax.tree.map(lambda a: tile_rows(a, len(points)), clamped)
        context = free.dynamics.prepare(free.graph, many, batch.key)
        if free.context.constant is not None:  # what the clamped nodes send is the same at every point: computed once
            once = free.context.constant
            sums = {name: tile_rows(value, len(points)) for name, value in once.sums.items()}
            context = eqx.tree_at(lambda c: c.constant, context, Constant(once.sources, sums))
        target = tile_rows(batch.y, len(points))
        return Phase(free.dynamics, free.graph, context, target, points.reshape(-1)), weights, free_weight

    def tune(self, dynamics, graph, batch, solver):
        """Measure where the nudged phases start."""
        clamped = graph.clamp(batch.x)
        nudged, weights, _ = self._nudged(prepare_phase(dynamics, graph, clamped, batch.key), clamped, batch)
        start = dynamics.start(graph, nudged.context).states
        start = jax.tree.map(lambda v: v.astype(jnp.result_type(v, weights)), start)
        return solver.calibrate(nudged, start)


def tile_rows(array, times: int):
    """`times` copies along the batch axis."""
    return jnp.concatenate([array] * times) if times > 1 else array


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
