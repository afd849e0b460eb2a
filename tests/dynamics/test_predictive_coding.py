"""Predictive coding against closed forms, plain numpy, and the facts the theory states."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from energax import (
    Batch,
    Contrastive,
    CrossEntropy,
    Edge,
    GradientFlow,
    Graph,
    Node,
    Optimistix,
    PredictiveCoding,
    SquaredError,
    Stopping,
    Verdict,
    relax,
)
from energax.activations import identity
from energax.checks.means import energy_of, force_of
from energax.dynamics.phase import prepare_phase
from energax.exceptions import SettingError
from energax.graph.networks import mlp
from energax.layers import Chain, Linear
from energax.rules import Backprop, nudge, unit_nudge
from energax.solvers import Unbounded
from oracles import (
    batch_for,
    energy_gradient,
    gradient,
    informed,
    largest,
    linear_pc,
    numbers,
    numpy_pc,
    parameters,
    relative,
    slope,
    solve,
)

pytestmark = pytest.mark.usefixtures("strict")

SIZES = [5, 6, 4, 3]
PRECISIONS = {"hidden1": 0.5, "hidden2": 2.0, "output": 1.5}
TIGHT = GradientFlow(1.0, momentum=0.9, stop=Stopping(1e-12, 4000))


def linear(output_state):
    graph = mlp(SIZES, identity(), output_state=output_state, gain=1.5, key=jax.random.key(0))
    return graph, batch_for(graph, 4, labels=False)


def expected(graph, batch, precisions, softness):
    weights, biases = parameters(graph, 3)
    return linear_pc(weights, biases, np.asarray(batch.x), np.asarray(batch.y), precisions, softness)


def expected_gradient(errors, states, precisions, output_signal=None):
    """dF/dW_l = -Pi_l e_l v_{l-1}^T by hand; a direct output's signal is beta (v - y)."""
    signals = [-(p or 0) * e for p, e in zip(precisions, errors, strict=True)]
    if output_signal is not None:
        signals[-1] = output_signal
    return [(states[i].T @ s / len(s), s.mean(0)) for i, s in enumerate(signals)]


def check_gradient(found, oracle):
    for i, (dw, db) in enumerate(oracle, start=1):
        np.testing.assert_allclose(found.functions[f"layer{i}"].weight, dw, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.functions[f"layer{i}"].bias, db, rtol=0, atol=1e-10)


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_nudged_free_output_of_a_deep_linear_chain_is_the_closed_form(beta):
    graph, batch = linear(True)
    dynamics = PredictiveCoding(SquaredError(), PRECISIONS)
    precisions = list(PRECISIONS.values())
    errors, states, energy = expected(graph, batch, precisions, 1 / beta)
    phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=jnp.asarray(beta))
    settled = solve(TIGHT, phase, phase.start().states)
    assert np.all(settled.result == Verdict.CONVERGED)
    for name, state in zip(("hidden1", "hidden2", "output"), states[1:], strict=True):
        np.testing.assert_allclose(settled.states[name], state, rtol=0, atol=1e-10)
    np.testing.assert_allclose(energy_of(phase, settled.states), energy, rtol=1e-10)
    found = gradient(Contrastive(nudge(beta)), dynamics, graph, batch, TIGHT)
    check_gradient(found, [(w / beta, b / beta) for w, b in expected_gradient(errors, states, precisions)])


def test_direct_output_of_a_deep_linear_chain_is_the_closed_form():
    beta = 0.5
    graph, batch = linear(False)
    dynamics = PredictiveCoding(SquaredError(), {"hidden1": 0.5, "hidden2": 2.0})
    precisions = [0.5, 2.0, None]
    errors, states, energy = expected(graph, batch, precisions, 1 / beta)
    signal = beta * (states[-1] - np.asarray(batch.y))
    found, info = informed(Contrastive(nudge(beta)), dynamics, graph, batch, TIGHT)
    np.testing.assert_allclose(info.phases["nudged"].energy_after, energy, rtol=1e-10)
    oracle = expected_gradient(errors, states, precisions, signal)
    check_gradient(found, [(w / beta, b / beta) for w, b in oracle])


@pytest.mark.parametrize("solver", [TIGHT, Optimistix(optx.Newton(1e-13, 1e-13), tol=1e-12)])
def test_clamped_output_of_a_deep_linear_chain_is_the_closed_form(solver):
    graph, batch = linear(True)
    dynamics = PredictiveCoding(SquaredError(), PRECISIONS)
    errors, states, energy = expected(graph, batch, list(PRECISIONS.values()), 0.0)
    settled = eqx.filter_jit(relax)(dynamics, graph, solver, clamp={"input": batch.x, "output": batch.y})
    assert set(settled.states) == {"hidden1", "hidden2"}
    assert np.all(settled.result == Verdict.CONVERGED)
    for name, state in zip(("hidden1", "hidden2"), states[1:3], strict=True):
        np.testing.assert_allclose(settled.states[name], state, rtol=0, atol=1e-10)
    phase = prepare_phase(dynamics, graph, graph.clamp({"input": batch.x, "output": batch.y}))
    np.testing.assert_allclose(energy_of(phase, settled.states), energy, rtol=1e-10)
    found = energy_gradient(phase, settled.states, jnp.ones(4) / 4).graph
    check_gradient(found, expected_gradient(errors, states, list(PRECISIONS.values())))


