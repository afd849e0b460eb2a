"""Pictures of networks: all of a graph is drawn, nothing covers anything else, and layers follow the wiring."""

import functools
import io
import itertools
import random
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.legend import Legend
from PIL import Image

import energax as ex
from energax import networks
from energax.layers import Identity
from energax.plot.layout import HEIGHT, NAME, RADIUS, find_layers, lay_out

KEY = jax.random.key(0)
WIDE = r"$\none$ by WWWWWWWWWWWWWW"  # and no formula
SAME = {"f": Identity(), "g": Identity()}


def joined(names, pairs, **ends) -> ex.Graph:
    """Nodes of two units, and an edge for every pair."""
    edges = [ex.Edge(a, b, "f") for a, b in pairs]
    return ex.Graph(nodes=[ex.Node(name, (2,)) for name in names], edges=edges, functions=SAME, **ends)


def several() -> ex.Graph:
    nodes = [ex.Node("image", (2,)), ex.Node("sound", (2,)), ex.Node("h", (2,))]
    nodes += [ex.Node("class", (2,), state=False), ex.Node("place", (2,))]
    pairs = [("image", "h"), ("sound", "h"), ("h", "class"), ("h", "place")]
    edges = [ex.Edge(a, b, "f") for a, b in pairs]
    inputs, outputs = ("image", "sound"), ("class", "place")
    return ex.Graph(nodes=nodes, edges=edges, functions=SAME, input=inputs, output=outputs)


def along_time() -> ex.Graph:
    time = ex.Axis("time", 6)
    nodes = [ex.Node("x", (2,)), ex.Node("h", (2,), axes=(time,)), ex.Node("y", (2,), axes=(time,), state=False)]
    edges = [
        ex.Edge("x", "h", "f", enters=(("time", ex.EVERY),)),
        ex.Edge("h", "h", "g", delay=2),
        ex.Edge("h", "y", "f"),
    ]
    return ex.Graph(nodes=nodes, edges=edges, functions=SAME, input="x", output=ex.At("y", time=0))


def unrolled() -> ex.Graph:
    return ex.unroll(
        networks.recurrent_simple((8, 8, 1), 3, jnp.tanh, width=0.01, length=4, key=KEY), ex.Axis("time", 4)
    )


def tangled() -> ex.Graph:
    """A chain that loops back at each end, with edges from anywhere to anywhere."""
    draw = random.Random(0)
    names = [f"v{i}" for i in range(24)]
    pairs = [*itertools.pairwise(names), *((draw.choice(names), draw.choice(names)) for _ in range(24))]
    return joined(names, pairs, input="v0", output="v23")


GRAPHS = {
    "mlp": lambda: networks.mlp([4, 5, 3], jnp.tanh, output_state=False, key=KEY),
    "convolutional": lambda: networks.convolutional((8, 8, 1), [2, 3], 3, jnp.tanh, dense=[4], key=KEY),
    "residual": lambda: networks.residual((8, 8, 1), [2, 3], 3, jnp.tanh, key=KEY),
    "stack": lambda: networks.residual_mlp((4,), 5, 6, 3, jnp.tanh, key=KEY),
    "hierarchical": lambda: networks.hierarchical((8, 8, 1), 3, jnp.tanh, width=0.01, key=KEY),
    "simple": lambda: networks.recurrent_simple((8, 8, 1), 3, jnp.tanh, width=0.01, key=KEY),
    "complex": lambda: networks.recurrent_complex((8, 8, 1), 3, jnp.tanh, width=0.01, key=KEY),
    "unrolled time": unrolled,
    "unrolled stack": lambda: ex.unroll(networks.residual_mlp((4,), 5, 6, 3, jnp.tanh, key=KEY), ex.Axis("depth", 7)),
    "all to all": lambda: joined("xabcd", [("x", "a"), *itertools.permutations("abcd", 2)], input="x", output="d"),
    "to and fro": lambda: joined("xaby", ["xa", "ab", "ba", "by", "yb", "ya"], input="x", output="y"),
    "several": several,
    "time": along_time,
    "generative": lambda: joined(["z", "image"], [("z", "image")], input="image", output="image"),
    "no edges": lambda: ex.Nodes(nodes=[ex.Node("x", (2,)), ex.Node("y", ())], functions={}, input="x", output="y"),
    "long names": lambda: joined([WIDE, "y"], [(WIDE, "y")], input="y", output="y"),
    "deep": lambda: joined(map(str, range(64)), itertools.pairwise(map(str, range(64))), input="0", output="63"),
    "tangled": tangled,
}


@functools.cache
def built(name: str):
    return GRAPHS[name]()


every = pytest.mark.parametrize("name", GRAPHS)


def patches(graph) -> dict:
    """Label -> patch of a picture; the sheets of piles but the first have none."""
    (axes,) = ex.plot.graph(graph).axes
    return {patch.get_label(): patch for patch in axes.patches if patch.get_label()}


