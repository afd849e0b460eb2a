"""Data on the device: batches are cut, augmented and normalised inside the compiled step."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.data import Augmentation, Dataset, Split, normalise
from energax.dynamics.phase import Batch


class DeviceSplit(eqx.Module):
    """One split on the device.

    Attributes:
        images: raw pixels, shape `(rows, height, width, channels)`.
        labels: classes, shape `(rows,)`.
        scale: the pixel value that stands for 1.
        mean, std: per channel, or None where pixels stay in [0, 1].
        classes: number of classes.
        augmentation: what happens to training images, or None.
    """

    images: Array
    labels: Array
    scale: float = eqx.field(static=True)
    mean: tuple[float, ...] | None = eqx.field(static=True)
    std: tuple[float, ...] | None = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    augmentation: Augmentation | None = None

    def batch(self, rows: Array, key: PRNGKeyArray | None = None) -> Batch:
        """The batch of these rows, shape `(batch,)`; augmented where a key is given."""
        images = self.images[rows]
        if self.augmentation is not None and key is not None:
            images = self.augmentation(images, key)
        x = normalise(images, self.scale, self.mean, self.std)
        return Batch(x, jax.nn.one_hot(self.labels[rows], self.classes, dtype=x.dtype), key)


def make_device_split(data: Dataset, split: Split, *, standardise: bool, augment: bool = False) -> DeviceSplit:
    """Put a split on the device."""
    return DeviceSplit(
        jnp.asarray(split.images),
        jnp.asarray(split.labels),
        data.scale,
        data.mean if standardise else None,
        data.std if standardise else None,
        data.classes,
        data.augmentation if augment else None,
    )
