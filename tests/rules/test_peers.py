"""energax against the released package pcx 0.6.3, by figures that `benchmarks/oracle_pcx.py` recorded."""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax.dynamics.phase import prepare_phase
from energax.rules.base import energy_gradient
from energax.solvers import Unbounded
from oracles import solve

RECORD = json.loads((Path(__file__).parents[1] / "fixtures" / "oracle_pcx.json").read_text())


def arrays(name):
    """A list of arrays of the record."""
    return [jnp.asarray(value, float) for value in RECORD[name]]


@pytest.fixture(scope="module")
def ours():
    """The same net, data and steps in energax: output clamped, feed-forward start, fixed steps without a bound."""
    sizes = [len(RECORD["x"][0]), *(len(bias) for bias in RECORD["biases"])]
    graph = ex.networks.mlp(sizes, jnp.tanh, key=jax.random.key(0))
    names = [f"layer{index}" for index in range(1, len(sizes))]
    parameters = [
        value for pair in zip(arrays("weights"), arrays("biases"), strict=True) for value in (pair[0].T, pair[1])
    ]
    graph = eqx.tree_at(
        lambda g: [v for n in names for v in (g.functions[n].weight, g.functions[n].bias)], graph, parameters
    )
    clamped = graph.clamp({"input": jnp.asarray(RECORD["x"]), "output": jnp.asarray(RECORD["y"])})
    phase = prepare_phase(ex.PredictiveCoding(), graph, clamped)
    stop = ex.Stopping(max_steps=RECORD["steps"], check_every=0)
    settled = solve(ex.GradientFlow(RECORD["step_size"], stop=stop, bound=Unbounded()), phase, phase.start())
    batch = len(RECORD["x"])
    gradient = energy_gradient(phase, settled.states, jnp.ones(batch))
    return names, phase, settled, gradient


def test_states_after_seven_steps(ours):
    """Oracle: pcx's states, recorded in float64."""
    for name, state in zip(("hidden1", "hidden2"), arrays("states"), strict=True):
        np.testing.assert_allclose(ours[2].states[name], state, rtol=0, atol=1e-13)


def test_energy_and_parameter_gradients(ours):
    """Oracle: pcx's energy and gradients, summed over the batch as pcx sums them."""
    names, phase, settled, gradient = ours
    assert float(jnp.sum(phase.energy(settled.states))) == pytest.approx(RECORD["energy"], rel=1e-13)
    for name, weight, bias in zip(names, arrays("weight_gradients"), arrays("bias_gradients"), strict=True):
        np.testing.assert_allclose(gradient.graph.functions[name].weight, weight.T, rtol=0, atol=1e-13)
        np.testing.assert_allclose(gradient.graph.functions[name].bias, bias, rtol=0, atol=1e-13)
