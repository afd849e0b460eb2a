"""Products of rounded numbers, summed in float32: what an accelerator does at several times the speed of float32."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.layers import Chain
from energax.stacking import Stacked

ALGORITHMS = {"bfloat16": "BF16_BF16_F32", "float16": "tensorfloat32"}
"""Type -> the products that an accelerator is asked for (TensorFloat-32 holds every float16 of its range exactly);
elsewhere the rounding alone is done, at the speed of float32."""


class Rounded(eqx.Module):
    """A map whose parameters and input are rounded to a short type before they are multiplied.

    Attributes:
        fn: the map; one that is linear in its parameters and in its input loses nothing else.
        dtype: `bfloat16` (8 bits of precision, the range of float32) or `float16` (11 bits).
    """

    fn: Callable
    dtype: str = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        """In the type of `x`."""

        def short(a):
            return a.astype(self.dtype).astype(jnp.float32) if eqx.is_inexact_array(a) else a

        with jax.default_matmul_precision(ALGORITHMS[self.dtype]):
            return jax.tree.map(short, self.fn)(short(x)).astype(x.dtype)


def rounded(fn: Callable, dtype: str) -> Callable:
    """The map with its parametrised parts `Rounded`; parts without parameters multiply nothing and stay."""
    if isinstance(fn, Chain):
        return Chain(tuple(rounded(part, dtype) for part in fn.layers))
    if isinstance(fn, Stacked):
        return Stacked(rounded(fn.fn, dtype), fn.axis)
    return Rounded(fn, dtype) if any(map(eqx.is_inexact_array, jax.tree.leaves(fn))) else fn
