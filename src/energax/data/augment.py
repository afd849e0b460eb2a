"""Preprocessing on the device: pure functions of images and a key, fit for a compiled training step."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.exceptions import SettingError


class Augmentation(eqx.Module):
    r"""Random horizontal flips and random crops of zero-padded images.

    Image $i$ of a batch is transformed with its own key, `fold_in(key, i)`, so what happens to it does not
    depend on how many images follow it. A crop pads every side with `pad` zeros and cuts the original size
    out at an offset uniform on $\{0, \dots, 2\,\mathrm{pad}\}$ along either axis. Zero is black in raw
    pixels, so apply this before `normalise`. With `flip=False` and `pad=0` the images are returned untouched.

    Attributes:
        flip: Whether each image is mirrored left to right with probability one half.
        pad: Number of zero pixels added on every side before the crop, at least 0.

    Raises:
        SettingError: If `pad` is not an integer of at least 0 (when built) or the images are not of rank 4
            (when called).

    Examples:
        >>> import jax
        >>> images = jax.numpy.ones((2, 32, 32, 3))
        >>> Augmentation(flip=True, pad=4)(images, jax.random.key(0)).shape
        (2, 32, 32, 3)

    Reference: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2016, section 4.2, after Lee et
    al., "Deeply-Supervised Nets", 2015.

    """

    flip: bool = eqx.field(static=True, default=False)
    pad: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        if isinstance(self.pad, bool) or not isinstance(self.pad, int) or self.pad < 0:
            raise SettingError(f"Augmentation: pad is {self.pad!r}. Give a number of pixels, an integer >= 0.")

    def __call__(self, images: Array, key: PRNGKeyArray) -> Array:
        """Transform a batch.

        Args:
            images: Shape `(B, H, W, C)`, any dtype.
            key: One key for the whole batch; give every batch a fresh one.

        Returns:
            Images of the same shape and dtype.

        """
        if images.ndim != 4:
            raise SettingError(
                f"Augmentation: images have shape {images.shape}, but (B, H, W, C) is needed. "
                "Add the axis of a single image with images[None]."
            )
        if not self.flip and self.pad == 0:
            return images
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(images)))
        return jax.vmap(self._one)(images, keys)

    def _one(self, image: Array, key: PRNGKeyArray) -> Array:
        flip_key, crop_key = jax.random.split(key)
        if self.flip:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
        if self.pad:
            padded = jnp.pad(image, ((self.pad, self.pad), (self.pad, self.pad), (0, 0)))
            row, column = jax.random.randint(crop_key, (2,), 0, 2 * self.pad + 1)
            image = jax.lax.dynamic_slice(padded, (row, column, jnp.zeros_like(row)), image.shape)
        return image


def normalise(
    images: Array,
    scale: float,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Array:
    r"""Turn raw pixels into floating numbers: $(x / \mathrm{scale} - \mathrm{mean}) / \mathrm{std}$.

    Args:
        images: Shape `(..., C)`. Integers become the default floating dtype (float64 where JAX has it
            enabled), a floating dtype is kept.
        scale: The pixel value that stands for 1, `Dataset.scale`.
        mean: What to subtract from each channel, `Dataset.mean`. Left out: nothing, so that 8-bit pixels end
            in [0, 1].
        std: What to divide each channel by, `Dataset.std`. A channel whose value is 0, that is one constant
            over the training images, is not divided. Left out: nothing is divided.

    Returns:
        An array of the shape of `images`.

    Raises:
        SettingError: If `mean` or `std` has not one number per channel.

    """
    dtype = images.dtype if jnp.issubdtype(images.dtype, jnp.floating) else jnp.result_type(float)
    result = images.astype(dtype) / jnp.asarray(scale, dtype)
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and jnp.shape(jnp.asarray(values)) != images.shape[-1:]:
            raise SettingError(
                f"normalise: {name} is {values!r}, but the images have {images.shape[-1]} channels. "
                "Give one number per channel, in a tuple."
            )
    if mean is not None:
        result = result - jnp.asarray(mean, dtype)
    if std is not None:
        spread = jnp.asarray(std, dtype)
        result = result / jnp.where(spread == 0, jnp.ones_like(spread), spread)
    return result
