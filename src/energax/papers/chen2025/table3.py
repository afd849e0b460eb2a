"""Table 3: accuracies of four methods under two optimisers, the paper's numbers beside ours."""

import dataclasses

from matplotlib.figure import Figure

from energax.papers.cells import Cells
from energax.papers.chen2025.grid import (
    METHODS,
    REGIME,
    TITLES,
    Point,
    gather,
    mean,
    show_percent,
    show_regime,
    split_names,
    train_point,
)
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.pictures import panels
from energax.papers.tables import Table

PAPER = "Chen et al. 2025"
NETS = {"hfn": "HFN", "scrn": "SCRN-S", "scrn-complex": "SCRN-C", "scrn-dense": "SCRN-D", "conv": "conv", "mlp": "MLP"}
DATA = ("mnist", "cifar10", "cifar100", "tiny-imagenet", "fashion-mnist", "digits")
OPTIMISERS = ("adam", "lalr", "lars", "lamb", "sgd", "adamw")

PRINTED: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {
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
"""Validation accuracies of the paper's Table 3 on MNIST, CIFAR-10, CIFAR-100 and Tiny-ImageNet, per cent."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the table depends on; the first five settings only choose among its cells.

    Attributes:
        data: data sets, separated by commas.
        net: networks, separated by commas: hfn, scrn, scrn-complex; also mlp and conv.
        methods: hpc, bipc, ep, backprop, separated by commas.
        optimisers: adam, lalr and so on, separated by commas.
        seeds: number of seeds, from 0.
        width: factor of the networks' channels.
        length: steps of time of the recurrent networks.
        epochs: passes over the training rows.
        rows: training rows, from the first.
        batch: rows per update.
        adam_rate: learning rate of adam, adamw and lamb.
        lalr_rate: learning rate of lalr.
        sgd_rate: learning rate of sgd and lars.
    """

    data: str = "mnist,cifar10"
    net: str = "hfn,scrn"
    methods: str = "backprop,hpc,bipc,ep"
    optimisers: str = "adam,lalr"
    seeds: int = 2
    width: float = 0.125
    length: int = 6
    epochs: int = 5
    rows: int = 8000
    batch: int = 64
    adam_rate: float = 0.001
    lalr_rate: float = 0.01
    sgd_rate: float = 0.05


def points(settings: Settings) -> list[Point]:
    """The chosen cells, the quick methods first."""
    chosen = {
        "data": split_names("data", settings.data, DATA),
        "net": split_names("net", settings.net, tuple(NETS)),
        "methods": split_names("methods", settings.methods, tuple(METHODS)),
        "optimisers": split_names("optimisers", settings.optimisers, OPTIMISERS),
    }
    return [
        make_point(settings, data, net, method, optimiser, seed)
        for method in chosen["methods"]
        for data in chosen["data"]
        for net in chosen["net"]
        for optimiser in chosen["optimisers"]
        for seed in range(settings.seeds)
    ]


def make_point(settings: Settings, data: str, net: str, method: str, optimiser: str, seed: int) -> Point:
    """One cell: the method's own settings, and those that all share."""
    rates = {"lalr": settings.lalr_rate, "sgd": settings.sgd_rate, "lars": settings.sgd_rate}
    shared = {
        "network": net,
        "optimiser": optimiser,
        "learning_rate": rates.get(optimiser, settings.adam_rate),
        "batch": settings.batch,
        "standardise": True,
        "activation": "hard-sigmoid" if method == "ep" else "tanh",
    }
    if net in ("hfn", "scrn", "scrn-complex"):
        shared["width"] = settings.width
    if net.startswith("scrn"):
        shared["length"] = settings.length
    choice = dataclasses.replace(METHODS[method][1], **shared)
    return Point(data, net, method, optimiser, seed, choice, settings.epochs, settings.rows)


def run(settings: Settings, cells: Cells) -> Numbers:
    """The chosen cells that no other process is at; the table has all that are finished."""
    for point in points(settings):
        cells.offer(point.name, lambda point=point: train_point(cells, point))
    return {"cells": list(cells.finished().values())}


def tabulate(numbers: Numbers) -> Table:
    """The paper's numbers and ours."""
    rows = []
    for (net, data, method, optimiser), found in ordered(numbers).items():
        printed = PRINTED.get((net, method), {}).get(optimiser)
        paper = f"{printed[DATA.index(data)]:.2f}" if printed and DATA.index(data) < 4 else "-"
        accuracies = [show_percent(found, name) for name in ("test_accuracy", "selected_test_accuracy")]
        name = [NETS[net], data, TITLES[method], optimiser, paper]
        rows.append([*name, *accuracies, str(len(found)), *show_regime(found)])
    headings = ["network", "data", "method", "optimiser", "paper %", "last epoch %", "chosen by validation %", "seeds"]
    return Table("Accuracies: the paper's (validation) and ours (test)", [*headings, *REGIME], rows)


def ordered(numbers: Numbers) -> dict[tuple, list]:
    """Cells of all seeds together, in the order of the table."""
    places = [list(NETS), list(DATA), list(TITLES), list(OPTIMISERS)]
    groups = gather(numbers["cells"], ("net", "data", "method", "optimiser"))
    return dict(
        sorted(groups.items(), key=lambda item: [place.index(x) for place, x in zip(places, item[0], strict=True)])
    )


def draw(numbers: Numbers) -> Figure:
    """Test accuracies per network and data set."""
    groups = ordered(numbers)
    places = list(dict.fromkeys((net, data) for net, data, _, _ in groups))
    figure, axes = panels(max(len(places), 1))
    for at, (net, data) in zip(axes, places, strict=False):
        own = {key[2:]: rows for key, rows in groups.items() if key[:2] == (net, data)}
        for index, ((method, optimiser), rows) in enumerate(own.items()):
            value = mean(rows, "test_accuracy")
            color = f"C{list(TITLES).index(method)}"
            at.barh(index, 0 if value is None else 100 * value, color=color, alpha=1 if optimiser == "lalr" else 0.55)
        at.set(title=f"{NETS[net]}, {data}", xlabel="test accuracy, %")
        at.set_yticks(range(len(own)), [f"{TITLES[method]}, {optimiser}" for method, optimiser in own])
        at.invert_yaxis()
    return figure


def judge(numbers: Numbers) -> list[Judgement]:
    """The paper's two claims on every network and data set of which the cells are there."""
    groups = {key: mean(rows, "test_accuracy") for key, rows in ordered(numbers).items()}
    gaps, gains = {}, {}
    for (net, data, method, optimiser), found in groups.items():
        if optimiser != "lalr":
            continue
        exact, adam = groups.get((net, data, "backprop", "lalr")), groups.get((net, data, method, "adam"))
        place = f"{TITLES[method]} on {NETS[net]}, {data}"
        if method == "bipc" and exact is not None:
            gaps[place] = None if found is None else 100 * (found - exact)
        if method != "backprop" and (net, data, method, "adam") in groups:
            gains[place] = 100 * ((found or 0) - (adam or 0))

    def show(values) -> str:
        return "; ".join(f"{place} {'diverged' if v is None else f'{v:+.2f}'}" for place, v in values.items())

    return [
        judge_claim(
            "Table 3",
            "BiPC with LALR within a point of backprop with LALR",
            all(gap is not None and gap > -1 for gap in gaps.values()),
            f"points: {show(gaps)}",
            change="skew feedback in the place of Eq. 10, which does not train",
        ),
        judge_claim(
            "Table 3",
            "LALR is better than Adam for HPC, BiPC and EP",
            all(gain > 0 for gain in gains.values()),
            f"LALR minus Adam, points: {show(gains)}",
        ),
    ]


EXPERIMENT = Experiment(
    name="chen2025-table3",
    paper=PAPER,
    summary="accuracies of four methods under two optimisers, the paper's numbers beside ours; any subset of cells",
    small=Settings(data="digits", net="mlp", seeds=1, epochs=8, rows=1400),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
    tabulate=tabulate,
    selects=("data", "net", "methods", "optimisers", "seeds"),
)
