"""Pytrees as JSON and back: values by what they are, arrays by the names of tensors, classes by registered names."""

import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energax.checking import tell
from energax.exceptions import RunError
from energax.saving.arrays import BYTES, PAIRS, PLAIN, Store, is_storable
from energax.saving.registry import find_name, find_thing, is_named_tuple, is_rebuildable, own_name

DEEPEST = 60  # levels of objects: what is nested deeper is no network
PARTIALS = {"functools.partial": functools.partial, "jax.tree_util.Partial": jax.tree_util.Partial}


class Encoder:
    """Turns a pytree into what JSON can hold.

    Attributes:
        store: where its arrays go.
        strict: whether what no name is registered for is refused. Otherwise it is written under its own name, so that
            a process that registers it then can read it.
    """

    def __init__(self, store: Store, *, strict: bool):
        self.store, self.strict = store, strict

    def encode(self, value: Any, path: str = "", level: int = 0) -> Any:
        """A value, and what is below it.

        Args:
            value: anything.
            path: where it stands, for messages and for names of tensors.
            level: how many objects it is within.

        Raises:
            RunError: something that no file can hold, or that is not registered.
        """
        if level > DEEPEST:
            return self._refuse(value, f"{path[:80]}... is nested more than {DEEPEST} levels deep: a model is not")
        kind, below = type(value), functools.partial(self.encode, level=level + 1)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if kind is complex:
            return {"complex": [below(value.real, path), below(value.imag, path)]}
        if kind is list:
            return [below(item, f"{path}[{index}]") for index, item in enumerate(value)]
        if kind is tuple:
            return {"tuple": [below(item, f"{path}[{index}]") for index, item in enumerate(value)]}
        if kind is dict:
            return {"dict": [[below(key, path), below(item, f"{path}[{key!r}]")] for key, item in value.items()]}
        if isinstance(value, np.dtype):
            return {"dtype": value.name}
        if is_storable(value) and not isinstance(value, (int, float, complex, enum.Enum)):
            try:
                return {"array": self.store.add(path, value)}
            except RunError as error:
                return self._refuse(value, f"{path}: {error}")
        if isinstance(value, functools.partial) and kind in PARTIALS.values():
            return {
                "partial": next(name for name, one in PARTIALS.items() if one is kind),
                "function": below(value.func, f"{path}.func"),
                "args": [below(item, f"{path}.args[{index}]") for index, item in enumerate(value.args)],
                "keywords": [[key, below(item, f"{path}.keywords[{key!r}]")] for key, item in value.keywords.items()],
            }
        if (name := find_name(value)) is not None:
            return {"known": name}
        name = find_name(kind)
        if name is None and (self.strict or isinstance(value, type) or not is_rebuildable(kind)):
            return self._refuse(value, refusal(value, path))
        name = name or own_name(kind)
        if isinstance(value, enum.Enum):
            return {"enum": name, "member": value.name}
        where = f"{path}." if path else ""
        names = [field for field in field_names(kind) if not is_fixed(value, field)]
        fields = {field: below(read_field(value, field, path), f"{where}{field}") for field in names}
        return {"class": name, "fields": fields}

    def _refuse(self, value: Any, message: str) -> Any:
        if self.strict:
            raise RunError(message)
        return {"known": own_name(value if isinstance(value, type) or callable(value) else type(value))}


def refusal(value: Any, path: str) -> str:
    """Why something cannot be saved, and what to do."""
    if isinstance(value, type) or (callable(value) and hasattr(value, "__name__")):
        name = own_name(value)
        remedy = f"register it where it is defined: energax.register({name})"
        if "<" in name:
            remedy = "write it with def, and register it where it is defined: energax.register(the_function)"
        return f"{path} is {name!r}, which is not registered, so that a file cannot name it: {remedy}"
    name = type(value).__name__
    if is_rebuildable(type(value)):
        remedy = f"decorate the class with @energax.register, or call energax.register({name})"
        return f"{path} is a {name}, which is not registered, so that a file cannot name it: {remedy}"
    return (
        f"{path} is a {name}, whose contents a file cannot hold: give numbers, arrays, text, tuples, lists, "
        "dictionaries, or an eqx.Module"
    )


