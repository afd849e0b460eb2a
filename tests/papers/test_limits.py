"""The limits that no other test measures: the precision ratio of Whittington & Bogacz 2017."""

import jax.numpy as jnp
import numpy as np

from energax.papers.millidge2023 import limits, ways
from oracles import slope


def test_the_precision_ratio_tends_to_backprop():
    """Oracle: backprop of half the squared error, and order 1 in the ratio."""
    settings = limits.Settings(sizes=(3, 4, 3, 2), rows=2, seeds=(0,), points=6)
    graph, batch, reference = limits.parts(settings, limits.LIMITS["pc_precisions"], 0)
    ratios = np.logspace(-4, -2.2, 6)
    found = [float(ways.precision_ratio(jnp.asarray(ratio), graph, batch, reference)) for ratio in ratios]
    assert abs(slope(ratios, found) - 1) < 0.05
