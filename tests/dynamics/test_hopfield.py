"""Hopfield energies: plain numpy, automatic differentiation, locality, weak feedback and readouts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from energax import (
    Batch,
    Contrastive,
    ContrastiveHebbian,
    CrossEntropy,
    Edge,
    FixedPoint,
    GradientFlow,
    Graph,
    Hopfield,
    Node,
    Optimistix,
    PredictiveCoding,
    ScellierBengio,
    Stopping,
    Verdict,
)
from energax.activations import Sigmoid, Tanh, hard_sigmoid
from energax.checks.means import force_of
from energax.dynamics.phase import prepare_phase
from energax.exceptions import GraphError
from energax.graph.networks import mlp
from energax.layers import Linear
from energax.rules import Backprop, centred
from energax.solvers import Synchronous
from oracles import (
    batch_for,
    energy_gradient,
    gradient,
    informed,
    largest,
    numpy_hopfield_ep,
    parameters,
    relative,
    skipping,
    slope,
    solve,
)

pytestmark = pytest.mark.usefixtures("strict")

SIZES = [4, 6, 5, 3]


def random_states(graph, activation, size=3, seed=5):
    keys = jax.random.split(jax.random.key(seed), 4)
    names = [n.name for n in graph.nodes if n.name != graph.input]
    return {
        n: activation(jax.random.normal(k, (size, *graph.node(n).shape))) for n, k in zip(names, keys, strict=False)
    }


def test_fixed_sweeps_and_gradient_equal_plain_numpy():
    graph = mlp(SIZES, Tanh(), key=jax.random.key(2))
    batch, sweeps, beta = batch_for(graph, 5, labels=False), 6, 0.3
    weights, biases = parameters(graph, 3)
    states, dw, db = numpy_hopfield_ep(weights, biases, np.asarray(batch.x), np.asarray(batch.y), sweeps, beta)
    solver = FixedPoint(stop=Stopping(max_steps=sweeps, check_every=0))
    phase = prepare_phase(Hopfield(), graph, graph.clamp(batch.x))
    settled = solve(solver, phase, phase.start().states)
    for name, state in zip(("hidden1", "hidden2", "output"), states, strict=True):
        np.testing.assert_allclose(settled.states[name], state, rtol=0, atol=1e-12)
    found = gradient(Contrastive(centred(beta)), Hopfield(), graph, batch, solver)
    for i in range(3):
        np.testing.assert_allclose(found.functions[f"layer{i + 1}"].weight, dw[i], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.functions[f"layer{i + 1}"].bias, db[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("beta", [None, 0.7])
@pytest.mark.parametrize(
    ("output_state", "gamma"),
    [(True, None), (False, None), (True, 0.5), (False, 0.5)],
    ids=["state", "readout", "weak-state", "weak-readout"],
)
def test_the_energys_gradient_vanishes_where_the_force_does(beta, output_state, gamma):
    """Oracle: automatic differentiation of F at the fixed point of the block minimisers."""
    graph = mlp(SIZES, Tanh(), output_state=output_state, gain=0.9, key=jax.random.key(2))
    batch = batch_for(graph, 3)
    dynamics = Hopfield(CrossEntropy(), feedback_scale=gamma)
    target, strength = (None, None) if beta is None else (batch.y, jnp.asarray(beta))
    phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), target=target, beta=strength)
    settled = solve(FixedPoint(Synchronous(), Stopping(1e-13, 2000)), phase, phase.start().states)
    slope = jax.jit(jax.grad(lambda v: jnp.sum(phase.energy(v))))
    slope_there = slope(settled.states)
    assert max(float(jnp.max(jnp.abs(g))) for g in slope_there.values()) < 1e-11
    elsewhere = slope(jax.tree.map(lambda v: 0.9 * v, settled.states))
    assert max(float(jnp.max(jnp.abs(g))) for g in elsewhere.values()) > 1e-3


def test_scellier_bengio_force_is_written_in_their_paper():
    """Oracle: dv/dt = rho'(v) h - v with h = b + rho(below) W + W^T rho(above) (2017, Eq. 4)."""
    graph = mlp([4, 6, 3], Tanh(), key=jax.random.key(2))
    x = batch_for(graph, 3).x
    phase = prepare_phase(ScellierBengio(), graph, graph.clamp(x))
    v = {
        "hidden1": jax.random.normal(jax.random.key(0), (3, 6)),
        "output": jax.random.normal(jax.random.key(1), (3, 3)),
    }
    one, two = graph.functions["layer1"], graph.functions["layer2"]
    h = x @ one.weight + one.bias + v["output"] @ two.weight.T
    expected = {
        "hidden1": (1 - jnp.tanh(v["hidden1"]) ** 2) * h - v["hidden1"],
        "output": jnp.tanh(v["hidden1"]) @ two.weight + two.bias - v["output"],
    }
    assert largest(force_of(phase, v), expected) < 1e-13


