"""Rows on the device: batches are cut from them, augmented and normalised inside the compiled step."""

import abc
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from energax.checking import as_array, as_host_array, find_lost, tell
from energax.data import Augmentation, Dataset, Split, normalise
from energax.dynamics.phase import Batch
from energax.exceptions import DataError


class AbstractRows(eqx.Module):
    """Rows that lie on the device as a whole."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abc.abstractmethod
    def batch(self, rows: Array, key: PRNGKeyArray | None = None) -> Batch:
        """The batch of these rows, shape `(batch,)`; the key is for what is random about it, None in tests."""


class ArrayRows(AbstractRows):
    """Inputs, targets and weights as arrays of any shape, row by row.

    Attributes:
        x: shape `(rows, *shape)`, or a mapping from nodes to such arrays.
        y: targets, likewise, or None.
        weights: of every row, shape `(rows,)`, or None.
        known: which units of a node are held, as in `Batch`, or None.
    """

    x: Array | dict[str, Array]
    y: Array | dict[str, Array] | None = None
    weights: Array | None = None
    known: dict[str, Array] | None = None

    def __len__(self):
        """Number of rows."""
        return jax.tree.leaves(self.x)[0].shape[0]

    def batch(self, rows, key=None):
        """The batch of these rows."""
        x, y, weights, known = jax.tree.map(lambda a: a[rows], (self.x, self.y, self.weights, self.known))
        return Batch(x, y, key, weights, known)


class DeviceSplit(AbstractRows):
    """One split of a data set of images.

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

    def __len__(self):
        """Number of rows."""
        return len(self.labels)

    def batch(self, rows, key=None):
        """The batch of these rows; augmented where a key is given."""
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


def make_array_rows(x, y=None, weights=None, known=None) -> ArrayRows:
    """Put arrays on the device.

    Raises:
        DataError: no rows, different numbers of them, or numbers that are none; the message names the array, the first
            place and the remedy.
    """
    if known is not None and not isinstance(known, Mapping):
        raise DataError(f"known={tell(known)}: give a mapping from nodes to masks, as known={{'input': mask}}")
    given = {"x": x, "y": y, "weights": weights, "known": known}
    sizes: dict[str, int] = {}
    for name, value in given.items():
        for place, array in name_arrays(name, value).items():
            if np.ndim(array) == 0:
                raise DataError(f"{place} has no rows: give an array of shape (rows, ...)")
            require_finite_numbers(place, array, find_mask(known, name, place))
            if name == "weights":
                require_weights(place, array)
                if not np.any(array):
                    raise DataError(f"{place} holds only zeros: give some row a weight")
            sizes[place] = len(array)
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{place} {size}" for place, size in sizes.items())
        raise DataError(f"different numbers of rows: {told}; give every array one row for every sample")
    if not next(iter(sizes.values())):
        raise DataError("x holds no rows: give at least one")
    placed: dict[str, Any] = {name: None if value is None else put(name, value) for name, value in given.items()}
    return ArrayRows(**placed)


def require_weights(place: str, weights: np.ndarray) -> None:
    """Refuse weights below 0, naming the first."""
    below = np.argwhere(weights < 0)
    if len(below):
        where = tuple(int(i) for i in below[0])
        raise DataError(f"{place} is {weights[where]} at index {where}: give weights of at least 0")


def name_arrays(name: str, value) -> dict[str, np.ndarray]:
    """The arrays of a value by name: of itself, or of every node in a mapping."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {f"{name}[{node!r}]": as_host_array(f"{name}[{node!r}]", one) for node, one in value.items()}
    return {name: as_host_array(name, value)}


def put(name: str, value) -> Array | dict[str, Array]:
    """A value on the device."""
    if isinstance(value, Mapping):
        return {node: as_array(f"{name}[{node!r}]", one) for node, one in value.items()}
    return as_array(name, value)


def find_mask(known: Any, name: str, place: str) -> np.ndarray | None:
    """Which values of an input are known, where that is said; the others may be anything."""
    if name != "x" or not isinstance(known, Mapping):
        return None
    own = [mask for node, mask in known.items() if place in ("x", f"x[{node!r}]")]
    return np.asarray(own[0], bool) if own else None


def require_finite_numbers(place: str, values: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Refuse NaN and infinite values, naming the first; those that `mask` leaves out may be anything."""
    if mask is not None and mask.shape == values.shape:
        values = np.where(mask, values, 0)
    where = find_lost(values)
    if where is not None:
        raise DataError(
            f"{place} is {values[where]} at index {where}: drop such rows, fill them, or say which units are known "
            "(known=, for a generative network)"
        )
