"""Precisions that are learnt."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from energax.exceptions import SettingError


class LearnedPrecision(eqx.Module):
    """A precision Pi > 0 that is trained, as its logarithm.

    The energy of a node with a learnt precision holds -1/2 log Pi for every unit, the logarithm of the Gaussian's
    norm: without it Pi would fall to 0. With it, and nothing else, the Pi of a node that is not clamped rises without
    end, because its errors can settle to 0 (Friston 2005; Bogacz 2017): such a node needs bounds or a prior.

    Attributes:
        raw: the trained numbers: log Pi, or what a sigmoid maps between the bounds' logarithms.
        bounds: smallest and largest Pi, or None.
        gamma: shape a and rate b of a prior Gamma(a, b) on Pi, counted once per sample, or None.
    """

    raw: Array
    bounds: tuple[float, float] | None = eqx.field(static=True)
    gamma: tuple[float, float] | None = eqx.field(static=True)

    def __init__(
        self,
        initial: Array | float = 1.0,
        *,
        bounds: tuple[float, float] | None = None,
        gamma: tuple[float, float] | None = None,
    ):
        """Begin at `initial`: a number, or an array that broadcasts with the node, of which each is trained.

        Raises:
            SettingError: an initial value that is not positive or lies outside the bounds; bounds that are none.
        """
        value = np.asarray(initial, float)
        if not np.all(value > 0):
            raise SettingError(f"initial={initial}: a precision is above 0")
        if bounds is not None and not 0 < bounds[0] < bounds[1]:
            raise SettingError(f"bounds={bounds}: give a lower and a larger upper bound, both above 0")
        if bounds is not None and not np.all((bounds[0] < value) & (value < bounds[1])):
            raise SettingError(f"initial={initial} lies outside bounds={bounds}")
        if gamma is not None and not (gamma[0] > 0 and gamma[1] > 0):
            raise SettingError(f"gamma={gamma}: give a shape and a rate above 0")
        self.bounds, self.gamma = bounds, gamma
        if bounds is None:
            self.raw = jnp.asarray(np.log(value), jnp.result_type(float))
        else:
            low, high = np.log(bounds)
            share = (np.log(value) - low) / (high - low)
            self.raw = jnp.asarray(np.log(share / (1 - share)), jnp.result_type(float))

    @property
    def log(self) -> Array:
        """Log Pi."""
        if self.bounds is None:
            return self.raw
        low, high = np.log(self.bounds)
        return low + (high - low) * jax.nn.sigmoid(self.raw)

    @property
    def value(self) -> Array:
        """Pi."""
        return jnp.exp(self.log)

    @property
    def held_up(self) -> bool:
        """Whether bounds or a prior keep it from rising without end."""
        return self.bounds is not None or self.gamma is not None

    def energy(self, shape: tuple[int, ...]) -> Array:
        """-1/2 log Pi of every unit of a node of this shape, and -log of the prior, as one number per sample."""
        whole = -jnp.sum(jnp.broadcast_to(self.log, shape)) / 2
        if self.gamma is None:
            return whole
        a, b = self.gamma
        return whole + jnp.sum(b * self.value - (a - 1) * self.log)
