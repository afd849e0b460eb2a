"""Stacks of layers: one node with an axis is the same network as its layers one by one.

Oracle: the unrolled graph of separate nodes, edges and functions, whose own passes are tested against loops; and a
loop over the layers by hand for the residual net.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

import energax as ex
from energax import Edge, Graph, Node, PredictiveCoding
from energax.activations import Tanh
from energax.checks.means import energy_of, force_of
from energax.dynamics.phase import prepare_phase
from energax.exceptions import GraphError
from energax.graph.networks import residual_mlp
from energax.graph.parts import Axis
from energax.graph.stacking import Stacked
from energax.graph.unrolling import unroll
from energax.layers import Identity, Linear, is_analytic
from energax.rules import Backprop, Contrastive, FirstStep, Incremental, nudge, unit_nudge
from energax.solvers import Synchronous, Unbounded
from energax.training.learner import Learner, begin, update
from oracles import batch_for, flat, gradient, informed, largest, relative, skipping, solve, sweep

pytestmark = pytest.mark.usefixtures("strict")

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 16)
FLOW = ex.GradientFlow(0.1, stop=ex.Stopping(1e-3, 20, 0), bound=Unbounded())


class Gain(eqx.Module):
    """An activation with a parameter."""

    gain: jax.Array

    def __call__(self, x):
        return jnp.tanh(self.gain * x)


def layers(count, keys=KEYS, units=4):
    return [Linear(units, units, key=k) for k in keys[:count]]


def blocks(output_state=True):
    """(b) of the design: L blocks between an input and an output outside the axis."""
    return residual_mlp((4,), 5, 5, 3, jnp.tanh, output_state=output_state, key=KEY)


def woven(output_state=True):
    """Delays 1 and 2, stacked and shared functions, a stacked activation and a node without a state in the stack."""
    axis = Axis("depth", 6)
    return Graph(
        nodes=[
            Node("x", (4,)),
            Node("a", (4,), "gain", axes=(axis,)),
            Node("p", (4,), "act", state=False, axes=(axis,)),
            Node("y", (3,), state=output_state),
        ],
        edges=[
            Edge("x", "a", "in"),
            Edge("x", "p", "in"),
            Edge("p", "a", "near", delay=1),
            Edge("a", "a", "far", delay=2),
            Edge("a", "p", "same"),
            Edge("a", "a", "tied", delay=2),
            Edge("p", "y", "out"),
            Edge("x", "y", "past"),
        ],
        functions={
            "in": Linear(4, 4, key=KEYS[8]),
            "near": Stacked.of(layers(5), axis),
            "far": Stacked.of(layers(4, KEYS[5:]), axis),
            "same": Stacked.of(layers(6, KEYS[3:]), axis),
            "tied": Linear(4, 4, key=KEYS[9]),
            "out": Linear(4, 3, key=KEYS[10]),
            "past": Linear(4, 3, key=KEYS[11]),
            "gain": Stacked.of([Gain(jnp.full(4, 0.5 + i / 4)) for i in range(6)], axis),
            "act": jnp.tanh,
        },
        input="x",
        output="y",
    )


def stages(output_state=True):
    """Two stacks of different depth and width, the second entered from the end of the first."""
    one, two = Axis("one", 4), Axis("two", 3)
    return Graph(
        nodes=[
            Node("x", (4,)),
            Node("a", (4,), "act", axes=(one,)),
            Node("b", (3,), "act", axes=(two,)),
            Node("y", (3,), state=output_state),
        ],
        edges=[
            Edge("x", "a", "in"),
            Edge("a", "a", "first", delay=1),
            Edge("a", "b", "between"),
            Edge("b", "b", "second", delay=1),
            Edge("b", "b", "skip", delay=1),
            Edge("b", "y", "out"),
        ],
        functions={
            "in": Linear(4, 4, key=KEYS[8]),
            "first": Stacked.of(layers(3), one),
            "between": Linear(4, 3, key=KEYS[9]),
            "second": Stacked.of(layers(2, KEYS[3:], 3), two),
            "skip": Identity(),
            "out": Linear(3, 3, key=KEYS[10]),
            "act": jnp.tanh,
        },
        input="x",
        output="y",
    )


def timed(output_state=True):
    """(c) of the design: a stack of recurrent layers over time, with edges through time, depth and both."""
    axis = Axis("depth", 3)
    return Graph(
        nodes=[Node("x", (4,)), Node("h", (4,), "act", axes=(axis,)), Node("y", (3,), state=output_state)],
        edges=[
            Edge("x", "h", "in"),
            Edge("h", "h", "up", delay=(0, 1)),
            Edge("h", "h", "again", delay=(1, 0)),
            Edge("h", "h", "late", delay=(1, 1)),
            Edge("h", "y", "out", delay=1),
            Edge("x", "y", "past"),
        ],
        functions={
            "in": Linear(4, 4, key=KEYS[8]),
            "up": Stacked.of(layers(2), axis),
            "again": Stacked.of(layers(3, KEYS[3:]), axis),
            "late": Linear(4, 4, key=KEYS[7]),
            "out": Linear(4, 3, key=KEYS[9]),
            "past": Linear(4, 3, key=KEYS[10]),
            "act": jnp.tanh,
        },
        input="x",
        output="y",
        length=4,
    )


BUILDERS = [blocks, woven, stages, timed]


def apart(graph):
    """The same network without stacks."""
    for axis in own_axes(graph):
        graph = unroll(graph, axis)
    return graph


def own_axes(graph):
    return list(dict.fromkeys(axis for node in graph.nodes for axis in node.axes))


def split_states(graph, states):
    """States of a stack by the names of the unrolled graph."""
    found = {}
    for name, v in states.items():
        node = graph.node(name)
        if not node.axes:
            found[name] = v
            continue
        (axis,) = node.axes
        where = graph.axes(name).index(axis) + 1
        found |= {f"{name}{i}": jnp.take(v, i, axis=where) for i in range(axis.length)}
    return found


def split_functions(functions):
    """Parameters or gradients of stacked functions by the names of the unrolled graph."""
    found = {}
    for name, fn in functions.items():
        if isinstance(fn, Stacked):
            first = fn.axis.length - fn.positions
            found |= {f"{name}{first + i}": fn.at(i) for i in range(fn.positions)}
        else:
            found[name] = fn
    return found


def same(found, expected, tolerance=1e-12):
    assert set(found) == set(expected)
    for name in expected:
        assert flat(found[name]).shape == flat(expected[name]).shape, name
        np.testing.assert_allclose(flat(found[name]), flat(expected[name]), rtol=0, atol=tolerance, err_msg=name)


def random_states(graph, x):
    names = sorted(graph.free(graph.clamp(x)))
    keys = dict(zip(names, jax.random.split(KEY, len(names)), strict=True))
    return {n: jax.random.normal(keys[n], v.shape) for n, v in graph.zeros(names, x).items()}


@pytest.mark.parametrize("build", BUILDERS)
def test_sweep_and_predictions_equal_the_unrolled_graphs(build):
    graph = build()
    plain, x = apart(graph), batch_for(graph, 3).x
    assert not own_axes(plain)
    assert len(plain.nodes) > len(graph.nodes)
    same(split_states(graph, sweep(graph, x)), sweep(plain, x))
    errors = random_states(graph, x)
    same(split_states(graph, sweep(graph, x, errors)), sweep(plain, x, split_states(graph, errors)))
    states = {**graph.clamp(x), **errors}
    predict = eqx.filter_jit(lambda graph, states: graph.predict(states))
    same(split_states(graph, predict(graph, states)), predict(plain, split_states(graph, states)))


def test_a_residual_stack_equals_a_loop_by_hand():
    graph = blocks()
    x = batch_for(graph, 3).x
    embed, branch, readout = (graph.functions[name] for name in ("embed", "branch", "readout"))
    v = [x @ embed.layers[1].function.weight * 4**-0.5]
    for weight in branch.function.layers[1].function.weight:
        v.append(v[-1] + jnp.tanh(v[-1]) @ weight * (5 * 5) ** -0.5)
    y = jnp.tanh(v[-1]) @ readout.layers[1].function.weight / 5
    swept = sweep(graph, x)
    np.testing.assert_allclose(swept["block"], jnp.stack(v, axis=1), rtol=1e-13)
    np.testing.assert_allclose(swept["output"], y, rtol=1e-13)
    np.testing.assert_allclose(graph.output_value(swept), y, rtol=1e-13)


@pytest.mark.parametrize("output_state", [True, False], ids=["free", "direct"])
@pytest.mark.parametrize("build", BUILDERS)
def test_energy_and_force_equal_the_unrolled_graphs(build, output_state):
    graph, dynamics = build(output_state), PredictiveCoding(ex.CrossEntropy())
    plain, batch = apart(graph), batch_for(graph, 3)
    states = random_states(graph, batch.x)
    phases = [
        prepare_phase(dynamics, g, g.clamp(batch.x), target=batch.y, beta=jnp.asarray(0.7)) for g in (graph, plain)
    ]
    apart_states = split_states(graph, states)
    np.testing.assert_allclose(energy_of(phases[0], states), energy_of(phases[1], apart_states), rtol=1e-12)
    same(split_states(graph, force_of(phases[0], states)), force_of(phases[1], apart_states))


RULES = {
    "first_step": FirstStep(),
    "backprop": Backprop(),
    "pc": Contrastive(unit_nudge()),
    "nudge": Contrastive(nudge(1e-2)),
    "incremental": Incremental(2),
}


@pytest.mark.parametrize(
    ("build", "rule"),
    [(build, rule) for build in BUILDERS for rule in ("first_step", "pc")]
    + [(blocks, rule) for rule in ("backprop", "nudge", "incremental")],
)
def test_gradients_equal_the_unrolled_graphs(build, rule):
    graph, dynamics = build(False), PredictiveCoding(ex.CrossEntropy())
    batch = batch_for(graph, 3)
    found, info = informed(RULES[rule], dynamics, graph, batch, FLOW)
    expected, plain_info = informed(RULES[rule], dynamics, apart(graph), batch, FLOW)
    assert float(jnp.linalg.norm(flat(expected))) > 1e-2
    same(split_functions(found.functions), expected.functions, 1e-12)
    np.testing.assert_allclose(info.cost, plain_info.cost, rtol=1e-12)


@pytest.mark.parametrize("output_state", [True, False], ids=["free", "direct"])
@pytest.mark.parametrize("build", BUILDERS)
def test_first_step_of_a_stack_is_backprop(build, output_state):
    graph, dynamics = build(output_state), PredictiveCoding(ex.CrossEntropy())
    batch = batch_for(graph, 3)
    found = gradient(FirstStep(), dynamics, graph, batch)
    assert relative(found, gradient(Backprop(), dynamics, graph, batch)) < 1e-12


def test_a_stack_settles_where_its_layers_do():
    """Oracle: the unrolled graph's equilibrium, to a residual of 1e-11."""
    graph, dynamics = blocks(), PredictiveCoding()
    plain, batch = apart(graph), batch_for(graph, 3)
    flow = ex.GradientFlow(0.5, momentum=0.8, stop=ex.Stopping(1e-11, 4000))
    ends = []
    for one in (graph, plain):
        phase = prepare_phase(dynamics, one, one.clamp(batch.x), target=batch.y, beta=jnp.ones(()))
        settled = solve(flow, phase, phase.start().states)
        assert jnp.all(settled.result == ex.Verdict.CONVERGED)
        ends.append(settled.states)
    assert largest(split_states(graph, ends[0]), ends[1]) < 1e-10


