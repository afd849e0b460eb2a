"""The least point of a model of F within the span of a few directions, per sample.

Everything here is small, and a loop around it short: what counts is the number of operations. So the directions are
the first axis of arrays.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import total

TRIALS = 2  # points of the model that are tried: the first finds the scale, the second the place


def minimise_quadratic(slope: Array, bend: Array) -> Array:
    """The z that minimises slope.z + 1/2 z.B z per sample, by B = L D L^T with |D| for D.

    Where B is not positive, the size of the curvature still sets the scale (as in saddle-free Newton). A direction
    that the others span, up to rounding, is left out.

    Args:
        slope: shape `(directions, batch)`.
        bend: shape `(directions, directions, batch)`; its upper triangle is read.
    """
    size = len(slope)
    rows = [[bend[min(i, j), max(i, j)] for j in range(size)] for i in range(size)]
    # elimination without pivoting, written out: of two or three directions there is nothing to reorder, and a call of
    # a library for every sample would cost more than all of it
    rest, inverse = list(slope), []
    for i in range(size):
        pivot = jnp.abs(rows[i][i])
        kept = pivot > jnp.sqrt(jnp.finfo(pivot.dtype).eps) * jnp.abs(bend[i, i])
        inverse.append(jnp.where(kept, 1 / jnp.where(kept, pivot, 1), 0))
        for j in range(i + 1, size):
            factor = rows[j][i] * inverse[i]
            rows[j] = [b - factor * a for a, b in zip(rows[i], rows[j], strict=True)]
            rest[j] = rest[j] - factor * rest[i]
    least: list[Array] = [jnp.zeros_like(slope[0])] * size
    for i in reversed(range(size)):
        known = sum((rows[i][j] * least[j] for j in range(i + 1, size)), rest[i])
        least[i] = -known * inverse[i]
    return jnp.stack(least)


def minimise_in_plane(
    slope: Array, bend: Array, cost: Callable[[Array], Array], output: Array, pushed: Array, trials: int = TRIALS
) -> Array:
    """The z that minimises slope.z + 1/2 z.B z + cost(output + sum_i z_i pushed_i) per sample.

    A cost that saturates, as the cross-entropy of a confident error does, hides its curvature from where one stands: a
    Newton step then overshoots by orders of magnitude. So the cost is taken as it is: a step that promises to take it
    below nothing is cut where it would reach nothing, and a step that led uphill is taken back in part.

    Args:
        slope: of everything but the cost, along the directions, shape `(directions, batch)`.
        bend: the same, shape `(directions, directions, batch)`, symmetric.
        cost: `output -> cost` per sample, at least 0 near its least.
        output: shape `(batch, ...)`.
        pushed: how the output moves along each direction, shape `(directions, batch, ...)`.
        trials: Newton steps from the best point so far; the first is exact where the cost is quadratic.
    """

    def pull(output):
        value, back = jax.vjp(cost, output)
        return back(jnp.ones_like(value))[0], value

    def look(z: Array) -> _Look:
        here = output + jnp.sum(align_directions(z, pushed) * pushed, axis=0)
        # only the cost is differentiated, on arrays of the output's size: no pass through the network is taken here
        fall, turn, value = jax.linearize(pull, here, has_aux=True)
        falls = jax.vmap(lambda move: total(fall * move))(pushed)
        turned = jax.vmap(turn)(pushed)
        bends = bend + jax.vmap(lambda a: jax.vmap(lambda b: total(a * b))(pushed))(turned)
        bent = jnp.sum(bend * z, axis=1)
        slopes = slope + bent + falls
        newton = minimise_quadratic(slopes, bends)
        # along Newton's step the cost is about value - fall t + arch t^2 / 2, and no cost falls below nothing
        arch = jnp.sum(newton * jnp.sum((bends - bend) * newton, axis=1), axis=0)
        reach = limit_share(value, -jnp.sum(newton * falls, axis=0), arch)
        height = jnp.sum(z * (slope + bent / 2), axis=0) + value
        return _Look(z, height, slopes, newton, -jnp.sum(newton * slopes, axis=0), reach)

    def try_step(_, at: tuple[_Look, Array]) -> tuple[_Look, Array]:
        best, share = at
        there = look(best.z + share * best.newton)
        excess = there.height - best.height
        lower = excess <= 0
        # a cost such as log(1 + tiny) is known to the rounding of 1: where heights tell nothing, the slope does
        rounding = 64 * jnp.finfo(share.dtype).eps * (1 + jnp.abs(best.height))
        lower |= (excess <= rounding) & (jnp.sum(best.newton * there.slopes, axis=0) <= best.gain / 2)
        # uphill: the parabola through both heights and the slope has its minimum at this part of the step
        excess = excess + share * best.gain
        part = share * best.gain / jnp.where(excess > 0, 2 * excess, 1)
        shorter = share * jnp.clip(jnp.where(jnp.isfinite(part), part, 0), 0.1, 0.5)
        share = jnp.where(lower, there.reach, shorter)
        return _Look(*(jnp.where(lower, a, b) for a, b in zip(there, best, strict=True))), share

    # nothing is known yet: the first round looks at z = 0, which is below infinity. So the model, which is most of a
    # step's program, is compiled once for all rounds
    none, one = jnp.zeros_like(slope), jnp.ones_like(slope[0])
    nothing = _Look(none, jnp.inf * one, none, none, 0 * one, one)
    best, _ = jax.lax.fori_loop(0, 1 + trials, try_step, (nothing, one))
    return best.z


def limit_share(value: Array, fall: Array, arch: Array) -> Array:
    """The share t of a step, at most 1, at which value - fall t + arch t^2 / 2 reaches 0; 1 where it does not."""
    under = fall**2 - 2 * value * arch
    below = (fall > 0) & (value > 0) & (under > 0)
    root = 2 * value / jnp.where(below, fall + jnp.sqrt(jnp.where(below, under, 1)), 1)
    return jnp.where(below, jnp.minimum(root, 1), 1)


class _Look(NamedTuple):
    """The model at z: its height and slopes, Newton's step from there with its slope, and the share to try first."""

    z: Array
    height: Array
    slopes: Array
    newton: Array
    gain: Array
    reach: Array


def align_directions(z: Array, pushed: Array) -> Array:
    """Give `(directions, batch)` the axes of `(directions, batch, ...)`."""
    return z.reshape(z.shape + (1,) * (pushed.ndim - 2))
