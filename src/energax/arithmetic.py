"""Sums, norms and choices over batches of states: what the layers of the library share."""

import functools
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


def total(values: Array) -> Array:
    """Sum over all axes but the first."""
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))


def add_all(terms: Iterable[Array]) -> Array:
    """Sum of arrays; 0 where there are none."""
    given = list(terms)
    return functools.reduce(jnp.add, given) if given else jnp.zeros(())


def add_trees(a: PyTree, b: PyTree) -> PyTree:
    """Return a + b, leaf by leaf."""
    return jax.tree.map(jnp.add, a, b)


def subtract(a: PyTree, b: PyTree) -> PyTree:
    """Return a - b, leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)


def norm(states: PyTree) -> Array:
    """Euclidean norm over all leaves, per sample, shape `(batch,)`; real for complex states."""
    return jnp.sqrt(dot(states, states))


def dot(a: PyTree, b: PyTree) -> Array:
    """Real inner product over all leaves, per sample, shape `(batch,)`."""
    parts = jax.tree.map(lambda p, q: jnp.real(p * jnp.conj(q)).reshape(p.shape[0], -1).sum(1), a, b)
    return add_all(jax.tree.leaves(parts))


def scale(factor: Array, states: PyTree) -> PyTree:
    """A number per sample, shape `(batch,)`, times the states."""
    return jax.tree.map(lambda v: align_batch(factor, v) * v, states)


def align_batch(factor: Array, like: Array) -> Array:
    """Give a `(batch,)` array the axes of `like`; scalars pass."""
    return factor.reshape(factor.shape + (1,) * (like.ndim - 1)) if factor.ndim else factor


def hold_still(tree: PyTree) -> PyTree:
    """The same tree, through whose arrays no derivative passes; what is no array of numbers stays."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


def choose(mask: Array, yes: Any, no: Any) -> Any:
    """`yes` for the samples where `mask` (shape `(batch,)`) holds, `no` for the others, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(align_batch(mask, a), a, b), yes, no)
