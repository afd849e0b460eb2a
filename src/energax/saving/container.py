"""The file: a safetensors file whose metadata hold one JSON text under the key `energax`, with a checksum of all.

Sizes are checked before anything is decoded: what a file can make a reader allocate is a small multiple of its size.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as to_bytes

from energax.exceptions import RunError
from energax.files import WRITE_REMEDY, write_atomically
from energax.opening import check_json, find_memory, open_file, parse_json, read_up_to
from energax.saving.arrays import PLAIN, Spec, Store, restore_array

KEY = "energax"
VERSION = 1

Content = dict[str, Any]
"""What the JSON text says: `version`, `kind`, `arrays` (name -> `Spec`), `structure`, and more by kind."""

MIGRATIONS: dict[int, Callable[[Content], Content]] = {}
"""Version -> what makes the content of the next version of it: every older version is read through these."""

HEADER = 100_000_000
"""Bytes of the longest header; also the format's own bound."""

HEAD = '{"sha256": "'

READ_REMEDY = "restore it from a copy or start anew"

BROKEN = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError, SafetensorError),
)
"""What comes of reading a file that is none, or a damaged one."""


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
    remedy = f"{READ_REMEDY.capitalize()}."
    with open_file(path, find_memory(), remedy, kind=RunError, missing=missing) as file:
        try:
            text, tensors = read_tensors(file)
            if not text.startswith(HEAD) or text[76:79] != '", ':
                raise ValueError("no checksum stands where it should")
        except BROKEN as error:
            raise RunError(f"{path} is not a {what} of energax: {tell_error(error)}; {READ_REMEDY}") from error
    stated, text = text[12:76], "{" + text[79:]
    if checksum(text, tensors) != stated:
        raise RunError(
            f"{path} is damaged: its contents do not have the checksum {stated[:12]}... that it states; {READ_REMEDY}"
        )
    try:
        content = parse_json(text)
        if type(content) is not dict or type(content["version"]) is not int or type(content["arrays"]) is not dict:
            raise ValueError("its content lacks a version or a table of arrays")
        if not all(type(spec) is dict for spec in content["arrays"].values()):
            raise ValueError("its table of arrays is none")
    except BROKEN as error:
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


def read_tensors(file: BinaryIO) -> tuple[str, dict[str, np.ndarray]]:
    """The JSON text of energax, and the tensors, of a file of safetensors; one of `BROKEN` where it is none.

    What follows the header is read only where there is as much of it as the header says; the package then refuses what
    overlaps or is left over.
    """
    size, first = os.fstat(file.fileno()).st_size, read_up_to(file, 8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > min(HEADER, size - 8):
        raise ValueError("it is shorter than its first bytes say, or no safetensors file")
    header = read_up_to(file, length)
    tensors = parse_json(header.decode())
    text = tensors.pop("__metadata__")[KEY]
    if not isinstance(text, str):
        raise ValueError("its metadata are no text")
    told = 8 + length + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    if told != size:
        raise ValueError(f"it has {size} bytes, and its header tells of another number of them")
    found = {}
    for name, tensor in deserialize(first + header + read_up_to(file, size)):
        dtype = jnp.dtype(PLAIN[tensor["dtype"]])
        found[name] = np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])
    return text, found


def tell_error(error: BaseException) -> str:
    """An error as a message shows it."""
    text = str(error)[:300]
    if not text or isinstance(error, (ValueError, RunError)):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}"
