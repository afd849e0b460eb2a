"""Langevin sampling: the laws that it draws from, the order of its error, and what must not take its samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax.exceptions import SettingError
from energax.graph.networks import mlp
from energax.rules import centred, unit_nudge
from energax.solvers import Unbounded, Verdict

KEY = jax.random.key(5)
CURVATURE = jnp.array([[2.0, 0.6], [0.6, 0.7]])
PULL = jnp.array([0.8, -0.5])


def quadratic(functions, states):
    """v^T A v / 2 - b^T v."""
    v = states["v"]
    return jnp.einsum("bi,ij,bj->b", v, functions["a"], v) / 2 - v @ functions["b"]


NODES = ex.Nodes([ex.Node("v", (2,))], {"a": CURVATURE, "b": PULL}, "v", "v")
GAUSS = ex.FunctionEnergy(quadratic)
MANY = {"v": jnp.zeros((20000, 2))}


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_a_gaussian_is_exact_at_a_large_step(temperature):
    """Oracle: mean A^-1 b and covariance T A^-1, within five standard errors of 20000 samples.

    At this step noise of its own in every step would double the variance along the steepest axis.
    """
    solver = ex.Langevin(0.45, temperature, steps=60, bound=Unbounded())
    drawn = ex.relax(GAUSS, NODES, solver, clamp={}, start=MANY, key=KEY)
    assert np.all(drawn.result == Verdict.SAMPLED)
    states, expected = np.asarray(drawn.states["v"]), temperature * np.linalg.inv(CURVATURE)
    variances = np.diag(expected)
    error = np.sqrt(variances / len(states))
    assert np.all(np.abs(states.mean(axis=0) - np.linalg.solve(CURVATURE, PULL)) < 5 * error)
    error = np.sqrt((np.outer(variances, variances) + expected**2) / len(states))
    assert np.all(np.abs(np.cov(states.T) - expected) < 5 * error)
    steepest = np.linalg.eigvalsh(CURVATURE)[-1]
    plain = expected @ np.linalg.inv(np.eye(2) - 0.45 * CURVATURE / 2)
    assert 0.45 * steepest > 0.9
    assert np.max(np.abs(plain - expected) / error) > 20


def test_a_law_that_is_no_gaussian():
    """Oracle: E v^2 of exp(-3 sqrt(1 + v^2)) by quadrature, within five standard errors of 40000 samples.

    Noise of its own in every step, simulated in numpy, misses it by more than ten.
    """
    round_cone = ex.FunctionEnergy(lambda functions, s: functions["k"] * jnp.sum(jnp.sqrt(1 + s["v"] ** 2), axis=1))
    nodes = ex.Nodes([ex.Node("v", (1000,))], {"k": jnp.asarray(3.0)}, "v", "v")
    solver = ex.Langevin(0.4, steps=40, bound=Unbounded())
    drawn = ex.relax(round_cone, nodes, solver, clamp={}, start={"v": jnp.zeros((40, 1000))}, key=KEY)
    grid = np.linspace(-20, 20, 40001)
    density = np.exp(-3 * np.sqrt(1 + grid**2))
    exact = np.sum(density * grid**2) / np.sum(density)
    squares = np.asarray(drawn.states["v"]).ravel() ** 2
    error = squares.std() / squares.size**0.5
    assert abs(squares.mean() - exact) < 5 * error
    plain, rng = np.zeros(squares.size), np.random.default_rng(0)
    for _ in range(40):
        plain += -0.4 * 3 * plain / np.sqrt(1 + plain**2) + np.sqrt(0.8) * rng.normal(size=plain.size)
    assert np.mean(plain**2) - exact > 10 * error


def test_a_sample_does_not_depend_on_its_batch():
    """Oracle: the first rows alone, and the same key again."""
    solver = ex.Langevin(0.2, steps=5)
    whole = ex.relax(GAUSS, NODES, solver, clamp={}, start={"v": jnp.zeros((6, 2))}, key=KEY).states["v"]
    part = ex.relax(GAUSS, NODES, solver, clamp={}, start={"v": jnp.zeros((2, 2))}, key=KEY).states["v"]
    np.testing.assert_allclose(part, whole[:2], rtol=1e-12)
    assert len(np.unique(np.asarray(whole))) == 12


def test_units_that_are_known_draw_nothing():
    """Oracle: the conditional law of one unit given the other, mean (b - a_12 v_2) / a_11 and variance 1 / a_11."""
    given = {"v": jnp.tile(jnp.array([[jnp.nan, 1.5]]), (20000, 1))}
    drawn = ex.relax(
        GAUSS, NODES, ex.Langevin(0.4, steps=40), clamp=given, known={"v": ~jnp.isnan(given["v"])}, key=KEY
    )
    states = np.asarray(drawn.states["v"])
    np.testing.assert_array_equal(states[:, 1], 1.5)
    assert abs(states[:, 0].mean() - (0.8 - 0.6 * 1.5) / 2) < 5 * np.sqrt(0.5 / 20000)
    assert abs(states[:, 0].var() - 0.5) < 5 * 0.5 * np.sqrt(2 / 20000)


def test_a_chain_that_explodes_has_diverged():
    """Oracle: a step of more than 2 / curvature is unstable."""
    solver = ex.Langevin(3.0, steps=200, bound=Unbounded())
    drawn = ex.relax(GAUSS, NODES, solver, clamp={}, start={"v": jnp.zeros((3, 2))}, key=KEY)
    assert np.all(drawn.result == Verdict.DIVERGED)
    assert np.all(np.isfinite(drawn.states["v"]))
    bounded = ex.relax(GAUSS, NODES, ex.Langevin(3.0, steps=200), clamp={}, start={"v": jnp.zeros((3, 2))}, key=KEY)
    assert np.all(bounded.result == Verdict.SAMPLED)


NET = mlp([4, 5, 3], jnp.tanh, key=jax.random.key(0))
BATCH = ex.Batch(jnp.ones((2, 4)), jnp.ones((2, 3)), KEY)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ex.relax(GAUSS, NODES, ex.Langevin(), clamp={}, start=MANY), r"the phase has no key.*Batch a key"),
        (
            lambda: ex.relax(ex.LeakyDirected(), NET, ex.Langevin(), clamp={"input": BATCH.x}, key=KEY),
            "the force must be -dF/dv, and that of LeakyDirected is another",
        ),
        (
            lambda: ex.Contrastive(unit_nudge())(ex.PredictiveCoding(), NET, BATCH, ex.Langevin(), ()),
            "Langevin draws samples, and what is asked for here is an equilibrium",
        ),
        (
            lambda: ex.Contrastive(centred(0.1))(ex.ScellierBengio(), NET, BATCH, ex.Langevin(), ()),
            "Langevin draws samples",
        ),
        (lambda: ex.Adjoint()(ex.PredictiveCoding(), NET, BATCH, ex.Langevin(), ()), "Langevin draws samples"),
        (
            lambda: ex.Incremental()(
                ex.PredictiveCoding(),
                NET,
                BATCH,
                ex.Langevin(),
                ex.Incremental().init(ex.PredictiveCoding(), NET, BATCH),
            ),
            "Incremental takes single steps, and Langevin has none",
        ),
        (
            lambda: jax.grad(
                lambda x: (
                    ex.relax(ex.PredictiveCoding(), NET, ex.Langevin(), clamp={"input": x}, key=KEY)
                    .states["output"]
                    .sum()
                )
            )(BATCH.x),
            "only an equilibrium has the derivative of an equilibrium",
        ),
        (lambda: ex.Langevin(temperature=0.0), "Langevin: temperature=0.0: give a number above 0"),
        (lambda: ex.Langevin(steps=0), "Langevin: steps=0"),
    ],
)
def test_what_needs_an_equilibrium_or_a_key_says_so(call, message):
    with pytest.raises(SettingError, match=message):
        call()
