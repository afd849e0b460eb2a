"""What a layer's synapses weigh: the layer as a plain linear map, or with every weight at its size."""

from collections.abc import Callable
from functools import singledispatch

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.checking import tell
from energax.exceptions import SettingError
from energax.layers.basic import Chain, Flatten, Identity, Linear
from energax.layers.convolution import Conv2d
from energax.layers.pooling import Pool, average, mean_over_image, pad_even
from energax.layers.sparse import Sparse

FIXED = (average, mean_over_image, pad_even)
"""Functions that are linear and weigh nothing below 0."""


@singledispatch
def change_weights(layer: Callable, change: Callable[[Array], Array], *, biased: bool = True) -> Callable:
    """The layer with its weights changed.

    Of layers in a chain each is changed: the chain of their sizes is no less than the size of the chain.

    Register your own linear layer: `change_weights.register(MyLayer, lambda layer, change, biased=True: ...)`.

    Args:
        layer: any linear layer.
        change: applied to the array of its weights, as `jnp.abs`.
        biased: False puts its bias at 0, so that it is a linear map.

    Raises:
        SettingError: a layer that is not known to be linear.
    """
    if any(layer is fixed for fixed in FIXED):
        return layer
    raise SettingError(
        f"{tell(layer)} is not known to be linear, so that its synapses have no weights: give a linear layer, or "
        "register it with energax.layers.change_weights"
    )


@change_weights.register
def _(layer: Chain, change, *, biased=True):
    return Chain(tuple(change_weights(part, change, biased=biased) for part in layer.layers))


@change_weights.register
def _(layer: Pool, change, *, biased=True):
    change_weights(layer.reduce, change)  # refuses a pooling that is not linear
    return layer


@change_weights.register(Flatten)
@change_weights.register(Identity)
def _(layer, change, *, biased=True):
    return layer


@change_weights.register(Linear)
@change_weights.register(Sparse)
@change_weights.register(Conv2d)
@change_weights.register(eqx.nn.Linear)
@change_weights.register(eqx.nn.Conv)
def _(layer, change, *, biased=True):
    changed = eqx.tree_at(lambda layer: layer.weight, layer, change(layer.weight))
    if biased or layer.bias is None:
        return changed
    return eqx.tree_at(lambda layer: layer.bias, changed, jnp.zeros_like(layer.bias))
