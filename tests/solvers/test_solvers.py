"""Solvers: verdicts, residuals, stopping, bounds, and agreement of independent methods."""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from energax import (
    CrossEntropy,
    FixedPoint,
    FunctionEnergy,
    GradientFlow,
    Hopfield,
    Node,
    Nodes,
    Optimistix,
    PredictiveCoding,
    Stopping,
    Verdict,
)
from energax.activations import Tanh, hard_sigmoid
from energax.arithmetic import norm
from energax.dynamics.phase import prepare_phase
from energax.exceptions import SettingError
from energax.graph.networks import mlp
from energax.solvers import Alternating, Held, PerSample, Synchronous, Unbounded, largest_curvature
from energax.solvers.coordinates import StateCoordinates
from energax.solvers.spectrum import fixed_vector
from oracles import batch_for, begin, central_differences, largest, skipping, solve, trace

pytestmark = pytest.mark.usefixtures("strict")


def nudged(activation=jnp.tanh, beta=1.0, gain=1.0, size=4):
    graph = mlp([4, 6, 5, 3], activation, gain=gain, key=jax.random.key(0))
    batch = batch_for(graph, size)
    dynamics = PredictiveCoding(CrossEntropy())
    return begun(dynamics, graph, batch.x, batch.y, jnp.asarray(beta))


@eqx.filter_jit
def begun(dynamics, graph, x, target=None, beta=None):
    phase = prepare_phase(dynamics, graph, graph.clamp(x), target=target, beta=beta)
    return phase, phase.start().states


def silent(dynamics, graph, size=4):
    return begun(dynamics, graph, batch_for(graph, size).x)


def by_function(function):
    """One state `u` of two units under an energy of its own; the input is the starting point's scale."""
    graph = Nodes(nodes=[Node("x", (2,)), Node("u", (2,))], functions={}, input="x", output="u")
    x = jnp.array([[1.0, 2.0], [-1.0, 0.5], [3.0, -2.0]])
    return prepare_phase(FunctionEnergy(lambda _, s: function(s["u"], s["x"])), graph, graph.clamp(x)), {"u": x}


def force_by_differences(phase, states, step=1e-5):
    """-dF/dv by central differences of the summed energy."""
    vector, unravel = jax.flatten_util.ravel_pytree(states)
    return unravel(-central_differences(lambda v: jnp.sum(phase.energy(unravel(v))), vector, step))


def test_converged_means_that_the_residual_recomputed_by_hand_is_below_the_tolerance():
    """Oracle: |force| / |what the nudge adds to the force|, force by finite differences, nudge by the softmax."""
    phase, start = nudged()
    settled = solve(GradientFlow(0.2, stop=Stopping(1e-3, 500)), phase, start)
    drive = jnp.linalg.norm(jax.nn.softmax(start["output"]) - phase.target, axis=1)
    expected = norm(force_by_differences(phase, settled.states)) / drive
    np.testing.assert_allclose(settled.residual, expected, rtol=1e-5)
    assert np.all(settled.residual <= 1e-3)
    assert np.all(settled.result == Verdict.CONVERGED)
    assert np.all(settled.steps % 5 == 0)


def test_free_residual_is_relative_to_the_force_on_silent_states():
    """Oracle: the definition, with the Hopfield force written out for a net that starts from silence."""
    graph = mlp([4, 6, 3], Tanh(), key=jax.random.key(0))
    phase, start = silent(Hopfield(), graph)
    settled = solve(FixedPoint(Synchronous(), Stopping(1e-9, 2, 1)), phase, start)
    f, x = graph.functions, phase.clamped.values["input"]

    def force(h, y):
        into = x @ f["layer1"].weight + f["layer1"].bias
        to_h = jnp.tanh(into + y @ f["layer2"].weight.T) - h
        return jnp.concatenate([to_h, h @ f["layer2"].weight + f["layer2"].bias - y], axis=1)

    at_rest = jnp.linalg.norm(force(jnp.zeros((4, 6)), jnp.zeros((4, 3))), axis=1)
    now = jnp.linalg.norm(force(settled.states["hidden1"], settled.states["output"]), axis=1)
    np.testing.assert_allclose(settled.residual, now / at_rest, rtol=1e-10)
    assert np.all(settled.result == Verdict.OUT_OF_STEPS)
    assert np.all(settled.steps == 2)


