"""Groups of parameters: one per function of a graph, for optimisers and rules that treat layers apart.

Every function of the graph is a group under its own name, and every field that a dynamics trains under its. A `Stacked`
function is one group per position: what is measured of it has a number for each, and a factor for it may have one too.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.exceptions import SettingError
from energax.graph.parts import list_names
from energax.graph.stacking import Stacked


def parameter_groups(tree: PyTree) -> PyTree:
    """The name of its group in the place of every parameter: labels for `optax.multi_transform` and `optax.masked`.

    Args:
        tree: a graph or a model, or a gradient or update like it.
    """
    return map_groups(lambda name, leaf: name, eqx.filter(tree, eqx.is_inexact_array))


def group_norms(tree: PyTree) -> dict[str, Array]:
    """Name of a group -> the 2-norm of all its arrays together.

    Args:
        tree: parameters, a gradient or updates, with the structure of the graph or the model.

    Returns:
        Of every group that has arrays: shape `()`, or `(positions,)` of a `Stacked` function (one axis per nesting).
    """
    norms: dict[str, Array] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_inexact_array)):
        name = _name_of(path)
        size = _norm(leaf, tuple(range(_stacked_axes(tree, name), leaf.ndim)))
        norms[name] = jnp.hypot(norms[name], size) if name in norms else size
    return norms


def _norm(leaf: Array, axes: tuple[int, ...]) -> Array:
    """The 2-norm over some axes, also where the squares would be below the smallest number or above the largest."""
    sizes = jnp.abs(leaf)
    largest = jnp.max(sizes, axis=axes, keepdims=True, initial=0)
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return jnp.sqrt(jnp.sum((sizes / unit) ** 2, axis=axes)) * jnp.squeeze(unit, axes)


def scale_groups(tree: PyTree, factors: dict[str, Array]) -> PyTree:
    """Every array times the factor of its group.

    Args:
        tree: parameters, a gradient or updates, with the structure of the graph or the model.
        factors: name -> factor, of a shape that `group_norms` returns or `()`; groups left out stay as they are.
    """

    def scaled(name: str, leaf: Array) -> Array:
        factor = jnp.asarray(factors.get(name, 1.0), leaf.dtype)
        return leaf * factor.reshape(*factor.shape, *(1 for _ in range(leaf.ndim - factor.ndim)))

    return map_groups(scaled, tree)


def require_groups(place: str, names: Collection[str], known: Collection[str]) -> None:
    """Refuse names of groups that are not there, listing those that are."""
    for name in names:
        if name not in known:
            raise SettingError(f"{place}: unknown group {name!r}; the model has: {list_names(known)}")


WHOLE = "functions"
"""The one group of a network whose functions are no mapping from names."""


def map_groups(fn: Callable[[str, Any], Any], tree: PyTree) -> PyTree:
    """`fn(name of the group, leaf)` of every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: fn(_name_of(path), leaf), tree)


def _name_of(path: Sequence[Any]) -> str:
    """The group of a leaf: where it hangs in the graph's `functions`, or the field of the dynamics."""
    steps = [getattr(key, "name", None) for key in path]
    if steps[0] == "dynamics":
        return str(steps[1])
    after = steps.index("functions") + 1
    keys = [key.key for key in path[after : after + 1] if isinstance(key, jax.tree_util.DictKey)]
    return str(keys[0]) if keys else WHOLE


def _stacked_axes(tree: PyTree, name: str) -> int:
    """How many leading axes of a group's arrays are positions of a stack."""
    functions = getattr(tree, "graph", tree).functions
    fn, count = functions.get(name) if isinstance(functions, dict) else None, 0
    while isinstance(fn, Stacked):
        fn, count = fn.function, count + 1
    return count
