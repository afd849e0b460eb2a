"""What is said of relaxations: shares of verdicts and residuals, over those that took place."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from energax.rules.base import Info
from energax.solvers.verdict import Verdict


class Relaxations(NamedTuple):
    """The relaxations of all phases of a batch, one after the other; every array has shape `(relaxations,)`.

    Attributes:
        residual, steps, result: as in `Equilibrium`.
        weights: of the sample that was relaxed.
    """

    residual: Array
    steps: Array
    result: Array
    weights: Array


def gather_relaxations(info: Info, weights: Array | None = None) -> Relaxations:
    """The relaxations that a rule reports, without the phases that are known by construction.

    A feed-forward pass that is the free equilibrium is no relaxation: counted as a converged one, it would halve what
    the shares say of the nudged phases.

    Args:
        info: what the rule reports.
        weights: of every sample, shape `(batch,)`; None weighs all alike.
    """
    weights = jnp.ones_like(info.cost) if weights is None else weights.astype(info.cost.dtype)
    phases = [phase for phase in info.phases.values() if not phase.known]
    if not phases:
        none = jnp.zeros(0, info.cost.dtype)
        return Relaxations(none, jnp.zeros(0, int), jnp.zeros(0, int), none)
    return Relaxations(
        jnp.concatenate([phase.residual for phase in phases]),
        jnp.concatenate([phase.steps for phase in phases]),
        jnp.concatenate([phase.result for phase in phases]),
        jnp.concatenate([jnp.tile(weights, len(phase.result) // len(weights)) for phase in phases]),
    )


def weighted_mean(values: Array, weights: Array) -> Array:
    """The mean of `values` with `weights`, both of shape `(n,)`; NaN where nothing has a weight."""
    return jnp.sum(jnp.where(weights > 0, weights * values, 0)) / jnp.sum(weights)


def verdict_shares(relaxations: Relaxations) -> dict[Verdict, Array]:
    """Share of each verdict; NaN where nothing was relaxed."""
    weights = relaxations.weights
    return {v: weighted_mean((relaxations.result == v).astype(weights.dtype), weights) for v in Verdict}
