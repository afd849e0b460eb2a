"""User's arrays: what is accepted, what is refused and with which words."""

import tracemalloc

import numpy as np
import pytest

from energax.data import Augmentation, Dataset, check_arrays
from energax.data.arrays import channel_statistics
from energax.exceptions import DataError


def rows(n=6, dtype=np.uint8, channels=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 8, 8, channels)).astype(dtype), np.arange(n) % 3


def with_pixel(value):
    images, labels = rows(dtype=np.float32)
    images[4, 2, 3, 1] = value
    return images, labels


def with_label(row, value, dtype=np.int64):
    images, labels = rows()
    labels = labels.astype(dtype)
    labels[row] = value
    return images, labels


# Oracle: the contract. Each row is one kind of bad input and the words that name its place, value and remedy.
BAD = {
    "nan": (with_pixel(np.nan), r"there: images\[4, 2, 3, 1\] is nan \(1 such pixels\)\. Replace or drop"),
    "infinity": (with_pixel(-np.inf), r"images\[4, 2, 3, 1\] is -inf"),
    "rank 3": ((rows()[0][..., 0], rows()[1]), r"shape \(6, 8, 8\), .*channels last.*images\[\.\.\., None\]"),
    "rank 2": ((np.zeros((6, 64)), rows()[1]), r"shape \(6, 64\)"),
    "integers not uint8": (rows(dtype=np.int64), r"dtype int64.*astype\(np\.uint8\)"),
    "objects": ((rows()[0].astype(object), rows()[1]), r"dtype object"),
    "no rows": ((rows()[0][:0], rows()[1][:0]), r"\(0, 8, 8, 3\), which holds no pixels"),
    "label too high": (with_label(2, 3), r"there: labels\[2\] is 3, outside 0 to 2 \(1 such rows\)\. Number"),
    "label negative": (with_label(5, -1), r"labels\[5\] is -1, outside"),
    "fractional label": (with_label(3, 0.5, float), r"dtype float64 \(labels\[3\] is 0\.5\).*integers"),
    "nan label": (with_label(1, np.nan, float), r"labels\[1\] is nan"),
    "whole floats": (with_label(0, 1.0, float), r"dtype float64, but integers.*astype\(int\)"),
    "one-hot labels": ((rows()[0], np.eye(3)[rows()[1]]), r"shape \(6, 3\).*argmax\(axis=1\)"),
    "strings": ((rows()[0], np.array(list("abcabc"))), r"labels have dtype <U1"),
    "ragged": (([[1], [1, 2]], rows()[1]), r"there: images: a list that is no array"),
    "masked": ((np.ma.masked_all((6, 8, 8, 3), np.float32), rows()[1]), "whose mask would be lost"),
    "times": ((rows()[0], rows()[1].astype("m8[s]")), r"dtype timedelta64\[s\], but integers"),
    "repeated": (
        (np.broadcast_to(np.float32(0), (10**9, 28, 28, 1)), np.broadcast_to(0, 10**9)),
        r"images: shape \(1000000000, 28, 28, 1\) of float32 is 3136000000000 bytes, and this machine has",
    ),
    "lengths differ": ((rows()[0], rows()[1][:5]), r"6 images but 5 labels"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_arrays_are_named(kind):
    (images, labels), words = BAD[kind]
    with pytest.raises(DataError, match=words):
        check_arrays(images, labels, 3, "there")


@pytest.mark.parametrize("scale", ["a", None, 0, -1.0, np.nan, np.inf, True, 1j])
def test_a_scale_is_a_number_above_zero(scale):
    """Oracle: the contract; None stands for the usual one."""
    given = {part: rows() for part in ("train", "validation", "test")}
    if scale is None:
        assert Dataset.from_arrays("mine", **given, classes=3, scale=scale).scale == 255
    else:
        with pytest.raises(DataError, match="mine: scale is"):
            Dataset.from_arrays("mine", **given, classes=3, scale=scale)


def test_pixels_too_large_for_their_statistics_are_refused():
    """Oracle: squares beyond float64."""
    given = dict.fromkeys(("train", "validation", "test"), (np.full((6, 2, 2, 1), 1e300), [0] * 6))
    given["train"][0][0] = -1e300
    with pytest.raises(DataError, match=r"mine/train: the pixels' mean is .*Give smaller"):
        Dataset.from_arrays("mine", **given, classes=3)


def test_memory_of_the_check_does_not_grow_with_what_is_wrong():
    """Oracle: memory; the images are 63 MB, and every pixel is NaN."""
    images = np.full((20_000, 28, 28, 1), np.nan, np.float32)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"images\[0, 0, 0, 0\] is nan \(15680000 such pixels\)"):
        check_arrays(images, np.zeros(20_000, int), 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**7


@pytest.mark.parametrize("classes", [1, 0, 2.0, True])
def test_bad_number_of_classes(classes):
    with pytest.raises(DataError, match=r"classes is .*at least 2"):
        check_arrays(*rows(), classes)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_good_arrays_keep_pixels_and_get_int32_labels(dtype):
    """Oracle: the input itself; lists are accepted too."""
    images, labels = rows(dtype=dtype)
    split = check_arrays(images, labels.tolist(), 3)
    assert split.images is images
    assert split.labels.dtype == np.int32
    assert split.labels.tolist() == labels.tolist()
    assert len(split) == 6


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 255.0), (np.uint8, 16.0), (np.float32, 1.0)])
def test_statistics_are_numpys(dtype, scale):
    """Oracle: numpy's mean and std of the scaled float64 pixels."""
    images, _ = rows(2_100, dtype)
    mean, std = channel_statistics(images, scale)
    scaled = images.astype(np.float64) / scale
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-12)


def test_from_arrays_states_everything():
    """Oracle: numpy for the statistics, which must come from the training rows alone."""
    train, other = rows(9), (np.zeros((3, 8, 8, 3), np.uint8), np.arange(3))
    data = Dataset.from_arrays(
        "mine", train=train, validation=other, test=other, classes=3, augmentation=Augmentation(flip=True)
    )
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 3, 3)
    assert (data.name, data.classes, data.scale, data.image_shape) == ("mine", 3, 255.0, (8, 8, 3))
    assert data.augmentation.flip
    np.testing.assert_allclose(data.mean, (train[0] / 255).mean((0, 1, 2)))
    assert all(isinstance(value, float) for value in (*data.mean, *data.std))


def test_from_arrays_names_the_split():
    good = rows()
    with pytest.raises(DataError, match=r"mine/test: labels\[2\] is 3"):
        Dataset.from_arrays("mine", train=good, validation=good, test=with_label(2, 3), classes=3)
    with pytest.raises(DataError, match=r"mine/validation: images are uint8 of shape \(8, 8, 1\), but"):
        Dataset.from_arrays("mine", train=good, validation=rows(channels=1), test=good, classes=3)
    with pytest.raises(DataError, match=r"mine/test: images are float32"):
        Dataset.from_arrays("mine", train=good, validation=good, test=rows(dtype=np.float32), classes=3)
    with pytest.raises(DataError, match=r"mine/train: got ndarray\. Give a pair"):
        Dataset.from_arrays("mine", train=good[0], validation=good, test=good, classes=3)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_scale(scale):
    with pytest.raises(DataError, match=r"mine: scale is .*stands for 1"):
        Dataset.from_arrays("mine", train=rows(), validation=rows(), test=rows(), classes=3, scale=scale)
