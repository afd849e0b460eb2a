"""Official layouts, made up in a temporary folder: what is read, and what is refused."""

import gzip
import os
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from energax.data import DATASETS, describe, load_data
from energax.exceptions import DataError


def read(name, root):
    return load_data(name, root, download=False, progress=False)


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw"])
@pytest.mark.parametrize("compressed", [True, False])
def test_mnist(make, tmp_path, compressed, folder):
    """Oracle: the arrays that were written."""
    arrays = make.write_idx(tmp_path / folder, compressed=compressed)
    data = read("mnist", tmp_path)
    images, labels = arrays["train-images-idx3-ubyte"], arrays["train-labels-idx1-ubyte"]
    np.testing.assert_array_equal(data.train.images[..., 0], images[:50])
    np.testing.assert_array_equal(data.validation.images[..., 0], images[50:])
    np.testing.assert_array_equal(data.validation.labels, labels[50:])
    np.testing.assert_array_equal(data.test.images[..., 0], arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(data.test.labels, arrays["t10k-labels-idx1-ubyte"])
    assert (data.image_shape, data.augmentation.pad, data.augmentation.flip) == ((28, 28, 1), 0, False)
    assert sum("differs from the official checksum" in text for text in data.checksums.values()) == 4
    assert describe("mnist", tmp_path)["sizes"] == {"train": 50, "validation": 10, "test": 10}


def test_fashion_mnist_is_read_from_its_own_folder(make, tmp_path):
    make.write_idx(tmp_path / "mnist", train=12)
    make.write_idx(tmp_path / "fashion-mnist", train=6)
    assert len(read("fashion-mnist", tmp_path).train) == 5


def test_cifar10(make, tmp_path):
    """Oracle: pixel (row, column, channel) is byte 1 + 1024 channel + 32 row + column of the written row."""
    batches = make.write_cifar10(tmp_path / "cifar-10-batches-bin")
    data = read("cifar10", tmp_path)
    train = np.concatenate(batches[:5])
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 4)
    assert data.train.images[7, 5, 9, 2] == train[7, 1 + 2048 + 5 * 32 + 9]
    assert data.train.images[0, 31, 0, 1] == train[0, 1 + 1024 + 31 * 32]
    np.testing.assert_array_equal(data.validation.labels, train[18:, 0])
    np.testing.assert_array_equal(data.test.labels, batches[5][:, 0])
    assert (data.augmentation.flip, data.augmentation.pad) == (True, 4)
    assert "known of cifar-10-binary.tar.gz only" in data.checksums["data_batch_1.bin"]
    assert describe("cifar10", tmp_path)["sizes"] == {"train": 18, "validation": 2, "test": 4}


def test_cifar100_learns_the_fine_labels(make, tmp_path):
    """Oracle: byte 1 of each written row, and pixels from byte 2 on."""
    train, test = make.write_cifar100(tmp_path / "cifar-100-binary")
    data = read("cifar100", tmp_path)
    np.testing.assert_array_equal(data.train.labels, train[:18, 1])
    np.testing.assert_array_equal(data.test.labels, test[:, 1])
    assert data.test.images[3, 0, 0, 0] == test[3, 2]
    assert data.classes == 100


