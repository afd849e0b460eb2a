"""The binary version of CIFAR-10 and CIFAR-100.

A file is rows without anything between them: the label bytes (CIFAR-10: the class; CIFAR-100: the coarse,
then the fine class), then 3072 bytes of a 32x32 image as a red, a green and a blue plane. Described at
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from energax.data.arrays import Split, check_arrays
from energax.data.reader import AbstractReader, Parts, Sizes, cut, hold_out, join
from energax.exceptions import DataError
from energax.opening import fill_array, is_file, open_file, refuse_broken

_PIXELS = 3 * 32 * 32
_ONE_IN = 10  # the last 5,000 of the official 50,000 training rows are for validation
_REMEDY = "Delete it and unpack the official binary version (not the Python one) again."
MOST_ROWS = 250_000  # of one file; CIFAR-100's training file has 50,000


@dataclass(frozen=True)
class CifarReader(AbstractReader):
    """Reads CIFAR's binary files.

    Attributes:
        train_files: Names of the training files, in the order of their rows.
        test_file: Name of the test file.
        label_ranges: Number of classes of each label byte; the last byte is the label that is learnt.

    """

    train_files: tuple[str, ...]
    test_file: str
    label_ranges: tuple[int, ...]

    def required(self) -> tuple[str, ...]:
        """Return the names of the training files and of the test file."""
        return (*self.train_files, self.test_file)

    def locate(self, folder: Path, name: str) -> Path | None:
        """Return the file if it is there, else None."""
        return folder / name if is_file(folder / name) else None

    def count(self, folder: Path) -> Sizes:
        """Return the sizes of the splits as they follow from the files' sizes."""
        train = sum(self._rows(folder / name) for name in self.train_files)
        held = hold_out(train, _ONE_IN, str(folder))
        return Sizes(train - held, held, self._rows(folder / self.test_file))

    def read(self, folder: Path, *, progress: bool) -> Parts:
        """Read all files; the last tenth of the training rows is the validation split."""
        train = join(self._file(folder / name) for name in self.train_files)
        return cut(train, hold_out(len(train), _ONE_IN, str(folder)), self._file(folder / self.test_file))

    def _rows(self, path: Path) -> int:
        with self._opened(path) as file:
            return self._count(file, path)

    def _opened(self, path: Path) -> AbstractContextManager[BinaryIO]:
        return open_file(path, MOST_ROWS * (len(self.label_ranges) + _PIXELS), _REMEDY)

    def _count(self, file: BinaryIO, path: Path) -> int:
        size, row = os.fstat(file.fileno()).st_size, len(self.label_ranges) + _PIXELS
        if size == 0 or size % row:
            raise DataError(f"{path}: {size} bytes, which is no whole number of rows of {row} bytes. {_REMEDY}")
        return size // row

    def _file(self, path: Path) -> Split:
        with self._opened(path) as file:
            shape = self._count(file, path), len(self.label_ranges) + _PIXELS
            with refuse_broken(path, _REMEDY):
                rows = fill_array(file, shape)
        if rows.shape != shape:
            raise DataError(f"{path}: became shorter while it was read. {_REMEDY}")
        planes = rows[:, len(self.label_ranges) :].reshape(-1, 3, 32, 32)
        images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        # Every label byte is checked, though only the last is learnt: a coarse label out of range shows that
        # the rows are misaligned, as they are when a CIFAR-10 file is taken for one of CIFAR-100.
        checked = [
            check_arrays(images, rows[:, byte], classes, f"{path}, label byte {byte}")
            for byte, classes in enumerate(self.label_ranges)
        ]
        return checked[-1]
