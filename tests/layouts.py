"""Small data sets in the official layouts, made up."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(folder: Path, train: int = 60, test: int = 10, compressed: bool = True) -> dict[str, np.ndarray]:
    """Write the four files of MNIST's layout; return what is in them by file name, without .gz."""
    rng = np.random.default_rng(1)
    arrays = {}
    for part, rows in (("train", train), ("t10k", test)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (rows, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, rows, np.uint8)
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        content = idx_bytes(array)
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / name).write_bytes(content)
    return arrays


def cifar_rows(rows: int, ranges: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, classes, (rows, 1), np.uint8) for classes in ranges]
    return np.concatenate([*labels, rng.integers(0, 256, (rows, 3072), np.uint8)], axis=1)


def write_cifar10(folder: Path, rows: int = 4) -> list[np.ndarray]:
    """Write five training batches and a test batch; return their rows in that order."""
    folder.mkdir(parents=True)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    batches = [cifar_rows(rows, (10,), seed) for seed in range(6)]
    for name, batch in zip(names, batches, strict=True):
        (folder / name).write_bytes(batch.tobytes())
    return batches


def write_cifar100(folder: Path) -> list[np.ndarray]:
    folder.mkdir(parents=True)
    batches = [cifar_rows(20, (20, 100), 0), cifar_rows(5, (20, 100), 1)]
    for name, batch in zip(("train.bin", "test.bin"), batches, strict=True):
        (folder / name).write_bytes(batch.tobytes())
    return batches


def write_tiny(folder: Path, classes: int = 3, each: int = 10) -> list[str]:
    """Write one-coloured JPEGs: red is 40 times the class, green 20 times the row, the last row grey.

    The classes of `wnids.txt` are in falling order, so that a reader that sorts them is found out.
    """
    wnids = [f"n0000000{i}" for i in range(classes)][::-1]
    for label, wnid in enumerate(wnids):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        for row in range(each):
            grey = row == each - 1
            colour = (40 * label, 20 * row, 0)
            image = Image.new("L", (64, 64), 90) if grey else Image.new("RGB", (64, 64), colour)
            image.save(images / f"{wnid}_{row}.JPEG", quality=95, subsampling=0)
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    images = folder / "val" / "images"
    images.mkdir(parents=True)
    lines = []
    for label, wnid in enumerate(wnids):
        Image.new("RGB", (64, 64), (40 * label, 0, 200)).save(images / f"val_{label}.JPEG", subsampling=0)
        lines.append(f"val_{label}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return wnids
