"""Metrics: batches merged in any way give scikit-learn's numbers of all rows."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import r2_score, top_k_accuracy_score

from energax import metrics
from energax.costs import Costs, CrossEntropy, SquaredError
from energax.metrics import Outputs

RNG = np.random.default_rng(0)


def gather(metric, output, target, weights, cuts, cost=None):
    """The value of a metric over rows that come in several batches."""
    total = metric.zero()
    for part in np.split(np.arange(len(weights)), cuts):
        costs = jnp.zeros(len(part)) if cost is None else cost[part]
        seen = Outputs(jnp.asarray(output[part]), jnp.asarray(target[part]), costs, jnp.asarray(weights[part]))
        total = metric.merge(total, metric.total(seen))
    return metric.value(total)


@pytest.mark.parametrize("cuts", [[], [1], [10, 11, 40]])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_r2_is_scikit_learns(cuts, offset):
    """Oracle: `r2_score`, weighted, averaged over the units; targets far from 0 lose no digits to cancellation."""
    target = RNG.normal(size=(50, 3)) + offset
    output, weights = target + 0.3 * RNG.normal(size=(50, 3)), RNG.uniform(0, 2, 50)
    weights[::7] = 0
    expected = r2_score(target, output, sample_weight=weights)
    assert gather(metrics.r2((3,)), output, target, weights, cuts) == pytest.approx(expected, rel=1e-8)


def test_r2_of_constant_targets_is_one_or_zero():
    """Oracle: scikit-learn's convention."""
    target, ones = np.full((5, 1), 2.0), np.ones(5)
    assert gather(metrics.r2((1,)), target, target, ones, [2]) == r2_score(target, target) == 1.0
    off = target + np.arange(5)[:, None]
    assert gather(metrics.r2((1,)), off, target, ones, [2]) == r2_score(target, off) == 0.0
    assert np.isnan(gather(metrics.r2((1,)), off, target, 0 * ones, []))


def test_accuracies_are_scikit_learns():
    """Oracle: `top_k_accuracy_score` with k = 1 and 5 of 12 classes, weighted."""
    labels, output, weights = RNG.integers(0, 12, 60), RNG.normal(size=(60, 12)), RNG.uniform(0, 2, 60)
    for metric, k in ((metrics.ACCURACY, 1), (metrics.TOP_5, 5)):
        expected = top_k_accuracy_score(labels, output, k=k, sample_weight=weights, labels=np.arange(12))
        assert gather(metric, output, np.eye(12)[labels], weights, [7]) == pytest.approx(expected, rel=1e-12)


def test_costs_bring_their_own():
    """Oracle: the lists. Perplexity is for several positions, top 5 for more than ten classes; each output its own."""

    def names(cost, shape):
        return [metric.name for metric in cost.metrics(shape)]

    assert names(SquaredError(), (3,)) == ["r2", "mse", "cost"]
    assert names(CrossEntropy(), (10,)) == ["accuracy", "cost"]
    assert names(CrossEntropy(), (11,)) == ["accuracy", "top5", "cost"]
    assert names(CrossEntropy(), (7, 4)) == ["accuracy", "perplexity", "cost"]
    both = Costs({"a": SquaredError(), "b": CrossEntropy()})
    assert names(both, {"a": (1,), "b": (3,)}) == ["a_r2", "a_mse", "a_cost", "b_accuracy", "b_cost", "cost"]


def test_better_is_never_what_is_no_number():
    """Oracle: order of numbers; NaN is worse than anything, and nothing is better than itself."""
    high, low = metrics.ACCURACY, metrics.COST
    assert high.better(0.9, 0.8)
    assert low.better(0.8, 0.9)
    for metric in (high, low):
        assert metric.better(0.5, float("nan"))
        assert not metric.better(float("nan"), 0.5)
        assert not metric.better(0.5, 0.5)
