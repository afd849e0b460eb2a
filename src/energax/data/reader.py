"""What every reader of a file format offers to the loader."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from energax.data.arrays import Split
from energax.exceptions import DataError


class Sizes(NamedTuple):
    """Numbers of rows of the three splits."""

    train: int
    validation: int
    test: int


class Parts(NamedTuple):
    """The three splits as they were read."""

    train: Split
    validation: Split
    test: Split


class AbstractReader(ABC):
    """Reads one layout of files into three splits.

    A new format is a subclass with these four methods. A reader is a frozen dataclass: it holds facts of the
    format and no state. `missing` decides whether a folder holds the data set at all; `read` may then assume
    that nothing listed there is missing and refuses, with a `DataError` naming the file, whatever is broken
    inside.
    """

    @abstractmethod
    def required(self) -> tuple[str, ...]:
        """Return the names, relative to the data set's folder, of what must be there."""

    @abstractmethod
    def locate(self, folder: Path, name: str) -> Path | None:
        """Return the path that stands for the required `name` in `folder`, or None."""

    @abstractmethod
    def count(self, folder: Path) -> Sizes:
        """Return the sizes of the splits without reading pixels."""

    @abstractmethod
    def read(self, folder: Path, *, progress: bool) -> Parts:
        """Read the three splits, showing a progress bar for long work if `progress`."""

    def missing(self, folder: Path) -> list[str]:
        """Return the required names that `folder` lacks."""
        return [name for name in self.required() if self.locate(folder, name) is None]


def hold_out(rows: int, fraction: int, where: str) -> int:
    """Return how many of the last training rows are held out for validation: `rows // fraction`.

    Raises:
        DataError: If that leaves no row, naming `where`.

    """
    if rows < fraction:
        raise DataError(
            f"{where}: {rows} training rows, from which one in {fraction} is held out for validation. "
            f"Give at least {fraction} rows."
        )
    return rows // fraction


def cut(train: Split, held: int, test: Split) -> Parts:
    """Split the last `held` rows off the training rows as the validation split."""
    kept = len(train) - held
    return Parts(
        Split(train.images[:kept], train.labels[:kept]),
        Split(train.images[kept:], train.labels[kept:]),
        test,
    )


def join(splits: Iterable[Split]) -> Split:
    """Put splits one after the other."""
    splits = tuple(splits)
    return Split(np.concatenate([split.images for split in splits]), np.concatenate([split.labels for split in splits]))
