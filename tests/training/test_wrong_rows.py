"""Rows, targets, weights and metrics as people give them by mistake: refused before a training, or understood."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energax as ex
from energax.exceptions import DataError, SettingError
from energax.training import Callback

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)).astype("float32")
Y = np.arange(30) % 2
P = np.eye(2)[Y]
TEXT = np.where(Y, "yes", "no")


def make_learner(outputs=2, cost=None):
    graph = ex.networks.mlp([4, 3, outputs], jnp.tanh, key=jax.random.key(0))
    cost = ex.CrossEntropy() if cost is None else cost
    return ex.Learner(graph, ex.PredictiveCoding(cost), ex.ConjugateGradient(), ex.Backprop(), optax.adam(1e-2))


def train(batches, learner=None, **options):
    return ex.train(learner or make_learner(), batches, **{"regime": False, "display": Callback(), **options})


WRONG = {
    "labels beyond 32 bits": (lambda: (X, np.where(Y, 2**32, 0)), r"y is 4294967296 at index \(1,\)"),
    "labels at 2^31": (lambda: (X, np.where(Y, 2**31, 0)), r"y is 2147483648 at index \(1,\)"),
    "a list of them": (lambda: ex.Arrays(X, np.where(Y, 2**40, 0).tolist()), r"y is 1099511627776 at index \(1,\)"),
    "in a stream": (lambda: [(X, np.where(Y, 2**32, 0))], r"batch 1, y is 4294967296 at index \(1,\)"),
    "labels from 1": (lambda: (X, Y + 1), r"y is 2 at index \(1,\), and the output has 2 classes: .* return_inverse"),
    "labels as text": (
        lambda: (X, TEXT),
        r"y: .* is no array of numbers \(it holds text, 'no' first\): .*return_inverse",
    ),
    "text as objects": (lambda: (X, TEXT.astype(object)), r"it holds object, 'no' first\)"),
    "negative probabilities": (lambda: (X, -P), r"y is -1 at index \(0, 0\), in a row that sums to -1: CrossEntropy"),
    "five times probabilities": (lambda: (X, 5 * P), r"y is 5 at index \(0, 0\), in a row that sums to 5"),
    "probabilities that cancel": (
        lambda: (X, 2 * P - P[:, ::-1]),
        r"y is -1 at index \(0, 1\), in a row that sums to 1",
    ),
    "probabilities of a stream": (lambda: [(X, 5 * P)], r"batch 1, y is 5 at index \(0, 0\)"),
    "a negative weight": (
        lambda: ex.Arrays(X, Y, weights=Y - 0.5),
        r"weights is -0.5 at index \(0,\): give weights of",
    ),
    "no weight": (lambda: (X, Y, np.zeros(30)), r"weights holds only zeros"),
    "weights of a stream": (lambda: [(X, Y, Y - 0.5)], r"batch 1, weights is -0.5 at index \(0,\)"),
    "a mask without a node": (lambda: ex.Arrays(X, Y, known=X > 0), r"known=a ndarray: give a mapping from nodes"),
    "a mapping with another key": (lambda: {"x": X, "label": Y}, "has the keys 'label': give x, y and weights"),
    "whole arrays in a list": (lambda: [X, Y], r"batch has none: give \(x, y\), Arrays\(x, y\)"),
    "lists of lists": (
        lambda: (X.tolist(), Y.tolist()),
        r"batch 1 is a list: .* lists and tables go into Arrays\(x, y\)",
    ),
    "rows one by one": (lambda: zip(X, Y, strict=True), r"arrays of the shapes \(4,\), \(\): give every array one row"),
    "missing values": (lambda: (np.where(X > 1, np.nan, X), Y), r"x is nan at index .*: drop such rows, fill them, or"),
}


@pytest.mark.parametrize("case", WRONG)
def test_rows_that_mean_something_else_are_refused(case):
    """Oracle: the message, which names the array, the first place and the remedy, before anything is trained."""
    make, message = WRONG[case]
    with pytest.raises(DataError, match=message):
        train(make())


def test_one_number_per_sample_is_told_its_shape():
    """Oracle: the message."""
    with pytest.raises(DataError, match=r"target \(30,\); they must be equal \(one number per sample: y\[:, None\]"):
        train((X, X[:, 0]), make_learner(1, ex.SquaredError()))


def test_what_can_be_understood_is():
    """Oracle: the same training with whole numbers as classes, or with weights by name."""
    expected = train(ex.Arrays(X, Y)).history[-1]["train_cost"]
    for given in (
        ex.Arrays(X, Y.astype(bool).tolist()),
        (X, Y, np.full(30, 2.0)),
        (X, P.astype("float16")),
        {"x": X, "y": Y},
    ):
        np.testing.assert_allclose(train(given).history[-1]["train_cost"], expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["arrays", "stream"])
def test_a_batch_without_weight_is_no_divergence(kind):
    """Oracle: the cost of the other batch alone; where no batch has a weight, that is said."""
    none, half = np.zeros(15), np.repeat([0.0, 1.0], 15)
    given = ex.Arrays(X, Y, batch=15, weights=half, shuffle=False)
    if kind == "stream":
        given = [(X[:15], Y[:15], none), (X[15:], Y[15:], none + 1)]
        with pytest.raises(DataError, match="every row of epoch 1 has a weight of 0: give some row a weight"):
            train(given[:1])
    alone = train(ex.Arrays(X[15:], Y[15:], batch=15, shuffle=False)).history[-1]["train_cost"]
    np.testing.assert_allclose(train(given).history[-1]["train_cost"], alone, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": [ex.metrics.Metric("m", "m", lambda s: jnp.max(s.output))]}, r"'m': measure returned shape \(\)"),
        (
            {"metrics": [ex.metrics.Metric("m", "m", lambda s: s.output)]},
            r"shape \(30, 2\) for a batch of 30: return one",
        ),
        ({"metrics": "accuracy"}, "train: metrics='accuracy': give a list"),
        ({"callbacks": ex.EarlyStopping(3)}, "train: callbacks=a EarlyStopping: give a list"),
        ({"folder": 5}, "folder=5: give the path of a folder"),
    ],
    ids=range(5),
)
def test_options_of_another_kind_are_refused(options, message):
    """Oracle: the message, where numbers were logged that mean nothing, or another library raised."""
    with pytest.raises(SettingError, match=message):
        train((X, Y), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ex.metrics.Metric("m", "m", "accuracy"), "metric 'm': measure='accuracy': give a function"),
        (lambda: ex.rules.nudge("1e-2"), "beta='1e-2': the nudge strength must be positive"),
        (lambda: ex.load(None), "load: path=None: give the path"),
        (lambda: ex.save(3, make_learner()), "save: path=3: give the path"),
        (lambda: ex.networks.mlp([784, 5], jnp.tanh, shape=(8, 8, 1), key=jax.random.key(0)), "begin with 64"),
        (lambda: ex.networks.mlp([4, 8.0, 2], jnp.tanh, key=jax.random.key(0)), "at index 1=8.0: give a whole number"),
    ],
    ids=range(6),
)
def test_arguments_of_another_kind_are_refused(call, message):
    """Oracle: the message."""
    with pytest.raises(SettingError, match=message):
        call()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 2**31], r"y is 2147483648 at index \(1,\), and int32 holds -2147483648 to 2147483647"),
        ([0, -(2**31) - 1], r"y is -2147483649 at index \(1,\)"),
        (np.array([0, 2**63], np.uint64), r"y is 9223372036854775808 at index \(1,\), and uint32 holds 0 to"),
        ([0.0, np.nan, 3.5e38], r"y is 3.5e\+38 at index \(2,\), and float32 holds"),
        ([[0.0], [-1e300]], r"y is -1e\+300 at index \(1, 0\)"),
    ],
    ids=range(5),
)
def test_no_bits_are_cut_off_in_silence(values, message):
    """Oracle: the message. In 32 bits, as users have it, JAX would take 2**32 for 0 and 1e300 for infinity."""
    with jax.enable_x64(False), pytest.raises(DataError, match=message):
        ex.Arrays(np.zeros((len(values), 4), "float32"), values)


@pytest.mark.parametrize("values", [[2**31 - 1, -(2**31)], [3.4e38, -3.4e38], [1e-60, 0.0]], ids=range(3))
def test_what_32_bits_hold_is_taken(values):
    """Oracle: the values, rounded by numpy."""
    with jax.enable_x64(False):
        rows = ex.Arrays(np.zeros((2, 4), "float32"), np.asarray(values)).rows
        np.testing.assert_array_equal(rows.y, np.asarray(values).astype(rows.y.dtype))