def test_fixed_steps_and_gradient_equal_plain_numpy():
    graph = mlp(SIZES, jnp.tanh, output_state=False, key=jax.random.key(2))
    batch, beta, step, steps = batch_for(graph, 5), 0.7, 0.2, 9
    weights, biases = parameters(graph, 3)
    states, dw, db = numpy_pc(weights, biases, np.asarray(batch.x), np.asarray(batch.y), step, steps, beta)
    solver = GradientFlow(step, bound=Unbounded(), stop=Stopping(max_steps=steps, check_every=0))
    dynamics = PredictiveCoding(CrossEntropy())
    phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=jnp.asarray(beta))
    settled = solve(solver, phase, phase.start().states)
    np.testing.assert_allclose(settled.states["hidden1"], states[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(settled.states["hidden2"], states[1], rtol=0, atol=1e-12)
    found = gradient(Contrastive(nudge(beta)), dynamics, graph, batch, solver)
    for i in range(3):
        np.testing.assert_allclose(found.functions[f"layer{i + 1}"].weight, dw[i], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.functions[f"layer{i + 1}"].bias, db[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("output_state", [True, False])
def test_free_phase_is_the_sweep(output_state):
    """Oracle: E >= 0, and E = 0 with zero force at the sweep; relaxing away from it comes back to it."""
    graph = mlp(SIZES, jnp.tanh, output_state=output_state, key=jax.random.key(2))
    batch = batch_for(graph, 3)
    dynamics = PredictiveCoding(CrossEntropy())
    phase = prepare_phase(dynamics, graph, graph.clamp(batch.x))
    begin = phase.start()
    swept = {name: v for name, v in graph.sweep(batch.x).items() if name != "input"}
    assert begin.settled
    assert largest(begin.states, swept) == 0
    assert float(jnp.max(energy_of(phase, swept))) < 1e-28
    assert np.max(np.abs(numbers(force_of(phase, swept)))) < 1e-14
    away = jax.tree.map(lambda v: v + 0.3, swept)
    assert largest(solve(TIGHT, phase, away).states, swept) < 1e-11


def test_labels_poisoned_with_nan_do_not_reach_the_free_phase():
    graph = mlp(SIZES, jnp.tanh, key=jax.random.key(2))
    batch = batch_for(graph, 3)
    poisoned = Batch(batch.x, jnp.full_like(batch.y, jnp.nan))
    _, info = informed(Contrastive(unit_nudge()), PredictiveCoding(), graph, poisoned, GradientFlow())
    np.testing.assert_array_equal(info.output, graph.output_value(graph.sweep(batch.x)))
    assert np.all(np.isfinite(info.phases["free"].energy_after))
    assert np.all(np.isnan(info.cost))


def test_the_printed_correction_of_contrastive_learning_removes_the_signal():
    """A negative result: Millidge et al. 2023 after Eq. 16, taken literally, leaves no hidden gradient.

    The correction subtracts H dx, with H = d2E/dtheta dx at the free phase. What remains is exactly 0 for the
    weights from the clamped input (E is quadratic in what they predict) and of second order in beta for the other
    hidden weights, where the uncorrected contrast tends to backprop.
    """
    graph = mlp(SIZES, jnp.tanh, output_state=False, key=jax.random.key(2))
    batch = batch_for(graph, 4)
    dynamics = PredictiveCoding(CrossEntropy())
    free = prepare_phase(dynamics, graph, graph.clamp(batch.x))
    at = free.start().states

    @eqx.filter_jit
    def corrected(beta):
        phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=beta)
        moved = TIGHT.solve(phase, free.start()).states
        shift = jax.tree.map(jnp.subtract, moved, at)

        def learned(states):
            found = energy_gradient(free, states, jnp.ones(4) / 4).graph
            return found.functions["layer1"].weight, found.functions["layer2"].weight

        first_order = jax.jvp(learned, (at,), (shift,))[1]
        contrast = jax.tree.map(jnp.subtract, learned(moved), learned(at))
        return jax.tree.map(lambda g, h: ((g - h) / beta, g / beta), contrast, first_order)

    true = gradient(Backprop(), dynamics, graph, batch)
    betas = np.logspace(-5, -2, 7)
    remains = []
    for beta in betas:
        (zero, plain1), (small, plain2) = corrected(jnp.asarray(beta))
        assert float(jnp.max(jnp.abs(zero))) < 1e-9 * float(jnp.max(jnp.abs(plain1)))
        remains.append(float(jnp.linalg.norm(small)))
    assert abs(slope(betas, remains) - 1) < 0.05
    assert relative((plain1, plain2), (true.functions["layer1"].weight, true.functions["layer2"].weight)) < 0.05


@pytest.mark.parametrize(
    ("shape", "fits"), [((2, 3), True), ((3,), True), ((2, 1), True), ((2,), False), ((3, 2), False)]
)
def test_a_precision_broadcasts_with_one_sample_of_its_node(shape, fits):
    """Oracle: numpy's rule, which aligns the last axes."""
    nodes = [Node("x", (4,)), Node("v", (2, 3))]
    functions = {"f": Chain((Linear(4, 6, key=jax.random.key(0)), lambda h: h.reshape(2, 3)))}
    graph = Graph(nodes=nodes, edges=[Edge("x", "v", "f")], functions=functions, input="x", output="v")
    dynamics = PredictiveCoding(precisions={"v": jnp.ones(shape)})
    if fits:
        assert prepare_phase(dynamics, graph, graph.clamp(jnp.ones((5, 4)))).start().states["v"].shape == (5, 2, 3)
    else:
        with pytest.raises(SettingError, match=f"precision of node 'v' has shape {re.escape(str(shape))}"):
            prepare_phase(dynamics, graph, graph.clamp(jnp.ones((5, 4))))
