"""Known units of a node, sample by sample: conditional means, nodes split by hand, and what cannot take them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax.activations import Tanh
from energax.dynamics.phase import prepare_phase
from energax.exceptions import DataError, SettingError
from energax.graph.clamping import hold
from energax.graph.networks import mlp
from energax.layers import Linear
from energax.rules import DyadicEP, centred, nudge, unit_nudge
from energax.solvers import ErrorCoordinates, Verdict
from oracles import central_differences, gradient, informed, largest, relative

PC = ex.PredictiveCoding(priors={"z": ex.dynamics.GaussianPrior()})
DOWN = Linear(2, 5, key=jax.random.key(0))
GRAPH = ex.Graph([ex.Node("z", (2,)), ex.Node("x", (5,))], [ex.Edge("z", "x", "down")], {"down": DOWN}, "x", "z")
X = jax.random.normal(jax.random.key(1), (40, 5))
MASK = jax.random.bernoulli(jax.random.key(2), 0.6, X.shape)
RAW = jnp.where(MASK, X, jnp.nan)
EXACT = ex.ConjugateGradient(ex.Stopping(1e-13, 100))


def conditional_means():
    """Latents and images of the linear-Gaussian model given the known units, row by row."""
    weight, bias = np.asarray(DOWN.weight), np.asarray(DOWN.bias)
    latents, images = [], []
    for x, known in zip(np.asarray(X), np.asarray(MASK), strict=True):
        part = weight[:, known]
        z = np.linalg.solve(np.eye(2) + part @ part.T, part @ (x - bias)[known])
        latents.append(z)
        images.append(np.where(known, x, z @ weight + bias))
    return {"z": np.array(latents), "x": np.array(images)}


@pytest.mark.parametrize(
    "solver",
    [EXACT, ex.GradientFlow(0.5, momentum=0.5, stop=ex.Stopping(1e-12, 3000))],
    ids=["conjugate_gradient", "flow"],
)
def test_missing_values_settle_at_their_conditional_means(solver):
    """Oracle: the closed form, every row with a mask of its own; slow rows are gathered with their masks."""
    found = ex.relax(PC, GRAPH, solver, clamp={"x": RAW}, known={"x": MASK})
    assert np.all(found.result == Verdict.CONVERGED)
    assert largest(found.states, conditional_means()) < 1e-9
    np.testing.assert_array_equal(found.states["x"][MASK], X[MASK])


def split(graph, tail: int):
    """The same net with the first units of x in a node of their own."""
    functions = {
        "head": eqx.tree_at(lambda f: (f.weight, f.bias), DOWN, (DOWN.weight[:, tail:], DOWN.bias[tail:])),
        "tail": eqx.tree_at(lambda f: (f.weight, f.bias), DOWN, (DOWN.weight[:, :tail], DOWN.bias[:tail])),
    }
    nodes = [ex.Node("z", (2,)), ex.Node("a", (tail,)), ex.Node("b", (5 - tail,))]
    return ex.Graph(nodes, [ex.Edge("z", "a", "tail"), ex.Edge("z", "b", "head")], functions, "a", "z")


def test_it_is_the_node_split_by_hand():
    """Oracle: two nodes, of which one is clamped: states, steps, residuals and the gradient of E."""
    solver = ex.GradientFlow(0.2, stop=ex.Stopping(1e-3, 500))
    mask = jnp.broadcast_to(jnp.arange(5) < 3, X.shape)
    one = ex.relax(PC, GRAPH, solver, clamp={"x": X}, known={"x": mask})
    two = ex.relax(PC, split(GRAPH, 3), solver, clamp={"a": X[:, :3]})
    assert largest(one.states["x"][:, 3:], two.states["b"]) < 1e-6
    np.testing.assert_allclose(one.residual, two.residual, rtol=1e-3)
    np.testing.assert_array_equal(one.result, two.result)
    np.testing.assert_array_equal(one.steps, two.steps)
    found = gradient(ex.FreeEnergy(), PC, GRAPH, ex.Batch(X, known={"x": mask}), EXACT).functions["down"]
    halves = gradient(ex.FreeEnergy(), PC, split(GRAPH, 3), ex.Batch({"a": X[:, :3]}), EXACT).functions
    assert largest(found.weight, jnp.concatenate([halves["tail"].weight, halves["head"].weight], axis=1)) < 1e-12


NET = mlp([4, 5, 3], Tanh(), gain=0.9, key=jax.random.key(0))
SWEEPS = ex.FixedPoint(stop=ex.Stopping(1e-13, 500))
BATCH = ex.Batch(2 * X[:6, :4], X[:6, :3] / 3)  # inputs beyond what tanh can return


@pytest.mark.parametrize(
    ("rule", "dynamics", "graph", "batch", "solver"),
    [
        (ex.FreeEnergy(), PC, GRAPH, ex.Batch(X), EXACT),
        (ex.Contrastive(centred(0.1)), ex.Hopfield(), NET, BATCH, SWEEPS),
        (ex.Contrastive(unit_nudge()), ex.PredictiveCoding(), NET, BATCH, EXACT),
        (ex.ContrastiveHebbian(), ex.Hopfield(), NET, BATCH, SWEEPS),
        (ex.VectorFieldRule(0.1), ex.LeakyDirected(), NET, BATCH, ex.GradientFlow(0.5, stop=ex.Stopping(1e-13, 900))),
    ],
    ids=["free_energy", "equilibrium_propagation", "predictive_coding", "hebbian", "directed"],
)
def test_a_mask_of_all_is_clamping(rule, dynamics, graph, batch, solver):
    """Oracle: the gradient without a mask."""
    name = graph.input
    known = {name: jnp.ones(batch.x.shape, bool)}
    found, info = informed(rule, dynamics, graph, ex.Batch(batch.x, batch.y, known=known), solver)
    assert relative(found, gradient(rule, dynamics, graph, batch, solver)) < 1e-12
    assert all(np.all(phase.result == Verdict.CONVERGED) for phase in info.phases.values())
    if not isinstance(dynamics, ex.LeakyDirected):  # which has no energy
        assert all(np.all(np.isfinite(phase.energy_after)) for phase in info.phases.values())


def test_a_mask_of_none_is_a_free_node():
    """Oracle: the same relaxation with the node left out of what is clamped."""
    clamp, nothing = {"input": BATCH.x}, {"output": jnp.full((6, 3), jnp.nan)}
    known = {"output": jnp.zeros((6, 3), bool)}
    found = ex.relax(ex.Hopfield(), NET, SWEEPS, clamp={**clamp, **nothing}, known=known)
    expected = ex.relax(ex.Hopfield(), NET, SWEEPS, clamp=clamp)
    assert largest(found.states, expected.states) < 1e-13
    np.testing.assert_array_equal(found.steps, expected.steps)


def test_blocks_and_flow_meet_at_the_same_recall():
    """Oracle: another solver, which goes along the force and takes no block; known units of both ends stay put."""
    clamp = {"input": BATCH.x / 4, "output": BATCH.y}
    known = {name: jax.random.bernoulli(jax.random.key(7), 0.5, value.shape) for name, value in clamp.items()}
    flow = ex.GradientFlow(0.5, stop=ex.Stopping(1e-12, 2000))
    by_blocks, by_flow = (ex.relax(ex.Hopfield(), NET, s, clamp=clamp, known=known) for s in (SWEEPS, flow))
    assert np.all(by_blocks.result == Verdict.CONVERGED)
    assert largest(by_blocks.states, by_flow.states) < 1e-10
    for name, mask in known.items():
        np.testing.assert_array_equal(by_blocks.states[name][mask], clamp[name][mask])
        assert np.all(by_blocks.states[name][~mask] != clamp[name][~mask])


def test_a_contrast_of_masked_phases_follows_the_adjoint():
    """Oracle: implicit differentiation; nudged phases are tiled with their masks."""
    known = {"input": jax.random.bernoulli(jax.random.key(8), 0.6, BATCH.x.shape)}
    batch = ex.Batch(jnp.where(known["input"], BATCH.x / 4, jnp.nan), BATCH.y, known=known)
    solver = ex.GradientFlow(0.3, stop=ex.Stopping(1e-12, 4000))
    rules = (ex.Contrastive(centred(1e-3)), ex.Adjoint())
    found, expected = (gradient(rule, ex.ScellierBengio(), NET, batch, solver) for rule in rules)
    assert relative(found, expected) < 1e-5


def test_the_derivative_by_known_values():
    """Oracle: finite differences; what is not known has no derivative."""

    def of(values):
        clamp = {"x": jnp.where(MASK[:2], values.reshape(2, 5), jnp.nan)}
        return jnp.sum(ex.relax(PC, GRAPH, EXACT, clamp=clamp, known={"x": MASK[:2]}).states["x"] ** 3)

    at = X[:2].ravel()
    found = jax.jit(jax.grad(of))(at)
    np.testing.assert_allclose(found, central_differences(of, at), rtol=0, atol=1e-8)
    assert np.all(found[~MASK[:2].ravel()] == 0)


def test_a_known_value_that_is_no_number():
    """Oracle: the other rows; values that are not known are never looked at."""
    broken = RAW.at[1, int(jnp.argmax(MASK[1]))].set(jnp.nan)
    with pytest.raises(DataError, match=r"node 'x': value nan at index \(1, \d\); clamp finite numbers, and leave"):
        ex.relax(PC, GRAPH, EXACT, clamp={"x": broken}, known={"x": MASK})
    rest = np.delete(np.arange(6), 1)
    found, info = informed(ex.FreeEnergy(), PC, GRAPH, ex.Batch(broken[:6], known={"x": MASK[:6]}), EXACT)
    expected = gradient(ex.FreeEnergy(), PC, GRAPH, ex.Batch(RAW[rest], known={"x": MASK[rest]}), EXACT)
    assert relative(jax.tree.map(lambda g: g * 6 / 5, found), expected) < 1e-10
    np.testing.assert_array_equal(np.asarray(info.phases["free"].result) == Verdict.DIVERGED, np.arange(6) == 1)


def test_the_force_is_that_of_the_energy():
    """Oracle: central differences of the energy, at states of which known units are off their values."""
    phase = prepare_phase(PC, GRAPH, hold(GRAPH, {"x": RAW[:1]}, known={"x": MASK[:1]}))
    states = {"z": jnp.array([[0.3, -0.4]]), "x": X[:1] + 0.2}
    force = phase.force(states)
    for name, value in states.items():
        expected = central_differences(
            lambda v, name=name, value=value: phase.energy({**states, name: v.reshape(value.shape)})[0], value.ravel()
        )
        np.testing.assert_allclose(force[name].ravel(), -expected, atol=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hold(GRAPH, {"x": X}, known={"z": MASK}), "known: node 'z' is not clamped"),
        (lambda: hold(GRAPH, {"x": X}, known={"x": MASK[:, :4]}), r"'x' has shape \(40, 4\), and its values \(40, 5\)"),
        (lambda: hold(GRAPH, {"x": X}, known={"x": 1.0 * MASK}), "has dtype float64; give booleans, True where"),
        (
            lambda: ex.relax(
                PC, GRAPH, ex.ConjugateGradient(coordinates=ErrorCoordinates()), clamp={"x": X}, known={"x": MASK}
            ),
            "error coordinates move whole nodes, and of x some units are held; use StateCoordinates",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused(call, message):
    with pytest.raises((DataError, SettingError), match=message):
        call()


@pytest.mark.parametrize(
    ("rule", "dynamics", "where", "message"),
    [
        (ex.Backprop(), ex.PredictiveCoding(), "input", "Backprop sweeps forward, and of input some units are known"),
        (ex.FirstStep(), ex.PredictiveCoding(), "input", "FirstStep sweeps forward"),
        (DyadicEP(), ex.LeakyDirected(), "input", "DyadicEP settles errors, and of input some units hold states"),
        (ex.Contrastive(nudge(1e-3)), ex.PredictiveCoding(), "hidden1", "has a gradient of its own on this graph"),
    ],
)
def test_rules_that_cannot_take_them_say_so(rule, dynamics, where, message):
    values = {"input": BATCH.x, where: BATCH.x if where == "input" else X[:6]}
    batch = ex.Batch(values, BATCH.y, known={where: jnp.ones(values[where].shape, bool)})
    with pytest.raises(SettingError, match=message):
        rule(dynamics, NET, batch, ex.GradientFlow(), ())
