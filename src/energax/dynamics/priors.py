"""Priors: what a latent node costs where nothing predicts it."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import total
from energax.checking import as_setting


class AbstractPrior(eqx.Module):
    """-log p(v) of a node that receives no prediction, up to a constant. Its arrays are held, not trained."""

    @abc.abstractmethod
    def __call__(self, value: Array) -> Array:
        """Per sample, shape `(batch,)`, of states of shape `(batch, ...)`."""


class GaussianPrior(AbstractPrior):
    """1/2 Pi |v - m|^2.

    Attributes:
        mean: m, a number or an array that broadcasts with the node.
        precision: Pi, likewise.
    """

    mean: Array = eqx.field(converter=as_setting("GaussianPrior: mean"), default=0.0)
    precision: Array = eqx.field(converter=as_setting("GaussianPrior: precision"), default=1.0)

    def __call__(self, value):
        """Half the squared distance to the mean, times the precision."""
        return total(self.precision * (value - self.mean) ** 2) / 2


class LaplacePrior(AbstractPrior):
    """sum sqrt(v^2 + w^2) / s, which is |v| / s beyond the width w: sparse codes (Olshausen & Field 1996).

    Attributes:
        scale: s.
        width: w > 0, over which the kink at 0 is rounded, so that solvers can settle on it.
    """

    scale: Array = eqx.field(converter=as_setting("LaplacePrior: scale"), default=1.0)
    width: Array = eqx.field(converter=as_setting("LaplacePrior: width"), default=1e-2)

    def __call__(self, value):
        """The rounded absolute values, summed."""
        return total(jnp.sqrt(value**2 + self.width**2)) / self.scale
