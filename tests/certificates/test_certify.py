"""Certificates against dense matrices in numpy, and against what certified nets then do."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax import Batch, Graph, LeakyDirected, LeakyFlow, Node, PredictiveCoding, Stopping, Verdict
from energax.activations import Box, Sigmoid, Tanh, hard_sigmoid, steepest
from energax.certificates import certify as _certify
from energax.certificates.comparison import Comparison
from energax.certificates.norms import bound_norm
from energax.dynamics import AbsoluteOutflow, NoOutflow, SignedOutflow, prepare_phase
from energax.exceptions import SettingError
from energax.graph import draw_edges
from energax.graph.networks import directed_complete, directed_mlp, from_edges, recurrent_dense
from energax.layers import Chain, Conv2d, Flatten, Linear, Pool, Sparse, average
from energax.solvers import certified_flow

pytestmark = pytest.mark.usefixtures("strict")


certify = eqx.filter_jit(_certify)
FLOW = certified_flow(Stopping(1e-3, 20_000, check_every=1))


def doubled(graph):
    """The same net in float64."""
    return jax.tree.map(lambda a: a.astype(jnp.float64) if eqx.is_inexact_array(a) else a, graph)


def scaled(graph, factors):
    """The net with the weights of some functions multiplied."""
    maps = dict(graph.functions)
    for name, factor in factors.items():
        maps[name] = eqx.tree_at(lambda m: m.weight, maps[name], factor * maps[name].weight)
    return eqx.tree_at(lambda g: g.functions, graph, maps)


@eqx.filter_jit
def jacobian(dynamics, graph, states):
    """J at some states, written out; boxes left out."""
    free = eqx.tree_at(lambda d: d.box, dynamics, Box()) if isinstance(dynamics, LeakyFlow) else dynamics
    phase = prepare_phase(free, graph, graph.clamp(jnp.zeros((1, 2))))
    vector, unravel = jax.flatten_util.ravel_pytree(states)
    return jax.jacfwd(lambda v: jax.flatten_util.ravel_pytree(phase.force(unravel(v)))[0])(vector)


def scatter(rng, like, scale, rows=1):
    """Random states of the shapes of `like`."""
    return jax.tree.map(lambda v: scale * rng.normal(size=(rows, *v.shape[1:])), like)


SHAPES = {"hidden": 4, "output": 2}
TEMPLATES = {
    activation: doubled(directed_complete(2, 4, 2, activation, key=jax.random.key(0)))
    for activation in (None, jnp.tanh)
}
OUTFLOWS = [SignedOutflow(), AbsoluteOutflow(), NoOutflow()]
FREE = {name: np.zeros((1, size)) for name, size in SHAPES.items()}


def redraw(graph, rng, gain):
    """The same structure with other weights: nothing is compiled anew."""
    return jax.tree.map(lambda a: rng.uniform(-gain, gain, a.shape) if eqx.is_inexact_array(a) else a, graph)


def draw(seed):
    """A random net and a dynamics, of four kinds in turn."""
    rng = np.random.default_rng(seed)
    additive = seed % 4 == 0
    gain = float(rng.choice([0.05, 0.15, 0.5]))
    leak = {name: rng.uniform(0.1, 2.0, size) for name, size in SHAPES.items()}
    dynamics = LeakyDirected(leak) if additive else LeakyFlow(leak, OUTFLOWS[seed % 4 - 1])
    return dynamics, redraw(TEMPLATES[jnp.tanh if additive else None], rng, gain)


@eqx.filter_jit
def run(dynamics, graph, x, y, beta, starts, steps):
    """Steps of the certified size from two starts: the distances, weighted alike, and the last forces."""
    phase = prepare_phase(dynamics, graph, graph.clamp(x), target=y, beta=beta)

    def advance(states, _):
        force = phase.force(states)
        return jax.tree.map(lambda s, f: s + steps * f, states, force), force

    return jax.lax.scan(advance, starts, None, 400)


def test_the_jacobian_is_bounded_by_what_is_certified():
    """Oracle: logarithmic norms of dense Jacobians at random states: none is above minus the rate that is certified."""
    tight = 0
    for seed in range(40):
        dynamics, graph = draw(seed)
        certificate = certify(dynamics, graph)
        rng = np.random.default_rng(seed)
        dense = [np.asarray(jacobian(dynamics, graph, scatter(rng, FREE, scale))) for scale in (0.0, 1.0, 5.0)]
        away = [np.diag(j) + np.sum(np.abs(j - np.diag(np.diag(j))), axis=0) for j in dense]
        rows = [np.diag(j) + np.sum(np.abs(j - np.diag(np.diag(j))), axis=1) for j in dense]
        rates = dict(zip(certificate.names, np.asarray(certificate.rates), strict=True))
        assert max(map(np.max, away)) <= -rates["C1 columns"] + 1e-12
        assert max(map(np.max, rows)) <= -rates["C2 rows"] + 1e-12
        tight += abs(max(map(np.max, away)) + rates["C1 columns"]) < 1e-9
        square = max(np.linalg.eigvalsh((j + j.T) / 2)[-1] for j in dense)
        assert square <= -rates["C4 Euclidean"] + 1e-12
        if max(rates.values()) > 0:
            assert max(np.linalg.eigvals(j).real.max() for j in dense) <= -max(rates.values()) + 1e-9
        radius = np.abs(np.linalg.eigvals(np.abs(dense[0] - np.diag(np.diag(dense[0]))) / -np.diag(dense[0])[:, None]))
        if np.all(np.diag(dense[0]) < 0) and radius.max() < 0.9:  # C3 is sufficient and necessary for its majorant
            assert rates["C3 Perron"] > 0
        assert rates["C1 columns"] <= 0 or rates["C3 Perron"] > 0
    assert tight >= 20  # tanh is as steep as 1 at 0, so that the bound is attained there


def test_without_a_leak_nothing_is_certified():
    """Proposition 1: no criterion can hold for the flow of DEEP, whatever its weights."""
    for seed in range(20):
        graph = redraw(TEMPLATES[None], np.random.default_rng(seed), 0.2 * (1 + seed))
        if seed % 2:
            graph = jax.tree.map(lambda a: np.abs(a) if eqx.is_inexact_array_like(a) else a, graph)
        certificate = certify(LeakyFlow(0.0), graph)
        assert not certificate.certified
        assert certificate.criterion == "none"
        assert certificate.rate == 0
        assert certificate.steps(1e-2) == jnp.inf
        assert certificate.factor() == 1


def test_absolute_outflow_is_certified_by_any_leak():
    """And signed outflow exactly where the leak is above twice the negative weight that leaves, by columns."""
    for seed in range(20):
        graph = redraw(TEMPLATES[None], np.random.default_rng(seed), 1.5)
        certificate = certify(LeakyFlow(0.01, AbsoluteOutflow()), graph)
        np.testing.assert_allclose(certificate.rates[0], 0.01, rtol=1e-9)
        assert certify(LeakyFlow(0.0, AbsoluteOutflow()), graph).rates[0] <= 0
        weights = {"hidden": np.zeros(4), "output": np.zeros(2)}  # negative weight that leaves each unit
        for name in ("hidden_to_output", "output_to_hidden"):
            weights[name.split("_")[0]] += np.sum(np.minimum(graph.functions[name].weight, 0), axis=1)
        for name in ("hidden_to_hidden", "output_to_output"):
            own = graph.functions[name]
            np.add.at(weights[name.split("_")[0]], np.asarray(own.sources), np.minimum(own.weight, 0))
        needed = -2 * min(value.min() for value in weights.values())
        assert certify(LeakyFlow(needed * 1.001), graph).rates[0] > 0
        assert certify(LeakyFlow(needed * 0.999), graph).rates[0] < 0


@pytest.mark.parametrize("beta", [0.0, 3.0, -0.5])
def test_certified_nets_contract_as_promised(beta):
    """Two starts come together, and the force falls, no slower than the certificate says, nudged or not."""
    found = 0
    for seed in range(60):
        dynamics, graph = draw(seed)
        certificate = certify(dynamics, graph)
        share = 0.9 if beta < 0 else 1.0
        strength = float(max(beta, share * certificate.least_beta)) if beta < 0 else beta
        if not certificate.certified or not certificate.factor(strength) < 1:
            continue
        found += 1
        rng = np.random.default_rng(seed)
        step = certificate.step(strength)
        if isinstance(dynamics, LeakyFlow):
            dynamics = LeakyFlow(dynamics.leak, dynamics.outflow, step=step)
        x, y = (np.repeat(rng.uniform(0, 1, (1, 2)), 2, axis=0) for _ in range(2))
        starts = jax.tree.map(lambda v: np.clip(v, 0, 1), scatter(rng, FREE, 1.0, rows=2))
        ends, forces = run(dynamics, graph, x, y, np.asarray(strength), starts, step)
        factor = float(certificate.factor(strength))
        apart = max(np.max(np.abs(np.subtract(*np.asarray(v)))) for v in jax.tree.leaves(ends))
        stretch = float(certificate.stretches[certificate.best])
        begun = np.sqrt(sum(np.sum(np.asarray(v[0] - v[1]) ** 2) for v in jax.tree.leaves(starts)))
        assert apart <= stretch * begun * factor**400 + 1e-12
        sizes = np.sqrt(sum(np.sum(np.asarray(f) ** 2, axis=2) for f in jax.tree.leaves(forces)))
        bound = stretch * sizes[0] * factor ** np.arange(400)[:, None]
        assert np.all(sizes <= bound * (1 + 1e-9) + 1e-12)
    assert found >= 15


def test_forces_grow_at_first_by_no_more_than_said():
    """Oracle: norms of powers of the step's matrix, of linear flows; strong chains grow far before they decay."""
    grown = 0
    chain = scaled(TEMPLATES[None], {"output_to_hidden": 0.0, "hidden_to_hidden": 0.0, "output_to_output": 0.0})
    chain = scaled(chain, {"hidden_to_output": 30.0})
    nets = [draw(seed) for seed in range(40) if seed % 4] + [
        (LeakyFlow({"hidden": 0.2, "output": 1.0}, NoOutflow()), chain)
    ]
    for dynamics, graph in nets:
        certificate = certify(dynamics, graph)
        matrix = np.asarray(jacobian(dynamics, graph, FREE))
        steps, factors = (np.asarray(part) for part in certificate._steps_and_factors(0.0))
        for rate, stretch, step, factor in zip(certificate.rates, certificate.stretches, steps, factors, strict=True):
            if not rate > 0:
                continue
            power = np.eye(len(matrix))
            for t in range(60):
                norm = np.linalg.norm(power, 2)
                assert norm <= float(stretch) * factor**t * (1 + 1e-9)
                grown += norm > factor**t * 1.01
                power = power @ (np.eye(len(matrix)) + step * matrix)
    assert grown > 30


