"""What a data set is to the rest of the library: checked arrays, their sizes and their statistics."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from energax.data.augment import Augmentation
from energax.exceptions import DataError
from energax.opening import shorten

_MOST_CLASSES = 2**31 - 1
_CHUNK = 2_000  # images counted at a time: np.bincount widens its input to 8 bytes per pixel


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, row by row.

    Attributes:
        images: Pixels, channels last, shape `(N, H, W, C)`: uint8 for every data set that the library loads,
            any floating dtype for a user's own arrays.
        labels: Classes, int32, shape `(N,)`, counted from 0.

    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory, with what a run has to record about it.

    Attributes:
        name: The name it was loaded under, such as `"mnist"`.
        train: Rows for learning.
        validation: Rows for choosing settings, held out from the official training rows.
        test: The official test rows.
        classes: Number of classes; every label is below it.
        mean: Mean of the training pixels of each channel, after division by `scale`.
        std: Standard deviation of the same, dividing by the number of pixels (not by one less).
        scale: The pixel value that stands for 1: 255 for 8-bit images, 16 for the digits, 1 for floats.
        augmentation: The transformation of training images that is customary for this data set.
        origin: Where the files came from, in words.
        checksums: For each file, `"official"` or in which way it differs from the official one.

    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    origin: str = "arrays given by the user"
    checksums: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels

    @classmethod
    def from_arrays(
        cls,
        name: str,
        *,
        train: tuple[Any, Any],
        validation: tuple[Any, Any],
        test: tuple[Any, Any],
        classes: int,
        scale: float | None = None,
        augmentation: Augmentation | None = None,
        origin: str = "arrays given by the user",
        checksums: Mapping[str, str] | None = None,
    ) -> Dataset:
        """Build a data set from arrays, refusing what could not be trained on.

        Args:
            name: What to call it in tables and records.
            train: `(images, labels)`, as `check_arrays` asks for them.
            validation: The same, for the rows held out from learning.
            test: The same, for the rows scored at the end.
            classes: Number of classes.
            scale: Pixel value that stands for 1. Left out: 255 for uint8 images, 1 for floating ones.
            augmentation: Transformation of training images. Left out: none.
            origin: Where the arrays came from, for the record of a run.
            checksums: What is known of the files' exactness, for the record of a run.

        Returns:
            The data set, its per-channel mean and standard deviation computed in float64 from `train`.

        Raises:
            DataError: As `check_arrays`; or a split's images differ from the training images in shape or
                dtype; or `scale` is not a positive number.

        Examples:
            >>> import numpy as np
            >>> rows = (np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 2)
            >>> Dataset.from_arrays("mine", train=rows, validation=rows, test=rows, classes=2).mean
            (0.0,)

        """
        given = {"train": train, "validation": validation, "test": test}
        splits = {part: _check_pair(pair, classes, f"{name}/{part}") for part, pair in given.items()}
        first = splits["train"].images
        for part, split in splits.items():
            if split.images.shape[1:] != first.shape[1:] or split.images.dtype != first.dtype:
                raise DataError(
                    f"{name}/{part}: images are {split.images.dtype} of shape {split.images.shape[1:]}, but "
                    f"the training images are {first.dtype} of shape {first.shape[1:]}. Bring all splits to "
                    "one image shape and dtype."
                )
        if scale is None:
            scale = 255.0 if first.dtype == np.uint8 else 1.0
        if isinstance(scale, bool) or not isinstance(scale, numbers.Real) or not 0 < float(scale) < math.inf:
            raise DataError(
                f"{name}: scale is {scale!r}. Give the pixel value that stands for 1, such as 255 for 8-bit images."
            )
        mean, std = channel_statistics(first, float(scale))
        if not np.isfinite([*mean, *std]).all():
            raise DataError(
                f"{name}/train: the pixels' mean is {mean} and their deviation {std}, at the scale {scale}. Give "
                "smaller pixels, or a scale that fits them."
            )
        return cls(
            name=name,
            **splits,
            classes=classes,
            mean=mean,
            std=std,
            scale=float(scale),
            augmentation=Augmentation() if augmentation is None else augmentation,
            origin=origin,
            checksums=MappingProxyType(dict(checksums or {})),
        )


def check_arrays(images: Any, labels: Any, classes: int, where: str = "arrays") -> Split:
    """Check images and labels and return them in the library's dtypes.

    Args:
        images: Array of shape `(N, H, W, C)`, channels last, uint8 or floating and finite.
        labels: Array of shape `(N,)` of any integer dtype, values 0 to `classes - 1`.
        classes: Number of classes, at least 2.
        where: What to call these arrays in an error message: a split's name or a file's path.

    Returns:
        The same images (not copied) and the labels as int32.

    Raises:
        DataError: Naming the array, the first offending row, its value and the remedy, if the images have
            another rank, size 0, another dtype, NaN or infinity; if the labels have another rank, are not
            integers or lie outside their range; or if there are not as many labels as images.

    """
    if isinstance(classes, bool) or not isinstance(classes, (int, np.integer)) or classes < 2:
        raise DataError(f"{where}: classes is {classes!r}. Give the number of classes, an integer of at least 2.")
    if classes > _MOST_CLASSES:
        raise DataError(f"{where}: classes is {classes}. Labels are 32-bit integers: give at most {_MOST_CLASSES}.")
    images, labels = _as_array(images, f"{where}: images"), _as_array(labels, f"{where}: labels")
    _check_images(images, where)
    _check_labels(labels, int(classes), where)
    if len(images) != len(labels):
        raise DataError(
            f"{where}: {len(images)} images but {len(labels)} labels. Give one label per image, in the same order."
        )
    return Split(images, labels.astype(np.int32))


def channel_statistics(images: np.ndarray, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each channel of `images / scale`.

    For uint8 images both follow from the counts of the 256 values, so they are exact to float64's rounding
    and do not depend on the order of the rows.

    Args:
        images: Shape `(N, H, W, C)`, uint8 or floating.
        scale: The pixel value that stands for 1.

    Returns:
        Means and standard deviations, C floats each, computed in float64.

    """
    if images.dtype != np.uint8:
        with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
            means = images.mean(axis=(0, 1, 2), dtype=np.float64)
            squares = np.zeros_like(means)
            for start in range(0, len(images), _CHUNK):  # a copy in float64, a chunk at a time
                squares += np.square(images[start : start + _CHUNK] - means).sum(axis=(0, 1, 2))
            stds = np.sqrt(squares / (images.size // images.shape[-1]))
            return tuple((means / scale).tolist()), tuple((stds / scale).tolist())
    values = np.arange(256) / scale
    mean, std = [], []
    for channel in range(images.shape[-1]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), _CHUNK):
            counts += np.bincount(images[start : start + _CHUNK, ..., channel].ravel(), minlength=256)
        weights = counts / counts.sum()
        mean.append(float(weights @ values))
        std.append(float(np.sqrt(weights @ (values - mean[-1]) ** 2)))
    return tuple(mean), tuple(std)


def _check_pair(pair: Any, classes: int, where: str) -> Split:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise DataError(f"{where}: got {type(pair).__name__}. Give a pair (images, labels).")
    return check_arrays(pair[0], pair[1], classes, where)


def _as_array(given: Any, where: str) -> np.ndarray:
    """What a user gave, as an array that fits into memory."""
    if isinstance(given, np.ma.MaskedArray):
        raise DataError(f"{where}: a masked array, whose mask would be lost. Fill it, or drop the masked rows.")
    try:
        array = np.asarray(given)
    except MemoryError as error:
        raise DataError(f"{where}: larger than the memory of this machine ({error}). Give fewer rows.") from error
    except Exception as error:  # rows of different lengths, and whatever a foreign class raises
        raise DataError(f"{where}: a {type(given).__name__} that is no array ({shorten(error)}). Give one.") from error
    memory = _find_memory()
    if array.nbytes > memory:  # a view that repeats one value takes no memory, and whatever is made of it does
        raise DataError(
            f"{where}: shape {array.shape} of {array.dtype} is {array.nbytes} bytes, and this machine has {memory}. "
            "Give fewer rows."
        )
    return array


def _find_memory() -> int:
    """Bytes of memory of this machine; where it does not tell, no machine's."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 44


def _check_images(images: np.ndarray, where: str) -> None:
    if images.ndim != 4:
        raise DataError(
            f"{where}: images have shape {images.shape}, but (N, H, W, C) is needed, channels last. "
            "Reshape them; for grey images add the channel with images[..., None]."
        )
    if images.size == 0:
        raise DataError(f"{where}: images have shape {images.shape}, which holds no pixels. Give at least one image.")
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise DataError(
            f"{where}: images have dtype {images.dtype}. Convert whole numbers 0 to 255 with "
            "images.astype(np.uint8), anything else to a floating dtype."
        )
    if images.dtype != np.uint8:
        first, count = None, 0
        for start in range(0, len(images), _CHUNK):
            wrong = ~np.isfinite(images[start : start + _CHUNK])
            count += np.count_nonzero(wrong)
            if first is None and wrong.any():
                row, *place = (int(at) for at in np.unravel_index(wrong.argmax(), wrong.shape))
                first = (start + row, *place)
        if first is not None:
            raise DataError(
                f"{where}: images[{', '.join(map(str, first))}] is {images[first]} ({count} such pixels). "
                "Replace or drop the rows with NaN or infinite pixels."
            )


def _check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    if labels.ndim != 1:
        raise DataError(
            f"{where}: labels have shape {labels.shape}, but (N,) is needed. "
            "Turn one-hot rows into classes with labels.argmax(axis=1)."
        )
    if labels.dtype.kind not in "iu":  # a timedelta is an integer to np.issubdtype
        raise DataError(
            f"{where}: labels have dtype {labels.dtype}{_first_fraction(labels)}, but integers are needed. "
            "Number the classes from 0; whole numbers convert with labels.astype(int)."
        )
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        row = int(outside[0])
        raise DataError(
            f"{where}: labels[{row}] is {labels[row]}, outside 0 to {classes - 1} ({len(outside)} such "
            "rows). "
            "Number the classes from 0, or give the right number of classes."
        )


def _first_fraction(labels: np.ndarray) -> str:
    """Name the first label that is no whole number, where labels are floats."""
    if not np.issubdtype(labels.dtype, np.floating):
        return ""
    rows = np.flatnonzero(labels != np.floor(labels))  # NaN differs from its own floor, so it is named too
    return f" (labels[{rows[0]}] is {labels[rows[0]]})" if len(rows) else ""
