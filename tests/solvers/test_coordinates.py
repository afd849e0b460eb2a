"""Coordinates: the same equilibria and gradients as in the states, and what they refuse."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import energax as ex
from energax import (
    ConjugateGradient,
    ErrorCoordinates,
    GradientFlow,
    PredictiveCoding,
    StateCoordinates,
    Stopping,
)
from energax.activations import Tanh
from energax.arithmetic import scale
from energax.dynamics.phase import prepare_phase
from energax.exceptions import SettingError
from energax.graph.networks import mlp
from energax.solvers import Unbounded, Verdict
from energax.solvers.plane import minimise_in_plane
from oracles import (
    batch_for,
    begin,
    energy_gradient,
    imaging,
    largest,
    recurrent,
    relative,
    sharing,
    skipping,
    solve,
    trace,
)

pytestmark = pytest.mark.usefixtures("strict")

PRECISE = {"hidden1": 4.0, "hidden2": np.linspace(0.5, 2.0, 5)}
NETS = {
    "chain": (mlp([4, 6, 5, 3], jnp.tanh, output_state=False, key=jax.random.key(0)), {}),
    "chain_free_output": (mlp([4, 6, 5, 3], jnp.tanh, key=jax.random.key(0)), {"output": 0.5}),
    "precisions": (mlp([4, 6, 5, 3], jnp.tanh, output_state=False, key=jax.random.key(0)), PRECISE),
    "skips": (skipping(jnp.tanh, False), {"a": 3.0}),
    "shared": (sharing(jnp.tanh, True), {}),
    "images": (imaging(jnp.tanh, False), {}),
    "recurrent": (recurrent(jnp.tanh, True), {}),
}


@eqx.filter_jit
def begun(graph, dynamics, batch, beta=1.0):
    phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=jnp.asarray(beta))
    return phase, phase.start().states


@eqx.filter_jit
def learnt(phase, states):
    """The local weight gradient at the states."""
    rows = len(phase.target)
    return energy_gradient(phase, states, jnp.ones(rows) / rows).graph


@pytest.mark.parametrize("net", NETS)
def test_error_coordinates_reach_the_equilibrium_of_the_states_and_its_gradient(net):
    """Oracle: gradient descent on the states, a different method in different variables."""
    graph, precisions = NETS[net]
    dynamics, batch = PredictiveCoding(ex.CrossEntropy(), precisions), batch_for(graph, 3)
    phase, start = begun(graph, dynamics, batch)
    slow = solve(GradientFlow(1.0, momentum=0.8, stop=Stopping(1e-10, 20_000)), phase, start)
    assert np.all(slow.result == Verdict.CONVERGED)
    fast = solve(ConjugateGradient(Stopping(1e-10, 300), ErrorCoordinates()), phase, start)
    assert np.all(fast.result == Verdict.CONVERGED)
    assert int(jnp.max(fast.steps)) * 5 < int(jnp.max(slow.steps))
    assert largest(fast.states, slow.states) < 1e-8
    assert relative(learnt(phase, fast.states), learnt(phase, slow.states)) < 1e-8


def test_error_coordinates_with_a_clamped_output():
    """Oracle: gradient descent on the states, with both ends clamped, as in completion."""
    graph = mlp([4, 6, 5, 3], jnp.tanh, key=jax.random.key(0))
    batch = batch_for(graph, 3)
    phase = prepare_phase(PredictiveCoding(), graph, graph.clamp({"input": batch.x, "output": batch.y}))
    start = {name: jnp.full((3, *graph.node(name).shape), 0.3) for name in ("hidden1", "hidden2")}
    fast = solve(ConjugateGradient(Stopping(1e-10, 100), ErrorCoordinates()), phase, start)
    slow = solve(GradientFlow(1.0, momentum=0.8, stop=Stopping(1e-10, 5000)), phase, start)
    assert np.all(fast.result == Verdict.CONVERGED)
    assert largest(fast.states, slow.states) < 1e-8


@pytest.mark.parametrize("net", NETS)
def test_a_feed_forward_start_has_no_errors_and_the_first_pass_is_not_taken_twice(net):
    """Oracle: the errors computed from the states; the operations of the compiled program, counted by the compiler."""
    graph, precisions = NETS[net]
    dynamics, batch = PredictiveCoding(ex.CrossEntropy(), precisions), batch_for(graph, 3)
    phase, _ = begun(graph, dynamics, batch)

    @eqx.filter_jit
    def twice(phase):
        start = phase.start()
        assert start.settled
        view, point = ErrorCoordinates().view(phase, begin(start))
        return (phase.energy_of(start), point), (phase.energy(start.states), view.point(start.states))

    assert largest(*twice(phase)) < 1e-12
    solver = ConjugateGradient(Stopping(max_steps=1, check_every=0), ErrorCoordinates())

    def operations(known):
        def settled(x, y):
            phase = prepare_phase(dynamics, graph, graph.clamp(x), target=y, beta=jnp.asarray(1.0))
            start = phase.start()
            return solver.solve(phase, start if known else begin(start.states)).states

        return jax.jit(settled).lower(batch.x, batch.y).compile().cost_analysis()["flops"]

    assert operations(True) < 0.95 * operations(False)


@pytest.mark.parametrize(
    ("coordinates", "momentum", "steps"),  # fewer steps than the nudge needs to come everywhere, and more
    [
        (StateCoordinates(), None, 2),
        (StateCoordinates(), 0.6, 5),
        (ErrorCoordinates(), 0.6, 5),
    ],
    ids=repr,
)
@pytest.mark.parametrize("net", NETS)
def test_from_rest_the_same_steps_are_taken_whether_that_is_known_or_not(net, coordinates, momentum, steps):
    """Oracle: the loop that computes every force, from the same states."""
    graph, precisions = NETS[net]
    dynamics, batch = PredictiveCoding(ex.CrossEntropy(), precisions), batch_for(graph, 3)
    phase, states = begun(graph, dynamics, batch)
    flow = GradientFlow(0.1, momentum, Stopping(max_steps=steps, check_every=0), Unbounded(), coordinates)
    known, bare = (solve(flow, phase, start) for start in (phase.start(), states))
    assert largest(known.states, bare.states) < 1e-12
    assert largest(bare.states, states) > 1e-3
    np.testing.assert_allclose(known.residual, bare.residual, rtol=1e-9)


@pytest.mark.parametrize("net", NETS)
def test_the_model_of_a_chart_is_the_derivative_of_the_energy(net):
    """Oracle: forward derivatives of F(states(point)); Gauss-Newton's curvature is exact where the sweep is linear."""
    graph, precisions = NETS[net]
    batch = batch_for(graph, 3)
    phase, start = begun(graph, PredictiveCoding(ex.CrossEntropy(), precisions), batch)
    point = jax.tree.map(lambda v: 0.3 * jax.random.normal(jax.random.key(1), v.shape), start)
    direction = jax.tree.map(lambda v: jax.random.normal(jax.random.key(2), v.shape), start)

    @eqx.filter_jit
    def compare(phase, start, point, direction):
        view, _ = ErrorCoordinates().view(phase, begin(start))
        model = view.model(point)
        energy, slope = jax.jvp(lambda p: phase.energy(view.states(p)), (point,), (direction,))
        there_and_back = view.point(view.states(point))
        return there_and_back, (model.energy, -view.dot(model.force, direction)), (energy, slope)

    back, (energy, descent), (value, slope) = compare(phase, start, point, direction)
    assert largest(back, point) < 1e-12
    np.testing.assert_allclose(energy, value, rtol=1e-12)
    np.testing.assert_allclose(descent, slope, rtol=1e-10)


