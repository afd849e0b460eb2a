"""Functions along an axis: one of its own at every position, or one that all positions share."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.exceptions import GraphError
from energax.graph.parts import Axis
from energax.layers import AbstractWrapper, takes_batch, takes_key
from energax.layers.basic import fold_in
from energax.layers.random import apply


class Stacked(AbstractWrapper):
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

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        """Shape `(positions, ...)` to `(positions, ...)`, each position by its own function and with its own key."""
        return along(self, (self.axis,))(x, key)


class Position(AbstractWrapper):
    """One of the functions of a stack, with a key of its own.

    Attributes:
        function: the function.
        index: which one of the stack it is.
    """

    function: Callable
    index: Array

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        """Apply the function with the key of this position."""
        return apply(self.function, x, None if key is None else fold_in(key, self.index))


def map_samples(fn: Callable, axes: Sequence[Axis], value: Array, keys: Array | None = None) -> Array:
    """Apply a function of one position of one sample to a batch.

    Args:
        fn: the function; it takes the whole batch, with the axes folded into it, where `takes_batch` says so.
        axes: the axes, outermost first.
        value: shape `(batch, *lengths, *shape)`.
        keys: of every sample, shape `(batch,)`: what a random layer draws from, the same at all positions that share
            it; None switches chance off.
    """
    lead = value.shape[: 1 + len(axes)]
    keys = keys if takes_key(fn) else None
    if takes_batch(fn):
        flat = None if keys is None else jnp.repeat(keys, math.prod(lead[1:]))
        out = apply(fn, value.reshape(-1, *value.shape[len(lead) :]), flat)
        return out.reshape(*lead, *out.shape[1:])
    if keys is None:
        return jax.vmap(along(fn, axes))(value)
    return jax.vmap(along(fn, axes))(value, keys)


def along(fn: Callable, axes: Sequence[Axis]) -> Callable:
    """Lift a function of one position over axes, outermost first: `(x, key=None)` of one sample."""
    if not axes:
        return partial(apply, fn)
    if not (isinstance(fn, Stacked) and fn.axis == axes[0]):
        return lambda x, key=None: jax.vmap(lambda part: along(fn, axes[1:])(part, key))(x)

    def each(x, key=None):
        def one(function, part, index):
            return along(function, axes[1:])(part, None if key is None else fold_in(key, index))

        return eqx.filter_vmap(one)(fn.function, x, jnp.arange(len(x)))

    return each


def check_stacked(what: str, fn: Callable, axes: Sequence[Axis], reached: Sequence[int]) -> None:
    """Refuse functions stacked along an axis that is not there, in another order, or of another size.

    Args:
        what: the node or the edge, for the message.
        fn: its function.
        axes: the axes that it is mapped over, outermost first.
        reached: how many positions of each it reaches.
    """
    if isinstance(fn, Stacked) and takes_batch(fn):
        raise GraphError(f"{what}: its function takes a whole batch, and such functions cannot be stacked")
    if isinstance(fn, Stacked) and isinstance(fn.function, Stacked) and takes_key(fn):
        raise GraphError(f"{what}: its function is random, and such functions can be stacked along one axis only")
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
