"""The worm's nervous system as a skeleton: digits by its own synapses, against shuffled and random ones."""

import csv
import dataclasses
import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import energax as ex
from energax.certificates import CapIncoming, KeepSigns, KeepSymmetric, move_inside, project, weaker
from energax.graph import EdgeList, read_edges
from energax.opening import read_text
from energax.papers.cells import Cells
from energax.papers.costa2025.circuits import (
    BATCH,
    HEADINGS,
    SOLVER,
    accuracies,
    average_course,
    describe,
    draw_weights,
    gains,
    gather,
    is_certified,
    train_circuit,
)
from energax.papers.costa2025.common import PAPER
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.names import split_names
from energax.papers.pictures import QUIET, panels
from energax.papers.tables import Table
from energax.papers.training import Row
from energax.rules import AsymEP
from energax.training.learner import root_key

FOLDER = Path(__file__).parent / "worm"
FIXED = ("entering", "leaving", "returning")
SWAPS = 20  # tried per synapse
RULES = {
    "local": ("activity response", ex.VectorFieldRule(0.1)),
    "asym": ("AsymEP", AsymEP(0.1)),
    "adjoint": ("adjoint", ex.Adjoint()),
}
WIRINGS = {"worm": "worm", "shuffled": "degrees and classes kept", "random": "equal density"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the experiment depends on.

    Attributes:
        wirings: worm, shuffled (every neuron keeps its numbers of synapses to and from each kind of neuron) and random
            (as many synapses and gap junctions among any neurons), separated by commas.
        rules: local, asym and adjoint, separated by commas.
        seeds: from 0; they fix shuffles, initial weights, maps and the order of the rows.
        epochs: passes over the digits.
    """

    wirings: str = ",".join(WIRINGS)
    rules: str = ",".join(RULES)
    seeds: int = 10
    epochs: int = 40


@dataclasses.dataclass(frozen=True)
class Worm:
    """The neurons, and what joins them.

    Attributes:
        names, kinds: of the neurons.
        signs: -1 of neurons that release GABA, 1 of all others.
        edges: chemical synapses, and gap junctions in both directions; none from a neuron to itself.
        gaps: mask of the gap junctions.
    """

    names: list[str]
    kinds: np.ndarray
    signs: np.ndarray
    edges: EdgeList
    gaps: np.ndarray


def read_worm() -> Worm:
    """The tables in this folder; see its README."""
    rows = list(csv.DictReader(read_text(FOLDER / "neurons.csv").splitlines()))
    names = [row["name"] for row in rows]
    edges = read_edges(FOLDER / "synapses.csv", columns=("kind",), units=names)
    edges = edges.select(edges.sources != edges.targets)
    signs = np.asarray([-1 if "GABA" in row["transmitters"] else 1 for row in rows])
    return Worm(names, np.asarray([row["kind"] for row in rows]), signs, edges, edges.columns["kind"] == "gap")


def rewire(worm: Worm, wiring: str, seed: int) -> Worm:
    """The worm itself, or one of as many synapses and gap junctions that join other neurons."""
    if wiring == "worm":
        return worm
    rng = np.random.default_rng(seed)
    ends = np.stack([worm.edges.sources, worm.edges.targets])
    chemical, pairs = ends[:, ~worm.gaps], ends[:, worm.gaps & (ends[0] < ends[1])]
    if wiring == "random":
        units = len(worm.names)
        chemical = draw_pairs(rng, units, chemical.shape[1], ordered=True)
        pairs = draw_pairs(rng, units, pairs.shape[1], ordered=False)
    else:
        codes = np.unique(worm.kinds, return_inverse=True)[1]
        chemical = swap_ends(rng, chemical, codes, ordered=True)
        pairs = swap_ends(rng, pairs, codes, ordered=False)
    joined = np.concatenate([chemical, pairs, pairs[::-1]], axis=1).astype(np.int32)
    gaps = np.arange(joined.shape[1]) >= chemical.shape[1]
    return dataclasses.replace(worm, edges=EdgeList(worm.edges.names, *joined), gaps=gaps)


def draw_pairs(rng: np.random.Generator, units: int, count: int, *, ordered: bool) -> np.ndarray:
    """So many different pairs of different units, shape `(2, count)`."""
    sources, targets = np.divmod(np.arange(units**2), units)
    allowed = np.flatnonzero(sources != targets if ordered else sources < targets)
    chosen = rng.choice(allowed, count, replace=False)
    return np.stack([sources[chosen], targets[chosen]])


def swap_ends(rng: np.random.Generator, ends: np.ndarray, codes: np.ndarray, *, ordered: bool) -> np.ndarray:
    """Two pairs a-b and c-d become a-d and c-b, again and again, where kinds agree and no pair is there already."""
    pairs = [(int(a), int(b)) for a, b in ends.T]
    there = {pair if ordered else tuple(sorted(pair)) for pair in pairs}
    kinds: dict[tuple[int, int], list[int]] = {}
    for index, (a, b) in enumerate(pairs):
        if not ordered and codes[a] > codes[b]:
            pairs[index] = (a, b) = (b, a)
        kinds.setdefault((int(codes[a]), int(codes[b])), []).append(index)
    for group in kinds.values():
        for i, j in rng.choice(group, (SWAPS * len(group), 2)):
            (a, b), (c, d) = pairs[i], pairs[j]
            new = [(a, d), (c, b)]
            keys = new if ordered else [tuple(sorted(pair)) for pair in new]
            if a == d or c == b or keys[0] in there or keys[1] in there or keys[0] == keys[1]:
                continue
            there -= {pair if ordered else tuple(sorted(pair)) for pair in ((a, b), (c, d))}
            there |= set(keys)
            pairs[i], pairs[j] = new
    return np.asarray(pairs).T


def make_learner(worm: Worm, rule: str, seed: int, updates: int) -> ex.Learner:
    """A certified net whose synapses alone learn; signs stay, and gap junctions stay symmetric."""
    key, edges = root_key(seed), worm.edges
    signs = np.where(worm.gaps, 1, worm.signs[edges.sources])
    graph = ex.networks.from_edges(
        edges,
        (8, 8, 1),
        10,
        jnp.tanh,
        reading=np.flatnonzero(worm.kinds == "sensory"),
        shown=np.flatnonzero(worm.kinds == "motor"),
        weights=draw_weights(edges, signs, jax.random.fold_in(key, 1)),
        readout_gain=8.0,
        feedback_gain=3e-4,
        mirrored=True,
        key=key,
    )
    dynamics = ex.LeakyDirected(leak=1.0)
    projections = (
        KeepSigns({"synapses": signs}),
        KeepSymmetric.of(graph, "synapses", worm.gaps),
        CapIncoming(0.9),
        KeepSymmetric.of(graph, "synapses", worm.gaps, agree=weaker),
    )
    graph = move_inside(projections, dynamics, graph, FIXED)
    optimiser = optax.chain(
        optax.adam(optax.cosine_decay_schedule(1e-3, updates)), project(projections, dynamics, graph)
    )
    return ex.Learner(graph, dynamics, SOLVER, RULES[rule][1], optimiser, freeze=FIXED)


def train(cells: Cells, worm: Worm, wiring: str, rule: str, seed: int, epochs: int) -> Row:
    """One training."""
    data, wired = ex.load_data("digits"), rewire(worm, wiring, seed)
    learner = make_learner(wired, rule, seed, epochs * (len(data.train) // BATCH))
    name, config = f"{wiring}-{rule}-{seed}", {"wiring": wiring}
    row = train_circuit(cells, name, learner, data, epochs=epochs, config=config, seed=seed)
    return {"wiring": wiring, "rule": rule, "seed": seed, **row}


def run(settings: Settings, cells: Cells) -> Numbers:
    """Every wiring by every rule."""
    worm = read_worm()
    rows = [
        cells(f"{wiring}-{rule}-{seed}", lambda at=(wiring, rule, seed): train(cells, worm, *at, settings.epochs))
        for seed in range(settings.seeds)
        for rule in split_names("rules", settings.rules, RULES)
        for wiring in split_names("wirings", settings.wirings, WIRINGS)
    ]
    return {"rows": rows}


def groups_of(numbers: Numbers) -> dict[tuple, list[Row]]:
    """Seeds together, by wiring and rule, in the order of the table."""
    order = [(wiring, rule) for wiring in WIRINGS for rule in RULES]
    groups = gather(numbers["rows"], ("wiring", "rule"))
    return {key: groups[key] for key in order if key in groups}


def draw(numbers: Numbers) -> Figure:
    """Accuracies of every seed, and the courses of their means."""
    groups = groups_of(numbers)
    figure, (left, right) = panels(2, width=5.5, height=3.8)
    for index, ((wiring, rule), rows) in enumerate(groups.items()):
        color = f"C{list(WIRINGS).index(wiring)}"
        left.plot(accuracies(rows), [index] * len(rows), "o", ms=4, alpha=0.6, color=color)
        left.plot(statistics.fmean(accuracies(rows)), index, "|", ms=16, color="k")
        mean = average_course(rows)
        style = {"local": "-", "asym": "--", "adjoint": ":"}[rule]
        right.plot(range(1, len(mean) + 1), mean, style, color=color, label=f"{WIRINGS[wiring]}, {RULES[rule][0]}")
    left.set_yticks(
        range(len(groups)), [f"{WIRINGS[wiring]}, {RULES[rule][0]}" for wiring, rule in groups], fontsize="x-small"
    )
    left.invert_yaxis()
    left.set(xlabel="test accuracy, % (bar: mean over seeds)")
    right.set(xlabel="epoch", ylabel="validation accuracy, mean over seeds, %")
    right.legend(**{**QUIET, "fontsize": "x-small"})
    return figure


def tabulate(numbers: Numbers) -> Table:
    """A row per wiring and rule."""
    lines = [[WIRINGS[wiring], RULES[rule][0], *describe(rows)] for (wiring, rule), rows in groups_of(numbers).items()]
    note = (
        "302 neurons; only synapses learn, with the signs of their transmitters (GABA inhibits), gap junctions "
        "symmetric. "
        "Fixed, seeded maps from pixels to 83 sensory and from 123 motor neurons to classes. Certified: before "
        "and after the training."
    )
    return Table("Digits by the worm's wiring", ["wiring", "rule", *HEADINGS], lines, [note])


def judge(numbers: Numbers) -> list[Judgement]:
    """What was to be compared, stated before: by the local rule, seed by seed, nine of ten seeds count as better."""
    groups = groups_of(numbers)

    def compare(other: str) -> Judgement:
        claim = f"the worm's wiring learns digits better than one of {WIRINGS[other]}, by the local rule"
        if not all((wiring, "local") in groups for wiring in ("worm", other)):
            return judge_claim("energax", claim, None, "needs both wirings")
        both = [groups[wiring, "local"] for wiring in ("worm", other)]
        own, theirs = map(accuracies, both)
        better = sum(points > 0 for points in gains(*both))
        found = (
            f"better in {better} of {len(own)} seeds: {statistics.fmean(own):.1f} and {statistics.fmean(theirs):.1f} %"
        )
        return judge_claim("energax", claim, better >= 0.9 * len(own), found)

    local, sure = groups.get(("worm", "local"), []), numbers["rows"]
    learns = accuracies(local)
    return [
        judge_claim(
            "energax",
            "the worm's synapses alone learn digits by the local rule, to more than 60 % in every seed",
            min(learns) > 60 if learns else None,
            f"{min(learns):.1f} to {max(learns):.1f} %" if learns else "needs the local rule",
        ),
        judge_claim(
            "energax",
            "every net is certified, before and after its training",
            all(map(is_certified, sure)),
            f"{sum(map(is_certified, sure))} of {len(sure)}",
        ),
        compare("shuffled"),
        compare("random"),
    ]


EXPERIMENT = Experiment(
    name="costa2025-connectome",
    small_decides=False,  # one seed compares nothing
    paper=PAPER,
    summary="digits by the wiring of a worm's nervous system, against shuffled and random ones",
    small=Settings(wirings="worm", rules="local", seeds=1, epochs=2),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
    tabulate=tabulate,
)
