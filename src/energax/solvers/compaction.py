"""Slow samples are gathered from a batch, so that they do not make the finished ones be computed to the end."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.solvers.coordinates import AbstractView

LEAST = 16  # rows: a smaller batch is not worth another compiled loop
SHARE = 8  # of the rows, one of so many goes into a group: a step of a group costs so much less than one of all
GROUPS = 2  # groups that may be left when the whole batch stops: each costs the steps of its slowest sample

Stage = Callable[[AbstractView, PyTree, int], PyTree]
"""`(view, now, rest) -> now`: goes on until at most `rest` samples are unfinished."""


def relax_in_groups(stage: Stage, view: AbstractView, now: PyTree, unfinished: Callable[[PyTree], Array]) -> PyTree:
    """Run a stage on all samples until few are unfinished, then on these, a small group after the other.

    Every stage is a compiled loop of its own. Ever smaller ones would follow the number of unfinished samples more
    closely, but compiling is what they cost most; so there are two, and the second is run as often as it takes.

    Args:
        stage: one compiled loop.
        view: all samples. Its phase is all that it knows of the batch.
        now: the loop state: arrays batch first, or scalars.
        unfinished: mask of a loop state, shape `(batch,)`; after a stage without a rest none of its samples is.
    """
    batch = unfinished(now).shape[0]
    if batch < LEAST:
        return stage(view, now, 0)
    size = batch // SHARE
    end = stage(view, now, GROUPS * size)

    def relax_next(all_: PyTree) -> PyTree:
        # the sort is stable, so the unfinished come in their order; finished ones fill the last group, and stay put
        rows = jnp.argsort(~unfinished(all_))[:size]
        group = dataclasses.replace(view, phase=view.phase.take(rows))
        some = stage(group, take_rows(all_, rows), 0)
        # scalars, such as the number of steps so far, are those of the whole batch for every group
        return jax.tree.map(lambda a, b: a.at[rows].set(b) if a.ndim else a, all_, some)

    return jax.lax.while_loop(lambda all_: jnp.any(unfinished(all_)), relax_next, end)


def take_rows(tree: PyTree, rows: Array) -> PyTree:
    """Some samples of arrays; scalars as they are."""
    return jax.tree.map(lambda a: a[rows] if eqx.is_array(a) and a.ndim else a, tree)
