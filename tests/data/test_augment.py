"""Augmentation and normalisation, against numpy and counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax.data import Augmentation, normalise
from energax.exceptions import SettingError


def batch(n, dtype=np.uint8):
    """Images without a zero pixel and without symmetry, all rows the same."""
    image = np.arange(1, 6 * 7 * 2 + 1, dtype=dtype).reshape(1, 6, 7, 2)
    return np.repeat(image, n, axis=0)


def test_nothing_asked_nothing_done():
    images = jnp.asarray(batch(3))
    assert Augmentation()(images, jax.random.key(0)) is images


def test_flip_mirrors_about_half_of_the_images():
    """Oracle: every result is the image or numpy's mirror of it; 400 fair coins: 200 +- 4 * 10."""
    images = batch(400)
    result = np.asarray(Augmentation(flip=True)(jnp.asarray(images), jax.random.key(1)))
    mirrored = (result == images[:, :, ::-1]).all((1, 2, 3))
    kept = (result == images).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 160 <= mirrored.sum() <= 240


def test_crops_are_windows_of_the_padded_image_and_all_of_them_occur():
    """Oracle: numpy's windows of the padded image; 25 windows, 600 draws, 24 expected of each."""
    images, pad = batch(600), 2
    padded = np.pad(images[0], ((pad, pad), (pad, pad), (0, 0)))
    windows = [padded[r : r + 6, c : c + 7].tobytes() for r in range(5) for c in range(5)]
    result = np.asarray(jax.jit(Augmentation(pad=pad))(jnp.asarray(images), jax.random.key(2)))
    assert result.dtype == np.uint8
    counts = [sum(image.tobytes() == window for image in result) for window in windows]
    assert sum(counts) == 600
    assert min(counts) >= 5
    assert max(counts) <= 50


def test_an_image_is_treated_alike_in_any_batch():
    """Oracle: the same rows at the head of a longer batch; another key must give something else."""
    augment, images = Augmentation(flip=True, pad=2), jnp.asarray(batch(32))
    whole = augment(images, jax.random.key(3))
    np.testing.assert_array_equal(whole[:5], augment(images[:5], jax.random.key(3)))
    assert (whole != augment(images, jax.random.key(4))).any()


def test_one_compilation_for_all_keys():
    traces = []

    @jax.jit
    def step(images, key):
        traces.append(0)
        return Augmentation(flip=True, pad=4)(images, key)

    for seed in range(3):
        step(jnp.asarray(batch(4)), jax.random.key(seed))
    assert len(traces) == 1


@pytest.mark.parametrize("pad", [-1, 1.5, True])
def test_bad_padding(pad):
    with pytest.raises(SettingError, match=r"pad is .*integer >= 0"):
        Augmentation(pad=pad)


def test_single_image_is_refused():
    with pytest.raises(SettingError, match=r"shape \(6, 7, 2\).*images\[None\]"):
        Augmentation(flip=True)(jnp.asarray(batch(1)[0]), jax.random.key(0))


@pytest.mark.parametrize("x64", [False, True])
def test_normalise_is_the_formula_in_the_enabled_precision(x64):
    """Oracle: the formula in numpy's float64."""
    images, mean, std = batch(2), (0.25, 0.5), (0.5, 0.125)
    with jax.enable_x64(x64):
        result = normalise(jnp.asarray(images), 255.0, mean, std)
        plain = normalise(jnp.asarray(images), 16.0)
    assert result.dtype == (np.float64 if x64 else np.float32)
    tolerance = 1e-14 if x64 else 1e-6
    expected = (images / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(plain, images / 16, rtol=tolerance)


def test_normalise_keeps_floating_dtypes_and_constant_channels():
    """A constant channel, std 0, must come out as 0 and not as NaN."""
    images = jnp.full((2, 3, 3, 2), 0.5, jnp.float16)
    result = normalise(images, 1.0, (0.5, 0.25), (0.0, 0.25))
    assert result.dtype == jnp.float16
    np.testing.assert_array_equal(result[..., 0], 0)
    np.testing.assert_array_equal(result[..., 1], 1)


def test_normalise_wants_one_number_per_channel():
    with pytest.raises(SettingError, match=r"mean is \(0\.5,\), but the images have 2 channels"):
        normalise(jnp.asarray(batch(1)), 255.0, (0.5,), (1.0,))
