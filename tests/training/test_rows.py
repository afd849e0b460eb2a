"""Rows on the device: their order, augmentation, normalisation; and evaluation on all of them."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax import Backprop, Batch
from energax.data import Augmentation, Dataset, Split
from energax.metrics import ACCURACY, COST
from energax.rules.base import Info, PhaseInfo, free_phase, open_batch
from energax.training import evaluate, fit
from energax.training.epoch import Cut, stretch
from energax.training.learner import begin
from energax.training.metrics import RELAXATION_METRICS, Sums
from energax.training.rows import make_device_split


def forward(graph, x):
    """Logits of the two-layer recipe nets, in numpy."""
    first, second = graph.functions["layer1"].layers[1], graph.functions["layer2"]
    hidden = np.maximum(x.reshape(len(x), -1) @ np.asarray(first.weight) + np.asarray(first.bias), 0)
    return hidden @ np.asarray(second.weight) + np.asarray(second.bias)


def test_pixels_stay_in_the_unit_interval_or_are_standardised(data):
    """Oracle: numpy, with mean and standard deviation over all training pixels."""
    raw = data.train.images / 16
    for standardise, expected in ((False, raw), (True, (raw - raw.mean()) / raw.std())):
        batch = make_device_split(data, data.train, standardise=standardise).batch(jnp.arange(203))
        np.testing.assert_allclose(batch.x, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(batch.y, np.eye(10)[data.train.labels])


def test_only_training_rows_are_augmented_and_only_with_a_key(data):
    """Oracle: a flip of every image that was flipped; validation feeds carry no augmentation."""
    flipping = dataclasses.replace(data, augmentation=Augmentation(flip=True))
    rows = jnp.arange(50)
    plain = np.asarray(make_device_split(flipping, flipping.train, standardise=False).batch(rows, jax.random.key(0)).x)
    split = make_device_split(flipping, flipping.train, standardise=False, augment=True)
    np.testing.assert_array_equal(split.batch(rows).x, plain)
    one, other = (np.asarray(split.batch(rows, jax.random.key(seed)).x) for seed in (0, 1))
    flipped = np.array([not np.array_equal(a, b) for a, b in zip(one, plain, strict=True)])
    assert 10 < flipped.sum() < 40
    np.testing.assert_array_equal(one[flipped], plain[flipped][:, :, ::-1])
    assert not np.array_equal(one, other)


CUT = Cut(10, True, (ACCURACY, COST))


class Seen(Backprop):
    """Backprop that reports the first two pixels of every row that it is given."""

    rows = []

    def __call__(self, dynamics, graph, batch, solver, carry):
        jax.debug.callback(lambda pixels: self.rows.append(np.asarray(pixels)), batch.x[:, 0, :2, 0], ordered=True)
        return Backprop.__call__(self, dynamics, graph, batch, solver, carry)


def numbered() -> Dataset:
    """53 images whose first pixel is their row and whose second is 1."""
    images = np.zeros((53, 8, 8, 1))
    images[:, 0, 0, 0] = np.arange(53)
    images[:, 0, 1, 0] = 1
    rows = images, np.arange(53) % 10
    return Dataset.from_arrays(
        "numbered", train=rows, validation=rows, test=rows, classes=10, scale=1.0, augmentation=Augmentation(flip=True)
    )


def epoch(learner, data, key, edges, augment=False):
    """Rows that the rule was given in one epoch of batches of 10, cut at `edges`; shape `(batches, 10, 2)`."""
    Seen.rows.clear()
    progress = begin(learner)
    for first, last in itertools.pairwise(edges):
        split = make_device_split(data, data.train, standardise=False, augment=augment)
        progress, _ = stretch(learner, progress, split, CUT, key, jnp.asarray(first), jnp.asarray(last))
    jax.effects_barrier()
    return np.stack(Seen.rows)


def test_an_epoch_uses_every_row_at_most_once_in_an_order_of_its_own(learner):
    """Oracle: the rows' own numbers. 5 batches of 10 of 53 rows: 50 different ones, other ones in another epoch.

    The same epoch cut into two stretches must show the same rows in the same order: resumption rests on it.
    """
    seeing = eqx.tree_at(lambda l: l.rule, learner("backprop"), Seen())
    first = epoch(seeing, numbered(), jax.random.key(1), (0, 5))[..., 0]
    cut = epoch(seeing, numbered(), jax.random.key(1), (0, 2, 5))[..., 0]
    other = epoch(seeing, numbered(), jax.random.key(2), (0, 5))[..., 0]
    for rows in (first, other):
        assert rows.shape == (5, 10)
        assert len(np.unique(rows)) == 50
        assert set(rows.ravel()) <= set(range(53))
        assert not np.array_equal(rows.ravel(), np.sort(rows.ravel()))
    np.testing.assert_array_equal(first, cut)
    assert not np.array_equal(first, other)


def test_fit_gives_every_epoch_an_order_of_its_own(learner):
    """Oracle: the rows' own numbers, over two epochs of `fit`; the regime's probe is no batch of 10 and left out."""
    seeing = eqx.tree_at(lambda l: l.rule, learner("backprop"), Seen())
    Seen.rows.clear()
    fit(seeing, numbered(), epochs=2, batch=10)
    jax.effects_barrier()
    seen = np.stack([rows[:, 0] for rows in Seen.rows if len(rows) == 10])
    assert seen.shape == (10, 10)
    assert not np.array_equal(seen[:5], seen[5:])


def test_augmentation_happens_inside_the_step_with_a_key_per_batch(learner):
    """Oracle: the marker pixel. A flip carries it away, in about half of the rows and in each batch differently."""
    seeing = eqx.tree_at(lambda l: l.rule, learner("backprop"), Seen())
    kept = epoch(seeing, numbered(), jax.random.key(1), (0, 5), augment=True)[..., 1]
    assert set(kept.ravel()) == {0.0, 1.0}
    assert 10 < kept.sum() < 40
    assert len(np.unique(kept, axis=0)) > 1
    assert epoch(seeing, numbered(), jax.random.key(1), (0, 5))[..., 1].all()


def test_sums_of_nothing_are_told_as_nothing():
    """Oracle: 0 / 0. A rule that relaxes nothing has no residual, no steps and no verdicts, and none of them is 0."""
    target = jnp.eye(4)[jnp.array([0, 1, 2, 0])]
    info = Info(jnp.eye(4), jnp.array([0.5, 0.25, 1.0, 0.25]), {}, target=target)
    averages = Sums.zero((ACCURACY, COST)).add_batch(info, None).averages()
    assert (averages.pop("cost"), averages.pop("accuracy")) == (0.5, 0.75)
    assert len(averages) == len(RELAXATION_METRICS) == 8
    assert all(np.isnan(value) for value in averages.values())


def test_sums_weigh_the_samples_of_all_batches():
    """Oracle: numpy's weighted average over both batches together; a row without a weight does not count at all.

    The free phase is known by construction, and two strengths make two relaxations of every sample.
    """
    rng, sums, seen = np.random.default_rng(0), Sums.zero((ACCURACY, COST)), []
    for _ in range(2):
        cost, weights = rng.uniform(size=5), np.array([0.0, *rng.uniform(size=4)])
        cost[0] = np.nan
        right, result = rng.integers(0, 2, 5), rng.integers(0, 4, 10)
        residual, steps = rng.uniform(size=10), rng.integers(1, 9, 10)
        residual[[0, 5]] = np.inf
        none, known = np.zeros(10), np.zeros(5)
        free = PhaseInfo(known, known, known, known, known.astype(int), known=True)
        nudged = PhaseInfo(none, none, *map(jnp.asarray, (steps, residual, result)))
        target = jnp.where(jnp.asarray(right)[:, None] == 1, jnp.eye(5), jnp.roll(jnp.eye(5), 1, 1))
        info = Info(jnp.eye(5), jnp.asarray(cost), {"free": free, "nudged": nudged}, target=target)
        sums = sums.add_batch(info, jnp.asarray(weights))
        seen.append((weights[1:], cost[1:], right[1:], *(a.reshape(2, 5)[:, 1:] for a in (residual, steps, result))))
    weights, cost, right, residual, steps, result = (
        np.concatenate([np.atleast_2d(a) for a in one]) for one in zip(*seen, strict=True)
    )
    twice = np.repeat(weights, 2, axis=0)
    found = sums.averages()
    expected = {
        "cost": np.average(cost, weights=weights),
        "accuracy": np.average(right, weights=weights),
        "residual": np.average(residual, weights=twice),
        "steps": np.average(steps, weights=twice),
        "worst_residual": residual.max(),
        "stalled_fraction": np.average(result == 1, weights=twice),
        "diverged_fraction": np.average(result == 3, weights=twice),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name


@pytest.fixture
def rows() -> Dataset:
    """503 rows of random pixels in the place of every split."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(size=(503, 8, 8, 1)), rng.integers(0, 10, 503)
    return Dataset.from_arrays("random", train=rows, validation=rows, test=rows, classes=10)


