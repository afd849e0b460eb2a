"""Which layers are one matrix."""

from functools import singledispatch

import equinox as eqx
from jaxtyping import Array

from energax.layers.basic import Linear


@singledispatch
def matrix_of(layer) -> Array | None:
    """W of a layer that maps a vector v to W^T v + constant, shape `(in, out)`; None of any other layer."""
    return None


@matrix_of.register
def _(layer: Linear) -> Array:
    return layer.weight


@matrix_of.register
def _(layer: eqx.nn.Linear) -> Array | None:
    return None if "scalar" in (layer.in_features, layer.out_features) else layer.weight.T
