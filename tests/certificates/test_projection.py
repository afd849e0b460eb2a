"""Projections: where they put the weights, that they leave the rest, and that training stays certified."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from energax import Batch, LeakyDirected, LeakyFlow, Stopping, VectorFieldRule
from energax.certificates import (
    CapFeedback,
    CapIncoming,
    CapOutflow,
    KeepPositive,
    KeepSigns,
    KeepSymmetric,
    certify,
    move_inside,
    project,
    weaker,
)
from energax.dynamics.model import Model, select_parameters, split_parameters
from energax.exceptions import SettingError
from energax.graph import Edge, EdgeList, Graph, Node
from energax.graph.networks import directed_complete, directed_mlp, from_edges
from energax.layers import Conv2d
from energax.solvers import certified_flow
from oracles import gradient, numbers

FLOW = certified_flow(Stopping(1e-4, 2000))


def layers(gain=3.0):
    """Two hidden layers with strong feedback."""
    return directed_mlp((2, 8, 6, 2), jnp.tanh, gain=gain, feedback_gain=3.0, key=jax.random.key(0))


def test_feedback_is_capped_and_nothing_else():
    """Oracle: the spectral radius of N / l from singular values in numpy; forward weights and biases stay."""
    graph, dynamics = layers(), LeakyDirected({"hidden1": 1.0, "hidden2": 0.7, "output": 1.3})
    capped = CapFeedback(0.8)(Model(graph, dynamics)).graph
    norms = {name: np.linalg.norm(fn.weight, 2) for name, fn in capped.functions.items() if name != "activation"}
    gains = np.zeros((3, 3))
    gains[1, 0], gains[2, 1] = norms["forward2"] / 0.7, norms["forward3"] / 1.3
    gains[0, 1], gains[1, 2] = norms["backward2"] / 1.0, norms["backward3"] / 0.7
    radius = np.abs(np.linalg.eigvals(gains)).max()
    assert 0.72 < radius <= 0.8
    for name in ("forward1", "forward2", "forward3"):
        assert np.all(numbers(capped.functions[name]) == numbers(graph.functions[name]))
    ratio = capped.functions["backward2"].weight / graph.functions["backward2"].weight
    np.testing.assert_allclose(ratio, float(ratio[0, 0]), rtol=1e-5)
    assert certify(dynamics, capped).certified
    weak = directed_mlp((2, 8, 6, 2), jnp.tanh, feedback_gain=0.01, key=jax.random.key(0))
    assert np.all(numbers(CapFeedback()(Model(weak, dynamics)).graph) == numbers(weak))


def test_negative_outflow_is_capped():
    """What is kept of a unit's negative weight is share * l / 2, and C1 holds with a rate of (1 - share) l."""
    graph = directed_complete(2, 4, 2, gain=2.0, key=jax.random.key(1))
    capped = CapOutflow(0.9)(Model(graph, LeakyFlow(0.5))).graph
    certificate = certify(LeakyFlow(0.5), capped)
    np.testing.assert_allclose(certificate.rates[0], 0.05, rtol=1e-3)
    for name, fn in graph.functions.items():
        positive = np.asarray(fn.weight) >= 0
        assert np.all(np.asarray(capped.functions[name].weight)[positive] == np.asarray(fn.weight)[positive])
    assert np.all(numbers(capped.functions["input_to_hidden"]) == numbers(graph.functions["input_to_hidden"]))


def convolutions():
    """A convolution between free nodes."""
    nodes = [Node(name, (6, 6, 2)) for name in ("input", "hidden", "output")]
    functions = {name: Conv2d(2, 2, 3, padding=1, key=jax.random.key(0)) for name in ("first", "second")}
    edges = [Edge("input", "hidden", "first"), Edge("hidden", "output", "second")]
    return Graph(nodes=nodes, edges=edges, functions=functions, input="input", output="output")


def incoming(graph, name):
    """Sums of the sizes of the weights that reach the units of a node, in numpy; the input's are left out."""
    total: Any = 0
    for edge in graph.edges:
        if edge.target == name and edge.source not in graph.inputs:
            total = total + np.abs(np.asarray(graph.functions[edge.function].weight)).sum(0)
    return total


