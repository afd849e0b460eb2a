"""Nets whose synapses are given one by one: circuits that were measured, or drawn from probabilities."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from energax.checking import (
    as_array,
    require_between,
    require_callable,
    require_key,
    require_sizes,
    require_whole,
    tell,
)
from energax.exceptions import DataError, SettingError
from energax.graph.edge_list import EdgeList, read_edges
from energax.graph.graph import Graph
from energax.graph.parts import Edge, Node
from energax.layers import Chain, Flatten, Sparse

Units = Sequence[str] | np.ndarray
"""Names of units, or their indices."""


def from_edges(
    edges: EdgeList | str | Path,
    shape: Sequence[int],
    classes: int,
    activation: Callable | None = None,
    *,
    reading: Units,
    shown: Units,
    answering: Units | None = None,
    weights: np.ndarray | str | None = None,
    share: float | np.ndarray = 1.0,
    gain: float = 1.0,
    readout_gain: float = 1.0,
    feedback_gain: float = 1.0,
    mirrored: bool = False,
    key: PRNGKeyArray,
) -> Graph:
    """A circuit between an input and an output: nodes `input`, `units` and `output`.

    Its functions, all of them lists of synapses: `entering` from the input to the units that read it, `synapses` among
    the units, `leaving` from the units that are shown to every output unit, and `returning` from every output unit back
    to them or to others. Only `entering` and `leaving` have biases, one for each unit and output unit. What shall stay
    as it is, is named to `Learner.freeze`.

    Args:
        edges: an edge list, or the file of one as `read_edges` takes it.
        shape: of one input.
        classes: units of the output, which is linear.
        activation: of the units; None for a flow network.
        reading: the units that the input reaches.
        shown: the units that the output reads.
        answering: the units that the output answers to; left out: those that it reads.
        weights: of `synapses`, shape `(synapses,)`, or the column of the file that holds them; left out: drawn from
            U(+-gain / sqrt(mean number of synapses per unit)).
        share: of the pairs of an input and a reading unit that are joined, drawn at random; one for each reading unit,
            or one for all.
        gain: scale of `entering`, and of `synapses` where they are drawn.
        readout_gain: scale of `leaving`.
        feedback_gain: scale of `returning`.
        mirrored: whether `returning` is `leaving` the other way round, times `feedback_gain`; it is drawn otherwise.
            Not beside `answering`.
        key: PRNG key.

    Raises:
        DataError: a file that cannot be read, a column that is not there or holds no numbers, a name that no unit has.
        SettingError: an index that is no unit's, weights of another number than there are synapses, a share that is
            not in (0, 1], or `mirrored` beside `answering`.
    """
    require_key("from_edges: key", key)
    require_sizes("from_edges: shape", shape, 1)
    require_whole("from_edges: classes", classes, 1)
    for name, given in (("gain", gain), ("readout_gain", readout_gain), ("feedback_gain", feedback_gain)):
        require_between(f"from_edges: {name}", given, 0, math.inf, open_most=True)
    if not isinstance(edges, EdgeList):
        edges = read_edges(edges, columns=[weights] if isinstance(weights, str) else [])
    if isinstance(weights, str):
        weights = _column(edges, weights)
    units, inputs = len(edges.names), math.prod(shape)
    keys = jax.random.split(key, 5)
    if mirrored and answering is not None:
        raise SettingError("from_edges: mirrored=True is for the units that are shown: leave `answering` out")
    named = {"reading": reading, "shown": shown, "answering": shown if answering is None else answering}
    reads, shows, answers = (_as_indices(edges, *pair) for pair in named.items())
    shares = np.asarray(as_array("from_edges: share", share, SettingError))
    if shares.shape not in ((), reads.shape) or not np.all((shares > 0) & (shares <= 1)):
        raise SettingError(
            f"from_edges: share={tell(share)}: give numbers above 0 and up to 1, one for all or for each of the "
            f"{len(reads)} units that read"
        )
    entering = _join(np.arange(inputs), reads)
    chosen = np.asarray(jax.random.uniform(keys[4], (inputs, len(reads)))) < shares
    entering = (entering[0][chosen.reshape(-1)], entering[1][chosen.reshape(-1)])
    leaving, returning = (_join(ends, np.arange(classes)) for ends in (shows, answers))
    # the scale is by the synapses of a unit that is reached, and not by their mean over all units
    into = gain * (len(reads) / units) ** 0.5
    back = feedback_gain * (len(answers) / units) ** 0.5
    functions: dict[str, Any] = {
        "entering": Chain((Flatten(), _without_bias(Sparse(*entering, inputs, units, gain=into, key=keys[0])))),
        "synapses": Sparse(edges.sources, edges.targets, units, units, use_bias=False, gain=gain, key=keys[1]),
        "leaving": _without_bias(Sparse(*leaving, units, classes, gain=readout_gain, key=keys[2])),
        "returning": Sparse(returning[1], returning[0], classes, units, use_bias=False, gain=back, key=keys[3]),
    }
    if mirrored:
        functions["returning"] = eqx.tree_at(
            lambda layer: layer.weight, functions["returning"], feedback_gain * functions["leaving"].weight
        )
    if weights is not None:
        given = as_array("from_edges: weights", weights, SettingError).astype(float)
        if given.shape != (len(edges),):
            raise SettingError(f"from_edges: weights of shape {given.shape} for {len(edges)} synapses: give one each")
        if not jnp.all(jnp.isfinite(given)):
            place = int(jnp.argmin(jnp.isfinite(given)))
            raise SettingError(f"from_edges: weights[{place}]={float(given[place])}: give finite numbers")
        functions["synapses"] = eqx.tree_at(lambda layer: layer.weight, functions["synapses"], given)
    if activation is not None:
        require_callable("from_edges: activation", activation)
        functions["activation"] = activation
    nodes = [
        Node("input", tuple(shape)),
        Node("units", (units,), None if activation is None else "activation"),
        Node("output", (classes,)),
    ]
    links = [
        Edge("input", "units", "entering"),
        Edge("units", "units", "synapses"),
        Edge("units", "output", "leaving"),
        Edge("output", "units", "returning"),
    ]
    return Graph(nodes=nodes, edges=links, functions=functions, input="input", output="output")


def _column(edges: EdgeList, name: str) -> np.ndarray:
    """A column of numbers."""
    if name not in edges.columns:
        kept = ", ".join(map(repr, edges.columns)) or "none"
        raise DataError(f"from_edges: weights={name!r}: columns that were read: {kept}; name it to read_edges")
    if edges.columns[name].dtype.kind not in "fiu":
        raise DataError(
            f"from_edges: weights={name!r}: the column holds {tell(edges.columns[name][0])}, and no numbers"
        )
    return edges.columns[name]


def _as_indices(edges: EdgeList, place: str, given: Units) -> np.ndarray:
    """Indices of units that are named or numbered."""
    try:
        units = np.asarray(given)
    except ValueError:  # rows of different lengths
        units = np.zeros(0)
    if units.ndim != 1 or not len(units) or units.dtype.kind not in "USiu":
        raise SettingError(f"from_edges: {place}={tell(given)}: give a list of names or indices of at least one unit")
    if units.dtype.kind in "US":
        try:
            units = edges.find(map(str, units))
        except DataError as error:
            raise DataError(f"from_edges: {place}: {error}; the first are {tell(edges.names[:3].tolist())}") from None
    if units.min() < 0 or units.max() >= len(edges.names):
        raise SettingError(
            f"from_edges: {place}: indices from {units.min()} to {units.max()}: give some from 0 to "
            f"{len(edges.names) - 1}"
        )
    found, counts = np.unique(units, return_counts=True)
    if np.any(counts > 1):
        twice = found[np.argmax(counts)]
        raise SettingError(f"from_edges: {place}: unit {twice} ({edges.names[twice]}) comes twice: give each once")
    return units


def _join(sources: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs: what they leave, and what they reach."""
    return np.repeat(sources, len(targets)).astype(np.int32), np.tile(targets, len(sources)).astype(np.int32)


def _without_bias(layer: Sparse) -> Sparse:
    """The layer with a bias of 0, to be learnt."""
    return eqx.tree_at(lambda layer: layer.bias, layer, jnp.zeros(layer.out_features))
