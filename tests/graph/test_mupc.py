"""muPC on graphs with skips. Oracles: the paper's factors written out, and the size of the states at any depth."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax import Edge, Graph, Node
from energax.graph.mupc import Scaled, mupc, residual_additions
from energax.graph.networks import mlp, residual, residual_mlp
from energax.graph.unrolling import unroll
from energax.layers import Chain, Identity, Linear, is_analytic
from oracles import batch_for

pytestmark = pytest.mark.usefixtures("strict")

KEY = jax.random.key(0)


def factors(fn) -> list[float]:
    """The factors inside a function, in order."""

    def is_scaled(leaf) -> bool:
        return isinstance(leaf, Scaled)

    return [leaf.factor for leaf in jax.tree.leaves(fn, is_leaf=is_scaled) if is_scaled(leaf)]


def test_a_residual_mlp_has_the_papers_factors():
    """1 / sqrt(N_0), 1 / sqrt(N L), 1 / N and unit variance; the skip has no factor."""
    graph = residual_mlp((5, 2), 30, 7, 3, jnp.tanh, key=KEY)
    assert residual_additions(graph) == 7
    expected = {"embed": 10**-0.5, "branch": (30 * 7) ** -0.5, "readout": 1 / 30}
    for name, factor in expected.items():
        np.testing.assert_allclose(factors(graph.functions[name]), [factor], rtol=1e-15)
        (weight,) = jax.tree.leaves(eqx.filter(graph.functions[name], eqx.is_inexact_array))
        assert abs(float(jnp.std(weight)) - 1) < 5 / weight.size**0.5
    assert isinstance(graph.functions["skip"], Identity)
    assert graph.functions["branch"].function.layers[1].function.weight.shape == (7, 30, 30)


def test_a_stack_and_its_layers_get_the_same_factors():
    graph = residual_mlp((4,), 6, 3, 2, jnp.tanh, key=KEY)
    plain = mupc(unroll(graph, graph.node("block").axes[0]), key=KEY)
    assert residual_additions(plain) == 3
    for i in (1, 2, 3):
        np.testing.assert_allclose(factors(plain.functions[f"branch{i}"])[0], 18**-0.5, rtol=1e-15)


def test_a_chain_has_no_residual_factor():
    graph = mupc(mlp([4, 9, 16, 3], jnp.tanh, key=KEY), key=KEY)
    assert residual_additions(graph) == 0
    found = [factors(graph.functions[f"layer{i}"]) for i in (1, 2, 3)]
    np.testing.assert_allclose(found, [[1 / 2], [1 / 3], [1 / 16]], rtol=1e-15)
    assert not jnp.any(graph.functions["layer1"].function.bias)
    assert is_analytic(graph.functions["layer1"])


def test_a_convolutional_net_counts_its_skips():
    """Two stages with one skip each: L = 2, and N counts the window."""
    graph = mupc(residual((8, 8, 1), (4, 6), 3, jnp.tanh, key=KEY), key=KEY)
    assert residual_additions(graph) == 2
    expected = {"down1": 9, "block1": 36 * 2, "down2": 36, "block2": 54 * 2, "readout": 36}
    for name, inverse in expected.items():
        np.testing.assert_allclose(factors(graph.functions[name]), [inverse**-0.5], rtol=1e-15)


def test_only_the_last_layer_of_a_branch_takes_the_depth():
    two = Chain((Linear(4, 9, key=KEY), jnp.tanh, Linear(9, 4, key=KEY)))
    graph = Graph(
        nodes=[Node("x", (4,)), Node("a", (4,)), Node("y", (2,))],
        edges=[Edge("x", "a", "two"), Edge("x", "a", "skip"), Edge("a", "y", "out")],
        functions={"two": two, "skip": Identity(), "out": Linear(4, 2, key=KEY)},
        input="x",
        output="y",
    )
    np.testing.assert_allclose(factors(mupc(graph, key=KEY).functions["two"]), [1 / 2, 1 / 3], rtol=1e-15)


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.relu])
def test_states_keep_their_size_at_any_depth(activation):
    """Oracle: the variance of a sum of L branches of variance at most 1 / L each: at most e-fold over the net."""
    growth = []
    for depth in (8, 64):
        graph = residual_mlp((16,), 64, depth, 3, activation, key=KEY)
        block = graph.sweep(batch_for(graph, 16).x)["block"]
        growth.append(float(jnp.var(block[:, -1]) / jnp.var(block[:, 0])))
    assert all(1 < ratio < np.e for ratio in growth)
    assert abs(growth[1] / growth[0] - 1) < 0.35
