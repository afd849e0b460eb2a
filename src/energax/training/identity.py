"""What a learner is made of, as JSON, so that a run is not continued with something else.

It is no file of a model (`energax.saving`): nothing is rebuilt from it, so that it may name what no file can hold, such
as an optimiser, which is known by what its closures hold.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energax.checking import tell
from energax.exceptions import RunError
from energax.opening import shorten
from energax.training.learner import Learner

DEEPEST = 40  # levels: a function that holds itself goes on for ever
BARE = ("class", "fields", "holds")  # of a description; they are no part of a setting's name


def describe_learner(learner: Learner) -> dict[str, Any]:
    """The settings of a learner: classes with their fields, functions with what they hold, as optax transformations do.

    Parameters and measurements, which a training changes, are there by shape alone. A function is known by its name:
    what its code says is not seen.
    """
    dynamics = learner.dynamics
    changing = [learner.graph, *(getattr(dynamics, name) for name in dynamics.trainable)]
    if learner.refresh:  # the solver measures what it holds
        changing.append(learner.solver)
    found = describe(learner, frozenset(map(id, jax.tree.leaves(eqx.filter(changing, eqx.is_array)))))
    # `refresh` before the solver, in which it decides what is a setting
    return {**found, "fields": dict(reversed(found["fields"].items()))}


def describe(value: Any, changing: frozenset[int], level: int = 0) -> Any:
    """One value, as JSON; `changing` are the arrays, by id, of which the shape alone counts."""
    if level > DEEPEST:
        return "..."

    def inner(value: Any) -> Any:
        return describe(value, changing, level + 1)

    def fields(named: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        return {str(name): inner(item) for name, item in named}

    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        shape = f"{value.dtype}{list(value.shape)}"
        if id(value) in changing or jnp.issubdtype(value.dtype, jax.dtypes.extended):
            return shape
        if value.ndim == 0:
            return str(np.asarray(value))
        return f"{shape} {hashlib.sha256(np.asarray(value).tobytes()).hexdigest()[:16]}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = ((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value))
        return {"class": name_of(type(value)), "fields": fields(held)}
    if isinstance(value, Mapping):
        return fields(value.items())
    if isinstance(value, tuple) and (names := getattr(value, "_fields", None)):
        return fields(zip(names, value, strict=True))
    if isinstance(value, (tuple, list)):
        return [inner(item) for item in value]
    if isinstance(value, functools.partial):
        return {"class": name_of(value.func), "holds": fields([("args", value.args), *value.keywords.items()])}
    value = getattr(value, "__wrapped__", value)  # of jax.jit
    cells = getattr(value, "__closure__", None) or ()
    if not cells:
        return name_of(value if callable(value) and hasattr(value, "__qualname__") else type(value))
    names = value.__code__.co_freevars
    return {"class": name_of(value), "holds": fields(zip(names, map(read_cell, cells), strict=True))}


def name_of(thing: Any) -> str:
    """Module and name of a class or function."""
    return f"{thing.__module__}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def read_cell(cell: Any) -> Any:
    """What a function holds in one variable; one that is not set yet holds nothing."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def require_same_learner(file: Path, before: Any, learner: Learner) -> None:
    """Refuse to go on with something else than the run was started with.

    What only one of the two has, such as a field of a newer version, is no difference.

    Args:
        file: where the description stands, for the message.
        before: the description in a checkpoint.
        learner: what is there now.

    Raises:
        RunError: the first difference, by name.
    """
    difference = find_difference(before, describe_learner(learner), "")
    if difference is not None:
        place, *both = difference
        old, new = (shorten(repr(one), 100) if isinstance(one, str) else tell(one) for one in both)
        raise RunError(
            f"{file} is of a learner with {place.lstrip('.') or 'learner'}={old}, and now it is {new}: a run "
            "goes on with what it was started with; give that, or start a new run from its model (energax.load)"
        )


def find_difference(before: Any, now: Any, place: str) -> tuple[str, Any, Any] | None:
    """The first place where two descriptions differ, and what is there."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in now:  # the class first
            where = place if name in BARE else f"{place}.{name}"
            if name in before and (found := find_difference(before[name], now[name], where)) is not None:
                return found
        return None
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        found = (find_difference(old, new, f"{place}[{index}]") for index, (old, new) in pairs)
        return next((one for one in found if one is not None), None)
    return None if before == now else (place, before, now)
