"""Names of the classes and functions that a file may ask for: nothing else is ever looked up, and nothing imported."""

import dataclasses
import enum
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, TypeVar, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix

from energax import activations, costs, dynamics, graph, inference, layers, rules, solvers
from energax.checking import tell
from energax.exceptions import SettingError
from energax.graph.stacking import Position

ROOMS = (activations, costs, dynamics, graph, inference, layers, rules, solvers)

LIBRARIES = ("equinox.nn", "optimistix", "lineax", "diffrax")
"""Modules whose public classes are known where they are loaded."""

JAX_NUMPY = (
    "abs add arccos arccosh arcsin arcsinh arctan arctanh cbrt ceil clip cos cosh divide exp exp2 expm1 flip floor "
    "heaviside hypot imag log log10 log1p log2 logaddexp max maximum mean min minimum mod multiply negative positive "
    "power prod ravel real reciprocal reshape round sign sin sinc sinh sqrt square squeeze std subtract sum tan tanh "
    "transpose var bfloat16 bool_ complex64 complex128 float16 float32 float64 int8 int16 int32 int64 uint8 uint16 "
    "uint32 uint64"
)
JAX_LAX = "abs add cos div erf erfc exp expm1 log log1p logistic max min mul neg rsqrt sign sin sqrt square sub tanh"
FUNCTIONS: dict[str, list[str]] = {
    "optimistix": ["max_norm", "rms_norm", "two_norm"],
    "energax.layers": ["average", "maximum", "mean_over_image", "pad_even"],
}

Thing = TypeVar("Thing")

_registered: dict[str, Any] = {}  # by users; the one table that grows while a process runs


@overload
def register(thing: Thing, name: str | None = None) -> Thing: ...
@overload
def register(thing: None = None, name: str | None = None) -> Callable[[Thing], Thing]: ...
def register(thing: Any = None, name: str | None = None) -> Any:
    """Give a class or a function of one's own a name, under which files hold it.

    A process that loads a model must have registered, under the same names, whatever the model is made of and energax,
    `equinox.nn` and `jax.nn` lack. As a decorator: `@energax.register`, or `@energax.register(name="my.Layer")`.

    Args:
        thing: an `eqx.Module`, another dataclass, a named tuple, an enumeration, or a function. A file holds the fields
            of a class's instances, and they are rebuilt from these without calling `__init__`; `__check_init__` runs.
        name: in files; its own name, unless given. A name stays as long as there are files that hold it.

    Returns:
        The thing itself.

    Raises:
        SettingError: a name that something else has, or a thing that has no fields and is no function.
    """
    if thing is None:
        return functools.partial(register, name=name)
    if not (is_rebuildable(thing) if isinstance(thing, type) else callable(thing)):
        raise SettingError(
            f"register: {tell(thing)} has no fields that a file could hold: make it an eqx.Module or a dataclass, or "
            "give a function"
        )
    name = own_name(thing) if name is None else name
    if not isinstance(name, str) or not name or "<" in name:
        raise SettingError(f"register: name={name!r}: give a name, register({tell(thing)}, name='...')")
    before = find_thing(name)
    if before is not None and before is not thing and origin(before) != origin(thing):
        raise SettingError(
            f"register: the name {name!r} is taken by {tell(before)} of {origin(before)[0]}: give another, "
            "register(..., name='...')"
        )
    _registered[name] = thing
    return thing


def is_rebuildable(kind: type) -> bool:
    """Whether instances of a class are known by fields, or by a member's name."""
    return dataclasses.is_dataclass(kind) or is_named_tuple(kind) or issubclass(kind, enum.Enum)


def is_named_tuple(kind: type) -> bool:
    """Whether a class is a named tuple."""
    return issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple)


def own_name(thing: Any) -> str:
    """The name of a class or a function without its module, which it may leave."""
    return str(getattr(thing, "__name__", type(thing).__name__))


def origin(thing: Any) -> tuple[str, str]:
    """Where a class or function was written: what is defined there again, as in a notebook, replaces it."""
    return str(getattr(thing, "__module__", "")), str(getattr(thing, "__qualname__", id(thing)))


def find_thing(name: str) -> Any:
    """The class or function of a name, or None."""
    return _registered[name] if name in _registered else known_things(loaded_libraries()).get(name)


def find_name(thing: Any) -> str | None:
    """The name of a class or function, or None."""
    for name, other in _registered.items():
        if other is thing:
            return name
    return _names(loaded_libraries()).get(id(thing))


def loaded_libraries() -> tuple[str, ...]:
    """Those of the libraries that this process has imported."""
    return tuple(name for name in LIBRARIES if name in sys.modules)


@functools.cache
def _names(libraries: tuple[str, ...]) -> dict[int, str]:
    """Number of an object -> the first of its names; they live as long as `known_things` is kept."""
    return {id(thing): name for name, thing in reversed(known_things(libraries).items())}


@functools.cache
def known_things(libraries: tuple[str, ...]) -> dict[str, Any]:
    """Every name that needs no registering, and its class or function."""
    modules = [*ROOMS, *(sys.modules[name] for name in libraries)]
    found: dict[str, Any] = {}
    found |= {f"{module.__name__}.{name}": kind for module in modules for name, kind in public_classes(module)}
    for module in modules:
        for name in FUNCTIONS.get(module.__name__, []):
            found[f"{module.__name__}.{name}"] = getattr(module, name)
    found["energax.graph.Position"] = Position
    # private functions that layers and solvers hold unless told otherwise
    found["equinox.nn.identity"] = inspect.signature(eqx.nn.MLP.__init__).parameters["final_activation"].default
    found["optimistix.no_verbose"] = optimistix.BFGS(1e-3, 1e-3).verbose
    for name, thing in vars(jax.nn).items():
        if callable(thing) and not name.startswith("_"):
            found[f"jax.nn.{name}"] = thing
    found |= {f"jax.numpy.{name}": getattr(jnp, name) for name in JAX_NUMPY.split()}
    found |= {f"jax.lax.{name}": getattr(jax.lax, name) for name in JAX_LAX.split()}
    found |= {f"builtins.{kind.__name__}": kind for kind in (bool, int, float, complex)}
    return found


def public_classes(module: ModuleType) -> Iterator[tuple[str, type]]:
    """The classes with fields that a module shows, and that belong to its library."""
    library = module.__name__.partition(".")[0]
    for name, kind in vars(module).items():
        shown = isinstance(kind, type) and not name.startswith("_")
        if shown and kind.__module__.partition(".")[0] == library and is_rebuildable(kind):
            yield name, kind
