"""Two-hop coding: the theory's own prediction, an energy that nobody derived an algorithm from."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import energax as ex
from energax.dynamics.phase import prepare_phase
from energax.graph.networks import mlp
from energax.papers.millidge2023.two_hop import TwoHopCoding, saturate
from energax.rules import centred, holomorphic, nudge, one_sided
from energax.rules.base import energy_gradient
from oracles import batch_for, flat, gradient, largest, recurrent, relative, skipping, slope

NEWTON = ex.Optimistix(optx.Newton(1e-14, 1e-14), 1e-10, 30)
FLOW = ex.GradientFlow(1.0, momentum=0.7, stop=ex.Stopping(1e-12, 6000))
GRAPHS = {
    "chain": lambda: mlp([4, 6, 5, 3], jnp.tanh, output_state=False, key=jax.random.key(0)),
    "free output": lambda: mlp([4, 6, 5, 3], jnp.tanh, key=jax.random.key(0)),
    "skip": lambda: skipping(jnp.tanh, False),
    "over time": lambda: recurrent(jnp.tanh, True),
}
ENERGY = TwoHopCoding(ex.CrossEntropy(), coupling=0.7, scale=0.5)


@pytest.mark.parametrize(
    ("kind", "scheme", "betas", "expected"),
    [
        ("chain", nudge, np.logspace(-6, -2.5, 7), 1),
        ("skip", nudge, np.logspace(-6, -2.5, 7), 1),
        ("over time", one_sided, np.logspace(-5.5, -3, 6), 1),
        ("free output", centred, np.logspace(-4, -1.5, 7), 2),
    ],
)
def test_it_tends_to_backprop(kind, scheme, betas, expected):
    """Oracle: backprop, and the order of the scheme."""
    graph = GRAPHS[kind]()
    batch = batch_for(graph, 3)
    exact = gradient(ex.Backprop(), ENERGY, graph, batch)
    found = [relative(gradient(ex.Contrastive(scheme(b)), ENERGY, graph, batch, NEWTON), exact) for b in betas]
    assert abs(slope(betas, found) - expected) < 0.05 * expected


def test_it_extends_to_complex_nudges():
    """Oracle: backprop, and order 4 of four points."""
    graph = GRAPHS["chain"]()
    batch = batch_for(graph, 3)
    exact = gradient(ex.Backprop(), ENERGY, graph, batch)
    radii = np.logspace(-2.2, -1.2, 7)
    found = [relative(gradient(ex.Contrastive(holomorphic(r, 4)), ENERGY, graph, batch, FLOW), exact) for r in radii]
    assert abs(slope(radii, found) - 4) < 0.1


@pytest.mark.parametrize("kind", ["skip", "free output"])
def test_the_feed_forward_pass_is_a_non_degenerate_minimum(kind):
    """Oracle: the Hessian in closed form, (I - J)^T (I + kappa (I + J)^T (I + J)) (I - J), and its eigenvalues."""
    graph = GRAPHS[kind]()
    batch = batch_for(graph, 1)
    phase = eqx.filter_jit(prepare_phase)(ENERGY, graph, graph.clamp(batch.x))
    start = phase.start()
    vector, unravel = jax.flatten_util.ravel_pytree(start.states)
    assert start.settled
    assert float(phase.energy(start.states)[0]) < 1e-28
    assert largest(phase.force(start.states), jax.tree.map(jnp.zeros_like, start.states)) < 1e-14

    def predicted(v):
        found = graph.predict(phase.everywhere(unravel(v)), phase.sent)
        return flat({name: found[name] for name in start.states})

    j, i = jax.jit(jax.jacobian(predicted))(vector), jnp.eye(vector.size)
    closed = (i - j).T @ (i + 0.7 * (i + j).T @ (i + j)) @ (i - j)
    found = jax.jit(jax.hessian(lambda v: phase.energy(unravel(v))[0]))(vector)
    np.testing.assert_allclose(found, closed, rtol=0, atol=1e-12)
    assert float(jnp.linalg.eigvalsh(found)[0]) > 0.02


@eqx.filter_jit
def settled(energy, graph, batch, beta):
    phase = prepare_phase(energy, graph, graph.clamp(batch.x), target=batch.y, beta=beta)
    return NEWTON.solve(phase, phase.start()).states


@eqx.filter_jit
def learned(energy, graph, batch, beta, states):
    phase = prepare_phase(energy, graph, graph.clamp(batch.x), target=batch.y, beta=beta)
    return energy_gradient(phase, states, jnp.ones(3) / beta / 3).graph


def test_the_error_alone_is_no_longer_the_signal():
    """Oracle: backprop. At the very equilibrium whose complete dF/dtheta is exact to .1 %, the Hebbian part is not."""
    graph, beta = GRAPHS["chain"](), jnp.asarray(1e-3)
    batch = batch_for(graph, 3)
    at = settled(ENERGY, graph, batch, beta)
    exact = gradient(ex.Backprop(), ENERGY, graph, batch)
    complete, hebbian = (learned(one, graph, batch, beta, at) for one in (ENERGY, ex.PredictiveCoding(ENERGY.cost)))
    assert relative(complete, exact) < 1e-3
    assert relative(hebbian.functions["layer1"], exact.functions["layer1"]) > 0.2
    assert (
        relative(hebbian.functions["layer3"], exact.functions["layer3"]) < 1e-2
    )  # the output's own map has no hop below it


def test_the_adjoint_of_it_is_backprop():
    """Oracle: backprop; the free equilibrium does not depend on the metric of the energy."""
    graph = GRAPHS["skip"]()
    batch = batch_for(graph, 3)
    exact = gradient(ex.Backprop(), ENERGY, graph, batch)
    assert relative(gradient(ex.Adjoint(), ENERGY, graph, batch, NEWTON), exact) < 1e-10


def test_without_coupling_and_with_a_wide_scale_it_is_predictive_coding():
    """Oracle: `PredictiveCoding`."""
    graph = GRAPHS["skip"]()
    batch = batch_for(graph, 3)
    wide = TwoHopCoding(ex.CrossEntropy(), coupling=0.0, scale=1e8)
    rule = ex.Contrastive(ex.rules.unit_nudge())
    one, two = (gradient(rule, e, graph, batch, NEWTON) for e in (wide, ex.PredictiveCoding(ex.CrossEntropy())))
    assert relative(one, two) < 1e-9


def test_errors_saturate():
    """Oracle: the formula as it is usually written, and its asymptotes."""

    errors = jnp.array([1e-9, 0.3, 2.0, 1e6])
    usual = 0.25 * (jnp.sqrt(1 + 4 * errors**2) - 1)
    np.testing.assert_allclose(saturate(errors, 0.5)[1:], usual[1:], rtol=1e-12)
    np.testing.assert_allclose(saturate(errors, 0.5)[0], 5e-19, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda e: saturate(e, 0.5))(1e6), 0.5, rtol=1e-6)
