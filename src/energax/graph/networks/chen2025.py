"""The networks of Chen et al. 2025 (section 6.1), of any width, for any image.

Parameters, weights and biases together, for images of 32 x 32 x 3 and 10 classes at width 1: `hierarchical` 7,613,040,
`recurrent_simple` 7,201,282, `recurrent_complex` 20,736,842. Channels are multiplied by `width`, rounded, at least 1;
inputs and classes are as they are. Where the paper leaves strides open, ours are written here.
"""

from collections.abc import Callable, Sequence
from math import prod

import jax
from jaxtyping import PRNGKeyArray

from energax.checking import require_between, require_callable, require_key, require_sizes, require_whole
from energax.graph.graph import Graph
from energax.graph.networks.basic import sequential
from energax.graph.parts import EVERY, Axis, Edge, Node, out_shape
from energax.layers import Chain, Conv2d, Flatten, HeldMaximum, Linear, Pool, maximum, pad_even

CHANNELS = (128, 256, 512, 1024, 120, 256, 80, 64, 100, 50)
SIDES = (3, 3, 3, 3, 3, 1, 1, 3, 3, 3)
POOLED = (1, 2, 4, 9)  # the convolutions after which the image is halved
HELD = HeldMaximum()
UNITS = 512
DENSE = 64  # units of every node of `recurrent_dense`, which the paper does not have
EVERY_STEP = (("time", EVERY),)


