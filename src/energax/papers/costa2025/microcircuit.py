"""The cortical microcircuit as a net: digits by a strictly local rule, against its adjoint and against a readout alone.

The circuit of populations.py at some factor of its size, joined as its probabilities say, its units rectified, leaky
and of Dale's signs. Pixels reach units of layers 4 and 6 with the probabilities of the thalamus, with weights of either
sign, as of on- and off-centre cells; the output reads layer 5's excitatory units and no others, and answers to all
units by weak synapses that stay as they were drawn. `CapIncoming` keeps what reaches a unit below its leak.
"""

import dataclasses
import functools
import statistics
from typing import Any

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import energax as ex
from energax.certificates import AbstractProjection, CapIncoming, KeepSigns, move_inside, project
from energax.data import Dataset
from energax.dynamics.directed import as_graph
from energax.graph import draw_edges
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
from energax.papers.costa2025.populations import PROBABILITIES, THALAMIC, scale_sizes
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.names import split_names, split_numbers
from energax.papers.pictures import QUIET, panels
from energax.papers.tables import Table
from energax.papers.training import Row, keep_rows
from energax.training.learner import root_key

MARGIN = 5.0  # points


@dataclasses.dataclass(frozen=True)
class Way:
    """How a net learns.

    Attributes:
        title: in tables.
        rule: of the gradient.
        rates: data set -> that of Adam at the beginning; it falls to 0 by a cosine.
        freeze: functions that stay as they were drawn.
    """

    title: str
    rule: Any
    rates: dict[str, float]
    freeze: tuple[str, ...]


