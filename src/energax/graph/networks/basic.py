"""Chains, dense and convolutional, and residual nets."""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from energax.checking import require_callable, require_key, require_sizes, require_whole, tell
from energax.exceptions import GraphError, SettingError
from energax.graph.graph import Graph
from energax.graph.mupc import mupc
from energax.graph.parts import Axis, Edge, Node, out_shape
from energax.graph.stacking import Stacked, map_samples
from energax.layers import Chain, Conv2d, Flatten, Identity, Linear, Pool, mean_over_image


def sequential(
    layers: Sequence[Callable | tuple[Callable, Callable]], shape: Sequence[int], *, output_state: bool = True
) -> Graph:
    """A chain of nodes, the short form: one node per entry of `layers`.

    Args:
        layers: each a map, or a pair `(map, activation)`; the activation becomes the node's activation.
        shape: shape of one input.
        output_state: False makes the output direct: it has no state, the cost reads its prediction.

    Returns:
        A graph with the nodes `input`, `hidden1`, ..., `output` and the functions `layer1`, ... and
        `activation1`, ....
    """
    if not layers:
        raise GraphError("sequential() needs at least one layer")
    nodes, edges, functions = [Node("input", tuple(shape))], [], {}
    for index, layer in enumerate(layers, start=1):
        fn, activation = layer if isinstance(layer, tuple) else (layer, None)
        require_callable(f"layer {index}", fn)
        if activation is not None:
            require_callable(f"activation {index}", activation)
        last = index == len(layers)
        name = "output" if last else f"hidden{index}"
        functions[f"layer{index}"] = fn
        edges.append(Edge(nodes[-1].name, name, f"layer{index}"))
        arriving = out_shape(partial(map_samples, fn, ()), (1, *nodes[-1].shape))[1:]
        called = None
        if activation is not None:
            called = f"activation{index}"
            functions[called] = activation
            arriving = out_shape(activation, arriving)
        nodes.append(Node(name, arriving, called, state=output_state or not last))
    return Graph(nodes=nodes, edges=edges, functions=functions, input="input", output="output")


def mlp(
    sizes: Sequence[int],
    activation: Callable,
    *,
    shape: Sequence[int] | None = None,
    output_state: bool = True,
    gain: float = 1.0,
    key: PRNGKeyArray,
) -> Graph:
    """Fully connected layers: `activation` in the hidden ones, a linear output.

    Args:
        sizes: units per layer, input and output included.
        activation: activation of the hidden nodes.
        shape: shape of one input, if it is no vector of `sizes[0]`.
        output_state: as in `sequential`.
        gain: initial weights and biases are U(+-gain / sqrt(fan_in)).
        key: PRNG key.
    """
    require_key("mlp: key", key)
    require_sizes("mlp: sizes", sizes, 2)
    keys = jax.random.split(key, len(sizes) - 1)
    maps: list = [Linear(a, b, gain=gain, key=k) for a, b, k in zip(sizes, sizes[1:], keys, strict=False)]
    if shape is not None and prod(shape) != sizes[0]:
        raise SettingError(
            f"mlp: sizes={tell(list(sizes))}, shape={tell(tuple(shape))}: an input of this shape has {prod(shape)} "
            f"numbers; give sizes that begin with {prod(shape)}"
        )
    if shape is not None:
        maps[0] = Chain((Flatten(), maps[0]))
    return sequential([(fn, activation) for fn in maps[:-1]] + maps[-1:], shape or sizes[:1], output_state=output_state)


