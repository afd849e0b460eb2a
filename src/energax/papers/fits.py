"""Straight lines through measurements: orders of convergence, and how straight a relation is."""

from collections.abc import Sequence

import numpy as np

LEAST, MOST, POINTS = 1e-11, 1e-2, 6  # errors that count for an order, and how many of them it takes


def power(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent p of y = c x^p, by regression of the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def order(scales: Sequence[float], errors: Sequence[float | None]) -> tuple[float, int]:
    """Order of convergence, and the number of points that it rests on.

    Errors outside (1e-11, 1e-2) do not count: above, higher orders enter, below, rounding does. NaN below 6 points.
    """
    kept = [(s, e) for s, e in zip(scales, errors, strict=True) if e is not None and LEAST < e < MOST]
    if len(kept) < POINTS:
        return float("nan"), len(kept)
    return power(*zip(*kept, strict=True)), len(kept)


def straightness(x: Sequence[float], y: Sequence[float]) -> float:
    """R^2 of the regression line of y on x."""
    slope, offset = np.polyfit(x, y, 1)
    left = np.asarray(y) - slope * np.asarray(x) - offset
    return float(1 - np.var(left) / np.var(y))
