"""Layers that take a whole batch, because their products are fast or differentiable only so."""

from functools import singledispatch


@singledispatch
def takes_batch(layer) -> bool:
    """Whether a layer maps a batch, shape `(samples, *shape)`, where others map one sample of it.

    It must not mix samples. Unknown layers take one sample. Register your own:
    `takes_batch.register(MyLayer, lambda layer: True)`.
    """
    return False