def test_out_of_steps_counts_exactly():
    phase, start = nudged()
    for check_every, steps in ((5, 7), (0, 7), (3, 3)):
        solver = GradientFlow(0.01, stop=Stopping(1e-9, steps, check_every))
        settled = solve(solver, phase, start)
        assert np.all(settled.steps == steps)
        assert np.all(settled.result == Verdict.OUT_OF_STEPS)
        assert float(settled.share(Verdict.OUT_OF_STEPS)) == 1.0
        expected, _ = trace(solver, phase, start, steps, lambda v: v)
        assert largest(settled.states, expected) == 0


def test_a_kink_is_a_stall():
    """Oracle: E = |u| has its minimum 0 at a kink where the force is never small; E = u^2 has none."""
    phase, start = by_function(lambda u, x: jnp.sum(jnp.abs(u), axis=1))
    settled = solve(GradientFlow(0.3, stop=Stopping(1e-3, 400, 1)), phase, start)
    assert np.all(settled.result == Verdict.STALLED)
    assert np.all(settled.residual > 0.1)
    assert np.all(settled.steps < 400)
    assert np.all(phase.energy(settled.states) < 0.7)
    phase, start = by_function(lambda u, x: jnp.sum((u - 2 * x) ** 2, axis=1))
    settled = solve(GradientFlow(0.3, stop=Stopping(1e-3, 400, 1)), phase, start)
    assert np.all(settled.result == Verdict.CONVERGED)


def test_an_unstable_step_diverges_only_without_a_bound():
    """Oracle: on F = 5 |u|^2 plain descent multiplies u by 1 - 10 h: by -9 at h = 1, stable below h = 0.2."""
    phase, _ = by_function(lambda u, x: 5 * jnp.sum((u - x) ** 2, axis=1))
    start = {"u": jnp.zeros((3, 2))}
    free = solve(GradientFlow(1.0, bound=Unbounded(), stop=Stopping(1e-6, 60, 5)), phase, start)
    assert np.all(free.result == Verdict.DIVERGED)
    assert np.all(np.isfinite(free.states["u"]))
    settled = solve(GradientFlow(1.0, stop=Stopping(1e-6, 60, 5)), phase, start)
    assert np.all(settled.result == Verdict.CONVERGED)
    np.testing.assert_allclose(settled.states["u"], phase.clamped.values["x"], rtol=1e-5)
    untested = solve(GradientFlow(1.0, bound=Unbounded(), stop=Stopping(1e-6, 400, 0)), phase, start)
    assert np.all(untested.result == Verdict.DIVERGED)
    assert np.all(np.isfinite(untested.states["u"]))


def test_finished_samples_stop_moving():
    """Oracle: the sample alone, which ends after its own number of steps; the batch goes on for the slowest."""
    phase, start = nudged(gain=2.0, size=6)
    solver = GradientFlow(0.1, stop=Stopping(1e-2, 500))
    settled = solve(solver, phase, start)
    first, last = int(jnp.min(settled.steps)), int(jnp.max(settled.steps))
    assert first < last
    quick = int(jnp.argmin(settled.steps))
    then, _ = trace(solver, phase, start, first, lambda v: ())
    later, _ = trace(solver, phase, start, last, lambda v: ())
    for name, state in settled.states.items():
        np.testing.assert_allclose(state[quick], then[name][quick], rtol=0, atol=1e-14)
    assert max(float(jnp.max(jnp.abs(settled.states[n][quick] - later[n][quick]))) for n in later) > 1e-6


@pytest.mark.parametrize("solver", [GradientFlow(0.2, stop=Stopping(1e-3, 500)), GradientFlow(0.2, momentum=0.5)])
def test_warm_start_needs_no_step(solver):
    phase, start = nudged()
    once = solve(GradientFlow(0.2, stop=Stopping(1e-8, 2000)), phase, start)
    # the scale of the residual is the nudge's force at the start handed over, which the output's state changes little
    again = solve(solver, phase, once.states)
    assert np.all(again.steps == 0)
    assert np.all(again.result == Verdict.CONVERGED)
    assert largest(again.states, once.states) == 0


