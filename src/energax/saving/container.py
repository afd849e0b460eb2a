"""The file: a safetensors file whose metadata hold one JSON text under the key `energax`, with a checksum of all.

Sizes are checked before anything is decoded: what a file can make a reader allocate is a small multiple of its size.
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as to_bytes

from energax.exceptions import RunError
from energax.files import READ_REMEDY, WRITE_REMEDY, read_file, write_atomically
from energax.saving.arrays import PLAIN, Spec, Store, restore_array

KEY = "energax"
VERSION = 1

Content = dict[str, Any]
"""What the JSON text says: `version`, `kind`, `arrays` (name -> `Spec`), `structure`, and more by kind."""

MIGRATIONS: dict[int, Callable[[Content], Content]] = {}
"""Version -> what makes the content of the next version of it: every older version is read through these."""

HEADER = 100_000_000
"""Bytes of the longest header; also the format's own bound."""

ITEMS = 2_000_000
"""Brackets and commas of the largest JSON text: each may cost a reader about a hundred bytes."""

DEPTH = 200
"""Brackets within brackets: far below where Python's recursion ends."""

HEAD = '{"sha256": "'
TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
"""Texts, which hide what is in them, and all that makes JSON deep or long; one pass, whatever the text."""


class Container(NamedTuple):
    """What a file holds: the content of its JSON text, and its tensors by name."""

    content: Content
    tensors: dict[str, np.ndarray]

    def array(self, name: str) -> Any:
        """The array of a name, as it was stored.

        Raises:
            RunError: no such tensor, or one that is not what the content says.
        """
        if name not in self.tensors:
            raise RunError(f"it has no tensor {name!r}")
        specs: dict[str, Spec] = self.content["arrays"]
        return restore_array(self.tensors[name], specs.get(name, {}))


def write_container(path: Path, kind: str, store: Store, content: Content, remedy: str = WRITE_REMEDY) -> None:
    """Write a file atomically.

    Args:
        path: the file.
        kind: of what is in it, `model` or `checkpoint`.
        store: its tensors.
        content: what else is to be known, in terms of JSON.
        remedy: what a message tells to do where it cannot be written.

    Raises:
        RunError: it cannot be written, or is larger than a reader would take.
    """
    whole = {"version": VERSION, "kind": kind, "arrays": store.specs, **content}
    try:
        text = json.dumps(whole, allow_nan=False)
        check_json(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: this model cannot be written: {error}") from error
    text = f'{HEAD}{checksum(text, store.tensors)}", {text[1:]}'
    written = to_bytes(store.tensors, {KEY: text})
    if int.from_bytes(written[:8], "little") > HEADER:
        raise RunError(f"{path}: the structure of this model takes more than {HEADER} bytes, which no reader takes")
    write_atomically(path, written, remedy)


def read_container(path: Path, what: str, missing: str) -> Container:
    """Read a file, of this version or an older one.

    Args:
        path: the file.
        what: a word for what is looked for, for messages.
        missing: what a message says where there is no such file.

    Raises:
        RunError: no such file, one that is not of energax or of a newer version, or a damaged one.
    """
    data = read_file(path, missing)
    try:
        text = read_header(data)
        tensors = read_tensors(data)
        if not text.startswith(HEAD) or text[76:79] != '", ':
            raise ValueError("no checksum stands where it should")
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError, SafetensorError, MemoryError) as error:
        raise RunError(f"{path} is not a {what} of energax: {tell_error(error)}; {READ_REMEDY}") from error
    stated, text = text[12:76], "{" + text[79:]
    if checksum(text, tensors) != stated:
        raise RunError(
            f"{path} is damaged: its contents do not have the checksum {stated[:12]}... that it states; {READ_REMEDY}"
        )
    try:
        content = read_json(text)
        if type(content) is not dict or type(content["version"]) is not int or type(content["arrays"]) is not dict:
            raise ValueError("its content lacks a version or a table of arrays")
        if not all(type(spec) is dict for spec in content["arrays"].values()):
            raise ValueError("its table of arrays is none")
    except (ValueError, KeyError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {tell_error(error)}; {READ_REMEDY}") from error
    return Container(migrate(path, content), tensors)


def migrate(path: Path, content: Content) -> Content:
    """The content in terms of this version."""
    version = content["version"]
    if version > VERSION:
        raise RunError(
            f"{path} has version {version} of the format, and this energax reads up to {VERSION}: update energax"
        )
    for old in range(version, VERSION):
        if old not in MIGRATIONS:
            raise RunError(f"{path} has version {version} of the format, which is not known; {READ_REMEDY}")
        content = MIGRATIONS[old](content)
    return content


def checksum(text: str, tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 of the JSON text, and of name, dtype, shape and bytes of every tensor in the order of names."""
    digest = hashlib.sha256(text.encode(errors="backslashreplace"))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, tensor.dtype.name, tensor.shape]).encode())
        digest.update(tensor.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def read_header(data: bytes) -> str:
    """The JSON text of energax within a file of safetensors; `ValueError` and `KeyError` where there is none."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(HEADER, len(data) - 8):
        raise ValueError("it is shorter than its first bytes say, or no safetensors file")
    text = read_json(data[8 : 8 + length].decode())["__metadata__"][KEY]
    if not isinstance(text, str):
        raise ValueError("its metadata are no text")
    return text


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a file of safetensors: the package refuses what lies outside of the file, overlaps or is left."""
    found = {}
    for name, tensor in deserialize(data):
        dtype = jnp.dtype(PLAIN[tensor["dtype"]])
        found[name] = np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])
    return found


def read_json(text: str) -> Any:
    """JSON of bounded depth and size, without doubled names; `ValueError` otherwise."""
    check_json(text)
    return json.loads(text, object_pairs_hook=refuse_doubles)


def check_json(text: str) -> None:
    """Refuse brackets within too many brackets, and too many of them, before anything is built; `ValueError`."""
    depth = items = 0
    for found in TOKENS.finditer(text):
        token = found.group()[0]
        if token == '"':
            continue
        items += 1
        depth += (token in "[{") - (token in "]}")
        if depth > DEPTH or items > ITEMS:
            raise ValueError(f"its JSON is nested more than {DEPTH} deep, or has more than {ITEMS} parts")


def refuse_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, unless one name stands there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in an object of its JSON")
    return found


def tell_error(error: BaseException) -> str:
    """An error as a message shows it."""
    text = str(error)[:300]
    if not text or isinstance(error, (ValueError, RunError)):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}"
