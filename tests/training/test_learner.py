"""One update: against a loop written by hand, and when the solver is measured."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oracles
from energax import (
    Batch,
    ConjugateGradient,
    CrossEntropy,
    ErrorCoordinates,
    GradientFlow,
    Incremental,
    PredictiveCoding,
    Stopping,
    fit,
    load_data,
    networks,
)
from energax.dynamics.phase import prepare_phase
from energax.recipes import make_learner
from energax.rules import Contrastive
from energax.rules.nudging import nudge, unit_nudge
from energax.solvers import Held, PerSample, Unbounded, largest_curvature
from energax.solvers.coordinates import StateCoordinates
from energax.training import Learner
from energax.training.callbacks import Callback
from energax.training.learner import begin, root_key, update

RATE, MOMENTUM = 0.3, 0.9


def tanh_net(depth_sizes=(4, 6, 5, 3)):
    return networks.mlp(depth_sizes, jnp.tanh, output_state=False, gain=1.7, key=jax.random.key(1))


@eqx.filter_jit
def updated(learner, progress, batch):
    return update(learner, progress, batch)


def batches(count: int) -> list[Batch]:
    return [oracles.batch_for(tanh_net(), 6, seed=seed) for seed in range(count)]


def numpy_backprop(weights, biases, x, y):
    """Gradients of the mean cross-entropy of a tanh net with a linear output, by hand."""
    v = [x]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        v.append(np.tanh(v[-1] @ w + b))
    signal = (oracles.softmax(v[-1] @ weights[-1] + biases[-1]) - y) / len(x)
    dw, db = [], []
    for layer in reversed(range(len(weights))):
        dw.insert(0, v[layer].T @ signal)
        db.insert(0, signal.sum(0))
        signal = (signal @ weights[layer].T) * (1 - v[layer] ** 2)
    return dw, db


def test_backprop_with_momentum_equals_a_loop_in_numpy(learner):
    """Oracle: heavy-ball momentum and the chain rule written out in numpy, over five batches."""
    one = Learner(
        tanh_net(),
        PredictiveCoding(CrossEntropy()),
        GradientFlow(),
        learner("backprop").rule,
        optax.sgd(RATE, momentum=MOMENTUM),
    )
    progress = begin(one)
    weights, biases = (list(each) for each in oracles.parameters(tanh_net(), 3))
    velocity = [0 * p for p in weights + biases]
    for batch in batches(5):
        progress, info = updated(one, progress, batch)
        x, y = np.asarray(batch.x), np.asarray(batch.y)
        gradients = [g for each in numpy_backprop(weights, biases, x, y) for g in each]
        velocity = [MOMENTUM * u + g for u, g in zip(velocity, gradients, strict=True)]
        parameters = [p - RATE * u for p, u in zip(weights + biases, velocity, strict=True)]
        weights, biases = parameters[:3], parameters[3:]
        assert info.cost.shape == (6,)
    found = [p for each in oracles.parameters(progress.model.graph, 3) for p in each]
    for mine, expected in zip(found, weights + biases, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-10, atol=1e-12)
    assert int(progress.batches) == 5


def test_the_info_of_a_batch_is_from_before_its_updates():
    """Oracle: the feed-forward pass with the parameters before the batch, in numpy."""
    one = Learner(tanh_net(), PredictiveCoding(CrossEntropy()), GradientFlow(0.2), Incremental(4), optax.sgd(RATE))
    (batch,) = batches(1)
    _, info = updated(one, begin(one), batch)
    weights, biases = oracles.parameters(tanh_net(), 3)
    v, _, _ = oracles.numpy_pc(weights, biases, np.asarray(batch.x), np.asarray(batch.y), 0.0, 0, 1.0)
    output = v[-1] @ weights[-1] + biases[-1]
    np.testing.assert_allclose(info.output, output, rtol=1e-12)
    cost = -np.log((oracles.softmax(output) * np.asarray(batch.y)).sum(1))
    np.testing.assert_allclose(info.cost, cost, rtol=1e-12)


@pytest.mark.parametrize("updates", [1, 4])
def test_incremental_applies_every_one_of_its_updates(updates):
    """Oracle: explicit numpy relaxation steps, the states going on and the weights moving after every one of them.

    Guards against T gradients at the same parameters, against states that start anew, and against T - 1 updates.
    """
    step = 0.2
    solver = GradientFlow(step, stop=Stopping(1e-6, 50))
    one = Learner(tanh_net(), PredictiveCoding(CrossEntropy()), solver, Incremental(updates), optax.sgd(RATE))
    (batch,) = batches(1)
    progress, _ = updated(one, begin(one), batch)

    x, y = np.asarray(batch.x), np.asarray(batch.y)
    weights, biases = (list(each) for each in oracles.parameters(tanh_net(), 3))
    v = [x]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        v.append(np.tanh(v[-1] @ w + b))
    for _ in range(updates):
        v, signals = relaxed_once(weights, biases, v, y, step)
        for layer, signal in enumerate(signals):
            weights[layer] = weights[layer] - RATE * v[layer].T @ signal / len(x)
            biases[layer] = biases[layer] - RATE * signal.mean(0)
    found = [p for each in oracles.parameters(progress.model.graph, 3) for p in each]
    for mine, expected in zip(found, weights + biases, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-11)


def relaxed_once(weights, biases, v, y, step):
    """One step of the hidden states of a predictive-coding net, and dF/d(arriving) of every layer after it."""

    def signals_at(v):
        guesses = [np.tanh(v[i] @ weights[i] + biases[i]) for i in range(len(weights) - 1)]
        hidden = [-(v[i + 1] - g) * (1 - g**2) for i, g in enumerate(guesses)]
        output = oracles.softmax(v[-1] @ weights[-1] + biases[-1]) - y
        return [v[i + 1] - g for i, g in enumerate(guesses)], [*hidden, output]

    errors, signals = signals_at(v)
    moved = [v[0]] + [v[i + 1] - step * (e + signals[i + 1] @ weights[i + 1].T) for i, e in enumerate(errors)]
    return moved, signals_at(moved)[1]


def held(refresh: int) -> Learner:
    """A net whose solver holds the curvature; `Contrastive` at beta = 1 measures in the nudged phase."""
    solver = GradientFlow(0.5, stop=Stopping(1e-3, 40), bound=Held(1.0, iterations=20))
    rule = Contrastive(unit_nudge())
    return Learner(tanh_net(), PredictiveCoding(CrossEntropy()), solver, rule, optax.sgd(RATE), refresh)


def test_a_held_bound_is_measured_every_refresh_batches_and_not_in_between():
    """Oracle: the largest curvature of the nudged phase at the parameters of batches 0 and 3, measured directly."""
    learner = held(refresh=3)
    progress, seen, expected = begin(learner), [], []
    for index, batch in enumerate(batches(5)):
        if index % 3 == 0:
            expected.append(curvature(learner, progress.model.graph, batch))
        progress, _ = updated(learner, progress, batch)
        seen.append(float(progress.solver.bound.curvature))
    np.testing.assert_allclose(seen, [expected[0]] * 3 + [expected[1]] * 2, rtol=1e-12)
    assert expected[0] != expected[1]
    assert 1.0 not in seen


def curvature(learner, graph, batch) -> float:
    @eqx.filter_jit
    def estimate(dynamics, graph, batch):
        phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=jnp.ones(6))
        return jnp.max(largest_curvature(*StateCoordinates().view(phase, phase.start()), 20))

    return float(estimate(learner.dynamics, graph, batch))


def test_without_refresh_a_held_bound_stays_as_it_was_given():
    """Oracle: the value given, 1."""
    learner = held(refresh=0)
    progress = begin(learner)
    for batch in batches(2):
        progress, _ = updated(learner, progress, batch)
    assert float(progress.solver.bound.curvature) == 1.0


def test_seeds_out_of_range_are_refused():
    """Oracle: 32 bits. A larger seed would silently be another one."""
    assert jax.random.key_data(root_key(2**32 - 1)).tolist() == [0, 2**32 - 1]
    for seed in (-1, 2**32, 10**30):
        with pytest.raises(ValueError, match=rf"seed={seed}: give a whole number"):
            root_key(seed)


def test_a_learner_is_data():
    """Oracle: dataclasses.replace. Any field can be exchanged without rebuilding the others."""
    learner = held(refresh=3)
    other = dataclasses.replace(learner, rule=Incremental(2))
    assert other.rule.updates_per_batch == 2
    assert other.graph is learner.graph


@pytest.mark.parametrize("bound", [PerSample(), Unbounded()], ids=["bounded", "unbounded"])
@pytest.mark.parametrize(
    ("name", "step", "learnt", "lost"),
    [("digits", 0.5, 0.9, 0.5), pytest.param("mnist", 0.2, 0.95, 0.8, marks=pytest.mark.slow)],
)
def test_training_at_a_step_that_diverges_without_a_bound(name, step, learnt, lost, bound):
    """Oracle: the stability limit 2 / curvature, which training pulls below the nominal step."""
    data = load_data(name)
    learner, _ = make_learner("pc-nudge", data.image_shape, data.classes)
    solver = GradientFlow(step, bound=bound, stop=Stopping(max_steps=50, check_every=0))
    run = fit(dataclasses.replace(learner, solver=solver), data, epochs=5, display=Callback())
    bounds = [row["step_bound"] for row in run.history]
    diverged = [row["diverged_fraction"] for row in run.history]
    if isinstance(bound, PerSample):
        assert min(bounds) < step
        assert [row["step_margin"] for row in run.history] == pytest.approx([bound / step for bound in bounds])
        assert max(diverged) == 0
        assert run.history[-1]["validation_accuracy"] >= learnt
    else:
        assert max(diverged) > 0.1
        assert run.history[-1]["validation_accuracy"] < lost


def test_a_deep_residual_net_trains_near_its_equilibria():
    """Oracle: backprop's gradient, and chance, on a stack of 32 blocks of which no sample is left out of steps."""
    data = load_data("digits")
    graph = networks.residual_mlp(
        data.image_shape, 16, 32, data.classes, jnp.tanh, output_state=False, key=jax.random.key(0)
    )
    solver = ConjugateGradient(Stopping(5e-3, 100, check_every=1), ErrorCoordinates())
    learner = Learner(graph, PredictiveCoding(CrossEntropy()), solver, Contrastive(nudge(1e-4)), optax.adam(0.02))
    run = fit(learner, data, epochs=3)
    last = run.history[-1]
    assert last["validation_accuracy"] > 0.7
    assert last["gradient_cosine"] > 0.99
    assert last["converged_fraction"] + last["stalled_fraction"] == pytest.approx(1)
