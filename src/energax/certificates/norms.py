"""Upper bounds on the gain of a linear layer, none of which an iteration could miss from below."""

import functools
import operator
from collections.abc import Callable, Sequence
from functools import singledispatch

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.layers import Chain, Conv2d, Flatten, Identity, Linear, Sparse, change_weights, takes_batch

DENSE = 2**22
"""Largest number of entries of a matrix that is written out for its norm."""
ROUNDS = 30


@singledispatch
def bound_norm(layer: Callable, shape: Sequence[int]) -> Array | float:
    """A bound on |layer(x) - layer(y)| / |x - y| in Euclidean norms, from above.

    Exact for dense layers and for convolutions but for their borders; elsewhere the norm of the sizes of the weights,
    bounded as Collatz and Wielandt bound a Perron root, by any positive vector.

    Args:
        layer: a linear layer.
        shape: of one input.

    Raises:
        SettingError: a layer that is not known to be linear.
    """
    sizes = change_weights(layer, jnp.abs, biased=False)
    call = sizes if takes_batch(sizes) else jax.vmap(sizes)
    kinds = [leaf.dtype for leaf in jax.tree.leaves(sizes) if eqx.is_inexact_array(leaf)]
    ones = jnp.ones((1, *shape), jnp.result_type(*kinds) if kinds else float)
    back = jax.linear_transpose(call, ones)

    def square(x):
        return back(call(x))[0]

    def sharpen(_, x):
        x = square(x)
        return x / jnp.maximum(jnp.max(x), jnp.finfo(x.dtype).tiny) + 1e-3

    x = jax.lax.fori_loop(0, ROUNDS, sharpen, ones)
    return jnp.sqrt(jnp.max(square(x) / x))


@bound_norm.register
def _(layer: Linear, shape):
    return norm_of(layer.weight) if layer.weight.size <= DENSE else bound_by_sums(layer.weight)


@bound_norm.register
def _(layer: eqx.nn.Linear, shape):
    return norm_of(layer.weight) if layer.weight.size <= DENSE else bound_by_sums(layer.weight)


@bound_norm.register
def _(layer: Sparse, shape):
    if layer.in_features * layer.out_features > DENSE:
        return bound_norm.dispatch(object)(layer, shape)
    dense = jnp.zeros((layer.in_features, layer.out_features), layer.weight.dtype)
    return norm_of(dense.at[layer.sources, layer.targets].add(layer.weight))


@bound_norm.register
def _(layer: Conv2d, shape):
    """What is cut out of a periodic convolution on a larger image gains no more than that: one matrix per frequency.

    Reference: Sedghi, Gupta & Long 2019, "The singular values of convolutional layers".
    """
    side = layer.weight.shape[0]
    size = [length + 2 * layer.padding + side - 1 for length in shape[:2]]
    spectrum = jnp.fft.fft2(layer.weight, size, axes=(0, 1))
    return jnp.max(jnp.linalg.norm(spectrum, 2, axis=(2, 3)))


@bound_norm.register
def _(layer: Chain, shape):
    bounds = []
    for part in layer.layers:
        bounds.append(bound_norm(part, shape))
        out = jax.eval_shape(part if takes_batch(part) else jax.vmap(part), jnp.zeros((1, *shape)))
        shape = out.shape[1:]
    return functools.reduce(operator.mul, bounds, 1.0)


@bound_norm.register(Flatten)
@bound_norm.register(Identity)
def _(layer, shape):
    return 1.0


def norm_of(weight: Array) -> Array:
    """The largest singular value, from the smaller Gram matrix: a decomposition holds square ones of both sides."""
    short = weight if weight.shape[0] <= weight.shape[1] else weight.T
    gram = jnp.matmul(short, short.T, precision="highest")
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram)[-1], 0))


def bound_by_sums(weight: Array) -> Array:
    """Sqrt(largest row sum times largest column sum) of the sizes: no less than the norm."""
    sizes = jnp.abs(weight)
    return jnp.sqrt(jnp.max(sizes.sum(0)) * jnp.max(sizes.sum(1)))
