"""Bidirectional energies against predictive coding, dense matrices, the theorem on their curvature, and backprop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax import networks
from energax.checks.means import energy_of, force_of, start_of
from energax.dynamics import BalancedFeedback, Bidirectional, PredictiveCoding, SkewFeedback
from energax.graph.networks import mlp
from energax.layers import Linear, average, maximum
from energax.rules import nudge, unit_nudge
from oracles import (
    batch_for,
    flat,
    gradient,
    imaging,
    informed,
    numbers,
    recurrent,
    relative,
    skipping,
    slope,
    solve,
)

KEYS = jax.random.split(jax.random.key(0), 4)
FLOW = ex.GradientFlow(0.3, stop=ex.Stopping(1e-11, 5000))


def pooling(pool):
    """Two convolutions with pools between them."""
    return networks.convolutional((8, 8, 1), (2, 3), 3, jnp.tanh, pool=pool, output_state=False, key=KEYS[1])


GRAPHS = {
    "chain": lambda: mlp([4, 6, 5, 3], jnp.tanh, gain=1.5, key=KEYS[0]),
    "skip": lambda: skipping(jnp.tanh, False, gain=2.0),
    "recurrent": lambda: recurrent(jnp.tanh, False),
    "recurrent state": lambda: recurrent(jnp.tanh, True),
    "conv": lambda: imaging(jnp.tanh, True),
    "average pool": lambda: pooling(average),
    "maximum pool": lambda: pooling(maximum),
}


def batch_of(graph, size=3):
    (shape,) = {graph.node(graph.input).shape}
    steps = (graph.length,) if graph.axes(graph.input) else ()
    x = jax.random.normal(KEYS[2], (size, *steps, *shape))
    return ex.Batch(x, batch_for(graph, size).y)


@eqx.filter_jit
def phase_of(dynamics, graph, batch, beta=None):
    target = None if beta is None else batch.y
    return ex.prepare_phase(dynamics, graph, graph.clamp(batch.x), target=target, beta=beta)


def jacobian(graph, batch):
    """The dense Jacobian of all predictions in all free states of one sample, at the feed-forward pass."""
    phase = phase_of(PredictiveCoding(ex.CrossEntropy()), graph, batch)
    vbar = start_of(phase).states
    vector, unravel = jax.flatten_util.ravel_pytree(vbar)

    def predict(v):
        states = unravel(v)
        predictions = graph.predict(phase.everywhere(states), phase.sent)
        return jax.flatten_util.ravel_pytree({name: predictions[name] for name in states})[0]

    return np.asarray(jax.jit(jax.jacobian(predict))(vector)), np.asarray(vector), unravel


@pytest.mark.parametrize("name", GRAPHS)
def test_without_feedback_it_is_predictive_coding(name):
    """Oracle: `PredictiveCoding`, step by step of a relaxation, and its gradient."""
    graph = GRAPHS[name]()
    batch, rule = batch_of(graph), ex.Contrastive(unit_nudge())
    solver = ex.GradientFlow(0.1, stop=ex.Stopping(1e-9, 12))
    plain, plain_info = informed(rule, PredictiveCoding(ex.CrossEntropy()), graph, batch, solver)
    found, found_info = informed(rule, Bidirectional(0.0, 0.0), graph, batch, solver)
    assert relative(found, plain) < 1e-12
    for phase in ("free", "nudged"):
        np.testing.assert_array_equal(found_info.phases[phase].steps, plain_info.phases[phase].steps)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("dynamics", [SkewFeedback(), BalancedFeedback(), Bidirectional(0.6, 0.2)])
def test_it_rests_at_the_feed_forward_pass_and_is_linear_near_it(dynamics, name):
    """Oracle: E = 1/2 |A d|^2 with A = (1 - b) I - J + a J^T as a dense matrix, up to terms of third order."""
    graph = GRAPHS[name]()
    batch = batch_of(graph, 1)
    phase = phase_of(dynamics, graph, batch)
    rest = start_of(phase)
    assert rest.settled
    assert float(jnp.max(energy_of(phase, rest.states))) < 1e-26
    assert np.max(np.abs(numbers(force_of(phase, rest.states)))) < 1e-13
    j, vector, unravel = jacobian(graph, batch)
    a, b = dynamics.weights
    linear = (1 - b) * np.eye(len(vector)) - j + a * j.T
    way = np.random.default_rng(3).normal(size=vector.shape)
    sizes = 10.0 ** -np.linspace(1.5, 3.5, 9)
    energy = jax.jit(lambda v: phase.energy(unravel(v))[0])
    off = [abs(energy(vector + h * way) - h**2 * np.sum((linear @ way) ** 2) / 2) for h in sizes]
    assert slope(sizes, off) > 2.7  # the third order, or the fourth where the maps are odd


@pytest.mark.parametrize("name", GRAPHS)
def test_full_feedback_has_no_curvature_below_one(name):
    """Oracle: bipc.md's theorem on any graph, <d, A d> = |d|^2 and A^T A = I + N^T N with N = J - J^T."""
    graph = GRAPHS[name]()
    batch = batch_of(graph, 1)
    j, vector, unravel = jacobian(graph, batch)
    phase = phase_of(SkewFeedback(1.0), graph, batch)
    hessian = jax.jit(jax.hessian(lambda v: phase.energy(unravel(v))[0]))(vector)
    lowest = 1 + np.linalg.svd(j - j.T, compute_uv=False)[-1] ** 2
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian)[0], lowest, rtol=1e-9)
    plain = phase_of(PredictiveCoding(ex.CrossEntropy()), graph, batch)
    plain_hessian = jax.jit(jax.hessian(lambda v: plain.energy(unravel(v))[0]))(vector)
    assert np.linalg.eigvalsh(plain_hessian)[0] < 1


