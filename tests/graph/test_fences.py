"""Several inputs and outputs, priors and latents, edges into and out of axes, and what is still refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax.activations import Tanh
from energax.dynamics import GaussianPrior, LaplacePrior
from energax.dynamics.phase import prepare_phase
from energax.exceptions import DataError, GraphError, SettingError
from energax.graph import EVERY, At
from energax.graph.parts import Axis
from energax.graph.unrolling import unroll
from energax.layers import Identity, Linear
from energax.rules import centred, nudge, unit_nudge
from energax.solvers import ErrorCoordinates, Synchronous
from oracles import gradient, relative

pytestmark = pytest.mark.usefixtures("strict")

KEYS = jax.random.split(jax.random.key(0), 8)
COSTS = {"class": ex.CrossEntropy(), "value": ex.SquaredError()}
STRICT = ex.ConjugateGradient(ex.Stopping(1e-11, 300))


def forked(state=True, activation=None):
    """Two inputs, one hidden node, two outputs: `class` direct or a state, `value` a state."""
    return ex.Graph(
        nodes=[
            ex.Node("left", (3,)),
            ex.Node("right", (2,)),
            ex.Node("h", (5,), "act"),
            ex.Node("class", (3,), state=state),
            ex.Node("value", (2,)),
        ],
        edges=[
            ex.Edge("left", "h", "a"),
            ex.Edge("right", "h", "b"),
            ex.Edge("h", "class", "c"),
            ex.Edge("h", "value", "d"),
        ],
        functions={
            "a": Linear(3, 5, key=KEYS[0]),
            "b": Linear(2, 5, key=KEYS[1]),
            "c": Linear(5, 3, key=KEYS[2]),
            "d": Linear(5, 2, key=KEYS[3]),
            "act": activation or Tanh(),
        },
        input=("left", "right"),
        output=("class", "value"),
    )


def batch(size=4):
    x = {"left": jax.random.normal(KEYS[4], (size, 3)), "right": jax.random.normal(KEYS[5], (size, 2))}
    y = {"class": jax.nn.one_hot(jnp.arange(size) % 3, 3, dtype=float), "value": jax.random.normal(KEYS[6], (size, 2))}
    return ex.Batch(x, y)


def by_hand(graph, given):
    """Backprop of a network written out."""

    def cost(functions):
        h = jnp.tanh(jax.vmap(functions["a"])(given.x["left"]) + jax.vmap(functions["b"])(given.x["right"]))
        first = COSTS["class"](jax.vmap(functions["c"])(h), given.y["class"])
        return jnp.mean(first + COSTS["value"](jax.vmap(functions["d"])(h), given.y["value"]))

    return jax.grad(cost)({name: graph.functions[name] for name in "abcd"})


@pytest.mark.parametrize("state", [True, False], ids=["states", "one_direct"])
def test_several_inputs_and_outputs_follow_backprop(state):
    """Oracle: the network by hand; the nudged rules in the limit of a small nudge."""
    graph, given = forked(state), batch()
    expected = by_hand(graph, given)
    dynamics = ex.PredictiveCoding(COSTS)
    errors = ex.ConjugateGradient(ex.Stopping(1e-11, 300), ErrorCoordinates())
    for rule, solver, within in (
        (ex.Backprop(), STRICT, 1e-12),
        (ex.FirstStep(), STRICT, 1e-12),
        (ex.Adjoint(), STRICT, 1e-8),
        (ex.Contrastive(nudge(1e-6)), STRICT, 1e-4),
        (ex.Contrastive(nudge(1e-6)), errors, 1e-4),
    ):
        found = gradient(rule, dynamics, graph, given, solver).functions
        assert relative({name: found[name] for name in "abcd"}, expected) < within


@pytest.mark.parametrize("state", [True, False], ids=["states", "one_direct"])
def test_hopfield_nets_of_several_outputs_follow_the_adjoint(state):
    """Oracle: implicit differentiation at the free equilibrium."""
    graph, given = forked(state), batch()
    costs = {"class": ex.CrossEntropy() if not state else ex.SquaredError(), "value": ex.SquaredError()}
    dynamics, solver = ex.Hopfield(costs), ex.FixedPoint(stop=ex.Stopping(1e-12, 2000))
    exact = gradient(ex.Adjoint(), dynamics, graph, given, solver)
    found = gradient(ex.Contrastive(centred(1e-4)), dynamics, graph, given, solver)
    assert relative(found, exact) < 1e-6


def test_costs_and_data_name_every_end():
    graph, given = forked(), batch()
    with pytest.raises(DataError, match="one array for the inputs left, right: give a mapping"):
        graph.clamp(given.x["left"])
    with pytest.raises(DataError, match="costs for class, and the graph's outputs are class, value"):
        gradient(ex.Backprop(), ex.PredictiveCoding({"class": ex.CrossEntropy()}), graph, given)
    with pytest.raises(SettingError, match="cost of output 'class'=the class CrossEntropy: give an instance"):
        ex.PredictiveCoding({"class": ex.CrossEntropy})  # type: ignore[dict-item]


def generative(latents=2):
    """A latent above an image, which is clamped at the bottom."""
    return ex.Graph(
        nodes=[ex.Node("z", (latents,)), ex.Node("image", (5,))],
        edges=[ex.Edge("z", "image", "down")],
        functions={"down": Linear(latents, 5, key=KEYS[0])},
        input="image",
        output="image",
    )


def test_a_latent_above_a_clamped_image_settles_to_its_posterior_mean():
    """Oracle: the normal equations of a Gaussian prior and a linear map."""
    graph, prior = generative(), GaussianPrior(0.5, 2.0)
    image = jax.random.normal(KEYS[1], (6, 5))
    dynamics = ex.PredictiveCoding(precisions={"image": 3.0}, priors={"z": prior})
    found = ex.relax(dynamics, graph, STRICT, clamp={"image": image})
    w, b = graph.functions["down"].weight, graph.functions["down"].bias
    expected = jnp.linalg.solve(2.0 * jnp.eye(2) + 3.0 * w @ w.T, (1.0 + 3.0 * (image - b) @ w.T).T).T
    np.testing.assert_allclose(found.states["z"], expected, rtol=1e-9)
    assert np.all(found.result == ex.Verdict.CONVERGED)


def test_a_laplace_prior_settles_to_a_sparse_code():
    """Oracle: the gradient of the written-out energy at the settled code; and more zeros than under a Gaussian."""
    graph, image = generative(8), jax.random.normal(KEYS[1], (3, 5))
    codes = {}
    for name, prior in {"gauss": GaussianPrior(), "laplace": LaplacePrior(0.5, 1e-2)}.items():
        dynamics = ex.PredictiveCoding(precisions={"image": 10.0}, priors={"z": prior})
        solver = ex.ConjugateGradient(ex.Stopping(1e-6, 3000))
        codes[name] = ex.relax(dynamics, graph, solver, clamp={"image": image}).states["z"]
    layer = graph.functions["down"]

    def energy(z):
        return jnp.sum(5.0 * (image - jax.vmap(layer)(z)) ** 2) + jnp.sum(jnp.sqrt(z**2 + 1e-4)) / 0.5

    assert float(jnp.max(jnp.abs(jax.grad(energy)(codes["laplace"])))) < 1e-3
    small = {name: float(jnp.mean(jnp.abs(code) < 0.02)) for name, code in codes.items()}
    assert small["laplace"] > small["gauss"] + 0.1


def test_a_prior_stands_where_nothing_predicts():
    graph = generative()
    with pytest.raises(SettingError, match="'image' is predicted: a prior is for nodes that nothing predicts"):
        prepare_phase(ex.PredictiveCoding(priors={"image": GaussianPrior()}), graph, graph.clamp(jnp.ones((2, 5))))
    with pytest.raises(SettingError, match="'image' is predicted"):
        ex.Predictor(graph, ex.PredictiveCoding(priors={"image": GaussianPrior()}), ex.GradientFlow())
    solver = ex.ConjugateGradient(coordinates=ErrorCoordinates())
    with pytest.raises(SettingError, match="nothing arrives at 'z'"):
        ex.relax(ex.PredictiveCoding(), graph, solver, clamp={"image": jnp.ones((2, 5))})


TIME = Axis("time", 4)


def still(enter=EVERY, output=None, leave=None, function=None):
    """A still input shown along a recurrent node, which is read out."""
    return ex.Graph(
        nodes=[ex.Node("x", (3,)), ex.Node("h", (5,), "act", axes=(TIME,)), ex.Node("y", (2,))],
        edges=[
            ex.Edge("x", At("h", time=enter), "in"),
            ex.Edge("h", "h", "again", 1),
            ex.Edge("h" if leave is None else At("h", time=leave), "y", "out"),
        ],
        functions={
            "in": Linear(3, 5, key=KEYS[0]),
            "again": Linear(5, 5, key=KEYS[1]),
            "out": function or Linear(5, 2, key=KEYS[2]),
            "act": Tanh(),
        },
        input="x",
        output=output or "y",
    )


def walked(graph, x, shown):
    """The hidden states, step after step; `shown` says at which the input arrives."""
    f, h, states = graph.functions, jnp.zeros((len(x), 5)), []
    for step in range(TIME.length):
        arriving = jax.vmap(f["in"])(x) if shown(step) else jnp.zeros((len(x), 5))
        h = jnp.tanh(arriving + (jax.vmap(f["again"])(h) if step else 0))
        states.append(h)
    return jnp.stack(states, axis=1)


@pytest.mark.parametrize("enter", [EVERY, 0, 2, -1])
@pytest.mark.parametrize("leave", [EVERY, 0, -1])
def test_edges_enter_and_leave_where_they_are_told(enter, leave):
    """Oracle: the net written out step by step, and the net of separate nodes."""
    graph, x = still(enter, leave=leave), jax.random.normal(KEYS[3], (4, 3))
    states = graph.sweep(x)
    h = walked(graph, x, lambda step: enter == EVERY or step == enter % TIME.length)
    np.testing.assert_allclose(states["h"], h, rtol=1e-12)
    read = [jax.vmap(graph.functions["out"])(h[:, i]) for i in (range(TIME.length) if leave == EVERY else [leave])]
    np.testing.assert_allclose(states["y"], sum(read), rtol=1e-12)
    if enter not in (EVERY, 0):  # nothing arrives at the first of the separate nodes
        return
    separate = unroll(graph, TIME)
    np.testing.assert_allclose(separate.output_value(separate.sweep(x)), states["y"], rtol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_an_output_of_every_position_becomes_an_output_for_each(length):
    """Oracle: the states of the stacked net, position by position."""
    axis = Axis("time", length)
    graph = ex.Graph(
        nodes=[ex.Node("x", (3,)), ex.Node("h", (4,), "act", axes=(axis,))],
        edges=[ex.Edge("x", At("h", time=EVERY), "in"), *([ex.Edge("h", "h", "again", 1)] if length > 1 else [])],
        functions={"in": Linear(3, 4, key=KEYS[0]), "again": Linear(4, 4, key=KEYS[1]), "act": Tanh()},
        input="x",
        output=At("h", time=EVERY),
    )
    x, separate = jax.random.normal(KEYS[3], (2, 3)), unroll(graph, axis)
    found = separate.output_value(separate.sweep(x))
    found = list(found.values()) if length > 1 else [found]
    assert len(found) == length
    np.testing.assert_allclose(jnp.stack(found, axis=1), graph.sweep(x)["h"], rtol=1e-12)


@pytest.mark.parametrize("place", [EVERY, 1, -1])
def test_the_cost_reads_a_chosen_position_or_all(place):
    """Oracle: backprop of the written-out net, for the cost of one step or of all; PC-Nudge in its limit."""
    graph, x = still(output=At("h", time=place), leave=-1), jax.random.normal(KEYS[3], (4, 3))
    y = jax.random.normal(KEYS[4], (4, TIME.length, 5) if place == EVERY else (4, 5))

    def cost(functions):
        h = walked(eqx.tree_at(lambda g: g.functions, graph, graph.functions | functions), x, lambda _: True)
        return jnp.mean(jnp.sum(((h if place == EVERY else h[:, place]) - y) ** 2, axis=tuple(range(1, y.ndim)))) / 2

    expected = jax.grad(cost)({name: graph.functions[name] for name in ("in", "again")})
    for rule, within in ((ex.Backprop(), 1e-12), (ex.FirstStep(), 1e-12), (ex.Contrastive(nudge(1e-6)), 1e-4)):
        found = gradient(rule, ex.PredictiveCoding(), graph, ex.Batch(x, y), STRICT).functions
        assert relative({name: found[name] for name in ("in", "again")}, expected) < within


@pytest.mark.parametrize("place", [EVERY, 1])
def test_hopfield_nets_are_nudged_where_the_cost_reads(place):
    """Oracle: implicit differentiation."""
    graph, x = still(output=At("h", time=place)), jax.random.normal(KEYS[3], (3, 3))
    y = jax.random.normal(KEYS[4], (3, TIME.length, 5) if place == EVERY else (3, 5))
    dynamics, solver = ex.Hopfield(), ex.FixedPoint(Synchronous(), ex.Stopping(1e-12, 3000))
    graph = eqx.tree_at(lambda g: g.functions["again"].weight, graph, graph.functions["again"].weight * 0.3)
    exact = gradient(ex.Adjoint(), dynamics, graph, ex.Batch(x, y), solver)
    found = gradient(ex.Contrastive(centred(1e-4)), dynamics, graph, ex.Batch(x, y), solver)
    assert relative(found, exact) < 1e-6


def test_a_still_input_is_mapped_once():
    """Oracle: the definition; how often the map is traced and how large its input is."""
    seen = []

    class Counting(Linear):
        def __call__(self, x):
            seen.append(x.shape)
            return super().__call__(x)

    graph = eqx.tree_at(lambda g: g.functions["in"], still(), Counting(3, 5, key=KEYS[0]))
    seen.clear()
    text = jax.jit(lambda x: graph.sweep(x)["h"]).lower(jnp.ones((7, 3))).as_text()
    assert len(seen) == 1
    assert "tensor<7x4x3x" not in text  # the input is not repeated along time before its map


def test_a_cycle_through_the_clamped_input_alone_has_a_sweep():
    """Oracle: the same net without the edge into the input."""
    nodes = [ex.Node("x", (3,)), ex.Node("h", (3,), "act")]
    functions = {"in": Linear(3, 3, key=KEYS[0]), "back": Linear(3, 3, key=KEYS[1]), "act": Tanh()}
    there, back = ex.Edge("x", "h", "in"), ex.Edge("h", "x", "back")
    cyclic = ex.Graph(nodes, [there, back], functions, "x", "h")
    chain = ex.Graph(nodes, [there], {n: functions[n] for n in ("in", "act")}, "x", "h")
    x = jax.random.normal(KEYS[2], (4, 3))
    np.testing.assert_allclose(cyclic.sweep(x)["h"], chain.sweep(x)["h"], rtol=1e-14)
    found = ex.relax(ex.PredictiveCoding(), cyclic, STRICT, clamp={"x": x})
    phase = prepare_phase(ex.PredictiveCoding(), cyclic, cyclic.clamp(x))
    assert float(jnp.max(jnp.abs(phase.force(found.states)["h"]))) < 1e-8
    assert float(jnp.max(jnp.abs(found.states["h"] - chain.sweep(x)["h"]))) > 1e-3  # the error at x pulls on h


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: still(enter=4), r"position 4 of the axis 'time', which has 4: give a number from -4 to 3, or EVERY"),
        (lambda: still(leave=-5), "position -5 of the axis 'time'"),
        (lambda: still(output=At("y", time=0)), "output 'y': no axis time there; the axes are: none"),
        (
            lambda: ex.Graph(
                [ex.Node("x", (3,)), ex.Node("y", (3,)), ex.Node("lost", (2,)), ex.Node("too", (2,))],
                [ex.Edge("x", "y", "f"), ex.Edge("lost", "too", "f")],
                {"f": Identity()},
                "x",
                "y",
            ),
            r"node 'lost' is joined to no input and no output \(x, y\): nothing would move it",
        ),
        (
            lambda: ex.Graph(
                [ex.Node("x", (3,)), ex.Node("d", (3,), state=False), ex.Node("y", (3,))],
                [ex.Edge("x", "y", "f"), ex.Edge("d", "y", "f")],
                {"f": Identity()},
                "x",
                "y",
            ),
            "node 'd' holds no state and nothing arrives at it",
        ),
        (
            lambda: ex.Graph(
                [ex.Node("x", (3,)), ex.Node("h", (3,), axes=(TIME,)), ex.Node("y", (3,), axes=(TIME,))],
                [ex.Edge("x", "h", "f"), ex.Edge("h", At("y", time=0), "f")],
                {"f": Identity()},
                "x",
                "y",
            ),
            "names a position of 'time', which both ends have: give a delay instead",
        ),
        (lambda: ex.Graph([ex.Node("x", (3,))], [], {}, ("x", "x"), "x"), "the input 'x' is named twice"),
    ],
)
def test_what_is_no_place_is_refused(make, message):
    with pytest.raises(GraphError, match=message):
        make()


def test_relax_names_what_nothing_moves():
    """A part of the graph whose input is not clamped, and that no start is given for."""
    graph = ex.Graph(
        [ex.Node("x", (2,)), ex.Node("y", (2,)), ex.Node("a", (2,)), ex.Node("b", (2,))],
        [ex.Edge("x", "y", "f"), ex.Edge("a", "b", "f")],
        {"f": Identity()},
        ("x", "a"),
        ("y", "b"),
    )
    with pytest.raises(GraphError, match="nothing moves a, b: clamp a node that they are joined to, or start them"):
        ex.relax(ex.PredictiveCoding(COSTS), graph, STRICT, clamp={"x": jnp.ones((2, 2))})


def test_unit_nudge_trains_a_generative_net():
    """Oracle: dE/dtheta at the posterior mean, by hand."""
    graph, image = generative(), jax.random.normal(KEYS[1], (6, 5))
    dynamics = ex.PredictiveCoding(priors={"z": GaussianPrior()})
    found = gradient(ex.Contrastive(unit_nudge()), dynamics, graph, ex.Batch(image, image), STRICT)
    w, b = graph.functions["down"].weight, graph.functions["down"].bias
    z = jnp.linalg.solve(jnp.eye(2) + w @ w.T, ((image - b) @ w.T).T).T
    error = image - z @ w - b
    np.testing.assert_allclose(found.functions["down"].weight, -z.T @ error / 6, rtol=1e-7, atol=1e-9)
