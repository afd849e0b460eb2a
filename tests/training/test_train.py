"""`train`: arrays and streams of anything, against loops by hand; continued and resumed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energax as ex
from energax.exceptions import DataError, DivergenceError, RunError, SettingError
from energax.layers import Linear
from energax.training import Callback, RunFolder

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(50, 4)), RNG.normal(size=(50, 3))
WEIGHTS = RNG.uniform(0.5, 2.0, 50)
RATE = 0.1


def linear(cost=None, outputs=3, optimiser=None) -> ex.Learner:
    """One linear map under backprop."""
    graph = ex.networks.mlp([4, outputs], jnp.tanh, output_state=False, key=jax.random.key(0))
    dynamics = ex.PredictiveCoding(cost or ex.SquaredError())
    return ex.Learner(graph, dynamics, ex.GradientFlow(), ex.Backprop(), optimiser or OPTIMISER)


OPTIMISER = optax.sgd(RATE, momentum=0.9)


def by_hand(batches, epochs: int):
    """Weighted least squares by gradient descent with momentum, in numpy; weight, bias, and the cost of every row."""
    layer = linear().graph.functions["layer1"]
    weight, bias = np.array(layer.weight), np.array(layer.bias)
    speed = [np.zeros_like(weight), np.zeros_like(bias)]
    for _ in range(epochs):
        costs = []
        for x, y, w in batches:
            error = x @ weight + bias - y
            costs.append((w, (error**2).sum(1) / 2, error))
            share = (w / w.sum())[:, None]
            for i, gradient in enumerate((x.T @ (share * error), (share * error).sum(0))):
                speed[i] = gradient + 0.9 * speed[i]
            weight, bias = weight - RATE * speed[0], bias - RATE * speed[1]
    return weight, bias, costs


def cut(size: int):
    return [(X[i : i + size], Y[i : i + size], WEIGHTS[i : i + size]) for i in range(0, 50, size)]


QUIET = {"regime": False, "display": Callback()}


def test_rows_of_any_shape_train_as_by_hand():
    """Oracle: numpy's loop over the same batches; the log's cost, error and R^2 are those of the last epoch.

    50 rows in batches of 8: two rest.
    """
    run = ex.train(linear(), ex.Arrays(X, Y, batch=8, weights=WEIGHTS, shuffle=False), epochs=2, **QUIET)
    weight, bias, costs = by_hand(cut(8)[:6], 2)
    layer = run.learner.graph.functions["layer1"]
    np.testing.assert_allclose(layer.weight, weight, rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.bias, bias, rtol=0, atol=1e-12)
    w, cost, error = (np.concatenate(parts) for parts in zip(*costs, strict=True))
    y, row = Y[:48], run.history[-1]
    assert row["train_cost"] == pytest.approx(np.average(cost, weights=w), rel=1e-12)
    assert row["train_mse"] == pytest.approx(np.average((error**2).mean(1), weights=w), rel=1e-12)
    spread = w @ (y - np.average(y, axis=0, weights=w)) ** 2
    assert row["train_r2"] == pytest.approx(np.mean(1 - (w @ error**2) / spread), rel=1e-12)


@pytest.mark.parametrize("kind", ["list", "function", "mappings", "batches"])
def test_a_stream_trains_on_every_row_of_every_batch(kind):
    """Oracle: numpy's loop, whose last batch has 2 rows and not 8."""
    parts = cut(8)
    given = {
        "list": parts,
        "function": lambda: iter(parts),
        "mappings": [{"x": x, "y": y, "weights": w} for x, y, w in parts],
        "batches": [ex.Batch(jnp.asarray(x), jnp.asarray(y), None, jnp.asarray(w)) for x, y, w in parts],
    }[kind]
    run = ex.train(linear(), given, epochs=2, **QUIET)
    weight, bias, costs = by_hand(parts, 2)
    layer = run.learner.graph.functions["layer1"]
    np.testing.assert_allclose(layer.weight, weight, rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.bias, bias, rtol=0, atol=1e-12)
    w, cost, _ = (np.concatenate(one) for one in zip(*costs, strict=True))
    assert run.history[-1]["train_cost"] == pytest.approx(np.average(cost, weights=w), rel=1e-12)


