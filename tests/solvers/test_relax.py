"""`relax` as a function: compiled, differentiated, and from a start alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax.activations import Tanh
from energax.exceptions import DataError
from energax.graph.networks import mlp
from oracles import central_differences, flat, largest, relative

pytestmark = pytest.mark.usefixtures("strict")

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))
GRAPH = mlp([4, 5, 3], Tanh(), gain=0.9, key=jax.random.key(0))
CASES = {
    "hopfield": (ex.Hopfield(), ex.FixedPoint(stop=ex.Stopping(1e-13, 500))),
    "scellier_bengio": (ex.ScellierBengio(), ex.GradientFlow(0.5, stop=ex.Stopping(1e-13, 3000))),
}


def squared_output(graph, x, dynamics, solver):
    return jnp.sum(ex.relax(dynamics, graph, solver, clamp={"input": x}).states["output"] ** 2)


@pytest.mark.parametrize("case", CASES)
def test_the_equilibrium_is_differentiable(case):
    """Oracle: finite differences by the clamped values and by one layer's weights, with tests on the way."""
    dynamics, solver = CASES[case]
    by_graph = eqx.filter_jit(eqx.filter_grad(squared_output))(GRAPH, X, dynamics, solver)
    by_input = eqx.filter_jit(jax.grad(lambda x: squared_output(GRAPH, x, dynamics, solver)))(X)
    expected = central_differences(lambda x: squared_output(GRAPH, x.reshape(X.shape), dynamics, solver), X.ravel())
    np.testing.assert_allclose(by_input.ravel(), expected, rtol=0, atol=1e-8)
    weight = GRAPH.functions["layer2"].weight

    def of_weight(w):
        graph = eqx.tree_at(lambda g: g.functions["layer2"].weight, GRAPH, w.reshape(weight.shape))
        return squared_output(graph, X, dynamics, solver)

    expected = central_differences(of_weight, weight.ravel())
    np.testing.assert_allclose(by_graph.functions["layer2"].weight.ravel(), expected, rtol=0, atol=1e-8)
    assert float(jnp.linalg.norm(expected)) > 0.01


def test_the_derivative_is_that_of_many_steps():
    """Oracle: automatic differentiation through 300 sweeps of plain JAX."""
    dynamics, solver = CASES["hopfield"]
    found = eqx.filter_jit(eqx.filter_grad(squared_output))(GRAPH, X, dynamics, solver)

    def unrolled(graph):
        one, two = graph.functions["layer1"], graph.functions["layer2"]
        v = jnp.zeros((3, 3))
        for _ in range(300):
            h = jnp.tanh(X @ one.weight + one.bias + v @ two.weight.T)
            v = h @ two.weight + two.bias
        return jnp.sum(v**2)

    assert relative(found, eqx.filter_jit(eqx.filter_grad(unrolled))(GRAPH)) < 1e-9


def test_the_dynamics_own_parameters_are_differentiated():
    """Oracle: E = Pi_h/2 (h - x)^2 + Pi_y/2 (y - h)^2 with y clamped: h = (Pi_h x + Pi_y y) / (Pi_h + Pi_y)."""
    identity = ex.layers.Identity()
    graph = ex.Graph(
        nodes=[ex.Node("x", (1,)), ex.Node("h", (1,)), ex.Node("y", (1,))],
        edges=[ex.Edge("x", "h", "one"), ex.Edge("h", "y", "one")],
        functions={"one": identity},
        input="x",
        output="y",
    )
    solver = ex.GradientFlow(0.3, stop=ex.Stopping(1e-14, 2000))

    def state(precisions):
        dynamics = ex.PredictiveCoding(precisions=precisions)
        clamp = {"x": jnp.array([[1.0]]), "y": jnp.array([[3.0]])}
        return ex.relax(dynamics, graph, solver, clamp=clamp).states["h"][0, 0]

    value, slope = jax.jit(jax.value_and_grad(state))({"h": jnp.asarray(2.0), "y": jnp.asarray(0.5)})
    np.testing.assert_allclose(value, (2 * 1 + 0.5 * 3) / 2.5, rtol=1e-10)
    np.testing.assert_allclose(slope["h"], 0.5 * (1 - 3) / 2.5**2, rtol=1e-10)
    np.testing.assert_allclose(slope["y"], 2 * (3 - 1) / 2.5**2, rtol=1e-10)


def test_compiled_around_values_that_it_closes_over():
    """Oracle: the same call with the values as arguments; bad values that are known are named even then."""
    dynamics, solver = CASES["hopfield"]
    clamp = {"input": X}
    compiled = jax.jit(lambda: ex.relax(dynamics, GRAPH, solver, clamp=clamp).states)()
    assert largest(compiled, ex.relax(dynamics, GRAPH, solver, clamp=clamp).states) < 1e-13
    bad = {"input": X.at[1, 2].set(jnp.nan)}
    with pytest.raises(DataError, match=r"node 'input': value nan at index \(1, 2\)"):
        jax.jit(lambda: ex.relax(dynamics, GRAPH, solver, clamp=bad).states)()


def test_a_traced_row_that_is_no_number_diverges_alone():
    """Oracle: the other rows' states and derivatives without it."""
    dynamics, solver = CASES["hopfield"]
    bad = X.at[1, 2].set(jnp.nan)
    settled = eqx.filter_jit(ex.relax)(dynamics, GRAPH, solver, clamp={"input": bad})
    np.testing.assert_array_equal(np.asarray(settled.result) == ex.Verdict.DIVERGED, [False, True, False])
    sound = jnp.array([0, 2])

    def of_rows(graph, x):
        output = ex.relax(dynamics, graph, solver, clamp={"input": x}).states["output"]
        return jnp.sum(jnp.where(jnp.isfinite(output), output, 0)[jnp.array([0, -1])] ** 2)

    found = eqx.filter_jit(eqx.filter_grad(of_rows))(GRAPH, bad)
    expected = eqx.filter_jit(eqx.filter_grad(of_rows))(GRAPH, X[sound])
    assert np.all(np.isfinite(flat(found)))
    assert relative(found, expected) < 1e-9


def test_nothing_clamped_and_a_part_given():
    """Oracle: the nodes left out are silent, so giving them zeros is the same call; the batch's size is the start's."""
    dynamics, solver = CASES["hopfield"]
    start = {"hidden1": 0.1 * jnp.ones((2, 5))}
    found = ex.relax(dynamics, GRAPH, solver, clamp={}, start=start)
    zeros = {"input": jnp.zeros((2, 4)), "output": jnp.zeros((2, 3))}
    expected = ex.relax(dynamics, GRAPH, solver, clamp={}, start={**start, **zeros})
    assert largest(found.states, expected.states) == 0
    assert found.states["output"].shape == (2, 3)
