"""Tiny-ImageNet-200's folders of 64x64 JPEGs.

    wnids.txt                            one class per line; its line number, from 0, is the label
    train/<wnid>/images/<any name>.JPEG
    val/images/<any name>.JPEG
    val/val_annotations.txt              file name, tab, wnid, tab, bounding box

The official test images have no labels, so the official validation images are the test split here, and the
last tenth of every class's training images, in the order of their sorted names, is the validation split. The rows of
a split take the classes in turn.
Described in the projects of Stanford's course CS231n.
"""

from __future__ import annotations

import io
import itertools
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from energax.data.arrays import Split, check_arrays
from energax.data.reader import AbstractReader, Parts, Sizes, hold_out
from energax.exceptions import DataError
from energax.opening import is_file, is_folder, read_bytes, read_text, refuse_broken

_ONE_IN = 10
_FORMATS = ("JPEG",)  # else Pillow tries them all, and starts another program for some
_MOST_BYTES = 1 << 20  # of one image; the official ones have some thousands
_MOST_IMAGES = 100_000  # in one folder; the official ones have 10,000 at most
_MOST_TEXT = 100 * _MOST_IMAGES  # bytes of a list
_SUFFIXES = {".jpeg", ".jpg"}
_REMEDY = "Unpack the official tiny-imagenet-200.zip again."

_Row = tuple[Path, int]  # an image's file and its label


@dataclass(frozen=True)
class TinyReader(AbstractReader):
    """Reads Tiny-ImageNet-200 or any part of it in the same layout.

    Attributes:
        side: Height and width of the images, in pixels.
        classes: Number of classes of the whole data set; `wnids.txt` may list fewer.

    """

    side: int = 64
    classes: int = 200

    def required(self) -> tuple[str, ...]:
        """Return the names of the list of classes, the image folders and the test labels."""
        return ("wnids.txt", "train", "val/images", "val/val_annotations.txt")

    def locate(self, folder: Path, name: str) -> Path | None:
        """Return the file or folder if it is there, else None."""
        path = folder / name
        return path if is_file(path) or is_folder(path) else None

    def count(self, folder: Path) -> Sizes:
        """Return the sizes of the splits as the folders list them."""
        train, validation, test = self._rows(folder)
        return Sizes(len(train), len(validation), len(test))

    def read(self, folder: Path, *, progress: bool) -> Parts:
        """Decode every image; grey ones become three equal channels."""
        names = ("training", "validation", "test")
        parts = zip(names, self._rows(folder), strict=True)
        return Parts(*(self._decode(rows, f"{folder}, {name} images", progress) for name, rows in parts))

    def _rows(self, folder: Path) -> tuple[list[_Row], list[_Row], list[_Row]]:
        classes = self._classes(folder / "wnids.txt")
        train: list[list[_Row]] = []
        validation: list[list[_Row]] = []
        for wnid, label in classes.items():
            images = folder / "train" / wnid / "images"
            rows = [(path, label) for path in _jpegs(images)]
            kept = len(rows) - hold_out(len(rows), _ONE_IN, str(images))
            train.append(rows[:kept])
            validation.append(rows[kept:])
        return _in_turn(train), _in_turn(validation), _annotated(folder / "val", classes)

    def _classes(self, path: Path) -> dict[str, int]:
        wnids = read_text(path, _MOST_TEXT, _REMEDY).split()
        if not 2 <= len(wnids) <= self.classes or len(set(wnids)) < len(wnids):
            raise DataError(
                f"{path}: {len(wnids)} classes, {len(set(wnids))} of them different; expected 2 to "
                f"{self.classes}, "
                f"one per line, none twice. {_REMEDY}"
            )
        if odd := [wnid for wnid in wnids if Path(wnid).name != wnid or wnid == ".." or len(wnid) > 100]:
            raise DataError(f"{path}: {odd[0][:100]!r} is no name of a folder of images. {_REMEDY}")
        return {wnid: label for label, wnid in enumerate(wnids)}

    def _decode(self, rows: list[_Row], where: str, progress: bool) -> Split:
        images = np.empty((len(rows), self.side, self.side, 3), np.uint8)
        steps = track(rows, f"decoding {where}", console=Console(stderr=True), disable=not progress, transient=True)
        for image, (path, _) in zip(images, steps, strict=True):
            image[:] = _pixels(path, self.side)
        return check_arrays(images, np.array([label for _, label in rows]), self.classes, where)


def _in_turn(classes: list[list[_Row]]) -> list[_Row]:
    """One row of every class, then the next of every class: whoever keeps the first rows keeps all classes."""
    return [row for rows in itertools.zip_longest(*classes) for row in rows if row is not None]


def _pixels(path: Path, side: int) -> np.ndarray:
    content = io.BytesIO(read_bytes(path, _MOST_BYTES, _REMEDY))
    with refuse_broken(path, _REMEDY, what="cannot be decoded as a JPEG"), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(content, formats=_FORMATS) as image:  # this reads the header alone
            if image.size != (side, side):
                raise DataError(f"{path}: {image.size[::-1]} pixels, expected {(side, side)}. {_REMEDY}")
            return np.asarray(image.convert("RGB"))


def _annotated(folder: Path, classes: dict[str, int]) -> list[_Row]:
    """Return the labelled images of `val`, in the order of `val_annotations.txt`."""
    path, rows = folder / "val_annotations.txt", []
    present = {image.name: image for image in _jpegs(folder / "images")}
    for number, line in enumerate(read_text(path, _MOST_TEXT, _REMEDY).splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in classes:
            raise DataError(f"{path}: line {number} is {line[:200]!r}, which names no class of wnids.txt. {_REMEDY}")
        # Taken out of `present`, so an image that is labelled twice is reported as missing the second time.
        image = present.pop(fields[0], None)
        if image is None:
            named = fields[0][:200]
            raise DataError(f"{path}: line {number} names {named}, missing in {folder / 'images'}. {_REMEDY}")
        rows.append((image, classes[fields[1]]))
    if present:
        raise DataError(f"{path}: has no label for {min(present)} ({len(present)} such images). {_REMEDY}")
    return rows


def _jpegs(folder: Path) -> list[Path]:
    if not is_folder(folder):
        raise DataError(f"{folder}: no such folder. {_REMEDY}")
    with refuse_broken(folder, _REMEDY, what="cannot be listed"):
        images = (path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        found = sorted(itertools.islice(images, _MOST_IMAGES + 1))
    if len(found) > _MOST_IMAGES:
        raise DataError(f"{folder}: more than {_MOST_IMAGES} images. {_REMEDY}")
    return found
