"""What rules do beside their gradients: increments, diverged samples, reports, directed responses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import energax as ex
from energax import (
    Adjoint,
    Batch,
    ConjugateGradient,
    Contrastive,
    ContrastiveHebbian,
    CrossEntropy,
    ErrorCoordinates,
    FixedPoint,
    GradientFlow,
    Hopfield,
    Incremental,
    Optimistix,
    PredictiveCoding,
    Stopping,
    VectorFieldRule,
    Verdict,
)
from energax.activations import Tanh
from energax.dynamics.phase import prepare_phase
from energax.exceptions import SettingError
from energax.graph.networks import mlp
from energax.rules import AbstractNudgingScheme, RandomSign, centred, nudge, one_sided, unit_nudge
from energax.solvers import Unbounded
from oracles import batch_for, energy_gradient, gradient, informed, largest, relative, solve

pytestmark = pytest.mark.usefixtures("strict")

GRAPH = mlp([4, 6, 5, 3], jnp.tanh, output_state=False, key=jax.random.key(0))
PC = PredictiveCoding(CrossEntropy())


@eqx.filter_jit
def update(rule, dynamics, graph, batch, solver, carry):
    return rule(dynamics, graph, batch, solver, carry)


def test_incremental_updates_without_learning_are_relaxation_steps():
    """Oracle: T steps of the same solver, and dF/dtheta where they end."""
    batch, solver = batch_for(GRAPH, 4), GradientFlow(0.2, bound=Unbounded())
    rule = Incremental(steps=5)
    carry = rule.init(PC, GRAPH, batch)
    for _ in range(rule.updates_per_batch):
        found, carry, info = update(rule, PC, GRAPH, batch, solver, carry)
    phase = prepare_phase(PC, GRAPH, GRAPH.clamp(batch.x), target=batch.y, beta=jnp.asarray(1.0))
    exactly = GradientFlow(0.2, bound=Unbounded(), stop=Stopping(max_steps=5, check_every=0))
    settled = solve(exactly, phase, phase.start().states)
    assert largest(carry.states, settled.states) < 1e-14
    expected = energy_gradient(phase, settled.states, jnp.ones(4) / 4).graph
    assert relative(found, expected) < 1e-13
    np.testing.assert_allclose(info.output, GRAPH.output_value(GRAPH.sweep(batch.x)), rtol=1e-13)
    assert np.all(info.phases["nudged"].steps == 1)


def test_incremental_states_go_on_while_parameters_move():
    """Oracle: the same two steps by hand, the parameters changed in between."""
    batch, solver, rule = batch_for(GRAPH, 4), GradientFlow(0.2, bound=Unbounded()), Incremental()
    carry = rule.init(PC, GRAPH, batch)
    found, carry, _ = update(rule, PC, GRAPH, batch, solver, carry)
    learned = eqx.apply_updates(GRAPH, jax.tree.map(lambda g: -0.1 * g, found.graph))
    _, after, _ = update(rule, PC, learned, batch, solver, carry)
    phase = prepare_phase(PC, learned, learned.clamp(batch.x), target=batch.y, beta=jnp.asarray(1.0))
    expected = jax.tree.map(lambda v, f: v + 0.2 * f, carry.states, phase.force(carry.states))
    assert largest(after.states, expected) < 1e-14


def test_a_gradient_is_the_mean_over_its_batch():
    """Oracle: the mean of the gradients of single samples."""
    batch, solver = batch_for(GRAPH, 3), GradientFlow(0.2)
    whole = gradient(Contrastive(nudge(0.1)), PC, GRAPH, batch, solver)
    parts = [
        gradient(Contrastive(nudge(0.1)), PC, GRAPH, Batch(batch.x[i : i + 1], batch.y[i : i + 1]), solver)
        for i in range(3)
    ]
    assert relative(whole, jax.tree.map(lambda *g: sum(g) / 3, *parts)) < 1e-12


def test_incremental_divides_by_its_nudge_strength():
    """Oracle: backprop. Of the last layer one relaxation step changes nothing but what is of order beta."""
    batch, solver = batch_for(GRAPH, 4), GradientFlow(0.2, bound=Unbounded())
    rule = Incremental(beta=1e-5)
    found, _, _ = update(rule, PC, GRAPH, batch, solver, rule.init(PC, GRAPH, batch))
    expected = gradient(ex.Backprop(), PC, GRAPH, batch)
    assert relative(found.graph.functions["layer3"], expected.functions["layer3"]) < 1e-4


def test_a_sample_of_which_one_phase_diverges_leaves_every_phase():
    """Oracle: one-sided nudging of the other samples, by their share of the batch.

    Below -1 the output's curvature 1 + beta is negative, so samples that draw the minus sign have a sound free phase
    and no nudged equilibrium.
    """
    graph = mlp([4, 6, 3], Tanh(), key=jax.random.key(0))
    key = next(key for key in map(jax.random.key, range(20)) if 1 <= jnp.sum(signs(key, 4) > 0) <= 3)
    batch, solver = batch_for(graph, 4, labels=False), GradientFlow(0.2, stop=Stopping(1e-10, 2000))
    drawn = Batch(batch.x, batch.y, key)
    found, info = informed(Contrastive(RandomSign(1.5)), ex.ScellierBengio(), graph, drawn, solver)
    settled = np.flatnonzero(signs(key, 4) > 0)
    diverged = np.asarray(info.phases["nudged"].result) == Verdict.DIVERGED
    np.testing.assert_array_equal(np.flatnonzero(~diverged), settled)
    assert not np.any(np.asarray(info.phases["free"].result) == Verdict.DIVERGED)
    rest = Batch(batch.x[settled], batch.y[settled])
    expected = gradient(Contrastive(one_sided(1.5)), ex.ScellierBengio(), graph, rest, solver)
    assert relative(found, jax.tree.map(lambda g: g * len(settled) / 4, expected)) < 1e-6


def signs(key, size):
    """The signs that `RandomSign` draws."""
    return np.asarray(RandomSign(1.0).at(size, key)[0][0])


@pytest.mark.parametrize("check_every", [0, 5])
def test_diverged_samples_do_not_move_the_parameters(check_every):
    """Oracle: the other samples' gradients, summed and divided by the whole batch."""
    graph = mlp([4, 6, 3], jnp.tanh, output_state=True, key=jax.random.key(0))
    dynamics = PredictiveCoding()
    batch = batch_for(graph, 3, labels=False)
    # nudged by a huge beta, one sample's output is unstable at this step: 1 - h (1 + beta) = -9 there
    solver = GradientFlow(0.1, bound=Unbounded(), stop=Stopping(1e-3, 400, check_every))
    rule = Contrastive(PerSampleBeta(jnp.array([1.0, 99.0, 1.0])))
    found, info = informed(rule, dynamics, graph, batch, solver)
    assert list(np.asarray(info.phases["nudged"].result) == Verdict.DIVERGED) == [False, True, False]
    kept = Batch(batch.x[::2], batch.y[::2])
    expected = gradient(Contrastive(unit_nudge()), dynamics, graph, kept, solver)
    assert relative(found, jax.tree.map(lambda g: g * 2 / 3, expected)) < 1e-12