def test_a_hopfield_stack_moves_as_its_layers_do():
    """Oracle: the unrolled graph, energies and fixed points of synchronous updates alike."""
    axis = Axis("depth", 4)
    graph = Graph(
        nodes=[Node("x", (4,)), Node("a", (4,), "act", axes=(axis,)), Node("y", (3,))],
        edges=[Edge("x", "a", "in"), Edge("a", "a", "up", delay=1), Edge("a", "y", "out")],
        functions={
            "in": Linear(4, 4, key=KEYS[8]),
            "up": Stacked.of(layers(3), axis),
            "out": Linear(4, 3, key=KEYS[9]),
            "act": Tanh(),
        },
        input="x",
        output="y",
    )
    plain, batch, dynamics = apart(graph), batch_for(graph, 3), ex.Hopfield()
    states = random_states(graph, batch.x)
    phases = [
        prepare_phase(dynamics, g, g.clamp(batch.x), target=batch.y, beta=jnp.asarray(0.7)) for g in (graph, plain)
    ]
    apart_states = split_states(graph, states)
    np.testing.assert_allclose(energy_of(phases[0], states), energy_of(phases[1], apart_states), rtol=1e-12)
    same(split_states(graph, force_of(phases[0], states)), force_of(phases[1], apart_states))
    solver = ex.FixedPoint(Synchronous(), ex.Stopping(1e-12, 400))
    ends = [solve(solver, phase, v).states for phase, v in zip(phases, (states, apart_states), strict=True)]
    same(split_states(graph, ends[0]), ends[1], 1e-10)
    with pytest.raises(GraphError, match="'a' has an edge to itself"):
        graph.colouring(("a", "y"))


