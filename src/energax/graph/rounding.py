"""Products of rounded numbers, summed in float32: what an accelerator does at several times the speed of float32."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.exceptions import SettingError
from energax.graph.graph import Graph
from energax.graph.stacking import Stacked
from energax.layers import AbstractWrapper, Chain, is_analytic
from energax.layers.random import apply

PRECISIONS = {"float32": (23, "float32"), "tensorfloat32": (10, "tensorfloat32"), "bfloat16": (7, "BF16_BF16_F32")}
"""Name -> the bits of a rounded mantissa, and the products that an accelerator is asked for. Elsewhere the rounding
alone is done, at the speed of float32, with the same result."""


class Rounded(AbstractWrapper):
    """A map whose parameters and input are rounded before they are multiplied; sums and derivatives are not.

    Attributes:
        function: the map; one that is linear in its parameters and in its input loses nothing else.
        precision: a name of `PRECISIONS`.
    """

    function: Callable
    precision: str = eqx.field(static=True)

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        """In the type of `x`, multiplied in float32."""
        bits, products = PRECISIONS[self.precision]

        def short(a):
            return round_mantissa(bits, a.astype(jnp.float32)) if eqx.is_inexact_array(a) else a

        with jax.default_matmul_precision(products):
            return apply(jax.tree.map(short, self.function), short(x), key).astype(x.dtype)


@is_analytic.register
def _(layer: Rounded) -> bool:
    return False  # rounding knows real numbers only


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def round_mantissa(bits: int, a: Array) -> Array:
    """Round to `bits` bits of mantissa, with the range of float32; to a derivative this is the identity."""
    return jax.lax.reduce_precision(a, exponent_bits=8, mantissa_bits=bits)


@round_mantissa.defjvp
def _(bits, primals, tangents):
    return round_mantissa(bits, *primals), *tangents


def round_products(graph: Graph, precision: str) -> Graph:
    """The graph with everything that its edges multiply rounded: one network, in every phase and in the gradient.

    Both phases of a contrast, and the predictions that errors are measured against, must be rounded alike: an error
    of rounding that only one of them makes is larger than what a nudge changes. Parameters and states stay in float32
    where they are stored, added and subtracted, so that small steps are not lost.

    Args:
        graph: the network.
        precision: `float32` (the graph as it is), `tensorfloat32` or `bfloat16`.

    Raises:
        SettingError: another precision.
    """
    if precision not in PRECISIONS:
        raise SettingError(f"precision={precision}: give {', '.join(PRECISIONS)}")
    if precision == "float32":
        return graph
    sending = {edge.function for edge in graph.edges}
    functions = {name: round_map(fn, precision) if name in sending else fn for name, fn in graph.functions.items()}
    return eqx.tree_at(lambda g: g.functions, graph, functions)


def round_map(fn: Callable, precision: str) -> Callable:
    """The map with its parametrised parts `Rounded`; parts without parameters multiply nothing and stay."""
    if isinstance(fn, Chain):
        return Chain(tuple(round_map(part, precision) for part in fn.layers))
    if isinstance(fn, Stacked):
        return Stacked(round_map(fn.function, precision), fn.axis)
    return Rounded(fn, precision) if any(map(eqx.is_inexact_array, jax.tree.leaves(fn))) else fn
