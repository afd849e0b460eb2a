"""What a training tells of its batches: metrics of the outputs, and of the relaxations behind them, in one place.

Sums, log, terminal, pages and answers are made from these. A new number of the outputs is a `Metric` that a cost
brings or that is given to `train`; one of the relaxations is a row of `RELAXATION_METRICS`.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.diagnostics.regime import Regime
from energax.diagnostics.relaxations import Relaxations, gather_relaxations
from energax.metrics import Largest, Metric, Outputs, percent
from energax.rules.base import Info
from energax.solvers.verdict import Verdict


def share_of(verdict: Verdict) -> Metric:
    """The share of the relaxations with this verdict."""
    word = verdict.name.lower()
    brief = verdict in (Verdict.CONVERGED, Verdict.STALLED)  # of the others the terminal warns
    return Metric(f"{word}_fraction", word.replace("_", " "), lambda seen: seen.result == verdict, percent, brief=brief)


def residual_of(relaxations: Relaxations) -> Array:
    """The residual of every relaxation."""
    return relaxations.residual


RELAXATION_METRICS: tuple[Metric, ...] = (
    *(share_of(verdict) for verdict in Verdict),
    Metric("residual", "mean residual", residual_of),
    Largest("worst_residual", "largest residual", residual_of, brief=False),
    Metric("steps", "steps", lambda relaxations: relaxations.steps, brief=False),
)
"""Of every relaxation; those of phases that are known by construction took no place and do not count."""


class Sums(eqx.Module):
    """Totals of the metrics over batches, from which an epoch's averages are made.

    Attributes:
        metrics: those of the outputs.
        totals: name of a metric -> its total, those of the relaxations among them.
        batches: number of batches.
        lost: the first of them, counted from 0, in which a row that counts has a cost (an energy, where there are no
            targets) that is no finite number; -1 where there is none.
        weighed: whether any row had a weight.
    """

    metrics: tuple[Metric, ...] = eqx.field(static=True)
    totals: dict[str, PyTree]
    batches: Array
    lost: Array
    weighed: Array

    @classmethod
    def zero(cls, metrics: tuple[Metric, ...]) -> "Sums":
        """Nothing seen."""
        none = {metric.name: metric.zero() for metric in metrics + RELAXATION_METRICS}
        return cls(metrics, none, jnp.zeros((), int), jnp.full((), -1), jnp.zeros((), bool))

    def add_batch(self, info: Info, weights: Array | None) -> "Sums":
        """With one more batch: what a rule reported, and the weights of its samples."""
        given = jnp.ones_like(info.cost) if weights is None else weights.astype(info.cost.dtype)
        free = info.phases.get("free")
        energy: Any = jnp.full_like(info.cost, jnp.nan) if free is None else jnp.real(free.energy_after)
        outputs = Outputs(info.output, info.target, info.cost, given, energy)
        relaxations = gather_relaxations(info, given)
        found = {metric.name: metric.total(outputs) for metric in self.metrics}
        found |= {metric.name: metric.total(relaxations) for metric in RELAXATION_METRICS}
        objective = energy if info.target is None else info.cost
        lost = jnp.where(jnp.any((given > 0) & ~jnp.isfinite(objective)), 0, -1)
        return self.merge(Sums(self.metrics, found, jnp.ones((), int), lost, jnp.any(given > 0)))

    def merge(self, other: "Sums") -> "Sums":
        """Both together."""
        both = self.metrics + RELAXATION_METRICS
        totals = {m.name: m.merge(self.totals[m.name], other.totals[m.name]) for m in both}
        later = jnp.where(other.lost >= 0, self.batches + other.lost, -1)
        lost = jnp.where(self.lost >= 0, self.lost, later)
        return Sums(self.metrics, totals, self.batches + other.batches, lost, self.weighed | other.weighed)

    def averages(self) -> dict[str, float]:
        """Plain numbers for the log; NaN where nothing was relaxed."""
        return {metric.name: metric.value(self.totals[metric.name]) for metric in self.metrics + RELAXATION_METRICS}


def name_averages(part: str, averages: dict[str, float]) -> dict[str, float]:
    """The averages as the log names them: those of the outputs after the part of the data that they are of."""
    relaxed = {metric.name for metric in RELAXATION_METRICS}
    return {name if name in relaxed else f"{part}_{name}": value for name, value in averages.items()}


def name_regime(regime: Regime) -> dict[str, Any]:
    """The regime as plain numbers, as the log names them."""
    layers = [name for name in regime.cosine if name != "all"]
    return {
        "reference": regime.reference,
        "gradient_cosine": float(regime.cosine["all"]),
        "norm_ratio": float(regime.norm_ratio["all"]),
        "layer_cosine": {name: float(regime.cosine[name]) for name in layers},
        "layer_norm_ratio": {name: float(regime.norm_ratio[name]) for name in layers},
        "relaxed_fraction": float(regime.relaxed),
        "curvature": float(regime.curvature),
        "step_bound": float(regime.step_bound),
        "step_margin": float(regime.step_margin),
    }
