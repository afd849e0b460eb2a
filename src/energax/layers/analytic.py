"""Which layers extend to complex states."""

from collections.abc import Callable
from functools import singledispatch

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.activations import AbstractSmooth, Box
from energax.layers.basic import Chain, Flatten, Identity, Linear
from energax.layers.convolution import Conv2d
from energax.layers.pooling import Pool, SoftmaxPooling, average, mean_over_image, pad_even
from energax.layers.random import Dropout, apply
from energax.layers.sparse import Sparse
from energax.layers.wrapper import AbstractWrapper


class Analytic(AbstractWrapper):
    """Declare that a layer of your own extends to complex arguments (no abs, max, conj or sort inside)."""

    function: Callable

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        """Apply the layer."""
        return apply(self.function, x, key)


@singledispatch
def is_analytic(layer) -> bool:
    """Whether a layer extends to complex states; unknown layers do not, unless wrapped in `Analytic`."""
    return layer in (jnp.tanh, jax.nn.sigmoid, jnp.sin, jnp.cos, average, mean_over_image, pad_even)


@is_analytic.register
def _(layer: Box) -> bool:
    return layer.unbounded


@is_analytic.register
def _(layer: AbstractWrapper) -> bool:
    return is_analytic(layer.function)


@is_analytic.register
def _(layer: Pool) -> bool:
    return is_analytic(layer.reduce)


@is_analytic.register
def _(layer: Chain) -> bool:
    return all(is_analytic(part) for part in layer.layers)


@is_analytic.register(AbstractSmooth)
@is_analytic.register(Conv2d)
@is_analytic.register(Linear)
@is_analytic.register(Flatten)
@is_analytic.register(Identity)
@is_analytic.register(SoftmaxPooling)
@is_analytic.register(Sparse)
@is_analytic.register(Dropout)
@is_analytic.register(eqx.nn.Dropout)
@is_analytic.register(Analytic)
@is_analytic.register(eqx.nn.Linear)
@is_analytic.register(eqx.nn.Conv)
def _(layer) -> bool:
    return True
