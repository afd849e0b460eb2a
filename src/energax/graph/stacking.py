"""Functions along an axis: one of its own at every position, or one that all positions share."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.exceptions import GraphError
from energax.graph.structure import Axis
from energax.layers import is_analytic


class Stacked(eqx.Module):
    """A function with parameters of its own at every position of an axis: the layers of a stack.

    All layers are one pytree whose arrays have the positions as a leading axis, so that a stack of any depth is one
    batched operation, compiled once. An edge of delay d reaches `length - d` positions and takes as many functions.

    Attributes:
        function: the stacked functions.
        axis: the axis along which they differ.
    """

    function: Callable
    axis: Axis = eqx.field(static=True)

    @classmethod
    def of(cls, functions: Sequence[Callable], axis: Axis) -> "Stacked":
        """Stack functions of one structure, in the order of their positions.

        Raises:
            GraphError: functions that differ in more than the values of their arrays.
        """
        parts = [eqx.partition(fn, eqx.is_array) for fn in functions]
        arrays, rests = zip(*parts, strict=True)
        shapes = [[leaf.shape for leaf in jax.tree.leaves(one)] for one in arrays]
        if not all(eqx.tree_equal(rest, rests[0]) for rest in rests) or any(shape != shapes[0] for shape in shapes):
            raise GraphError("only functions of one kind can be stacked: they may differ in their arrays' values")
        stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
        return cls(eqx.combine(stack, rests[0]), axis)

    @property
    def positions(self) -> int:
        """How many functions are stacked."""
        sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(eqx.filter(self.function, eqx.is_array))}
        if len(sizes) != 1:
            raise GraphError(
                f"arrays stacked along {self.axis.name!r} have {sorted(sizes)} positions; give all of them as many"
            )
        return sizes.pop()

    def at(self, position: int) -> Callable:
        """One of the functions."""
        return jax.tree.map(lambda leaf: leaf[position] if eqx.is_array(leaf) else leaf, self.function)

    def __call__(self, x: Array) -> Array:
        """Shape `(positions, ...)` to `(positions, ...)`, each position by its own function."""
        return eqx.filter_vmap(lambda one, part: one(part))(self.function, x)


@is_analytic.register
def _(layer: Stacked) -> bool:
    return is_analytic(layer.function)


def along(fn: Callable, axes: Sequence[Axis]) -> Callable:
    """Lift a function of one position over axes, outermost first."""
    if not axes:
        return fn
    if isinstance(fn, Stacked) and fn.axis == axes[0]:
        return eqx.Partial(eqx.filter_vmap(lambda one, part: along(one, axes[1:])(part)), fn.function)
    return jax.vmap(along(fn, axes[1:]))


def check_stacked(what: str, fn: Callable, axes: Sequence[Axis], reached: Sequence[int]) -> None:
    """Refuse functions stacked along an axis that is not there, in another order, or of another size.

    Args:
        what: the node or the edge, for the message.
        fn: its function.
        axes: the axes that it is mapped over, outermost first.
        reached: how many positions of each it reaches.
    """
    left = list(zip(axes, reached, strict=True))
    while isinstance(fn, Stacked):
        while left and left[0][0] != fn.axis:
            left.pop(0)
        if not left:
            have = ", ".join(axis.name for axis in axes) or "none"
            raise GraphError(
                f"{what}: its function is stacked along {fn.axis.name!r}, which is not an axis it is mapped over "
                f"(outermost first: {have}); nest Stacked in that order"
            )
        expected = left.pop(0)[1]
        if fn.positions != expected:
            raise GraphError(
                f"{what}: its function is stacked {fn.positions} times along {fn.axis.name!r}; it reaches "
                f"{expected} positions"
            )
        fn = fn.at(0)
