"""Layers that draw random numbers: dropout, and how a layer says that it does."""

from collections.abc import Callable
from functools import singledispatch

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.exceptions import SettingError


@singledispatch
def takes_key(layer) -> bool:
    """Whether a layer is random: called as `layer(x, key=key)`, and with `key=None` where chance is off.

    Unknown layers are not. Register your own: `takes_key.register(MyNoise, lambda layer: True)`.
    """
    return False


@singledispatch
def draw(layer, x: Array, key: PRNGKeyArray | None) -> Array:
    """Call a random layer; register layers that are called otherwise than `takes_key` says."""
    return layer(x, key=key)


def apply(layer: Callable, x: Array, key: PRNGKeyArray | None = None) -> Array:
    """Call any layer on one sample, a random one with a key.

    Args:
        layer: the layer.
        x: what it is called on.
        key: what a random layer draws from; None switches chance off, as in evaluation.
    """
    return draw(layer, x, key) if takes_key(layer) else layer(x)


class Dropout(eqx.Module):
    """Set every number to 0 with probability `rate`, and divide the others by 1 - rate (Srivastava et al. 2014).

    In a graph the mask is drawn once per batch, sample and edge, so that all phases and steps of a relaxation see the
    same one: it is then an ordinary linear map, with equilibria of its own.

    Attributes:
        rate: in [0, 1).
    """

    rate: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        if not 0 <= self.rate < 1:
            raise SettingError(f"rate={self.rate}: give the share of numbers to drop, at least 0 and below 1")

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        """Shape unchanged; the input itself without a key."""
        if key is None or self.rate == 0:
            return x
        return jnp.where(jax.random.bernoulli(key, 1 - self.rate, x.shape), x / (1 - self.rate), 0)


@takes_key.register(Dropout)
@takes_key.register(eqx.nn.Dropout)
def _(layer) -> bool:
    return True


@takes_key.register
def _(layer: eqx.nn.Sequential) -> bool:
    return any(map(takes_key, layer.layers))


@draw.register(eqx.nn.Dropout)
@draw.register(eqx.nn.Sequential)
def _(layer, x, key):
    """In equinox chance is switched off by a flag of the layer."""
    return eqx.nn.inference_mode(layer)(x) if key is None else layer(x, key=key)
