"""The convolutional layer."""

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray

from energax.layers.bilinear import convolve


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
        out = convolve(image[None], self.weight, stride=self.stride, padding=self.padding)[0]
        return out if self.bias is None else out + self.bias
