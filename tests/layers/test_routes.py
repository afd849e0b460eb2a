"""Held routes: a pool passes on what was the largest in the free phase, in every phase, for every sample its own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax.checks import check_dynamics
from energax.checks.means import energy_of, start_of
from energax.dynamics.phase import prepare_phase
from energax.exceptions import GraphError
from energax.graph.parts import Axis
from energax.layers import Chain, Conv2d, Dropout, Flatten, HeldMaximum, Linear, Pool, maximum
from energax.layers.routes import route, takes_routes
from energax.rules import nudge, unit_nudge
from energax.solvers import ErrorCoordinates
from oracles import gradient, relative

pytestmark = pytest.mark.usefixtures("strict")

KEY = jax.random.key(0)
PC, SKEW = ex.PredictiveCoding(ex.CrossEntropy()), ex.SkewFeedback(0.3)


def build(reduce, *, drop=False, axes=()):
    """6 x 6 -> convolution, pool -> 3 x 3 x 4 -> 8 -> 3 classes, after a first map, so that the pool reads a state."""
    keys = jax.random.split(KEY, 4)
    middle = (Conv2d(2, 4, 3, padding=1, gain=3, key=keys[1]), Pool(2, reduce))
    return ex.Graph(
        nodes=[
            ex.Node("x", (6, 6, 1)),
            ex.Node("a", (6, 6, 2), "act", axes=axes),
            ex.Node("b", (3, 3, 4), "act", axes=axes),
            ex.Node("h", (8,), "act"),
            ex.Node("y", (3,), state=False),
        ],
        edges=[
            ex.Edge("x", "a", "one"),
            ex.Edge("a", "b", "two"),
            ex.Edge("b", "h", "three"),
            ex.Edge("h", "y", "four"),
        ],
        functions={
            "one": Conv2d(1, 2, 3, padding=1, gain=2, key=keys[0]),
            "two": Chain((Dropout(0.3), *middle) if drop else middle),
            "three": Chain((Flatten(), Linear(36, 8, gain=2, key=keys[2]))),
            "four": Linear(8, 3, gain=2, key=keys[3]),
            "act": jnp.tanh,
        },
        input="x",
        output="y",
    )


def batch_of(size=4):
    x = jax.random.normal(jax.random.key(1), (size, 6, 6, 1))
    return ex.Batch(x, jax.nn.one_hot(jnp.arange(size) % 3, 3, dtype=x.dtype))


def phase_of(graph, batch, dynamics=PC, key=None):
    held = graph.clamp(batch.x) if key is None else ex.graph.clamping.hold(graph, batch.x, key)
    return prepare_phase(dynamics, graph, held, target=batch.y, beta=jnp.asarray(1.0))


def energy_by_hand(functions, states, free, x, y):
    """E + C with the pool as the choice of an index per window, made at the free states."""

    def conv(layer, v):
        padding, names = ((1, 1), (1, 1)), ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(v, layer.weight, (1, 1), padding, dimension_numbers=names) + layer.bias

    def windows(v):
        return v.reshape(len(v), 3, 2, 3, 2, 4).transpose(0, 1, 3, 5, 2, 4).reshape(len(v), 3, 3, 4, 4)

    middle = functions["two"].layers[0]
    index = jnp.argmax(windows(conv(middle, free["a"])), axis=-1, keepdims=True)
    chosen = jnp.take_along_axis(windows(conv(middle, states["a"])), index, axis=-1)[..., 0]
    errors = [
        states["a"] - jnp.tanh(conv(functions["one"], x)),
        states["b"] - jnp.tanh(chosen),
        states["h"] - jnp.tanh(jax.vmap(functions["three"])(states["b"])),
    ]
    cost = -jnp.sum(y * jax.nn.log_softmax(jax.vmap(functions["four"])(states["h"])), axis=1)
    return sum(jnp.sum(e**2, axis=tuple(range(1, e.ndim))) / 2 for e in errors) + cost


def moved(states, size=0.5):
    """States so far off that most windows have another largest entry."""
    keys = jax.random.split(jax.random.key(2), len(states))
    return {n: v + size * jax.random.normal(k, v.shape) for k, (n, v) in zip(keys, states.items(), strict=True)}


@eqx.filter_jit
def energy_and_slope(graph, states, batch):
    """Of the states, and of the parameters, at states off the free phase."""

    def energy(graph):
        return phase_of(graph, batch).energy(states)

    return energy(graph), eqx.filter_grad(lambda graph: jnp.sum(energy(graph)))(graph).functions


def test_the_energy_and_its_parameter_gradient_follow_the_choice_of_the_free_phase():
    """Oracle: the energy in jax's own convolutions, with an index per window taken at the free states."""
    graph, batch = build(HeldMaximum()), batch_of()
    free = start_of(phase_of(graph, batch)).states
    states = moved(free)
    found, slope = energy_and_slope(graph, states, batch)
    expected = eqx.filter_jit(energy_by_hand)(graph.functions, states, free, batch.x, batch.y)
    np.testing.assert_allclose(found, expected, rtol=1e-12)

    def summed(functions):
        return jnp.sum(energy_by_hand(functions, states, free, batch.x, batch.y))

    assert relative(slope, eqx.filter_jit(eqx.filter_grad(summed))(graph.functions)) < 1e-12
    other, _ = energy_and_slope(build(maximum), states, batch)
    assert float(jnp.min(jnp.abs(found - other))) > 1e-3  # it is another energy there
    at_rest, same = (energy_and_slope(build(reduce), free, batch)[0] for reduce in (HeldMaximum(), maximum))
    np.testing.assert_allclose(at_rest, same, rtol=1e-14)


