"""Order of convergence of every quadrature in the nudge strength, by regression.

Oracles: backprop for predictive coding, implicit differentiation (`Adjoint`) for Hopfield energies.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax import Batch, Contrastive, CrossEntropy, FixedPoint, GradientFlow, Hopfield, PredictiveCoding, Stopping
from energax.activations import Sigmoid, Tanh
from energax.graph.networks import mlp
from energax.rules import Adjoint, Backprop, RandomSign, centred, holomorphic, nudge, one_sided, richardson
from energax.solvers import Alternating, Synchronous
from oracles import batch_for, gradient, relative, slope

FLOW = GradientFlow(1.0, momentum=0.5, stop=Stopping(1e-12, 3000))
SWEEPS = FixedPoint(stop=Stopping(1e-13, 400))


def errors(quadrature, betas, dynamics, graph, batch, solver, expected):
    return [relative(gradient(Contrastive(quadrature(b)), dynamics, graph, batch, solver), expected) for b in betas]


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("output_state", [True, False], ids=["free", "direct"])
@pytest.mark.parametrize(
    ("quadrature", "betas", "order"),
    [
        (nudge, np.logspace(-6, -2.5, 7), 1),
        (one_sided, np.logspace(-6, -2.5, 7), 1),
        (centred, np.logspace(-4, -1.5, 7), 2),
        (richardson, np.logspace(-4, -1.5, 7), 2),
    ],
)
def test_predictive_coding_tends_to_backprop(quadrature, betas, order, output_state):
    graph = mlp([4, 6, 5, 3], jnp.tanh, output_state=output_state, key=jax.random.key(0))
    batch = batch_for(graph, 4)
    dynamics = PredictiveCoding(CrossEntropy())
    expected = gradient(Backprop(), dynamics, graph, batch)
    assert abs(slope(betas, errors(quadrature, betas, dynamics, graph, batch, FLOW, expected)) - order) < 0.03 * order


def hopfield(activation):
    graph = mlp([4, 6, 5, 3], activation, gain=0.8, key=jax.random.key(0))
    batch = batch_for(graph, 4)
    return Hopfield(), graph, batch


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("activation", [Tanh(), Sigmoid()], ids=["tanh", "sigmoid"])
@pytest.mark.parametrize(
    ("quadrature", "betas", "order"),
    [
        (one_sided, np.logspace(-6, -2.5, 7), 1),
        (centred, np.logspace(-4, -1.5, 7), 2),
        (richardson, np.logspace(-4, -1.5, 7), 2),
    ],
)
def test_equilibrium_propagation_tends_to_the_adjoint(quadrature, betas, order, activation):
    dynamics, graph, batch = hopfield(activation)
    expected = gradient(Adjoint(), dynamics, graph, batch, SWEEPS)
    assert abs(slope(betas, errors(quadrature, betas, dynamics, graph, batch, SWEEPS, expected)) - order) < 0.03 * order


@pytest.mark.parametrize(
    ("points", "activation", "radii", "order"),
    [
        (4, Tanh(), np.logspace(-1.9, -0.9, 7), Synchronous()),
        (4, Tanh(), np.logspace(-1.9, -0.9, 7), Alternating()),
        (4, Sigmoid(), np.logspace(-1.7, -0.5, 7), Alternating()),
        (8, Tanh(), np.logspace(-1.4, -0.8, 7), Alternating()),
        (8, Sigmoid(), np.logspace(-0.8, -0.2, 7), Synchronous()),
    ],
)
def test_holomorphic_nudging_has_the_order_of_its_points(points, activation, radii, order):
    dynamics, graph, batch = hopfield(activation)
    solver = FixedPoint(order, Stopping(1e-13, 400))
    expected = gradient(Adjoint(), dynamics, graph, batch, solver)
    found = errors(lambda r: holomorphic(r, points), radii, dynamics, graph, batch, solver, expected)
    assert abs(slope(radii, found) - points) < 0.03 * points


def test_holomorphic_nudging_of_predictive_coding_tends_to_backprop():
    """Oracle: backprop; complex gradient flow instead of block minimisers."""
    graph = mlp([4, 6, 5, 3], jnp.tanh, key=jax.random.key(0))
    batch = batch_for(graph, 4)
    dynamics = PredictiveCoding(CrossEntropy())
    expected = gradient(Backprop(), dynamics, graph, batch)
    radii = np.logspace(-1.7, -0.7, 7)
    found = errors(lambda r: holomorphic(r, 4), radii, dynamics, graph, batch, FLOW, expected)
    assert abs(slope(radii, found) - 4) < 0.12


@pytest.mark.usefixtures("strict")
def test_random_signs_average_to_centred_nudging():
    """Oracle: the mean of the two signs is centred nudging, exactly; each sign alone is one-sided nudging."""
    dynamics, graph, batch = hopfield(Tanh())
    one = Batch(batch.x[:1], batch.y[:1])
    rule = Contrastive(RandomSign(0.01))
    found = {}
    for seed in range(20):
        key = jax.random.key(seed)
        sign = int(jax.random.rademacher(key, (1, 1))[0, 0])
        if sign not in found:
            found[sign] = gradient(rule, dynamics, graph, Batch(one.x, one.y, key), SWEEPS)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, found[1], found[-1])
    expected = gradient(Contrastive(centred(0.01)), dynamics, graph, one, SWEEPS)
    assert relative(mean, expected) < 1e-9
    assert relative(found[1], gradient(Contrastive(one_sided(0.01)), dynamics, graph, one, SWEEPS)) < 1e-9
    exact = gradient(Adjoint(), dynamics, graph, one, SWEEPS)
    assert max(relative(found[1], exact), relative(found[-1], exact)) < 0.05
