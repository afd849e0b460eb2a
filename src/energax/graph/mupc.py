"""Parametrisations: fixed factors in front of layers, so that one choice of settings serves every width and depth."""

from collections.abc import Callable
from functools import singledispatch
from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from energax.graph.graph import Graph
from energax.graph.parts import Edge
from energax.graph.stacking import Stacked
from energax.layers import AbstractWrapper, Conv2d, Linear
from energax.layers.random import apply


class Scaled(AbstractWrapper):
    """A layer times a fixed number, which is no parameter.

    Attributes:
        function: the layer.
        factor: the number.
    """

    function: Callable
    factor: float = eqx.field(static=True)

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        """Apply the layer and multiply."""
        return self.factor * apply(self.function, x, key)


@singledispatch
def fan_in(layer) -> int | None:
    """How many numbers one output of a layer sums up; None for what is no layer of weights. Register your own."""
    return None


@fan_in.register(Linear)
@fan_in.register(Conv2d)
def _(layer: Linear | Conv2d) -> int:
    return prod(layer.weight.shape[:-1])


@fan_in.register(eqx.nn.Linear)
@fan_in.register(eqx.nn.Conv)
def _(layer: eqx.nn.Linear | eqx.nn.Conv) -> int:
    return prod(layer.weight.shape[1:])


def mupc(graph: Graph, *, key: PRNGKeyArray) -> Graph:
    """Draw all weights anew and scale them by muPC: v_l is predicted as v_{l-1} + a_l W_l f(v_{l-1}), W_ij ~ N(0, 1).

    a = 1 / sqrt(N) in general, with N the fan-in; 1 / sqrt(N L) where a skip edge leads to the same node, so that a sum
    of L residual branches keeps its size; 1 / N into the output. From the paper: these three factors, for a chain of L
    layers whose hidden ones are residual, without biases. This library's own: the reading for any graph. A skip is an
    edge without parameters that arrives where an edge with parameters does; L counts such additions (the paper counts
    the input map and the readout too); of several layers on one edge only the last takes 1 / sqrt(L) or the second
    1 / sqrt(N); biases start at 0. Activations without the gain 1 may be given one by `Scaled`.

    The gradient of a weight is scaled with it, so learning rates differ from those of other initial values: with Adam,
    start from 1 / sqrt(N L).

    Args:
        graph: any graph; functions without weights stay as they are.
        key: PRNG key.

    Reference: Innocenti, Achour & Buckley 2025, "muPC: scaling predictive coding to 100+ layer networks".
    """
    additions = residual_additions(graph)
    functions = dict(graph.functions)
    for name, one in zip(sorted(functions), jax.random.split(key, len(functions)), strict=True):
        edges = [edge for edge in graph.edges if edge.function == name]
        if edges:
            functions[name] = _draw(functions[name], _last_factor(graph, edges, additions), one)
    return eqx.tree_at(lambda g: g.functions, graph, functions)


def residual_additions(graph: Graph) -> int:
    """How many times, over all nodes and positions, a branch with parameters is added to a skip."""
    branches = [edge for edge in graph.edges if has_parameters(graph.functions[edge.function])]
    return sum(max((common(graph, edge, skip) for skip in skips_beside(graph, edge)), default=0) for edge in branches)


def has_parameters(fn: PyTree) -> bool:
    """Whether there is anything to be learnt in a function."""
    return any(map(eqx.is_inexact_array, jax.tree.leaves(fn)))


def skips_beside(graph: Graph, edge: Edge) -> list[Edge]:
    """The edges without parameters that arrive where an edge does."""
    others = [other for other in graph.edges if other.target == edge.target]
    return [skip for skip in others if not has_parameters(graph.functions[skip.function]) and common(graph, edge, skip)]


def common(graph: Graph, a: Edge, b: Edge) -> int:
    """At how many positions of their target two edges both arrive."""
    overlaps = []
    for axis in graph.axes(a.target):
        first = [graph.shifts(edge).get(axis, 0) for edge in (a, b)]
        last = [axis.length if axis in graph.shifts(edge) else 1 for edge in (a, b)]  # others enter at the first
        overlaps.append(max(0, min(last) - max(first)))
    return prod(overlaps)


def _last_factor(graph: Graph, edges: list[Edge], additions: int) -> Callable[[int], float]:
    """What multiplies the last layer of a function, as a function of its fan-in."""
    if any(edge.target in {place.node for place in graph.outputs} for edge in edges):
        return lambda fan: 1 / fan
    if any(skips_beside(graph, edge) for edge in edges):
        return lambda fan: (fan * additions) ** -0.5
    return lambda fan: fan**-0.5


def _draw(fn: Callable, last: Callable[[int], float], key: PRNGKeyArray) -> Callable:
    """The function with new weights and with factors in front of its layers."""
    if isinstance(fn, Stacked):
        keys = jax.random.split(key, fn.positions)
        return Stacked(eqx.filter_vmap(lambda one, k: _draw(one, last, k))(fn.function, keys), fn.axis)
    leaves, structure = jax.tree.flatten(fn, is_leaf=lambda leaf: fan_in(leaf) is not None)
    layers = [index for index, leaf in enumerate(leaves) if fan_in(leaf) is not None]
    for index, one in zip(layers, jax.random.split(key, len(leaves)), strict=False):
        fan = fan_in(leaves[index]) or 1
        leaves[index] = Scaled(_unit_normal(leaves[index], one), last(fan) if index == layers[-1] else fan**-0.5)
    return jax.tree.unflatten(structure, leaves)


def _unit_normal(layer, key: PRNGKeyArray):
    """A layer with weights of variance 1 and without biases."""
    weight = jax.random.normal(key, layer.weight.shape, layer.weight.dtype)
    layer = eqx.tree_at(lambda l: l.weight, layer, weight)
    return layer if layer.bias is None else eqx.tree_at(lambda l: l.bias, layer, jnp.zeros_like(layer.bias))
