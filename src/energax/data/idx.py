"""The idx format of MNIST and Fashion-MNIST.

A file is two zero bytes, a type byte (8: unsigned bytes), the number of dimensions, each dimension as a
big-endian 32-bit integer, then the values row by row. The format is described on the page of the MNIST
database by LeCun, Cortes and Burges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from energax.data.arrays import Split, check_arrays
from energax.data.reader import AbstractReader, Parts, Sizes, cut, hold_out
from energax.exceptions import DataError
from energax.opening import fill_array, is_file, open_file, open_packed, refuse_broken

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_ONE_IN = 6  # the last 10,000 of the official 60,000 training rows are for validation
_REMEDY = "Delete the file and download it again, or put the official one in its place."
MOST_ROWS = 1_000_000  # MNIST has 60,000, the largest set in its layout 814,255
MOST_PIXELS = 784  # of one row
_OVERHEAD = 1_000_000  # bytes by which a file may be larger than what it unpacks to


@dataclass(frozen=True)
class IdxReader(AbstractReader):
    """Reads the four idx files of MNIST's layout, each with or without `.gz`.

    Attributes:
        side: Height and width of the images, in pixels.
        classes: Number of classes.

    """

    side: int = 28
    classes: int = 10

    def required(self) -> tuple[str, ...]:
        """Return the names of the four files, without `.gz`."""
        return TRAIN + TEST

    def locate(self, folder: Path, name: str) -> Path | None:
        """Return the compressed file if it is there, else the plain one, else None."""
        return next((path for path in (folder / f"{name}.gz", folder / name) if is_file(path)), None)

    def count(self, folder: Path) -> Sizes:
        """Return the sizes of the splits as the labels' headers state them."""
        train, test = (read_dimensions(self._path(folder, names[1]), 1)[0] for names in (TRAIN, TEST))
        held = hold_out(train, _ONE_IN, str(folder))
        return Sizes(train - held, held, test)

    def read(self, folder: Path, *, progress: bool) -> Parts:
        """Read the four files; the last sixth of the training rows is the validation split."""
        train, test = (self._split(folder, names) for names in (TRAIN, TEST))
        return cut(train, hold_out(len(train), _ONE_IN, str(folder)), test)

    def _path(self, folder: Path, name: str) -> Path:
        path = self.locate(folder, name)
        if path is None:
            raise DataError(f"{folder / name}[.gz]: no such file. {_REMEDY}")
        return path

    def _split(self, folder: Path, names: tuple[str, str]) -> Split:
        paths = [self._path(folder, name) for name in names]
        images, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
        if images.shape[1:] != (self.side, self.side):
            raise DataError(
                f"{paths[0]}: images of {images.shape[1:]} pixels, expected {(self.side, self.side)}. {_REMEDY}"
            )
        return check_arrays(images[..., None], labels, self.classes, f"{paths[0]} with {paths[1].name}")


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read one idx file of unsigned bytes.

    Args:
        path: The file, gzip-compressed if its name ends in `.gz`.
        ndim: The number of dimensions that it must have.

    Returns:
        A uint8 array of rank `ndim`.

    Raises:
        DataError: If the file is no regular one or cannot be decompressed, its header is not that of an idx file of
            unsigned bytes with `ndim` dimensions, these are larger than `MOST_ROWS` and `MOST_PIXELS` allow, or its
            size is not what they ask for.

    """
    with _opened(path) as file:
        shape = _read_header(file, ndim, path)
        expected = math.prod(shape)
        with refuse_broken(path, _REMEDY):
            content = fill_array(file, shape)
            more = file.read(1)  # one byte more than there may be, and the checksum of gzip is compared
    if content.shape != shape or more:
        found = f"more than {expected}" if more else f"{len(content)}"
        raise DataError(
            f"{path}: {found} bytes after the header, expected {expected} for the dimensions {shape} that it states. "
            f"{_REMEDY}"
        )
    return content


def read_dimensions(path: Path, ndim: int) -> tuple[int, ...]:
    """Return the dimensions that the header of an idx file states; see `read_idx`."""
    with _opened(path) as file:
        return _read_header(file, ndim, path)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with open_file(path, MOST_ROWS * MOST_PIXELS + _OVERHEAD, _REMEDY) as file:
        yield open_packed(file, path)


def _read_header(file: BinaryIO, ndim: int, path: Path) -> tuple[int, ...]:
    size = 4 + 4 * ndim
    with refuse_broken(path, _REMEDY):
        content = file.read(size)
    expected = bytes((0, 0, 8, ndim))
    if content[:4] != expected:
        raise DataError(
            f"{path}: begins with the bytes {content[:4].hex(' ') or '(none)'}, expected {expected.hex(' ')}, "
            f"the mark of unsigned bytes in {ndim} dimensions. {_REMEDY}"
        )
    if len(content) < size:
        raise DataError(f"{path}: {len(content)} bytes, too short for a header of {size}. {_REMEDY}")
    shape = tuple(np.frombuffer(content, ">u4", count=ndim, offset=4).tolist())
    if shape[0] > MOST_ROWS or math.prod(shape[1:]) > MOST_PIXELS:
        raise DataError(
            f"{path}: states the dimensions {shape}; at most {MOST_ROWS} rows of {MOST_PIXELS} values are read. "
            f"{_REMEDY}"
        )
    return shape
