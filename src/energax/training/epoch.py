"""A stretch of an epoch as one compiled call."""

from typing import cast

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray

from energax.training.device_split import DeviceSplit
from energax.training.learner import Learner, Progress, strengthen_dtypes, update
from energax.training.metrics import Sums


def train_batches(
    learner: Learner, progress: Progress, split: DeviceSplit, size: int, key: PRNGKeyArray, first: Array, last: Array
) -> tuple[Progress, Sums]:
    """Train on batches `first` to `last` (exclusive) of the epoch whose key is given; never returns in between.

    Args:
        learner: what is trained; its graph and solver are those of `progress`.
        progress: what changes.
        split: the training rows.
        size: rows per batch.
        key: the epoch's key; the order of the rows and every batch's key follow from it alone.
        first: index of the first batch.
        last: index after the last one.
    """
    order = jax.random.permutation(key, len(split.labels))
    dynamic, static = eqx.partition((progress, Sums.zero()), eqx.is_array)

    def one(index, dynamic):
        progress, sums = eqx.combine(dynamic, static)
        rows = jax.lax.dynamic_slice(order, (index * size,), (size,))
        batch = split.batch(rows, jax.random.fold_in(key, index))
        progress, info = update(learner, progress, batch)
        sums = sums.add_batch(info, cast(Array, batch.y), batch.weights)
        return eqx.filter(strengthen_dtypes((progress, sums)), eqx.is_array)

    return eqx.combine(jax.lax.fori_loop(first, last, one, strengthen_dtypes(dynamic)), static)


stretch = eqx.filter_jit(train_batches)


@eqx.filter_jit(donate="all-except-first")
def stretch_in_place(
    given: tuple[Learner, DeviceSplit, int, PRNGKeyArray, Array, Array], progress: Progress
) -> tuple[Progress, Sums]:
    """`stretch` in the memory of `progress`, which must not be read again.

    Args:
        given: the other arguments of `stretch`; the learner without a graph and a solver, since a buffer that is given
            away must not be read by another name.
        progress: what changes.
    """
    learner, split, size, key, first, last = given
    return train_batches(learner, progress, split, size, key, first, last)