def test_incoming_synapses_are_scaled_unit_by_unit():
    """Oracle: sums in numpy; every unit at its own cap, or as it was; C2 holds at the least margin of a leak."""
    graph, dynamics = layers(), LeakyDirected({"hidden1": 1.0, "hidden2": 0.7, "output": 1.3})
    small = eqx.tree_at(
        lambda g: g.functions["forward3"].weight, graph, graph.functions["forward3"].weight * jnp.asarray([0.01, 1.0])
    )
    capped = CapIncoming(0.8)(Model(small, dynamics)).graph
    for name, leak in dynamics.leak.items():
        np.testing.assert_allclose(
            incoming(capped, name), np.minimum(incoming(small, name), 0.8 * leak), rtol=1e-5, err_msg=name
        )
    assert incoming(small, "output")[0] < 0.5 < 1.04 < incoming(small, "output")[1]
    assert np.all(numbers(capped.functions["forward1"]) == numbers(small.functions["forward1"]))
    shape = capped.functions["forward2"].weight / small.functions["forward2"].weight
    np.testing.assert_allclose(shape, np.broadcast_to(shape[:1], shape.shape), rtol=1e-5)
    np.testing.assert_allclose(certify(dynamics, capped).rates[1], 0.2 * 0.7, rtol=1e-3)


def test_incoming_synapses_give_way_to_frozen_ones():
    """Oracle: what is left of a unit's cap beside frozen synapses; nothing where they exceed it alone."""
    graph, dynamics = layers(), LeakyDirected(1.0)
    frozen = jnp.asarray([0.1, 0.5, 0.89, 0.91, 2.0, 9.0])  # what reaches the units of hidden2
    weight = graph.functions["forward2"].weight
    weight = weight * frozen / jnp.sum(jnp.abs(weight), axis=0)
    graph = eqx.tree_at(lambda g: g.functions["forward2"].weight, graph, weight)
    capped = CapIncoming(0.9)(Model(graph, dynamics), frozenset({"backward2", "forward2"})).graph
    for name in ("backward2", "forward2"):
        assert np.all(numbers(capped.functions[name]) == numbers(graph.functions[name]))
    left = np.asarray([0.8, 0.4, 0.01, 0, 0, 0])
    back = np.abs(np.asarray(graph.functions["backward3"].weight)).sum(0)
    np.testing.assert_allclose(
        np.abs(np.asarray(capped.functions["backward3"].weight)).sum(0), np.minimum(back, left), rtol=1e-3, atol=1e-6
    )
    assert np.all(back > left)


def pairs():
    """Three units joined both ways, and one of them to a fourth; the last two of seven synapses have no partner."""
    sources, targets = [0, 1, 0, 2, 1, 2, 3], [1, 0, 2, 0, 2, 3, 1]
    edges = EdgeList(np.asarray(["a", "b", "c", "d"]), np.asarray(sources), np.asarray(targets))
    return from_edges(edges, (2,), 2, reading=[0, 1], shown=[2], key=jax.random.key(0))


def test_signs_are_kept():
    """Oracle: the weights of the right sign, and those that are free; 0 for the others."""
    graph, signs = pairs(), np.asarray([1, -1, 0, 1, -1, 1, -1])
    old = np.asarray(graph.functions["synapses"].weight)
    kept = KeepSigns({"synapses": signs})(Model(graph, LeakyFlow())).graph
    np.testing.assert_array_equal(kept.functions["synapses"].weight, np.where(signs * old < 0, 0, old))
    assert 0 < np.sum(signs * old < 0) < np.sum(signs != 0)


def test_gap_junctions_stay_symmetric():
    """Oracle: means of the weights of both directions; others stay; what has no partner is refused."""
    graph = pairs()
    old = np.asarray(graph.functions["synapses"].weight)
    symmetric = KeepSymmetric.of(graph, "synapses", np.arange(7) < 4)
    new = symmetric(Model(graph, LeakyFlow())).graph.functions["synapses"].weight
    expected = old.copy()
    expected[:2], expected[2:4] = old[:2].mean(), old[2:4].mean()
    np.testing.assert_allclose(new, expected, rtol=1e-6)
    with pytest.raises(SettingError, match="from unit 1 to 2 has none the other way"):
        KeepSymmetric.of(graph, "synapses")
    with pytest.raises(SettingError, match="Sparse"):
        KeepSymmetric.of(layers(), "forward1")