# by validation accuracy among .003, .005 and .01 of the local rule, and .01 to .3 of the readout (at .3 it would have
# .003 more on MNIST)
RATES, HIGH = {"digits": 0.01, "mnist": 0.005}, {"digits": 0.1, "mnist": 0.1}
WAYS = {
    "local": Way("activity response", ex.VectorFieldRule(0.1), RATES, ("returning",)),
    "adjoint": Way("adjoint", ex.Adjoint(), RATES, ("returning",)),
    "readout": Way("readout alone", ex.Adjoint(), HIGH, ("entering", "synapses", "returning")),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the experiment depends on; the first four settings only choose among its cells.

    Attributes:
        data: digits and mnist, separated by commas.
        factors: of the populations' sizes, separated by commas.
        ways: local, adjoint and readout, separated by commas.
        seeds: from 0; they fix circuits, weights and the order of the rows.
        epochs: passes over the digits.
        mnist_epochs: passes over the rows of MNIST.
        rows: training rows of MNIST, from the first.
    """

    data: str = "digits,mnist"
    factors: str = "0.005,0.01"
    ways: str = ",".join(WAYS)
    seeds: int = 3
    epochs: int = 40
    mnist_epochs: int = 5
    rows: int = 20000


class CapUnits(AbstractProjection):
    """`CapIncoming` for the units alone: what the output reads is not what may excite itself.

    The loop through the output is weak, so that C3 certifies the whole.

    Attributes:
        cap: that of the units.
    """

    cap: CapIncoming = CapIncoming(0.9)

    def __call__(self, model, frozen=frozenset()):
        """The readout stays."""
        return self.cap(model, {*frozen, "leaving"})


def make_learner(data: Dataset, factor: float, way: str, seed: int, updates: int) -> ex.Learner:
    """A certified circuit at a factor of its size."""
    key, chosen = root_key(seed), WAYS[way]
    sizes = scale_sizes(factor)
    populations = np.repeat(list(sizes), list(sizes.values()))
    edges = draw_edges(sizes, PROBABILITIES, seed=seed)
    signs = np.where(np.char.endswith(populations[edges.sources], "I"), -1, 1)
    reading = np.flatnonzero(np.isin(populations, list(THALAMIC)))
    graph = ex.networks.from_edges(
        edges,
        data.image_shape,
        data.classes,
        jax.nn.relu,
        reading=reading,
        shown=np.flatnonzero(populations == "L5E"),
        answering=np.arange(len(populations)),
        weights=draw_weights(edges, signs, jax.random.fold_in(key, 1)),
        share=np.asarray([THALAMIC[name] for name in populations[reading]]),
        gain=2.0,
        feedback_gain=0.001,
        key=key,
    )
    dynamics = ex.LeakyDirected(leak=1.0)
    projections = (KeepSigns({"synapses": signs}), CapUnits())
    graph = move_inside(projections, dynamics, graph, {"returning"})
    rate = optax.cosine_decay_schedule(chosen.rates[data.name], updates)
    optimiser = optax.chain(optax.adam(rate), project(projections, dynamics, graph))
    return ex.Learner(graph, dynamics, SOLVER, chosen.rule, optimiser, freeze=chosen.freeze)


def train(cells: Cells, name: str, data: Dataset, factor: float, way: str, seed: int, epochs: int) -> Row:
    """One training."""
    learner = make_learner(data, factor, way, seed, epochs * (len(data.train) // BATCH))
    synapses: Any = as_graph(learner.graph).functions["synapses"]
    sizes = {"units": synapses.out_features, "synapses": len(synapses.sources)}
    config = {"factor": factor, "way": way}
    row = train_circuit(cells, name, learner, data, epochs=epochs, config=config, seed=seed)
    return {"data": data.name, "factor": factor, "way": way, "seed": seed, **sizes, **row}


def run(settings: Settings, cells: Cells) -> Numbers:
    """The chosen cells that no other process is at; the table has all that are finished."""
    ways, factors = split_names("ways", settings.ways, WAYS), split_numbers("factors", settings.factors)
    for name in split_names("data", settings.data, ("digits", "mnist")):
        data, epochs = ex.load_data(name), settings.epochs
        if name == "mnist":
            data, epochs = keep_rows(data, settings.rows), settings.mnist_epochs
        for factor in factors:
            for way in ways:
                for seed in range(settings.seeds):
                    cell = f"{name}-{factor:g}-{way}-{seed}"
                    cells.offer(cell, functools.partial(train, cells, cell, data, factor, way, seed, epochs))
    return {"rows": list(cells.finished().values())}


def groups_of(numbers: Numbers) -> dict[tuple, list[Row]]:
    """Seeds together, by data set, factor and way, in the order of the table."""
    groups = gather(numbers["rows"], ("data", "factor", "way"))
    return {key: groups[key] for key in sorted(groups, key=lambda key: (*key[:2], list(WAYS).index(key[2])))}


def draw(numbers: Numbers) -> Figure:
    """Courses of the mean over seeds: a panel for each data set and factor."""
    groups = groups_of(numbers)
    places = list(dict.fromkeys(key[:2] for key in groups))
    figure, axes = panels(len(places), width=3.4, height=3.2)
    for place, ax in zip(places, axes, strict=True):
        for index, (way, chosen) in enumerate(WAYS.items()):
            rows = groups.get((*place, way), [])
            mean = average_course(rows)
            ax.plot(range(1, len(mean) + 1), mean, color=f"C{index}", label=chosen.title)
            ax.plot([len(mean)] * len(rows), accuracies(rows), "x", ms=5, color=f"C{index}")
        units = next(row["units"] for key, rows in groups.items() if key[:2] == place for row in rows)
        ax.set(title=f"{place[0]}, {units} units", xlabel="epoch", ylabel="mean validation accuracy, %")
        ax.legend(**QUIET)
    return figure


def tabulate(numbers: Numbers) -> Table:
    """A row per data set, factor and way."""
    lines = [
        [data, str(factor), str(rows[0]["units"]), str(rows[0]["synapses"]), WAYS[way].title, *describe(rows)]
        for (data, factor, way), rows in groups_of(numbers).items()
    ]
    note = (
        "Populations and probabilities of Potjans & Diesmann 2014. Read: the excitatory units of layer 5. By the "
        "activity response and the adjoint the synapses from the input, within the circuit and to the output learn, by "
        "the readout alone the last; those from the output stay as they were drawn. Certified: before and after the "
        "training. Crosses in the picture: test accuracies."
    )
    headings = ["data", "factor", "units", "synapses (seed 0)", "learns by", *HEADINGS]
    return Table("The microcircuit learns", headings, lines, [note])


def judge(numbers: Numbers) -> list[Judgement]:
    """The local rule against the readout alone, seed by seed and at every factor; and certificates."""
    groups = groups_of(numbers)

    def compare(data: str) -> Judgement:
        claim = f"{data}: the local rule ends {MARGIN:g} points above the readout alone, at every factor in every seed"
        known, found = [], []
        for factor in dict.fromkeys(key[1] for key in groups if key[0] == data):
            ways = [groups.get((data, factor, way), []) for way in ("local", "readout", "adjoint")]
            if not ways[0] or len(ways[0]) != len(ways[1]):
                continue
            points = gains(*ways[:2])
            known += points
            means = ", ".join(f"{statistics.fmean(one):.1f}" if one else "not run" for one in map(accuracies, ways))
            found.append(
                f"factor {factor}: {', '.join(f'{one:+.1f}' for one in points)}; means of the local rule, the readout "
                f"and the adjoint: {means} %"
            )
        return judge_claim("energax", claim, min(known) >= MARGIN if known else None, "; ".join(found) or "needs both")

    rows = numbers["rows"]
    certified = judge_claim(
        "energax",
        "every net is certified, before and after its training",
        all(map(is_certified, rows)),
        f"{sum(map(is_certified, rows))} of {len(rows)}",
    )
    return [compare("digits"), compare("mnist"), certified]


EXPERIMENT = Experiment(
    name="costa2025-microcircuit",
    small_decides=False,  # a few epochs of one seed
    paper=PAPER,
    summary="digits by the cortical microcircuit of Potjans & Diesmann, by a local rule and by its readout alone",
    small=Settings(data="digits", factors="0.002", ways="local", seeds=1, epochs=2),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
    tabulate=tabulate,
    selects=("data", "factors", "ways", "seeds"),
)
