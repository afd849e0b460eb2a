"""All synapses of a graph as one linear map of its free units, never written out as a matrix."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.exceptions import GraphError
from energax.graph.graph import Graph
from energax.graph.parts import Clamped, States, add_to
from energax.layers import change_weights


def push(graph: Graph, change: Callable[[Array], Array], states: States) -> States:
    """What the synapses among the given nodes deliver, each weight changed, biases left out.

    Args:
        graph: the network; its edges must be linear.
        change: of a layer's weights: `jnp.abs`, or the identity.
        states: of every free node, batch first.

    Raises:
        SettingError: an edge that is not linear.
        GraphError: a node without a state.
    """
    arrived: States = {}
    for edge in graph.edges:
        for end in (edge.source, edge.target):
            if not graph.node(end).state:
                raise GraphError(f"node {end!r} holds no state, and its units are no part of the flow: give it one")
        if edge.source in states and edge.target in states:
            function = {edge.function: change_weights(graph.functions[edge.function], change, biased=False)}
            add_to(arrived, edge.target, graph.send(edge, function, states[edge.source], clamped=Clamped({})))
    return {name: arrived.get(name, jnp.zeros_like(state)) for name, state in states.items()}


def pull(graph: Graph, change: Callable[[Array], Array], states: States) -> States:
    """The transpose of `push`: of ones, the sum of the weights that leave every unit."""
    (back,) = jax.linear_transpose(lambda given: push(graph, change, given), states)(states)
    return back