def written(graph) -> Counter:
    (axes,) = ex.plot.graph(graph).axes
    return Counter(text.get_text() for text in axes.texts)


@every
def test_every_node_edge_and_error_is_drawn_once(name):
    """Oracle: the graph's own lists; an error is where a state receives an edge."""
    graph = built(name)
    (axes,) = ex.plot.graph(graph).axes
    receiving = {edge.target for edge in graph.edges}
    expected = Counter(node.name for node in graph.nodes)
    expected += Counter(f"error of {node.name}" for node in graph.nodes if node.state and node.name in receiving)
    expected += Counter(str(edge) for edge in graph.edges)
    labels = Counter(patch.get_label() for patch in axes.patches if patch.get_label())
    assert labels == expected
    texts = Counter(text.get_text() for text in axes.texts)
    assert texts >= Counter([node.name for node in graph.nodes] + [edge.function for edge in graph.edges])


@pytest.mark.parametrize(
    ("name", "errors"),
    [
        ("mlp", {"hidden1"}),
        ("several", {"h", "place"}),
        ("time", {"h"}),
        ("generative", {"image"}),
        ("to and fro", {"a", "b", "y"}),
        ("no edges", set()),
    ],
)
def test_errors_stand_at_the_states_that_are_predicted(name, errors):
    """Oracle: the nodes of each graph that predictive coding has an error for, by hand; `Graph.terms` counts them."""
    graph = built(name)
    found = {label.removeprefix("error of ") for label in patches(graph) if label.startswith("error of ")}
    assert found == errors
    assert not graph.edges or len(graph.terms) == len(errors)


def test_kinds_of_nodes_differ_in_look():
    """Oracle: two inputs, a hidden node, and of two outputs one without a state, as the graph was made."""
    found = patches(built("several"))
    fill = {name: found[name].get_facecolor() for name in ("image", "sound", "h", "class", "place")}
    border = {name: found[name].get_edgecolor() for name in fill}
    assert fill["image"] == fill["sound"]
    assert fill["h"] == fill["place"]
    assert len(set(fill.values())) == 3
    assert border["class"] == border["place"] != border["h"] == border["image"]
    assert [name for name in fill if found[name].get_linestyle() != "solid"] == ["class"]


def test_delays_axes_and_positions_are_told():
    """Oracle: what the graph was made with."""
    graph = built("time")
    edges = {str(edge): edge for edge in graph.edges}
    dashed = {label for label, patch in patches(graph).items() if label in edges and patch.get_linestyle() != "solid"}
    assert dashed == {"h -> h (g)"}
    texts = written(graph)
    assert [texts[text] for text in ("time 6", "time+2", "to time every", "read at time 0")] == [2, 1, 1, 1]


def test_a_node_with_an_axis_is_a_pile():
    """Oracle: the node `block` alone has an axis; a pile is three sheets."""
    (axes,) = ex.plot.graph(built("stack")).axes
    assert sum(not patch.get_label() for patch in axes.patches) == 2
    assert written(built("stack"))["depth 7"] == 1


@every
def test_layers_follow_the_wiring(name):
    """Oracle: without cycles every edge leads to a later layer, and the first that a node feeds is the next."""
    graph = built(name)
    layers = find_layers(graph)
    assert min(layers.values()) == 0
    if name in {"all to all", "to and fro", "tangled"}:
        return
    steps = {(e.source, e.target): layers[e.target] - layers[e.source] for e in graph.edges if e.source != e.target}
    assert all(step > 0 for step in steps.values())
    assert all(min(step for (a, _), step in steps.items() if a == source) == 1 for source, _ in steps)


@pytest.mark.parametrize(
    ("graph", "layers"),
    [
        (joined("xaby", ["xa", "ab", "ba", "by", "yb", "ya"], input="x", output="y"), "x a b y"),
        (joined("byxa", ["ya", "yb", "by", "ba", "ab", "xa"], input="x", output="y"), "x a b y"),
        (joined("xaby", ["xa", "xb", "ab", "ba", "by"], input="x", output="y"), "x a b y"),
    ],
    ids=["given in order", "given out of order", "equally far"],
)
def test_cycles_are_laid_out_from_the_input(graph, layers):
    """Oracle: distance from the input, then the order in which nodes are given, by hand."""
    assert find_layers(graph) == {name: layer for layer, name in enumerate(layers.split())}


def test_a_delay_is_what_a_cycle_leaves_out():
    """Oracle: the way within one step of time, by hand: b is read at the same step, a at the one before."""
    edges = [ex.Edge("x", "a", "f"), ex.Edge("a", "b", "f", delay=1), ex.Edge("b", "a", "f")]
    nodes = [ex.Node(name, (2,)) for name in "xab"]
    graph = ex.Graph(nodes=nodes, edges=edges, functions=SAME, input="x", output="a", length=3)
    assert find_layers(graph) == {"x": 0, "b": 0, "a": 1}


