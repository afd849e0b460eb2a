"""Stretches of an epoch as compiled calls, and how long compiling them took."""

import dataclasses
import time
from typing import Any, cast

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray

from energax.dynamics.phase import Batch
from energax.metrics import Metric
from energax.training.learner import Learner, Progress, apply_update, strengthen_dtypes
from energax.training.metrics import Sums
from energax.training.rows import AbstractRows


class Cut(eqx.Module):
    """How an epoch is cut out of rows.

    Attributes:
        size: rows per batch.
        shuffle: whether every epoch has an order of its own.
        metrics: what is gathered on the way.
    """

    size: int = eqx.field(static=True)
    shuffle: bool = eqx.field(static=True)
    metrics: tuple[Metric, ...] = eqx.field(static=True)


def train_batches(
    learner: Learner, progress: Progress, rows: AbstractRows, cut: Cut, key: PRNGKeyArray, first: Array, last: Array
) -> tuple[Progress, Sums]:
    """Train on batches `first` to `last` (exclusive) of the epoch whose key is given; never returns in between.

    Args:
        learner: what is trained; its graph and solver are those of `progress`.
        progress: what changes.
        rows: the training rows.
        cut: rows per batch and the like.
        key: the epoch's key; the order of the rows and every batch's key follow from it alone.
        first: index of the first batch.
        last: index after the last one.
    """
    order = jax.random.permutation(key, len(rows)) if cut.shuffle else jax.numpy.arange(len(rows))
    dynamic, static = eqx.partition((progress, Sums.zero(cut.metrics)), eqx.is_array)

    def one(index, dynamic):
        progress, sums = eqx.combine(dynamic, static)
        chosen = jax.lax.dynamic_slice(order, (index * cut.size,), (cut.size,))
        batch = rows.batch(chosen, jax.random.fold_in(key, index))
        progress, info = apply_update(learner, progress, batch)
        sums = sums.add_batch(info, batch.weights)
        return eqx.filter(strengthen_dtypes((progress, sums)), eqx.is_array)

    return eqx.combine(jax.lax.fori_loop(first, last, one, strengthen_dtypes(dynamic)), static)


stretch = eqx.filter_jit(train_batches)

Given = tuple[Learner, AbstractRows, Cut, PRNGKeyArray, Array, Array]


@eqx.filter_jit(donate="all-except-first")
def stretch_in_place(given: Given, progress: Progress) -> tuple[Progress, Sums]:
    """`stretch` in the memory of `progress`, which must not be read again.

    Args:
        given: the other arguments of `stretch`; the learner without a graph and a solver, since a buffer that is given
            away must not be read by another name.
        progress: what changes.
    """
    learner, rows, cut, key, first, last = given
    return train_batches(learner, progress, rows, cut, key, first, last)


def train_group(
    learner: Learner,
    progress: Progress,
    sums: Sums,
    group: Batch,
    key: PRNGKeyArray,
    begun: Array,
    first: Array,
    last: Array,
) -> tuple[Progress, Sums]:
    """Train on batches that were read one by one: one call for several saves what calling costs.

    Args:
        learner: what is trained; its graph and solver are those of `progress`.
        progress: what changes.
        sums: what was seen so far.
        group: the batches, stacked along a new first axis; without a key.
        key: the epoch's key; every batch's key follows from it.
        begun: index in the epoch of the group's first batch.
        first: index in the group of the first batch that is trained on.
        last: index after the last one.
    """
    dynamic, static = eqx.partition((progress, sums), eqx.is_array)

    def one(index, dynamic):
        progress, sums = eqx.combine(dynamic, static)
        batch = jax.tree.map(lambda a: a[index], group)
        batch = dataclasses.replace(batch, key=jax.random.fold_in(key, begun + index))
        progress, info = apply_update(learner, progress, batch)
        return eqx.filter(strengthen_dtypes((progress, sums.add_batch(info, batch.weights))), eqx.is_array)

    return eqx.combine(jax.lax.fori_loop(first, last, one, strengthen_dtypes(dynamic)), static)


@eqx.filter_jit(donate="all-except-first")
def group_in_place(
    given: tuple[Learner, Sums, Batch, PRNGKeyArray, Array, Array, Array], progress: Progress
) -> tuple[Progress, Sums]:
    """`train_group` in the memory of `progress`, which must not be read again."""
    learner, sums, group, key, begun, first, last = given
    return train_group(learner, progress, sums, group, key, begun, first, last)


class Programs:
    """The compiled calls of one training.

    Attributes:
        learner: without a graph and a solver.
        metrics: what is gathered on the way.
        seconds: what compiling has taken so far.
    """

    def __init__(self, learner: Learner, metrics: tuple[Metric, ...]):
        self.learner = eqx.tree_at(lambda l: (l.graph, l.solver), learner, (None, None))
        self.metrics, self.seconds, self._compiled = metrics, 0.0, {}

    def stretch(
        self, progress: Progress, rows: AbstractRows, cut: Cut, key: PRNGKeyArray, first: int, last: int
    ) -> tuple[Progress, Sums]:
        """Train on a stretch of the batches of rows; `progress` is used up."""
        given = (self.learner, rows, cut, key, jax.numpy.asarray(first), jax.numpy.asarray(last))
        return self._call("stretch", stretch_in_place, given, progress)

    def group(
        self, progress: Progress, sums: Sums, group: Batch, key: PRNGKeyArray, begun: int, first: int, last: int
    ) -> tuple[Progress, Sums]:
        """Train on some batches of a group; `progress` is used up."""
        places = (jax.numpy.asarray(place) for place in (begun, first, last))
        return self._call("group", group_in_place, (self.learner, sums, group, key, *places), progress)

    def _call(self, kind: str, function, given, state):
        """Call the program for these shapes, compiling it where there is none."""
        arrays, rest = eqx.partition(given[1:], eqx.is_array)
        shapes = jax.tree.map(lambda a: (a.shape, str(a.dtype)), arrays)
        name = (kind, jax.tree.structure((shapes, rest)), str(jax.tree.leaves(shapes)))
        if name not in self._compiled:
            begun = time.perf_counter()
            # `lower` is not in the type of a wrapped function
            self._compiled[name] = cast(Any, function).lower(given, state).compile()
            self.seconds += time.perf_counter() - begun
        return self._compiled[name](given, state)
