"""Directed nets against the same nets in numpy, written with dense matrices from docs/directed.md's formulas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax import Adjoint, Batch, GradientFlow, LeakyDirected, LeakyFlow, PredictiveCoding, Stopping, Verdict
from energax.activations import Box
from energax.dynamics import AbsoluteOutflow, NoOutflow, SignedOutflow, prepare_phase
from energax.exceptions import GraphError, SettingError
from energax.graph.networks import directed_complete, directed_mlp, mlp
from energax.layers import Conv2d, Linear, Pool, average, change_weights, maximum
from energax.rules import VectorFieldRule
from energax.rules.base import open_batch
from energax.solvers import SafeStep, certified_flow
from oracles import central_differences, flat, gradient, relative, solve

pytestmark = pytest.mark.usefixtures("strict")

OUTFLOWS = {"signed": SignedOutflow(), "absolute": AbsoluteOutflow(), "none": NoOutflow()}
FLOW = certified_flow(Stopping(1e-13, 20_000))
HIDDEN, OUT = 4, 2


class Dense:
    """The matrices of a complete net: W[i, j] from free unit i to free unit j, U from the inputs, biases b."""

    def __init__(self, graph):
        maps = graph.functions

        def recurrent(name, units):
            matrix = np.zeros((units, units))
            if name in maps:
                matrix[np.asarray(maps[name].sources), np.asarray(maps[name].targets)] = maps[name].weight
            return matrix

        across = [np.asarray(maps[name].weight) for name in ("hidden_to_output", "output_to_hidden")]
        hidden, out = across[0].shape
        self.w = np.block(
            [[recurrent("hidden_to_hidden", hidden), across[0]], [across[1], recurrent("output_to_output", out)]]
        )
        entering = [maps["input_to_hidden"], maps["input_to_output"]]
        self.u = np.concatenate([np.asarray(one.weight) for one in entering], axis=1)
        self.b = np.concatenate([np.asarray(one.bias) for one in entering])

    def outflow(self, kind):
        return {"signed": self.w.sum(1), "absolute": np.abs(self.w).sum(1), "none": 0 * self.b}[kind]


def net(seed=0, activation=None, gain=1.0):
    """Two inputs, four hidden and two output units, all joined, in float64."""
    graph = directed_complete(2, HIDDEN, OUT, activation, gain=gain, key=jax.random.key(seed))
    return jax.tree.map(lambda a: a.astype(jnp.float64) if eqx.is_inexact_array(a) else a, graph)


def rows(seed=0, size=3):
    """Inputs and targets."""
    rng = np.random.default_rng(seed)
    return Batch(jnp.asarray(rng.uniform(0, 1, (size, 2))), jnp.asarray(rng.uniform(0, 1, (size, OUT))))


def split(states):
    """Hidden and output units of rows of all free units."""
    return {"hidden": jnp.asarray(states[:, :HIDDEN]), "output": jnp.asarray(states[:, HIDDEN:])}


def join(states):
    """Rows of all free units."""
    return np.concatenate([states["hidden"], states["output"]], axis=1)


def settle(dynamics, graph, batch):
    """The free equilibrium."""
    phase = prepare_phase(dynamics, graph, graph.clamp(batch.x))
    return solve(FLOW, phase, phase.start())


def symmetric(graph):
    """The net with W made symmetric."""
    dense = Dense(graph)
    w = (dense.w + dense.w.T) / 2
    maps = dict(graph.functions)
    for name, (rows_, columns) in {
        "hidden_to_output": (slice(0, HIDDEN), slice(HIDDEN, None)),
        "output_to_hidden": (slice(HIDDEN, None), slice(0, HIDDEN)),
    }.items():
        maps[name] = eqx.tree_at(lambda m: m.weight, maps[name], jnp.asarray(w[rows_, columns]))
    for name, first in {"hidden_to_hidden": 0, "output_to_output": HIDDEN}.items():
        sparse = maps[name]
        picked = w[first + np.asarray(sparse.sources), first + np.asarray(sparse.targets)]
        maps[name] = eqx.tree_at(lambda m: m.weight, sparse, jnp.asarray(picked))
    return eqx.tree_at(lambda g: g.functions, graph, maps)


@pytest.mark.parametrize("kind", OUTFLOWS)
def test_the_flow_is_that_of_dense_matrices(kind):
    """Oracle: numpy, F = W^T s + U^T x + b - (D + l) s - beta (s - y), then the clipped Euler step of directed.md."""
    graph, batch, leak, beta = net(), rows(), 0.3, 0.7
    dense, rng = Dense(graph), np.random.default_rng(1)
    states, dynamics = rng.uniform(0, 1, (3, 6)), LeakyFlow(leak, OUTFLOWS[kind])
    phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=jnp.asarray(beta))
    losses = dense.outflow(kind) + leak
    flow = states @ dense.w + np.asarray(batch.x) @ dense.u + dense.b - losses * states
    flow[:, HIDDEN:] -= beta * (states[:, HIDDEN:] - np.asarray(batch.y))
    np.testing.assert_allclose(join(dynamics.flow(phase, split(states))), flow, atol=1e-13)
    step = 1 / (np.abs(losses).max() + beta)
    np.testing.assert_allclose(dynamics.safe_step(phase), step, rtol=1e-13)
    euler = np.clip(states + step * flow, 0, 1)
    assert np.any((euler == 0) | (euler == 1))
    moved = states + step * join(phase.force(split(states)))
    np.testing.assert_allclose(moved, euler, atol=1e-13)


def test_without_a_leak_the_jacobian_is_singular():
    """Proposition 1: 1^T J = 0 for every W, so that the flow of DEEP without a leak conserves mass."""
    for seed in range(5):
        graph, batch = net(seed, gain=3.0), rows(seed)
        dynamics = LeakyFlow(0.0, box=Box())
        phase = prepare_phase(dynamics, graph, graph.clamp(batch.x))
        states = split(np.random.default_rng(seed).normal(size=(3, 6)))
        _, push = jax.jvp(phase.force, (states,), (split(np.ones((3, 6)) * np.arange(1, 7)),))
        assert np.abs(join(push).sum(1)).max() < 1e-12
        assert np.abs(join(push)).max() > 0.1


def test_what_leaks_is_what_is_driven():
    """Mass balance: sum_j l_j s_j = sum_j drive_j where no wall holds, every unit with a leak of its own."""
    graph, batch = net(gain=0.2), rows()
    leak = {"hidden": jnp.asarray([0.6, 0.7, 0.8, 0.9]), "output": jnp.asarray([0.5, 1.0])}
    dynamics = LeakyFlow(leak, box=Box())
    settled = settle(dynamics, graph, batch)
    assert np.all(settled.result == Verdict.CONVERGED)
    dense = Dense(graph)
    drive = (np.asarray(batch.x) @ dense.u + dense.b).sum(1)
    leaked = (join(settled.states) * np.concatenate([leak["hidden"], leak["output"]])).sum(1)
    np.testing.assert_allclose(leaked, drive, rtol=1e-11)


def test_a_symmetric_flow_is_a_resistor_network():
    """Oracle: E = 1/4 sum_ij W_ij (s_i - s_j)^2 + 1/2 l |s|^2 - drive.s, differentiated by jax."""
    graph, batch = symmetric(net()), rows()
    dense = Dense(graph)
    drive = jnp.asarray(np.asarray(batch.x) @ dense.u + dense.b)

    def energy(s):
        differences = (s[:, None, :] - s[:, :, None]) ** 2
        return jnp.sum(dense.w * differences) / 4 + 0.4 * jnp.sum(s**2) / 2 - jnp.sum(drive * s)

    states = np.random.default_rng(0).normal(size=(3, 6))
    phase = prepare_phase(LeakyFlow(0.4, box=Box()), graph, graph.clamp(batch.x))
    np.testing.assert_allclose(join(phase.force(split(states))), -jax.grad(energy)(jnp.asarray(states)), atol=1e-12)


def cost_of(dynamics, batch, graph, solver):
    """The average cost at the free equilibrium, of a vector of parameters."""
    parameters, rest = eqx.partition(graph, eqx.is_inexact_array)
    vector, unravel = jax.flatten_util.ravel_pytree(parameters)

    def cost(vector):
        changed = eqx.combine(unravel(vector), rest)
        phase = prepare_phase(dynamics, changed, open_batch(changed, batch).clamped)
        return jnp.mean(phase.cost(solver.solve(phase, phase.start()).states, batch.y))

    return cost, vector


@pytest.mark.parametrize("kind", OUTFLOWS)
def test_the_adjoint_is_exact_with_units_at_the_walls(kind):
    """Oracle: central differences of the cost through the equilibrium; some units rest at 0 and some at 1."""
    graph, batch = net(3, gain=1.5), rows(3)
    dynamics = LeakyFlow(2.0 if kind == "none" else 0.5, OUTFLOWS[kind])
    settled = settle(dynamics, graph, batch)
    states = join(settled.states)
    assert np.all(settled.result == Verdict.CONVERGED)
    assert np.any(states == 0)
    assert np.any((states > 0.01) & (states < 0.99))
    expected = central_differences(*cost_of(dynamics, batch, graph, FLOW))
    assert relative(flat(gradient(Adjoint(), dynamics, graph, batch, FLOW)), expected) < 1e-7


def test_the_adjoint_of_the_additive_net_is_exact():
    """Oracle: central differences of the cost, which reads the activity of the output."""
    graph, batch = net(1, jnp.tanh), rows(1)
    leak = {"hidden": jnp.asarray(1.5), "output": jnp.asarray([1.2, 2.0])}
    dynamics = LeakyDirected(leak)
    expected = central_differences(*cost_of(dynamics, batch, graph, FLOW))
    assert relative(flat(gradient(Adjoint(), dynamics, graph, batch, FLOW)), expected) < 1e-7


def free_weights(grad):
    """The part of a gradient that synapses among free units have."""
    return {name: grad.functions[name] for name in grad.functions if not name.startswith("input")}


@pytest.mark.parametrize(
    ("dynamics", "activation"), [(LeakyFlow(3.0, box=Box()), None), (LeakyDirected(1.5), jnp.tanh)]
)
def test_on_symmetric_nets_the_local_rule_is_the_gradient(dynamics, activation):
    """The nudged response is the exact signal where the Jacobian (of activities: W - l / rho') is symmetric."""
    graph, batch = symmetric(net(2, activation)), rows(2)
    exact = gradient(Adjoint(), dynamics, graph, batch, FLOW)
    found = gradient(VectorFieldRule(1e-4), dynamics, graph, batch, FLOW)
    assert relative(found, exact) < 1e-6
    directed = net(2, activation)
    exact = gradient(Adjoint(), dynamics, directed, batch, FLOW)
    assert relative(gradient(VectorFieldRule(1e-4), dynamics, directed, batch, FLOW), exact) > 0.01


def test_the_rule_of_a_flow_is_what_two_ends_see():
    """R1: dW_ij ~ s_i (nu_j - nu_i) under signed outflow, with nu = J^-1 dC/ds from a dense solve in numpy."""
    graph, batch = net(4, gain=0.3), rows(4, size=1)
    dynamics = LeakyFlow(0.8, box=Box())
    dense = Dense(graph)
    settled = settle(dynamics, graph, batch)
    states = join(settled.states)[0]
    jacobian = dense.w.T - np.diag(dense.w.sum(1) + 0.8)
    slope = np.concatenate([np.zeros(HIDDEN), states[HIDDEN:] - np.asarray(batch.y)[0]])
    response = np.linalg.solve(jacobian, slope)
    found = gradient(VectorFieldRule(1e-4), dynamics, graph, batch, FLOW)
    rule = states[:, None] * (response[None, :] - response[:, None])
    np.testing.assert_allclose(-found.functions["hidden_to_output"].weight, rule[:HIDDEN, HIDDEN:], atol=1e-7)
    np.testing.assert_allclose(-found.functions["output_to_hidden"].weight, rule[HIDDEN:, :HIDDEN], atol=1e-7)
    np.testing.assert_allclose(-found.functions["input_to_hidden"].bias, response[:HIDDEN], atol=1e-7)


def pair(w, v):
    """A hidden and an output unit, joined both ways, in float64."""
    graph = directed_complete(1, 1, 1, key=jax.random.key(0))
    maps = dict(graph.functions)
    for name, weight in (("hidden_to_output", w), ("output_to_hidden", v), ("input_to_hidden", 1.0)):
        maps[name] = eqx.tree_at(lambda m: m.weight, maps[name], np.asarray([[weight]]))
    maps["input_to_hidden"] = eqx.tree_at(lambda m: m.bias, maps["input_to_hidden"], np.zeros(1))
    silent = jax.tree.map(lambda a: np.zeros(a.shape), maps["input_to_output"])
    return eqx.tree_at(lambda g: g.functions, graph, maps | {"input_to_output": silent})


def test_two_neurons():
    """Theorem 6, in closed form: the inverse Jacobian, and the rule's signs, right in every weight iff v <= w + l_h."""
    leak = {"hidden": np.asarray(0.5), "output": np.asarray(0.25)}
    dynamics = LeakyFlow(leak, box=Box())
    graph = pair(1.0, 0.5)
    phase = prepare_phase(dynamics, graph, graph.clamp(np.ones((1, 1))))

    def force(state):
        found = phase.force({"hidden": state[None, :1], "output": state[None, 1:]})
        return jnp.concatenate([found["hidden"][0], found["output"][0]])

    inverse = np.linalg.inv(-np.asarray(jax.jacfwd(force)(jnp.zeros(2))))
    np.testing.assert_allclose(inverse, [[1.2, 0.8], [1.6, 2.4]], rtol=1e-12)
    batch = Batch(np.ones((1, 1)), np.full((1, 1), 5.0))
    agreed = 0
    for w, v in ((1.0, 0.5), (0.2, 0.6), (0.2, 0.8), (0.5, 2.0), (2.0, 2.4), (2.0, 2.6)):
        net = pair(w, v)
        exact, found = (gradient(rule, dynamics, net, batch, FLOW) for rule in (Adjoint(), VectorFieldRule(1e-5)))
        signs = [
            np.sign(float(exact.functions[name].weight[0, 0] * found.functions[name].weight[0, 0]))
            for name in ("hidden_to_output", "output_to_hidden", "input_to_hidden")
        ]
        assert all(sign > 0 for sign in signs) == (v <= w + 0.5)
        agreed += v <= w + 0.5
    assert agreed == 3


def test_layers_of_directed_nets():
    """Oracle: the layers written out by hand."""
    graph = directed_mlp((3, 5, 4, 2), jnp.tanh, feedback_gain=0.5, key=jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)))
    phase = prepare_phase(LeakyDirected(2.0), graph, graph.clamp(x))
    rng = np.random.default_rng(1)
    u = {"hidden1": rng.normal(size=(2, 5)), "hidden2": rng.normal(size=(2, 4)), "output": rng.normal(size=(2, 2))}
    r = {name: np.tanh(value) if name != "output" else value for name, value in u.items()}
    maps = {name: fn for name, fn in graph.functions.items() if name != "activation"}
    hand = {
        "hidden1": x @ maps["forward1"].weight + maps["forward1"].bias + r["hidden2"] @ maps["backward2"].weight,
        "hidden2": r["hidden1"] @ maps["forward2"].weight
        + maps["forward2"].bias
        + r["output"] @ maps["backward3"].weight,
        "output": r["hidden2"] @ maps["forward3"].weight + maps["forward3"].bias,
    }
    force = phase.force(jax.tree.map(jnp.asarray, u))
    for name, arrived in hand.items():
        np.testing.assert_allclose(force[name], arrived - 2 * u[name], atol=1e-12)
    assert all(maps[name].bias is None for name in maps if name.startswith("backward"))