def test_tiny_imagenet(make, tmp_path):
    """Oracle: the colours that were painted, to JPEG's accuracy; labels are line numbers of wnids.txt."""
    make.write_tiny(tmp_path / "tiny-imagenet-200")
    data = read("tiny-imagenet", tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (27, 3, 3)
    assert data.train.labels.tolist() == [0, 1, 2] * 9  # classes in turn: the first rows are of all of them
    centre = data.train.images[:, 32, 32].astype(int)
    np.testing.assert_allclose(centre[:, 0], 40 * data.train.labels, atol=4)
    np.testing.assert_allclose(centre[:, 1], 20 * (np.arange(27) // 3), atol=4)
    np.testing.assert_allclose(data.validation.images, 90, atol=2)  # the last file of each class is grey
    assert data.validation.labels.tolist() == [0, 1, 2]
    np.testing.assert_allclose(data.test.images[:, 32, 32, 0], 40 * data.test.labels, atol=4)
    assert data.augmentation.pad == 8
    assert "differs from the official sizes" in data.checksums["tiny-imagenet-200"]
    assert describe("tiny-imagenet", tmp_path)["sizes"] == {"train": 27, "validation": 3, "test": 3}


def test_digits_are_the_uci_test_part():
    """Oracle: UCI's class distribution of optdigits.tes over all splits, and its first published row."""
    data = load_data("digits", download=False)
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [1297, 200, 300]
    counts = np.bincount(np.concatenate([part.labels for part in parts]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    images = np.concatenate([part.images for part in parts])
    assert (images.shape, images.max(), data.scale) == ((1797, 8, 8, 1), 16, 16.0)
    # The first image that UCI lists, a zero, is in exactly one place; its first two rows as published.
    published = [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0]
    first = (images[:, :2, :, 0].reshape(-1, 16) == published).all(1)
    assert first.sum() == 1


TINY, JPEG = "tiny-imagenet-200", "train/n00000002/images/n00000002_0.JPEG"

# Each row: what is done to one file of a good data set, and the words with which it must be refused.
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
BAD_IDX = {
    "wrong magic": (
        IMAGES,
        lambda b: b"\x00\x00\x0d\x03" + b[4:],
        r"begins with the bytes 00 00 0d 03, "
        "expected 00 00 08",
    ),
    "labels for images": (IMAGES, lambda b: b"\x00\x00\x08\x01" + b[4:], "expected 00 00 08 03"),
    "empty": (IMAGES, lambda b: b"", r"begins with the bytes \(none\)"),
    "short header": (IMAGES, lambda b: b[:9], "9 bytes, too short for a header of 16"),
    "too short": (
        IMAGES,
        lambda b: b[:-1],
        r"47039 bytes after the header, expected 47040 for .*\(60, 28, "
        r"28\)",
    ),
    "too long": (IMAGES, lambda b: b + b"0", "more than 47040 bytes after the header, expected 47040"),
    "wrong side": (
        IMAGES,
        lambda b: b[:8] + bytes((0, 0, 0, 14, 0, 0, 0, 56)) + b[16:],
        r"\(14, 56\) "
        r"pixels, expected \(28, 28\)",
    ),
    "label 10": (LABELS, lambda b: b[:-3] + b"\x0a" + b[-2:], r"labels\[57\] is 10, outside 0 to 9"),
    "fewer labels": (LABELS, lambda b: b[:7] + b"\x3b" + b[8:-1], "60 images but 59 labels"),
}


@pytest.mark.parametrize("kind", BAD_IDX)
def test_broken_idx_files(make, tmp_path, kind):
    name, damage, words = BAD_IDX[kind]
    make.write_idx(tmp_path / "mnist", compressed=False)
    path = tmp_path / "mnist" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=words) as caught:
        read("mnist", tmp_path)
    assert str(path) in str(caught.value) or path.name in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "flipped", "plain"])
def test_broken_gzip(make, tmp_path, damage):
    make.write_idx(tmp_path / "mnist")
    path = tmp_path / "mnist" / f"{IMAGES}.gz"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-2_000]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content = gzip.decompress(bytes(content))
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: cannot be read .*download it again"):
        read("mnist", tmp_path)


@pytest.mark.parametrize("rows", [60, 10**6, 2**31])
def test_packed_zeros_are_not_unpacked(make, tmp_path, rows):
    """Oracle: memory; some hundred KB that unpack to 200 MB, under a header that says less, as much, or too much."""
    make.write_idx(tmp_path / "mnist")
    path = tmp_path / "mnist" / f"{IMAGES}.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(bytes((0, 0, 8, 3)) + np.array([rows, 28, 28], ">u4").tobytes())
        for _ in range(2 if rows == 60 else 1):
            file.write(bytes(10**8))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"more than 47040 bytes|100000000 bytes after|at most 1000000 rows"):
        read("mnist", tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6 + (784 * 10**6 if rows == 10**6 else 0)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def hole(path):
    os.truncate(path, 10**11)


def device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [pipe, hole, device])
@pytest.mark.parametrize(
    "name", [f"mnist/{LABELS}", "cifar-10-batches-bin/test_batch.bin", f"{TINY}/wnids.txt", f"{TINY}/{JPEG}"]
)
def test_only_regular_files_of_usual_sizes_are_read(make, tmp_path, put, name):
    """Oracle: the message. To open a pipe would wait for ever, to read a hole or a device as good as."""
    make.write_idx(tmp_path / "mnist", compressed=False)
    make.write_cifar10(tmp_path / "cifar-10-batches-bin")
    make.write_tiny(tmp_path / TINY)
    put(tmp_path / name)
    source = {"m": "mnist", "c": "cifar10", "t": "tiny-imagenet"}[name[0]]
    with pytest.raises(DataError, match=r"and no regular file|such a file has at most|lacks "):
        read(source, tmp_path)


def test_too_few_rows_to_hold_some_out(make, tmp_path):
    make.write_idx(tmp_path / "mnist", train=5)
    with pytest.raises(DataError, match="5 training rows, from which one in 6 is held out"):
        read("mnist", tmp_path)


def test_part_of_a_data_set_is_refused(make, tmp_path):
    """A missing file must not be papered over with the cache or a download."""
    make.write_idx(tmp_path / "mnist")
    (tmp_path / "mnist" / f"{LABELS}.gz").unlink()
    with pytest.raises(DataError, match=rf"mnist: .*mnist lacks {LABELS}\. Add what is missing"):
        load_data("mnist", tmp_path)