def test_the_solver_needs_no_more_steps_than_bounded():
    """`GradientFlow` with `SafeStep` from silence: every sample converges within `certificate.steps(tol)`."""
    checked = 0
    solve = eqx.filter_jit(lambda solver, phase: solver.solve(phase, phase.start()))
    for seed in range(40):
        dynamics, graph = draw(seed)
        certificate = certify(dynamics, graph)
        if not certificate.certified:
            continue
        if certificate.criterion == "C4 Euclidean" and isinstance(dynamics, LeakyFlow):
            continue  # it holds for a shorter step
        checked += 1
        phase = prepare_phase(dynamics, graph, graph.clamp(np.asarray([[0.2, 0.9], [1.0, 0.0]])))
        settled = solve(FLOW, phase)
        assert np.all(settled.result == Verdict.CONVERGED)
        assert np.asarray(settled.steps).max() <= float(certificate.steps(1e-3))
    assert checked >= 5


def test_layers_are_certified_by_their_norms():
    """Feed-forward nets always, by C5 alone where their gains are large (section 4's table)."""
    graph = doubled(directed_mlp((8, 16, 12, 4), jnp.tanh, gain=6.0, key=jax.random.key(0)))
    forward = scaled(graph, {"backward2": 0.0, "backward3": 0.0})
    assert certify(LeakyDirected(1.0), forward).criterion == "C5 small gain"
    weak = scaled(graph, {"backward2": 1e-2, "backward3": 1e-2})
    assert certify(LeakyDirected(1.0), weak).criterion == "C5 small gain"
    assert not certify(LeakyDirected(1.0), graph).certified