def test_whole_numbers_are_classes(same):
    """Oracle: the same training on one-hot targets, bit for bit."""
    labels = RNG.integers(0, 3, 50)
    runs = [
        ex.train(linear(ex.CrossEntropy()), ex.Arrays(X, y, batch=10), epochs=2, validation=(X, y), **QUIET)
        for y in (labels, np.eye(3)[labels])
    ]
    assert same(runs[0].learner, runs[1].learner)
    assert runs[0].history[-1]["validation_accuracy"] == runs[1].history[-1]["validation_accuracy"]
    found = np.argmax(
        X @ runs[0].learner.graph.functions["layer1"].weight + runs[0].learner.graph.functions["layer1"].bias, 1
    )
    assert runs[0].history[-1]["validation_accuracy"] == np.mean(found == labels)


PLACE = ex.Axis("place", 3)


def test_several_inputs_and_positions_of_a_sequence():
    """Oracle: numpy. Tokens of three positions from two inputs: perplexity is the exponential of their mean cost."""
    graph = ex.Graph(
        nodes=[
            ex.Node("a", (4,), axes=(PLACE,)),
            ex.Node("b", (2,), axes=(PLACE,)),
            ex.Node("out", (5,), state=False, axes=(PLACE,)),
        ],
        edges=[ex.Edge("a", "out", "from_a"), ex.Edge("b", "out", "from_b")],
        functions={
            "from_a": Linear(4, 5, key=jax.random.key(0)),
            "from_b": Linear(2, 5, key=jax.random.key(1)),
        },
        input=("a", "b"),
        output=ex.At("out", place=ex.EVERY),
    )
    learner = ex.Learner(graph, ex.PredictiveCoding(ex.CrossEntropy()), ex.GradientFlow(), ex.Backprop(), OPTIMISER)
    x = {"a": RNG.normal(size=(20, 3, 4)), "b": RNG.normal(size=(20, 3, 2))}
    tokens = RNG.integers(0, 5, (20, 3))
    found = ex.evaluate(learner, ex.Arrays(x, tokens), batch=7).averages
    logits = np.asarray(
        sum(x[n] @ f.weight + f.bias for n, f in (("a", graph.functions["from_a"]), ("b", graph.functions["from_b"])))
    )
    chances = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), tokens[..., None], -1)
    assert found["perplexity"] == pytest.approx(np.exp(-chances.mean()), rel=1e-12)
    assert found["accuracy"] == pytest.approx(np.mean(np.argmax(logits, -1) == tokens), rel=1e-12)
    run = ex.train(learner, ex.Arrays(x, tokens, batch=5), epochs=3, **QUIET)
    assert run.history[-1]["train_perplexity"] < found["perplexity"]


def test_a_run_that_is_continued_equals_the_uninterrupted_one(same):
    """Oracle: the same training at once: parameters, optimiser state and log; other rows need another learner's."""
    rows = ex.Arrays(X, Y, batch=8)
    whole = ex.train(linear(), rows, epochs=4, seed=3, **QUIET)
    first = ex.train(linear(), rows, epochs=2, seed=3, **QUIET)
    after = first.continue_(rows, epochs=2, seed=3, **QUIET)
    assert same(whole.progress, after.progress)
    assert [row["train_cost"] for row in whole.history] == [row["train_cost"] for row in after.history]
    again = first.continue_(rows, epochs=2, seed=3, **QUIET)  # the first run is whole as it was
    assert same(again.progress, after.progress)


def test_one_sample_at_a_time():
    """Oracle: numpy's loop over batches of one row, by `begin` and `update`."""
    learner = linear()
    progress = ex.begin(learner)
    for x, y in zip(X[:10], Y[:10], strict=True):
        progress, info = ex.update(learner, progress, ex.Batch(jnp.asarray(x[None]), jnp.asarray(y[None])))
    weight, _, costs = by_hand([(x[None], y[None], np.ones(1)) for x, y in zip(X[:10], Y[:10], strict=True)], 1)
    np.testing.assert_allclose(progress.as_learner(learner).graph.functions["layer1"].weight, weight, atol=1e-12)
    assert float(info.cost[0]) == pytest.approx(costs[-1][1][0], rel=1e-12)


class Broken(Callback):
    """Ends a training as a lost process does, after an epoch."""

    def epoch(self, row, learner):
        if row["epoch"] == 2:
            raise InterruptedError


