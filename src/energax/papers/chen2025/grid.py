"""Trainings in a grid of data sets, networks, methods and optimisers, each a cell of its own that resumes."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from matplotlib.figure import Figure

import energax as ex
from energax.exceptions import SettingError
from energax.papers.cells import Cells
from energax.papers.names import split_names
from energax.papers.pictures import panels
from energax.papers.tables import Table
from energax.papers.training import Row, fit_cell, keep_rows
from energax.recipes import Settings as Choice
from energax.recipes import make_learner, write_settings

METHODS: dict[str, tuple[str, Choice]] = {
    "hpc": ("pc", Choice(relaxation_tol=1e-2, max_relaxation_steps=4)),
    "nudge": ("pc-nudge", Choice(relaxation_tol=1e-2, max_relaxation_steps=4)),
    "bipc": ("bipc", Choice(solver="cg-states", relaxation_tol=1e-2, max_relaxation_steps=12)),
    "ep": ("ep", Choice(relaxation_tol=1e-2, check_every=2)),
    "backprop": ("backprop", Choice()),
}
"""Name in the table -> a recipe, and the settings in which it differs from that."""

NETS = {
    "hfn": "HFN",
    "scrn": "SCRN-S",
    "scrn-complex": "SCRN-C",
    "scrn-dense": "SCRN-D",
    "conv": "conv",
    "mlp": "MLP",
    "chain": "ReLU chain",
}
DATA = ("mnist", "cifar10", "cifar100", "tiny-imagenet", "fashion-mnist", "digits")
RATES = {"adam": 0.001, "lalr": 0.01, "lars": 0.05, "lamb": 0.001, "adamw": 0.001, "sgd": 0.05}
"""Learning rates where none is given."""

TITLES = {"hpc": "HPC", "nudge": "PC-Nudge", "bipc": "BiPC", "ep": "EP", "backprop": "backprop"}


@dataclasses.dataclass(frozen=True)
class Point:
    """One training.

    Attributes:
        data, net, method, optimiser: names.
        rate: learning rate.
        seed: fixes parameters and the order of the rows.
        choice: settings of the recipe.
        epochs: passes over the training rows.
        rows: of the training split, from the first; None: all.
    """

    data: str
    net: str
    method: str
    optimiser: str
    rate: float
    seed: int
    choice: Choice
    epochs: int
    rows: int | None

    @property
    def name(self) -> str:
        """What its cell is called."""
        return f"{self.data}-{self.net}-{self.method}-{self.optimiser}-{self.rate:g}-{self.seed}"

    def facts(self) -> Row:
        """Where in the grid it is."""
        return {key: getattr(self, key) for key in (*KEYS, "seed")}


KEYS = ("net", "data", "method", "optimiser", "rate")
"""What cells of several seeds agree in."""


def split_optimisers(names: str) -> list[tuple[str, float]]:
    """Optimisers separated by commas, each with its rate behind a colon, or with the customary one."""
    pairs = [tuple(name.strip().split(":")) for name in names.split(",") if name.strip()]
    split_names("optimisers", ",".join(pair[0] for pair in pairs), tuple(RATES))
    try:
        return [(pair[0], float(pair[1]) if pair[1:] else RATES[pair[0]]) for pair in pairs]
    except ValueError as error:
        raise SettingError(f"optimisers={names!r}: give rates as numbers behind a colon, as adam:0.001") from error


def takes_cyclic_graph(net: str, method: str) -> bool:
    """Whether a recurrent network is taken as it is, not unrolled: by EP, and the paper has none of it."""
    return method == "ep" and net.startswith("scrn")


def make_choice(net: str, method: str, optimiser: str, rate: float, batch: int, width: float, length: int) -> Choice:
    """The method's own settings, and those that all methods share."""
    shared: dict[str, Any] = {
        "network": net,
        "optimiser": optimiser,
        "learning_rate": rate,
        "batch": batch,
        "standardise": True,
        "activation": "tanh",
    }
    if method == "ep":  # in a deep net the clipped units of the lower blocks all rest at 0 or 1, without a gradient
        shallow = net in ("mlp", "conv")
        shared |= {"activation": "hard-sigmoid"} if shallow else {"gain": 1.0, "max_relaxation_steps": 30}
    if net == "mlp":
        shared["hidden"] = (128, 64)
    if net == "chain":  # eight layers of rectifiers with He's initial weights, whose signals keep their size
        shared |= {"network": "mlp", "hidden": (128,) * 8, "activation": "rectifier", "gain": math.sqrt(6)}
    recurrent = net.startswith("scrn")
    if net == "hfn" or recurrent:
        shared["width"] = width
    if recurrent:
        shared["length"] = length
        if takes_cyclic_graph(net, method):  # a node that leads back to itself is no block of its own
            shared |= {"length": 0, "solver": "flow", "check_every": None, "max_relaxation_steps": 60}
    return dataclasses.replace(METHODS[method][1], **shared)


def make_points(
    net: str, chosen: Any, *, width: float, epochs: int, rows: int | None, without: Sequence[str] = ()
) -> list[Point]:
    """The points of one network, the quick methods first.

    Args:
        net: the network.
        chosen: settings of an experiment: `data`, `methods` and `optimisers` as names separated by commas, `seeds`,
            `batch` and `length`.
        width: factor of the network's channels.
        epochs: passes over the training rows.
        rows: of the training split, from the first; None: all.
        without: methods that the network goes without.
    """
    optimisers = split_optimisers(chosen.optimisers)
    return [
        Point(data, net, method, optimiser, rate, seed, choice, epochs, rows)
        for method in split_names("methods", chosen.methods, tuple(METHODS))
        if method not in without
        for data in split_names("data", chosen.data, DATA)
        for seed in range(chosen.seeds)
        for optimiser, rate in optimisers
        for choice in [make_choice(net, method, optimiser, rate, chosen.batch, width, chosen.length)]
    ]