def test_broken_cifar_files(make, tmp_path):
    make.write_cifar10(tmp_path / "cifar-10-batches-bin")
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin: 12291 bytes, .*rows of 3073 bytes"):
        read("cifar10", tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"data_batch_3\.bin: 0 bytes"):
        read("cifar10", tmp_path)
    path.write_bytes(good[:3073] + b"\x0a" + good[3074:])
    with pytest.raises(DataError, match=r"data_batch_3\.bin, label byte 0: labels\[1\] is 10, outside"):
        read("cifar10", tmp_path)


def test_cifar100_coarse_labels_are_checked_too(make, tmp_path):
    make.write_cifar100(tmp_path / "cifar-100-binary")
    path = tmp_path / "cifar-100-binary" / "test.bin"
    path.write_bytes(b"\x14" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"test\.bin, label byte 0: labels\[0\] is 20, outside 0 to 19"):
        read("cifar100", tmp_path)


def _first(root):
    return root / "train" / "n00000002" / "images" / "n00000002_0.JPEG"


def _annotate(root, line):
    path = root / "val" / "val_annotations.txt"
    path.write_text(path.read_text() + line)


BAD_TINY = {
    "no image": (lambda r: _first(r).write_bytes(b"no JPEG"), r"n00000002_0\.JPEG: cannot be decoded"),
    "cut image": (lambda r: _first(r).write_bytes(_first(r).read_bytes()[:400]), "_0.JPEG: cannot be decoded"),
    "another format": (
        lambda r: Image.new("RGB", (64, 64)).save(_first(r), format="EPS"),
        r"_0\.JPEG: cannot be decoded as a JPEG",
    ),
    "large image": (
        lambda r: Image.new("L", (13_000, 13_000)).save(_first(r), quality=1),
        r"_0\.JPEG: \(13000, 13000\) pixels, expected|at most 1048576|decompression bomb",
    ),
    "class elsewhere": (lambda r: (r / "wnids.txt").write_text("a\n..\n"), r"'\.\.' is no name of a folder"),
    "long class": (lambda r: (r / "wnids.txt").write_text("a\n" + "b" * 300), "is no name of a folder"),
    "wrong size": (
        lambda r: Image.new("RGB", (32, 64)).save(_first(r)),
        r"\(64, 32\) pixels, expected \(64, "
        r"64\)",
    ),
    "class twice": (lambda r: (r / "wnids.txt").write_text("a\na\n"), "2 classes, 1 of them different"),
    "no classes": (lambda r: (r / "wnids.txt").write_text(""), "0 classes"),
    "not text": (lambda r: (r / "wnids.txt").write_bytes(b"\xff\xfe\x80"), "cannot be read as text"),
    "missing class": (lambda r: (r / "train" / "n00000001").rename(r / "other"), "n00000001/images: no such folder"),
    "unknown class": (
        lambda r: _annotate(r, "val_9.JPEG\tn9\n"),
        r"line 4 is .*names no class of "
        r"wnids\.txt",
    ),
    "no class": (lambda r: _annotate(r, "val_9.JPEG\n"), "line 4 is"),
    "listed, not there": (
        lambda r: _annotate(r, "val_9.JPEG\tn00000001\n"),
        r"line 4 names val_9\.JPEG, "
        "missing",
    ),
    "listed twice": (lambda r: _annotate(r, "val_0.JPEG\tn00000001\n"), r"line 4 names val_0\.JPEG, missing"),
    "there, not listed": (
        lambda r: Image.new("RGB", (64, 64)).save(r / "val" / "images" / "x.JPEG"),
        r"has no label for x\.JPEG \(1 such",
    ),
}


@pytest.mark.parametrize("kind", BAD_TINY)
def test_broken_tiny_imagenet(make, tmp_path, kind):
    damage, words = BAD_TINY[kind]
    make.write_tiny(tmp_path / "tiny-imagenet-200")
    damage(tmp_path / "tiny-imagenet-200")
    with pytest.raises(DataError, match=words):
        read("tiny-imagenet", tmp_path)


@pytest.mark.parametrize("name", DATASETS)
def test_catalogue_is_complete(name):
    """Oracle: the sizes in the data sets' own publications; every row of `describe` is filled in."""
    row = describe(name)
    assert all(row[key] for key in ("title", "where", "terms", "citation", "homepage", "classes", "scale"))
    totals = {"digits": 1797, "mnist": 70_000, "fashion-mnist": 70_000, "tiny-imagenet": 110_000}
    assert sum(row["official_sizes"].values()) == totals.get(name, 60_000)
    assert row["found"] == (name == "digits")