@pytest.mark.parametrize("method", [optx.Newton(1e-12, 1e-12), optx.BFGS(1e-12, 1e-12)], ids=["newton", "bfgs"])
def test_optimistix_reaches_the_equilibrium_of_gradient_flow(method):
    phase, start = nudged()
    ours = solve(GradientFlow(0.5, momentum=0.5, stop=Stopping(1e-12, 3000)), phase, start)
    theirs = solve(Optimistix(method, tol=1e-6), phase, start)
    assert np.all(theirs.result == Verdict.CONVERGED)
    assert largest(theirs.states, ours.states) < 1e-7
    assert np.all(theirs.steps > 0)


def test_solvers_agree_on_a_hopfield_equilibrium():
    graph = skipping(Tanh(), True, gain=0.7)
    phase, start = silent(Hopfield(), graph)
    stop = Stopping(1e-12, 2000)
    expected = solve(FixedPoint(Alternating(), stop), phase, start).states
    for solver in (
        FixedPoint(Synchronous(), stop),
        GradientFlow(0.5, stop=stop),
        Optimistix(optx.Newton(1e-13, 1e-13), tol=1e-9),
    ):
        settled = solve(solver, phase, start)
        assert np.all(settled.result == Verdict.CONVERGED)
        assert largest(settled.states, expected) < 1e-10


@pytest.mark.parametrize("sizes", [[4, 6, 3], [4, 6, 5, 3]])
def test_alternating_does_in_one_sweep_what_synchronous_does_in_two(sizes):
    """Oracle: the synchronous iteration itself, whose even and odd times are two alternating ones side by side."""
    graph, dynamics = mlp(sizes, Tanh(), output_state=True, gain=0.7, key=jax.random.key(0)), Hopfield()
    batch = batch_for(graph, 4)
    free, silence = begun(dynamics, graph, batch.x)
    rest = solve(FixedPoint(stop=Stopping(1e-14, 500)), free, silence).states
    driven, _ = begun(dynamics, graph, batch.x, batch.y, jnp.asarray(0.5))
    for phase, start, first in ((free, silence, "hidden1"), (driven, rest, "output")):
        blocks = Alternating().blocks(phase, tuple(start))
        assert first in blocks[0]
        found = solve(FixedPoint(Alternating(), Stopping(0.0, 3, 0)), phase, start).states
        earlier, later = (
            solve(FixedPoint(Synchronous(), Stopping(0.0, count, 0)), phase, start).states for count in (5, 6)
        )
        expected = {name: (earlier if name in blocks[0] else later)[name] for name in start}
        assert largest(found, expected) < 1e-14


def test_optimistix_refuses_what_it_cannot_run():
    phase, start = nudged()
    with pytest.raises(SettingError, match="GradientFlow is neither an optimistix root finder nor a minimiser"):
        Optimistix(GradientFlow()).solve(phase, begin(start))


def test_optimistix_reports_a_lack_of_steps():
    phase, start = nudged(gain=2.0)
    settled = solve(Optimistix(optx.BFGS(1e-12, 1e-12), tol=1e-9, max_steps=2), phase, start)
    assert np.all(settled.result == Verdict.OUT_OF_STEPS)


def test_tightened_solvers_take_the_tolerance_as_it_is_given():
    for solver in (GradientFlow(), FixedPoint(), Optimistix(optx.BFGS(1e-3, 1e-3))):
        tight = solver.tighten(1e-5, 3)
        tol = tight.tol if isinstance(tight, Optimistix) else tight.stop.tol
        steps = (tight if isinstance(tight, Optimistix) else tight.stop).max_steps
        before = (solver if isinstance(solver, Optimistix) else solver.stop).max_steps
        assert float(tol) == 1e-5
        assert steps == 3 * before


