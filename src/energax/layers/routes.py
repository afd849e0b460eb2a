"""Pools that hold their routes: which entry of a window goes on is settled in the free phase, for all phases."""

from collections.abc import Callable
from functools import singledispatch

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.layers.basic import Chain, fold_in
from energax.layers.batched import apply_batch
from energax.layers.pooling import WITHIN, Axes, Pool, add_windows, maximum


class HeldMaximum(eqx.Module):
    """Reduction of a `Pool`: of every window the entry that is the largest in the free phase, whatever it is later.

    In a feed-forward pass, and so in backprop, it is `maximum`. Predictive coding and its bidirectional forms note at
    the free equilibrium which entry that is. In a nudged phase the pool is then a linear map, with backprop's routing.
    This is *another energy* than that of `maximum`, which has its minima where entries tie: on kinks, where no residual
    is small. In weak nudges, which change no order of entries, the two are the same.

    The nodes that such pools read have no axes. Other dynamics, and graphs without a feed-forward pass until their
    free phase is settled, take the maximum.
    """

    def __call__(self, windows: Array, axes: Axes = -1) -> Array:
        """Maximum over the given axes."""
        return maximum(windows, axes)


@singledispatch
def takes_routes(layer) -> bool:
    """Whether a layer holds routes."""
    return False


@takes_routes.register
def _(layer: Pool) -> bool:
    return isinstance(layer.reduce, HeldMaximum)


@takes_routes.register
def _(layer: Chain) -> bool:
    return any(map(takes_routes, layer.layers))


@singledispatch
def route(layer: Callable, x: Array, routes: PyTree, keys: Array | None) -> tuple[Array, PyTree]:
    """Call a layer on a batch along routes, or along those that it finds.

    Args:
        layer: any layer.
        x: shape `(batch, *shape)`.
        routes: what an earlier call returned, batch first; None lets the layer find them.
        keys: of every sample, for random layers, shape `(batch,)`; or None.

    Returns:
        What the layer sends, and its routes; None where it takes none.
    """
    return apply_batch(layer, x, keys), None


@route.register
def _(layer: Pool, x, routes, keys):
    """Routes are the share that every entry has in its window's maximum."""
    if not takes_routes(layer):
        return apply_batch(layer, x, keys), None
    windows = jax.vmap(layer.cut)(x)
    if routes is None:
        hits = (windows == jnp.expand_dims(maximum(windows, WITHIN), WITHIN)).astype(x.dtype)
        routes = hits / jnp.expand_dims(add_windows(hits, WITHIN), WITHIN)
    return add_windows(windows * routes, WITHIN), routes


@route.register
def _(layer: Chain, x, routes, keys):
    """One after the other, with the keys that the chain itself hands out."""
    found = []
    for index, part in enumerate(layer.layers):
        own = None if keys is None else fold_in(keys, index)
        x, one = route(part, x, None if routes is None else routes[index], own)
        found.append(one)
    return x, tuple(found)
