"""The 1797 handwritten digits that travel inside the package.

`digits.npz` holds `images` (uint8, `(1797, 8, 8)`, values 0 to 16: the number of dark pixels in each 4x4
block of a 32x32 bitmap), `labels` (uint8, `(1797,)`) and `order` (int16, `(1797,)`). Images and labels are
the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, 1998, CC BY 4.0) in the order of scikit-learn's `load_digits`, the file was made once from:

    bunch = sklearn.datasets.load_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.uint8)
    order = np.random.default_rng(0).permutation(1797).astype(np.int16)
    np.savez_compressed("digits.npz", images=images, labels=labels, order=order)

The order is stored because NumPy does not promise the same permutation in every release: the rows of the
splits are those of `order`, 1297 for training, then 200 for validation, then 300 for the test.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from energax.data.arrays import check_arrays
from energax.data.reader import AbstractReader, Parts, Sizes
from energax.exceptions import DataError
from energax.opening import is_file, read_bytes, refuse_broken

FILE = "digits.npz"
SIZES = Sizes(1297, 200, 300)
_ROWS = sum(SIZES)
_MOST = 1_000_000  # bytes of the file, and of what it unpacks to
_REMEDY = "Install the package again."


@dataclass(frozen=True)
class DigitsReader(AbstractReader):
    """Reads the embedded digits."""

    def required(self) -> tuple[str, ...]:
        """Return the name of the one file."""
        return (FILE,)

    def locate(self, folder: Path, name: str) -> Path | None:
        """Return the file if it is there, else None."""
        return folder / name if is_file(folder / name) else None

    def count(self, folder: Path) -> Sizes:
        """Return the fixed sizes of the splits."""
        return SIZES

    def read(self, folder: Path, *, progress: bool) -> Parts:
        """Read the digits and split them by the stored order."""
        path = folder / FILE
        content = io.BytesIO(read_bytes(path, _MOST, _REMEDY))
        with refuse_broken(path, _REMEDY):
            with zipfile.ZipFile(content) as packed:
                if sum(member.file_size for member in packed.infolist()) > _MOST:
                    raise DataError(f"{path}: unpacks to more than {_MOST} bytes. {_REMEDY}")
            with np.load(content, allow_pickle=False) as file:
                images, labels, order = (file[name] for name in ("images", "labels", "order"))
        whole = images.shape == (_ROWS, 8, 8) and labels.shape == (_ROWS,) and order.dtype.kind in "iu"
        if not whole or sorted(order.ravel().tolist()) != list(range(_ROWS)):
            raise DataError(f"{path}: holds no {_ROWS} images of 8 x 8 with their labels and order. {_REMEDY}")
        images, rows = images[..., None], np.split(order.ravel(), np.cumsum(SIZES)[:-1])
        return Parts(*(check_arrays(images[part], labels[part], 10, FILE) for part in rows))
