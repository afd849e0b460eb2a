"""Folders of data sets in the official layouts."""

import gzip
import inspect
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from energax.data import DATASETS, Dataset, Source, describe, load_data
from energax.data.digits import FILE, DigitsReader
from tests.layouts import write_cifar10, write_cifar100, write_idx, write_tiny

from ..target import Target, register

DIGITS = Source(
    name="digits-of-a-folder",
    title="The digits' file, in a user's folder",
    reader=DigitsReader(),
    folders=("digits",),
    sizes=DATASETS["digits"].sizes,
    classes=10,
    image_shape=(8, 8, 1),
    scale=16.0,
    terms="",
    citation="",
    homepage="",
)


def check(data: Dataset, shape: tuple[int, int, int], classes: int) -> None:
    """What every data set promises."""
    for split in (data.train, data.validation, data.test):
        assert split.images.dtype == np.uint8
        assert split.images.shape == (len(split), *shape)
        assert split.labels.dtype == np.int32
        assert ((split.labels >= 0) & (split.labels < classes)).all()


def opener(source: str | Source) -> Callable[[Path], None]:
    def open_folder(folder: Path) -> None:
        facts = describe(source, folder)
        data = load_data(source, folder, download=False, progress=False)
        assert facts["sizes"]["train"] in (len(data.train), facts["official_sizes"]["train"])
        check(data, facts["image_shape"], facts["classes"])

    return open_folder


def tiny_class_elsewhere(rng: Random, folder: Path) -> str:
    """A class whose folder would lie outside."""
    name = rng.choice(["..", "../../in", "/", ".", "a/b", "x" * 256, "\0"])
    path = next(iter(folder.rglob("wnids.txt")), folder / "wnids.txt")
    if path.is_file() and not path.is_symlink() and path.stat().st_size < 10_000:
        path.write_bytes(path.read_bytes() + name.encode() + b"\n")
    return f"a class {name[:20]!r}"


def fill_gz(rng: Random, folder: Path) -> str:
    """A header that is right, followed by too much: bytes that are paid for before they are counted."""
    paths = [path for path in sorted(folder.rglob("*.gz")) if path.is_file() and not path.is_symlink()]
    path, rows = rng.choice(paths or [folder / "x.gz"]), rng.choice([10, 60, 10**6, 10**9])
    path.write_bytes(packed_images(rows))
    return f"{rows} rows stated and 100 MB of zeros in {path.name}"


@cache
def packed_images(rows: int) -> bytes:
    return gzip.compress(bytes((0, 0, 8, 3)) + np.array([rows, 28, 28], ">u4").tobytes() + bytes(10**8), 1)


register(Target("idx", "readers", lambda f: write_idx(f / "mnist", compressed=False) and None, opener("mnist")))
register(Target("idx.gz", "readers", lambda f: write_idx(f / "mnist") and None, opener("mnist"), (fill_gz,)))
register(Target("cifar10", "readers", lambda f: write_cifar10(f / "cifar-10-batches-bin") and None, opener("cifar10")))
register(Target("cifar100", "readers", lambda f: write_cifar100(f / "cifar-100-binary") and None, opener("cifar100")))


def make_tiny(folder: Path) -> None:
    write_tiny(folder / "tiny-imagenet-200", classes=2)


def make_digits(folder: Path) -> None:
    (folder / "digits").mkdir()
    shutil.copyfile(Path(inspect.getfile(DigitsReader)).with_name(FILE), folder / "digits" / FILE)


register(Target("tiny-imagenet", "readers", make_tiny, opener("tiny-imagenet"), (tiny_class_elsewhere,)))
register(Target("digits", "readers", make_digits, opener(DIGITS)))
