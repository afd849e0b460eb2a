"""Predictions, probabilities and traces of what was trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energax as ex
from energax.exceptions import DataError, RelaxationWarning, SettingError
from energax.solvers import Unbounded

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(53, 5))


def hopfield(max_steps=200) -> ex.Learner:
    """A symmetric net whose free phase has to be settled."""
    graph = ex.networks.mlp([5, 8, 3], ex.activations.Tanh(), key=KEY)
    solver = ex.FixedPoint(stop=ex.Stopping(1e-10, max_steps))
    rule = ex.Contrastive(ex.rules.centred(0.2))
    return ex.Learner(graph, ex.Hopfield(), solver, rule, optax.sgd(0.1))


def coding(cost) -> ex.Learner:
    graph = ex.networks.mlp([5, 8, 3], jnp.tanh, output_state=False, key=KEY)
    solver = ex.GradientFlow(0.2, stop=ex.Stopping(1e-8, 500), bound=Unbounded())
    return ex.Learner(graph, ex.PredictiveCoding(cost), solver, ex.Contrastive(ex.rules.unit_nudge()), optax.sgd(0.1))


def test_no_prediction_depends_on_its_batch():
    """Oracle: every row on its own, and `relax`; rows are filled up to one size of batch."""
    one = hopfield()
    whole = one.predict(X, batch=20)
    assert whole.shape == (53, 3)
    settled = ex.relax(one.dynamics, one.graph, one.solver, clamp={"input": jnp.asarray(X)})
    np.testing.assert_allclose(whole, settled.states["output"], rtol=0, atol=1e-9)
    order = np.random.default_rng(1).permutation(53)
    np.testing.assert_allclose(one.predict(X[order], batch=20), whole[order], rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.predict(X[7:8], batch=20), whole[7:8], rtol=0, atol=1e-12)


def test_probabilities_are_the_softmax_of_the_outputs():
    """Oracle: numpy's forward pass and softmax; a squared error makes none."""
    one = coding(ex.CrossEntropy())
    first, second = (one.graph.functions[f"layer{i}"] for i in (1, 2))
    logits = np.tanh(X @ first.weight + first.bias) @ second.weight + second.bias
    np.testing.assert_allclose(one.predict(X), logits, rtol=0, atol=1e-12)
    odds = np.exp(logits)
    np.testing.assert_allclose(one.predict_proba(X), odds / odds.sum(1, keepdims=True), rtol=0, atol=1e-12)
    with pytest.raises(SettingError, match="SquaredError knows no probabilities"):
        coding(ex.SquaredError()).predict_proba(X)


def test_predictions_that_are_of_no_equilibrium_say_so():
    """Oracle: one step, which does not settle; another solver does."""
    with pytest.warns(RelaxationWarning, match="53 of 53 rows did not settle.*with_solver a solver with more steps"):
        hopfield(max_steps=1).predict(X)
    better = hopfield(max_steps=1).with_solver(hopfield().solver)
    np.testing.assert_array_equal(better.predict(X), hopfield().predict(X))


def test_what_cannot_be_predicted_is_refused():
    """Oracle: the messages."""
    one = hopfield()
    broken = X.copy()
    broken[4, 1] = np.nan
    for given, message in ((broken, r"value nan at index \(4, 1\)"), (X[:, :3], "expected"), (X[:0], "no samples")):
        with pytest.raises(DataError, match=message):
            one.predict(given)
    with pytest.raises(SettingError, match="predict: batch=0"):
        one.predict(X, batch=0)
    with pytest.raises(SettingError, match="with_solver=3: give a solver"):
        one.with_solver(3)


def test_a_trace_watches_energy_errors_and_forces():
    """Oracle: explicit gradient descent by jax.grad of the energy written out; the first moment is the forward pass."""
    one, y = coding(ex.SquaredError()), jnp.asarray(np.random.default_rng(2).normal(size=(53, 3)))
    first, second = (one.graph.functions[f"layer{i}"] for i in (1, 2))
    mean = jnp.tanh(X @ first.weight + first.bias)

    def energy(v):
        return ((v - mean) ** 2).sum(1) / 2 + 0.5 * ((v @ second.weight + second.bias - y) ** 2).sum(1) / 2

    v, energies, errors, forces = mean, [], [], []
    for _ in range(13):
        force = -jax.grad(lambda v: energy(v).sum())(v)
        energies.append(energy(v))
        errors.append(jnp.linalg.norm(v - mean, axis=1))
        forces.append(jnp.linalg.norm(force, axis=1))
        v = v + 0.2 * force
    seen = one.trace(X, steps=12, y=y, beta=0.5)
    np.testing.assert_allclose(seen.energy, jnp.stack(energies), rtol=0, atol=1e-10)
    np.testing.assert_allclose(seen.error["hidden1"], jnp.stack(errors), rtol=0, atol=1e-10)
    np.testing.assert_allclose(seen.force["hidden1"], jnp.stack(forces), rtol=0, atol=1e-10)
    free = hopfield().trace(X, steps=5)
    assert free.energy.shape == (6, 53)
    assert bool(jnp.all(jnp.diff(free.energy, axis=0) <= 1e-12))
    with pytest.raises(SettingError, match="give y and beta together"):
        one.trace(X, beta=0.5)


def test_curves_are_drawn_of_what_was_seen():
    """Oracle: the numbers of the lines."""
    seen = coding(ex.SquaredError()).trace(X, steps=4, y=jnp.zeros((53, 3)), beta=1.0)
    energies, errors, forces = ex.plot.relaxation(seen).axes
    (line,) = errors.lines
    np.testing.assert_allclose(line.get_ydata(), np.median(seen.error["hidden1"], axis=1))
    assert forces.get_yscale() == energies.get_yscale() == "log"
    row = {
        "layer_cosine": {"a": 0.9},
        "layer_norm_ratio": {"a": 0.5},
        "reference": "backprop",
        "stalled_fraction": 0.25,
    }
    cosines, ratios, verdicts = ex.plot.regime([{"epoch": 1, **row}, {"epoch": 2, **row}]).axes
    assert list(cosines.lines[0].get_ydata()) == [0.9, 0.9]
    assert list(ratios.lines[0].get_ydata()) == [0.5, 0.5]
    assert list(verdicts.lines[0].get_ydata()) == [25, 25]
    with pytest.raises(SettingError, match="the history holds no regime"):
        ex.plot.regime([{"epoch": 1}])
    with pytest.raises(SettingError, match=r"plot\.relaxation: trace="):
        ex.plot.relaxation([1])
