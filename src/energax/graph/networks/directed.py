"""Directed nets: forward and feedback synapses of their own, in layers or between all units."""

import itertools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from energax.checking import require_callable, require_key, require_sizes, require_whole
from energax.graph.graph import Graph
from energax.graph.parts import Edge, Node
from energax.layers import Chain, Flatten, Linear, Sparse


def directed_mlp(
    sizes: Sequence[int],
    activation: Callable | None = None,
    *,
    shape: Sequence[int] | None = None,
    gain: float = 1.0,
    feedback_gain: float = 1.0,
    key: PRNGKeyArray,
) -> Graph:
    """Layers joined upwards and, between free nodes, downwards: `forward1`, ..., and `backward2`, ..., without biases.

    Args:
        sizes: units per layer, input and output included.
        activation: of the hidden nodes; None for a flow network. The output is linear.
        shape: shape of one input, if it is no vector of `sizes[0]`.
        gain: forward weights and biases are U(+-gain / sqrt(fan_in)).
        feedback_gain: feedback weights are U(+-feedback_gain / sqrt(fan_in)).
        key: PRNG key.
    """
    require_key("directed_mlp: key", key)
    require_sizes("directed_mlp: sizes", sizes, 2)
    names = ["input", *(f"hidden{k}" for k in range(1, len(sizes) - 1)), "output"]
    functions: dict[str, Callable] = {}
    nodes = [Node("input", (sizes[0],) if shape is None else tuple(shape))]
    edges = []
    for index, (size, units) in enumerate(itertools.pairwise(sizes), start=1):
        forward_key, backward_key = jax.random.split(jax.random.fold_in(key, index))
        forward = Linear(size, units, gain=gain, key=forward_key)
        functions[f"forward{index}"] = Chain((Flatten(), forward)) if index == 1 and shape is not None else forward
        edges.append(Edge(names[index - 1], names[index], f"forward{index}"))
        if index > 1:
            functions[f"backward{index}"] = Linear(units, size, use_bias=False, gain=feedback_gain, key=backward_key)
            edges.append(Edge(names[index], names[index - 1], f"backward{index}"))
        hidden = activation is not None and index < len(sizes) - 1
        nodes.append(Node(names[index], (units,), "activation" if hidden else None))
    if activation is not None and len(sizes) > 2:
        require_callable("directed_mlp: activation", activation)
        functions["activation"] = activation
    return Graph(nodes=nodes, edges=edges, functions=functions, input="input", output="output")


def directed_complete(
    inputs: int, hidden: int, outputs: int, activation: Callable | None = None, *, gain: float = 1.0, key: PRNGKeyArray
) -> Graph:
    """Hidden and output units all joined to one another, none to itself; the input reaches all of them.

    The net of Farinha et al. 2020 (DEEP), who clamp a unit at 1 for what are biases here.

    Args:
        inputs: input units.
        hidden: hidden units.
        outputs: output units, linear.
        activation: of the hidden node; None for a flow network.
        gain: weights and biases are U(+-gain / sqrt(fan_in)), of the fan-in of each edge.
        key: PRNG key.
    """
    require_key("directed_complete: key", key)
    for name, units in (("inputs", inputs), ("hidden", hidden), ("outputs", outputs)):
        require_whole(f"directed_complete: {name}", units, 1)
    keys = iter(jax.random.split(key, 6))
    sizes = {"input": inputs, "hidden": hidden, "output": outputs}
    functions: dict[str, Callable] = {}
    edges = []
    for source in sizes:
        for target in ("hidden", "output"):
            own, units = next(keys), sizes[target]
            if source == target and units == 1:
                continue
            name = f"{source}_to_{target}"
            if source == target:
                sources, targets = np.nonzero(~np.eye(units, dtype=bool))
                functions[name] = Sparse(sources, targets, units, units, use_bias=False, gain=gain, key=own)
            else:
                functions[name] = Linear(sizes[source], units, use_bias=source == "input", gain=gain, key=own)
            edges.append(Edge(source, target, name))
    if activation is not None:
        require_callable("directed_complete: activation", activation)
        functions["activation"] = activation
    nodes = [
        Node("input", (inputs,)),
        Node("hidden", (hidden,), None if activation is None else "activation"),
        Node("output", (outputs,)),
    ]
    return Graph(nodes=nodes, edges=edges, functions=functions, input="input", output="output")