def test_certified_layers_settle_in_any_order():
    """C5 implies asynchronous convergence: blocks updated in random order end where all at once do."""
    graph = doubled(directed_mlp((2, 5, 4, 2), jnp.tanh, gain=1.5, feedback_gain=0.3, key=jax.random.key(1)))
    assert certify(LeakyDirected(1.0), graph).criterion == "C5 small gain"
    phase = prepare_phase(LeakyDirected(1.0), graph, graph.clamp(jnp.asarray([[0.3, -0.8]])))
    force = eqx.filter_jit(lambda phase, states: phase.force(states))
    together = phase.start().states
    for _ in range(400):
        together = jax.tree.map(jnp.add, together, force(phase, together))
    rng = np.random.default_rng(0)
    alone = phase.start().states
    for _ in range(1200):
        name = str(rng.choice(["hidden1", "hidden2", "output"]))
        alone = {**alone, name: alone[name] + force(phase, alone)[name]}
    for name, state in together.items():
        np.testing.assert_allclose(alone[name], state, atol=1e-12)


def test_norms_are_bounded_from_above():
    """Oracle: singular values of the layer written out; dense ones exact, convolutions within their borders."""
    layers = [
        (Linear(5, 7, key=jax.random.key(0)), (5,), 1.0),
        (Chain((Flatten(), Linear(18, 4, key=jax.random.key(1)))), (3, 3, 2), 1.0),
        (Conv2d(3, 4, 3, padding=1, key=jax.random.key(2)), (8, 8, 3), 1.1),
        (Conv2d(2, 3, 3, stride=2, key=jax.random.key(3)), (7, 7, 2), 1.5),
        (Sparse(jnp.asarray([0, 1, 2, 2]), jnp.asarray([1, 0, 1, 2]), 3, 4, key=jax.random.key(4)), (3,), 1.0),
        (Pool(2, average), (4, 4, 2), 1.05),
        (eqx.nn.Conv2d(2, 3, 3, key=jax.random.key(5)), (2, 6, 6), 3.0),
    ]
    for layer, shape, slack in layers:
        size = int(np.prod(shape))
        call = layer if isinstance(layer, Sparse) else jax.vmap(layer)
        matrix = call(jnp.eye(size).reshape(size, *shape)) - call(jnp.zeros((size, *shape)))
        norm = np.linalg.norm(np.asarray(matrix).reshape(size, -1), 2)
        assert norm * (1 - 1e-9) <= bound_norm(layer, shape) <= slack * norm * (1 + 1e-9), layer


