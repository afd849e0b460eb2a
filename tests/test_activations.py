"""Activations: G' = rho^-1 by automatic differentiation, and minimisers that satisfy their own equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, xlogy

from energax.activations import Box, Sigmoid, Tanh, hard_sigmoid, identity, rectifier
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


STEEP = {
    "tanh": Tanh(),
    "steep": Sigmoid(8.0, 0.5),
    "shifted": Sigmoid(40.0, -2.0),
    "far": Sigmoid(1.0, 3.0),
    "hard_sigmoid": hard_sigmoid(),
    "box": Box(-2.0, 0.5),
}


def bent_energy(activation, v, curvature, drive):
    """Oracle: G(v) + c/2 v^2 - h v in numpy."""
    if isinstance(activation, Box):
        return v**2 / 2 + curvature * v**2 / 2 - drive * v
    tanh = isinstance(activation, Tanh)
    p = np.clip((1 + v) / 2 if tanh else v, 0, 1)
    stored = xlogy(p, p) + xlogy(1 - p, 1 - p)
    if not tanh:
        stored = stored / activation.gain + activation.midpoint * v
    return stored + curvature * v**2 / 2 - drive * v


def grid_of(activation):
    """States over the whole range; those of smooth activations by their logit, which resolves the ends."""
    if isinstance(activation, Box):
        return np.linspace(activation.lower, activation.upper, 20001)
    p = expit(np.linspace(-60, 60, 20001))
    return 2 * p - 1 if isinstance(activation, Tanh) else p


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", STEEP)
def test_minimiser_is_global_at_any_curvature(name, dtype):
    """Oracle: a grid in numpy. Curvatures are in units of 1 / the steepest slope: below -1 there are two wells."""
    activation = STEEP[name]
    steepest = {"steep": 2.0, "shifted": 10.0, "far": 0.25}.get(name, 1.0)
    curvatures = np.array([-60, -1.5, -0.99, -0.5, 0, 0.6, 30, 3e4])[:, None] / steepest
    middle = np.mean([float(activation(jnp.asarray(end))) for end in (-jnp.inf, jnp.inf)])
    centre = getattr(activation, "centre", middle)
    drives = centre + curvatures * middle + (1 + np.abs(curvatures)) * np.linspace(-1.5, 1.5, 41)
    drives, curvatures = (jnp.asarray(a, dtype) for a in np.broadcast_arrays(drives, curvatures))
    found = activation.minimise(drives, curvatures)
    assert found.dtype == dtype
    values = grid_of(activation)
    cases = [np.asarray(a, np.float64).ravel() for a in (drives, curvatures, found)]
    for drive, curvature, v in zip(*cases, strict=True):
        energies = bent_energy(activation, values, curvature, drive)
        size = 1 + np.max(np.abs(energies))
        assert bent_energy(activation, v, curvature, drive) <= np.min(energies) + 4 * jnp.finfo(dtype).eps * size
        # nor is it the other well, of nearly the same energy
        near = values[energies < np.min(energies) + 1e-5 * size]
        assert near.min() - 2e-3 <= v <= near.max() + 2e-3


def test_a_steep_shifted_sigmoid_under_a_strong_nudge():
    """Oracle: scipy's root of v = rho(h + beta y - beta v) for the case that Newton's method alone misses."""
    activation, drive, beta, y = Sigmoid(8.0, 0.5), 0.3, 2.0, 0.5
    expected = brentq(lambda v: v - 1 / (1 + np.exp(-8 * (drive + beta * (y - v) - 0.5))), 0, 1, xtol=1e-15)
    assert abs(expected - 0.4201) < 1e-4
    found = activation.minimise(jnp.asarray(drive + beta * y), jnp.asarray(beta))
    np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize("curvature", [2.0, 30.0, -0.3])
def test_minimiser_is_differentiated_implicitly(curvature):
    """Oracle: dv = rho' (dh - v dc) / (1 + c rho') in numpy; the second derivative by differences of the first."""
    activation, drives = Sigmoid(8.0, 0.5), jnp.linspace(-2.0, 3.0, 21)
    at = jnp.asarray(curvature)
    v = np.asarray(activation.minimise(drives, at))
    slope = 8 * v * (1 - v)
    by_drive, by_curvature = jax.vmap(jax.grad(activation.minimise, (0, 1)), (0, None))(drives, at)
    np.testing.assert_allclose(by_drive, slope / (1 + curvature * slope), atol=1e-13)
    np.testing.assert_allclose(by_curvature, -v * slope / (1 + curvature * slope), atol=1e-13)
    first = jax.vmap(jax.grad(activation.minimise), (0, None))
    second = jax.vmap(jax.grad(jax.grad(activation.minimise)), (0, None))(drives, at)
    differences = (first(drives + 1e-5, at) - first(drives - 1e-5, at)) / 2e-5
    np.testing.assert_allclose(second, differences, atol=1e-6 * float(jnp.max(jnp.abs(second))))


def test_complex_minimiser_continues_the_real_one():
    """Oracle: Cauchy's formula, the average over a circle of small curvatures is the value at its centre."""
    circle = jnp.asarray(0.3 * np.exp(2j * np.pi * np.arange(16) / 16))
    for activation in (Tanh(), Sigmoid(), identity()):
        values = activation.minimise(jnp.full(16, 0.4).astype(circle.dtype), circle)
        np.testing.assert_allclose(jnp.mean(values), activation(jnp.asarray(0.4)), atol=1e-9)


def test_no_minimum_is_no_number():
    """Oracle: the sign of (1 + c)/2 v^2 - h v where v goes to the box's infinite ends."""
    minima = identity().minimise(jnp.array([0.5, 0.5, -0.5]), jnp.array([1.0, -1.5, -1.0]))
    np.testing.assert_array_equal(np.isfinite(minima), [True, False, False])
    walled = rectifier().minimise(jnp.array([0.5, -0.5, 0.5, -0.5]), jnp.array([-1.5, -1.5, -1.0, -1.0]))
    np.testing.assert_array_equal(np.isfinite(walled), [False, False, False, True])
    for activation in ACTIVATIONS.values():
        for curvature in (-1.5, 2.0):
            assert bool(jnp.isnan(activation.minimise(jnp.asarray(jnp.nan), jnp.asarray(curvature))))


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "steep_sigmoid"])
def test_slope_is_the_derivative(name):
    activation = ACTIVATIONS[name]
    np.testing.assert_allclose(activation.slope(DRIVES), jax.vmap(jax.grad(activation))(DRIVES), atol=1e-14)


def test_values_at_chosen_points():
    """Oracle: the definitions, by numpy."""
    h = np.array([-1.5, -0.2, 0.4, 3.0])
    np.testing.assert_allclose(Tanh()(jnp.asarray(h)), np.tanh(h), rtol=1e-14)
    np.testing.assert_allclose(Sigmoid(4.0, 0.5)(jnp.asarray(h)), 1 / (1 + np.exp(-4 * (h - 0.5))), atol=1e-15)
    np.testing.assert_allclose(Sigmoid()(jnp.asarray(h)), 1 / (1 + np.exp(-h)), atol=1e-15)
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
