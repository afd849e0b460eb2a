"""A workload as energax's objects: the graph with given weights, and arrays out of graphs."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.workload import Workload
from energax import networks
from energax.activations import hard_sigmoid
from energax.costs import CrossEntropy, SquaredError
from energax.dynamics import Hopfield, PredictiveCoding
from energax.dynamics.base import AbstractTotalEnergy
from energax.graph.graph import Graph
from energax.graph.structure import AnyGraph
from energax.layers import Chain, maximum

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "hard_sigmoid": hard_sigmoid()}


def graph_of(workload: Workload, key) -> Graph:
    """The network with fresh weights."""
    activation = ACTIVATIONS[workload.activation]
    if workload.kind == "conv":
        count = len(workload.convolutions)
        kernels, pooled = zip(*workload.convolutions, strict=True)
        return networks.convolutional(
            (workload.side, workload.side, workload.sizes[0]),
            workload.sizes[1 : count + 1],
            workload.sizes[-1],
            activation,
            pool=maximum,
            kernel_size=kernels,
            halved=pooled,
            dense=workload.sizes[count + 1 : -1],
            output_state=False,
            key=key,
        )
    state = workload.kind == "hopfield"
    return networks.mlp(workload.sizes, activation, output_state=state, gain=workload.gain, key=key)


def dynamics_of(workload: Workload) -> AbstractTotalEnergy:
    """Hopfield with a squared error, or predictive coding with the cross-entropy of a direct output."""
    return Hopfield(SquaredError()) if workload.kind == "hopfield" else PredictiveCoding(CrossEntropy())


def parametrised(graph: AnyGraph) -> list:
    """The layers that hold weights, in order; of a graph, or of a gradient with its structure."""
    layers = [
        graph.functions[f"layer{index}"] for index in range(1, sum(n.startswith("layer") for n in graph.functions) + 1)
    ]
    parts = [layer.layers if isinstance(layer, Chain) else (layer,) for layer in layers]
    return [next(part for part in chain if hasattr(part, "weight")) for chain in parts]


def arrays_of(graph: AnyGraph) -> dict[str, np.ndarray]:
    """Weights, or a gradient's, by name."""
    pairs = list(enumerate(parametrised(graph), start=1))
    return {f"{letter}{i}": np.asarray(getattr(p, field)) for i, p in pairs for letter, field in FIELDS}


FIELDS = (("W", "weight"), ("b", "bias"))


def with_arrays(graph: Graph, arrays: Mapping[str, np.ndarray]) -> Graph:
    """The graph with other weights, in the precision of the process."""

    def leaves(graph):
        return [getattr(part, field) for part in parametrised(graph) for _, field in FIELDS]

    values = [
        jnp.asarray(arrays[f"{letter}{i}"], float)
        for i in range(1, len(parametrised(graph)) + 1)
        for letter, _ in FIELDS
    ]
    return eqx.tree_at(leaves, graph, values)
