"""Arguments checked where they are given: each message names the value, the place and the remedy.

Values that are traced pass, since nothing is known of them yet.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from energax.exceptions import DataError, EnergaxError, SettingError

Found = TypeVar("Found")


def tell(value: Any) -> str:
    """A value as a message shows it: short things as they are written, others by their type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    single = isinstance(value, np.generic) or (isinstance(value, jax.Array) and value.ndim == 0)
    text = repr(value.item() if single else value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"


def find_named(kind: str, name: Any, known: Mapping[str, Found], error: type[EnergaxError] = SettingError) -> Found:
    """What a name stands for.

    Raises:
        SettingError: (or `error`) it is no known name; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in known:  # a list cannot be looked for: it has no hash
        raise error(f"unknown {kind} {tell(name)}; known: {', '.join(known)}")
    return known[name]


def require_kind(place: str, value: Any, kind: type | tuple[type, ...], remedy: str) -> None:
    """Refuse a value that is not of the kind that this place takes; a class in the place of its instance is named.

    Args:
        place: the argument, as `Learner: solver`.
        value: what was given.
        kind: what it must be an instance of.
        remedy: what to give instead.
    """
    if isinstance(value, kind):
        return
    if isinstance(value, type) and issubclass(value, kind):
        remedy = f"give an instance, {value.__name__}(...)"
    raise SettingError(f"{place}={tell(value)}: {remedy}")


def require_callable(place: str, value: Any) -> None:
    """Refuse what cannot be called, such as the name of an activation."""
    if not callable(value):
        raise SettingError(f"{place}={tell(value)}: give a function, as jax.numpy.tanh or one of energax.activations")


def require_key(place: str, value: Any) -> None:
    """Refuse what is no PRNG key."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
        raise SettingError(f"{place}={tell(value)}: give a PRNG key, as jax.random.key(0)")


def as_array(place: str, value: Any, error: type[EnergaxError] = DataError) -> jax.Array:
    """A value as an array of JAX; errors as of `as_host_array`."""
    return value if isinstance(value, jax.Array) else jnp.asarray(as_host_array(place, value, error))


def as_host_array(place: str, value: Any, error: type[EnergaxError] = DataError) -> np.ndarray:
    """A value as an array of numpy that JAX can hold as it is.

    Raises:
        DataError: (or `error`) no numbers, rows of different lengths, or numbers beyond 32 bits where JAX has no more:
            it would cut their bits off in silence.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise error(f"{place}: {tell(value)} is no array of numbers ({problem}): give one") from problem
    if array.dtype.kind not in "biufc" and not jnp.issubdtype(array.dtype, np.number):
        held = "text" if array.dtype.kind in "US" else f"{array.dtype}"
        first = f", {tell(array.reshape(-1)[0])} first" if array.size else ""
        raise error(
            f"{place}: {tell(value)} is no array of numbers (it holds {held}{first}): give one, as "
            "table.to_numpy(float); labels become whole numbers by np.unique(labels, return_inverse=True)[1]"
        )
    require_narrow(place, array, error)
    return array


def require_narrow(place: str, array: np.ndarray, error: type[EnergaxError]) -> None:
    """Refuse finite numbers that the type in which JAX holds them does not reach, naming the first."""
    held = jax.dtypes.canonicalize_dtype(array.dtype)
    if held == array.dtype or array.dtype.kind not in "iuf" or not array.size:
        return
    reach = jnp.iinfo(held) if array.dtype.kind in "iu" else jnp.finfo(held)
    least, most = float(reach.min), float(reach.max)
    if array.max() <= most and array.min() >= least:  # which NaN never is
        return
    bad = np.argwhere(np.isfinite(array) & ((array > most) | (array < least)))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise error(
            f"{place} is {array[where]} at index {where}, and {held} holds {least:.10g} to {most:.10g}: scale such "
            "numbers, or number the classes from 0"
        )


def as_setting(place: str) -> Callable[[Any], Any]:
    """The converter of a field that holds a number or an array of numbers; None stays."""
    return lambda value: None if value is None else as_array(place, value, SettingError)


def find_lost(values: np.ndarray) -> tuple[int, ...] | None:
    """The index of the first value that is no finite number; None where all are."""
    if not jnp.issubdtype(values.dtype, jnp.inexact):
        return None
    with np.errstate(all="ignore"):
        if np.isfinite(np.sum(values)):  # which takes no memory: a sum that is a number is one of numbers
            return None
    bad = np.argwhere(~np.isfinite(values))
    return tuple(int(i) for i in bad[0]) if len(bad) else None


def require_whole(place: str, value: Any, least: int) -> None:
    """Refuse what is no whole number of at least `least`."""
    try:
        whole = not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        whole = False
    if not whole:
        raise SettingError(f"{place}={tell(value)}: give a whole number of at least {least}")


MOST = 2**31 - 1
"""The largest count that is taken: the largest signed whole number of 32 bits."""


def require_count(place: str, value: Any) -> None:
    """Refuse what is no whole number from 1 to `MOST`."""
    require_whole(place, value, 1)
    require_between(place, value, 1, MOST)


def require_sizes(place: str, sizes: Any, least: int) -> None:
    """Refuse what is no sequence of at least `least` whole numbers above 0."""
    if not isinstance(sizes, Sequence) or isinstance(sizes, str) or len(sizes) < least:
        raise SettingError(f"{place}={tell(sizes)}: give a sequence of at least {least} numbers of units or channels")
    for index, size in enumerate(sizes):
        require_whole(f"{place}={tell(sizes)}, at index {index}", size, 1)


def require_between(
    place: str, value: Any, least: float, most: float, *, open_least: bool = False, open_most: bool = False
) -> None:
    """Refuse numbers (or arrays with any number) out of a range; NaN is in none.

    Args:
        place: the argument.
        value: a number or an array.
        least: the lower end of the range.
        most: the upper end.
        open_least: whether the lower end itself is refused.
        open_most: whether the upper end is.
    """
    if isinstance(value, Tracer):
        return
    try:
        numbers = np.asarray(value)  # numpy, because the call may stand inside of what is traced
        above = numbers > least if open_least else numbers >= least
        below = numbers < most if open_most else numbers <= most
        within = bool(np.all(above & below))
    except (TypeError, ValueError):  # no numbers, or rows of different lengths
        within = False
    if not within:
        ends = f"{'above' if open_least else 'from'} {least:.10g}"
        if most < math.inf:
            ends += f" {'to below' if open_most else 'to'} {most:.10g}"
        raise SettingError(f"{place}={tell(value)}: give a number {ends}")