def equations(jaxpr) -> int:
    """Equations of a program, those of its loops and calls included."""
    count = 0
    for equation in jaxpr.eqns:
        count += 1
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                if isinstance(part, ClosedJaxpr | Jaxpr):
                    count += equations(part.jaxpr if isinstance(part, ClosedJaxpr) else part)
    return count


@pytest.mark.parametrize("rule", ["pc", "first_step"])
def test_a_training_step_has_as_many_equations_at_depth_8_as_at_depth_64(rule):
    """Oracle: the claim. The unrolled graph shows that the count counts."""
    counts = {}
    for depth in (8, 64, "8 apart", "9 apart"):
        blocks = depth if isinstance(depth, int) else int(depth[0])
        graph = residual_mlp((4,), 5, blocks, 3, jnp.tanh, output_state=False, key=KEY)
        graph = graph if isinstance(depth, int) else apart(graph)
        learner = Learner(graph, PredictiveCoding(ex.CrossEntropy()), FLOW, RULES[rule], optax.adam(1e-2))
        arrays, rest = eqx.partition((begin(learner), batch_for(graph, 3)), eqx.is_array)

        def step(arrays, rest=rest, learner=learner):
            progress, batch = eqx.combine(arrays, rest)
            return eqx.filter(update(learner, progress, batch), eqx.is_array)

        with jax.numpy_dtype_promotion("standard"):  # optax promotes
            counts[depth] = equations(jax.make_jaxpr(step)(arrays).jaxpr)
    assert counts[8] == counts[64]
    assert counts["9 apart"] > counts["8 apart"] > counts[8]


