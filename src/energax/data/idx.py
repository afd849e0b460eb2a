"""The idx format of MNIST and Fashion-MNIST.

A file is two zero bytes, a type byte (8: unsigned bytes), the number of dimensions, each dimension as a
big-endian 32-bit integer, then the values row by row. The format is described on the page of the MNIST
database by LeCun, Cortes and Burges.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from energax.data.arrays import Split, check_arrays
from energax.data.reader import AbstractReader, Parts, Sizes, cut, hold_out
from energax.exceptions import DataError

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_ONE_IN = 6  # the last 10,000 of the official 60,000 training rows are for validation
_REMEDY = "Delete the file and download it again, or put the official one in its place."


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
        return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)

    def count(self, folder: Path) -> Sizes:
        """Return the sizes of the splits as the labels' headers state them."""
        train, test = (_dimensions(self._path(folder, names[1]), 1)[0] for names in (TRAIN, TEST))
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
        A read-only uint8 array of rank `ndim`.

    Raises:
        DataError: If the file cannot be decompressed, its header is not that of an idx file of unsigned bytes
            with `ndim` dimensions, or its size is not what its dimensions ask for.

    """
    content = _content(path)
    shape = _parse(content, ndim, path)
    header, expected = 4 + 4 * ndim, math.prod(shape)
    if len(content) - header != expected:
        raise DataError(
            f"{path}: {len(content) - header} bytes after the header, expected {expected} for the dimensions "
            f"{shape} that it states. {_REMEDY}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _dimensions(path: Path, ndim: int) -> tuple[int, ...]:
    return _parse(_content(path, 4 + 4 * ndim), ndim, path)


def _content(path: Path, size: int = -1) -> bytes:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            return file.read(size)
    except (EOFError, zlib.error, OSError) as error:  # cut short; damaged inside; no gzip file or unreadable
        raise DataError(f"{path}: cannot be read ({error}). {_REMEDY}") from error


def _parse(content: bytes, ndim: int, path: Path) -> tuple[int, ...]:
    expected = bytes((0, 0, 8, ndim))
    if content[:4] != expected:
        raise DataError(
            f"{path}: begins with the bytes {content[:4].hex(' ') or '(none)'}, expected "
            f"{expected.hex(' ')}, "
            f"the mark of unsigned bytes in {ndim} dimensions. {_REMEDY}"
        )
    if len(content) < 4 + 4 * ndim:
        raise DataError(f"{path}: {len(content)} bytes, too short for a header of {4 + 4 * ndim}. {_REMEDY}")
    return tuple(np.frombuffer(content, ">u4", count=ndim, offset=4).tolist())
