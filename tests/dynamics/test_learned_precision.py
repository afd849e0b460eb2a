"""Learnt precisions: the closed-form F* of a linear net, its free term, bounds, priors and what is held."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energax as ex
from energax.dynamics import FreeGradient
from energax.dynamics.phase import prepare_phase
from energax.exceptions import SettingError
from energax.graph.networks import mlp
from energax.rules import centred, nudge, one_sided, unit_nudge
from energax.solvers import ErrorCoordinates, StateCoordinates
from energax.training.learner import begin, update
from oracles import batch_for, flat, relative, solve

pytestmark = pytest.mark.usefixtures("strict")

KEY = jax.random.key(0)
GRAPH = mlp([4, 5, 3], lambda x: x, key=KEY)  # a linear net with a state output
NAMES = ("hidden1", "output")
BOUNDS = (0.05, 20.0)


def coding(hidden=1.5, output=0.7, **options):
    options = options or {"bounds": BOUNDS}
    learned = {n: ex.LearnedPrecision(v, **options) for n, v in zip(NAMES, (hidden, output), strict=True)}
    return ex.PredictiveCoding(learned=learned)


def solver(coordinates=None, tol=1e-12):
    return ex.ConjugateGradient(ex.Stopping(tol, 200), coordinates or StateCoordinates())


@eqx.filter_jit
def gradient(rule, dynamics, batch, solver):
    found, _, info = rule(dynamics, GRAPH, batch, solver, ())
    return found, info


def settled_energy(model, x, y, beta):
    """F* of the linear net, averaged: r^T S^-1 r / 2 - sum_n d_n / 2 log Pi_n, S = 1/beta + 1/Pi_y + W^T W / Pi_h."""
    one, two = (model.graph.functions[name] for name in ("layer1", "layer2"))
    hidden, output = (model.dynamics.learned[name].value for name in NAMES)
    output, hidden = (jnp.broadcast_to(value, (size,)) for value, size in ((output, 3), (hidden, 5)))
    mean = (x @ one.weight + one.bias) @ two.weight + two.bias
    spread = jnp.eye(3) / beta + jnp.diag(1 / output) + two.weight.T @ jnp.diag(1 / hidden) @ two.weight
    r = y - mean
    fit = jnp.sum(r * jnp.linalg.solve(spread, r.T).T, axis=1) / 2
    return jnp.mean(fit) - (jnp.sum(jnp.log(output)) + jnp.sum(jnp.log(hidden))) / 2


@pytest.mark.parametrize("coordinates", [StateCoordinates(), ErrorCoordinates()], ids=["states", "errors"])
@pytest.mark.parametrize("shape", ["one", "units"])
def test_the_gradient_is_that_of_the_closed_form(coordinates, shape):
    """Oracle: jax.grad of F* in all parameters, weights and log precisions alike."""
    hidden = 1.5 if shape == "one" else np.linspace(0.5, 2.0, 5)
    dynamics, batch = coding(hidden), batch_for(GRAPH, 6, labels=False)
    found, info = gradient(ex.Contrastive(unit_nudge()), dynamics, batch, solver(coordinates))
    model = ex.Model(GRAPH, dynamics)

    def expected(parameters):
        return settled_energy(eqx.combine(parameters, model), batch.x, batch.y, 1.0)

    exact = jax.jit(jax.grad(expected))(eqx.filter(model, eqx.is_inexact_array))
    assert relative(found.graph, exact.graph) < 1e-9
    assert relative(found.dynamics.learned, exact.dynamics.learned) < 1e-9
    assert float(jnp.linalg.norm(flat(found.dynamics.learned))) > 0.1
    assert np.all(info.phases["nudged"].result == 0)


def test_a_contrast_subtracts_the_free_term():
    """Oracle: the closed form at beta less that at 0; the free phase's dF/dlogPi is -d/2 of every node."""
    dynamics, batch, beta = coding(), batch_for(GRAPH, 6, labels=False), 0.2
    found, _ = gradient(ex.Contrastive(one_sided(beta)), dynamics, batch, solver())
    model = ex.Model(GRAPH, dynamics)

    def contrast(parameters):
        at = eqx.combine(parameters, model)
        free = -sum(size / 2 * at.dynamics.learned[n].log for n, size in zip(NAMES, (5, 3), strict=True))
        return (settled_energy(at, batch.x, batch.y, beta) - free) / beta

    exact = jax.jit(jax.grad(contrast))(eqx.filter(model, eqx.is_inexact_array))
    assert relative(found.dynamics.learned, exact.dynamics.learned) < 1e-7
    assert relative(found.graph, exact.graph) < 1e-7
    small, _ = gradient(ex.Contrastive(centred(1e-4)), dynamics, batch, solver())
    assert float(jnp.linalg.norm(flat(small.dynamics.learned))) < 1e-3 * float(jnp.linalg.norm(flat(small.graph)))