def test_gap_junctions_stay_symmetric_under_a_cap():
    """Oracle: numpy: after the cap, the weight nearer to 0 of both; no unit is above its cap, and C2 certifies."""
    graph, dynamics = pairs(), LeakyDirected(1.0)
    graph = eqx.tree_at(lambda g: g.functions["synapses"].weight, graph, 3 * jnp.asarray([1.0, 1, 2, 2, 1, -1, 1]))
    gaps, fixed = np.arange(7) < 4, frozenset({"entering", "leaving", "returning"})
    graph = eqx.tree_at(lambda g: g.functions["returning"].weight, graph, replace_fn=lambda weight: 0 * weight)
    capped = CapIncoming(0.9)(Model(graph, dynamics), fixed)
    once = np.asarray(capped.graph.functions["synapses"].weight)
    assert abs(once[0] - once[1]) > 0.1
    agreed = KeepSymmetric.of(graph, "synapses", gaps, agree=weaker)(capped, fixed).graph
    weights = np.asarray(agreed.functions["synapses"].weight)
    expected = np.concatenate([np.full(2, once[:2].min()), np.full(2, once[2:4].min()), once[4:]])
    np.testing.assert_array_equal(weights, expected)
    assert np.bincount([1, 0, 2, 0, 2, 3, 1], np.abs(weights)).max() <= 0.9 + 1e-6
    assert certify(dynamics, agreed).certified


@pytest.mark.parametrize(
    ("one", "other", "kept"), [(1.0, -2.0, 1.0), (-1.0, 1.0, 1.0), (-3.0, 0.5, 0.5), (2.0, 2.0, 2.0)]
)
def test_the_weaker_of_two_is_the_same_for_both(one, other, kept):
    """Whichever is one's own, the same weight is kept."""
    assert weaker(jnp.asarray(one), jnp.asarray(other)) == weaker(jnp.asarray(other), jnp.asarray(one)) == kept


def test_projections_leave_frozen_functions_alone():
    """Oracle: the frozen weights, bit for bit, and a net that is certified with them as they are."""
    graph, dynamics = layers(), LeakyDirected(1.0)
    graph = CapFeedback(0.5)(Model(graph, dynamics)).graph
    capped = eqx.tree_at(
        lambda g: g.functions["backward2"].weight, graph, 100 * graph.functions["backward2"].weight
    )  # the other must give way
    after = CapFeedback(0.99)(Model(capped, dynamics), frozenset({"backward3"})).graph
    assert np.all(numbers(after.functions["backward3"]) == numbers(capped.functions["backward3"]))
    assert certify(dynamics, after).certified
    optimiser = optax.chain(optax.sgd(1.0), project(CapFeedback(0.9), dynamics, capped))
    parameters = select_parameters(Model(capped, dynamics), ("backward3",))
    zero = jax.tree.map(jnp.zeros_like, parameters)
    moved, _ = optimiser.update(zero, optimiser.init(parameters), parameters)
    assert moved.graph.functions["backward3"].weight is None
    ended = eqx.apply_updates(Model(capped, dynamics), moved)
    assert certify(dynamics, ended.graph).certified


CASES = {
    "additive": (layers, LeakyDirected(1.0), CapFeedback()),
    "scaled": (layers, LeakyDirected(1.0), CapIncoming()),
    "positive": (lambda: directed_complete(2, 4, 2, key=jax.random.key(2)), LeakyFlow(0.2), KeepPositive()),
    "outflow": (lambda: directed_complete(2, 4, 2, key=jax.random.key(3)), LeakyFlow(0.2), CapOutflow()),
}


