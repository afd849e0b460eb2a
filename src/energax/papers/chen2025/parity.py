"""Four methods on three nets under Adam and LALR: parity with backprop, and what LALR is worth.

Beyond the paper's table: nets that a CPU trains on all of MNIST, Adam at several rates, its best chosen by validation.
"""

import dataclasses
import math

from energax.papers.cells import Cells
from energax.papers.chen2025.common import PAPER
from energax.papers.chen2025.grid import (
    METHODS,
    NETS,
    TITLES,
    Point,
    draw_accuracies,
    gather,
    make_points,
    mean,
    split_optimisers,
    tabulate,
    train_points,
)
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.names import split_names


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the table depends on; net, methods, optimisers, few_optimisers and seeds only choose among its cells.

    Attributes:
        data: data set, pixels normalised per channel.
        net: mlp, conv and scrn-dense, separated by commas.
        methods: hpc, nudge, bipc, ep, backprop, separated by commas.
        optimisers: of mlp, with their rates, separated by commas.
        few_optimisers: of conv and scrn-dense, which take longer.
        seeds: number of seeds, from 0.
        epochs: passes over the training rows, of mlp.
        conv_epochs: of conv.
        rows: training rows of mlp and conv, from the first; all if left out.
        recurrent_epochs: of scrn-dense.
        recurrent_rows: of scrn-dense.
        length: its steps of time.
        batch: rows per update.
    """

    data: str = "mnist"
    net: str = "mlp,conv,scrn-dense"
    methods: str = "backprop,hpc,bipc,ep"
    optimisers: str = "adam:0.0003,adam:0.001,adam:0.003,adam:0.01,lalr:0.001,lalr:0.003,lalr:0.01"
    few_optimisers: str = "adam:0.001,adam:0.01,lalr:0.003,lalr:0.01"
    seeds: int = 3
    epochs: int = 5
    conv_epochs: int = 2
    rows: int | None = None
    recurrent_epochs: int = 8
    recurrent_rows: int = 8000
    length: int = 6
    batch: int = 64


def points(settings: Settings) -> list[Point]:
    """The chosen cells, the quick nets first. The recurrent net goes without EP, as in the paper."""
    few, found = dataclasses.replace(settings, optimisers=settings.few_optimisers), []
    split_optimisers(few.optimisers)  # refused where no net of the choice reads them, too
    for net in split_names("net", settings.net, tuple(NETS)):
        if net == "mlp":
            found += make_points(net, settings, width=1.0, epochs=settings.epochs, rows=settings.rows)
        elif net == "conv":
            found += make_points(net, few, width=1.0, epochs=settings.conv_epochs, rows=settings.rows)
        else:
            size = {"epochs": settings.recurrent_epochs, "rows": settings.recurrent_rows, "without": ("ep",)}
            found += make_points(net, few, width=1.0, **size)
    return found


def run(settings: Settings, cells: Cells) -> Numbers:
    """The chosen cells that no other process is at; the table has all that are finished."""
    return {"cells": train_points(cells, points(settings))}


def judge(numbers: Numbers) -> list[Judgement]:
    """Parity with backprop, each method at the optimiser and rate that validation chooses; LALR against Adam."""
    groups = gather(numbers["cells"])
    chosen: dict[tuple, dict[str, float]] = {}
    for (net, data, method, optimiser, rate), rows in groups.items():
        validation, test = mean(rows, "validation_accuracy"), mean(rows, "test_accuracy")
        if validation is None or test is None:
            continue  # a seed diverged
        best = chosen.setdefault((net, data, method), {})
        for kind in ("any", optimiser, f"{optimiser} {rate:g}"):
            if validation > best.get(f"{kind} validation", -1):
                best |= {f"{kind} validation": validation, kind: 100 * test}

    def gaps(methods, exact: str, one: str, other: str) -> dict[str, float]:
        return {
            f"{TITLES[method]}, {NETS[net]}": best[one] - chosen[net, data, exact or method][other]
            for (net, data, method), best in chosen.items()
            if method in methods and one in best and other in chosen.get((net, data, exact or method), {})
        }

    def show(values: dict[str, float]) -> str:
        return "; ".join(f"{name} {value:+.2f}" for name, value in values.items()) or "nothing to compare"

    parity = gaps(("bipc", "ep"), "backprop", "any", "any")
    for net, data, method, *_ in groups:
        if method in ("bipc", "ep") and (net, data, method) not in chosen and (net, data, "backprop") in chosen:
            parity[f"{TITLES[method]}, {NETS[net]}"] = -math.inf  # diverged at every rate
    within = {name: 2 if "SCRN" in name else 1 for name in parity}
    everyone = tuple(METHODS)
    best, hot = gaps(everyone, "", "lalr", "adam"), gaps(everyone, "", "lalr 0.01", "adam 0.01")
    return [
        judge_claim(
            "energax",
            "skew feedback and EP within 1 point of backprop, on the recurrent net 2, each as validation chooses",
            all(gap > -within[name] for name, gap in parity.items()) if parity else None,
            f"points: {show(parity)}",
        ),
        judge_claim(
            "section 6.3",
            "LALR is not worse than Adam at its best rate (by more than .3 points)",
            min(best.values()) > -0.3 if best else None,
            f"LALR minus Adam, each at the rate that validation chooses, points: {show(best)}",
        ),
        judge_claim(
            "section 6.3",
            "LALR is better than Adam at the paper's rate of .01",
            min(hot.values()) > 0 if hot else None,
            f"LALR minus Adam, both at .01, points: {show(hot)}",
        ),
    ]


EXPERIMENT = Experiment(
    name="chen2025-parity",
    small_decides=False,  # what LALR is worth differs from net to net, and digits are learnt at any of the rates
    paper=PAPER,
    summary="HPC, BiPC, EP and backprop under Adam and LALR at several rates, on a whole data set",
    small=Settings(
        data="digits",
        net="mlp",
        methods="backprop,bipc",
        optimisers="adam:0.001,adam:0.01,lalr:0.01",
        seeds=1,
        epochs=10,
    ),
    full=Settings(),
    run=run,
    draw=lambda numbers: draw_accuracies(numbers["cells"]),
    judge=judge,
    tabulate=lambda numbers: tabulate("Accuracies, rates and regimes", numbers["cells"]),
    selects=("net", "methods", "optimisers", "few_optimisers", "seeds"),
)