def test_schemes_that_leave_the_free_phase_out_are_refused():
    batch = batch_for(GRAPH, 2, labels=False)
    assert coding().free_gradient(GRAPH) is FreeGradient.VARIATIONAL
    with pytest.raises(SettingError, match=r"PredictiveCoding has a gradient of its own.*centred\(beta\)"):
        ex.Contrastive(nudge(0.1))(coding(), GRAPH, batch, solver(), ())


def trained(dynamics, steps=400, rate=0.05):
    """The model after gradient steps on one batch, weights held."""
    mask = optax.masked(optax.set_to_zero(), lambda tree: ex.Model(True, False))
    optimiser = optax.chain(optax.adam(rate), mask)
    learner = ex.Learner(GRAPH, dynamics, solver(tol=1e-6), ex.Contrastive(unit_nudge()), optimiser)
    progress, batch = begin(learner), batch_for(GRAPH, 40, labels=False)
    step = eqx.filter_jit(update)
    with jax.numpy_dtype_promotion("standard"):  # optax counts in int32
        for _ in range(steps):
            progress, _ = step(learner, progress, batch)
    return progress.model, batch


def test_precisions_stay_positive_and_within_their_bounds():
    """Oracle: the bounds, which a free precision wants to leave."""
    model, _ = trained(coding(bounds=(0.5, 2.0)), steps=200, rate=0.5)
    values = np.array([float(model.dynamics.learned[n].value) for n in NAMES])
    assert np.all((values > 0.5) & (values <= 2.0))
    assert np.max(values) > 1.9
    assert relative(model.graph, GRAPH) == 0


def test_a_prior_holds_a_precision():
    """Oracle: the stationary point of the closed form with the Gamma prior, Pi (s / 2 + b) = d / 2 + a - 1."""
    a, b = 3.0, 2.0
    model, batch = trained(coding(gamma=(a, b)))
    phase = prepare_phase(model.dynamics, model.graph, model.graph.clamp(batch.x), target=batch.y, beta=jnp.ones(()))
    states = solve(solver(), phase, phase.start()).states
    predictions = model.graph.predict(phase.everywhere(states))
    for name, size in zip(NAMES, (5, 3), strict=True):
        squares = jnp.mean(jnp.sum((states[name] - predictions[name]) ** 2, axis=1))
        expected = (size / 2 + a - 1) / (squares / 2 + b)
        assert float(model.dynamics.learned[name].value) == pytest.approx(float(expected), rel=1e-3)


def test_what_is_not_declared_is_held():
    """Oracle: the values before; held precisions, the nudge and the feedback scale have no gradient."""
    held = ex.PredictiveCoding(precisions={"hidden1": 2.0})
    batch = batch_for(GRAPH, 4, labels=False)
    found, _ = gradient(ex.Contrastive(unit_nudge()), held, batch, solver())
    assert not jax.tree.leaves(found.dynamics)
    assert jax.tree.leaves(found.graph)
    assert not jax.tree.leaves(gradient(ex.Contrastive(unit_nudge()), coding(), batch, solver())[0].dynamics.precisions)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ex.LearnedPrecision(0.0), "initial=0.0: a precision is above 0"),
        (lambda: ex.LearnedPrecision(1.0, bounds=(2.0, 1.0)), r"bounds=\(2.0, 1.0\): give a lower and a larger"),
        (lambda: ex.LearnedPrecision(3.0, bounds=(1.0, 2.0)), r"initial=3.0 lies outside bounds=\(1.0, 2.0\)"),
        (lambda: ex.LearnedPrecision(3.0, gamma=(1.0, 0.0)), r"gamma=\(1.0, 0.0\): give a shape and a rate above 0"),
    ],
)
def test_precisions_that_are_none_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize(
    ("dynamics", "message"),
    [
        (ex.PredictiveCoding(learned={"hidden1": ex.LearnedPrecision()}), "'hidden1' rises without end"),
        (
            dataclasses.replace(coding(), precisions={"hidden1": jnp.ones(())}),
            "'hidden1' has a held precision and a learnt one",
        ),
        (ex.PredictiveCoding(learned={"hidden1": ex.LearnedPrecision(np.ones(7))}), r"shape \(7,\)"),
    ],
)
def test_what_does_not_fit_is_refused(dynamics, message):
    with pytest.raises(SettingError, match=message):
        prepare_phase(dynamics, GRAPH, GRAPH.clamp(jnp.ones((2, 4))))
