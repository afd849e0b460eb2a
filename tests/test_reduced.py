"""Reduced precision: the rounding is the type's, the states lose nothing, and the verdict is that of the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax import ConjugateGradient, ErrorCoordinates, FixedPoint, GradientFlow, PredictiveCoding, Stopping
from energax.errors import SettingError
from energax.networks import convolutional, mlp, residual_mlp
from energax.phase import prepared
from energax.rounding import Rounded, rounded
from energax.rules import centred, clamped
from energax.solvers import Reduced, Verdict
from oracles import batch_for, informed, largest, relative, solve

EPS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
KEY = jax.random.key(0)
ERRORS = ConjugateGradient(Stopping(1e-9, 200, check_every=1), ErrorCoordinates())
FLOW = GradientFlow(0.5, stop=Stopping(1e-9, 3000))
SWEEPS = FixedPoint(stop=Stopping(1e-9, 500))
CASES = {
    "errors": (mlp([6, 12, 12, 3], jnp.tanh, output_state=False, key=KEY), PredictiveCoding(ex.CrossEntropy()), ERRORS),
    "conv": (
        convolutional((8, 8, 1), (2, 3), 3, jnp.tanh, output_state=False, key=KEY),
        PredictiveCoding(ex.CrossEntropy()),
        ERRORS,
    ),
    "stack": (residual_mlp((6,), 8, 3, 3, jnp.tanh, key=KEY), PredictiveCoding(), FLOW),
    "hopfield": (mlp([6, 12, 3], ex.activations.Tanh(), gain=0.7, key=KEY), ex.Hopfield(), SWEEPS),
}


def gradient_of(case, solver):
    graph, dynamics, _ = CASES[case]
    rule = ex.Contrastive(centred(0.5) if case == "hopfield" else clamped())
    return informed(rule, dynamics, graph, batch_for(graph, 8), solver)


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_off_in_proportion_to_the_type(case):
    """Oracle: the same relaxation in full. Eight times the rounding, eight times the error, within a factor of two."""
    exact, _ = gradient_of(case, CASES[case][2])
    errors = {dtype: relative(gradient_of(case, Reduced(CASES[case][2], dtype))[0], exact) for dtype in EPS}
    assert all(0 < error < 20 * EPS[dtype] for dtype, error in errors.items())
    assert 4 < errors["bfloat16"] / errors["float16"] < 16


def test_a_rounded_map_multiplies_rounded_numbers():
    """Oracle: numpy on values that are rounded by hand; what is exact in the short type is exact in the result."""
    layer = ex.layers.Linear(3, 2, key=KEY)
    x = jnp.array([1 + 2.0**-9, -0.5, 3.0])
    weight, bias = (np.asarray(jnp.asarray(a, jnp.bfloat16), float) for a in (layer.weight, layer.bias))
    expected = np.array([1.0, -0.5, 3.0]) @ weight + bias
    np.testing.assert_allclose(Rounded(layer, "bfloat16")(x), expected, rtol=1e-6)
    assert rounded(jnp.tanh, "bfloat16") is jnp.tanh


def test_small_steps_are_not_lost_in_rounding():
    """Oracle: the same flow in full. Its steps fall far below the rounding of a state, and yet it arrives."""
    graph, dynamics, _ = CASES["errors"]
    batch = batch_for(graph, 8)
    phase = prepared(dynamics, graph, graph.clamp(batch.x), None, batch.y, jnp.asarray(1.0))
    start = dynamics.start(graph, phase.context).states
    slow = GradientFlow(1e-3, stop=Stopping(1e-9, 20_000, check_every=0))
    full, short = solve(slow, phase, start), solve(Reduced(slow), phase, start)
    assert largest(full.states, start) > 0.05
    assert largest(short.states, full.states) < 4 * EPS["bfloat16"]


def test_the_verdict_is_that_of_the_network_in_full():
    """Oracle: the force of the phase itself."""
    graph, dynamics, solver = CASES["errors"]
    batch = batch_for(graph, 8)
    phase = prepared(dynamics, graph, graph.clamp(batch.x), None, batch.y, jnp.asarray(1.0))
    start = dynamics.start(graph, phase.context).states
    end = solve(Reduced(solver), phase, start)
    force = phase.force(end.states)
    norms = jnp.sqrt(sum(jnp.sum(f**2, axis=1) for f in force.values()))
    np.testing.assert_allclose(end.residual, norms / phase.drive(start), rtol=1e-10)
    assert np.all(end.result == Verdict.STALLED)
    assert np.all((end.residual > 1e-4) & (end.residual < 0.1))
    loose = Reduced(ConjugateGradient(Stopping(0.1, 200, check_every=1), ErrorCoordinates()))
    assert np.all(solve(loose, phase, start).result == Verdict.CONVERGED)
    assert loose.tightened(1e-6, 2).stop.tol == pytest.approx(1e-6)


def test_what_reduced_precision_refuses():
    with pytest.raises(SettingError, match="dtype=float8: give bfloat16 or float16"):
        Reduced(SWEEPS, "float8")
    graph = ex.Nodes(nodes=[ex.Node("x", (2,)), ex.Node("u", (2,))], fns={}, input="x", output="u")
    phase = prepared(ex.FunctionEnergy(lambda _, s: jnp.sum(s["u"] ** 2, axis=1)), graph, graph.clamp(jnp.ones((1, 2))))
    with pytest.raises(SettingError, match="what edges multiply"):
        Reduced(FLOW).solve(phase, {"u": jnp.ones((1, 2))})