@pytest.mark.parametrize("dynamics", [PC, SKEW], ids=["pc", "skew"])
def test_every_row_keeps_its_own_routes(dynamics):
    """Oracle: the energy of the whole batch, for samples that are gathered and repeated as slow ones are."""
    graph, batch = build(HeldMaximum()), batch_of()
    phase = phase_of(graph, batch, dynamics)
    states = moved(start_of(phase).states)
    rows = jnp.array([2, 0, 2])
    some = energy_of(phase.take(rows), {name: v[rows] for name, v in states.items()})
    whole = np.asarray(energy_of(phase, states))
    np.testing.assert_allclose(some, whole[rows], rtol=1e-12)
    twice = energy_of(phase.tile(2), {name: jnp.concatenate([v, v]) for name, v in states.items()})
    np.testing.assert_allclose(twice, np.tile(whole, 2), rtol=1e-12)


def test_a_relaxation_settles_where_the_maximum_ends_on_a_kink():
    """Oracle: the smooth energy's convergence; the maximum's residual stays where entries tie (docs/decisions)."""
    batch = batch_of(32)  # so many that slow samples are gathered
    solver = ex.ConjugateGradient(ex.Stopping(1e-8, 60, 1), ErrorCoordinates())

    @eqx.filter_jit
    def settle(graph):
        phase = phase_of(graph, batch)
        return solver.solve(phase, phase.start())

    end = settle(build(HeldMaximum()))
    assert np.all(end.result == ex.Verdict.CONVERGED)
    kinked = settle(build(maximum))
    assert np.mean(kinked.result == ex.Verdict.STALLED) > 0.5
    assert np.all(kinked.residual[kinked.result == ex.Verdict.STALLED] > 1e-3)


@pytest.mark.parametrize(
    ("rule", "dynamics"),
    [(ex.Backprop(), PC), (ex.FirstStep(), PC), (ex.Contrastive(nudge(1e-6)), PC), (ex.Contrastive(nudge(1e-6)), SKEW)],
    ids=["backprop", "first step", "weak nudge", "weak nudge of skew feedback"],
)
def test_it_is_the_maximum_where_no_order_changes(rule, dynamics):
    """Oracle: the gradient of the same net with `maximum`."""
    batch, solver = batch_of(), ex.ConjugateGradient(ex.Stopping(1e-6, 100, 1))
    found, expected = (gradient(rule, dynamics, build(reduce), batch, solver) for reduce in (HeldMaximum(), maximum))
    assert relative(found, expected) < 1e-8


