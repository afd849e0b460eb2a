"""Implicit differentiation against finite differences of the cost through the equilibrium, on every energy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from energax import (
    Adjoint,
    Batch,
    Contrastive,
    FixedPoint,
    FunctionEnergy,
    GradientFlow,
    Hopfield,
    Node,
    Nodes,
    ScellierBengio,
    SquaredError,
    Stopping,
    Verdict,
)
from energax.activations import Sigmoid, Tanh, hard_sigmoid
from energax.diagnostics.relaxations import gather_relaxations, verdict_shares
from energax.dynamics.base import AbstractDynamics, Prepared
from energax.dynamics.phase import prepare_phase
from energax.graph.networks import mlp
from energax.rules import centred
from energax.rules.base import free_phase, open_batch
from energax.solvers import Unbounded
from energax.solvers.linear import solve_force_jacobian
from oracles import batch_for, central_differences, flat, gradient, informed, relative, skipping, solve

pytestmark = pytest.mark.usefixtures("strict")

SWEEPS = FixedPoint(stop=Stopping(1e-14, 300))
FLOW = GradientFlow(0.5, momentum=0.5, stop=Stopping(1e-13, 3000))


def differences(dynamics: AbstractDynamics, graph, batch, solver):
    """dC/dtheta by finite differences of the average cost at the free equilibrium."""
    parameters, rest = eqx.partition(graph, eqx.is_inexact_array)
    vector, unravel = ravel_pytree(parameters)

    def cost(vector):
        changed = eqx.combine(unravel(vector), rest)
        phase, settled, _ = free_phase(dynamics, changed, open_batch(changed, batch), solver)
        return jnp.mean(phase.cost(settled.states, batch.y))

    return central_differences(cost, vector)


def quadratic_with_quartic(parameters, states):
    """1/2 u^T A u + 1/4 sum u^4 - u.(B x), all in one node: an energy without edges."""
    a, b = parameters["a"], parameters["b"]
    u, x = states["u"], states["x"]
    return jnp.sum(u * (u @ a), axis=1) / 2 + jnp.sum(u**4, axis=1) / 4 - jnp.sum(u * (x @ b), axis=1)


def function_nodes():
    keys = jax.random.split(jax.random.key(0), 2)
    root = jax.random.normal(keys[0], (3, 3))
    return Nodes(
        nodes=[Node("x", (2,)), Node("u", (3,))],
        functions={"a": root @ root.T + jnp.eye(3), "b": jax.random.normal(keys[1], (2, 3))},
        input="x",
        output="u",
    )


CASES = {
    "tanh": (Hopfield(), mlp([3, 4, 4, 2], Tanh(), key=jax.random.key(0)), SWEEPS),
    "sigmoid": (Hopfield(), mlp([3, 4, 4, 2], Sigmoid(2.0, 0.3), key=jax.random.key(0)), SWEEPS),
    "skip": (Hopfield(), skipping(Tanh(), True, gain=0.8), SWEEPS),
    "readout": (Hopfield(), mlp([3, 4, 2], Tanh(), output_state=False, key=jax.random.key(0)), SWEEPS),
    "scellier_bengio": (ScellierBengio(), mlp([3, 4, 4, 2], Tanh(), key=jax.random.key(0)), FLOW),
    "function": (FunctionEnergy(quadratic_with_quartic), function_nodes(), FLOW),
}


@pytest.mark.parametrize("case", CASES)
def test_adjoint_equals_finite_differences(case):
    dynamics, graph, solver = CASES[case]
    batch = batch_for(graph, 3, labels=False)
    expected = differences(dynamics, graph, batch, solver)
    found = flat(gradient(Adjoint(), dynamics, graph, batch, solver))
    assert float(jnp.linalg.norm(expected)) > 0.05
    assert float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected)) < 1e-7


@pytest.mark.parametrize("case", ["readout", "scellier_bengio", "function"])
def test_equilibrium_propagation_tends_to_the_adjoint(case):
    """Oracle: the adjoint; the error of centred nudging falls by 100 when beta falls by 10."""
    dynamics, graph, solver = CASES[case]
    batch = batch_for(graph, 3, labels=False)
    expected = gradient(Adjoint(), dynamics, graph, batch, solver)
    large, small = (
        relative(gradient(Contrastive(centred(b)), dynamics, graph, batch, solver), expected) for b in (3e-2, 3e-3)
    )
    assert small < 1e-4
    assert 90 < large / small < 110


def test_saturated_units_drop_out():
    """Hard sigmoid with units strictly outside the box on either side: finite differences do not cross a kink."""
    graph = mlp([3, 6, 5, 2], hard_sigmoid(), gain=2.0, key=jax.random.key(3))
    batch = batch_for(graph, 4, labels=False)
    dynamics = Hopfield(SquaredError())
    phase = prepare_phase(dynamics, graph, graph.clamp(batch.x))
    settled = solve(SWEEPS, phase, phase.start())
    states = {**phase.clamped.values, **settled.states}
    arriving = {
        "hidden1": jax.vmap(graph.functions["layer1"])(states["input"])
        + states["hidden2"] @ graph.functions["layer2"].weight.T,
        "hidden2": jax.vmap(graph.functions["layer2"])(states["hidden1"])
        + states["output"] @ graph.functions["layer3"].weight.T,
    }
    drive = jnp.concatenate([a.ravel() for a in arriving.values()])
    assert int(jnp.sum((drive < -1e-3) | (drive > 1 + 1e-3))) >= 5
    assert int(jnp.sum((drive > 1e-3) & (drive < 1 - 1e-3))) >= 5
    assert int(jnp.sum((jnp.abs(drive) < 1e-3) | (jnp.abs(drive - 1) < 1e-3))) == 0
    expected = differences(dynamics, graph, batch, SWEEPS)
    found = flat(gradient(Adjoint(), dynamics, graph, batch, SWEEPS))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * float(jnp.linalg.norm(expected)))
    # a sample whose hidden units are all silenced by the box teaches layer 1 nothing
    off = Batch(batch.x, batch.y)
    silenced = eqx.tree_at(lambda g: g.functions["layer1"].bias, graph, jnp.full(6, -50.0))
    assert float(jnp.max(jnp.abs(gradient(Adjoint(), dynamics, silenced, off, SWEEPS).functions["layer1"].weight))) == 0


class Directed(AbstractDynamics):
    """dv/dt = x + W v - v on one node."""

    cost: SquaredError = SquaredError()

    def prepare(self, graph, clamped, reference):
        return Prepared(clamped)

    def start(self, phase):
        return phase.silence()

    def force(self, phase, states):
        return {"u": phase.clamped.values["x"] + states["u"] @ phase.graph.functions["w"] - states["u"]}


def test_a_badly_conditioned_directed_net():
    """Oracle: the dense inverse. Singular values of J from 1 to 1e-8, whose squares float64 does not tell apart."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(10, 10)))[0] for _ in range(2))
    jacobian = left @ np.diag(np.logspace(0, -8, 10)) @ right
    nodes = Nodes([Node("x", (10,)), Node("u", (10,))], {"w": jnp.asarray(np.eye(10) - jacobian)}, "x", "u")
    y = jnp.asarray(rng.normal(size=(2, 10)))
    phase = prepare_phase(Directed(), nodes, {"x": jnp.zeros((2, 10))})
    slope = {"u": -y}
    found = solve_force_jacobian(phase, {"u": jnp.zeros((2, 10))}, slope)
    expected = np.linalg.solve(jacobian, -np.asarray(y).T).T  # J^T x = s with force = x - u J
    cosines = np.sum(found.states["u"] * expected, axis=1)
    cosines /= np.linalg.norm(found.states["u"], axis=1) * np.linalg.norm(expected, axis=1)
    assert np.all(cosines > 1 - 1e-9)
    np.testing.assert_allclose(np.linalg.norm(found.states["u"], axis=1), np.linalg.norm(expected, axis=1), rtol=1e-6)


def test_a_linear_solve_is_no_relaxation_and_its_failure_is_told():
    """Oracle: a sample without curvature, whose Jacobian is 0, has no solution; shares count two samples, once each."""
    nodes = Nodes([Node("x", (1,)), Node("v", (1,))], {"w": jnp.asarray(0.7)}, "x", "v")
    level = FunctionEnergy(lambda p, s: (s["x"] * s["v"] ** 2 / 2 - p["w"] * s["x"] * s["v"])[:, 0])
    batch = Batch(jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [1.0]]))
    solver = GradientFlow(0.5, bound=Unbounded(), stop=Stopping(1e-10, 500))
    found, info = informed(Adjoint(), level, nodes, batch, solver)
    assert set(info.phases) == {"free"}
    np.testing.assert_array_equal(info.phases["free"].result, [Verdict.STALLED, Verdict.CONVERGED])
    shares = verdict_shares(gather_relaxations(info))
    assert float(shares[Verdict.STALLED]) == float(shares[Verdict.CONVERGED]) == 0.5
    # v = w where x = 1, so dC/dw = w - 1, over the batch of two
    assert float(found.functions["w"]) == pytest.approx((0.7 - 1) / 2, rel=1e-8)