def test_curvature_estimate_approaches_the_largest_eigenvalue_from_below():
    """Oracle: dense Hessian and its eigenvalues, per sample; power iteration from the same vector is further off."""
    phase, start = nudged()
    dense, powers = [], []
    vector = jax.flatten_util.ravel_pytree({n: fixed_vector(v)[0] for n, v in start.items()})[0]
    for sample in range(4):
        one = prepare_phase(
            phase.dynamics,
            phase.graph,
            {"input": phase.clamped.values["input"][sample : sample + 1]},
            target=phase.target[sample : sample + 1],
            beta=phase.beta,
        )
        at, unravel = jax.flatten_util.ravel_pytree({n: v[sample : sample + 1] for n, v in start.items()})
        hessian = jax.jit(jax.hessian(lambda v, one=one, unravel=unravel: one.energy(unravel(v))[0]))(at)
        dense.append(np.max(np.abs(np.linalg.eigvalsh(hessian))))
        five, six = (np.linalg.matrix_power(hessian, count) @ vector for count in (5, 6))
        powers.append(np.linalg.norm(six) / np.linalg.norm(five))
    estimate = eqx.filter_jit(lambda phase, start, n: largest_curvature(*StateCoordinates().view(phase, start), n))
    few, many = (estimate(phase, begin(start), n) for n in (6, 300))
    assert np.all(few <= np.asarray(dense) * (1 + 1e-12))
    assert np.all(few >= 0.95 * np.asarray(dense))
    assert np.all(few > np.asarray(powers))
    np.testing.assert_allclose(many, dense, rtol=1e-6)


def test_step_bounds():
    """Oracle: on F = c/2 |u|^2 with c = |x|^2 the curvature is c, so the limit is margin 2 / c."""
    phase, start = by_function(lambda u, x: jnp.sum(x**2, axis=1) * jnp.sum(u**2, axis=1) / 2)
    curvature = np.sum(np.asarray(start["u"]) ** 2, axis=1)
    np.testing.assert_allclose(
        PerSample(0.8).limit(*StateCoordinates().view(phase, begin(start))), 1.6 / curvature, rtol=1e-12
    )
    held = Held(margin=0.5).calibrate(*StateCoordinates().view(phase, begin(start)))
    np.testing.assert_allclose(held.curvature, curvature.max(), rtol=1e-12)
    np.testing.assert_allclose(
        held.limit(*StateCoordinates().view(phase, begin(start))), 1 / curvature.max(), rtol=1e-12
    )
    assert float(Unbounded().limit(*StateCoordinates().view(phase, begin(start)))) == np.inf
    tuned = GradientFlow(bound=Held()).calibrate(phase, begin(start))
    np.testing.assert_allclose(tuned.bound.curvature, curvature.max(), rtol=1e-12)


@pytest.mark.parametrize("activation", [Tanh(), hard_sigmoid()], ids=["tanh", "hard_sigmoid"])
@pytest.mark.parametrize("beta", [None, 2.0, -0.3])
def test_alternating_sweeps_never_raise_the_energy(activation, beta):
    """Oracle: exact block minimisation descends, from any start inside the range; large weights included."""
    graph = skipping(activation, True, gain=3.0)
    batch = batch_for(graph, 4)
    target, strength = (None, None) if beta is None else (batch.y, jnp.asarray(beta))
    phase = prepare_phase(Hopfield(), graph, graph.clamp(batch.x), target=target, beta=strength)
    start = {
        n: activation(2 * jax.random.normal(jax.random.key(7), v.shape)) for n, v in graph.zeros("aby", batch.x).items()
    }
    _, energies = trace(FixedPoint(), phase, start, 25, phase.energy)
    assert energies.shape == (26, 4)
    assert float(jnp.max(jnp.diff(energies, axis=0))) < 1e-12
    assert float(jnp.max(energies[-1] - energies[0])) < -0.1


def test_traced_energy_of_a_smooth_net_falls():
    """Oracle: gradient descent below the stability limit; the first record is the start, the last the end."""
    phase, start = nudged(gain=1.5)
    end, (energies, outputs) = trace(GradientFlow(0.5), phase, start, 40, lambda v: (phase.energy(v), v["output"]))
    assert energies.shape == (41, 4)
    np.testing.assert_array_equal(outputs[0], start["output"])
    np.testing.assert_array_equal(outputs[-1], end["output"])
    np.testing.assert_allclose(energies[0], phase.energy(start), rtol=1e-14)
    assert float(jnp.max(jnp.diff(energies, axis=0))) < 1e-13


