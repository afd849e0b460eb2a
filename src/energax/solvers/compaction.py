"""Slow samples are gathered from a batch, so that they do not make the finished ones be computed to the end."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.dynamics.phase import Phase
from energax.graph.structure import States

LEAST = 16  # rows: a smaller batch is not worth another compiled loop
SHARE = 4  # a gathered batch is this much smaller; a quarter of the rows is a quarter of the work

Stage = Callable[[Phase, States, PyTree, int], PyTree]
"""`(phase, start, now, rest) -> now`: goes on until at most `rest` samples are unfinished."""


def run_in_stages(
    stage: Stage, phase: Phase, start: States, now: PyTree, unfinished: Callable[[PyTree], Array]
) -> PyTree:
    """Run a stage on all samples until few are unfinished, gather these, and so on with ever fewer.

    Args:
        stage: one compiled loop.
        phase: the phase of all samples.
        start: where it began, batch first.
        now: the loop state: arrays batch first, or scalars.
        unfinished: mask of a loop state, shape `(batch,)`.
    """
    batch = next(iter(jax.tree.leaves(start))).shape[0]
    rest = batch // SHARE if batch >= LEAST else 0
    end = stage(phase, start, now, rest)
    if rest == 0:
        return end

    def gathered():
        rows = jnp.argsort(~unfinished(end))[:rest]
        few = run_in_stages(stage, phase.take(rows), take_rows(start, rows), take_rows(end, rows), unfinished)
        return jax.tree.map(lambda all_, some: all_.at[rows].set(some) if all_.ndim else some, end, few)

    return jax.lax.cond(jnp.any(unfinished(end)), gathered, lambda: end)


def take_rows(tree: PyTree, rows: Array) -> PyTree:
    """Some samples of arrays; scalars as they are."""
    return jax.tree.map(lambda a: a[rows] if eqx.is_array(a) and a.ndim else a, tree)
