"""States moved by optax transformations, and the fixed steps of papers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from energax import CrossEntropy, PredictiveCoding, Stopping, Verdict
from energax.dynamics.phase import prepare_phase
from energax.exceptions import SettingError
from energax.graph.networks import mlp
from energax.rules import Contrastive, nudge
from energax.solvers import GradientFlow, OptaxFlow, fixed_steps
from oracles import batch_for, gradient, solve


@pytest.fixture(scope="module")
def phase_and_start():
    """A net of tanh units, nudged."""
    graph = mlp([4, 6, 5, 3], jnp.tanh, key=jax.random.key(0))
    batch = batch_for(graph, 4)
    dynamics = PredictiveCoding(CrossEntropy())
    phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=jnp.asarray(1.0))
    return phase, phase.start().states


def test_plain_steps_are_those_of_optax_sgd(phase_and_start):
    """Oracle: `GradientFlow`, whose plain steps are tested by hand: the same states, steps and verdicts."""
    plain, by_optax = (solve(fixed_steps(20, step), *phase_and_start) for step in (0.1, optax.sgd(0.1)))
    for name, v in plain.states.items():
        np.testing.assert_allclose(by_optax.states[name], v, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(by_optax.result, plain.result)
    np.testing.assert_array_equal(by_optax.steps, 20)
    assert np.any(plain.result == Verdict.OUT_OF_STEPS)


def test_adam_on_the_states_is_adam_by_hand(phase_and_start):
    """Oracle: Kingma & Ba 2015, Algorithm 1, in numpy, on the gradient -force.

    Begun off the sweep, where some forces are exactly 0: Adam makes steps of their rounding.
    """
    phase, start = phase_and_start
    start = {name: v + 0.1 for name, v in start.items()}
    settled = solve(fixed_steps(7, optax.adam(0.05)), phase, start)
    force = eqx.filter_jit(lambda states: phase.force(states))
    states = {name: np.asarray(v) for name, v in start.items()}
    first = {name: np.zeros_like(v) for name, v in states.items()}
    second = dict(first)
    for t in range(1, 8):
        gradient = {name: -np.asarray(f) for name, f in force(jax.tree.map(jnp.asarray, states)).items()}
        first = {name: 0.9 * m + 0.1 * gradient[name] for name, m in first.items()}
        second = {name: 0.999 * s + 0.001 * gradient[name] ** 2 for name, s in second.items()}
        states = {
            name: v - 0.05 * first[name] / (1 - 0.9**t) / (np.sqrt(second[name] / (1 - 0.999**t)) + 1e-8)
            for name, v in states.items()
        }
    for name, v in states.items():
        np.testing.assert_allclose(settled.states[name], v, rtol=1e-9, atol=1e-12)


def test_no_sample_depends_on_its_batch(phase_and_start):
    """Oracle: each sample alone. A clip by the global norm would couple them."""
    phase, start = phase_and_start
    solver = fixed_steps(5, optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(0.5, momentum=0.9)))
    together = solve(solver, phase, start)
    for row in range(2):
        rows = jnp.array([row])
        alone = solve(solver, phase.take(rows), {name: v[rows] for name, v in start.items()})
        for name, v in alone.states.items():
            np.testing.assert_allclose(together.states[name][row], v[0], rtol=1e-10, atol=1e-13)


def test_what_it_is_compared_with_comes_to_rest(phase_and_start):
    """Oracle: the force, which is below the tolerance; by steps far beyond 2 / curvature nothing comes to rest."""
    phase, start = phase_and_start
    own = OptaxFlow(optax.sgd(10.0), Stopping(1e-6, 200))
    careful = own.tighten(1e-6, 10)
    assert np.all(solve(careful, phase, start).result == Verdict.CONVERGED)
    assert not np.any(solve(own, phase, start).result == Verdict.CONVERGED)
    assert own.fixed_steps is None
    assert fixed_steps(20, 0.1).fixed_steps == fixed_steps(20, optax.adam(0.1)).fixed_steps == 20
    assert careful.fixed_steps is None


def test_a_rule_learns_from_where_the_steps_end():
    """Oracle: with many steps of sgd, the gradient at the equilibrium."""
    graph = mlp([4, 6, 3], jnp.tanh, output_state=False, key=jax.random.key(0))
    dynamics, rule, batch = PredictiveCoding(CrossEntropy()), Contrastive(nudge(1e-3)), batch_for(graph, 4)
    ended, settled = (
        gradient(rule, dynamics, graph, batch, solver)
        for solver in (fixed_steps(400, optax.sgd(0.2)), GradientFlow(0.2, stop=Stopping(1e-8, 2000)))
    )
    for a, b in zip(jax.tree.leaves(ended), jax.tree.leaves(settled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptaxFlow(0.1), r"OptaxFlow: optimiser=0.1: give one of optax, as optax.sgd\(0.1\)"),
        (lambda: fixed_steps(20, optax.adam), "fixed_steps: step=.*: give a number, or an optax transformation"),
        (lambda: fixed_steps(20, "adam"), "fixed_steps: step='adam': give a number, or an optax transformation"),
        (lambda: fixed_steps(20, -0.1), "step_size=-0.1: the states' step must be positive"),
        (lambda: fixed_steps(0, 0.1), "max_steps=0: give a whole number of at least 1"),
        (lambda: fixed_steps(2.5, optax.sgd(0.1)), "max_steps=2.5: give a whole number of at least 1"),
    ],
)
def test_what_is_no_step_is_refused(make, message):
    """Oracle: the message, which names value, place and remedy."""
    with pytest.raises(SettingError, match=message):
        make()


def test_a_transformation_that_wants_more_than_the_gradient_is_refused(phase_and_start):
    """Oracle: the message; L-BFGS with a line search wants the energy itself."""
    with pytest.raises(SettingError, match="cannot work with gradient, state and states alone"):
        solve(fixed_steps(3, optax.lbfgs()), *phase_and_start)
