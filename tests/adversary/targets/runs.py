"""Folders of runs: a run is resumed from checkpoints, and from settings, that something happened to."""

import contextlib
import io
import json
import warnings
from functools import cache
from math import isfinite
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

import energax as ex
from energax.cli import main
from energax.exceptions import RunError
from energax.training import pages
from energax.training.callbacks import Callback
from tests.sealing import change_tree, find_places

from ..target import Target, register
from .models import HUGE, SEALED

EPOCHS = 2


@cache
def learner() -> ex.Learner:

    graph = ex.networks.mlp([4, 3, 2], jnp.tanh, key=jax.random.key(0))
    optimiser = optax.adam(1e-2)
    return ex.Learner(graph, ex.PredictiveCoding(ex.CrossEntropy()), ex.ConjugateGradient(), ex.Backprop(), optimiser)


def train(folder: Path, epochs: int, resume: bool) -> None:
    rng = np.random.default_rng(0)
    rows = [(rng.normal(size=(n, 4)).astype("f4"), np.eye(2, dtype="f4")[rng.integers(0, 2, n)]) for n in (20, 8)]
    with warnings.catch_warnings(), no_pictures():
        warnings.simplefilter("ignore")
        run = ex.train(
            learner(),
            ex.training.Arrays(*rows[0], batch=5),
            validation=rows[1],
            test=rows[1],
            epochs=epochs,
            regime=False,
            folder=folder,
            resume=resume,
            display=Callback(),
        )
    assert len(run.history) == epochs
    assert isfinite(run.result["test_cost"])


def no_pictures() -> contextlib.AbstractContextManager:
    """Drawing takes longer than all else, and reads nothing."""
    return mock.patch.object(pages, "draw_curve")


def make_run(folder: Path) -> None:
    train(folder, EPOCHS, resume=False)
    keep_what_is_read(folder)


def keep_what_is_read(folder: Path) -> None:
    """Remove what no resumption opens: to change it would change nothing."""
    for name in (".lock", "summary.md", "result.json"):
        (folder / name).unlink()


def resume_run(folder: Path) -> None:
    train(folder, EPOCHS, resume=True)
    ex.load(folder)


register(Target("checkpoint", "checkpoints", make_run, resume_run, SEALED * 2))


def make_command(folder: Path) -> None:
    words = ["train", "--recipe", "backprop", "--hidden", "3", "--batch", "1000", "--epochs", "1", "--out"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), no_pictures():
        assert main([*words, str(folder / "run")]) == 0
    keep_what_is_read(folder / "run")


def resume_command(folder: Path) -> None:
    told, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(errors), no_pictures():
        code = main(["train", "--resume", str(folder / "run"), "--json", *fewer_epochs(folder / "run" / "config.json")])
    if code:
        assert code in (1, 2)
        lines = errors.getvalue().splitlines()
        assert all(line.startswith("energax: ") for line in lines)
        raise RunError(lines[-1])
    assert isfinite(json.loads(told.getvalue().splitlines()[-1])["test_accuracy"])


def read_config(path: Path) -> Any:
    """What a file says, if it is one of the usual size and says anything."""
    try:
        return json.loads(path.read_text()) if path.is_file() and path.stat().st_size < 2**20 else None
    except (OSError, RecursionError, ValueError):
        return None


def fewer_epochs(path: Path) -> list[str]:
    """Words for a few epochs where the file asks for many in earnest: they take the time that they are asked for."""
    config = read_config(path)
    epochs = config.get("epochs") if isinstance(config, dict) else None
    return ["--epochs", "2"] if isinstance(epochs, int) and EPOCHS < epochs < 2**31 else []


def change_settings(rng: Random, folder: Path) -> str:
    """Another value somewhere in config.json."""
    path = folder / "run" / "config.json"
    config = read_config(path)
    config = config if isinstance(config, (dict, list)) else {}
    places = find_places(config)
    if rng.random() < 0.3 or not places:
        change_tree(config, rng)
        told = "another tree"
    else:
        at, key = rng.choice(places)
        at[key] = rng.choice(
            [*HUGE, 1e300, float("nan"), "x", "mnist", "ep", "scrn", None, True, [], [10**9], {}, -0.0]
        )
        told = f"{key}={str(at[key])[:40]}"
    if path.is_file() and not path.is_symlink():
        path.write_text(json.dumps(config))
    return told


register(Target("config", "configs", make_command, resume_command, (change_settings,) * 4))
