"""The table of a model: every number counted by hand."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import energax as ex
from energax.exceptions import SettingError

KEY = jax.random.key(0)


def lines(text: str) -> dict[str, list[str]]:
    """First word of a line -> its columns."""
    return {row.split()[0]: re.split(r"  +", row) for row in text.splitlines() if row}


def test_numbers_of_a_perceptron():
    """Oracle: 4 x 5 + 5 and 5 x 3 + 3 parameters of 8 bytes; 4 clamped numbers, and 5 + 3 that move."""
    graph = ex.networks.mlp([4, 5, 3], jnp.tanh, key=KEY)
    text = ex.summary(ex.Predictor(graph, ex.PredictiveCoding(), ex.GradientFlow()))
    found = lines(text)
    assert found["input"] == ["input -> hidden1", "layer1"]
    assert re.search(r"^input +4 +input \(clamped\) +32$", text, re.M)
    assert re.search(r"^hidden1 +5 +activation1 +state +40$", text, re.M)
    assert re.search(r"^output +3 +output, state +24$", text, re.M)
    assert found["layer1"] == ["layer1", "Linear", "25", "200"]
    assert found["layer2"] == ["layer2", "Linear", "18", "144"]
    assert found["activation1"] == ["activation1", "tanh", "0", "0"]
    assert "dynamics: PredictiveCoding\nsolver: GradientFlow\nparameters: 43 (344 bytes)\n" in text
    assert "states: 8 numbers per sample, and 4 clamped; 96 bytes per sample in float64" in text


def test_axes_delays_direct_outputs_and_halves():
    """Oracle: T = 6 steps of every state; a direct output holds none; bfloat16 has two bytes."""
    nodes = [ex.Node("x", (2,)), ex.Node("h", (3,)), ex.Node("y", (1,), state=False)]
    layer = ex.layers.Linear
    functions = {"a": layer(2, 3, key=KEY), "b": layer(3, 3, key=KEY), "c": layer(3, 1, use_bias=False, key=KEY)}
    edges = [ex.Edge("x", "h", "a"), ex.Edge("h", "h", "b", 2), ex.Edge("h", "y", "c")]
    graph = ex.Graph(nodes, edges, functions, "x", "y", length=6)
    graph = jax.tree.map(lambda a: a.astype("bfloat16") if eqx.is_array(a) else a, graph)
    text = ex.summary(graph)
    assert re.search(r"^h +3 +time 6 +state +36$", text, re.M)
    assert re.search(r"^y +1 +time 6 +output, direct +0$", text, re.M)
    assert re.search(r"^h -> h +b +2$", text, re.M)
    assert "parameters: 24 (48 bytes)" in text
    assert "states: 18 numbers per sample, and 12 clamped; 60 bytes per sample in bfloat16" in text


def test_parameters_of_the_dynamics_are_counted():
    """Oracle: one learnt precision."""
    graph = ex.networks.mlp([4, 5, 3], jnp.tanh, key=KEY)
    dynamics = ex.PredictiveCoding(learned={"output": ex.LearnedPrecision()})
    text = ex.summary(ex.Predictor(graph, dynamics, ex.GradientFlow()))
    assert "parameters: 44 (352 bytes, 1 of them of the dynamics)" in text


def test_every_network_has_a_summary():
    """Oracle: the parameters that JAX counts."""
    graph = ex.networks.residual((4, 4, 1), [2], 3, jnp.tanh, key=KEY)
    count = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(graph, eqx.is_inexact_array)))
    assert f"parameters: {count:,} (" in ex.summary(graph)


def test_something_else_is_refused():
    """Oracle: the message names the argument and the remedy."""
    with pytest.raises(SettingError, match=r"summary: model=3: give a Predictor, a Learner or a Graph"):
        ex.summary(3)