def hierarchical(
    shape: Sequence[int],
    classes: int,
    activation: Callable,
    *,
    width: float = 1.0,
    pool: Callable = HELD,
    output_state: bool = False,
    gain: float = 1.0,
    key: PRNGKeyArray,
) -> Graph:
    """The hierarchical feedforward network: ten convolutions, of which four are pooled, and two dense layers.

    A pool is part of the edge before it, so that the node's state is the pooled one. An odd side gets a row of zeros
    before it is halved.

    Args:
        shape: `(height, width, channels)` of one image.
        classes: size of the output.
        activation: activation of the hidden nodes; the paper's is tanh.
        width: factor of all channels and of the dense layer.
        pool: reduction of the pools. The default is the maximum, of which predictive coding holds the routes that the
            free phase takes, so that it settles; `layers.maximum` lets them change, `layers.average` has none.
        output_state: as in `networks.sequential`.
        gain: scale of the initial weights.
        key: PRNG key.
    """
    require_arguments("hierarchical", shape, classes, activation, width, key)
    keys = iter(jax.random.split(key, len(CHANNELS) + 2))
    maps: list[Callable] = []
    size, before = tuple(shape), shape[-1]
    for index, (channels, side) in enumerate(zip(CHANNELS, SIDES, strict=True)):
        after = widen(channels, width)
        conv = Conv2d(before, after, side, padding=side // 2, gain=gain, key=next(keys))
        maps.append(Chain((conv, pad_even, Pool(2, pool))) if index in POOLED else conv)
        size, before = out_shape(maps[-1], size), after
    units = widen(UNITS, width)
    maps.append(Chain((Flatten(), Linear(prod(size), units, gain=gain, key=next(keys)))))
    readout = Linear(units, classes, gain=gain, key=next(keys))
    return sequential([(fn, activation) for fn in maps] + [readout], shape, output_state=output_state)


def recurrent_simple(
    shape: Sequence[int],
    classes: int,
    activation: Callable,
    *,
    length: int = 6,
    width: float = 1.0,
    recurrent: bool = True,
    skips: bool = True,
    output_state: bool = False,
    gain: float = 1.0,
    key: PRNGKeyArray,
) -> Graph:
    """The simple network with skips and recurrence: six convolutional nodes unrolled over time, then the classes.

    Nodes have 64, 128, 256, 512, 200 and 32 channels. A convolution of 3 x 3 leads to the next node, from nodes 2 to 6
    one leads back to the same, and from nodes 2 to 4 one skips a node. Each takes a step of time, as in the paper's
    Eq. 5, but for the first: the image is shown at every step. Nodes 2, 3 and 4 halve the image by stride 2. The
    output reads the last step.

    Args:
        shape: `(height, width, channels)` of one image.
        classes: size of the output.
        activation: activation of the nodes; the paper's is tanh.
        length: steps of time T, at least 4, that the first image may reach the output. 0 is the cyclic graph itself,
            without time: its nodes hold one state each, which settle once; for energies of any graph, such as
            Hopfield's.
        width: factor of all channels.
        recurrent: whether nodes 2 to 6 lead back to themselves.
        skips: whether there are skips. Without, and without recurrence, it is a chain that takes T >= 6.
        output_state: as in `networks.sequential`.
        gain: scale of the initial weights.
        key: PRNG key.
    """
    require_arguments("recurrent_simple", shape, classes, activation, width, key)
    draw = iter(jax.random.split(key, 32))
    channels = [shape[-1], *(widen(one, width) for one in (64, 128, 256, 512, 200, 32))]
    strides = (1, 1, 2, 2, 2, 1, 1)  # of the edge into each node; a skip has those of the edges that it skips

    def conv(source: int, target: int) -> Conv2d:
        stride = prod(strides[source + 1 : target + 1])
        return Conv2d(channels[source], channels[target], 3, stride=stride, padding=1, gain=gain, key=next(draw))

    parts = unroll_nodes("recurrent_simple", shape, conv, activation, length, recurrent, skips)
    return read_out(*parts, classes, output_state, gain, next(draw))


def recurrent_dense(
    shape: Sequence[int],
    classes: int,
    activation: Callable,
    *,
    width: float = 1.0,
    length: int = 6,
    recurrent: bool = True,
    skips: bool = True,
    output_state: bool = False,
    gain: float = 1.0,
    key: PRNGKeyArray,
) -> Graph:
    """The nodes and edges of `recurrent_simple`, with dense layers in the place of convolutions: 64 units a node.

    Arguments as there.
    """
    require_arguments("recurrent_dense", shape, classes, activation, width, key)
    draw, units = iter(jax.random.split(key, 32)), widen(DENSE, width)

    def dense(source: int, target: int) -> Callable:
        if source:
            return Linear(units, units, gain=gain, key=next(draw))
        return Chain((Flatten(), Linear(prod(shape), units, gain=gain, key=next(draw))))

    parts = unroll_nodes("recurrent_dense", shape, dense, activation, length, recurrent, skips)
    return read_out(*parts, classes, output_state, gain, next(draw))


def unroll_nodes(
    place: str,
    shape: Sequence[int],
    layer: Callable[[int, int], Callable],
    activation: Callable,
    length: int,
    recurrent: bool,
    skips: bool,
) -> tuple[list[Node], list[Edge], dict[str, Callable]]:
    """Six nodes over time; `layer` makes what leads from one to another, by their numbers, 0 the input."""
    axes, delay, enters = unroll(place, length, 4 if skips else 6)
    functions: dict[str, Callable] = {"activation": activation, "forward1": layer(0, 1)}
    nodes, edges = [Node("input", tuple(shape))], [Edge("input", "node1", "forward1", enters=enters)]
    size = out_shape(functions["forward1"], tuple(shape))
    nodes.append(Node("node1", size, "activation", axes=axes))
    for index in range(2, 7):
        functions[f"forward{index}"] = layer(index - 1, index)
        edges.append(Edge(f"node{index - 1}", f"node{index}", f"forward{index}", delay=delay))
        size = out_shape(functions[f"forward{index}"], size)
        nodes.append(Node(f"node{index}", size, "activation", axes=axes))
        if recurrent:
            functions[f"again{index}"] = layer(index, index)
            edges.append(Edge(f"node{index}", f"node{index}", f"again{index}", delay=delay))
        if skips and index >= 4:
            functions[f"skip{index}"] = layer(index - 2, index)
            edges.append(Edge(f"node{index - 2}", f"node{index}", f"skip{index}", delay=delay))
    return nodes, edges, functions


def unroll(place: str, length: int, least: int) -> tuple[tuple[Axis, ...], int, tuple]:
    """The axis of time, the delay of its edges and where a still input enters; nothing of it where the length is 0."""
    if type(length) is int and length == 0:
        return (), 0, ()
    require_whole(f"{place}: length (0: the cyclic graph itself)", length, least)
    return (Axis("time", length),), 1, EVERY_STEP


def recurrent_complex(
    shape: Sequence[int],
    classes: int,
    activation: Callable,
    *,
    length: int = 6,
    width: float = 1.0,
    pool: Callable = maximum,
    output_state: bool = False,
    gain: float = 1.0,
    key: PRNGKeyArray,
) -> Graph:
    """The complex network with skips and recurrence, whose nodes have a state for what enters and one for what leaves.

    Node 1 has 32 channels; nodes 2 to 6 have 64 | 128, 256 | 512, 1024 | 768, 256 | 128 and 256 | 64, in | out, joined
    by a convolution of 1 x 1 within a step of time, which nodes 2, 4 and 6 pool; a dense layer of 512 units and the
    classes follow. Convolutions of 3 x 3, each a step of time: from an out to the in of the next node, from the outs of
    2, 3 and 4 to the in of the node after it, and from each out but the first to itself.

    Arguments as in `recurrent_simple` and `hierarchical`; routes of pools are not held along time.
    """
    require_arguments("recurrent_complex", shape, classes, activation, width, key)
    axes, delay, enters = unroll("recurrent_complex", length, 4)
    draw = iter(jax.random.split(key, 64))
    into = {index: widen(one, width) for index, one in zip(range(2, 7), (64, 256, 1024, 256, 256), strict=True)}
    out = {index: widen(one, width) for index, one in zip(range(2, 7), (128, 512, 768, 128, 64), strict=True)}
    out[1] = widen(32, width)
    functions: dict[str, Callable] = {"activation": activation}
    functions["forward1"] = Conv2d(shape[-1], out[1], 3, padding=1, gain=gain, key=next(draw))
    nodes, edges = [Node("input", tuple(shape))], [Edge("input", "out1", "forward1", enters=enters)]
    sizes = {1: out_shape(functions["forward1"], tuple(shape))}
    nodes.append(Node("out1", sizes[1], "activation", axes=axes))
    for index in range(2, 7):
        inner = Conv2d(into[index], out[index], 1, gain=gain, key=next(draw))
        functions[f"inner{index}"] = Chain((inner, pad_even, Pool(2, pool))) if index % 2 == 0 else inner
        entered = (*sizes[index - 1][:2], into[index])
        sizes[index] = out_shape(functions[f"inner{index}"], entered)
        nodes += [
            Node(f"in{index}", entered, "activation", axes=axes),
            Node(f"out{index}", sizes[index], "activation", axes=axes),
        ]
        edges.append(Edge(f"in{index}", f"out{index}", f"inner{index}"))
        joined = {f"forward{index}": index - 1} | ({f"skip{index}": index - 2} if index >= 4 else {})
        for name, source in joined.items():
            stride = -(-sizes[source][0] // entered[0])
            functions[name] = Conv2d(out[source], into[index], 3, stride=stride, padding=1, gain=gain, key=next(draw))
            edges.append(Edge(f"out{source}", f"in{index}", name, delay=delay))
        functions[f"again{index}"] = Conv2d(out[index], out[index], 3, padding=1, gain=gain, key=next(draw))
        edges.append(Edge(f"out{index}", f"out{index}", f"again{index}", delay=delay))
    units = widen(UNITS, width)
    dense = Linear(prod(sizes[6]), units, gain=gain, key=next(draw))
    functions["dense"] = Chain((Flatten(), dense))
    nodes.append(Node("dense", (units,), "activation"))
    edges.append(Edge("out6", "dense", "dense"))
    return read_out(nodes, edges, functions, classes, output_state, gain, next(draw))


def read_out(nodes, edges, functions, classes: int, output_state: bool, gain: float, key) -> Graph:
    """The graph of these parts, the classes read from its last node, at the last step."""
    last = nodes[-1]
    linear = Linear(prod(last.shape), classes, gain=gain, key=key)
    functions = {**functions, "readout": Chain((Flatten(), linear)) if len(last.shape) > 1 else linear}
    return Graph(
        nodes=[*nodes, Node("output", (classes,), state=output_state)],
        edges=[*edges, Edge(last.name, "output", "readout")],
        functions=functions,
        input="input",
        output="output",
    )


def widen(channels: int, width: float) -> int:
    """Channels times the width, at least 1."""
    return max(1, round(channels * width))


def require_arguments(place: str, shape, classes, activation, width, key) -> None:
    """Refuse what no network can be made of."""
    require_sizes(f"{place}: shape", shape, 3)
    require_whole(f"{place}: classes", classes, 1)
    require_callable(f"{place}: activation", activation)
    require_between(f"{place}: width", width, 0, float("inf"), open_least=True)
    require_key(f"{place}: key", key)
