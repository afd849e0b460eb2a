"""Verdicts: rounding unit by unit, phases that nothing drives, and what a large unit may not hide."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import energax as ex
from energax.activations import identity
from energax.checks.means import nudged_phase_of
from energax.graph.networks import mlp
from energax.rules import Backprop, centred, nudge
from energax.solvers import ErrorCoordinates, StateCoordinates, Unbounded
from energax.solvers.engine import work_between
from energax.solvers.verdict import Verdict, ended_uphill
from oracles import batch_for, gradient, informed, relative, solve

PC = ex.PredictiveCoding(ex.CrossEntropy())
SOLVERS = {
    "errors": lambda: ex.ConjugateGradient(coordinates=ErrorCoordinates()),
    "errors_fixed": lambda: ex.ConjugateGradient(ex.Stopping(max_steps=3, check_every=0)),
    "states": lambda: ex.ConjugateGradient(coordinates=StateCoordinates()),
    "flow": ex.GradientFlow,
}


@pytest.fixture(autouse=True)
def single():
    """Rounding is what these tests are about: float32."""
    with jax.enable_x64(False):
        yield


def key(seed=0):
    return jax.random.key(seed)


class PassFirst(ex.layers.Linear):
    """The first unit as it is, the others through a linear layer."""

    def __call__(self, x):
        return jnp.concatenate([x[:1], super().__call__(x[1:])])


class SkipFirst(ex.layers.Linear):
    """A linear layer that does not read the first unit."""

    def __call__(self, x):
        return super().__call__(x[1:])


def with_one_large_unit():
    return ex.Graph(
        nodes=[ex.Node("x", (3,)), ex.Node("h", (4,)), ex.Node("y", (2,), state=False)],
        edges=[ex.Edge("x", "h", "a"), ex.Edge("h", "y", "b")],
        functions={"a": PassFirst(2, 3, key=key()), "b": SkipFirst(3, 2, key=key())},
        input="x",
        output="y",
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_large_unit_does_not_hide_the_others(solver):
    """Oracle: backprop, whose largest gradient of the first layer is .3376; one of 1e5 passes beside it in float32."""
    solver = SOLVERS[solver]()
    graph, batch = with_one_large_unit(), ex.Batch(jnp.array([[1e5, 0.5, -1.0]]), jnp.array([[1.0, 0.0]]))
    expected = gradient(Backprop(), PC, graph, batch, solver)
    assert abs(float(jnp.max(jnp.abs(expected.functions["a"].weight))) - 0.3376) < 1e-4
    found, info = informed(ex.Contrastive(nudge(1e-3)), PC, graph, batch, solver)
    assert relative(found, expected) < 2e-2
    assert int(info.phases["nudged"].result[0]) == Verdict.CONVERGED
    assert int(info.phases["nudged"].steps[0]) > 0


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4, 1e6])
def test_converged_says_that_the_gradient_is_right(scale):
    """Oracle: backprop sample by sample, on pixels that nobody normalised: beta = .001 is lost in rounding at last."""
    graph = mlp([20, 16, 16, 3], jax.nn.relu, key=key(1))
    x = scale * jax.random.uniform(key(2), (8, 20))
    y = jax.nn.one_hot(jnp.arange(8) % 3, 3)
    solver = SOLVERS["errors"]()

    @eqx.filter_jit
    def both(x, y):
        batch = ex.Batch(x, y)
        found, _, info = ex.Contrastive(nudge(1e-3))(PC, graph, batch, solver, ())
        expected, _, _ = Backprop()(PC, graph, batch, solver, ())
        return found, expected, info.phases["nudged"]

    verdicts = []
    for i in range(8):
        found, expected, phase = both(x[i : i + 1], y[i : i + 1])
        verdicts.append(int(phase.result[0]))
        if verdicts[-1] == Verdict.CONVERGED and phase.steps[0] > 0:
            assert relative(found, expected) < 5e-2
        elif verdicts[-1] == Verdict.CONVERGED:  # no step is taken where the cost pulls by exactly 0
            assert all(not np.any(leaf) for leaf in jax.tree.leaves(expected))
    assert set(verdicts) <= {Verdict.CONVERGED, Verdict.STALLED}
    assert (Verdict.STALLED in verdicts) == (scale > 1)


def test_a_nudge_of_exactly_nothing_needs_no_step():
    """Oracle: targets that the output meets exactly; the contrast is 0 and both phases have converged."""
    graph = mlp([4, 5, 3], jnp.tanh, key=key())
    dynamics = ex.PredictiveCoding(ex.SquaredError())
    x = jax.random.normal(key(), (4, 4))
    output = graph.output_value(graph.sweep(x))
    found, info = informed(ex.Contrastive(centred(0.1)), dynamics, graph, ex.Batch(x, output), ex.GradientFlow())
    for phase in info.phases.values():
        assert np.all(phase.result == Verdict.CONVERGED)
        assert np.all(phase.steps == 0)
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(found)) < 1e-12


@pytest.mark.parametrize("beta", [1e-9, 1e-12])
def test_a_nudge_below_rounding_has_stalled(beta):
    """Oracle: the definition; float32 states of size 1 cannot hold what such a nudge would add."""
    graph = mlp([4, 5, 3], jnp.tanh, key=key())
    x = jax.random.normal(key(), (4, 4))
    batch = ex.Batch(x, jax.nn.one_hot(jnp.arange(4) % 3, 3))
    for make in SOLVERS.values():
        _, info = informed(ex.Contrastive(nudge(beta)), PC, graph, batch, make())
        assert np.all(info.phases["nudged"].result == Verdict.STALLED)


class Coupling(ex.layers.Identity):
    """Two groups of units coupled by one matrix."""

    weight: jax.Array

    def __call__(self, x):
        return x @ self.weight


@pytest.mark.parametrize("solver", [ex.FixedPoint, ex.GradientFlow])
@pytest.mark.parametrize("flipped", [0, 3])
def test_a_memory_recalls_what_nothing_drives(solver, flipped):
    """Oracle: the stored pattern, recalled from a spoilt start without any clamped node; and from the pattern."""
    solver = solver()
    patterns = jnp.sign(jax.random.normal(key(), (2, 32)))
    half = patterns[:, :16], patterns[:, 16:]
    graph = ex.Graph(
        nodes=[ex.Node("a", (16,), "squash"), ex.Node("b", (16,), "squash")],
        edges=[ex.Edge("a", "b", "w"), ex.Edge("b", "a", "back")],
        functions={
            "w": Coupling(half[0].T @ half[1] / 8),
            "back": Coupling(half[1].T @ half[0] / 8),
            "squash": ex.activations.Tanh(),
        },
        input="a",
        output="b",
    )
    spoilt = half[0].at[:, :flipped].multiply(-1)
    start = {"a": spoilt, "b": half[1]}
    found = ex.relax(ex.Hopfield(), graph, solver, clamp={}, start=start)
    assert np.all(found.result == Verdict.CONVERGED)
    for name, pattern in zip("ab", half, strict=True):
        assert np.all(jnp.sign(found.states[name]) == pattern)
    again = ex.relax(ex.Hopfield(), graph, solver, clamp={}, start=found.states)
    settled = ex.relax(ex.Hopfield(), graph, ex.FixedPoint(stop=ex.Stopping(1e-6)), clamp={}, start=again.states)
    at_rest = ex.relax(ex.Hopfield(), graph, solver, clamp={}, start=settled.states)
    assert np.all(at_rest.result == Verdict.CONVERGED)


@pytest.mark.parametrize(("max_steps", "check_every"), [(200, 5), (200, 1), (6, 5), (6, 0)])
def test_what_ends_above_its_start_has_diverged_however_it_is_tested(max_steps, check_every):
    """Oracle: F at both ends; along the largest curvature, at least 1 here, a step of 3 overshoots twofold and more."""
    graph = mlp([6, 5, 4, 3], identity(), key=jax.random.key(0))
    batch = batch_for(graph, 8)
    stop = ex.Stopping(1e-3, max_steps, check_every)
    solver = ex.GradientFlow(3.0, bound=Unbounded(), stop=stop)
    phase = nudged_phase_of(ex.PredictiveCoding(), graph, batch)
    start = phase.start()
    end = solve(solver, phase, start)
    assert np.all(phase.energy(end.states) > phase.energy(start.states))
    np.testing.assert_array_equal(end.result, Verdict.DIVERGED)
    np.testing.assert_array_equal(end.lost, True)
    np.testing.assert_array_equal(end.residual, np.inf)


@pytest.mark.parametrize(("max_steps", "check_every"), [(40, 5), (40, 1), (6, 0)])
def test_complex_states_do_not_descend(max_steps, check_every):
    """Oracle: F by hand: with v = i beta g the real part of beta i C rises by twice what that of E falls by."""
    graph = mlp([6, 5, 4, 3], jnp.tanh, key=jax.random.key(0))
    batch = batch_for(graph, 8)
    phase = nudged_phase_of(ex.PredictiveCoding(), graph, batch).nudge_by(jnp.asarray(0.1j), batch.y)
    start = jax.tree.map(lambda v: v.astype(complex), phase.start().states)
    solver = ex.GradientFlow(0.3, stop=ex.Stopping(1e-12, max_steps, check_every))
    end = solve(solver, phase, start)
    assert np.all(jnp.real(phase.energy(end.states)) > jnp.real(phase.energy(start)) + 1e-4)
    assert not np.any(end.lost)
    assert np.all(end.result != Verdict.DIVERGED)


def test_a_root_above_the_start_is_converged():
    """Oracle: Newton's method on 1/4 (v^2 - 1)^2 from v = .4: the nearest root of the force is the hill at 0."""
    dynamics = ex.FunctionEnergy(lambda _, s: jnp.sum((s["v"] ** 2 - 1) ** 2, axis=1) / 4)
    nodes = ex.Nodes([ex.Node("v", (1,))], {}, "v", "v")
    solver = ex.Optimistix(optx.Newton(1e-6, 1e-6), tol=1e-3)
    end = ex.relax(dynamics, nodes, solver, clamp={}, start={"v": jnp.full((2, 1), 0.4)})
    np.testing.assert_allclose(end.states["v"], 0, atol=1e-3)
    np.testing.assert_array_equal(end.result, Verdict.CONVERGED)


