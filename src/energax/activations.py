"""Activations that know the potential G with G' = rho^-1, which Hopfield energies are made of.

Any callable can be the transform of a node in a predictive-coding graph; a Hopfield energy needs one of these.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.checking import require_between


class AbstractActivation(eqx.Module):
    """A monotone map rho with its potential."""

    @abc.abstractmethod
    def __call__(self, drive: Array) -> Array:
        """rho(h)."""

    @abc.abstractmethod
    def potential(self, state: Array) -> Array:
        """G(v) elementwise, with G' = rho^-1."""

    @abc.abstractmethod
    def minimise(self, drive: Array, curvature: float | Array) -> Array:
        """The v that minimises G(v) + curvature/2 v^2 - drive * v, elementwise."""


class Box(AbstractActivation):
    """The identity clipped to `[lower, upper]`: G = v^2 / 2 inside the box, infinite outside."""

    lower: float = eqx.field(static=True, default=-float("inf"))
    upper: float = eqx.field(static=True, default=float("inf"))

    def __check_init__(self):
        require_between("Box: upper", self.upper, self.lower, float("inf"), open_least=True)

    @property
    def unbounded(self) -> bool:
        """Whether this is the identity."""
        return self.lower == -float("inf") and self.upper == float("inf")

    def __call__(self, drive):
        """Clip to the box."""
        return drive if self.unbounded else jnp.clip(drive, self.lower, self.upper)

    def potential(self, state):
        """v^2 / 2; the box itself is kept by the relaxation."""
        return state**2 / 2

    def minimise(self, drive, curvature):
        """The quadratic's minimum, clipped."""
        return self(drive / (1 + curvature))


def identity() -> Box:
    """rho(h) = h."""
    return Box()


def hard_sigmoid() -> Box:
    """rho(h) = min(max(h, 0), 1) (Scellier & Bengio 2017)."""
    return Box(0.0, 1.0)


def rectifier() -> Box:
    """rho(h) = max(h, 0) as a box, for Hopfield energies."""
    return Box(0.0, float("inf"))


class AbstractSmooth(AbstractActivation):
    """A smooth bounded activation; its block minimiser is a scalar equation solved by Newton's method."""

    @abc.abstractmethod
    def slope(self, drive: Array) -> Array:
        """rho'(h)."""

    def minimise(self, drive, curvature):
        """Solve u + c rho(u) = h for u, then v = rho(u); the left side is monotone for c > -1/max rho'."""
        curvature = jnp.asarray(curvature)

        def newton(_, u):
            return u - (u + curvature * self(u) - drive) / (1 + curvature * self.slope(u))

        return self(jax.lax.fori_loop(0, 12, newton, drive / (1 + curvature * self.slope(drive * 0))))


class Tanh(AbstractSmooth):
    """rho = tanh; G = v artanh v + log(1 - v^2) / 2."""

    def __call__(self, drive):
        """tanh(h)."""
        return jnp.tanh(drive)

    def slope(self, drive):
        """1 - tanh(h)^2."""
        return 1 - jnp.tanh(drive) ** 2

    def potential(self, state):
        """Integral of artanh."""
        return entropy((1 + state) / 2) + jnp.log(2.0)  # v artanh v + log(1 - v^2) / 2, rewritten


class Sigmoid(AbstractSmooth):
    """rho(h) = 1 / (1 + exp(-k (h - m))); G = (v log v + (1 - v) log(1 - v)) / k + m v.

    Attributes:
        gain: k, the slope at the midpoint is k / 4.
        midpoint: m.
    """

    gain: float = eqx.field(static=True, default=1.0)
    midpoint: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        require_between("Sigmoid: gain", self.gain, 0, float("inf"), open_least=True)

    def __call__(self, drive):
        """The logistic function; written with tanh, which has a complex counterpart."""
        return (1 + jnp.tanh(self.gain * (drive - self.midpoint) / 2)) / 2

    def slope(self, drive):
        """K rho (1 - rho)."""
        value = self(drive)
        return self.gain * value * (1 - value)

    def potential(self, state):
        """Integral of the logit."""
        return entropy(state) / self.gain + self.midpoint * state


def entropy(p: Array) -> Array:
    """P log p + (1 - p) log(1 - p), with 0 log 0 = 0 and finite derivatives at the ends."""

    def term(q):
        tiny = jnp.finfo(q.dtype).tiny
        safe = q if jnp.iscomplexobj(q) else jnp.maximum(q, tiny)
        return q * jnp.log(safe)

    return term(p) + term(1 - p)
