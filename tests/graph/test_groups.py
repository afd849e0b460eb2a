"""Groups of parameters: one per function, and per position of a stacked one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energax as ex
from energax.dynamics.model import select_parameters
from energax.graph.groups import group_norms, parameter_groups, scale_groups
from energax.optimisers import OPTIMISERS, make_optimiser

KEY = jax.random.key(0)


def stack():
    """A residual net of three blocks, which are one stacked function."""
    return ex.networks.residual_mlp((4,), 5, 3, 2, jnp.tanh, key=KEY)


def like(graph, seed: int):
    """A gradient of normal numbers with the structure of the graph's parameters."""
    leaves, tree = jax.tree.flatten(eqx.filter(graph, eqx.is_inexact_array))
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(tree, [jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)])


def test_norms_are_of_the_function_or_of_each_of_its_positions():
    """Oracle: numpy's norm of all arrays of a function; of a stack, of the arrays of each position."""
    graph = stack()
    gradient = like(graph, 1)
    found = group_norms(gradient)
    assert set(found) == {"embed", "branch", "readout"}
    for name in ("embed", "readout"):
        arrays = [np.ravel(a) for a in jax.tree.leaves(gradient.functions[name])]
        np.testing.assert_allclose(found[name], np.linalg.norm(np.concatenate(arrays)), rtol=1e-12)
    arrays = [np.reshape(a, (3, -1)) for a in jax.tree.leaves(gradient.functions["branch"])]
    np.testing.assert_allclose(found["branch"], np.linalg.norm(np.concatenate(arrays, 1), axis=1), rtol=1e-12)
    plain = group_norms(ex.networks.mlp([3, 4, 2], jnp.tanh, key=KEY))
    assert {name: norm.shape for name, norm in plain.items()} == {"layer1": (), "layer2": ()}


def test_scaled_groups_have_scaled_norms():
    """Oracle: norms are homogeneous. A group without a factor keeps every bit."""
    gradient = like(stack(), 1)
    before, factors = group_norms(gradient), {"branch": jnp.array([2.0, 0.0, -3.0]), "embed": jnp.asarray(0.5)}
    scaled = scale_groups(gradient, factors)
    after = group_norms(scaled)
    for name, factor in factors.items():
        np.testing.assert_allclose(after[name], abs(factor) * before[name], rtol=1e-12)
    for a, b in zip(*(jax.tree.leaves(tree.functions["readout"]) for tree in (scaled, gradient)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_serve_optax():
    """Oracle: plain SGD of two rates by hand; `optax.multi_transform` reads the labels."""
    graph = ex.networks.mlp([3, 4, 2], jnp.tanh, key=KEY)
    parameters, gradient = eqx.filter(graph, eqx.is_inexact_array), like(graph, 2)
    rates = {"layer1": 0.5, "layer2": 0.25}
    both = optax.multi_transform({name: optax.sgd(rate) for name, rate in rates.items()}, parameter_groups)
    updates, _ = both.update(gradient, both.init(parameters), parameters)
    for name, rate in rates.items():
        np.testing.assert_allclose(updates.functions[name].weight, -rate * gradient.functions[name].weight, rtol=1e-12)


def test_parameters_of_frozen_groups_are_left_out():
    """Oracle: the leaves of the others."""
    graph = ex.networks.mlp([3, 4, 2], jnp.tanh, key=KEY)
    model = ex.Model(graph, ex.PredictiveCoding())
    assert len(jax.tree.leaves(select_parameters(model))) == 4
    (weight, bias) = jax.tree.leaves(select_parameters(model, ("layer1",)))
    assert weight is graph.functions["layer2"].weight
    assert bias is graph.functions["layer2"].bias


def without_biases(graph):
    """The same net with one array per function, so that an array is a group."""
    return eqx.tree_at(
        lambda g: [g.functions[name].bias for name in ("layer1", "layer2")], graph, [None, None], is_leaf=eqx.is_array
    )


PEERS = {
    "sgd": lambda rate, decay: optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, 0.9)),
    "nesterov": lambda rate, decay: optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, 0.9, nesterov=True)),
    "adam": lambda rate, decay: optax.chain(optax.add_decayed_weights(decay), optax.adam(rate, eps=1e-8)),
    "adamw": lambda rate, decay: optax.adamw(rate, eps=1e-8, weight_decay=decay),
    "lars": lambda rate, decay: optax.lars(rate, decay, momentum=0.9),
    "lamb": lambda rate, decay: optax.lamb(rate, eps=1e-8, weight_decay=decay),
}


