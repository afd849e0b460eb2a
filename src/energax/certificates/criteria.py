"""Criteria under which a directed net settles at one point, from anywhere, in a bounded number of steps.

Each finds a norm in which the clipped step contracts: with losses d and delivery M = |W| rho', the diagonally weighted
1- and infinity-norms where d exceeds what M delivers (then every step h <= 1 / max d takes the factor 1 - h c), and
Euclidean norms of all units, or of each node. Nudges of a convex cost add to d and leave c as it is (docs/directed.md).
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.certificates.comparison import Comparison
from energax.dynamics.leaky_flow import LeakyFlow
from energax.graph.parts import States

ROUNDS = 60
MIX = 1e-3  # of the mean, which keeps weights of units that nothing reaches above 0
WRITTEN_OUT = 1024  # units of the largest net whose matrix is written out


class Bound(eqx.Module):
    """What one criterion says; numbers, shape `()`.

    Attributes:
        rate: c in |s - s'| ~ e^(-c t), above 0 where the criterion certifies.
        stretch: how much larger the Euclidean norm of a difference can be at first than contraction allows.
        gain: |J| for criteria in the Euclidean norm of all units, whose step is c / |J|^2; 0 for the others.
    """

    rate: Array
    stretch: Array
    gain: Array


class AbstractCriterion(eqx.Module):
    """One sufficient condition."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What it is called."""

    @abc.abstractmethod
    def __call__(self, net: Comparison) -> Bound:
        """Its verdict on a net."""


class Columns(AbstractCriterion):
    """C1: every unit loses more than it sends."""

    @property
    def name(self):
        """Of the 1-norm."""
        return "C1 columns"

    def __call__(self, net):
        """The least difference, in the 1-norm."""
        return weighted(net.losses, net.collect, net.ones, net.units)


class Rows(AbstractCriterion):
    """C2: every unit loses more than it is sent."""

    @property
    def name(self):
        """Of the infinity-norm."""
        return "C2 rows"

    def __call__(self, net):
        """The least difference, in the infinity-norm."""
        return weighted(net.losses, net.deliver, net.ones, net.units)


class Perron(AbstractCriterion):
    """C3: the spectral radius of M / d is below 1: the best weights of the infinity-norm, which covers C1 and C2."""

    @property
    def name(self):
        """Of the weighted infinity-norm."""
        return "C3 Perron"

    def __call__(self, net):
        """The difference under the weights that a power iteration finds; any positive ones prove it."""

        def spread(weights):
            return jax.tree.map(lambda m, d: m / floor_of(d), net.deliver(weights), net.losses)

        return weighted(net.losses, net.deliver, find_weights(spread, net.ones), net.units)


class Euclidean(AbstractCriterion):
    """C4: -mu_2(J) of a flow, l - |W| rho' of an additive net; of nets small enough to write W out."""

    @property
    def name(self):
        """Of the 2-norm."""
        return "C4 Euclidean"

    def __call__(self, net):
        """In the Euclidean norm of all units."""
        one = jnp.ones_like(next(iter(net.losses.values())).reshape(-1)[0])
        if net.units > WRITTEN_OUT:
            return Bound(-jnp.inf * one, one, 0 * one)
        losses = jnp.concatenate([loss.reshape(-1) for loss in net.losses.values()])
        matrix = net.matrix()
        if isinstance(net.dynamics, LeakyFlow):
            jacobian = matrix - jnp.diag(losses)
            rate = -jnp.linalg.eigvalsh((jacobian + jacobian.T) / 2)[-1]
            return Bound(rate, one, jnp.linalg.norm(jacobian, 2))
        return Bound(jnp.min(losses) - net.steepest() * jnp.linalg.norm(matrix, 2), one, 0 * one)


class SmallGain(AbstractCriterion):
    """C5: nodes as wholes, by the norms of their edges: the spectral radius of N / l is below 1.

    The best for graphs of layers: without cycles it always holds.
    """

    @property
    def name(self):
        """Of the largest weighted norm of a node."""
        return "C5 small gain"

    def __call__(self, net):
        """In the largest of the nodes' weighted Euclidean norms."""
        least, gains = net.blocks()
        weights = find_weights(lambda w: gains @ w / floor_of(least), jnp.ones_like(least))
        rate = jnp.min(least - gains @ weights / weights)
        return Bound(rate, len(least) ** 0.5 * jnp.max(weights) / jnp.min(weights), 0 * rate)


CRITERIA = (Columns(), Rows(), Perron(), Euclidean(), SmallGain())


def weighted(losses: States, delivery: Callable[[States], States], weights: States, units: int) -> Bound:
    """The bound that positive weights w prove: c = min_j (d_j - (M w)_j / w_j)."""
    kept = jax.tree.map(lambda d, m, w: jnp.min(d - m / w), losses, delivery(weights), weights)
    leaves = jax.tree.leaves(weights)
    largest, least = (reduce(jnp.stack([reduce(leaf) for leaf in leaves])) for reduce in (jnp.max, jnp.min))
    rate = jnp.min(jnp.stack(jax.tree.leaves(kept)))
    return Bound(rate, units**0.5 * largest / least, 0 * rate)


def find_weights(spread: Callable, ones):
    """A positive vector near the Perron vector of a non-negative map; half of it stays, since a map may alternate."""
    leaves = jax.tree.leaves(ones)
    count = sum(leaf.size for leaf in leaves)

    def at_mean_1(weights):
        mean = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(weights)) / count
        return jax.tree.map(lambda leaf: leaf / jnp.where(mean > 0, mean, 1), weights)

    def advance(_, weights):
        return at_mean_1(jax.tree.map(lambda old, new: old + new + MIX, weights, at_mean_1(spread(weights))))

    return jax.lax.fori_loop(0, ROUNDS, advance, ones)


def floor_of(losses: Array) -> Array:
    """Losses as divisors: what is not above 0 certifies nothing anyway."""
    return jnp.maximum(losses, jnp.finfo(losses.dtype).tiny)
