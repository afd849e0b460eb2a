"""Proof of shape: models the library does not ship, from public classes alone and in under 40 lines each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energax as ex
from energax.dynamics.phase import prepare_phase
from energax.layers import Linear
from energax.rules import nudge
from oracles import batch_for, gradient, relative, solve

KEYS = jax.random.split(jax.random.key(0), 8)
FLOW = ex.GradientFlow(0.3, stop=ex.Stopping(1e-13, 4000))


# (a) a leaky directed flow network, which has a force and no energy ----------------------------------------------


class LeakyFlow(ex.AbstractDynamics):
    """F_j = sum_i W_ij s_i + drive_j - (sum_k W_jk + l) s_j - beta dC/ds_j: what leaves j is taken from j."""

    leak: jax.Array = eqx.field(converter=jnp.asarray)
    cost: ex.AbstractCost = eqx.field(default_factory=ex.SquaredError)

    def prepare(self, graph, clamped, reference):
        return ex.Prepared(graph.precompute(clamped))

    def start(self, phase):
        return phase.silence()

    def force(self, phase, states):
        graph = phase.graph
        arriving, _ = graph.arrivals(phase.everywhere(states), phase.sent)
        force = {}
        for name, s in states.items():
            outflow = sum(graph.functions[e.function].weight.sum(1) for e in graph.edges if e.source == name)
            force[name] = arriving[name] - (outflow + self.leak) * s
        nudge = jax.grad(lambda v: jnp.sum(phase.nudge_energy(v)))(states)
        return {name: f - nudge[name] for name, f in force.items()}


def flow_graph(symmetric: bool) -> ex.Graph:
    forward = Linear(4, 3, use_bias=False, key=KEYS[0])
    back = Linear(3, 4, use_bias=False, key=KEYS[1])
    if symmetric:
        back = eqx.tree_at(lambda l: l.weight, back, forward.weight.T)
    return ex.Graph(
        nodes=[ex.Node("x", (2,)), ex.Node("h", (4,)), ex.Node("y", (3,))],
        edges=[ex.Edge("x", "h", "in"), ex.Edge("h", "y", "forward"), ex.Edge("y", "h", "back")],
        functions={"in": Linear(2, 4, key=KEYS[2]), "forward": forward, "back": back},
        input="x",
        output="y",
    )


def test_leaky_flow_settles_at_the_solution_of_its_linear_system():
    """Oracle: numpy's linear solve; and the mass balance sum_j l s_j = sum_j drive_j of directed.md section 3."""
    graph, dynamics = flow_graph(False), LeakyFlow(2.5)
    x = batch_for(graph, 5).x
    phase = prepare_phase(dynamics, graph, graph.clamp(x))
    settled = solve(FLOW, phase, phase.start().states)
    assert np.all(settled.result == ex.Verdict.CONVERGED)
    w = np.zeros((7, 7))
    w[:4, 4:], w[4:, :4] = graph.functions["forward"].weight, graph.functions["back"].weight
    drive = np.concatenate(
        [np.asarray(x @ graph.functions["in"].weight + graph.functions["in"].bias), np.zeros((5, 3))], axis=1
    )
    expected = np.linalg.solve(np.diag(w.sum(1) + 2.5) - w.T, drive.T).T
    found = np.concatenate([settled.states["h"], settled.states["y"]], axis=1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(2.5 * found.sum(1), drive.sum(1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_directed_rule_is_exact_where_the_weights_are_symmetric(symmetric):
    """Oracle: implicit differentiation, and that by finite differences of the cost through a linear solve."""
    graph, dynamics = flow_graph(symmetric), LeakyFlow(2.5)
    batch = batch_for(graph, 5, labels=False)
    exact = gradient(ex.Adjoint(), dynamics, graph, batch, FLOW)
    found = gradient(ex.VectorFieldRule(1e-3), dynamics, graph, batch, FLOW)
    if symmetric:
        assert relative(found, exact) < 1e-6
    else:
        assert relative(found, exact) > 1e-2

    def cost(w):
        full = jnp.zeros((7, 7)).at[:4, 4:].set(w).at[4:, :4].set(graph.functions["back"].weight)
        into = batch.x @ graph.functions["in"].weight + graph.functions["in"].bias
        drive = jnp.concatenate([into, jnp.zeros((5, 3))], axis=1)
        s = jnp.linalg.solve(jnp.diag(full.sum(1) + 2.5) - full.T, drive.T).T
        return jnp.mean(jnp.sum((s[:, 4:] - batch.y) ** 2, axis=1)) / 2

    np.testing.assert_allclose(
        exact.functions["forward"].weight, jax.grad(cost)(graph.functions["forward"].weight), atol=1e-9
    )


# (b) a recurrent graph over three steps ----------------------------------------------------------------------------


@pytest.mark.usefixtures("strict")
def test_first_step_on_an_unrolled_two_node_graph_is_backprop_through_time():
    """Oracle: jax.grad of a Python loop."""
    graph = ex.Graph(
        nodes=[ex.Node("x", (3,)), ex.Node("h", (4,), "act")],
        edges=[ex.Edge("x", "h", "in"), ex.Edge("h", "h", "again", delay=1)],
        functions={"in": Linear(3, 4, key=KEYS[0]), "again": Linear(4, 4, key=KEYS[1]), "act": jnp.tanh},
        input="x",
        output="h",
        length=3,
    )
    x = jax.random.normal(KEYS[2], (5, 3, 3))
    y = jax.random.normal(KEYS[3], (5, 4))

    def cost(functions):
        h = jnp.tanh(jax.vmap(functions["in"])(x[:, 0]))
        for t in (1, 2):
            h = jnp.tanh(jax.vmap(functions["in"])(x[:, t]) + jax.vmap(functions["again"])(h))
        return jnp.mean(jnp.sum((h - y) ** 2, axis=1)) / 2

    expected = jax.grad(cost)({name: graph.functions[name] for name in ("in", "again")})
    found = gradient(ex.FirstStep(), ex.PredictiveCoding(), graph, ex.Batch(x, y))
    assert relative({name: found.functions[name] for name in ("in", "again")}, expected) < 1e-12


# (c) sparse edges: integer indices are no parameters -----------------------------------------------------------------


class Sparse(eqx.Module):
    """y_j = sum over synapses i -> j of w x_i: one number per synapse."""

    source: jax.Array
    target: jax.Array
    weight: jax.Array
    size: int = eqx.field(static=True)

    def __call__(self, x):
        return jax.ops.segment_sum(self.weight * x[self.source], self.target, self.size)


def trained(dynamics, rule, graph, solver, mask=None):
    """Five steps of gradient descent with momentum; a dense graph keeps its absent synapses at zero."""
    optimiser = optax.sgd(0.1, momentum=0.5)
    state = optimiser.init(eqx.filter(graph, eqx.is_inexact_array))
    batch = batch_for(graph, 4, labels=False)
    for _ in range(5):
        found = gradient(rule, dynamics, graph, batch, solver)
        if mask is not None:
            found = eqx.tree_at(lambda g: g.functions["first"].weight, found, found.functions["first"].weight * mask)
        updates, state = optimiser.update(found, state, eqx.filter(graph, eqx.is_inexact_array))
        graph = eqx.apply_updates(graph, updates)
    return graph


@pytest.mark.parametrize(
    ("dynamics", "rule", "solver"),
    [
        (ex.PredictiveCoding(), ex.Contrastive(nudge(0.5)), ex.GradientFlow(0.3)),
        (ex.Hopfield(), ex.Contrastive(ex.rules.centred(0.5)), ex.FixedPoint()),
    ],
    ids=["pc", "hopfield"],
)
def test_a_sparse_edge_trains_like_the_dense_one(dynamics, rule, solver):
    """Oracle: the dense matrix with zeros where no synapse is, masked gradients."""
    source, target = np.array([0, 0, 1, 3, 3, 2, 1]), np.array([0, 4, 1, 1, 3, 2, 0])
    weight = jax.random.normal(KEYS[0], (7,))
    dense = eqx.tree_at(
        lambda l: l.weight, Linear(4, 5, use_bias=False, key=KEYS[1]), jnp.zeros((4, 5)).at[source, target].set(weight)
    )
    mask = np.zeros((4, 5))
    mask[source, target] = 1.0

    def graph(first):
        return ex.Graph(
            nodes=[ex.Node("x", (4,)), ex.Node("h", (5,), "act"), ex.Node("y", (2,))],
            edges=[ex.Edge("x", "h", "first"), ex.Edge("h", "y", "second")],
            functions={"first": first, "second": Linear(5, 2, key=KEYS[2]), "act": ex.activations.Tanh()},
            input="x",
            output="y",
        )

    sparse = trained(dynamics, rule, graph(Sparse(jnp.array(source), jnp.array(target), weight, 5)), solver)
    full = trained(dynamics, rule, graph(dense), solver, mask)
    np.testing.assert_array_equal(sparse.functions["first"].source, source)
    np.testing.assert_allclose(
        sparse.functions["first"].weight, full.functions["first"].weight[source, target], rtol=1e-12
    )
    assert relative(sparse.functions["second"], full.functions["second"]) < 1e-12
    assert float(jnp.max(jnp.abs(sparse.functions["first"].weight - weight))) > 1e-3