def test_momentum_needs_fewer_steps_on_an_ill_conditioned_energy():
    """Oracle: F = 1/2 (u - x)^T diag(100, 1) (u - x) has its minimum at x; the condition number is 100."""
    phase, _ = by_function(lambda u, x: (100 * (u - x)[:, 0] ** 2 + (u - x)[:, 1] ** 2) / 2)
    start = {"u": jnp.zeros((3, 2))}
    ends = [solve(GradientFlow(1.0, m, Stopping(1e-9, 5000)), phase, start) for m in (None, 0.8)]
    for end in ends:
        assert np.all(end.result == Verdict.CONVERGED)
        np.testing.assert_allclose(end.states["u"], phase.clamped.values["x"], rtol=0, atol=1e-6)
    assert np.all(2 * ends[1].steps < ends[0].steps)


def test_nesterov_step_equals_its_definition():
    """Oracle: v' = v + m u + h force(v + m u), u' = v' - v, three steps by hand on F = |u - x|^2."""
    phase, start = by_function(lambda u, x: jnp.sum((u - x) ** 2, axis=1))
    end, _ = trace(GradientFlow(0.1, 0.6, bound=Unbounded()), phase, {"u": jnp.zeros((3, 2))}, 3, lambda v: ())
    x, v, u = np.asarray(start["u"]), np.zeros((3, 2)), np.zeros((3, 2))
    for _ in range(3):
        ahead = v + 0.6 * u
        after = ahead + 0.1 * 2 * (x - ahead)
        u, v = after - v, after
    np.testing.assert_allclose(end["u"], v, rtol=1e-13)


@pytest.mark.parametrize("momentum", [0.3, 0.8])
def test_the_step_bound_with_momentum_is_where_nesterovs_scheme_turns_unstable(momentum):
    """Oracle: eigenvalues of x' = y - s c y, y = x + m (x - x_before), on an energy of known curvature c."""
    curvature = 3.0
    phase, start = nudged(size=2)
    solver = GradientFlow(1e9, momentum=momentum, bound=Held(curvature, margin=1.0))
    step = np.asarray(solver.init(*StateCoordinates().view(phase, begin(start))).step)
    shrunk = 1 - step[0] * curvature
    companion = np.array([[(1 + momentum) * shrunk, -momentum * shrunk], [1.0, 0.0]])
    assert np.abs(np.linalg.eigvals(companion)).max() == pytest.approx(1, abs=1e-9)
    np.testing.assert_array_equal(step, step[0])


def test_every_verdict_has_a_message():
    assert [v.message for v in Verdict] == [v.message for v in sorted(Verdict)]
    assert len({v.message for v in Verdict}) == len(Verdict) == 5
    assert eqx.tree_equal(Stopping().tighten(1e-3, 2).max_steps, 400)


def test_an_untested_relaxation_that_ends_uphill_has_diverged():
    """Oracle: on F = 5 |u - x|^2 a step of .25 multiplies the distance by -1.5: far from overflow, and uphill."""
    phase, start = by_function(lambda u, x: 5 * jnp.sum((u - x - 1) ** 2, axis=1))
    few = Stopping(max_steps=6, check_every=0)
    lost = solve(GradientFlow(0.25, bound=Unbounded(), stop=few), phase, start)
    assert np.all(lost.result == Verdict.DIVERGED)
    assert np.all(phase.energy(lost.states) > phase.energy(start))  # they stay where they are, and say so
    kept = solve(GradientFlow(0.15, bound=Unbounded(), stop=few), phase, start)
    assert np.all(kept.result != Verdict.DIVERGED)


def test_a_sample_without_cost_has_not_diverged():
    """Oracle: the output is right by 45 nats, of which the cost keeps nothing; so F rises by the states' errors."""
    graph = mlp([4, 5, 3], jnp.tanh, output_state=False, key=jax.random.key(0))
    biases = [jnp.zeros(5), jnp.array([45.0, 0.0, 0.0])]
    graph = eqx.tree_at(lambda g: [g.functions[name].bias for name in ("layer1", "layer2")], graph, biases)
    phase, start = begun(PredictiveCoding(CrossEntropy()), graph, jnp.zeros((1, 4)), jnp.eye(3)[:1], jnp.asarray(1.0))
    untested = GradientFlow(0.1, stop=Stopping(max_steps=5, check_every=0))
    settled = solve(untested, phase, start)
    assert phase.energy(settled.states) > phase.energy(start)
    assert settled.result[0] != Verdict.DIVERGED
    assert not settled.lost[0]