def test_graphs_are_moved_inside():
    """Oracle: the projections one after the other; frozen functions stay."""
    graph, dynamics = pairs(), LeakyDirected(1.0)
    signs, cap = KeepSigns({"synapses": np.asarray([1, -1, 0, 1, -1, 1, -1])}), CapIncoming(0.5)
    frozen = {"leaving", "returning"}
    expected = cap(signs(Model(graph, dynamics), frozen), frozen).graph
    np.testing.assert_array_equal(numbers(move_inside([signs, cap], dynamics, graph, frozen)), numbers(expected))
    assert np.any(numbers(move_inside(cap, dynamics, graph)) != numbers(move_inside(cap, dynamics, graph, frozen)))


@pytest.mark.parametrize("case", CASES)
def test_training_stays_certified(case):
    """Twenty steps of Adam at a rate that leaves the certified set at once without the projection."""
    make, dynamics, projection = CASES[case]
    batch = Batch(jnp.asarray([[0.0, 1.0], [1.0, 0.0]]), jnp.asarray([[1.0, 0.0], [0.0, 1.0]]))
    sizes = {}
    for chosen in ([projection], []):
        graph = projection(Model(make(), dynamics)).graph
        optimiser = optax.chain(optax.adam(0.3), project(chosen, dynamics, graph))
        state = optimiser.init(split_parameters(Model(graph, dynamics))[0])
        certified = []

        @eqx.filter_jit
        def advance(graph, state, grad, optimiser=optimiser):
            parameters, rest = split_parameters(Model(graph, dynamics))
            moves, state = optimiser.update(Model(grad, parameters.dynamics), state, parameters)
            after = eqx.combine(eqx.apply_updates(parameters, moves), rest).graph
            return after, state, certify(dynamics, after).certified

        for _ in range(20):
            graph, state, sound = advance(graph, state, gradient(VectorFieldRule(0.5), dynamics, graph, batch, FLOW))
            certified.append(bool(sound))
        sizes[len(chosen)] = certified
    assert all(sizes[1])
    assert not all(sizes[0])


def test_bad_projections_are_refused():
    """Every message names what fits."""
    graph = layers()
    with pytest.raises(SettingError, match="project: projections"):
        project([0.9], LeakyDirected(), graph)
    with pytest.raises(SettingError, match="CapFeedback: radius"):
        CapFeedback(1.0)
    with pytest.raises(SettingError, match="for LeakyDirected"):
        CapFeedback()(Model(graph, LeakyFlow()))
    with pytest.raises(SettingError, match="CapIncoming: share"):
        CapIncoming(0.0)
    with pytest.raises(SettingError, match="for LeakyDirected"):
        CapIncoming()(Model(graph, LeakyFlow()))
    with pytest.raises(SettingError, match="Linear and Sparse layers only"):
        CapIncoming()(Model(convolutions(), LeakyDirected(1.0)))
    with pytest.raises(SettingError, match="for LeakyFlow"):
        CapOutflow()(Model(graph, LeakyDirected()))
    with pytest.raises(SettingError, match=r"CapIncoming: LeakyFlow: .* give CapOutflow"):
        project(CapIncoming(), LeakyFlow(), graph)  # before anything is trained
    with pytest.raises(SettingError, match=r"project: dynamics=.*before the graph"):
        project(CapFeedback(), graph, LeakyDirected())
    with pytest.raises(SettingError, match="CapIncoming: share='a'"):
        CapIncoming("a")
    with pytest.raises(SettingError, match=r"KeepSigns: signs=.*give function -> signs"):
        KeepSigns(np.ones(5))
    with pytest.raises(SettingError, match=r"KeepSigns: 'synapse': the graph's functions are .*'forward1'"):
        project(KeepSigns({"synapse": np.ones(5)}), LeakyDirected(), graph)
    with pytest.raises(SettingError, match=r"values of shape \(5,\) for weights of shape \(2, 8\)"):
        move_inside(KeepSigns({"forward1": np.ones(5)}), LeakyDirected(), graph)
    transform = project(CapFeedback(), LeakyDirected(), graph)
    with pytest.raises(SettingError, match="third argument"):
        transform.update(None, transform.init(None))