@pytest.mark.parametrize("dynamics", [PredictiveCoding(), Hopfield(), ScellierBengio()], ids=lambda d: type(d).__name__)
def test_an_edges_gradient_depends_on_its_ends_only(dynamics):
    """Oracle: exact equality after every state but the two ends is replaced; and a change where an end is moved."""
    graph = mlp([4, 6, 5, 4, 3], Tanh(), key=jax.random.key(2))
    x = batch_for(graph, 3).x
    phase = prepare_phase(dynamics, graph, graph.clamp(x))
    states, others = (random_states(graph, jnp.tanh, seed=s) for s in (5, 6))

    @jax.jit
    def of_edge(states):
        found = energy_gradient(phase, states, jnp.ones(3) / 3).graph.functions["layer2"]
        return found.weight, found.bias

    expected = of_edge(states)
    ends = ("hidden1", "hidden2")
    far = {n: states[n] if n in ends else others[n] for n in states}
    assert largest(of_edge(far), expected) == 0
    for end in ends:
        assert largest(of_edge({**states, end: others[end]}), expected) > 1e-3


def test_hopfield_locality_holds_beside_a_skip():
    """Oracle: as above, on a node that receives two edges: Hebbian terms do not know of each other."""
    graph = skipping(Tanh(), True)
    phase = prepare_phase(Hopfield(), graph, graph.clamp(batch_for(graph, 3).x))
    states, others = (random_states(graph, jnp.tanh, seed=s) for s in (5, 6))

    def of_edge(states):
        return energy_gradient(phase, states, jnp.ones(3) / 3).graph.functions["ay"].weight

    np.testing.assert_array_equal(of_edge({**states, "b": others["b"]}), of_edge(states))
    np.testing.assert_allclose(of_edge(states), -states["a"].T @ states["y"] / 3, rtol=1e-13)


@pytest.mark.parametrize("activation", [Tanh(), Sigmoid()], ids=["tanh", "sigmoid"])
def test_weak_feedback_tends_to_backprop(activation):
    """Oracle: backprop through the same graph's sweep with squared error (Xie & Seung 2003); slope 1 in gamma."""
    graph = mlp(SIZES, activation, key=jax.random.key(2))
    batch = batch_for(graph, 4, labels=False)
    expected = gradient(Backprop(), Hopfield(), graph, batch)
    solver = FixedPoint(stop=Stopping(max_steps=40, check_every=0))
    gammas = np.logspace(-4, -2.5, 7)
    found = [
        relative(gradient(ContrastiveHebbian(), Hopfield(feedback_scale=g), graph, batch, solver), expected)
        for g in gammas
    ]
    assert abs(slope(gammas, found) - 1) < 0.05


def test_coupled_learning_is_the_contrast_of_two_relaxations():
    """Oracle: Hebbian products of the free states and of those with the output clamped at v + s (y - v), by hand."""
    graph = mlp(SIZES, Tanh(), gain=0.8, key=jax.random.key(2))
    batch, strength = batch_for(graph, 4, labels=False), 0.25
    solver = FixedPoint(stop=Stopping(1e-13, 500))
    found = gradient(ContrastiveHebbian(strength), Hopfield(), graph, batch, solver)
    free = prepare_phase(Hopfield(), graph, graph.clamp(batch.x))
    rest = solve(solver, free, free.start().states).states
    shown = rest["output"] + strength * (batch.y - rest["output"])
    held = prepare_phase(Hopfield(), graph, graph.clamp({"input": batch.x, "output": shown}))
    end = solve(solver, held, {n: rest[n] for n in ("hidden1", "hidden2")}).states

    def hebbian(a, b):
        return a.T @ b / 4

    expected = -(hebbian(end["hidden1"], end["hidden2"]) - hebbian(rest["hidden1"], rest["hidden2"])) / strength
    np.testing.assert_allclose(found.functions["layer2"].weight, expected, rtol=0, atol=1e-11)
    expected = -(hebbian(end["hidden2"], shown) - hebbian(rest["hidden2"], rest["output"])) / strength
    np.testing.assert_allclose(found.functions["layer3"].weight, expected, rtol=0, atol=1e-11)


