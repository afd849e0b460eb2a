"""Pooling over windows without overlap.

The windows of an image are two axes of its reshaped array. A reduction over them is fast forwards as arithmetic between
slices, and backwards as a broadcast; the transpose of a strided slice and that of `reduce_window` are many times slower
on the CPU backend (`benchmarks/convolution.py`). So `added` and `maximum` say how they are differentiated.
"""

import itertools
import math
import operator
from collections.abc import Callable
from functools import partial, reduce

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

Axes = int | tuple[int, ...]

WITHIN = (-4, -2)


class Pool(eqx.Module):
    """Pooling of one image over square windows without overlap: average, maximum, or softmax-weighted average.

    Attributes:
        size: side of the window; height and width must be multiples of it.
        reduce: `average`, `maximum`, a `SoftmaxPooling`, or any function that is called as `jnp.max(array, axes)` is.
    """

    size: int = eqx.field(static=True)
    reduce: Callable[[Array, tuple[int, ...]], Array]

    def __call__(self, image: Array) -> Array:
        """Shape `(h, w, c)` to `(h / size, w / size, c)`."""
        return self.reduce(self.cut(image), WITHIN)

    def cut(self, image: Array) -> Array:
        """The windows of an image, shape `(h / size, size, w / size, size, c)`; `WITHIN` are the axes of a window."""
        if image.ndim != 3 or image.shape[0] % self.size or image.shape[1] % self.size:
            raise ValueError(
                f"pooling by {self.size} needs an image whose sides are multiples of {self.size}, "
                f"got shape {image.shape}"
            )
        height, width, channels = image.shape
        k = self.size
        return image.reshape(height // k, k, width // k, k, channels)


WHOLE: dict[Callable, Callable] = {operator.add: jnp.sum, jnp.maximum: jnp.max}
WRITTEN_OUT = 256
"""Entries of the largest window that is reduced slice by slice: each takes a line of the program."""


def fold(operation: Callable[[Array, Array], Array], windows: Array, axes: Axes) -> Array:
    """Reduce short axes by arithmetic between slices, long ones as a whole."""
    axes = tuple(axis % windows.ndim for axis in ((axes,) if isinstance(axes, int) else axes))
    if math.prod(windows.shape[axis] for axis in axes) > WRITTEN_OUT:
        return WHOLE[operation](windows, axes)
    places = itertools.product(*(range(windows.shape[axis]) for axis in axes))
    index: list = [slice(None)] * windows.ndim
    slices = []
    for place in places:
        for axis, position in zip(axes, place, strict=True):
            index[axis] = position
        slices.append(windows[tuple(index)])
    return reduce(operation, slices)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def add_windows(windows: Array, axes: Axes = -1) -> Array:
    """Sum over short axes."""
    return fold(operator.add, windows, axes)


@add_windows.defjvp
def _(axes, primals, tangents):
    return add_windows(primals[0], axes), jnp.sum(tangents[0], axes)


def average(windows: Array, axes: Axes = -1) -> Array:
    """Mean over the given axes."""
    total = add_windows(windows, axes)
    return total * (total.size / windows.size)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def maximum(windows: Array, axes: Axes = -1) -> Array:
    """Maximum over the given axes.

    Where several entries are the largest, the derivative is the mean over them: a subgradient, its shares add up to 1.
    """
    return fold(jnp.maximum, windows, axes)


@maximum.defjvp
def _(axes, primals, tangents):
    highest = maximum(primals[0], axes)
    hits = (primals[0] == jnp.expand_dims(highest, axes)).astype(highest.dtype)
    return highest, jnp.sum(tangents[0] * hits, axes) / fold(operator.add, hits, axes)


def pad_even(image: Array) -> Array:
    """An image of even sides: a row or a column of zeros below or to the right, where a side is odd."""
    return jnp.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)))


def mean_over_image(image: Array) -> Array:
    """Average over height and width, `(h, w, c)` to `(c,)`."""
    return jnp.mean(image, axis=(0, 1))


class SoftmaxPooling(eqx.Module):
    """Average weighted by softmax(sharpness * v): between mean (0) and maximum (infinity), and analytic."""

    sharpness: float = eqx.field(static=True, default=1.0)

    def __call__(self, windows: Array, axes: Axes = -1) -> Array:
        """Weighted average over the given axes."""
        shift = jax.lax.stop_gradient(fold(jnp.maximum, windows.real, axes))
        weights = jnp.exp(self.sharpness * (windows - jnp.expand_dims(shift, axes)))
        return add_windows(weights * windows, axes) / add_windows(weights, axes)
