"""Callbacks: early stopping, and loggers of any tracker."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energax as ex
from energax.exceptions import SettingError
from energax.training import Callback, Logger, log_to_tensorboard, log_to_wandb

X = np.random.default_rng(0).normal(size=(40, 4))
Y = X @ np.random.default_rng(1).normal(size=(4, 2))


def train(**options):
    graph = ex.networks.mlp([4, 2], jnp.tanh, output_state=False, key=jax.random.key(0))
    learner = ex.Learner(graph, ex.PredictiveCoding(), ex.GradientFlow(), ex.Backprop(), optax.sgd(0.05))
    return ex.train(learner, ex.Arrays(X, Y, batch=20), **{"display": Callback(), "regime": False, **options})


def test_early_stopping_ends_with_pages_and_the_best_epoch(tmp_path):
    """Oracle: validation rows whose targets are another map's: the cost falls, then rises; two epochs of patience."""
    other = (X, -Y)
    long = train(epochs=9, validation=other, metrics=(ex.metrics.COST,))
    costs = [row["validation_cost"] for row in long.history]
    best = int(np.argmin(costs))
    stopping = ex.EarlyStopping(2)
    run = train(epochs=9, validation=other, metrics=(ex.metrics.COST,), callbacks=[stopping], folder=tmp_path / "run")
    assert [row["validation_cost"] for row in run.history] == costs[: best + 3]
    assert run.result["selected_epoch"] == best + 1
    for name in ("summary.md", "curve.png", "result.json", "metrics.jsonl", "last.ckpt", "best.ckpt"):
        assert (tmp_path / "run" / name).exists(), name
    assert json.loads((tmp_path / "run" / "result.json").read_text())["epochs"] == best + 3


def test_an_improvement_below_the_least_counts_as_none():
    """Oracle: a cost that falls by less than a half in every epoch but the first."""
    run = train(epochs=9, validation=(X, Y), metrics=(ex.metrics.COST,), callbacks=[ex.EarlyStopping(1, least=1e9)])
    assert len(run.history) == 2
    with pytest.raises(SettingError, match="EarlyStopping: patience=0"):
        ex.EarlyStopping(0)
    with pytest.raises(SettingError, match="EarlyStopping: least=-1"):
        ex.EarlyStopping(1, least=-1)


def test_every_callback_hears_of_every_epoch_and_one_may_end_it():
    """Oracle: the order in which they are told; the learner that is handed over is the trained one."""
    told = []

    class Ear(Callback):
        def __init__(self, name, last):
            self.name, self.last = name, last

        def epoch(self, row, learner):
            told.append((self.name, row["epoch"], float(learner.graph.functions["layer1"].weight[0, 0])))
            return row["epoch"] == self.last

    run = train(epochs=5, callbacks=[Ear("a", 2), Ear("b", 9)])
    assert [one[:2] for one in told] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert told[-1][2] == float(run.learner.graph.functions["layer1"].weight[0, 0])


def test_loggers_hand_on_the_numbers_of_the_log(tmp_path):
    """Oracle: the history. An object with a `log` stands for Weights & Biases; TensorBoard's files hold the tags."""
    heard, runs = {}, []

    class WandbRun:
        def log(self, numbers, step):
            runs.append((step, numbers))

    loggers = [Logger(heard.__setitem__), log_to_wandb(WandbRun()), log_to_tensorboard(tmp_path / "board")]
    run = train(epochs=2, validation=(X, Y), callbacks=loggers, regime=True)
    for row in run.history:
        assert heard[row["epoch"]]["train_cost"] == row["train_cost"]
        assert heard[row["epoch"]]["layer_cosine/layer1"] == row["layer_cosine"]["layer1"]
    assert runs == list(heard.items())
    (file,) = (tmp_path / "board").glob("events.out.tfevents.*")
    content = file.read_bytes()
    assert all(tag in content for tag in (b"train_cost", b"validation_r2", b"layer_cosine/layer1"))
    with pytest.raises(SettingError, match="Logger: write=3: give a function"):
        Logger(3)