class PerSampleBeta(AbstractNudgingScheme):
    """A scheme of one point with another nudge strength for every sample."""

    betas: jax.Array
    balanced: bool = eqx.field(static=True, default=False)
    whole: bool = eqx.field(static=True, default=True)

    def at(self, batch, key):
        return self.betas[None], 1 / self.betas[None], None


def test_directed_response_equals_the_adjoint_on_an_energy():
    """Oracle: implicit differentiation; the Jacobian of an energy's flow is symmetric."""
    graph = mlp([4, 6, 5, 3], jnp.tanh, gain=0.8, key=jax.random.key(0))
    batch = batch_for(graph, 3, labels=False)
    solver = GradientFlow(0.5, momentum=0.5, stop=Stopping(1e-12, 3000))
    dynamics = PredictiveCoding()
    expected = gradient(Adjoint(), dynamics, graph, batch, solver)
    large, small = (
        relative(gradient(VectorFieldRule(b), dynamics, graph, batch, solver), expected) for b in (1e-1, 1e-2)
    )
    assert small < 1e-3
    assert 80 < large / small < 120


def test_what_a_rule_reports():
    """Oracle: energies recomputed from the states' definition; the free phase of PC takes no step."""
    batch = batch_for(GRAPH, 3)
    _, info = informed(Contrastive(nudge(0.5)), PC, GRAPH, batch, GradientFlow(0.2))
    assert set(info.phases) == {"free", "nudged"}
    np.testing.assert_array_equal(info.phases["free"].steps, 0)
    np.testing.assert_allclose(info.phases["free"].energy_after, 0, atol=1e-28)
    logits = GRAPH.output_value(GRAPH.sweep(batch.x))
    cost = -jnp.sum(batch.y * jax.nn.log_softmax(logits), axis=1)
    np.testing.assert_allclose(info.cost, cost, rtol=1e-13)
    np.testing.assert_allclose(info.phases["nudged"].energy_before, 0.5 * cost, rtol=1e-13)
    assert np.all(info.phases["nudged"].energy_after < info.phases["nudged"].energy_before)