def resume(batches, folder) -> ex.training.Run:
    """A run of four epochs that is interrupted after the second and resumed with the same batches anew."""
    with pytest.raises(InterruptedError):
        ex.train(linear(), batches(), epochs=4, folder=folder, regime=False, display=Broken())
    return ex.train(linear(), batches(), epochs=4, folder=folder, resume=True, **QUIET)


def loader(epochs):
    """A loader of grain: shuffled, batches of 8, ending after so many epochs."""
    import grain

    source = grain.MapDataset.source(list(zip(X, Y, strict=True))).seed(7).shuffle()
    return source.repeat(epochs).to_iter_dataset().batch(8, drop_remainder=False)


def test_streams_resume_exactly_where_they_can(same, tmp_path):
    """Oracle: the uninterrupted run, bit for bit: of a list, and of grain's shuffled stream that goes on and on."""
    sources = {
        "list": lambda: cut(8),
        "parts": lambda: ex.Stream(cut(8), per_epoch=3),
        "grain": lambda: loader(1),
        "endless": lambda: ex.Stream(loader(None), per_epoch=3),
    }
    for name, source in sources.items():
        whole = ex.train(linear(), source(), epochs=4, **QUIET)
        resumed = resume(source, tmp_path / name)
        assert same(whole.progress, resumed.progress), name
        assert [r["train_cost"] for r in whole.history] == [r["train_cost"] for r in resumed.history], name
    costs = [row["train_cost"] for row in whole.history]
    assert len(set(costs)) == 4


def test_a_stream_without_a_state_is_not_silently_restarted(tmp_path):
    """Oracle: the message; a generator can neither tell its state nor skip."""
    with pytest.raises(
        RunError, match=r"a run on a function cannot be resumed exactly: it has neither a state .* nor can it"
    ):
        resume(lambda: lambda: iter(cut(8)), tmp_path / "run")


def test_an_epoch_may_be_a_part_of_a_stream_without_end():
    """Oracle: the numbers of the batches that were read."""
    seen = []

    def endless():
        number = 0
        while True:
            seen.append(number)
            yield cut(8)[number % 6]
            number += 1

    ex.train(linear(), ex.Stream(endless(), per_epoch=5, prefetch=1), epochs=3, **QUIET)
    assert seen == list(range(15))


def test_a_thread_that_reads_ahead_ends_with_the_training():
    """Oracle: the threads of the process. An error in the iterable is raised as it is; nothing hangs."""
    import threading

    def broken():
        yield cut(8)[0]
        yield cut(8)[1]
        raise ZeroDivisionError("in the user's loader")

    with pytest.raises(ZeroDivisionError, match="in the user's loader"):
        ex.train(linear(), broken(), **QUIET)
    with pytest.raises(InterruptedError):
        ex.train(linear(), ex.Stream(lambda: iter(cut(2)), prefetch=1), epochs=2, regime=False, display=Broken())
    assert "batches" not in {thread.name for thread in threading.enumerate()}


def poison(array, value):
    changed = array.copy()
    changed[11, 2] = value
    return changed


