"""Checkpoints: the arrays of a training in a file as `energax.save` writes it, with facts about them. No pickle."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from energax.checking import tell
from energax.exceptions import RunError
from energax.files import WRITE_REMEDY
from energax.inference.predictor import Predictor
from energax.opening import parse_json, shorten
from energax.saving.arrays import Store, is_storable, store_array
from energax.saving.container import BROKEN, READ_REMEDY, Container, read_container, tell_error, write_container
from energax.saving.structure import Encoder

FIT = "it was written with other settings"


def save(path: Path, tree: PyTree, facts: dict[str, Any], predictor: Predictor | None = None) -> None:
    """Save the arrays of a pytree, with facts about them (JSON) and a checksum of both.

    Args:
        path: the file.
        tree: the arrays; a tensor of the file is named by its place in the tree.
        facts: what else `restore` is to return.
        predictor: whose structure is written as well, so that `energax.load` rebuilds it. Its classes need not be
            registered: who loads it is told which are to be.

    Raises:
        RunError: the file cannot be written; what was there before is untouched.
    """
    store = Store()
    leaves = {name: store.add(name, leaf, again=True) for name, leaf in name_leaves(tree).items()}
    structure = None if predictor is None else Encoder(store, strict=False).encode(predictor, "predictor")
    content = {"structure": structure, "leaves": leaves, "facts": json.dumps(facts)}
    write_container(path, "checkpoint", store, content, WRITE_REMEDY)


def restore(path: Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """Read a checkpoint into the structure of `like`.

    Raises:
        RunError: no such file, damaged contents, arrays of other shapes or dtypes than `like`'s, or ones that are not
            finite.
    """
    container, facts = read_checkpoint(path)
    leaves = container.content["leaves"]
    expected = name_leaves(like)
    if odd := sorted(set(leaves) ^ set(expected)):
        names = ", ".join(shorten(name, 100) for name in odd[:5])
        raise RunError(f"{path} does not fit this network: {names} are in one of them only; {FIT}")
    try:
        found = {name: read_leaf(container, name, leaves[name], leaf) for name, leaf in expected.items()}
    except RunError as error:
        raise RunError(f"{path} {error}") from error
    except BROKEN as error:
        raise RunError(f"{path} is damaged: {tell_error(error)}; {READ_REMEDY}") from error
    restored = jax.tree_util.tree_map_with_path(lambda at, leaf: found.get(jax.tree_util.keystr(at), leaf), like)
    return restored, facts


def read_facts(path: Path) -> dict[str, Any]:
    """What a checkpoint says about its arrays; errors as of `restore`."""
    return read_checkpoint(path)[1]


def read_checkpoint(path: Path) -> tuple[Container, dict[str, Any]]:
    """What is in a file, whichever training it is of."""
    missing = f"no checkpoint at {path}: is this a run folder, and has its first epoch ended?"
    container = read_container(path, "checkpoint", missing)
    leaves, text = container.content.get("leaves"), container.content.get("facts")
    if not isinstance(leaves, dict) or not isinstance(text, str):
        raise RunError(f"{path} is not a checkpoint of energax: it holds a model alone; read it with energax.load")
    try:
        facts = parse_json(text)
    except BROKEN as error:
        raise RunError(f"{path} is damaged: {tell_error(error)}; {READ_REMEDY}") from error
    if not isinstance(facts, dict):
        raise RunError(f"{path} is damaged: its facts are {tell(facts)}; {READ_REMEDY}")
    return container, facts


def name_leaves(tree: PyTree) -> dict[str, Any]:
    """Place in a tree -> the array or number there."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in found if is_storable(leaf)}


def read_leaf(container: Container, name: str, tensor: str, like: Any) -> Any:
    """One array, if it fits the one that stands in its place, and is finite where that one is.

    Infinities may belong to an optimiser that has not seen a cost yet; what is no number belongs nowhere.
    """
    stored, _ = store_array(like)
    found = container.tensors.get(tensor)
    if found is None:
        raise RunError(f"does not fit this network: it lacks {name}; {FIT}")
    if (found.shape, found.dtype) != (stored.shape, stored.dtype):
        raise RunError(
            f"does not fit this network: {name} has shape {found.shape} and dtype {found.dtype} in the file, and "
            f"{stored.shape} and {stored.dtype} here; {FIT}"
        )
    if jnp.issubdtype(found.dtype, jnp.inexact):
        values, before = np.asarray(found, float), np.asarray(stored, float)
        if np.any(np.isnan(values) | (np.isinf(values) & np.isfinite(before))):
            raise RunError(
                f"holds values that are not finite in {name}: the training had diverged; start anew with a lower "
                "learning rate"
            )
    if isinstance(like, (bool, int, float, complex)):
        return type(like)(*np.atleast_1d(found))  # a complex number is stored as two
    array = container.array(tensor)
    return jnp.asarray(array, like.dtype) if isinstance(like, jax.Array) else array
