"""What is clamped, as a phase holds it: checked, in one dtype, with masks of known units and a key per sample."""

import dataclasses
import functools
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.checking import as_array, require_key
from energax.exceptions import DataError
from energax.graph.parts import Clamped, Known, States, list_names
from energax.graph.structure import AnyGraph


def promote(graph: AnyGraph, values: States) -> States:
    """Clamped values in the widest floating-point dtype of the parameters and of the values."""
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(graph, eqx.is_inexact_array))}
    if not values:
        return {}
    wide = functools.reduce(jnp.promote_types, [*dtypes, *(value.dtype for value in values.values())])
    return {name: value.astype(wide) for name, value in values.items()}


def hold(
    graph: AnyGraph,
    values: Array | Mapping[str, Array],
    key: PRNGKeyArray | None = None,
    known: Mapping[str, Array] | None = None,
    rows: Array | None = None,
) -> Clamped:
    """Clamped nodes as a phase holds them: checked, in one dtype, with a key for every sample.

    Args:
        graph: the network.
        values: as `graph.clamp` takes them.
        key: for random layers; every sample draws from this key and its row alone. None switches chance off.
        known: name of a clamped node -> which of its units are held, shape `(batch, *shape)`. The others are free, and
            their values, NaN or not, are never looked at.
        rows: an array of the batch's size, for a batch of which nothing is held.

    Raises:
        DataError: as `graph.clamp`; a mask of a node without values, or that does not fit them.
        SettingError: a key that is none.
    """
    if key is not None:
        require_key("key", key)
    clamped = promote(graph, graph.clamp(values))
    parts = {name: place_mask(graph, name, mask, clamped) for name, mask in (known or {}).items()}
    clamped = {name: value for name, value in clamped.items() if name not in parts}
    held = Clamped(clamped, known=parts)
    if not held.held and rows is not None:
        held = Clamped({}, rows=jnp.zeros(rows.shape[0], next(iter(promote(graph, {"rows": rows}).values())).dtype))
    if key is None or not (held.held or rows is not None):
        return held
    size = held.example.shape[0]
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(size))
    return dataclasses.replace(held, keys=keys)


def place_mask(graph: AnyGraph, name: str, mask: Array, clamped: States) -> Known:
    """The units of a node that are held, with 0 where nothing is known of a unit."""
    if name not in clamped:
        raise DataError(
            f"known: node {name!r} is not clamped (clamped: {list_names(clamped)}): give its values as well"
        )
    value, mask = clamped[name], as_array(f"known: the mask of node {name!r}", mask)
    if mask.dtype != bool:
        raise DataError(
            f"known: the mask of node {name!r} has dtype {mask.dtype}; give booleans, True where a unit is known, as "
            "~jnp.isnan(x)"
        )
    shape, full = graph.node(name).shape, value.shape
    if mask.shape == (full[0], *shape):  # a mask without axes holds at every position
        mask = jnp.broadcast_to(mask.reshape(full[0], *(1,) * (len(full) - 1 - len(shape)), *shape), full)
    if mask.shape != full:
        raise DataError(f"known: the mask of node {name!r} has shape {mask.shape}, and its values {full}")
    return Known(mask, jnp.where(mask, value, 0))