def test_slopes_of_activations():
    """Oracle: differences on a fine grid."""
    x = jnp.linspace(-8, 8, 20001)
    for rho in (jnp.tanh, jax.nn.relu, jax.nn.sigmoid, jax.nn.hard_sigmoid, Tanh(), Sigmoid(4.0, 0.5), hard_sigmoid()):
        slope = np.max(np.abs(np.diff(rho(x)))) / float(x[1] - x[0])
        np.testing.assert_allclose(steepest(rho), slope, rtol=1e-5)


def test_the_safe_step_allows_for_steep_outputs():
    """Oracle: the Jacobian of a nudged output whose activation rises by up to 2: a step must not overshoot."""
    graph = doubled(directed_mlp((2, 3, 1), Sigmoid(8.0), key=jax.random.key(0)))
    steep = Graph(
        nodes=[*graph.nodes[:-1], Node("output", (1,), "activation")],
        edges=graph.edges,
        functions=graph.functions,
        input="input",
        output="output",
    )
    dynamics = LeakyDirected(1.5)
    phase = prepare_phase(
        dynamics, steep, steep.clamp(jnp.zeros((1, 2))), target=jnp.zeros((1, 1)), beta=jnp.asarray(3.0)
    )
    states = {"hidden1": jnp.zeros((1, 3)), "output": jnp.zeros((1, 1))}

    def output_force(u):
        return phase.force({**states, "output": u})["output"][0, 0]

    diagonal = float(jax.grad(output_force)(states["output"])[0, 0])
    np.testing.assert_allclose(diagonal, -1.5 - 3.0 * 2.0 * 2.0 / 2, rtol=1e-9)
    np.testing.assert_allclose(dynamics.safe_step(phase), 1 / 7.5, rtol=1e-9)
    np.testing.assert_allclose(certify(dynamics, steep).step(3.0), 1 / 7.5, rtol=1e-9)