@pytest.mark.parametrize("net", NETS)
def test_the_model_of_a_linear_net_has_its_least_point_where_the_energy_has(net):
    """Oracle: forward derivatives of F(states(point + z d)), which vanish along every direction."""
    graph, precisions = NETS[net]
    batch = batch_for(graph, 3)
    phase, start = begun(_linear(graph), PredictiveCoding(ex.SquaredError(), precisions), batch)
    point = _random_like(start, 1)
    directions = [_random_like(start, seed) for seed in (2, 3)]

    @eqx.filter_jit
    def minimise(phase, start, point, directions):
        view, _ = ErrorCoordinates().view(phase, begin(start))
        model = view.model(point)
        ahead = jax.tree.map(jnp.add, point, directions[1])
        secant = jax.tree.map(jnp.subtract, view.model(ahead).image, model.image)
        z, gain = model.least(directions, [model.push(directions[0]), secant])
        least = jax.tree.map(lambda p, *d: p + sum(scale(a, b) for a, b in zip(z, d, strict=True)), point, *directions)

        def slopes(point):
            along = [jax.jvp(lambda p: phase.energy(view.states(p)), (point,), (d,))[1] for d in directions]
            return jnp.stack(along)

        return gain, slopes(least), -jnp.sum(z * slopes(point), axis=0)

    gain, there, expected = minimise(phase, start, point, directions)
    np.testing.assert_allclose(there, 0, atol=1e-10)
    np.testing.assert_allclose(gain, expected, rtol=1e-10)
    assert np.all(gain > 0)


def _random_like(states, seed):
    keys = iter(jax.random.split(jax.random.key(seed), len(states)))
    return jax.tree.map(lambda v: 0.3 * jax.random.normal(next(keys), v.shape), states)