def train_point(cells: Cells, point: Point) -> Row:
    """Train one point, or go on where an interrupted run finished an epoch.

    Returns:
        Where in the grid it is, what `fit_cell` says, and the device.
    """
    data = keep_rows(ex.load_data(point.data), point.rows)
    recipe = METHODS[point.method][0]
    learner, complete = make_learner(recipe, data.image_shape, data.classes, seed=point.seed, settings=point.choice)
    plan = {"epochs": point.epochs, "batch": complete.batch, "seed": point.seed, "standardise": complete.standardise}
    config = {"recipe": recipe, "settings": write_settings(complete)}
    found = fit_cell(cells, point.name, learner, data, config=config, **plan)
    return {**point.facts(), **found, "device": jax.devices()[0].device_kind}


def train_points(cells: Cells, points: Sequence[Point]) -> list[Row]:
    """Train those that no other process is at; what is returned are all cells that are finished, these or others."""
    for point in points:
        cells.offer(point.name, lambda point=point: train_point(cells, point))
    return list(cells.finished().values())


def gather(rows: Sequence[Row]) -> dict[tuple, list[Row]]:
    """Cells that differ in the seed alone together, by the rest, in the order of a table."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in KEYS), []).append(row)
    places = [list(NETS), list(DATA), list(TITLES), list(RATES)]

    def place(key: tuple) -> tuple:
        return *(known.index(part) for known, part in zip(places, key[:4], strict=True)), key[4]

    return {key: groups[key] for key in sorted(groups, key=place)}


def mean(rows: Sequence[Row], name: str) -> float | None:
    """Mean over seeds; None where one of them diverged, or has no such number."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return statistics.fmean(values) if values and len(values) == len(rows) else None


def show_percent(rows: Sequence[Row], name: str) -> str:
    """Mean and standard deviation of a share over seeds, in per cent; what became of a training that diverged."""
    lost = sum(row["diverged"] is not None for row in rows)
    if lost:
        return f"diverged ({lost} of {len(rows)})"
    values = [100 * row[name] for row in rows]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


def show_regime(rows: Sequence[Row]) -> list[str]:
    """Verdicts of the last epoch's relaxations, residual, least cosine of any epoch and seed, seconds and device."""
    if any(row["diverged"] is not None for row in rows):
        return ["-"] * len(REGIME)
    shares = [mean(rows, f"{verdict}_fraction") for verdict in ("converged", "stalled", "out_of_steps")]
    verdicts = " / ".join("-" if share is None else f"{100 * share:.0f}" for share in shares)
    residual = mean(rows, "residual")
    return [
        verdicts,
        "-" if residual is None else f"{residual:.2g}",
        f"{min(row['least_gradient_cosine'] for row in rows):.3f}",
        rows[0]["reference"],
        f"{statistics.median(row['seconds'] for row in rows):.0f}",
        ", ".join(sorted({row["device"] for row in rows})),
    ]


REGIME = ("converged / stalled / out of steps %", "residual", "least cosine", "to", "seconds", "on")


def tabulate(title: str, rows: Sequence[Row], printed: Mapping[tuple, float] | None = None) -> Table:
    """All cells, with the paper's numbers beside them where there are some.

    Args:
        title: of the table.
        rows: of all seeds.
        printed: `(network, data, method, optimiser)` -> the paper's accuracy in per cent.
    """
    lines = []
    for (net, data, method, optimiser, rate), found in gather(rows).items():
        cyclic = takes_cyclic_graph(net, method)
        name = [NETS[net], data, TITLES[method] + " (cyclic graph)" * cyclic, f"{optimiser} {rate:g}"]
        if printed is not None:
            paper = printed.get((net, data, method, optimiser))
            name.append("none, ours" if paper is None else f"{paper:.2f}")
        accuracies = [show_percent(found, part) for part in ("test_accuracy", "selected_test_accuracy")]
        lines.append([*name, *accuracies, str(len(found)), *show_regime(found)])
    paper = [] if printed is None else ["paper, validation %"]
    headings = ["network", "data", "method", "optimiser", *paper, "test %, last epoch", "chosen by validation", "seeds"]
    return Table(title, [*headings, *REGIME], lines)


def draw_accuracies(rows: Sequence[Row]) -> Figure:
    """Test accuracies of the last epoch, a panel for each network and data set; none for those that diverged."""
    groups = gather(rows)
    places = list(dict.fromkeys(key[:2] for key in groups))
    bars = max((sum(key[:2] == place for key in groups) for place in places), default=0)
    figure, axes = panels(max(len(places), 1), width=5.0, height=max(3.4, 0.2 * bars + 1))
    for at, (net, data) in zip(axes, places, strict=False):
        own = {key[2:]: found for key, found in groups.items() if key[:2] == (net, data)}
        for index, ((method, optimiser, _), found) in enumerate(own.items()):
            value = mean(found, "test_accuracy")
            if value is None:
                continue
            color, seeds = f"C{list(TITLES).index(method)}", [100 * row["test_accuracy"] for row in found]
            at.plot(seeds, [index] * len(seeds), "o", ms=5, color=color, alpha=1 if optimiser == "lalr" else 0.55)
            at.plot(100 * value, index, "|", ms=14, color=color)
        labels = [f"{TITLES[method]}, {optimiser} {rate:g}" for method, optimiser, rate in own]
        at.set_yticks(range(len(own)), labels, fontsize="small")
        at.set(title=f"{NETS[net]}, {data}", xlabel="test accuracy, % (bar: mean over seeds)")
        at.set_ylim(len(own) - 0.5, -0.5)
    return figure