def test_what_cannot_be_certified_is_refused():
    """Every message says what to give instead."""
    steps = recurrent_dense((4, 4, 1), 2, jnp.tanh, length=4, output_state=True, key=jax.random.key(0))
    with pytest.raises(SettingError, match="has axes"):
        certify(LeakyDirected(), steps)
    graph = directed_complete(2, 3, 1, jnp.sin, key=jax.random.key(0))
    with pytest.raises(SettingError, match="largest slope is not known"):
        certify(LeakyDirected(), graph)
    with pytest.raises(SettingError, match="only directed nets"):
        certify(PredictiveCoding(), graph)
    with pytest.raises(SettingError, match="made of edges"):
        certify(LeakyFlow(), Batch(jnp.zeros((1, 2))))


def test_rounding_is_allowed_for_by_the_synapses_of_a_unit():
    """Oracle: counts of synapses in numpy; in float32 a large sparse net keeps nearly all of its rate."""
    edges = draw_edges({"E": 5000}, np.asarray([[0.002]]), seed=0)
    graph = from_edges(edges, (4,), 3, reading=np.arange(9), shown=np.arange(7), key=jax.random.key(0))
    out = np.bincount(edges.sources, minlength=5000) + 3 * (np.arange(5000) < 7)
    into = np.bincount(edges.targets, minlength=5000) + 3 * (np.arange(5000) < 7)
    net = Comparison.of(LeakyFlow(0.5, AbsoluteOutflow()), graph)
    assert int(net.degree()) == max(out.max(), into.max(), 7)
    single = jax.tree.map(lambda a: jnp.asarray(1000 * a, jnp.float32) if eqx.is_inexact_array(a) else a, graph)
    certificate = certify(LeakyFlow(jnp.asarray(10.0, jnp.float32), AbsoluteOutflow()), single)
    lost = 2048 * np.finfo(np.float32).eps * float(certificate.fastest)
    assert 10 - lost - 0.1 <= float(certificate.rates[0]) <= 10 - lost + 0.1


def test_certificates_of_sparse_circuits_write_no_matrix_out():
    """Oracle: the compiler's own account of memory, beside a matrix of all pairs of units."""
    units = 4000
    edges = draw_edges({"E": units}, np.asarray([[0.002]]), seed=0)
    graph = from_edges(edges, (4,), 3, reading=np.arange(9), shown=np.arange(7), key=jax.random.key(0))
    for dynamics in (LeakyFlow(0.5, AbsoluteOutflow()), LeakyDirected(1.0)):
        arrays, static = eqx.partition((dynamics, graph), eqx.is_array)

        def rates_of(arrays, static=static):
            return _certify(*eqx.combine(arrays, static)).rates

        compiled = jax.jit(rates_of).lower(arrays).compile()
        needed: Any = compiled.memory_analysis()
        assert 0 < needed.temp_size_in_bytes < 8 * units**2 / 20
        rates = compiled(arrays)
        assert bool(jnp.any(rates > 0)) == isinstance(dynamics, LeakyFlow)


def test_a_certificate_says_its_verdict():
    """Oracle: the values it holds, and what holds of a net without feedback and of one without a leak."""
    graph = directed_mlp((2, 3, 2), jnp.tanh, feedback_gain=0.0, key=jax.random.key(0))
    found = certify(LeakyDirected(2.0), graph)
    assert str(found) == f"certified by {found.criterion}: rate {found.rate:.3g}, {found.steps(1e-2):.0f} steps to 1e-2"
    none = certify(LeakyFlow(), directed_complete(2, 4, 2, gain=5.0, key=jax.random.key(0)))
    assert str(none).startswith("not certified: none of C1 columns, C2 rows")