def convolutional(
    shape: Sequence[int],
    channels: Sequence[int],
    classes: int,
    activation: Callable,
    *,
    pool: Callable | None = None,
    kernel_size: int | Sequence[int] = 3,
    halved: Sequence[bool] | None = None,
    dense: Sequence[int] = (),
    output_state: bool = True,
    gain: float = 1.0,
    key: PRNGKeyArray,
) -> Graph:
    """Convolutions, most of which halve the image, then fully connected layers, the last of them linear.

    Args:
        shape: `(height, width, channels)` of one image.
        channels: channels of each convolution.
        classes: size of the output.
        activation: activation of the hidden nodes.
        pool: None halves by stride 2; otherwise by 2 x 2 pooling with this reduction, e.g. `layers.maximum`,
            inside the edge (so that a Hopfield energy unpools on the way back).
        kernel_size: side of the kernels, of all or of each; the padding keeps the size.
        halved: which convolutions halve the image; all if left out.
        dense: units of fully connected hidden layers before the output.
        output_state: as in `sequential`.
        gain: scale of the initial weights.
        key: PRNG key.

    Raises:
        GraphError: as many kernel sizes, or entries of `halved`, as convolutions are not given.
    """
    require_key("convolutional: key", key)
    require_sizes("convolutional: shape", shape, 3)
    require_sizes("convolutional: channels", channels, 0)
    sides = [kernel_size] * len(channels) if isinstance(kernel_size, int) else list(kernel_size)
    halving = [True] * len(channels) if halved is None else list(halved)
    for name, given in (("kernel_size", sides), ("halved", halving)):
        if len(given) != len(channels):
            raise GraphError(f"{name}: {len(given)} entries for {len(channels)} convolutions; give one for each")
    keys = iter(jax.random.split(key, len(channels) + len(dense) + 1))
    maps: list = []
    size = tuple(shape)
    for before, after, side, halves in zip([shape[-1], *channels], channels, sides, halving, strict=False):
        stride = 2 if halves and not pool else 1
        conv = Conv2d(before, after, side, stride=stride, padding=side // 2, gain=gain, key=next(keys))
        maps.append(Chain((conv, Pool(2, pool))) if halves and pool else conv)
        size = out_shape(maps[-1], size)
    widths = [prod(size), *dense, classes]
    last = [Linear(a, b, gain=gain, key=k) for a, b, k in zip(widths, widths[1:], keys, strict=False)]
    maps += [Chain((Flatten(), last[0])), *last[1:]]
    return sequential([(fn, activation) for fn in maps[:-1]] + maps[-1:], shape, output_state=output_state)


def residual(
    shape: Sequence[int],
    channels: Sequence[int],
    classes: int,
    activation: Callable,
    *,
    output_state: bool = True,
    gain: float = 1.0,
    key: PRNGKeyArray,
) -> Graph:
    """A residual net for predictive coding: every stage halves the image, then adds a block to a skip edge.

    Stage s is `down{s}` (strided convolution) and `block{s}`, which receives an identity edge from `down{s}` and
    a convolution of its activation; the output averages over the image. Arguments as in `convolutional`.
    """
    require_callable("residual: activation", activation)
    require_key("residual: key", key)
    require_sizes("residual: shape", shape, 3)
    require_sizes("residual: channels", channels, 1)
    keys = iter(jax.random.split(key, 2 * len(channels) + 1))
    nodes, edges = [Node("input", tuple(shape))], []
    functions: dict[str, Callable] = {"skip": Identity()}
    for stage, (before, after) in enumerate(zip([shape[-1], *channels], channels, strict=False), start=1):
        first: Callable = Conv2d(before, after, 3, stride=2, padding=1, gain=gain, key=next(keys))
        if stage > 1:
            first = Chain((activation, first))
        functions[f"down{stage}"] = first
        functions[f"block{stage}"] = Chain((activation, Conv2d(after, after, 3, padding=1, gain=gain, key=next(keys))))
        size = out_shape(first, nodes[-1].shape)
        edges += [
            Edge(nodes[-1].name, f"down{stage}", f"down{stage}"),
            Edge(f"down{stage}", f"block{stage}", f"block{stage}"),
            Edge(f"down{stage}", f"block{stage}", "skip"),
        ]
        nodes += [Node(f"down{stage}", size), Node(f"block{stage}", size)]
    readout = Linear(nodes[-1].shape[-1], classes, gain=gain, key=next(keys))
    functions["readout"] = Chain((activation, mean_over_image, readout))
    edges.append(Edge(nodes[-1].name, "output", "readout"))
    nodes.append(Node("output", (classes,), state=output_state))
    return Graph(nodes=nodes, edges=edges, functions=functions, input="input", output="output")


def residual_mlp(
    shape: Sequence[int],
    width: int,
    depth: int,
    classes: int,
    activation: Callable,
    *,
    output_state: bool = True,
    key: PRNGKeyArray,
) -> Graph:
    """A residual net of `depth` equal blocks as one stack: compiled in the same time whatever its depth.

    v_0 = a_0 W_0 x, then v_l = v_{l-1} + a W_l f(v_{l-1}) for l = 1 ... depth, and the output a' W' f(v_depth), with
    the weights and the factors of `mupc` and no biases. The states v_0 ... v_depth are one node `block` with an axis
    `depth` of length `depth + 1`; `unrolled(graph, axis)` makes them nodes of their own.

    Args:
        shape: shape of one input.
        width: units of every block.
        depth: number of blocks.
        classes: size of the output.
        activation: f.
        output_state: as in `sequential`.
        key: PRNG key.
    """
    require_callable("residual_mlp: activation", activation)
    require_key("residual_mlp: key", key)
    require_sizes("residual_mlp: shape", shape, 1)
    for name, size in (("width", width), ("depth", depth), ("classes", classes)):
        require_whole(f"residual_mlp: {name}", size, 1)
    keys = jax.random.split(key, 4)
    axis = Axis("depth", depth + 1)

    def branch(key):
        return Chain((activation, Linear(width, width, use_bias=False, key=key)))

    graph = Graph(
        nodes=[
            Node("input", tuple(shape)),
            Node("block", (width,), axes=(axis,)),
            Node("output", (classes,), state=output_state),
        ],
        edges=[
            Edge("input", "block", "embed"),
            Edge("block", "block", "branch", delay=1),
            Edge("block", "block", "skip", delay=1),
            Edge("block", "output", "readout"),
        ],
        functions={
            "embed": Chain((Flatten(), Linear(prod(shape), width, use_bias=False, key=keys[0]))),
            "branch": Stacked(eqx.filter_vmap(branch)(jax.random.split(keys[1], depth)), axis),
            "skip": Identity(),
            "readout": Chain((activation, Linear(width, classes, use_bias=False, key=keys[2]))),
        },
        input="input",
        output="output",
    )
    return mupc(graph, key=keys[3])
