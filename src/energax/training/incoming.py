"""Batches as they come from an iterable: checked, brought to one size, and stacked into groups. All in numpy."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from energax.checking import as_host_array, tell
from energax.costs import AbstractCost, Costs
from energax.dynamics.phase import Batch
from energax.exceptions import DataError
from energax.training.rows import find_mask, require_finite_numbers, require_weights

AT_ONCE = 64_000_000  # bytes of a group


def is_array(value: Any) -> bool:
    """Whether a value is an array, or a mapping of such."""
    if isinstance(value, Mapping):
        return all(is_array(one) for one in value.values())
    return hasattr(value, "shape") and hasattr(value, "dtype")


def split_fields(place: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping's fields by name: its keys are x, y, weights and known, or the nodes of x where none is called x."""
    fields = dict(given) if "x" in given else {"x": given}
    if unknown := set(fields) - {"x", "y", "weights", "known"}:
        keys = ", ".join(map(tell, sorted(unknown, key=str)))
        raise DataError(f"{place} has the keys {keys}: give x, y and weights, and the values of nodes within x")
    return fields


def check_batch(given: Any, number: int) -> Batch:
    """A batch of a stream, in numpy's arrays.

    Args:
        given: as `Stream` takes it.
        number: its number in the epoch, for messages.

    Raises:
        DataError: something else, no rows, or numbers that are none.
    """
    fields: dict[str, Any]
    if isinstance(given, Batch):
        fields = {"x": given.x, "y": given.y, "weights": given.weights, "known": given.known}
    elif isinstance(given, Mapping):
        fields = split_fields(f"batch {number}", given)
    elif isinstance(given, (tuple, list)) and len(given) in (2, 3):
        fields = dict(zip(("x", "y", "weights"), given, strict=False))
    elif is_array(given):
        fields = {"x": given}
    else:
        raise DataError(
            f"batch {number} is {tell(given)}: give batches (x, y), (x, y, weights), a Batch, or a mapping with the "
            "keys x and y; whole arrays, lists and tables go into Arrays(x, y)"
        )
    masks = fields.get("known")
    plain = {name: as_numbers(f"batch {number}, {name}", value, name, masks) for name, value in fields.items()}
    shapes = [a.shape for a in jax.tree.leaves(plain)]
    if not all(shapes) or len({shape[0] for shape in shapes}) != 1 or not shapes[0][0]:
        told = ", ".join(map(str, shapes[:5]))
        raise DataError(f"batch {number} has arrays of the shapes {told}: give every array one row for every sample")
    if plain.get("weights") is not None:
        require_weights(f"batch {number}, weights", plain["weights"])
    return Batch(plain["x"], plain.get("y"), None, plain.get("weights"), plain.get("known"))


def as_numbers(place: str, value: Any, field: str, known: Any, node: str | None = None) -> Any:
    """A value of a field, or a mapping of values, in finite numbers; where x is not known it may be anything."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {name: as_numbers(f"{place}[{name!r}]", one, field, known, name) for name, one in value.items()}
    array = as_host_array(place, value)
    require_finite_numbers(place, array, find_mask(known, field, "x" if node is None else f"x[{node!r}]"))
    return array


def require_targets(place: str, targets: Any, shapes: Any, cost: AbstractCost) -> None:
    """Refuse whole numbers that are no class of an output, and numbers that mean nothing to its cost.

    Args:
        place: what to call the targets.
        targets: as a cost takes them.
        shapes: of the outputs, as `shape_outputs` tells them.
        cost: of the outputs.

    Raises:
        DataError: such numbers; the message names the first.
    """
    if isinstance(targets, Mapping):
        for name, one in targets.items():
            shape = shapes.get(name) if isinstance(shapes, dict) else shapes
            own = cost.costs.get(name) if isinstance(cost, Costs) else cost
            if own is not None:
                require_targets(f"{place}[{name!r}]", one, shape, own)
        return
    if targets is None or not isinstance(shapes, tuple) or not shapes:
        return
    values = np.asarray(targets)
    values = values.astype(int) if values.dtype == bool else values
    if values.dtype.kind == "f" and values.shape[1:] == shapes:
        cost.check_targets(place, values)
    if values.dtype.kind not in "iu" or values.shape[1:] != shapes[:-1]:
        return
    bad = np.argwhere((values < 0) | (values >= shapes[-1]))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise DataError(
            f"{place} is {values[where]} at index {where}, and the output has {shapes[-1]} classes: give numbers from "
            f"0 to {shapes[-1] - 1}, as np.unique(labels, return_inverse=True)[1] makes of any labels"
        )


def fill_up(batch: Batch, size: int) -> tuple[Batch, int]:
    """A batch with as many rows as the largest so far, those that were added with a weight of 0; and that number."""
    rows = len(jax.tree.leaves(batch.x)[0])
    weights: Any = np.ones(rows, jnp.result_type(float)) if batch.weights is None else batch.weights
    if rows >= size:
        return dataclasses.replace(batch, weights=weights), rows
    chosen = np.minimum(np.arange(size), rows - 1)
    filled = jax.tree.map(lambda a: a[chosen], dataclasses.replace(batch, weights=weights))
    weights = np.where(np.arange(size) < rows, filled.weights, 0).astype(filled.weights.dtype)
    return dataclasses.replace(filled, weights=weights), size


def gather_groups(batches: Iterator[Batch], most: int) -> Iterator[tuple[Batch, int]]:
    """Batches of one shape, stacked, and how many they are; the last group of a shape is filled up to the others' size.

    Args:
        batches: the batches.
        most: batches in a group; fewer where they are large.
    """
    group: list[Batch] = []
    size = most

    def stack() -> tuple[Batch, int]:
        filled = [group[min(index, len(group) - 1)] for index in range(size)]
        return jax.tree.map(lambda *parts: np.stack(parts), *filled), len(group)

    for batch in batches:
        if group and shapes_of(batch) != shapes_of(group[0]):
            yield stack()
            group = []
        if not group:
            whole = sum(leaf.nbytes for leaf in jax.tree.leaves(batch))
            size = max(1, min(most, AT_ONCE // max(whole, 1)))
        group.append(batch)
        if len(group) == size:
            yield stack()
            group = []
    if group:
        yield stack()


def shapes_of(batch: Batch) -> Any:
    """What must be the same of batches that are stacked."""
    return jax.tree.structure(batch), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch)]
