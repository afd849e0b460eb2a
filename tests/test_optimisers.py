"""Layer-adaptive learning rates, on synthetic gradients over twelve orders of magnitude."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energax as ex
from energax.exceptions import SettingError
from energax.graph.groups import group_norms, scale_groups
from energax.graph.networks import mlp
from energax.optimisers import lalr_factors, make_optimiser, scale_by_lalr

KEY = jax.random.key(0)


def draw(graph, seed=1):
    leaves, tree = jax.tree.flatten(eqx.filter(graph, eqx.is_inexact_array))
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def deep(dtype=jnp.float64):
    """Seven layers."""
    graph = mlp([3] * 8, jnp.tanh, key=KEY)
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, graph)


def norms_of(tree) -> dict[str, float]:
    """Numpy's norm of all numbers of a layer."""
    return {
        name: float(np.linalg.norm(np.concatenate([np.ravel(np.asarray(a, float)) for a in jax.tree.leaves(fn)])))
        for name, fn in tree.functions.items()
        if jax.tree.leaves(fn)
    }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("least", [-12, -30])
def test_every_layer_takes_a_step_of_the_harmonic_mean(least, dtype):
    """Oracle: Eq. 16 by numpy in float64, on norms over 12 and 30 orders of magnitude (squares underflow)."""
    graph = deep(dtype)
    sizes = dict(zip(graph.functions, 10.0 ** np.linspace(least, 0, 7), strict=False))
    sizes = {name: jnp.asarray(size, dtype) for name, size in sizes.items() if name.startswith("layer")}
    gradient = scale_groups(draw(graph), sizes)
    before = norms_of(gradient)
    expected = len(before) / sum(1 / size for size in before.values())
    steps, state = scale_by_lalr().update(gradient, optax.EmptyState())
    assert state == optax.EmptyState()
    for name, size in norms_of(steps).items():
        np.testing.assert_allclose(size, expected, rtol=1e-5 if dtype == jnp.float32 else 1e-12, err_msg=name)
    for name, size in group_norms(gradient).items():
        np.testing.assert_allclose(size, before[name], rtol=1e-5 if dtype == jnp.float32 else 1e-12)


@pytest.mark.parametrize("broken", [0.0, jnp.nan, jnp.inf])
def test_a_layer_without_a_direction_stands_still_alone(broken):
    """Oracle: the mean over the other layers."""
    graph = deep()
    gradient = scale_groups(draw(graph), {"layer3": jnp.asarray(broken)})
    others = {name: size for name, size in norms_of(gradient).items() if name != "layer3"}
    factors = lalr_factors(gradient)
    assert float(factors["layer3"]) == 0
    mean = len(others) / sum(1 / size for size in others.values())
    for name, size in others.items():
        np.testing.assert_allclose(factors[name] * size, mean, rtol=1e-12)


def test_nothing_moves_where_no_layer_has_a_direction():
    steps, _ = scale_by_lalr().update(jax.tree.map(jnp.zeros_like, draw(deep())), optax.EmptyState())
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(steps))


def test_a_stack_has_a_step_for_every_position():
    """Oracle: Eq. 16 by numpy over five groups, three of which are positions of one function."""
    graph = ex.networks.residual_mlp((4,), 5, 3, 2, jnp.tanh, key=KEY)
    gradient = scale_groups(draw(graph), {"branch": jnp.array([1e-6, 1.0, 1e3]), "embed": jnp.asarray(1e-2)})
    found = np.concatenate([np.ravel(size) for size in group_norms(gradient).values()])
    steps, _ = scale_by_lalr().update(gradient, optax.EmptyState())
    after = np.concatenate([np.ravel(size) for size in group_norms(steps).values()])
    np.testing.assert_allclose(after, len(found) / np.sum(1 / found), rtol=1e-12)


def test_it_scales_the_direction_of_another_optimiser():
    """Oracle: optax's Adam, and numpy's harmonic mean of the norms of its directions; two updates."""
    graph = deep()
    parameters = eqx.filter(graph, eqx.is_inexact_array)
    adam, ours = optax.scale_by_adam(eps=1e-20), make_optimiser("lalr", 0.01, adam_eps=1e-20)
    plain, state = adam.init(parameters), ours.init(parameters)
    for seed in (1, 2):
        gradient = scale_groups(draw(graph, seed), {"layer1": jnp.asarray(1e-9)})
        direction, plain = adam.update(gradient, plain, parameters)
        steps, state = ours.update(gradient, state, parameters)
        norms = norms_of(direction)
        mean = len(norms) / sum(1 / size for size in norms.values())
        expected = scale_groups(direction, {name: jnp.asarray(-0.01 * mean / size) for name, size in norms.items()})
        for a, b in zip(jax.tree.leaves(steps), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("first", [True, False])
def test_it_goes_with_momentum_on_either_side(first):
    """Oracle: numpy: of the steps' sum, or a sum of such steps; two updates."""
    graph = deep()
    parameters = eqx.filter(graph, eqx.is_inexact_array)
    momentum = optax.trace(0.9)
    ours = scale_by_lalr(momentum) if first else optax.chain(scale_by_lalr(), momentum)
    state, gradients = (
        ours.init(parameters),
        [draw(graph, 1), scale_groups(draw(graph, 2), {"layer1": jnp.asarray(50.0)})],
    )
    for gradient in gradients:
        steps, state = ours.update(gradient, state, parameters)

    def scaled(tree):
        norms = norms_of(tree)
        mean = len(norms) / sum(1 / size for size in norms.values())
        return scale_groups(tree, {name: jnp.asarray(mean / size) for name, size in norms.items()})

    def sum_up(one, other):
        return jax.tree.map(lambda a, b: 0.9 * a + b, one, other)

    expected = scaled(sum_up(*gradients)) if first else sum_up(*map(scaled, gradients))
    for a, b in zip(jax.tree.leaves(steps), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_floor_leaves_out_what_is_lost_in_rounding():
    """Oracle: eps |theta| by numpy; Adam alone would make a full step of it."""
    graph = deep()
    parameters = eqx.filter(graph, eqx.is_inexact_array)
    eps = np.finfo(float).eps
    own = norms_of(parameters)["layer2"]
    adam = scale_by_lalr(optax.scale_by_adam(eps=1e-30), floor=10.0)
    for share, moves in ((5, False), (20, True)):
        gradient = draw(graph)
        size = norms_of(gradient)["layer2"]
        gradient = scale_groups(gradient, {"layer2": jnp.asarray(share * eps * own / size)})
        steps, _ = adam.update(gradient, adam.init(parameters), parameters)
        assert (norms_of(steps)["layer2"] > 0) == moves
        assert norms_of(steps)["layer1"] > 0
    with pytest.raises(SettingError, match="a floor is relative to the parameters"):
        adam.update(gradient, adam.init(parameters))
