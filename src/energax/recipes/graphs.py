"""Networks by their names, made of the settings that they read."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from energax import networks
from energax.graph.graph import Graph
from energax.graph.rounding import round_products
from energax.layers import average, maximum
from energax.recipes.settings import Chosen


def graph_of(settings: Chosen, shape: Sequence[int], classes: int, key, activation, output_state: bool) -> Graph:
    """The network, its products as precise as is asked for."""
    return round_products(network_of(settings, shape, classes, key, activation, output_state), settings.precision)


def network_of(settings: Chosen, shape: Sequence[int], classes: int, key, activation, output_state: bool) -> Graph:
    """The network in full precision."""
    options: dict[str, Any] = {"output_state": output_state, "gain": settings.gain, "key": key}
    return NETWORKS[settings.network](settings, shape, classes, activation, options)


def make_mlp(settings: Chosen, shape, classes, activation, options) -> Graph:
    """Fully connected layers on the pixels."""
    return networks.mlp([prod(shape), *settings.hidden, classes], activation, shape=shape, **options)


def make_conv(settings: Chosen, shape, classes, activation, options) -> Graph:
    """Convolutions, each of which halves the image."""
    pool = {"stride": None, "average": average, "maximum": maximum}[settings.pool]
    options = {**options, "pool": pool, "kernel_size": settings.kernel}
    return networks.convolutional(shape, settings.channels, classes, activation, **options)


def make_residual(settings: Chosen, shape, classes, activation, options) -> Graph:
    """A residual net of convolutions."""
    return networks.residual(shape, settings.channels, classes, activation, **options)


def make_hierarchical(settings: Chosen, shape, classes, activation, options) -> Graph:
    """The hierarchical feedforward network of Chen et al. 2025."""
    return networks.hierarchical(shape, classes, activation, width=settings.width, **options)


def make_recurrent(network: Callable[..., Graph]):
    """One of the recurrent networks of Chen et al. 2025."""

    def make(settings: Chosen, shape, classes, activation, options) -> Graph:
        return network(shape, classes, activation, length=settings.length, width=settings.width, **options)

    return make


NETWORKS: dict[str, Callable[..., Graph]] = {
    "mlp": make_mlp,
    "conv": make_conv,
    "residual": make_residual,
    "hfn": make_hierarchical,
    "scrn": make_recurrent(networks.recurrent_simple),
    "scrn-dense": make_recurrent(networks.recurrent_dense),
    "scrn-complex": make_recurrent(networks.recurrent_complex),
}
"""Name of a setting -> `(settings, shape, classes, activation, options) -> graph`."""
