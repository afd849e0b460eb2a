"""Batched linear solves: dense solves in numpy and lineax's own conjugate gradients and GMRES."""

import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from energax import Verdict
from energax.solvers.linear import solve_linear

pytestmark = pytest.mark.usefixtures("strict")

UNITS = 12


def matrices(kind: str, conditions) -> np.ndarray:
    """One matrix per sample with singular values from 1 to 1 / its condition number."""
    rng = np.random.default_rng(0)
    made = []
    for condition in conditions:
        left, right = (np.linalg.qr(rng.normal(size=(UNITS, UNITS)))[0] for _ in range(2))
        values = np.logspace(0, -np.log10(condition), UNITS)
        signs = np.where(np.arange(UNITS) % 3 == 1, -1, 1) if kind == "saddle" else 1
        made.append(left @ np.diag(values * signs) @ (right if kind == "directed" else left.T))
    return np.stack(made)


def apply(stack):
    """The matrices as an operator on states of two nodes."""

    def operator(states):
        rows = jnp.concatenate([states["a"].reshape(len(stack), -1), states["b"]], axis=1)
        out = jnp.einsum("bij,bj->bi", jnp.asarray(stack), rows)
        return {"a": out[:, :8].reshape(-1, 2, 4), "b": out[:, 8:]}

    return operator


def split(rows):
    return {"a": jnp.asarray(rows[:, :8]).reshape(-1, 2, 4), "b": jnp.asarray(rows[:, 8:])}


def join(states):
    return np.concatenate([np.asarray(states["a"]).reshape(len(states["b"]), -1), states["b"]], axis=1)


@pytest.mark.parametrize("kind", ["definite", "saddle", "directed"])
def test_every_sample_has_its_own_solution(kind):
    """Oracle: numpy's dense solve, whatever the other samples are; a right side of 0 takes no product."""
    conditions = [1.5, 30.0, 1e4, 10.0]
    stack, right = matrices(kind, conditions), np.random.default_rng(1).normal(size=(4, UNITS))
    right[3] = 0
    found = solve_linear(apply(stack), split(right), symmetric=kind != "directed", tol=None, max_steps=1000)
    expected = np.linalg.solve(stack, right[..., None])[..., 0]
    for one, other, condition in zip(join(found.states), expected, conditions, strict=True):
        assert np.linalg.norm(one - other) <= 1e-13 * condition * np.linalg.norm(other)
    assert found.steps[3] == 0
    assert np.all(np.asarray(found.result)[[0, 1, 3]] == Verdict.CONVERGED)
    np.testing.assert_allclose(
        found.residual[:3],
        np.linalg.norm(np.einsum("bij,bj->bi", stack, join(found.states)) - right, axis=1)[:3]
        / np.linalg.norm(right[:3], axis=1),
        atol=1e-12,  # rounding: eps times |x| of the worst conditioned, 1e4
    )
    # alone a sample is solved as in company
    alone = solve_linear(apply(stack[1:2]), split(right[1:2]), symmetric=kind != "directed", tol=None, max_steps=1000)
    np.testing.assert_allclose(join(alone.states)[0], join(found.states)[1], rtol=1e-10)
    assert alone.steps[0] == found.steps[1]


@pytest.mark.parametrize("kind", ["definite", "directed"])
def test_as_lineax_solves_it(kind):
    """Oracle: lineax's CG and GMRES on one sample, to the same tolerance."""
    stack, right = matrices(kind, [20.0]), np.random.default_rng(2).normal(size=(1, UNITS))
    found = solve_linear(apply(stack), split(right), symmetric=kind == "definite", tol=1e-10, max_steps=200)
    tags = lx.positive_semidefinite_tag if kind == "definite" else ()
    peer = lx.CG(1e-10, 1e-10) if kind == "definite" else lx.GMRES(1e-10, 1e-10, restart=UNITS)
    theirs = lx.linear_solve(lx.MatrixLinearOperator(jnp.asarray(stack[0]), tags), jnp.asarray(right[0]), peer)
    np.testing.assert_allclose(join(found.states)[0], theirs.value, rtol=0, atol=1e-8)
    assert int(found.steps[0]) <= UNITS + 3  # Krylov's space is all of it then


def test_fewer_products_than_on_the_normal_equations():
    """Oracle: their conjugate gradients, two products each, by hand; the Jacobian of a contracting directed net."""
    rng = np.random.default_rng(3)
    matrix = np.eye(200) - 0.6 * rng.normal(size=(200, 200)) / np.sqrt(200)
    right = rng.normal(size=200)
    x, rest = np.zeros(200), matrix.T @ right
    direction, products, goal = rest, 1, 1e-10 * np.linalg.norm(rest)
    while np.linalg.norm(rest) > goal:
        pushed = matrix.T @ (matrix @ direction)
        square = rest @ rest
        x, rest = x + square / (direction @ pushed) * direction, rest - square / (direction @ pushed) * pushed
        direction, products = rest + rest @ rest / square * direction, products + 2
    operator = lambda states: {"u": states["u"] @ jnp.asarray(matrix.T)}  # noqa: E731
    found = solve_linear(operator, {"u": jnp.asarray(right)[None]}, symmetric=False, tol=1e-10, max_steps=1000)
    np.testing.assert_allclose(found.states["u"][0], np.linalg.solve(matrix, right), atol=1e-8)
    assert int(found.steps[0]) <= products
    assert found.result[0] == Verdict.CONVERGED


def test_what_has_no_solution_is_not_called_solved():
    """Oracle: a right side outside of a singular matrix's range, and one that is no number, beside a sound sample."""
    stack = np.stack([np.diag(np.r_[np.ones(UNITS - 1), 0.0]), np.eye(UNITS), np.eye(UNITS)])
    right = np.ones((3, UNITS))
    right[2, 0] = np.nan
    for symmetric in (True, False):
        found = solve_linear(apply(stack), split(right), symmetric=symmetric, tol=None, max_steps=100)
        assert found.result[0] != Verdict.CONVERGED
        assert found.result[2] == Verdict.DIVERGED
        np.testing.assert_allclose(join(found.states)[1], 1, rtol=1e-14)
        assert found.result[1] == Verdict.CONVERGED
