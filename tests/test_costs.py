"""Costs against numpy and scipy: values, quadratic forms, extremes, complex outputs, several outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from energax.costs import CrossEntropy, SquaredError, as_cost
from energax.exceptions import DataError, SettingError

KEYS = jax.random.split(jax.random.key(0), 4)
V, SMOOTH = jax.random.normal(KEYS[0], (5, 4)), jax.nn.softmax(jax.random.normal(KEYS[1], (5, 4)))
LABELS = jax.nn.one_hot(jnp.arange(5) % 4, 4, dtype=V.dtype)


def reference_cross_entropy(v, y):
    v, y = np.asarray(v, float), np.asarray(y, float)
    return -np.sum(y * (v - scipy.special.logsumexp(v, axis=-1, keepdims=True)), axis=-1)


@pytest.mark.parametrize("y", [LABELS, SMOOTH, 0.3 * LABELS], ids=["one-hot", "smooth", "sums below 1"])
def test_values_per_sample(y):
    """Oracles: scipy's logsumexp, and half a squared distance by numpy."""
    np.testing.assert_allclose(CrossEntropy()(V, y), reference_cross_entropy(V, y), rtol=1e-13)
    np.testing.assert_allclose(SquaredError()(V, y), np.sum((np.asarray(V) - np.asarray(y)) ** 2, 1) / 2, rtol=1e-13)


def test_axes_between_the_batch_and_the_classes_are_summed():
    """Oracle: the sum over positions."""
    v, y = jnp.stack([V, 2 * V], 1), jnp.stack([LABELS, SMOOTH], 1)
    for cost in (CrossEntropy(), SquaredError()):
        np.testing.assert_allclose(cost(v, y), cost(V, LABELS) + cost(2 * V, SMOOTH), rtol=1e-13)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
@pytest.mark.parametrize("sign", [1, -1])
def test_large_logits_neither_overflow_nor_vanish(size, sign):
    """Oracle: scipy in float64; the softmax of float32 overflows beyond 88."""
    with jax.enable_x64(False):
        v = jnp.array([[sign * size, 0.0, 1.0], [sign * size, sign * size, 0.0]], jnp.float32)
        y = jnp.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]], jnp.float32)
        found, slope = jax.value_and_grad(lambda v: jnp.sum(CrossEntropy()(v, y)))(v)
    np.testing.assert_allclose(found, np.sum(reference_cross_entropy(v, y)), rtol=1e-6)
    np.testing.assert_allclose(slope, scipy.special.softmax(np.asarray(v, float), axis=1) - np.asarray(y), atol=1e-6)


@pytest.mark.parametrize("cost", [CrossEntropy(), SquaredError()])
def test_the_quadratic_form_has_the_slope_of_the_cost(cost):
    """Oracle: the derivative at the output; for a quadratic cost everywhere, and its curvature."""
    pull, curvature = cost.quadratic(V, SMOOTH)
    slope = jax.grad(lambda v: jnp.sum(cost(v, SMOOTH)))
    np.testing.assert_allclose(curvature * V - pull, slope(V), rtol=1e-12, atol=1e-15)
    if curvature:
        np.testing.assert_allclose(curvature * 3 * V - pull, slope(3 * V), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("cost", [CrossEntropy(), SquaredError()])
def test_costs_are_holomorphic(cost):
    """Oracle: Cauchy and Riemann: the derivative along i is i times that along 1; real values on the real axis."""
    way, step, y = jax.random.normal(KEYS[2], V.shape).astype(complex), 1e-6, SMOOTH.astype(complex)
    z = jax.lax.complex(V, 0.2 * jax.random.normal(KEYS[3], V.shape))
    ends = [(z + way * h, z - way * h) for h in (jnp.asarray(step + 0j), jnp.asarray(step * 1j))]
    real, imaginary = ((cost(up, y) - cost(down, y)) / (2 * step) for up, down in ends)
    np.testing.assert_allclose(imaginary, 1j * np.asarray(real), rtol=1e-6)
    np.testing.assert_allclose(cost(V.astype(complex), y), cost(V, SMOOTH), rtol=1e-13)


def test_several_outputs_have_a_cost_each():
    """Oracle: their sum; what does not match is named."""
    cost = as_cost({"a": SquaredError(), "b": CrossEntropy()})
    found = cost({"a": V, "b": 2 * V}, {"a": SMOOTH, "b": LABELS})
    np.testing.assert_allclose(found, SquaredError()(V, SMOOTH) + CrossEntropy()(2 * V, LABELS), rtol=1e-13)
    for name, own in (("a", SquaredError()), ("b", CrossEntropy())):
        np.testing.assert_array_equal(cost.of(name)(V, SMOOTH), own(V, SMOOTH))
    np.testing.assert_array_equal(as_cost(CrossEntropy()).of("any")(V, SMOOTH), CrossEntropy()(V, SMOOTH))
    with pytest.raises(DataError, match="costs for a, b, and the targets are a: give each output"):
        cost({"a": V, "b": V}, {"a": SMOOTH})
    with pytest.raises(DataError, match="the graph's outputs are one array"):
        cost(V, {"a": SMOOTH, "b": LABELS})
    with pytest.raises(SettingError, match="no one quadratic form"):
        cost.quadratic({"a": V, "b": V}, {"a": SMOOTH, "b": LABELS})
    with pytest.raises(SettingError, match="cost of output 'a'"):
        as_cost({"a": 0.5})


@pytest.mark.parametrize("cost", [CrossEntropy(), SquaredError()])
def test_labels_that_would_broadcast_are_refused(cost):
    with pytest.raises(DataError, match=r"the output has shape \(5, 4\) and the target \(5, 1\)"):
        cost(V, jnp.ones((5, 1)))
