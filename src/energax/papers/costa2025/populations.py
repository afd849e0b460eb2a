"""The cortical microcircuit of Potjans & Diesmann 2014: its populations, and the probabilities that join them."""

import numpy as np

from energax.checking import require_between

SIZES = {
    "L23E": 20683,
    "L23I": 5834,
    "L4E": 21915,
    "L4I": 5479,
    "L5E": 4850,
    "L5I": 1065,
    "L6E": 14395,
    "L6I": 2948,
}
"""Units of the populations under a square millimetre of cortex; E excite, I inhibit. Table 5 of the paper."""

PROBABILITIES = np.asarray(
    [
        [0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0, 0.0076, 0.0],
        [0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0, 0.0042, 0.0],
        [0.0077, 0.0059, 0.0497, 0.135, 0.0067, 0.0003, 0.0453, 0.0],
        [0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0, 0.1057, 0.0],
        [0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0],
        [0.0548, 0.0269, 0.0257, 0.0022, 0.06, 0.3158, 0.0086, 0.0],
        [0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252],
        [0.0364, 0.001, 0.0034, 0.0005, 0.0277, 0.008, 0.0658, 0.1443],
    ]
)
"""Row target, column source, in the order of `SIZES`."""

THALAMIC = {"L4E": 0.0983, "L4I": 0.0619, "L6E": 0.0512, "L6I": 0.0196}
"""Probability that a unit of the input reaches one of the population."""


def scale_sizes(factor: float) -> dict[str, int]:
    """Populations of so many times the units, each of at least one."""
    require_between("scale_sizes: factor", factor, 0, 100, open_least=True)
    return {name: max(1, round(size * factor)) for name, size in SIZES.items()}
