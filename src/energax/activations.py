"""Activations that know the potential G with G' = rho^-1, which Hopfield energies are made of.

Any callable can be the transform of a node in a predictive-coding graph; a Hopfield energy needs one of these.
"""

import abc
import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.checking import require_between, tell
from energax.exceptions import SettingError


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
        """The v that minimises G(v) + curvature/2 v^2 - drive * v, elementwise.

        Where this falls without bound there is no minimum: NaN, or the infinity that it falls towards. Complex
        arguments take the stationary point that continues the real minimum.

        Args:
            drive: h.
            curvature: c, of a shape that broadcasts with the drive; negative under a negative nudge.
        """


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
        """The quadratic's minimum, clipped; the better wall where it is concave, which may be at infinity."""
        bend = 1 + jnp.asarray(curvature)
        convex = bend.real > 0
        inside = self(drive / jnp.where(convex, bend, 1))
        # two walls are equally good for the drive bend * (lower + upper) / 2, and a straight line falls by its sign
        even = jnp.where(bend.real < 0, bend.real * ((self.lower + self.upper) / 2), 0)
        wall = jnp.where(drive.real > even, self.upper, jnp.where(drive.real <= even, self.lower, jnp.nan))
        return jnp.where(convex, inside, wall.astype(inside.dtype))


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
    """A smooth bounded activation, odd about its steepest point; its block minimiser is a scalar equation's root."""

    @property
    @abc.abstractmethod
    def centre(self) -> float | Array:
        """The drive m at which rho is steepest, and about which it is odd: rho(m + t) + rho(m - t) = 2 rho(m)."""

    @abc.abstractmethod
    def slope(self, drive: Array) -> Array:
        """rho'(h)."""

    def minimise(self, drive, curvature):
        """The v = rho(u) with u + c rho(u) = h, by Newton's method in a bracket; differentiated implicitly."""
        drive, curvature = jnp.broadcast_arrays(drive, jnp.asarray(curvature).astype(drive.dtype))

        def excess(u):
            return u + curvature * self(u) - drive

        def excess_slope(u):
            return 1 + curvature * self.slope(u)

        def solve(_, first):
            if jnp.iscomplexobj(drive):
                # complex numbers have no order, so no bracket
                return jax.lax.fori_loop(0, 12, lambda _, u: u - excess(u) / excess_slope(u), first)
            size = jnp.abs(drive) + jnp.abs(curvature)
            return find_root(excess, excess_slope, first, self._bracket(drive, curvature), size)

        first = drive / (1 + curvature * self.slope(jnp.full_like(drive, self.centre)))
        # the equation is elementwise, so its linearisation is a division
        root = jax.lax.custom_root(excess, first, solve, lambda linear, right: right / linear(jnp.ones_like(right)))
        return self(root)

    def _bracket(self, drive, curvature):
        """Two ends between which u + c rho(u) - h rises through 0, once, at the minimum.

        For c >= 0 the left side rises everywhere, and c rho(h) says on which side of h the root lies. For c < 0 there
        may be two wells with a crest between them. Both halves of rho being alike, the deeper well is on the side of
        the centre to which the slope at the centre points, and there the left side has one root: it is convex.
        """
        pull = curvature * self(drive)
        lowest, highest = (self(jnp.full_like(drive, end)) for end in (-jnp.inf, jnp.inf))
        centre = jnp.full_like(drive, self.centre)
        upper = drive - curvature * self(centre) >= centre
        concave = (
            jnp.where(upper, centre, drive - curvature * lowest),
            jnp.where(upper, drive - curvature * highest, centre),
        )
        rising = (jnp.minimum(drive, drive - pull), jnp.maximum(drive, drive - pull))
        lower, higher = (jnp.where(curvature < 0, a, b) for a, b in zip(concave, rising, strict=True))
        return lower, higher


class Tanh(AbstractSmooth):
    """rho = tanh; G = v artanh v + log(1 - v^2) / 2."""

    @property
    def centre(self):
        """0."""
        return 0.0

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

    @property
    def centre(self):
        """The midpoint."""
        return self.midpoint

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


STEEPEST = {jnp.tanh: 1.0, jax.nn.relu: 1.0, jax.nn.sigmoid: 0.25, jax.nn.hard_sigmoid: 1 / 6, jax.nn.softplus: 1.0}


@functools.singledispatch
def steepest(activation: Callable) -> float:
    """The largest slope of an activation anywhere: its Lipschitz bound.

    Register your own: `steepest.register(MyActivation, lambda activation: 1.0)`.

    Raises:
        SettingError: an activation of which it is not known.
    """
    if activation in STEEPEST:
        return STEEPEST[activation]
    raise SettingError(
        f"activation {tell(activation)}: its largest slope is not known, so that nothing can be certified; use one of "
        "energax.activations, or register it with activations.steepest"
    )


@steepest.register
def _(activation: Box) -> float:
    return 1.0


@steepest.register
def _(activation: AbstractSmooth) -> float:
    with jax.ensure_compile_time_eval():
        return float(activation.slope(jnp.asarray(activation.centre, float)))


def entropy(p: Array) -> Array:
    """P log p + (1 - p) log(1 - p), with 0 log 0 = 0 and finite derivatives at the ends."""

    def term(q):
        tiny = jnp.finfo(q.dtype).tiny
        safe = q if jnp.iscomplexobj(q) else jnp.maximum(q, tiny)
        return q * jnp.log(safe)

    return term(p) + term(1 - p)


def find_root(
    function: Callable[[Array], Array],
    slope: Callable[[Array], Array],
    first: Array,
    bracket: tuple[Array, Array],
    size: Array,
) -> Array:
    """The root of a function that rises through 0 between two ends, elementwise.

    Newton's method; the bracket is halved instead where a step would leave it, or is more than half of the one before:
    so steep and flat stretches cost one evaluation for each binary digit at most.

    Args:
        function: what is to be 0.
        slope: its derivative.
        first: where to begin; what is outside of the bracket begins in its middle.
        bracket: `(low, high)`: not positive at `low`, not negative at `high`, up to rounding.
        size: size of the terms whose sum the function is: what 2 eps times it leaves is rounding.
    """
    eps = jnp.finfo(first.dtype).eps

    def refine(now):
        low, high, u, before, taken, active = now
        value = function(u)
        low, high = jnp.where(value <= 0, u, low), jnp.where(value > 0, u, high)
        rate = slope(u)
        newton = -value / rate
        # where the function falls it may be 0 too, on the crest between two wells
        short = (rate > 0) & (u + newton >= low) & (u + newton <= high) & (jnp.abs(newton) <= before / 2)
        # at the root a step is rounding, and halving would lead away from it
        met = (rate > 0) & (jnp.abs(value) <= 2 * eps * (size + jnp.abs(u)))
        step = jnp.where(active, jnp.where(short, newton, jnp.where(met, 0, (low + high) / 2 - u)), 0)
        active &= ~met & (jnp.abs(step) > 2 * eps * jnp.abs(u))
        return low, high, u + step, jnp.abs(step), taken + 1, active

    low, high = bracket
    begin = jnp.where((first >= low) & (first <= high), first, (low + high) / 2)
    now = (low, high, begin, jnp.full_like(first, jnp.inf), 0, jnp.ones(first.shape, bool))
    limit = 4 * jnp.finfo(first.dtype).nmant  # twice what halving alone takes, with room for its start
    return jax.lax.while_loop(lambda now: jnp.any(now[-1]) & (now[-2] < limit), refine, now)[2]
