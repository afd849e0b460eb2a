"""Layers against equinox.nn, jax.lax and numpy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax.layers import (
    Analytic,
    Chain,
    Conv2d,
    Flatten,
    Identity,
    Linear,
    Pool,
    SoftmaxPooling,
    average,
    is_analytic,
    maximum,
    mean_over_image,
)

pytestmark = pytest.mark.usefixtures("strict")

KEY = jax.random.key(0)


@pytest.mark.parametrize("use_bias", [True, False])
def test_linear_equals_equinox(use_bias):
    ours = Linear(4, 3, use_bias=use_bias, key=KEY)
    theirs = eqx.nn.Linear(4, 3, use_bias=use_bias, key=KEY)
    theirs = eqx.tree_at(lambda l: l.weight, theirs, ours.weight.T)
    if use_bias:
        theirs = eqx.tree_at(lambda l: l.bias, theirs, ours.bias)
    x = jax.random.normal(KEY, (4,))
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-14)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (2, 2, 0), (5, 1, 0)])
def test_convolution_equals_equinox(kernel, stride, padding):
    ours = Conv2d(2, 3, kernel, stride=stride, padding=padding, key=KEY)
    theirs = eqx.nn.Conv2d(2, 3, kernel, stride, padding, key=KEY)
    weight, bias = jnp.transpose(ours.weight, (3, 2, 0, 1)), ours.bias[:, None, None]
    theirs = eqx.tree_at(lambda l: (l.weight, l.bias), theirs, (weight, bias))
    image = jax.random.normal(KEY, (6, 8, 2))
    expected = jnp.moveaxis(theirs(jnp.moveaxis(image, -1, 0)), 0, -1)
    np.testing.assert_allclose(ours(image), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pooling_equals_reduce_window(size):
    image = jax.random.normal(KEY, (6, 12, 2))
    window, strides = (size, size, 1), (size, size, 1)
    highest = jax.lax.reduce_window(image, -jnp.inf, jax.lax.max, window, strides, "VALID")
    summed = jax.lax.reduce_window(image, 0.0, jax.lax.add, window, strides, "VALID")
    np.testing.assert_array_equal(Pool(size, maximum)(image), highest)
    np.testing.assert_allclose(Pool(size, average)(image), summed / size**2, rtol=1e-13, atol=1e-15)


def test_softmax_pooling_lies_between_mean_and_maximum():
    """Oracles: its two limits, and its definition in numpy."""
    windows = jax.random.normal(KEY, (5, 4))
    np.testing.assert_allclose(SoftmaxPooling(0.0)(windows), average(windows), rtol=1e-13)
    np.testing.assert_allclose(SoftmaxPooling(2000.0)(windows), maximum(windows), rtol=1e-12)
    raw = np.exp(1.5 * np.asarray(windows))
    expected = (raw * np.asarray(windows)).sum(1) / raw.sum(1)
    np.testing.assert_allclose(SoftmaxPooling(1.5)(windows), expected, rtol=1e-13)


def test_initial_weights_are_uniform_with_the_stated_limit():
    """Oracle: moments of U(-a, a), a = gain / sqrt(fan_in): largest below a, variance a^2 / 3."""
    for layer, fan_in in ((Linear(400, 300, gain=2.0, key=KEY), 400), (Conv2d(40, 80, 3, gain=2.0, key=KEY), 360)):
        limit = 2.0 / fan_in**0.5
        assert 0.999 * limit < float(jnp.max(jnp.abs(layer.weight))) <= limit
        assert abs(float(jnp.var(layer.weight)) / (limit**2 / 3) - 1) < 0.02
        assert float(jnp.max(jnp.abs(layer.bias))) <= limit


def test_small_layers():
    image = jax.random.normal(KEY, (2, 3, 4))
    np.testing.assert_array_equal(Flatten()(image), np.asarray(image).reshape(-1))
    np.testing.assert_array_equal(Identity()(image), image)
    np.testing.assert_allclose(mean_over_image(image), np.asarray(image).mean((0, 1)), rtol=1e-14)
    np.testing.assert_allclose(Chain((jnp.tanh, Flatten()))(image), np.tanh(np.asarray(image)).reshape(-1), rtol=1e-14)


def test_layers_refuse_shapes_they_do_not_take():
    with pytest.raises(ValueError, match=r"vector of 4 numbers, got shape \(5,\)"):
        Linear(4, 3, key=KEY)(jnp.zeros(5))
    with pytest.raises(ValueError, match=r"\(height, width, 2\), got shape \(6, 6, 1\)"):
        Conv2d(2, 3, 3, key=KEY)(jnp.zeros((6, 6, 1)))
    with pytest.raises(ValueError, match=r"multiples of 2, got shape \(5, 6, 1\)"):
        Pool(2, average)(jnp.zeros((5, 6, 1)))


def test_which_layers_are_analytic():
    assert is_analytic(Chain((Conv2d(1, 1, 3, key=KEY), jnp.tanh, Pool(2, average), Flatten())))
    assert is_analytic(Pool(2, SoftmaxPooling()))
    assert not is_analytic(Pool(2, maximum))
    assert not is_analytic(Chain((Identity(), jax.nn.relu)))
    assert not is_analytic(eqx.nn.PReLU())
    assert is_analytic(Analytic(lambda x: x**2))
