"""Table 3: accuracies of the paper's methods under two optimisers, its numbers beside ours; and of a weak nudge."""

import dataclasses
from typing import Any

from energax.papers.cells import Cells
from energax.papers.chen2025.common import PAPER
from energax.papers.chen2025.grid import (
    DATA,
    NETS,
    TITLES,
    Point,
    draw_accuracies,
    gather,
    make_points,
    mean,
    tabulate,
    train_points,
)
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.names import split_names

ROWS: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {
    ("hfn", "hpc"): {"adam": (96.91, 60.96, 33.59, 21.06), "lalr": (97.98, 70.61, 36.20, 24.82)},
    ("hfn", "bipc"): {"adam": (98.46, 80.39, 49.51, 35.98), "lalr": (98.82, 83.95, 53.12, 37.85)},
    ("hfn", "ep"): {"adam": (96.42, 75.17, 44.14, 30.49), "lalr": (98.60, 81.56, 54.52, 35.22)},
    ("hfn", "backprop"): {"adam": (97.63, 81.69, 52.47, 35.70), "lalr": (98.95, 82.91, 54.01, 36.14)},
    ("scrn", "hpc"): {"adam": (95.63, 62.21, 33.94, 23.05), "lalr": (97.66, 64.02, 34.98, 25.16)},
    ("scrn", "bipc"): {"adam": (95.03, 87.30, 76.58, 67.06), "lalr": (99.22, 90.82, 81.70, 72.39)},
    ("scrn", "backprop"): {"adam": (98.84, 90.05, 77.63, 70.83), "lalr": (98.89, 91.46, 82.40, 71.98)},
    ("scrn-complex", "hpc"): {"adam": (96.03, 63.33, 34.20, 24.82), "lalr": (98.65, 66.13, 35.80, 26.61)},
    ("scrn-complex", "bipc"): {"adam": (97.43, 90.63, 79.87, 70.25), "lalr": (99.22, 93.78, 83.96, 73.35)},
    ("scrn-complex", "backprop"): {"adam": (98.51, 94.25, 80.65, 70.58), "lalr": (98.89, 94.56, 81.60, 74.18)},
}

PRINTED = {
    (net, data, method, optimiser): value
    for (net, method), columns in ROWS.items()
    for optimiser, values in columns.items()
    for data, value in zip(DATA, values, strict=False)
}
"""Validation accuracies of the paper's Table 3, per cent."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the table depends on; the first five settings only choose among its cells.

    Attributes:
        data: data sets, separated by commas.
        net: networks, separated by commas: hfn, scrn, scrn-complex; also mlp, conv and chain.
        methods: hpc, nudge, bipc, ep, backprop, separated by commas.
        optimisers: adam, lalr and so on, separated by commas; adam:0.01 is one with its rate.
        seeds: number of seeds, from 0.
        width: factor of the networks' channels.
        length: steps of time of the recurrent networks.
        epochs: passes over the training rows.
        rows: training rows, from the first.
        batch: rows per update.
    """

    data: str = "mnist,cifar10"
    net: str = "hfn,scrn"
    methods: str = "backprop,hpc,nudge,bipc,ep"
    optimisers: str = "adam,lalr"
    seeds: int = 2
    width: float = 0.0625
    length: int = 6
    epochs: int = 5
    rows: int = 8000
    batch: int = 64


def points(settings: Settings) -> list[Point]:
    """The chosen cells."""
    size: dict[str, Any] = {name: getattr(settings, name) for name in ("width", "epochs", "rows")}
    nets = split_names("net", settings.net, tuple(NETS))
    return [point for net in nets for point in make_points(net, settings, **size)]


def run(settings: Settings, cells: Cells) -> Numbers:
    """The chosen cells that no other process is at; the table has all that are finished."""
    return {"cells": train_points(cells, points(settings))}


def judge(numbers: Numbers) -> list[Judgement]:
    """The paper's claims, and ours on a weak nudge, on every network and data set of which the cells are there."""
    groups = {key[:4]: mean(rows, "test_accuracy") for key, rows in gather(numbers["cells"]).items()}
    gaps, gains, weak = {}, {}, {}
    for (net, data, method, optimiser), found in groups.items():
        exact, adam = groups.get((net, data, "backprop", optimiser)), groups.get((net, data, method, "adam"))
        place = f"{TITLES[method]} on {NETS[net]}, {data}"
        gap = None if found is None or exact is None else 100 * (found - exact)
        known = (net, data, "backprop", optimiser) in groups
        if method == "nudge" and known:
            weak[f"{optimiser} on {NETS[net]}, {data}"] = gap
        if method == "bipc" and optimiser == "lalr" and known:
            gaps[place] = gap
        if method in ("hpc", "bipc", "ep") and optimiser == "lalr" and (net, data, method, "adam") in groups:
            gains[place] = 100 * ((found or 0) - (adam or 0))

    def show(values) -> str:
        return "; ".join(f"{place} {'diverged' if v is None else f'{v:+.2f}'}" for place, v in values.items())

    return [
        judge_claim(
            "Table 3",
            "BiPC with LALR within a point of backprop with LALR",
            all(gap is not None and gap > -1 for gap in gaps.values()) if gaps else None,
            f"points: {show(gaps)}",
            change="skew feedback in the place of Eq. 10, which does not train",
        ),
        judge_claim(
            "Table 3",
            "LALR is better than Adam for HPC, BiPC and EP",
            all(gain > 0 for gain in gains.values()) if gains else None,
            f"LALR minus Adam, points: {show(gains)}",
        ),
        judge_claim(
            "energax",
            "predictive coding with a weak nudge at most 2 points below backprop under either optimiser",
            all(gap is not None and gap > -2 for gap in weak.values()) if weak else None,
            f"points: {show(weak)}",
        ),
    ]


EXPERIMENT = Experiment(
    name="chen2025-table3",
    small_decides=False,  # two methods on digits compare nothing of the paper's
    paper=PAPER,
    summary="accuracies of five methods under two optimisers, the paper's numbers beside ours; any subset of cells",
    small=Settings(data="digits", net="mlp", methods="backprop,hpc", seeds=1, epochs=4, rows=1400),
    full=Settings(),
    run=run,
    draw=lambda numbers: draw_accuracies(numbers["cells"]),
    judge=judge,
    tabulate=lambda numbers: tabulate("Table 3: the paper's accuracies and ours", numbers["cells"], PRINTED),
    selects=("data", "net", "methods", "optimisers", "seeds"),
)
