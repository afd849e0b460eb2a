"""Activations: G' = rho^-1 by automatic differentiation, and minimisers that satisfy their own equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax.activations import Sigmoid, Tanh, hard_sigmoid, identity, rectifier
from energax.layers import is_analytic

pytestmark = pytest.mark.usefixtures("strict")

ACTIVATIONS = {
    "identity": identity(),
    "hard_sigmoid": hard_sigmoid(),
    "rectifier": rectifier(),
    "tanh": Tanh(),
    "sigmoid": Sigmoid(),
    "steep_sigmoid": Sigmoid(4.0, 0.5),
}
DRIVES = jnp.linspace(-4.0, 4.0, 81) + 0.013


@pytest.fixture(params=ACTIVATIONS)
def activation(request):
    return ACTIVATIONS[request.param]


def inside(activation, values):
    lower, upper = getattr(activation, "lower", -np.inf), getattr(activation, "upper", np.inf)
    return (values > lower) & (values < upper)


def derivative(activation, states):
    return jax.vmap(jax.grad(activation.potential))(states)


def in_states(activation, states, drives):
    """An error of the drive as an error of the state: divided by G'', since rho flattens towards its ends."""
    return drives / jax.vmap(jax.grad(jax.grad(activation.potential)))(states)


def test_the_potentials_derivative_inverts_the_activation(activation):
    """Oracle: G'(rho(h)) = h by automatic differentiation, where rho is invertible."""
    drives = DRIVES[inside(activation, DRIVES)]
    states = activation(drives)
    np.testing.assert_allclose(in_states(activation, states, derivative(activation, states) - drives), 0, atol=1e-15)


@pytest.mark.parametrize("curvature", [0.0, 0.5, 2.0, -0.2])
def test_minimiser_is_stationary(activation, curvature):
    """Oracle: G'(v) + c v = h where v is inside its range, by automatic differentiation; else the nearer end."""
    v = activation.minimise(DRIVES, curvature)
    left = in_states(activation, v, derivative(activation, v) + curvature * v - DRIVES)
    free = np.asarray(inside(activation, v))
    np.testing.assert_allclose(np.asarray(left)[free], 0, atol=1e-14)
    lower = np.asarray(v) <= getattr(activation, "lower", -np.inf)
    upper = np.asarray(v) >= getattr(activation, "upper", np.inf)
    assert np.all(np.asarray(left)[lower] >= 0)
    assert np.all(np.asarray(left)[upper] <= 0)
    assert np.all(free | lower | upper)


def test_minimiser_beats_a_grid(activation):
    """Oracle: exhaustive search over the activation's range."""
    ends = np.asarray(activation(jnp.array([-20.0, 20.0])))
    grid = jnp.linspace(ends[0], ends[1], 4001)
    for drive in (-1.3, 0.2, 2.1):

        def objective(v, h=drive):
            return activation.potential(v) + 0.35 * v**2 - h * v

        best = float(jnp.nanmin(objective(grid)))
        assert float(objective(activation.minimise(jnp.array(drive), 0.7))) <= best + 1e-12


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "steep_sigmoid"])
def test_slope_is_the_derivative(name):
    activation = ACTIVATIONS[name]
    np.testing.assert_allclose(activation.slope(DRIVES), jax.vmap(jax.grad(activation))(DRIVES), atol=1e-14)


def test_values_at_chosen_points():
    """Oracle: the definitions, by numpy."""
    h = np.array([-1.5, -0.2, 0.4, 3.0])
    np.testing.assert_allclose(Tanh()(jnp.asarray(h)), np.tanh(h), rtol=1e-14)
    np.testing.assert_allclose(Sigmoid(4.0, 0.5)(jnp.asarray(h)), 1 / (1 + np.exp(-4 * (h - 0.5))), atol=1e-15)
    np.testing.assert_array_equal(hard_sigmoid()(jnp.asarray(h)), [0, 0, 0.4, 1])
    np.testing.assert_array_equal(rectifier()(jnp.asarray(h)), [0, 0, 0.4, 3])
    np.testing.assert_array_equal(identity()(jnp.asarray(h)), h)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "steep_sigmoid"])
def test_potential_is_finite_at_the_ends(name):
    """Oracle: the limits of v log v: tanh log 2 at +-1, sigmoid m v."""
    activation = ACTIVATIONS[name]
    if name == "tanh":
        np.testing.assert_allclose(activation.potential(jnp.array([-1.0, 1.0])), np.log(2), rtol=1e-12)
    else:
        expected = [0.0, activation.midpoint]
        np.testing.assert_allclose(activation.potential(jnp.array([0.0, 1.0])), expected, atol=1e-12)


def test_what_is_analytic():
    """Oracle: complex differentiability; the Cauchy-Riemann equations at a point, by finite differences."""
    z, step = 0.3 + 0.2j, 1e-6
    for activation in ACTIVATIONS.values():
        if is_analytic(activation):
            along_real = (activation(jnp.asarray(z + step)) - activation(jnp.asarray(z - step))) / (2 * step)
            along_imag = (activation(jnp.asarray(z + 1j * step)) - activation(jnp.asarray(z - 1j * step))) / (2j * step)
            np.testing.assert_allclose(along_real, along_imag, atol=1e-8)
    assert [name for name, a in ACTIVATIONS.items() if not is_analytic(a)] == ["hard_sigmoid", "rectifier"]