LABELS = np.arange(50) % 3
WRONG = {
    "arrays": (lambda: ex.Arrays(poison(X, np.nan), Y), DataError, r"x is nan at index \(11, 2\): drop such rows"),
    "rows": (lambda: ex.Arrays(X, Y[:3]), DataError, "different numbers of rows: x 50, y 3"),
    "none": (lambda: ex.Arrays(X[:0], Y[:0]), DataError, "x holds no rows"),
    "text": (lambda: ex.Arrays([["a"]], Y), DataError, "x: .* is no array of numbers"),
    "batch": (lambda: ex.Arrays(X, Y, batch=0), SettingError, "batch=0: give a whole number of at least 1"),
    "iterable": (lambda: 7, SettingError, r"train: batches: batches=7: give Arrays\(x, y, batch=64\), or an iterable"),
    "class": (
        lambda: (X, LABELS + 1),
        DataError,
        r"y is 3 at index \(2,\), and the output has 3 classes: give .* 0 to 2",
    ),
    "later class": (
        lambda: [(X[:9], LABELS[:9]), (X[:9], LABELS[:9] - 1)],
        DataError,
        r"batch 2, y is -1 at index \(0,\), and the output has 3 classes",
    ),
    "stream": (
        lambda: [(X[:20], Y[:20]), (poison(X, np.inf)[:20], Y[:20])],
        DataError,
        r"batch 2, x is inf at index \(11, 2\)",
    ),
    "stream rows": (lambda: [(X, Y[:3])], DataError, r"batch 1 has arrays of the shapes \(50, 4\), \(3, 3\): give"),
    "stream keys": (lambda: [{"x": X, "label": Y}], DataError, "batch 1 has the keys 'label': give x, y and weights"),
    "stream thing": (lambda: ["abc"], DataError, r"batch 1 is 'abc': give batches \(x, y\)"),
    "empty": (list, DataError, r"\[\] holds no batches: give at least one"),
    "used up": (lambda: iter(cut(8)), DataError, "is used up and gave no batch: give an iterable that can begin anew"),
    "shape": (lambda: (X[:, :3], Y), DataError, r"values for node 'input' have shape \(50, 3\); expected \(batch, 4\)"),
    "target shape": (lambda: (X, Y[:, 0]), DataError, "the output has shape .* and the target"),
    "class shape": (
        lambda: (X, np.zeros((50, 2), int)),
        DataError,
        r"y holds whole numbers of shape \(50, 2\), and the",
    ),
    "no targets": (lambda: X, DataError, r"Backprop learns from targets, and the batch has none: give \(x, y\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_batches_that_cannot_be_trained_on_are_refused_by_name(name):
    """Oracle: the message, which names the value, the place and the remedy."""
    given, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        ex.train(linear(), given(), epochs=2, **QUIET)


def test_a_training_that_loses_its_numbers_names_batch_and_layer():
    """Oracle: a learning rate of 1e200: the second batch (counted from 0: 1) has no cost."""
    learner = linear(optimiser=optax.sgd(1e200))
    with pytest.raises(DivergenceError, match=r"cost became \S+ in epoch 1, at batch 1 .*'layer1' are no numbers"):
        ex.train(learner, ex.Arrays(X, Y, batch=25, shuffle=False), epochs=2, **QUIET)


def test_settings_that_cannot_work_are_refused():
    """Oracle: the messages."""
    rows = ex.Arrays(X, Y)
    for options, message in (
        ({"epochs": 0}, "epochs=0: give a whole number"),
        ({"epochs": 2**64}, f"epochs={2**64}: give a number from 1 to 2147483647"),
        ({"callbacks": [print]}, r"train: callbacks\[0\]=.*give a Callback"),
        ({"metrics": ["accuracy"]}, r"train: metrics\[0\]='accuracy': give Metrics"),
        ({"metrics": [ex.metrics.COST, ex.metrics.COST]}, "two are called 'cost'"),
        ({"resume": True}, "resume needs the folder of the run"),
        ({"callbacks": [ex.EarlyStopping()]}, "EarlyStopping watches validation rows: give `validation`"),
        (
            {"callbacks": [ex.EarlyStopping(metric="auc")], "validation": (X, Y)},
            "metric='auc': give one of r2, mse, cost",
        ),
    ):
        with pytest.raises(SettingError, match=message):
            ex.train(linear(), rows, **{**QUIET, **options})


def test_the_best_epoch_is_kept_and_tested_apart(same, tmp_path):
    """Oracle: the smallest validation cost of the log, and `evaluate` on the learner that a shorter run ends with."""
    noisy = X[:20], Y[RNG.permutation(50)[:20]]
    options = {"validation": noisy, "metrics": (ex.metrics.COST,), "test": (X[20:30], Y[20:30])}
    run = ex.train(
        linear(), ex.Arrays(X, Y, batch=25), epochs=6, folder=RunFolder(tmp_path / "run"), **options, **QUIET
    )
    costs = [row["validation_cost"] for row in run.history]
    chosen = int(np.argmin(costs)) + 1
    assert run.result["selected_epoch"] == chosen
    shorter = ex.train(linear(), ex.Arrays(X, Y, batch=25), epochs=chosen, **options, **QUIET)
    assert same(run.best, shorter.learner)
    tested = ex.evaluate(run.best, options["test"], metrics=(ex.metrics.COST,)).cost
    assert run.result["selected_test_cost"] == tested
    assert "test cost, epoch chosen by validation" in (tmp_path / "run" / "summary.md").read_text()