def test_weights_of_linear_layers():
    """Oracle: the layer's matrix, column by column."""
    layers = [
        (Linear(3, 4, key=jax.random.key(0)), (3,)),
        (Conv2d(2, 3, 3, padding=1, key=jax.random.key(1)), (4, 4, 2)),
        (eqx.nn.Linear(3, 4, key=jax.random.key(2)), (3,)),
        (Pool(2, average), (4, 4, 2)),
    ]
    for layer, shape in layers:
        size = int(np.prod(shape))

        def matrix(fn, shape=shape, size=size):
            columns = [np.ravel(fn(jnp.eye(size)[i].reshape(shape)) - fn(jnp.zeros(shape))) for i in range(size)]
            return np.stack(columns)

        np.testing.assert_allclose(matrix(change_weights(layer, jnp.abs)), np.abs(matrix(layer)), atol=1e-6)
        unbiased = change_weights(layer, lambda weight: weight, biased=False)
        assert np.all(np.asarray(unbiased(jnp.zeros(shape))) == 0)
    with pytest.raises(SettingError, match="not known to be linear"):
        change_weights(Pool(2, maximum), jnp.abs)


def test_bad_directed_nets_are_refused():
    """Every message names the value, the place and the remedy."""
    graph, x = net(), jnp.zeros((1, 2))
    with pytest.raises(SettingError, match="LeakyFlow: leak"):
        LeakyFlow(-0.1)
    with pytest.raises(SettingError, match="LeakyDirected: leak"):
        LeakyDirected(0.0)
    with pytest.raises(GraphError, match="in one of them only"):
        prepare_phase(LeakyFlow({"hidden": 0.1}), graph, graph.clamp(x))
    with pytest.raises(GraphError, match="give one number"):
        prepare_phase(LeakyDirected({"hidden": jnp.ones(3), "output": 1.0}), graph, graph.clamp(x))
    curved = net(0, jnp.tanh)
    with pytest.raises(GraphError, match="use LeakyDirected"):
        prepare_phase(LeakyFlow(), curved, curved.clamp(x))
    direct = mlp((2, 3, 2), jnp.tanh, output_state=False, key=jax.random.key(0))
    with pytest.raises(GraphError):
        prepare_phase(LeakyFlow(), direct, direct.clamp(x))
    chain = mlp((2, 3, 2), jnp.tanh, key=jax.random.key(0))
    phase = prepare_phase(PredictiveCoding(), chain, chain.clamp(x))
    with pytest.raises(SettingError, match="knows no safe step"):
        GradientFlow(1.0, bound=SafeStep()).solve(phase, phase.start())
