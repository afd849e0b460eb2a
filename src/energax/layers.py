"""Layers that equinox.nn lacks: channels-last images, pooling as one smooth family, and facts about layers.

Every layer maps one sample; the graph adds the batch axis. Any `eqx.Module` or callable pytree is a layer.
"""

from collections.abc import Callable
from functools import partial, singledispatch

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.activations import AbstractSmooth, Box


class Conv2d(eqx.Module):
    """Convolution of one image, channels last.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel.
        stride: step between windows.
        padding: zeros added on every side.
        use_bias: add one number per output channel.
        gain: weights are drawn from U(+-gain / sqrt(fan_in)), as is the bias.
        key: PRNG key.
    """

    weight: Array
    bias: Array | None
    stride: int = eqx.field(static=True)
    padding: int = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        use_bias: bool = True,
        gain: float = 1.0,
        key: PRNGKeyArray,
    ):
        limit = gain / (in_channels * kernel_size**2) ** 0.5
        weight_key, bias_key = jax.random.split(key)
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.weight = jax.random.uniform(weight_key, shape, minval=-limit, maxval=limit)
        self.bias = jax.random.uniform(bias_key, (out_channels,), minval=-limit, maxval=limit) if use_bias else None
        self.stride, self.padding = stride, padding

    def __call__(self, image: Array) -> Array:
        """Shape `(height, width, in_channels)` to `(height', width', out_channels)`."""
        if image.ndim != 3 or image.shape[-1] != self.weight.shape[2]:
            raise ValueError(f"expected an image (height, width, {self.weight.shape[2]}), got shape {image.shape}")
        dtype = jnp.result_type(image, self.weight)  # the primitive does not promote, and states may be complex
        image, weight = image.astype(dtype), self.weight.astype(dtype)
        image = jnp.pad(image, ((self.padding, self.padding), (self.padding, self.padding), (0, 0)))
        out = jax.lax.platform_dependent(
            image,
            weight,
            cpu=partial(convolve_patches, stride=self.stride),
            default=partial(convolve, stride=self.stride),
        )
        return out if self.bias is None else out + self.bias


def convolve(image: Array, weight: Array, stride: int) -> Array:
    """Convolution of one padded image, `(h, w, in)` with `(k, k, in, out)`, by XLA's own primitive."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(image[None], weight, (stride, stride), "VALID", dimension_numbers=numbers)[0]


def convolve_patches(image: Array, weight: Array, stride: int) -> Array:
    """The same by strided slices and one matrix product.

    Inside a loop, where relaxation takes place, XLA's CPU backend runs the primitive and above all its transpose two to
    eight times slower than this (`benchmarks/convolution.py`).
    """
    side = weight.shape[0]
    height, width = ((size - side) // stride + 1 for size in image.shape[:2])
    offsets = [(i, j) for i in range(side) for j in range(side)]
    parts = [
        image[i : i + stride * height : stride, j : j + stride * width : stride][:height, :width] for i, j in offsets
    ]
    return jnp.concatenate(parts, axis=-1) @ weight.reshape(-1, weight.shape[-1])


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


class Pool(eqx.Module):
    """Pooling of one image over square windows without overlap: average, maximum, or softmax-weighted average.

    Attributes:
        size: side of the window; height and width must be multiples of it.
        reduce: `average`, `maximum` or a `SoftmaxPooling`: maps `(..., window)` to `(...)`.
    """

    size: int = eqx.field(static=True)
    reduce: Callable[[Array], Array]

    def __call__(self, image: Array) -> Array:
        """Shape `(h, w, c)` to `(h / size, w / size, c)`."""
        if image.ndim != 3 or image.shape[0] % self.size or image.shape[1] % self.size:
            raise ValueError(
                f"pooling by {self.size} needs an image whose sides are multiples of {self.size}, "
                f"got shape {image.shape}"
            )
        k = self.size
        # strided slices instead of reduce_window: its gradient is several times slower on the CPU backend
        windows = jnp.stack([image[i::k, j::k] for i in range(k) for j in range(k)], axis=-1)
        return self.reduce(windows)


def average(windows: Array) -> Array:
    """Mean over the last axis."""
    return jnp.mean(windows, axis=-1)


def maximum(windows: Array) -> Array:
    """Maximum over the last axis."""
    return jnp.max(windows, axis=-1)


def mean_over_image(image: Array) -> Array:
    """Average over height and width, `(h, w, c)` to `(c,)`."""
    return jnp.mean(image, axis=(0, 1))


class SoftmaxPooling(eqx.Module):
    """Average weighted by softmax(sharpness * v): between mean (0) and maximum (infinity), and analytic."""

    sharpness: float = eqx.field(static=True, default=1.0)

    def __call__(self, windows):
        """Weighted average over the last axis."""
        shift = jax.lax.stop_gradient(jnp.max(windows.real, axis=-1, keepdims=True))
        weights = jnp.exp(self.sharpness * (windows - shift))
        return jnp.sum(weights * windows, axis=-1) / jnp.sum(weights, axis=-1)


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

    def __call__(self, x: Array) -> Array:
        """Apply the layers in order."""
        for layer in self.layers:
            x = layer(x)
        return x


class Analytic(eqx.Module):
    """Declare that a layer of your own extends to complex arguments (no abs, max, conj or sort inside)."""

    layer: Callable

    def __call__(self, x: Array) -> Array:
        """Apply the layer."""
        return self.layer(x)


@singledispatch
def is_analytic(layer) -> bool:
    """Whether a layer extends to complex states; unknown layers do not, unless wrapped in `Analytic`."""
    return layer in (jnp.tanh, jax.nn.sigmoid, jnp.sin, jnp.cos, average, mean_over_image)


@is_analytic.register
def _(layer: Box) -> bool:
    return layer.unbounded


@is_analytic.register
def _(layer: Pool) -> bool:
    return is_analytic(layer.reduce)


@is_analytic.register
def _(layer: Chain) -> bool:
    return all(is_analytic(part) for part in layer.layers)


@is_analytic.register(AbstractSmooth)
@is_analytic.register(Conv2d)
@is_analytic.register(Linear)
@is_analytic.register(Flatten)
@is_analytic.register(Identity)
@is_analytic.register(SoftmaxPooling)
@is_analytic.register(Analytic)
@is_analytic.register(eqx.nn.Linear)
@is_analytic.register(eqx.nn.Conv)
def _(layer) -> bool:
    return True


@singledispatch
def matrix_of(layer) -> Array | None:
    """W of a layer that maps a vector v to W^T v + constant, shape `(in, out)`; None of any other layer."""
    return None


@matrix_of.register
def _(layer: Linear) -> Array:
    return layer.weight


@matrix_of.register
def _(layer: eqx.nn.Linear) -> Array | None:
    return None if "scalar" in (layer.in_features, layer.out_features) else layer.weight.T