def test_a_report_that_nobody_reads_is_not_computed():
    """Oracle: operations as the compiler counts them; the residual of the end alone is a pass back through the net."""
    graph, size = mlp([128, 128, 128, 4], jnp.tanh, output_state=False, key=jax.random.key(0)), 32
    batch = batch_for(graph, size)
    solver = ConjugateGradient(Stopping(max_steps=2, check_every=0), ErrorCoordinates())

    def operations(reported):
        def step(graph, x, y):
            found, _, info = Contrastive(unit_nudge())(PC, graph, Batch(x, y), solver, ())
            return eqx.filter((found, info if reported else None), eqx.is_array)

        return eqx.filter_jit(step).lower(graph, batch.x, batch.y).compile().compiled.cost_analysis()["flops"]

    assert operations(True) - operations(False) > 2 * size * 128 * 128


def test_points_are_settled_as_one_larger_batch():
    """Oracle: the two halves of centred nudging, each taken alone."""
    graph = mlp([4, 6, 3], Tanh(), key=jax.random.key(0))
    batch, solver = batch_for(graph, 3), FixedPoint(stop=Stopping(1e-9, 200))
    _, info = informed(Contrastive(centred(0.3)), Hopfield(), graph, batch, solver)
    free = prepare_phase(Hopfield(), graph, graph.clamp(batch.x))
    rest = solve(solver, free, free.start().states).states
    for sign, part in ((1.0, slice(0, 3)), (-1.0, slice(3, 6))):
        phase = prepare_phase(Hopfield(), graph, graph.clamp(batch.x), target=batch.y, beta=jnp.asarray(sign * 0.3))
        settled = solve(solver, phase, rest)
        np.testing.assert_array_equal(info.phases["nudged"].steps[part], settled.steps)
        np.testing.assert_allclose(info.phases["nudged"].energy_after[part], phase.energy(settled.states), rtol=1e-12)


def test_rules_refuse_what_they_cannot_use():
    batch = batch_for(GRAPH, 2)
    with pytest.raises(SettingError, match="output 'output' holds no state"):
        gradient(ContrastiveHebbian(), PC, GRAPH, batch, GradientFlow())
    with pytest.raises(SettingError, match="Incremental takes single steps, and Optimistix has none"):
        gradient(Incremental(), PC, GRAPH, batch, Optimistix(optx.Newton(1e-3, 1e-3)))


@pytest.mark.parametrize(("dynamics", "expected"), [(ex.PredictiveCoding(), [True]), (ex.Hopfield(), [False, False])])
def test_a_phase_that_begins_at_rest_is_handed_over_as_such(dynamics, expected):
    """Oracle: the dynamics' own promise; a Hopfield net has to find its free equilibrium."""
    told = []

    class Asked(ex.GradientFlow):
        def solve(self, phase, start):
            told.append(start.settled)
            return super().solve(phase, start)

    graph = ex.networks.mlp([4, 5, 3], ex.activations.Tanh(), key=jax.random.key(0))
    rule = ex.Contrastive(ex.rules.one_sided(0.5) if len(expected) > 1 else ex.rules.unit_nudge())
    eqx.filter_eval_shape(rule, dynamics, graph, batch_for(graph, 2), Asked(0.1), ())
    assert told == expected