def test_weak_feedback_needs_edges_towards_the_output():
    graph = skipping(Tanh(), True)
    with pytest.raises(GraphError, match=r"a -> b \(ab\) goes from distance 1 to 1"):
        prepare_phase(Hopfield(feedback_scale=0.5), graph, graph.clamp(batch_for(graph, 2).x))


def test_a_hopfield_energy_refuses_activations_without_a_potential():
    graph = mlp(SIZES, jnp.tanh, key=jax.random.key(2))
    with pytest.raises(GraphError, match="node 'hidden1': a Hopfield energy needs an activation with a potential"):
        prepare_phase(Hopfield(), graph, graph.clamp(batch_for(graph, 2).x))


def test_gradient_flow_and_sweeps_give_one_gradient():
    """Oracle: the fixed point does not depend on how it was reached."""
    graph = mlp(SIZES, Tanh(), gain=0.8, key=jax.random.key(2))
    batch = batch_for(graph, 4, labels=False)
    rule = Contrastive(centred(0.1))
    one = gradient(rule, Hopfield(), graph, batch, FixedPoint(stop=Stopping(1e-13, 500)))
    two = gradient(rule, Hopfield(), graph, batch, GradientFlow(0.5, stop=Stopping(1e-13, 3000)))
    assert relative(two, one) < 1e-9
    assert eqx.tree_equal(jax.tree.structure(one), jax.tree.structure(two))


def one_unit(activation):
    """x -> y with a weight and a bias, and an activation or none at y."""
    functions = {"map": Linear(1, 1, key=jax.random.key(0))}
    if activation is not None:
        functions["act"] = activation
    nodes = [Node("x", (1,)), Node("y", (1,), None if activation is None else "act")]
    return Graph(nodes, [Edge("x", "y", "map")], functions, "x", "y")


SOLVERS = {
    "sweeps": FixedPoint(),
    "untested sweeps": FixedPoint(stop=Stopping(max_steps=5, check_every=0)),
    "flow": GradientFlow(0.5, stop=Stopping(1e-8, 1000)),
    "root": Optimistix(optx.Newton(1e-8, 1e-8)),
}


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_nudge_that_leaves_no_minimum_has_no_equilibrium(solver):
    """Oracle: F = v^2/2 - h v + beta/2 (v - y)^2 has a minimum where 1 + beta > 0; (h + beta y) / (1 + beta) then.

    A strength per sample: samples without a minimum diverge, and their neighbours have the gradient they have alone.
    """
    graph, x, y = one_unit(None), jnp.array([[1.0], [0.7]]), jnp.array([[0.2], [0.5]])
    h = jax.vmap(graph.functions["map"])(x)
    strengths = jnp.array([-0.5, -1.5])
    phase = prepare_phase(Hopfield(), graph, graph.clamp(x), target=y, beta=strengths)
    settled = solve(SOLVERS[solver], phase, {"y": h})
    np.testing.assert_array_equal(settled.lost, [False, True])
    assert settled.result[1] == Verdict.DIVERGED
    np.testing.assert_allclose(settled.states["y"][0], (h[0] - 0.5 * y[0]) / 0.5, atol=1e-7)
    assert np.all(np.isfinite(settled.states["y"]))


def test_centred_nudging_beyond_the_curvature_moves_nothing():
    """Oracle: the closed form of the linear unit at beta .5; at 1.5 no half of the contrast is an equilibrium's."""
    graph, x, y = one_unit(None), jnp.array([[1.0], [0.7]]), jnp.array([[0.2], [0.5]])
    h = jax.vmap(graph.functions["map"])(x)
    batch = Batch(x, y)
    found = gradient(Contrastive(centred(0.5)), Hopfield(), graph, batch, FixedPoint(stop=Stopping(1e-12)))
    ends = {beta: (h + beta * y) / (1 + beta) for beta in (0.5, -0.5)}
    expected = -jnp.mean(x * (ends[0.5] - ends[-0.5]) / (2 * 0.5))
    np.testing.assert_allclose(found.functions["map"].weight[0, 0], expected, rtol=1e-10)
    beyond, info = informed(Contrastive(centred(1.5)), Hopfield(), graph, batch, FixedPoint())
    assert float(jnp.max(jnp.abs(beyond.functions["map"].weight))) == 0
    np.testing.assert_array_equal(info.phases["nudged"].result[2:], Verdict.DIVERGED)