@pytest.mark.parametrize("batch", [500, 503, 7, 10_000])
def test_evaluation_counts_every_row_once(batch, learner, rows):
    """Oracle: a plain numpy forward pass on all rows. 503 rows in batches of 500 or 7 leave a batch to be filled."""
    graph = learner("backprop").graph
    logits = forward(graph, rows.test.images)
    found = evaluate(
        learner("backprop"),
        make_device_split(rows, rows.test, standardise=False),
        metrics=(ACCURACY, COST),
        batch=batch,
    )
    assert found.accuracy == np.mean(logits.argmax(1) == rows.test.labels)
    shifted = logits - logits.max(1, keepdims=True)
    costs = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(503), rows.test.labels]
    assert found.cost == pytest.approx(costs.mean(), rel=1e-10)
    assert found.settled == 1.0


@pytest.mark.parametrize("recipe", ["pc", "ep", "chl"])
def test_evaluation_predicts_without_labels(recipe, learner, data):
    """Oracle: with constant labels k, accuracy is the share of rows predicted k; these shares add up to exactly 1.

    A label that reached the states would pull each of these predictions to itself and lift the sum. Labels beyond
    the classes (one-hot rows of zeros) must not change what settled either.
    """
    images = data.test.images

    def tested(label):
        split = make_device_split(data, Split(images, np.full(60, label, np.int32)), standardise=False)
        return evaluate(learner(recipe), split, metrics=(ACCURACY, COST))

    found = [tested(label) for label in range(10)]
    assert sum(round(60 * one.accuracy) for one in found) == 60
    assert tested(77).settled == tested(-1).settled == found[0].settled


@pytest.mark.parametrize("recipe", ["pc", "ep", "chl"])
def test_states_of_the_free_phase_do_not_see_the_targets(recipe, learner, data, same):
    """Oracle: the same phase with NaN as its targets: the same states, bit for bit, and all of them finite."""
    one = learner(recipe)
    batch = make_device_split(data, data.test, standardise=False).batch(jnp.arange(20))

    @jax.jit
    def settled(x, y):
        return free_phase(one.dynamics, one.graph, open_batch(one.graph, Batch(x, y)), one.solver)[1]

    clean, poisoned = (settled(batch.x, y) for y in (batch.y, jnp.full_like(batch.y, jnp.nan)))
    assert same(clean, poisoned)
    assert all(np.isfinite(state).all() for state in clean.states.values())
