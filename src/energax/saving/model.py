"""`save` and `load`: a model in one file, which needs no code of the user's to be read."""

import os
from math import prod
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from energax.checking import require_kind, tell
from energax.dynamics.model import name_parts
from energax.exceptions import RunError
from energax.inference.predictor import Predictor
from energax.saving.arrays import Store
from energax.saving.container import READ_REMEDY, Container, read_container, tell_error, write_container
from energax.saving.structure import Encoder, decode, find_unknown


def save(path: str | Path, model: Predictor) -> None:
    """Write a model into one file, from which `load` rebuilds it.

    The file is of the safetensors format: arrays are its tensors, and its metadata describe the rest as JSON.

    Args:
        path: the file; one that is there is replaced, whole.
        model: what was trained. Of a `Learner`, graph, dynamics and solver are kept; rule and optimiser are not.

    Raises:
        SettingError: something else than a model.
        RunError: a class or function that is not registered, parameters that are not finite, or a file that cannot be
            written.
    """
    remedy = "give a Predictor, as Predictor(graph, dynamics, solver), or a Learner"
    require_kind("save: model", model, Predictor, remedy)
    require_kind("save: path", path, (str, os.PathLike), "give the path of a file")
    path = Path(path)
    predictor = Predictor(model.graph, model.dynamics, model.solver)
    require_finite(f"{path} was not written", predictor)
    store = Store()
    structure = Encoder(store, strict=True).encode(predictor)
    # what cannot be read is not written: a class may refuse what it held, or be registered under two names
    rebuild(f"{path} was not written", Container({"arrays": store.specs, "structure": structure}, store.tensors))
    write_container(path, "model", store, {"structure": structure})


def load(path: str | Path) -> Predictor:
    """Rebuild a model from a file of `save`, or from a run's folder.

    Classes of the user's must be registered (`register`) under the names that they had when the model was saved. No
    code is read from the file, and nothing is imported because it says so.

    Args:
        path: a file of `save`, a checkpoint, or the folder of a run, of which the epoch with the best validation
            accuracy is read (`best.ckpt`). Where the process was killed in the moment between keeping an epoch and
            putting its best checkpoint into place, that is the best epoch before, until the run is resumed.

    Raises:
        RunError: no such file, a damaged one, one of another program or of a newer version, names that are not
            registered, or parameters that are not finite.
    """
    require_kind("load: path", path, (str, os.PathLike), "give the path of a file, or of a run's folder")
    path = Path(path)
    missing = f"no model at {path}: give a file that energax.save wrote, or the folder of a run"
    if os.path.isdir(path):  # which a path that no file can have does not trouble
        path = path / "best.ckpt"
        missing = f"no model at {path}: is this a run folder, and has its first epoch ended?"
    container = read_container(path, "model", missing)
    predictor = rebuild(f"{path} cannot be loaded", container)
    require_finite(f"{path} cannot be loaded", predictor)
    return predictor


LARGEST = 2**25
PER_PARAMETER = 64
"""Numbers that the states of one sample may have, at least, and for every parameter: networks of images have ten
million, and a file of a few bytes may claim any number of positions and of pixels."""


def require_moderate(place: str, predictor: Predictor) -> None:
    """Refuse states that no memory holds, which a file may claim and not pay for."""
    graph = predictor.graph
    parameters = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(predictor, eqx.is_array)))
    most = max(LARGEST, PER_PARAMETER * parameters)
    for node in graph.nodes:
        shape = graph.full_shape(node.name)
        if prod(shape) > most:
            raise RunError(
                f"{place}: node {node.name!r} has shape {tell(shape)}, and in a file with {parameters} parameters a "
                f"state has at most {most} numbers per sample: build the network, and give it the parameters of a "
                "smaller one"
            )


def rebuild(place: str, container: Container) -> Predictor:
    """The model that a structure describes.

    Args:
        place: how a message begins.
        container: the structure and its arrays.

    Raises:
        RunError: unknown names, or whatever is wrong with the structure.
    """
    structure: Any = container.content.get("structure")
    if structure is None:
        raise RunError(f"{place}: it holds no model, only arrays: restore it with the program that wrote it")
    if unknown := list(dict.fromkeys(find_unknown(structure))):
        listed = ", ".join(name if len(name) < 80 else f"{name[:80]}..." for name in unknown[:10])
        remedy = "import the module that registers it, or register it: energax.register(the_class, name=...)"
        raise RunError(f"{place}: it is made of {listed}, which is not known here; {remedy}")
    try:
        found = decode(structure, container.array)
    except Exception as error:  # whatever a class's own check raises for what it was given
        raise RunError(f"{place}: {tell_error(error)}; {READ_REMEDY}") from error
    if not isinstance(found, Predictor):
        raise RunError(f"{place}: it holds a {type(found).__name__}, and no Predictor")
    require_moderate(place, found)
    return found


def require_finite(place: str, predictor: Predictor) -> None:
    """Refuse parameters that are no numbers, by name."""
    for name, part in name_parts(predictor.model).items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(part, eqx.is_inexact_array)):
            if not bool(jnp.all(jnp.isfinite(leaf))):
                raise RunError(
                    f"{place}: parameters of {name!r} ({jax.tree_util.keystr(path) or 'all'}) are not finite; the "
                    "training diverged: take an earlier checkpoint, or lower the learning rate"
                )