@pytest.mark.parametrize("beta", [0.5, -0.5, -1.5, -4.0])
def test_a_boxed_output_goes_to_the_better_wall(beta):
    """Oracle: F on a grid over the box."""
    graph, x = one_unit(hard_sigmoid()), jnp.linspace(-3.0, 3.0, 13)[:, None]
    y = jnp.full_like(x, 0.3)
    h = np.asarray(jax.vmap(graph.functions["map"])(x))
    phase = prepare_phase(Hopfield(), graph, graph.clamp(x), target=y, beta=jnp.asarray(beta))
    settled = solve(FixedPoint(), phase, {"y": jnp.clip(jnp.asarray(h), 0, 1)})  # the free equilibrium
    grid = np.linspace(0, 1, 10001)
    energies = grid**2 / 2 - h * grid + beta / 2 * (grid - 0.3) ** 2
    np.testing.assert_allclose(settled.states["y"][:, 0], grid[np.argmin(energies, axis=1)], atol=1e-4)
    assert np.all(settled.result == Verdict.CONVERGED)


class Wrong(Sigmoid):
    """A minimiser that misses its equation."""

    def minimise(self, drive, curvature):
        return self(drive)


def test_a_minimiser_that_misses_its_equation_leaves_a_residual():
    """Oracle: the stationarity equation v = rho(h - beta (v - y)), which the verdict reads itself."""
    x, y = jnp.array([[1.0]]), jnp.array([[0.5]])
    results = []
    for activation in (Sigmoid(8.0, 0.5), Wrong(8.0, 0.5)):
        graph = one_unit(activation)
        phase = prepare_phase(Hopfield(), graph, graph.clamp(x), target=y, beta=jnp.asarray(2.0))
        settled = solve(FixedPoint(stop=Stopping(1e-6, 20)), phase, phase.start().states)
        h = jax.vmap(graph.functions["map"])(x)
        v = settled.states["y"]
        missed = float(jnp.max(jnp.abs(v - activation(h - 2 * (v - y)))))
        results.append((missed < 1e-6, bool(settled.result[0] == Verdict.CONVERGED)))
    assert results == [(True, True), (False, False)]


@pytest.mark.parametrize("dynamics", [ScellierBengio(), PredictiveCoding()], ids=lambda d: type(d).__name__)
def test_descent_without_a_minimum_diverges(dynamics):
    """Oracle: as above; both energies are (v - h)^2 / 2 + beta/2 (v - y)^2 up to a constant on one linear unit."""
    graph, x, y = one_unit(None), jnp.array([[1.0], [0.7]]), jnp.array([[0.2], [0.5]])
    phase = prepare_phase(dynamics, graph, graph.clamp(x), target=y, beta=jnp.array([-0.5, -1.5]))
    settled = solve(GradientFlow(0.5, stop=Stopping(max_steps=500)), phase, phase.start().states)
    np.testing.assert_array_equal(settled.result, [Verdict.CONVERGED, Verdict.DIVERGED])


@pytest.mark.parametrize(("scale", "gain"), [(None, 1.0), (0.5, 1.0), (0.2, 1.0), (0.2, 2.0)])
def test_feedback_lowers_the_curvature_of_a_chain(scale, gain):
    """Oracle: a chain of L linear layers with orthogonal weights: 1 - 2 gain sqrt(gamma) cos(pi / (L + 1))."""
    layers, width = 6, 4
    graph = mlp([width] * (layers + 1), None, key=jax.random.key(0))
    for index in range(layers):
        turned = gain * jnp.linalg.qr(jax.random.normal(jax.random.key(index), (width, width)))[0]
        graph = eqx.tree_at(lambda g, name=f"layer{index + 1}": g.functions[name].weight, graph, turned)
    phase = prepare_phase(Hopfield(feedback_scale=scale), graph, graph.clamp(jnp.ones((1, width))))
    vector, unravel = jax.flatten_util.ravel_pytree(phase.start().states)
    slopes = jax.jit(jax.jacobian(lambda v: jax.flatten_util.ravel_pytree(phase.force(unravel(v)))[0]))(vector)
    expected = 1 - 2 * gain * np.sqrt(scale or 1) * np.cos(np.pi / (layers + 1))
    np.testing.assert_allclose(np.min(np.linalg.eigvals(-np.asarray(slopes)).real), expected, rtol=1e-10)