def field_names(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass or a named tuple."""
    if is_named_tuple(kind):
        return tuple(typing.cast(Any, kind)._fields)
    return tuple(field.name for field in dataclasses.fields(kind))


def is_fixed(value: Any, field: str) -> bool:
    """Whether a field is one that no constructor takes and none has set: the class's own value stands for it."""
    declared = getattr(type(value), "__dataclass_fields__", {}).get(field)
    return declared is not None and not declared.init and field not in getattr(value, "__dict__", {field: None})


def read_field(value: Any, field: str, path: str) -> Any:
    """What a field holds."""
    try:
        return getattr(value, field)
    except AttributeError as error:
        raise RunError(f"{path} is a {type(value).__name__} whose field {field!r} was never set: set it") from error


def find_unknown(node: Any) -> Iterator[str]:
    """Names that a structure asks for and this process does not know."""
    if isinstance(node, list):
        for item in node:
            yield from find_unknown(item)
    elif isinstance(node, dict):
        for tag in ("class", "enum", "known"):
            name = node.get(tag)
            if isinstance(name, str) and find_thing(name) is None:
                yield name
        for item in node.values():
            yield from find_unknown(item)


def decode(node: Any, array: Callable[[str], Any]) -> Any:
    """The value that an `Encoder` wrote.

    Args:
        node: what JSON holds, of bounded depth.
        array: name of a tensor -> its array.

    Raises:
        RunError: a structure that no `Encoder` writes, fields that a class lacks, or values that do not fit them.
    """
    arrays: dict[str, Any] = {}

    def find(name: str) -> Any:
        if name not in arrays:  # however often it is named, its memory is taken once
            arrays[name] = array(name)
        return arrays[name]

    def build(node: Any) -> Any:
        if node is None or type(node) in (bool, int, float, str):
            return node
        if isinstance(node, list):
            return [build(item) for item in node]
        match node:
            case {"float": "nan" | "inf" | "-inf" as text, **rest} if not rest:
                return float(text)
            case {"complex": [real, imag], **rest} if not rest:
                return complex(build(real), build(imag))
            case {"tuple": list(items), **rest} if not rest:
                return tuple(build(item) for item in items)
            case {"dict": list(pairs), **rest} if not rest:
                return build_dict(pairs)
            case {"dtype": str(name), **rest} if not rest:
                return read_dtype(name)
            case {"array": str(name), **rest} if not rest:
                return find(name)
            case {"known": str(name), **rest} if not rest:
                return find_thing(name)
            case {"enum": str(name), "member": str(member), **rest} if not rest:
                return build_member(name, member)
            case {"partial": str(kind), "function": function, "args": list(args), "keywords": list(pairs), **rest}:
                if kind in PARTIALS and not rest and callable(called := build(function)):
                    return PARTIALS[kind](called, *(build(item) for item in args), **build_dict(pairs))
            case {"class": str(name), "fields": dict(fields), **rest} if not rest:
                return build_object(name, {field: build(item) for field, item in fields.items()})
        raise RunError(f"{tell(node)} stands where a value should")

    def build_dict(pairs: list) -> dict:
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise RunError("a dictionary holds something that is no pair of key and value")
        found = {build(key): build(item) for key, item in pairs}
        if len(found) < len(pairs):
            raise RunError("a key stands twice in a dictionary")
        return found

    return build(node)


def read_dtype(name: str) -> np.dtype:
    """A dtype of numbers."""
    if name not in (*PLAIN.values(), *PAIRS, *BYTES):
        raise RunError(f"unknown dtype {name!r}")
    return jnp.dtype(name)


def build_member(name: str, member: str) -> enum.Enum:
    """A member of an enumeration."""
    kind = find_thing(name)
    if not (isinstance(kind, type) and issubclass(kind, enum.Enum) and member in kind.__members__):
        raise RunError(f"{name} has no member {member!r}")
    return kind[member]


def build_object(name: str, values: dict[str, Any]) -> Any:
    """An instance of a class with these fields, checked as its own constructor would, which does not run.

    A field that is not given takes its default: so files that were written before it was added are read.

    Raises:
        RunError: fields that the class lacks, fields without a default that are not given, or values of another kind
            than the class declares.
    """
    kind = find_thing(name)
    if not isinstance(kind, type) or not is_rebuildable(kind) or issubclass(kind, enum.Enum):
        raise RunError(f"{name} is no class with fields")
    if unknown := sorted(set(values) - set(field_names(kind))):
        raise RunError(f"{name} has no field {', '.join(unknown)} here: was it saved by a newer version of the class?")
    if is_named_tuple(kind):
        defaults = typing.cast(Any, kind)._field_defaults
        return kind(**order_fields(name, kind, {**defaults, **values}))
    defaults = {field.name: default_of(field) for field in dataclasses.fields(kind)}
    defaults = {field: default for field, default in defaults.items() if default is not dataclasses.MISSING}
    given, values = values, order_fields(name, kind, {**defaults, **values})
    check_fields(name, kind, values)
    made = object.__new__(kind)
    for field, value in values.items():
        if field in given or kind.__dataclass_fields__[field].init:
            object.__setattr__(made, field, value)
    if isinstance(made, eqx.Module):
        for parent in kind.__mro__:
            if "__check_init__" in vars(parent):
                vars(parent)["__check_init__"](made)
    return made


def order_fields(name: str, kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """The values in the order of the fields, none of which is missing."""
    if missing := [field for field in field_names(kind) if field not in values]:
        raise RunError(f"{name} needs its field {', '.join(missing)}, which the file lacks")
    return {field: values[field] for field in field_names(kind)}


def default_of(field: dataclasses.Field) -> Any:
    """What the constructor puts into a field that is not given."""
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        default = field.default
    else:
        return dataclasses.MISSING
    return field.metadata.get("converter", lambda value: value)(default)


def check_fields(name: str, kind: type, values: dict[str, Any]) -> None:
    """Refuse values of another kind than a class of energax declares. Others may annotate their fields as they like."""
    if kind.__module__.partition(".")[0] != "energax":
        return
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        held = bool(field.metadata.get("static")) or not issubclass(kind, eqx.Module)
        if not conforms(values[field.name], hints[field.name], held):
            raise RunError(f"{name}: {field.name}={tell(values[field.name])} is not what belongs there")


def conforms(value: Any, hint: Any, held: bool) -> bool:
    """Whether a value is of the kind that an annotation says, as far as that is plain.

    Args:
        value: the value of a field.
        hint: its annotation.
        held: whether the field is fixed when a program is compiled, so that no array may stand there.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(conforms(value, part, held) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(parts) == 2 and parts[1] is Ellipsis:
            return all(conforms(item, parts[0], held) for item in value)
        return len(value) == len(parts) and all(map(functools.partial(conforms, held=held), value, parts))
    if origin is dict:
        return isinstance(value, dict) and all(
            conforms(key, parts[0], held) and conforms(item, parts[1], held) for key, item in value.items()
        )
    if origin is not None and getattr(origin, "__name__", "") == "Callable":
        return callable(value)
    if hint is type(None):
        return value is None
    if hint is str:
        return isinstance(value, str)
    if hint is bool:
        return isinstance(value, (bool, np.bool_))
    if hint in (int, float, jax.Array):
        whole = (int, np.integer) if hint is int and held else (int, float, complex, np.generic)
        return isinstance(value, whole) or (not held and eqx.is_array(value))
    if isinstance(hint, type) and (issubclass(hint, (eqx.Module, enum.Enum)) or dataclasses.is_dataclass(hint)):
        return isinstance(value, hint)
    return True