def test_steps_of_time_are_layers():
    """Oracle: node k at step t reads steps t - 1 alone, so that a layer is a step."""
    layers = find_layers(built("unrolled time"))
    places = {(k, t): layers[f"node{k}{t}"] for k in range(2, 6) for t in range(3)}
    assert places == {(k, t): t + 1 for k, t in places}


def segments(route):
    """Pieces of an edge that are level or upright: whether upright, where, from, to."""
    for (a, b), (c, d) in itertools.pairwise(route.corners):
        if b == d:
            yield False, b, min(a, c), max(a, c)
        elif a == c:
            yield True, a, min(b, d), max(b, d)


@pytest.mark.parametrize("columns", [1, 3, 8])
@every
def test_nothing_covers_anything_else(name, columns):
    """Oracle: geometry. Nodes are apart and inside; edges meet no other nodes, and run along none of other nodes."""
    graph = built(name)
    places, routes, (width, height) = lay_out(graph, columns)
    boxes = {}
    for node, place in places.items():
        left = place.entry - RADIUS if place.error else place.entry
        boxes[node] = (left, place.right, place.y - HEIGHT / 2, place.y + HEIGHT / 2)
    assert len({route.corners for route in routes}) == len(routes)
    for left, right, low, high in boxes.values():
        assert 0 < left < right < width
        assert -height < low < high < 0
    for (a, b, c, d), (p, q, r, s) in itertools.combinations(boxes.values(), 2):
        assert b < p or q < a or d < r or s < c
    for route in routes:
        assert all(0 < x < width and -height < y < 0 for x, y in route.corners)
        for start, end in itertools.pairwise(route.corners):
            points = [[a + i / 100 * (b - a) for a, b in zip(start, end, strict=True)] for i in range(101)]
            for node, (left, right, low, high) in boxes.items():
                hit = any(left < x < right and low < y < high for x, y in points)
                assert not hit or node in (route.edge.source, route.edge.target)
    for one, other in itertools.combinations(routes, 2):
        if one.edge.source == other.edge.source or one.edge.target == other.edge.target:
            continue
        for (upright, at, low, high), (also, there, start, end) in itertools.product(segments(one), segments(other)):
            assert upright != also or abs(at - there) > 1e-6 or high <= start or end <= low


@every
def test_text_fits(name):
    """Oracle: the extent of text as matplotlib renders it: names inside their boxes, and all inside the figure."""
    figure = ex.plot.graph(built(name))
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    boxes = {patch.get_label(): patch.get_window_extent() for patch in axes.patches}
    names = [text for text in axes.texts if text.get_fontsize() == NAME]
    assert [text.get_text() for text in names] == [node.name for node in built(name).nodes]
    rooms = [(text, boxes[text.get_text()]) for text in names]
    rooms += [(text, figure.bbox) for text in axes.texts if text.get_text()]
    rooms += [(legend, figure.bbox) for legend in axes.get_children() if isinstance(legend, Legend)]
    for text, room in rooms:
        extent = text.get_window_extent()
        assert room.x0 <= extent.x0
        assert extent.x1 <= room.x1
        assert room.y0 <= extent.y0
        assert extent.y1 <= room.y1


@pytest.mark.parametrize("name", ["complex", "deep", "tangled"])
def test_edges_to_another_row_make_no_detour(name):
    """Oracle: the heights of their two ends."""
    places, routes, _ = lay_out(built(name), 3)
    for edge, corners, *_ in routes:
        ends = [places[edge.source], places[edge.target]]
        if ends[0].row != ends[1].row:
            low, high = sorted(end.y for end in ends)
            assert all(low - HEIGHT < y < high + HEIGHT for _, y in corners)


def test_a_picture_can_be_saved():
    """Oracle: the size in inches, times dots per inch."""
    figure, file = ex.plot.graph(built("several")), io.BytesIO()
    figure.savefig(file, dpi=50)
    assert Image.open(file).size == tuple(int(50 * inches) for inches in figure.get_size_inches())


@pytest.mark.parametrize(
    ("given", "columns", "message"),
    [
        ("mlp", 8, "plot.graph: graph='mlp': give a Graph, as networks.mlp makes them"),
        (None, 8, "plot.graph: graph=None: give a Graph"),
        (ex.Graph, 8, r"plot.graph: graph=the class Graph: give an instance, Graph\(...\)"),
        (several(), 0, "plot.graph: columns=0: give a whole number of at least 1"),
        (several(), 2.5, "plot.graph: columns=2.5: give a whole number"),
    ],
)
def test_wrong_arguments_are_refused(given, columns, message):
    """Oracle: the message, which names the value, the place and the remedy."""
    with pytest.raises(ex.exceptions.SettingError, match=message):
        ex.plot.graph(given, columns=columns)
