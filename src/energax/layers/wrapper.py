"""Layers around another layer."""

from collections.abc import Callable

import equinox as eqx

from energax.layers.batched import takes_batch
from energax.layers.random import takes_key


class AbstractWrapper(eqx.Module):
    """A layer that calls another with `apply`; it is random, takes a batch and is analytic where that one does.

    Attributes:
        function: the other layer.
    """

    function: eqx.AbstractVar[Callable]


@takes_key.register
def _(layer: AbstractWrapper) -> bool:
    return takes_key(layer.function)


@takes_batch.register
def _(layer: AbstractWrapper) -> bool:
    return takes_batch(layer.function)
