"""The first step of relaxation is backprop, on every kind of acyclic graph.

Oracle: reverse-mode differentiation of the sweep (`Backprop`), itself checked against a hand-written network.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax import CrossEntropy, GradientFlow, PredictiveCoding, SquaredError
from energax.graph.networks import mlp
from energax.rules import Adjoint, Backprop, FirstStep
from oracles import (
    batch_for,
    flat,
    gradient,
    imaging,
    informed,
    recurrent,
    recurrent_by_hand,
    relative,
    sharing,
    skipping,
)

pytestmark = pytest.mark.usefixtures("strict")


def chain(activation, output_state):
    return mlp([4, 6, 5, 3], activation, output_state=output_state, key=jax.random.key(0))


@pytest.mark.parametrize("output_state", [True, False], ids=["free", "direct"])
@pytest.mark.parametrize("build", [chain, skipping, sharing, imaging, recurrent])
def test_first_step_equals_backprop(build, output_state):
    graph = build(jnp.tanh, output_state)
    batch = batch_for(graph, 3)
    dynamics = PredictiveCoding(CrossEntropy())
    found, info = informed(FirstStep(), dynamics, graph, batch)
    expected, reference = informed(Backprop(), dynamics, graph, batch)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert float(jnp.linalg.norm(flat(expected))) > 0.1
    assert relative(found, expected) < 1e-12
    np.testing.assert_allclose(info.cost, reference.cost, rtol=1e-14)


def test_first_step_does_not_depend_on_precisions():
    graph = chain(jnp.tanh, True)
    batch = batch_for(graph, 3)
    expected = gradient(Backprop(), PredictiveCoding(), graph, batch)
    dynamics = PredictiveCoding(SquaredError(), {"hidden1": 3.0, "hidden2": 0.2})
    assert relative(gradient(FirstStep(), dynamics, graph, batch), expected) < 1e-12


def test_backprop_of_a_chain_is_the_gradient_of_a_hand_written_network():
    graph = chain(jnp.tanh, False)
    batch = batch_for(graph, 3)

    def cost(functions):
        v = batch.x
        for name in ("layer1", "layer2"):
            v = jnp.tanh(v @ functions[name].weight + functions[name].bias)
        v = v @ functions["layer3"].weight + functions["layer3"].bias
        return -jnp.mean(jnp.sum(batch.y * jax.nn.log_softmax(v), axis=1))

    layers = {name: fn for name, fn in graph.functions.items() if name.startswith("layer")}
    expected = jax.grad(cost)(layers)
    found = gradient(Backprop(), PredictiveCoding(CrossEntropy()), graph, batch)
    assert relative({name: found.functions[name] for name in layers}, expected) < 1e-13


def test_unrolled_graph_equals_backprop_through_time_on_a_python_loop():
    graph = recurrent(jnp.tanh, False)
    batch = batch_for(graph, 3, labels=False)
    layers = {name: fn for name, fn in graph.functions.items() if name != "act"}

    def cost(functions):
        def one(x, y):
            last = recurrent_by_hand(functions, jnp.broadcast_to(x, (4, 3)), 4, jnp.tanh)["y"][-1]
            return jnp.sum((last - y) ** 2) / 2

        return jnp.mean(jax.vmap(one)(batch.x, batch.y))

    expected = jax.grad(cost)(layers)
    for rule in (Backprop(), FirstStep()):
        found = gradient(rule, PredictiveCoding(), graph, batch)
        assert relative({name: found.functions[name] for name in layers}, expected) < 1e-12


def test_adjoint_of_predictive_coding_is_backprop():
    """The derivative of the free equilibrium (the sweep) with respect to the parameters, through the force."""
    graph = skipping(jnp.tanh, True)
    batch = batch_for(graph, 3)
    dynamics = PredictiveCoding(CrossEntropy())
    found = gradient(Adjoint(), dynamics, graph, batch, GradientFlow())
    assert relative(found, gradient(Backprop(), dynamics, graph, batch)) < 1e-9
