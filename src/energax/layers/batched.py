"""Layers that take a whole batch, because their products are fast or differentiable only so."""

from collections.abc import Callable
from functools import partial, singledispatch

import jax
from jaxtyping import Array

from energax.layers.random import apply


@singledispatch
def takes_batch(layer) -> bool:
    """Whether a layer maps a batch, shape `(samples, *shape)`, where others map one sample of it.

    It must not mix samples. Unknown layers take one sample. Register your own:
    `takes_batch.register(MyLayer, lambda layer: True)`.
    """
    return False


def apply_batch(layer: Callable, x: Array, keys: Array | None = None) -> Array:
    """Call any layer on a batch, a random one with a key for every sample; None switches chance off."""
    if takes_batch(layer):
        return apply(layer, x, keys)
    return jax.vmap(partial(apply, layer), (0, None if keys is None else 0))(x, keys)
