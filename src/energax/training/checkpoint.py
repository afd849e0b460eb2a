"""Checkpoints: a checksum, a line of JSON, then the arrays in numpy's format. No pickle is written or read."""

import contextlib
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from energax.exceptions import RunError, SaveError

REMEDY = "restore it from a copy or start anew"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old one or the whole new one, whatever happens in between.

    Raises:
        SaveError: the disk is full or the folder cannot be written; what was there before is untouched.
    """
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise SaveError(
            f"could not write {path}: {error.strerror or error}. The file that was there before is untouched; free "
            "some space or choose another folder"
        ) from error


def save(path: Path, tree: PyTree, facts: dict[str, Any]) -> None:
    """Save the arrays of a pytree, with facts about them (JSON) and a checksum of both."""
    buffer = io.BytesIO()
    eqx.tree_serialise_leaves(buffer, tree)
    payload = json.dumps(facts).encode() + b"\n" + buffer.getvalue()
    header = {"format": 1, "sha256": hashlib.sha256(payload).hexdigest()}
    write_atomically(path, json.dumps(header).encode() + b"\n" + payload)


def restore(path: Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """Read a checkpoint into the structure of `like`.

    Raises:
        RunError: no such file, damaged contents, or arrays of other shapes than `like`'s.
    """
    try:
        head, _, payload = path.read_bytes().partition(b"\n")
        stated = str(json.loads(head)["sha256"])
    except FileNotFoundError as error:
        raise RunError(f"no checkpoint at {path}: is this a run folder, and has its first epoch ended?") from error
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}; {REMEDY}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is not a checkpoint of energax: {error}; {REMEDY}") from error
    if hashlib.sha256(payload).hexdigest() != stated:
        raise RunError(
            f"{path} is damaged: its contents do not have the checksum {stated[:12]}... that its first line "
            f"states; {REMEDY}"
        )
    facts, _, arrays = payload.partition(b"\n")
    try:
        tree = eqx.tree_deserialise_leaves(io.BytesIO(arrays), like)
    except (RuntimeError, ValueError, EOFError) as error:
        raise RunError(f"{path} does not fit this network: {error}; it was written with other settings") from error
    tree = jax.tree.map(lambda new, old: jax.numpy.asarray(new) if eqx.is_array(old) else new, tree, like)
    try:
        return tree, json.loads(facts)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: its facts are no JSON ({error}); {REMEDY}") from error