def test_nudged_phases_share_the_routes_of_a_free_phase_that_was_settled():
    """Oracle: routes by hand at the equilibrium that a relaxation found, on a cycle, where no sweep tells them."""
    base = build(HeldMaximum())
    functions = {**base.functions, "back": Chain((Flatten(), Linear(36, 72, gain=0.3, key=KEY), Fold()))}
    graph = ex.Graph(
        nodes=base.nodes,
        edges=[*base.edges, ex.Edge("b", "a", "back")],
        functions=functions,
        input="x",
        output="y",
    )
    free = prepare_phase(PC, graph, graph.clamp(batch_of().x))
    assert not free.sent.routes
    reference = moved(free.start().states, 1.0)
    phase = free.prepare_again(reference=reference)
    convolved = jax.vmap(graph.functions["two"].layers[0])(reference["a"])
    windows = np.asarray(convolved).reshape(4, 3, 2, 3, 2, 4)
    (routes,) = phase.sent.routes.values()
    np.testing.assert_array_equal(routes[1], windows == windows.max(axis=(2, 4), keepdims=True))


class Fold(eqx.Module):
    """A vector as the image of node a."""

    def __call__(self, x):
        return x.reshape(6, 6, 2)


def test_largest_entries_that_tie_share():
    """Oracle: shares add up to 1 and vanish off the maximum; the value is the maximum's."""
    image = jnp.array([[1.0, 3.0], [3.0, 2.0]]).reshape(1, 2, 2, 1)
    out, routes = route(Pool(2, HeldMaximum()), image, None, None)
    np.testing.assert_array_equal(routes.reshape(4), [0, 0.5, 0.5, 0])
    np.testing.assert_array_equal(out.reshape(1), [3.0])


def test_random_layers_of_the_same_chain_keep_their_mask():
    """Oracle: at the free states the energy is that of the maximum under the same key, and 0 without the cost."""
    batch = batch_of()
    energies = []
    for reduce in (HeldMaximum(), maximum):
        phase = phase_of(build(reduce, drop=True), batch, key=jax.random.key(3))
        start = phase.start().states
        energies.append(phase.energy(start))
        np.testing.assert_allclose(phase.nudge_by(None, None).energy(start), 0, atol=1e-25)
    np.testing.assert_allclose(*energies, rtol=1e-12)


def test_nodes_with_axes_are_refused_by_name():
    graph, batch = build(HeldMaximum(), axes=(Axis("time", 3),)), batch_of()
    gradient(ex.Backprop(), PC, graph, batch)
    with pytest.raises(GraphError, match=r"a -> b \(two\) holds routes, and 'a' has the axes time: pool by"):
        phase_of(graph, batch)


@pytest.mark.parametrize("dynamics", [PC, SKEW], ids=["pc", "skew"])
def test_the_conformance_suite(dynamics):
    """Oracle: the suite's own."""
    check_dynamics(dynamics, build(HeldMaximum()), batch_of(2), complete=dynamics is PC)


def test_which_layers_take_routes():
    assert takes_routes(Chain((Flatten(), Pool(2, HeldMaximum()))))
    assert not takes_routes(Chain((Flatten(), Pool(2, maximum))))
    assert build(HeldMaximum()).routed == (1,)


def test_learning_with_held_routes():
    """Oracle: the solver's own equilibrium: dF/dtheta by hand at the states that it found, at beta = 1."""
    graph, batch = build(HeldMaximum()), batch_of()
    solver = ex.ConjugateGradient(ex.Stopping(1e-10, 100, 1), ErrorCoordinates())
    phase = phase_of(graph, batch)
    start = phase.start()
    end = eqx.filter_jit(solver.solve)(phase, start)

    def mean(functions):
        return jnp.mean(energy_by_hand(functions, end.states, start.states, batch.x, batch.y))

    found = gradient(ex.Contrastive(unit_nudge()), PC, graph, batch, solver)
    assert relative(found.functions, eqx.filter_grad(mean)(graph.functions)) < 1e-8
