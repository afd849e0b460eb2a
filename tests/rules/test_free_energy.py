"""FreeEnergy: closed forms of linear-Gaussian models, Hebb's rule, samples of a posterior, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energax as ex
from energax.activations import Tanh
from energax.exceptions import DataError, SettingError
from energax.graph.networks import mlp
from energax.layers import Linear
from energax.solvers import ErrorCoordinates, Verdict
from energax.training.learner import begin, update
from oracles import largest, numbers, relative

RULE = ex.FreeEnergy()
SOLVER = ex.ConjugateGradient(ex.Stopping(1e-13, 200))
PRIOR = {"z": ex.dynamics.GaussianPrior()}
PC = ex.PredictiveCoding(priors=PRIOR)


@eqx.filter_jit
def informed(rule, dynamics, graph, batch, solver):
    """The whole gradient, that of the dynamics' parameters as well, and the info."""
    found, _, info = rule(dynamics, graph, batch, solver, ())
    return found, info


def make_graph(observed=5, latents=2, *, bias=True, output="z"):
    """Latents above, an image below, linear."""
    return ex.Graph(
        nodes=[ex.Node("z", (latents,)), ex.Node("x", (observed,))],
        edges=[ex.Edge("z", "x", "down")],
        functions={"down": Linear(latents, observed, use_bias=bias, key=jax.random.key(0))},
        input="x",
        output=output,
    )


GRAPH = make_graph()
X = jax.random.normal(jax.random.key(1), (6, 5))


def free_energy(model, x):
    """F* = r^T (1 / Pi + W^T W)^-1 r / 2 - d / 2 log Pi, averaged: the latents settled."""
    layer, precision = model.graph.functions["down"], model.dynamics.learned["x"].value
    spread = jnp.eye(5) / precision + layer.weight.T @ layer.weight
    r = x - layer.bias
    return jnp.mean(jnp.sum(r * jnp.linalg.solve(spread, r.T).T, axis=1)) / 2 - 5 * jnp.log(precision) / 2


def test_the_gradient_is_that_of_the_closed_form():
    """Oracle: jax.grad of F* of factor analysis in weights, bias and log precision."""
    dynamics = ex.PredictiveCoding(priors=PRIOR, learned={"x": ex.LearnedPrecision(1.7)})
    found, info = informed(RULE, dynamics, GRAPH, ex.Batch(X), SOLVER)
    model = ex.Model(GRAPH, dynamics)
    parameters, rest = eqx.partition(model, eqx.is_inexact_array)
    exact = jax.grad(lambda given: free_energy(eqx.combine(given, rest), X))(parameters)
    assert relative(found.graph, exact.graph) < 1e-10
    assert relative(found.dynamics.learned, exact.dynamics.learned) < 1e-10
    assert np.all(info.phases["free"].result == Verdict.CONVERGED)
    assert np.all(np.isnan(info.cost))
    assert info.output.shape == (6, 2)


def test_training_finds_the_principal_subspace():
    """Oracle: min over W of tr(S (I + W^T W)^-1) / 2 + decay |W|^2 / 2 has W's rows along the first principal axes.

    Its squared singular values are sqrt(s / decay) - 1, with s the variances along them.
    """
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    x = rng.normal(size=(200, 5)) * np.array([3.0, 2.0, 0.7, 0.5, 0.3]) @ basis.T
    decay = 0.2
    optimiser = optax.chain(optax.add_decayed_weights(decay), optax.sgd(0.3))
    learner = ex.Learner(make_graph(bias=False), PC, ex.ConjugateGradient(ex.Stopping(1e-8, 50)), RULE, optimiser)
    progress, step, batch = begin(learner), eqx.filter_jit(update), ex.Batch(jnp.asarray(x))
    for _ in range(400):
        progress, _ = step(learner, progress, batch)
    weight = np.asarray(progress.model.graph.functions["down"].weight)
    variances, axes = np.linalg.eigh(x.T @ x / len(x))
    variances, axes = variances[::-1][:2], axes[:, ::-1][:, :2]
    _, sizes, found = np.linalg.svd(weight, full_matrices=False)
    np.testing.assert_allclose(sizes**2, np.sqrt(variances / decay) - 1, rtol=1e-3)
    assert np.linalg.norm(found @ axes, -2) > 1 - 1e-6  # the smallest cosine between the two planes


def test_samples_give_the_gradient_of_the_evidence():
    """Oracle: -dlog p(x)/dW of probabilistic PCA, within five standard errors of the mean of the samples' gradients."""
    x = jnp.tile(X[:2], (5000, 1))
    solver = ex.Langevin(0.3, steps=60)
    found, info = informed(RULE, PC, GRAPH, ex.Batch(x, key=jax.random.key(3)), solver)
    assert np.all(info.phases["free"].result == Verdict.SAMPLED)
    layer = GRAPH.functions["down"]

    def evidence(weight):
        spread, r = jnp.eye(5) + weight.T @ weight, X[:2] - layer.bias
        fit = jnp.mean(jnp.sum(r * jnp.linalg.solve(spread, r.T).T, axis=1)) / 2
        return fit + jnp.linalg.slogdet(spread)[1] / 2

    exact = jax.grad(evidence)(layer.weight)
    assert np.all(np.abs(found.graph.functions["down"].weight - exact) < 5 * spread_of_gradient(X[:2], 5000))
    settled = informed(RULE, PC, GRAPH, ex.Batch(X[:2]), SOLVER)[0].graph.functions["down"].weight
    assert np.max(np.abs(settled - exact) / spread_of_gradient(X[:2], 5000)) > 20  # the likeliest latents give another


