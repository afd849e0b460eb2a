"""Groups of parameters: one per function of a graph, for optimisers and rules that treat layers apart.

Every function of the graph is a group under its own name. A `Stacked` function is one group per position: what is
measured of it has a number for each, and a factor for it may have one too.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.exceptions import SettingError
from energax.graph.stacking import Stacked
from energax.graph.structure import AnyGraph, list_names


def select_parameters(graph: AnyGraph, frozen: Collection[str] = ()) -> PyTree:
    """The inexact arrays of a graph (or of a gradient like it), None elsewhere and in the groups named in `frozen`."""
    parameters = eqx.filter(graph, eqx.is_inexact_array)
    return _map_groups(lambda name, leaf: None if name in frozen else leaf, parameters)


def parameter_groups(graph: AnyGraph) -> PyTree:
    """The name of its group in the place of every parameter: labels for `optax.multi_transform` and `optax.masked`.

    Args:
        graph: the network, or a gradient or update like it.
    """
    return _map_groups(lambda name, leaf: name, eqx.filter(graph, eqx.is_inexact_array))


def group_norms(tree: AnyGraph) -> dict[str, Array]:
    """Name of a group -> the 2-norm of all its arrays together.

    Args:
        tree: parameters, a gradient or updates, with the structure of the graph.

    Returns:
        Of every group that has arrays: shape `()`, or `(positions,)` of a `Stacked` function (one axis per nesting).
    """
    squares: dict[str, Array] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_inexact_array)):
        name = _name_of(path)
        square = jnp.sum(jnp.abs(leaf) ** 2, axis=tuple(range(_stacked_axes(tree, name), leaf.ndim)))
        squares[name] = squares[name] + square if name in squares else square
    return {name: jnp.sqrt(square) for name, square in squares.items()}


def scale_groups(tree: AnyGraph, factors: dict[str, Array]) -> PyTree:
    """Every array times the factor of its group.

    Args:
        tree: parameters, a gradient or updates, with the structure of the graph.
        factors: name -> factor, of a shape that `group_norms` returns or `()`; groups left out stay as they are.
    """

    def scaled(name: str, leaf: Array) -> Array:
        factor = jnp.asarray(factors.get(name, 1.0), leaf.dtype)
        return leaf * factor.reshape(*factor.shape, *(1 for _ in range(leaf.ndim - factor.ndim)))

    return _map_groups(scaled, tree)


def require_groups(graph: AnyGraph, names: Collection[str]) -> None:
    """Refuse names of groups that the graph does not have, listing those that it has."""
    known = list(graph.functions) if isinstance(graph.functions, dict) else [WHOLE]
    for name in names:
        if name not in known:
            raise SettingError(f"freeze: unknown function {name!r}; the graph has: {list_names(known)}")


WHOLE = "functions"
"""The one group of a network whose functions are no mapping from names."""


def _map_groups(fn: Callable[[str, Any], Any], tree: PyTree) -> PyTree:
    """`fn(name of the group, leaf)` of every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: fn(_name_of(path), leaf), tree)


def _name_of(path: Sequence[Any]) -> str:
    """The group of a leaf of a graph: where it hangs in `functions`."""
    keys = [key.key for key in path[1:2] if isinstance(key, jax.tree_util.DictKey)]
    return str(keys[0]) if keys else WHOLE


def _stacked_axes(graph: AnyGraph, name: str) -> int:
    """How many leading axes of a group's arrays are positions of a stack."""
    fn, count = graph.functions[name] if isinstance(graph.functions, dict) else None, 0
    while isinstance(fn, Stacked):
        fn, count = fn.function, count + 1
    return count