def orthogonal_chain(layers, gain, width=6):
    """A linear chain of orthogonal layers times a gain."""
    graph = mlp([width] * (layers + 1), lambda v: v, key=KEYS[0])
    for index in range(layers):
        name = f"layer{index + 1}"
        turned = jnp.linalg.qr(jax.random.normal(jax.random.key(index), (width, width)))[0] * gain
        graph = eqx.tree_at(lambda g, name=name: g.functions[name].weight, graph, turned)
    return graph


@pytest.mark.parametrize(("strength", "gain", "bounded"), [(1.0, 2.0, True), (0.3, 1.2, True), (0.3, 2.0, False)])
def test_conditioning_with_depth(strength, gain, bounded):
    """Oracle: the theorem: depth-free for a = 1, and below gain 1 / (1 - a); above it the curvature vanishes."""
    lowest = []
    for layers in (5, 10, 20):
        graph = orthogonal_chain(layers, gain)
        j, vector, _ = jacobian(graph, batch_of(graph, 1))
        lowest.append(np.linalg.svd(np.eye(len(vector)) - j + strength * j.T, compute_uv=False)[-1] ** 2)
    if bounded:
        assert min(lowest) > (1 - (1 - strength) * gain) ** 2 - 1e-9 > 0
    else:
        assert lowest[2] < 0.02 * lowest[0]