def spread_of_gradient(x, times):
    """Standard error of the mean of dE/dW over `times` exact samples of every row's posterior."""
    weight, bias = (np.asarray(a) for a in (GRAPH.functions["down"].weight, GRAPH.functions["down"].bias))
    covariance, r = np.linalg.inv(np.eye(2) + weight @ weight.T), np.asarray(x) - bias
    noise = np.random.default_rng(0).multivariate_normal(np.zeros(2), covariance, (20000, len(r)))
    z = noise + r @ weight.T @ covariance
    each = np.einsum("sbi,sbj->sbij", z, r - z @ weight)
    return np.sqrt(np.mean(each.var(axis=0), axis=0) / (times * len(r)))


def test_with_everything_clamped_it_is_hebbs_rule():
    """Oracle: -mean v v^T."""
    graph = ex.Graph(
        [ex.Node("v", (4,), "tanh")],
        [ex.Edge("v", "v", "self")],
        {"self": Linear(4, 4, use_bias=False, key=jax.random.key(0)), "tanh": Tanh()},
        input="v",
        output="v",
    )
    v = jnp.sign(X[:, :4])
    found, info = informed(RULE, ex.Hopfield(), graph, ex.Batch(v), ex.FixedPoint())
    np.testing.assert_allclose(found.graph.functions["self"].weight, -v.T @ v / 6, rtol=1e-12)
    assert info.phases["free"].known
    with pytest.raises(DataError, match="every node is clamped"):
        ex.relax(ex.Hopfield(), graph, ex.FixedPoint(), clamp={"v": v})


def test_rows_that_hold_no_numbers_and_weights():
    """Oracle: the closed form's gradient of the other rows, a row of weight 2 counted twice."""
    broken = ex.Batch(X.at[1, 0].set(jnp.nan), weights=jnp.array([1.0, 1.0, 2.0, 0.0, 1.0, 1.0]))
    found, info = informed(RULE, PC, GRAPH, broken, SOLVER)
    rows = np.array([0, 2, 2, 4, 5])
    expected, _ = informed(RULE, PC, GRAPH, ex.Batch(X[rows]), SOLVER)
    assert relative(jax.tree.map(lambda g: g * 6 / 5, found), expected) < 1e-10
    assert list(np.asarray(info.phases["free"].result) == Verdict.DIVERGED) == [False, True, False, False, False, False]


def test_the_output_of_a_clamped_node_is_its_reconstruction():
    """Oracle: W z + b at the closed form's latents."""
    _, info = informed(RULE, PC, make_graph(output="x"), ex.Batch(X, X), SOLVER)
    layer = GRAPH.functions["down"]
    latents = jnp.linalg.solve(jnp.eye(2) + layer.weight @ layer.weight.T, layer.weight @ (X - layer.bias).T).T
    assert largest(info.output, latents @ layer.weight + layer.bias) < 1e-11
    np.testing.assert_allclose(info.cost, jnp.sum((info.output - X) ** 2, axis=1) / 2)


def test_the_regime_compares_with_a_careful_equilibrium():
    """Oracle: the cosine of two calls of the rule, one with a loose solver and one that is solved to rounding."""
    loose = ex.GradientFlow(0.1, stop=ex.Stopping(0.5, 200))
    measured = eqx.filter_jit(ex.diagnostics.measure_regime)(PC, GRAPH, ex.Batch(X), loose, RULE)
    a, b = (numbers(informed(RULE, PC, GRAPH, ex.Batch(X), solver)[0]) for solver in (loose, SOLVER))
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert measured.reference == "free-energy"
    assert float(measured.cosine["all"]) == pytest.approx(expected, abs=1e-6)
    assert expected < 0.995
    assert (float(measured.converged), float(measured.sampled)) == (1, 0)


NET = mlp([4, 5, 3], Tanh(), key=jax.random.key(0))


@pytest.mark.parametrize(
    ("dynamics", "graph", "solver", "message"),
    [
        (ex.Hopfield(), NET, ex.FixedPoint(), r"they follow without end while some are free \(hidden1, output\)"),
        (ex.PredictiveCoding(), NET, SOLVER, r"no edge enters what is clamped \(input\)"),
        (ex.LeakyDirected(), NET, SOLVER, "FreeEnergy differentiates an energy, and LeakyDirected has none"),
        (PC, GRAPH, ex.ConjugateGradient(coordinates=ErrorCoordinates()), "nothing arrives at 'z'"),
    ],
)
def test_what_does_not_combine_is_refused(dynamics, graph, solver, message):
    with pytest.raises(SettingError, match=message):
        RULE(dynamics, graph, ex.Batch(X[:, :4] if graph is NET else X), solver, ())