def test_functions_are_stacked_in_their_order_and_taken_apart_again():
    axis = Axis("depth", 3)
    parts = [Gain(jnp.full(2, float(i))) for i in range(3)]
    stacked = Stacked.of(parts, axis)
    assert stacked.positions == 3
    assert all(eqx.tree_equal(stacked.at(i), part) for i, part in enumerate(parts))
    x = jax.random.normal(KEY, (3, 2))
    np.testing.assert_allclose(stacked(x), jnp.stack([part(row) for part, row in zip(parts, x, strict=True)]))
    assert is_analytic(Stacked.of(layers(2), axis))
    with pytest.raises(GraphError, match="only functions of one kind can be stacked"):
        Stacked.of([Linear(2, 2, key=KEY), Linear(2, 3, key=KEY)], axis)
    with pytest.raises(GraphError, match="only functions of one kind can be stacked"):
        Stacked.of([Linear(2, 2, key=KEY), Linear(2, 2, use_bias=False, key=KEY)], axis)
    ragged = Stacked(eqx.tree_at(lambda l: l.bias, Linear(2, 2, key=KEY), jnp.zeros((5, 2))), axis)
    with pytest.raises(GraphError, match=r"stacked along 'depth' have \[2, 5\] positions"):
        _ = ragged.positions


