"""Graphs: the sweep against hand-written passes, hoisting, sharing, delays, colours, and refused graphs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax import Edge, Graph, Node
from energax.activations import Tanh
from energax.exceptions import GraphError
from energax.graph.networks import convolutional, mlp
from energax.graph.parts import Clamped
from energax.graph.topology import colouring, distances, reachable, topological_order
from energax.layers import Identity, Linear, maximum
from oracles import batch_for, imaging, largest, recurrent, recurrent_by_hand, relative, sharing, skipping

pytestmark = pytest.mark.usefixtures("strict")

KEY = jax.random.key(0)


def one_by_one(fn, v):
    return jnp.stack([fn(row) for row in v])


def test_sweep_of_a_skip_graph_equals_a_hand_written_pass():
    graph = skipping(jnp.tanh, True)
    x = batch_for(graph, 3).x
    f = graph.functions
    a = jnp.tanh(x @ f["xa"].weight + f["xa"].bias)
    b = jnp.tanh(a @ f["ab"].weight + f["ab"].bias)
    y = a @ f["ay"].weight + f["ay"].bias + b @ f["by"].weight + f["by"].bias
    assert largest(graph.sweep(x), {"x": x, "a": a, "b": b, "y": y}) < 1e-15


def test_sweep_with_errors_is_the_prediction_plus_the_error():
    """Oracle: v - predict(v) = e at every node, direct ones excepted, with and without a time axis."""
    for graph in (skipping(jnp.tanh, True), recurrent(jnp.tanh, False)):
        x = batch_for(graph, 3).x
        free = graph.free(graph.clamp(x))
        errors = {n: jax.random.normal(KEY, v.shape) for n, v in graph.sweep(x).items() if n in free}
        states = graph.sweep(x, errors)
        predictions = graph.predict(states)
        assert largest({n: states[n] - predictions[n] for n in free}, errors) < 1e-14


def test_output_value_of_a_direct_output_is_its_prediction():
    direct, held = skipping(jnp.tanh, False), skipping(jnp.tanh, True)
    x = batch_for(direct, 3).x
    assert "y" not in direct.sweep(x)
    np.testing.assert_allclose(direct.output_value(direct.sweep(x)), held.sweep(x)["y"], rtol=1e-14)


@pytest.mark.parametrize("shown", ["constant", "sequence"])
def test_delays_equal_a_python_loop(shown):
    graph = recurrent(jnp.tanh, True)
    x = batch_for(graph, 2).x if shown == "constant" else jax.random.normal(KEY, (2, 4, 3))
    swept = graph.sweep(x)
    for sample in range(2):
        sequence = jnp.broadcast_to(x[sample], (4, 3)) if shown == "constant" else x[sample]
        expected = recurrent_by_hand(graph.functions, sequence, 4, jnp.tanh)
        assert largest({n: v[sample] for n, v in swept.items()}, expected) < 1e-15
        np.testing.assert_allclose(graph.output_value(swept)[sample], expected["y"][-1], rtol=1e-14)
    # the predictions of the whole axis at once agree with the loop: the sweep has no error
    predictions = graph.predict(swept)
    assert largest(predictions, {n: swept[n] for n in predictions}) < 1e-15


def test_a_direct_node_may_send_with_a_delay():
    """Oracle: a Python loop; `p` holds no state and is read one step later, by a node that comes before it."""
    keys = jax.random.split(KEY, 4)
    graph = Graph(
        nodes=[Node("x", (3,)), Node("h", (2,), "act"), Node("p", (2,), "act", state=False), Node("y", (2,))],
        edges=[Edge("x", "h", "xh"), Edge("p", "h", "ph", delay=1), Edge("x", "p", "xp"), Edge("h", "y", "hy")],
        functions={
            "xh": Linear(3, 2, key=keys[0]),
            "ph": Linear(2, 2, key=keys[1]),
            "xp": Linear(3, 2, key=keys[2]),
            "hy": Linear(2, 2, key=keys[3]),
            "act": jnp.tanh,
        },
        input="x",
        output="y",
        length=3,
    )
    x = jax.random.normal(KEY, (2, 3, 3))
    f = {name: fn if name == "act" else jax.vmap(fn) for name, fn in graph.functions.items()}
    before, expected = None, []
    for t in range(3):
        into = f["xh"](x[:, t]) + (0.0 if before is None else f["ph"](before))
        before = jnp.tanh(f["xp"](x[:, t]))
        expected.append(f["hy"](jnp.tanh(into)))
    swept = graph.sweep(x)
    np.testing.assert_allclose(swept["y"], jnp.stack(expected, 1), rtol=1e-13)
    predictions = graph.predict(swept)
    assert largest({n: predictions[n] for n in ("h", "y")}, {n: swept[n] for n in ("h", "y")}) < 1e-15


def test_sharing_sums_the_gradients_of_two_copies():
    """Oracle: the same net with two functions of equal weights; the shared gradient is the sum of theirs."""
    shared = sharing(jnp.tanh, True)
    x = batch_for(shared, 3).x
    edges = [
        Edge(e.source, e.target, "copy" if (e.source, e.function) == ("b", "same") else e.function)
        for e in shared.edges
    ]
    copied = Graph(shared.nodes, edges, {**shared.functions, "copy": shared.functions["same"]}, "x", "y")

    def cost(graph):
        return jnp.sum(graph.sweep(x)["y"] ** 2)

    one, two = eqx.filter_grad(cost)(shared), eqx.filter_grad(cost)(copied)
    summed = jax.tree.map(jnp.add, two.functions["same"], two.functions["copy"])
    assert relative(one.functions["same"], summed) < 1e-14
    assert relative(two.functions["same"], two.functions["copy"]) > 0.1


@pytest.mark.parametrize("build", [skipping, imaging, recurrent])
def test_hoisting_what_clamped_nodes_send_changes_nothing(build):
    """Oracle: the same predictions without hoisting, values and parameter gradients alike."""
    graph = build(jnp.tanh, True)
    x = batch_for(graph, 2).x
    clamped = graph.clamp(x)
    names = graph.free(clamped)
    states = {n: jax.random.normal(KEY, v.shape) for n, v in graph.zeros(names, x).items()}

    @eqx.filter_value_and_grad(has_aux=True)
    def predicted(graph, hoist):
        sent = graph.precompute(Clamped(clamped)) if hoist else None
        found = graph.predict({**clamped, **states}, sent)
        return sum(jnp.sum(jnp.sin(v)) for v in found.values()), found

    (_, plain), expected = predicted(graph, False)
    (_, hoisted), found = predicted(graph, True)
    assert largest(hoisted, plain) < 1e-14
    assert relative(found, expected) < 1e-13
    first = graph.functions[graph.edges[0].function].weight
    assert float(jnp.linalg.norm(found.functions[graph.edges[0].function].weight)) > 1e-3 * float(
        jnp.linalg.norm(first)
    )


def test_no_two_nodes_of_a_colour_interact():
    """Oracle: the definition, on a chain (2 colours), a triangle (3) and a chain through a direct node."""
    chain = mlp([2, 3, 3, 3, 2], jnp.tanh, key=KEY)
    assert chain.colouring(["hidden1", "hidden2", "hidden3", "output"]) == (
        ("hidden1", "hidden3"),
        ("hidden2", "output"),
    )
    assert skipping(jnp.tanh, True).colouring(["a", "b", "y"]) == (("a",), ("b",), ("y",))
    through = Graph(
        nodes=[Node("x", (2,)), Node("a", (2,)), Node("p", (2,), state=False), Node("y", (2,))],
        edges=[Edge("x", "a", "i"), Edge("a", "p", "i"), Edge("p", "y", "i")],
        functions={"i": Identity()},
        input="x",
        output="y",
    )
    assert through.colouring(["a", "y"]) == (("a",), ("y",))
    with pytest.raises(GraphError, match="'h' has an edge to itself"):
        recurrent(jnp.tanh, True).colouring(["h", "g", "y"])


def test_topology():
    """Oracles: small graphs worked out on paper."""
    links = [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d")]
    assert topological_order("dcba", links) == ("a", "b", "c", "d")
    assert topological_order("abc", [("a", "b"), ("b", "a")]) is None
    assert reachable(["b"], links) == {"b", "c", "d"}
    assert distances("d", links) == {"d": 0, "c": 1, "b": 2, "a": 2}
    assert colouring("abcd", links) == (("a", "d"), ("b",), ("c",))


def small(**changes):
    given = {
        "nodes": [Node("x", (3,)), Node("h", (4,), "act"), Node("y", (2,))],
        "edges": [Edge("x", "h", "one"), Edge("h", "y", "two")],
        "functions": {"one": Linear(3, 4, key=KEY), "two": Linear(4, 2, key=KEY), "act": jnp.tanh},
        "input": "x",
        "output": "y",
    }
    return Graph(**{**given, **changes})


NODES = [Node("x", (3,)), Node("h", (4,), "act"), Node("y", (2,))]
EDGES = [Edge("x", "h", "one"), Edge("h", "y", "two")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": [*NODES, Node("h", (4,))]}, "duplicate node name: h; the graph has: h, h, x, y"),
        ({"input": "z"}, "input 'z' is not a node; the graph has: h, x, y"),
        ({"output": "z"}, "output 'z' is not a node; the graph has: h, x, y"),
        ({"edges": [*EDGES, Edge("q", "y", "two")]}, r"q -> y \(two\): unknown node 'q'; the graph has: h, x, y"),
        ({"edges": [*EDGES, Edge("h", "y", "three")]}, "unknown function 'three'; the graph has: act, one, two"),
        (
            {"nodes": [NODES[0], Node("h", (4,), "relu"), NODES[2]]},
            "'h': unknown activation 'relu'; the graph has: act, one",
        ),
        ({"nodes": [*NODES, Node("far", (2,))]}, "'far' is joined to no input and no output.*has: far, h, x, y"),
        (
            {"nodes": [*NODES, Node("lost", (3,)), Node("end", (2,))], "edges": [*EDGES, Edge("lost", "end", "two")]},
            r"'lost' is joined to no input and no output \(x, y\).*the graph has: end, h, lost, x, y",
        ),
        ({"edges": [EDGES[0], Edge("h", "y", "two", delay=1)]}, "delay 1: give a delay >= 0, and the graph a length"),
        ({"edges": [EDGES[0], Edge("h", "y", "two", delay=-1)], "length": 3}, "has delay -1"),
        ({"edges": [*EDGES, Edge("h", "y", "two", delay=3)], "length": 3}, "delay 3, which nothing crosses"),
        ({"edges": [Edge("x", "h", "two"), EDGES[1]]}, r"'two' cannot be applied to node 'x' of shape \(3,\)"),
        ({"edges": [*EDGES, Edge("x", "y", "one")]}, r"sends shape \(4,\) to node 'y', where other edges send \(2,\)"),
        ({"nodes": [NODES[0], NODES[1], Node("y", (5,))]}, r"'y' has shape \(5,\), but what arrives .* shape \(2,\)"),
        ({"nodes": [Node("x", (3,), state=False), *NODES[1:]]}, "input 'x' must hold a state"),
    ],
)
def test_bad_graphs_are_refused(changes, message):
    with pytest.raises(GraphError, match=message):
        small(**changes)


def fail(error):
    def function(x):
        raise error

    return function


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (fail(RuntimeError("no kernel")), r"cannot be applied to node 'h' of shape \(4,\): RuntimeError: no kernel"),
        (fail(KeyError("weight")), r"cannot be applied to node 'h' of shape \(4,\): KeyError: 'weight'"),
        (lambda x: (x, x), r"applied to node 'h' of shape \(4,\) returns \(.*must return one array"),
        (lambda x: None, r"applied to node 'h' of shape \(4,\) returns None; it must return one array"),
    ],
    ids=["RuntimeError", "KeyError", "tuple", "None"],
)
def test_functions_that_return_no_array_are_named_with_their_place(function, message):
    """Oracle: what the function does; the same at an activation."""
    with pytest.raises(GraphError, match=r"edge h -> y \(own\): 'own' " + message):
        small(edges=[EDGES[0], Edge("h", "y", "own")], functions={**small().functions, "own": function})
    with pytest.raises(GraphError, match=r"activation of node 'h': 'act' .*what arrives, of shape"):
        small(functions={**small().functions, "act": function})


def test_a_cycle_of_nodes_without_states_is_refused_when_the_graph_is_built():
    nodes = [Node("x", (2,)), Node("p", (2,), state=False), Node("q", (2,), state=False), Node("y", (2,))]
    edges = [Edge("x", "p", "i"), Edge("p", "q", "i"), Edge("q", "p", "i"), Edge("q", "y", "i")]
    with pytest.raises(GraphError, match="nodes without a state form a cycle: p, q"):
        Graph(nodes, edges, {"i": Identity()}, "x", "y")


def test_a_cycle_has_no_sweep():
    nodes = [Node("x", (2,)), Node("a", (2,)), Node("y", (2,))]
    edges = [Edge("x", "a", "i"), Edge("a", "y", "i"), Edge("y", "a", "i")]
    graph = Graph(nodes, edges, {"i": Identity()}, "x", "y")
    with pytest.raises(GraphError, match="a, y form a cycle"):
        graph.sweep(jnp.ones((1, 2)))


def test_builders_give_the_stated_names_and_shapes():
    graph = mlp([4, 3, 2], Tanh(), shape=(2, 2), key=KEY)
    assert [(n.name, n.shape, n.activation) for n in graph.nodes] == [
        ("input", (2, 2), None),
        ("hidden1", (3,), "activation1"),
        ("output", (2,), None),
    ]
    assert [str(e) for e in graph.edges] == ["input -> hidden1 (layer1)", "hidden1 -> output (layer2)"]


def test_a_convolutional_net_has_the_shapes_that_are_asked_for():
    """Oracle: shapes by hand: 8 -> 4 by pooling, kept by a 1 x 1 kernel, 4 -> 2; then two matrices."""
    graph = convolutional(
        (8, 8, 1),
        (2, 3, 4),
        10,
        jnp.tanh,
        pool=maximum,
        kernel_size=(3, 1, 5),
        halved=(True, False, True),
        dense=(7,),
        key=KEY,
    )
    assert [node.shape for node in graph.nodes] == [(8, 8, 1), (4, 4, 2), (4, 4, 3), (2, 2, 4), (7,), (10,)]
    assert graph.functions["layer2"].weight.shape == (1, 1, 2, 3)
    strided = convolutional((8, 8, 1), (2, 3), 10, jnp.tanh, halved=(False, True), key=KEY)
    assert [node.shape for node in strided.nodes] == [(8, 8, 1), (8, 8, 2), (4, 4, 3), (10,)]
    for wrong in ({"kernel_size": (3,)}, {"halved": (True,) * 3}):
        (name,) = wrong
        with pytest.raises(GraphError, match=f"{name}: [13] entries for 2 convolutions"):
            convolutional((8, 8, 1), (2, 3), 10, jnp.tanh, key=KEY, **wrong)


def test_the_states_that_the_cost_reads():
    """Oracle: by eye: an output with a state is read itself, a direct one through what it is predicted from."""
    keys = jax.random.split(jax.random.key(0), 4)
    graphs = {
        state: Graph(
            nodes=[
                Node("x", (2,)),
                Node("a", (2,)),
                Node("b", (2,)),
                Node("m", (2,), state=False),
                Node("y", (2,), state=state),
            ],
            edges=[
                Edge("x", "a", "xa"),
                Edge("a", "b", "ab"),
                Edge("a", "m", "am"),
                Edge("b", "y", "by"),
                Edge("m", "y", "my"),
            ],
            functions={name: Linear(2, 2, key=k) for name, k in zip(("xa", "ab", "am", "by"), keys, strict=True)}
            | {"my": Identity()},
            input="x",
            output="y",
        )
        for state in (True, False)
    }
    assert graphs[True].cost_term == {"y"}
    assert graphs[False].cost_term == {"a", "b"}