def follow(optimiser, parameters, gradients):
    """The parameters after one update with each gradient."""
    state = optimiser.init(parameters)
    for gradient in gradients:
        updates, state = optimiser.update(gradient, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    return parameters


@pytest.mark.parametrize("name", PEERS)
def test_optimisers_are_optax_s(name):
    """Oracle: optax's own of the same name, where every function has one array, so that leaves are groups."""
    graph = without_biases(ex.networks.mlp([3, 4, 2], jnp.tanh, key=KEY))
    parameters, gradients = eqx.filter(graph, eqx.is_inexact_array), [like(graph, seed) for seed in range(3)]
    for decay in (0.0, 0.1):
        found = follow(make_optimiser(name, 0.05, weight_decay=decay), parameters, gradients)
        expected = follow(PEERS[name](0.05, decay), parameters, gradients)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)
        assert not np.allclose(jax.tree.leaves(found)[0], jax.tree.leaves(parameters)[0])


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_a_stack_is_trusted_position_by_position(name):
    """Oracle: the same net unrolled, in which every position is a function of its own."""
    graph = stack()
    flat = ex.unroll(graph, graph.axes("block")[0])
    parameters = eqx.filter(graph, eqx.is_inexact_array)
    gradient = like(graph, 3)
    found = follow(make_optimiser(name, 0.05), parameters, [gradient]).functions["branch"]
    leaves = [jax.tree.leaves(tree.functions["branch"]) for tree in (parameters, gradient)]
    assert len(leaves[0]) == 1
    assert len([fn for fn in flat.functions if "branch" in fn]) == 3
    for position in range(3):
        weight, slope = ({"w": one[0][position]} for one in leaves)
        expected = follow(PEERS[name](0.05, 0.0), weight, [slope])["w"]
        np.testing.assert_allclose(jax.tree.leaves(found)[0][position], expected, rtol=1e-9)


def test_a_layer_shares_one_ratio():
    """Oracle: You et al. 2017, Eq. 6, by hand, with the norm of weight and bias together."""
    graph = ex.networks.mlp([3, 2], jnp.tanh, key=KEY)
    parameters, gradient = eqx.filter(graph, eqx.is_inexact_array), like(graph, 3)
    updates, _ = make_optimiser("lars", 0.5, momentum=0.0).update(
        gradient, make_optimiser("lars", 0.5, momentum=0.0).init(parameters), parameters
    )
    sizes = [np.linalg.norm(np.concatenate([np.ravel(a) for a in jax.tree.leaves(t)])) for t in (parameters, gradient)]
    expected = -0.5 * 0.001 * sizes[0] / sizes[1] * gradient.functions["layer1"].bias
    np.testing.assert_allclose(updates.functions["layer1"].bias, expected, rtol=1e-9)


def test_clipping_is_of_the_whole_gradient_and_comes_first():
    """Oracle: the norm of all updates of plain SGD at the rate 1 is that of the clipped gradient."""
    graph = ex.networks.mlp([3, 4, 2], jnp.tanh, key=KEY)
    parameters, gradient = eqx.filter(graph, eqx.is_inexact_array), like(graph, 4)
    optimiser = make_optimiser("sgd", 1.0, momentum=0.0, clip=0.25)
    updates, _ = optimiser.update(gradient, optimiser.init(parameters), parameters)
    assert float(optax.tree.norm(updates)) == pytest.approx(0.25, rel=1e-9)


def test_every_optimiser_is_tested():
    """Oracle: optax has all but LALR, which tests/test_optimisers.py tests."""
    assert set(OPTIMISERS) == {*PEERS, "lalr"}


def test_unknown_optimisers_and_settings_are_refused():
    """Oracle: the message, which lists the known ones."""
    with pytest.raises(ex.exceptions.SettingError, match="unknown optimiser 'rprop'; known: sgd, nesterov, adam"):
        make_optimiser("rprop", 0.1)
    with pytest.raises(ex.exceptions.SettingError, match=r"momentum=0\.5: adam does not read it; it reads adam_eps"):
        make_optimiser("adam", 0.1, momentum=0.5)