def test_a_stack_within_a_stack():
    """Oracle: the graph unrolled along the inner, then along the outer axis, and FirstStep as backprop."""
    outer, inner = Axis("stage", 3), Axis("block", 2)
    per_stage = [Stacked.of(layers(1, KEYS[i:]), inner) for i in range(3)]
    graph = Graph(
        nodes=[Node("x", (4,)), Node("h", (4,), "act", axes=(outer, inner)), Node("y", (3,), state=False)],
        edges=[
            Edge("x", "h", "in"),
            Edge("h", "h", "within", delay=(0, 1)),
            Edge("h", "h", "across", delay=(1, 0)),
            Edge("h", "y", "out"),
        ],
        functions={
            "in": Linear(4, 4, key=KEYS[8]),
            "within": Stacked.of(per_stage, outer),
            "across": Linear(4, 4, key=KEYS[9]),
            "out": Linear(4, 3, key=KEYS[10]),
            "act": jnp.tanh,
        },
        input="x",
        output="y",
    )
    x = batch_for(graph, 2).x
    plain = apart(graph)
    swept = graph.sweep(x)["h"]
    expected = plain.sweep(x)
    for i in range(3):
        for j in range(2):
            np.testing.assert_allclose(swept[:, i, j], expected[f"h{i}{j}"], rtol=1e-13)
    batch, dynamics = batch_for(graph, 2), PredictiveCoding()
    found, exact = (gradient(rule, dynamics, graph, batch) for rule in (FirstStep(), Backprop()))
    assert relative(found, exact) < 1e-12


DEPTH = Axis("depth", 4)


def stack(**changes):
    given = {
        "nodes": [Node("x", (4,)), Node("a", (4,), axes=(DEPTH,)), Node("y", (4,))],
        "edges": [Edge("x", "a", "i"), Edge("a", "a", "f", delay=1), Edge("a", "y", "i")],
        "functions": {"i": Identity(), "f": Stacked.of(layers(3), DEPTH)},
        "input": "x",
        "output": "y",
    }
    return Graph(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"functions": {"i": Identity(), "f": Stacked.of(layers(4), DEPTH)}},
            r"a -> a \(f\).*stacked 4 times .* reaches 3",
        ),
        (
            {"functions": {"i": Identity(), "f": Stacked.of(layers(3), Axis("time", 4))}},
            r"stacked along 'time', which is not an axis it is mapped over \(outermost first: depth\)",
        ),
        ({"functions": {"i": Stacked.of(layers(4), DEPTH), "f": Identity()}}, r"x -> a \(i\).*outermost first: none"),
        (
            {"edges": [Edge("x", "a", "i"), Edge("a", "a", "f", delay=4), Edge("a", "y", "i")]},
            "nothing crosses within length 4 of 'depth'",
        ),
        (
            {"edges": [Edge("x", "a", "i"), Edge("a", "a", "f", delay=(1, 1)), Edge("a", "y", "i")]},
            "share the axes depth: give a tuple with one delay for each",
        ),
        ({"length": 2}, "share the axes time, depth: give a tuple with one delay for each"),
        (
            {"nodes": [Node("x", (4,)), Node("a", (4,), axes=(DEPTH,)), Node("y", (4,), axes=(Axis("depth", 3),))]},
            "axis 'depth' is .*, and elsewhere .*one length",
        ),
        (
            {"nodes": [Node("x", (4,)), Node("a", (4,), axes=(Axis("depth", 0),)), Node("y", (4,))]},
            "'depth' has length 0; give at least 1",
        ),
    ],
)
def test_bad_stacks_are_refused(changes, message):
    with pytest.raises(GraphError, match=message):
        stack(**changes)


def test_what_cannot_be_swept_or_unrolled_is_refused():
    loop = stack(edges=[Edge("x", "a", "i"), Edge("a", "a", "i"), Edge("a", "y", "i")], functions={"i": Identity()})
    with pytest.raises(GraphError, match="a form a cycle"):
        loop.sweep(jnp.ones((1, 4)))
    around = stack(edges=[Edge("x", "a", "i"), Edge("a", "y", "i"), Edge("y", "a", "i")], functions={"i": Identity()})
    with pytest.raises(GraphError, match="a, y form a cycle"):
        around.sweep(jnp.ones((1, 4)))
    inside = Graph(
        [Node("x", (2,), axes=(DEPTH,)), Node("y", (2,))], [Edge("x", "y", "i")], {"i": Identity()}, "x", "y"
    )
    with pytest.raises(GraphError, match="the input 'x' has the axis 'depth'"):
        unroll(inside, DEPTH)


def test_a_graph_without_stacks_is_left_as_it_is():
    graph = skipping(jnp.tanh, True)
    assert own_axes(graph) == []
    assert unroll(graph, DEPTH).nodes == graph.nodes
