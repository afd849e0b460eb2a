"""Nudge strengths and weights: which difference of equilibria estimates the gradient."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray

from energax.checking import as_setting, tell
from energax.exceptions import SettingError


class AbstractNudgingScheme(eqx.Module):
    """g = w_0 dF/dtheta(v^0) + sum_k w_k dF/dtheta(v^beta_k; beta_k)."""

    balanced: eqx.AbstractVar[bool]  # whether all weights, w_0 included, sum to 0: what no nudge changes cancels
    whole: eqx.AbstractVar[bool]  # whether this is dF/dtheta at beta = 1, the whole free energy

    @abc.abstractmethod
    def at(self, batch: int, key: PRNGKeyArray | None) -> tuple[Array, Array, Array | None]:
        """Points and weights, each of shape `(points, batch)`, and w_0, shape `()` or `(batch,)`.

        w_0 is the weight of the free phase, None where it does not enter.
        """


def as_vector(values) -> Array:
    """Values as a vector."""
    return jnp.atleast_1d(values)


class NudgingScheme(AbstractNudgingScheme):
    """The same points and weights for every sample. All are array leaves: another beta never recompiles.

    Attributes:
        points: nudge strengths beta_k, shape `(points,)`.
        weights: w_k, shape `(points,)`.
        free_weight: w_0 or None.
        balanced: whether all weights sum to 0.
        whole: whether the only point and weight are 1.
    """

    points: Array = eqx.field(converter=as_vector)
    weights: Array = eqx.field(converter=as_vector)
    free_weight: Array | None = eqx.field(converter=as_setting("NudgingScheme: free_weight"), default=None)
    balanced: bool = eqx.field(static=True, default=False)
    whole: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.points.shape != self.weights.shape or self.points.ndim != 1:
            raise SettingError(
                f"points of shape {self.points.shape} and weights of shape {self.weights.shape}: "
                "give one weight per point"
            )

    def at(self, batch, key):
        """Repeat over the batch."""
        shape = (*self.points.shape, batch)
        points, weights = (jnp.broadcast_to(a[:, None], shape) for a in (self.points, self.weights))
        return points, weights, self.free_weight


def nudge(beta: float) -> NudgingScheme:
    """One point beta with weight 1 / beta, for energies whose free gradient is zero: PC-Nudge (2023, Eq. 22)."""
    require_positive(beta)
    return NudgingScheme(points=beta, weights=1 / beta)


def unit_nudge() -> NudgingScheme:
    """One point 1 with weight 1: ordinary predictive coding, dF/dtheta at the beta = 1 equilibrium."""
    return NudgingScheme(points=1.0, weights=1.0, whole=True)


def one_sided(beta: float) -> NudgingScheme:
    """(F at beta - F at 0) / beta: error of order beta (Scellier & Bengio 2017; 2023, Eq. 8)."""
    require_positive(beta)
    return NudgingScheme(points=beta, weights=1 / beta, free_weight=-1 / beta, balanced=True)


def centred(beta: float) -> NudgingScheme:
    """(F at beta - F at -beta) / 2 beta: error of order beta^2 (Laborieux et al. 2021).

    The phase at -beta needs a minimum: with squared error on a linear output of curvature 1 there is none from beta = 1
    on. Far below that the error may be large already: .2 is a strength that suited all nets that we measured
    (`results/bench/nudge_strength.json`).
    """
    require_positive(beta)
    points = jnp.stack([jnp.asarray(beta), jnp.asarray(-beta)])
    return NudgingScheme(points=points, weights=1 / (2 * points), balanced=True)


def richardson(beta: float) -> NudgingScheme:
    """2 g(beta / 2) - g(beta) of one-sided gradients: order beta^2 without negative nudging."""
    require_positive(beta)
    points, weights = jnp.stack([jnp.asarray(beta / 2), jnp.asarray(beta)]), jnp.array([4.0, -1.0]) / beta
    return NudgingScheme(points=points, weights=weights, free_weight=-3 / beta, balanced=True)


def holomorphic(beta: float, points: int) -> NudgingScheme:
    """N points beta e^(2 pi i k / N) with weights 1 / (N beta_k): error of order beta^N (Laborieux & Zenke 2022).

    N = 2 is centred nudging, without complex numbers.
    """
    require_positive(beta)
    if points < 2:
        raise SettingError(f"points={points}: holomorphic nudging needs at least 2")
    if points == 2:
        return centred(beta)
    at = beta * jnp.exp(2j * jnp.pi * (jnp.arange(points) / points))
    return NudgingScheme(points=at, weights=1 / (points * at), balanced=True)


class RandomSign(AbstractNudgingScheme):
    """(F at s beta - F at 0) / s beta with a sign s drawn per sample: the average over s is centred nudging (2017).

    Attributes:
        beta: magnitude of the nudge strength.
    """

    beta: Array = eqx.field(converter=as_setting("RandomSign: beta"))
    balanced: bool = eqx.field(static=True, default=True)
    whole: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_positive(self.beta)

    def at(self, batch, key):
        """Draw the signs."""
        if key is None:
            raise SettingError("RandomSign draws signs: give the batch a key")
        points = self.beta * jax.random.rademacher(key, (1, batch), dtype=self.beta.dtype)
        return points, 1 / points, -1 / points[0]


def require_positive(beta: float | Array) -> None:
    """Refuse nudge strengths that cannot be divided by; traced values pass."""
    if isinstance(beta, Tracer):
        return
    if isinstance(beta, str) or not np.ndim(beta) == 0 or not beta > 0:
        raise SettingError(f"beta={tell(beta)}: the nudge strength must be positive: give a number above 0")