@pytest.mark.parametrize("scale", [1.0, 10.0, 30.0])
def test_the_least_point_of_a_saturated_cost_is_found_in_two_trials(scale):
    """Oracle: SciPy. Newton's own first step is up to 1e3 times too long here."""
    keys = jax.random.split(jax.random.key(0), 3)
    output = scale * jax.random.normal(keys[0], (20, 5))
    target = jax.nn.one_hot(jnp.argmin(output, axis=1), 5)
    pushed = jnp.stack([scale * (target - jax.nn.softmax(output)), jax.random.normal(keys[1], (20, 5))])
    slope = 0.1 * jax.random.normal(keys[2], (2, 20))
    bend = jnp.broadcast_to(jnp.array([[1.0, 0.3], [0.3, 2.0]])[..., None], (2, 2, 20))
    cost = ex.CrossEntropy()

    def model(z, row):
        there = output[row] + z @ pushed[:, row]
        return slope[:, row] @ z + z @ bend[..., row] @ z / 2 + cost(there[None], target[row][None])[0]

    value = jax.jit(jax.value_and_grad(model))
    begun_at = np.array([value(np.zeros(2), row)[0] for row in range(20)])
    exact = np.array([minimize(lambda z, row=row: value(z, row), np.zeros(2), jac=True).fun for row in range(20)])
    for trials, left in ((2, 0.02), (12, 1e-9)):
        z = minimise_in_plane(slope, bend, lambda o: cost(o, target), output, pushed, trials)
        found = np.array([model(z[:, row], row) for row in range(20)])
        assert np.all(found - exact <= left * (begun_at - exact))


def _linear(graph):
    """The same graph with identity activations."""
    plain = {name: (lambda v: v) if fn is jnp.tanh else fn for name, fn in graph.functions.items()}
    return ex.Graph(graph.nodes, graph.edges, plain, graph.input, graph.output, graph.length)


def test_line_searches_in_the_states_agree_with_gradient_descent():
    """Oracle: gradient descent; the free output's cross-entropy has a softmax curvature, tanh a negative one."""
    graph = skipping(jnp.tanh, True, gain=2.0)
    phase, start = begun(graph, PredictiveCoding(ex.CrossEntropy()), batch_for(graph, 4))
    slow = solve(GradientFlow(1.0, momentum=0.8, stop=Stopping(1e-9, 20_000)), phase, start)
    fast = solve(ConjugateGradient(Stopping(1e-9, 500)), phase, start)
    assert np.all(fast.result == Verdict.CONVERGED)
    assert largest(fast.states, slow.states) < 1e-6
    assert int(jnp.max(fast.steps)) * 2 < int(jnp.max(slow.steps))


def test_what_coordinates_and_line_searches_refuse():
    hopfield = mlp([4, 5, 3], Tanh(), key=jax.random.key(0))
    phase, start = begun(hopfield, ex.Hopfield(), batch_for(hopfield, 2))
    with pytest.raises(SettingError, match="Hopfield is none"):
        ErrorCoordinates().view(phase, begin(start))
    with pytest.raises(SettingError, match="ConjugateGradient follows the gradient of an energy"):
        ConjugateGradient().solve(phase, begin(start))
    with pytest.raises(SettingError, match="blocks of states"):
        ex.FixedPoint(coordinates=ErrorCoordinates())
    graph = mlp([4, 5, 3], jnp.tanh, key=jax.random.key(0))
    with pytest.raises(SettingError, match="nothing arrives at 'input'"):
        ex.relax(
            PredictiveCoding(),
            graph,
            ConjugateGradient(coordinates=ErrorCoordinates()),
            clamp={"output": jnp.ones((2, 3))},
        )
    loop = ex.Graph(
        graph.nodes,
        [*graph.edges, ex.Edge("output", "hidden1", "back")],
        {**graph.functions, "back": ex.layers.Linear(3, 5, key=jax.random.key(1))},
        "input",
        "output",
    )
    phase, start = begun(loop, PredictiveCoding(), batch_for(loop, 2))
    with pytest.raises(SettingError, match="feed-forward order"):
        ErrorCoordinates().view(phase, begin(start))


def test_a_rise_of_the_energy_is_taken_back():
    """Oracle: log cosh (u - 2), on which Newton's step diverges from |u - 2| > 1.09 on; the minimum is at 2."""
    graph = ex.Nodes(nodes=[ex.Node("x", (2,)), ex.Node("u", (2,))], functions={}, input="x", output="u")
    x = jnp.array([[1.5, 0.2], [-1.3, 1.5], [0.1, 0.1]])
    energy = ex.FunctionEnergy(lambda _, s: jnp.sum(jnp.log(jnp.cosh(s["u"] - 2)), axis=1))
    phase = prepare_phase(energy, graph, graph.clamp(x))
    settled = solve(ConjugateGradient(Stopping(1e-6, 400, 1)), phase, {"u": 2 + x})
    assert np.all(settled.result == Verdict.CONVERGED)
    np.testing.assert_allclose(settled.states["u"], 2, rtol=1e-5)
    before = phase.energy({"u": 2 + x})
    energies = np.asarray(trace(ConjugateGradient(), phase, {"u": 2 + x}, 15, phase.energy)[1])[1:]
    risen = energies > 1.25 * before
    assert np.any(risen[0])  # not tested on the way: the first step leads uphill
    for count in 1 + np.flatnonzero(np.any(risen, axis=1)):
        end = solve(ConjugateGradient(Stopping(0.0, int(count), 0)), phase, {"u": 2 + x})
        np.testing.assert_array_equal(end.result[risen[count - 1]], Verdict.DIVERGED)  # and says so
    assert np.all(np.minimum(energies[1:], energies[:-1]) <= before + 1e-12)  # the next step takes it back
    assert np.all(energies[-1] < 1e-6)
