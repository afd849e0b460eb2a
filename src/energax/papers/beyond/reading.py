"""What verdicts and picture of `beyond-depth` read out of its numbers: steps by depth, exponents, means over seeds."""

import math

import numpy as np

from energax.papers.experiment import Numbers
from energax.papers.fits import power

SHARES = (0.9, 0.98)  # of backprop's accuracy
PLACES = ("lowest quarter", "lowest block")


def mean_steps(numbers: Numbers, way: str, place: str = PLACES[0]) -> dict[int, float]:
    """Steps to the cosine, mean over seeds, at the depths where every seed got there."""
    found = {int(depth): [seed[way]["steps"][place] for seed in seeds] for depth, seeds in numbers["counted"].items()}
    return {depth: float(np.mean(steps)) for depth, steps in found.items() if None not in steps}


def training_steps(numbers: Numbers, way: str, share: float) -> dict[int, float]:
    """The first number of steps that brought so much of backprop's accuracy, at the depths where one did."""
    found = {}
    for depth, row in numbers["trained"].items():
        enough = [int(count) for count, got in row["ways"].get(way, {}).items() if got >= share * row["backprop"]]
        if enough:
            found[int(depth)] = float(min(enough))
    return found


def exponent(steps: dict[int, float]) -> float:
    """P of T ~ L^p; NaN below two depths."""
    return power(list(steps), list(steps.values())) if len(steps) > 1 else math.nan


def tell(steps: dict[int, float]) -> str:
    """Steps by depth, and the exponent where there is one, for a sentence."""
    if not steps:
        return "never"
    counts = ", ".join(f"{count:.4g}" for count in steps.values())
    slope = f": L^{exponent(steps):.2f}" if len(steps) > 1 else ""
    return f"{counts} steps at L = {', '.join(map(str, steps))}{slope}"


def average(numbers: Numbers, depth: int, way: str, *path: str) -> np.ndarray:
    """Cosines or sizes, mean over seeds."""
    rows = [seed[way] for seed in numbers["counted"][str(depth)]]
    for name in path:
        rows = [row[name] for row in rows]
    return np.mean(rows, axis=0)