def test_work_is_what_a_quadratic_energy_falls_by():
    """Oracle: F at both ends, of a linear net with a squared error, for steps of any size."""
    with jax.enable_x64(True):
        graph = mlp([4, 5, 3], identity(), key=jax.random.key(0))
        batch = batch_for(graph, 4, labels=False)
        phase = nudged_phase_of(ex.PredictiveCoding(), graph, batch)
        before = phase.start().states
        after = jax.tree.map(lambda v, f: v + 0.7 * f, before, phase.force(before))
        forces = [phase.force(states) for states in (before, after)]
        np.testing.assert_allclose(
            work_between(before, after, *forces), phase.energy(before) - phase.energy(after), rtol=1e-10
        )


class Scripted(ex.solvers.AbstractIteration):
    """Multiplies the states by one factor after the other, and goes back where the energy rose."""

    factors: tuple[float, ...] = eqx.field(static=True, default=())
    stop: ex.Stopping = eqx.field(default_factory=lambda: ex.Stopping(1e-3, 20, 1))
    coordinates: StateCoordinates = eqx.field(default_factory=StateCoordinates)

    def init(self, view, point):
        return jnp.zeros((), int)

    def step(self, view, point, carry):
        return jax.tree.map(lambda v: v * jnp.asarray(self.factors)[carry], point), carry + 1

    def retreat(self, carry, rose):
        return carry, rose


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((0.9, 2.0, 2.0, 0.0), Verdict.CONVERGED),
        ((2.0, 2.0, 0.9, 2.0, 2.0, 0.0), Verdict.CONVERGED),
        ((0.9, 2.0, 2.0, 2.0, 0.0), Verdict.STALLED),
    ],
)
def test_three_rises_in_a_row_are_a_stall(factors, expected):
    """Oracle: the rule as it is written, counted by hand on 1/2 v^2."""
    dynamics = ex.FunctionEnergy(lambda _, s: jnp.sum(s["v"] ** 2, axis=1) / 2)
    nodes = ex.Nodes([ex.Node("v", (2,))], {}, "v", "v")
    end = ex.relax(dynamics, nodes, Scripted(factors), clamp={}, start={"v": jnp.ones((3, 2))})
    np.testing.assert_array_equal(end.result, expected)
    np.testing.assert_array_equal(end.steps, len(factors) if expected == Verdict.CONVERGED else 4)


@pytest.mark.parametrize("beta", [1e-3, 1.0])
def test_the_rounding_of_a_cost_is_no_rise(beta):
    """Oracle: C = log(1 + tiny) comes in units of the rounding of 1, whatever beta; a rise of 1e-3 is one."""
    graph = mlp([4, 5, 3], jnp.tanh, output_state=False, key=key())
    batch = batch_for(graph, 3)
    phase = nudged_phase_of(PC, graph, batch).nudge_by(jnp.asarray(beta, jnp.float32), batch.y)
    costs = jnp.finfo(jnp.float32).eps * jnp.array([[1.0, 0.0, 1.0], [2.0, 3.0, 1e4]])
    before, after = beta * costs
    np.testing.assert_array_equal(ended_uphill(phase, before, after, phase.start().states), [False, False, True])