def test_an_edge_learns_from_the_residues_at_its_end():
    """Oracle: by hand, dF/dW of a chain is -r_n v_{n-1}^T f' and nothing comes through the feedback or vbar."""
    graph = mlp([4, 6, 5, 3], lambda v: v, key=KEYS[0])
    batch = batch_of(graph, 4)
    found, info = informed(ex.Contrastive(unit_nudge()), SkewFeedback(0.3), graph, batch, FLOW)
    assert np.all(info.phases["nudged"].result == ex.Verdict.CONVERGED)
    weights = [np.asarray(graph.functions[f"layer{i}"].weight) for i in (1, 2, 3)]
    biases = [np.asarray(graph.functions[f"layer{i}"].bias) for i in (1, 2, 3)]
    x, y = np.asarray(batch.x), np.asarray(batch.y)
    vbar = [x]
    for w, c in zip(weights, biases, strict=True):
        vbar.append(vbar[-1] @ w + c)
    # minimise F by Newton on the stacked states, the output included
    sizes = [6, 5, 3]
    j = np.zeros((14, 14))
    j[6:11, :6], j[11:, 6:11] = weights[1].T, weights[2].T
    linear = np.eye(14) - j + 0.3 * j.T
    d = np.zeros((4, 14))
    for _ in range(30):
        output = vbar[3] + d[:, 11:]
        p = np.exp(output - output.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        slope_of = d @ linear.T @ linear
        slope_of[:, 11:] += p - y
        for row in range(4):
            curvature = linear.T @ linear
            curvature[11:, 11:] += np.diag(p[row]) - np.outer(p[row], p[row])
            d[row] -= np.linalg.solve(curvature, slope_of[row])
    residues = np.split(d @ linear.T, np.cumsum(sizes)[:-1], axis=1)
    states = [x, *(v + moved for v, moved in zip(vbar[1:], np.split(d, np.cumsum(sizes)[:-1], axis=1), strict=True))]
    for index, residue in enumerate(residues):
        expected = -states[index].T @ residue / 4
        np.testing.assert_allclose(found.functions[f"layer{index + 1}"].weight, expected, rtol=1e-7, atol=1e-11)


def test_with_its_whole_gradient_it_follows_backprop():
    """Oracle: backprop, to first order in beta, once vbar and the feedback depend on the parameters too."""
    graph = mlp([4, 6, 5, 3], jnp.tanh, gain=1.5, key=KEYS[0])
    batch, dynamics = batch_of(graph, 4), SkewFeedback(0.3)
    exact = gradient(ex.Backprop(), dynamics, graph, batch)
    betas, off = 10.0 ** -np.linspace(2, 5, 7), []

    @eqx.filter_jit
    def whole(graph, settled, beta):
        clamped = graph.clamp(batch.x)
        swept = graph.sweep(clamped)
        vbar = {name: swept[name] for name in settled}

        def predict(states):
            return {name: graph.predict({**clamped, **states})[name] for name in states}

        (heard,) = jax.vjp(predict, vbar)[1](jax.tree.map(jnp.subtract, settled, vbar))
        residue = jax.tree.map(lambda v, p, k: v - p + 0.3 * k, settled, predict(settled), heard)
        return jnp.sum(flat(residue) ** 2) / 2 + beta * jnp.sum(dynamics.cost(settled[graph.output], batch.y))

    for beta in betas:
        phase = phase_of(dynamics, graph, batch, jnp.asarray(beta))
        settled = solve(FLOW, phase, phase.start()).states
        found = eqx.filter_grad(whole)(graph, settled, beta)
        off.append(relative(jax.tree.map(lambda g, beta=beta: np.asarray(g) / (beta * 4), found), exact))
    assert slope(betas, off) == pytest.approx(1, abs=0.1)
    local = gradient(ex.Contrastive(nudge(1e-3)), dynamics, graph, batch, FLOW)
    assert relative(local, exact) > 0.05  # the local rule is another one, whatever beta


def test_a_cyclic_graph_takes_its_free_phase_for_reference():
    """Oracle: with a reference at which every error is 0, that of the forward fixed point found by iteration."""
    graph = ex.Graph(
        nodes=[ex.Node("x", (3,)), ex.Node("h", (4,), "act"), ex.Node("g", (4,), "act"), ex.Node("y", (3,))],
        edges=[
            ex.Edge("x", "h", "in"),
            ex.Edge("h", "g", "up"),
            ex.Edge("g", "h", "down"),
            ex.Edge("g", "y", "out"),
        ],
        functions={
            "in": Linear(3, 4, key=KEYS[0]),
            "up": Linear(4, 4, gain=0.5, key=KEYS[1]),
            "down": Linear(4, 4, gain=0.5, key=KEYS[2]),
            "out": Linear(4, 3, key=KEYS[3]),
            "act": jnp.tanh,
        },
        input="x",
        output="y",
    )
    batch, solver = batch_for(graph, 4), ex.GradientFlow(0.3, stop=ex.Stopping(1e-12, 20_000))
    free = ex.relax(SkewFeedback(), graph, solver, clamp=batch.x)
    f, h, g = graph.functions, np.zeros((4, 4)), np.zeros((4, 4))
    maps = {name: (np.asarray(f[name].weight), np.asarray(f[name].bias)) for name in ("in", "up", "down")}
    x = np.asarray(batch.x)
    for _ in range(300):
        h, g = (
            np.tanh(x @ maps["in"][0] + maps["in"][1] + g @ maps["down"][0] + maps["down"][1]),
            np.tanh(h @ maps["up"][0] + maps["up"][1]),
        )
    np.testing.assert_allclose(free.states["h"], h, atol=1e-10)
    rule = ex.Contrastive(ex.rules.one_sided(0.1))
    plain = gradient(rule, PredictiveCoding(ex.CrossEntropy()), graph, batch, solver)
    found, info = informed(rule, SkewFeedback(0.3), graph, batch, solver)
    assert np.all(info.phases["nudged"].result == ex.Verdict.CONVERGED)
    assert 1e-3 < relative(found, plain) < 1
    assert relative(gradient(rule, Bidirectional(0.0, 0.0), graph, batch, solver), plain) < 1e-9


def test_feedback_is_linearised_once_for_a_whole_relaxation():
    """Oracle: the compiled loop holds no tanh of vbar: as many tanh as predictive coding's loop has."""
    graph = mlp([4, 6, 5, 3], jnp.tanh, key=KEYS[0])
    batch = batch_of(graph, 4)

    def loop(dynamics):
        phase = phase_of(dynamics, graph, batch, jnp.asarray(1.0))
        force = jax.make_jaxpr(phase.force)(phase.start().states)
        return str(force).count(" tanh ")

    assert loop(SkewFeedback()) == loop(PredictiveCoding(ex.CrossEntropy()))


def test_a_clamped_output_has_no_way_of_its_own():
    """Oracle: `ContrastiveHebbian` of predictive coding at a = 0; what is clamped later is no part of the reference."""
    graph = mlp([4, 6, 5, 3], jnp.tanh, key=KEYS[0])
    batch, rule = batch_of(graph, 4), ex.ContrastiveHebbian()
    plain = gradient(rule, PredictiveCoding(ex.CrossEntropy()), graph, batch, FLOW)
    assert relative(gradient(rule, Bidirectional(0.0, 0.0), graph, batch, FLOW), plain) < 1e-9
    assert 1e-3 < relative(gradient(rule, SkewFeedback(0.3), graph, batch, FLOW), plain) < 1
