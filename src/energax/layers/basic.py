"""Vectors, shapes and chains."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.layers.batched import apply_batch, takes_batch
from energax.layers.random import apply, takes_key


class Linear(eqx.Module):
    """y = W x + b of a vector, weights and bias from U(+-gain / sqrt(fan_in)).

    Args:
        in_features: size of the input.
        out_features: size of the output.
        use_bias: whether there is a b.
        gain: scale of the initial values; 1 is the usual default.
        key: PRNG key.
    """

    weight: Array
    bias: Array | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        gain: float = 1.0,
        key: PRNGKeyArray,
    ):
        limit = gain / in_features**0.5
        weight_key, bias_key = jax.random.split(key)
        self.weight = jax.random.uniform(weight_key, (in_features, out_features), minval=-limit, maxval=limit)
        self.bias = jax.random.uniform(bias_key, (out_features,), minval=-limit, maxval=limit) if use_bias else None

    def __call__(self, x: Array) -> Array:
        """Shape `(in_features,)` to `(out_features,)`; weights are stored `(in, out)`, synapse i -> j at [i, j]."""
        if x.ndim != 1 or x.shape[0] != self.weight.shape[0]:
            raise ValueError(f"expected a vector of {self.weight.shape[0]} numbers, got shape {x.shape}")
        out = x @ self.weight
        return out if self.bias is None else out + self.bias


class Flatten(eqx.Module):
    """An array of any shape to a vector."""

    def __call__(self, x: Array) -> Array:
        """Shape `(...)` to `(size,)`."""
        return x.reshape(-1)


class Identity(eqx.Module):
    """x to x, for skip edges."""

    def __call__(self, x: Array) -> Array:
        """Return `x`."""
        return x


class Chain(eqx.Module):
    """Several layers applied one after the other, as one function of a graph."""

    layers: tuple[Callable, ...] = eqx.field(converter=tuple)

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        """Apply the layers in order, each random one with a key of its own; to a batch where one of them takes it."""
        call = apply_batch if takes_batch(self) else apply
        for index, layer in enumerate(self.layers):
            x = call(layer, x, None if key is None else fold_in(key, index))
        return x


@takes_key.register
def _(layer: Chain) -> bool:
    return any(map(takes_key, layer.layers))


@takes_batch.register
def _(layer: Chain) -> bool:
    return any(map(takes_batch, layer.layers))


def fold_in(key: PRNGKeyArray, number: int | Array) -> PRNGKeyArray:
    """A key of its own from each key of an array of any shape and a number."""
    return jnp.vectorize(lambda one: jax.random.fold_in(one, number), signature="()->()")(key)
