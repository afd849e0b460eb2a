"""What feedback suits which depth: a and b of the bidirectional energies, by the steps that reach the lowest blocks.

On the residual nets of `beyond-depth`, at their initial weights, a nudge of 1 is settled by Nesterov steps of the
states under r = e + a J^T d - b d. For every number of blocks, every a and every share b / a the steps are counted
until the gradient of the lowest quarter of the blocks has a cosine of .9 to backprop's, and its size is taken there.
"""

import dataclasses
import math
import statistics
from functools import partial
from typing import Any

import jax.numpy as jnp
from matplotlib.figure import Figure

import energax as ex
from energax.data import Dataset
from energax.papers.beyond.depth import AT_ONCE, BATCH, backprop
from energax.papers.beyond.ways import COST, LOOK, blocks, flow, follow, make_net, quick, strength
from energax.papers.cells import Cells
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.pictures import QUIET, panels
from energax.papers.tables import Table
from energax.training.rows import make_device_split

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the experiment depends on.

    Attributes:
        data: data set.
        width: units of a block.
        depths: numbers of blocks L.
        feedback: values of a; beside them min(.3, 10 / L), which `beyond-depth` takes for b = 0.
        balanced: whether b = a and b = a / 2 are tried beside b = 0.
        longest: most steps that are tried, in multiples of L.
        seeds: initialisations.
    """

    data: str = "mnist"
    width: int = 32
    depths: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    feedback: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    balanced: bool = True
    longest: int = 8
    seeds: tuple[int, ...] = (0, 1)


def count_steps(settings: Settings, data: Dataset, depth: int, seed: int) -> list[Row]:
    """Every (a, b) on one net: steps to the cosine, and the size of the lowest quarter's gradient over backprop's."""
    graph = make_net(data, settings.width, depth, seed)
    batch = make_device_split(data, data.train, standardise=False).batch(jnp.arange(BATCH))
    exact, solver, rows = blocks(backprop(graph, batch)), flow(quick(depth)), []
    most, look = jnp.asarray(settings.longest * depth), jnp.asarray(LOOK)
    for share in (0.0, 0.5, 1.0) if settings.balanced else (0.0,):
        for a in sorted({*settings.feedback, strength(depth)}):
            dynamics = ex.Bidirectional(feedback=jnp.asarray(a), self_term=jnp.asarray(share * a), cost=COST)
            after = partial(follow, dynamics, solver, graph, batch, exact, jnp.asarray(1.0))
            reached = int(after(most, look).reached[0])
            steps, size = (
                (reached, float(after(jnp.asarray(reached), AT_ONCE).sizes[0])) if reached > 0 else (None, None)
            )
            rows.append({"depth": depth, "seed": seed, "a": a, "share": share, "steps": steps, "size": size})
    return rows


def run(settings: Settings, cells: Cells) -> Numbers:
    """All nets."""
    data, rows = ex.load_data(settings.data), []
    for depth in settings.depths:
        for seed in settings.seeds:
            name = f"{depth}-{seed}"
            rows += cells(name, lambda depth=depth, seed=seed: count_steps(settings, data, depth, seed))
    return {"rows": rows}


def steps_by(numbers: Numbers, depth: int, share: float) -> dict[float, float]:
    """Steps by a, mean over seeds, for those a with which every seed got there."""
    rows = [row for row in numbers["rows"] if (row["depth"], row["share"]) == (depth, share)]
    found = {a: [row["steps"] for row in rows if row["a"] == a] for a in sorted({row["a"] for row in rows})}
    return {a: statistics.fmean(steps) for a, steps in found.items() if None not in steps}


def sizes_by(numbers: Numbers, depth: int, share: float) -> dict[float, float]:
    """Sizes by a, geometric mean over the seeds that got there."""
    rows = [row for row in numbers["rows"] if (row["depth"], row["share"]) == (depth, share) and row["size"]]
    return {
        a: statistics.geometric_mean(row["size"] for row in rows if row["a"] == a)
        for a in sorted({row["a"] for row in rows})
    }


def list_values(numbers: Numbers, key: str) -> list[Any]:
    """What was tried of a number, in order."""
    return sorted({row[key] for row in numbers["rows"]})


def judge(numbers: Numbers) -> list[Judgement]:
    """Which a at which depth, and whether a self-term helps."""
    depths, shares = list_values(numbers, "depth"), list_values(numbers, "share")
    found = {(depth, share): steps_by(numbers, depth, share) for depth in depths for share in shares}
    least = {at: min(steps.values(), default=math.inf) for at, steps in found.items()}
    largest = {depth: max(found[depth, 0.0], default=0.0) for depth in depths}
    rule = {depth: found[depth, 0.0].get(strength(depth), math.inf) for depth in depths}
    best = {depth: min(least[depth, share] for share in shares) for depth in depths}
    full = shares[-1] == 1
    compared = [depth for depth in depths if math.isfinite(least[depth, 0.0])] if full else []
    common = set.intersection(*(set(found[depth, 1.0]) for depth in depths)) if full else set()
    far = {a: max(found[depth, 1.0][a] / depth for depth in depths) for a in sorted(common)}
    return [
        judge_claim(
            "energax",
            "with b = 0 the largest a that gets there falls with the depth",
            largest[depths[-1]] < largest[depths[0]] if len(depths) > 1 else None,
            ", ".join(f"L = {depth}: {a:g}" for depth, a in largest.items()),
        ),
        judge_claim(
            "energax",
            "a = min(.3, 10 / L), b = 0 takes at most 1.5 times the steps of the best (a, b)",
            all(math.isfinite(rule[depth]) and rule[depth] <= 1.5 * best[depth] for depth in depths),
            ", ".join(f"L = {depth}: {rule[depth]:g} steps, best {best[depth]:g}" for depth in depths),
        ),
        judge_claim(
            "energax",
            "b = a gets there in no more steps than b = 0, each with its best a",
            all(least[depth, 1.0] <= least[depth, 0.0] for depth in compared) if compared else None,
            ", ".join(f"L = {depth}: {least[depth, shares[-1]]:g} and {least[depth, 0.0]:g} steps" for depth in depths),
        ),
        judge_claim(
            "energax",
            "where b = a, one a serves every depth, within L steps",
            min(far.values(), default=math.inf) <= 1 if full else None,
            "most steps over L: " + (", ".join(f"a = {a:g}: {most:.2g}" for a, most in far.items()) or "no a does"),
        ),
    ]


def draw(numbers: Numbers) -> Figure:
    """Steps against a by depth, for every share, and sizes for the least and the largest."""
    shares = list_values(numbers, "share")
    figure, (*steps, sizes) = panels(len(shares) + 1)
    for index, depth in enumerate(list_values(numbers, "depth")):
        style = {"marker": "o", "markersize": 3, "color": f"C{index}", "label": f"L = {depth}"}
        for share, at in zip(shares, steps, strict=True):
            found = steps_by(numbers, depth, share)
            at.plot(list(found), list(found.values()), **style)
        for share, line in zip((shares[0], shares[-1]), ("-", "--"), strict=True):
            found = sizes_by(numbers, depth, share)
            sizes.plot(list(found), list(found.values()), linestyle=line, **style)
    for share, at in zip(shares, steps, strict=True):
        at.set(title=f"steps to a cosine of .9, b = {share:g} a", xscale="log", yscale="log", xlabel="a")
    sizes.set(title=f"its size then (dashed: b = {shares[-1]:g} a)", xscale="log", yscale="log", xlabel="a")
    steps[0].legend(**QUIET)
    return figure


def tabulate(numbers: Numbers) -> Table:
    """Steps for every a and depth, b / a side by side."""
    depths, shares, lines = list_values(numbers, "depth"), list_values(numbers, "share"), []
    for a in list_values(numbers, "a"):
        line = [f"{a:.3g}"]
        for depth in depths:
            tried = any((row["a"], row["depth"]) == (a, depth) for row in numbers["rows"])
            found = [steps_by(numbers, depth, share).get(a) for share in shares]
            line.append(" / ".join("-" if one is None else f"{one:g}" for one in found) if tried else "")
        lines.append(line)
    told = " / ".join(f"{share:g}" for share in shares)
    title = f"Steps to a cosine of .9 in the lowest quarter, b / a = {told}; -: not within the steps tried"
    return Table(title, ["a", *(f"L = {depth}" for depth in depths)], lines)


EXPERIMENT = Experiment(
    name="beyond-feedback",
    small_decides=False,  # two shallow nets tell little about depth
    paper="energax",
    summary="feedback a and self-term b of the bidirectional energies against depth, by the steps of the states",
    small=Settings(data="digits", depths=(4, 8), feedback=(0.1, 0.5), seeds=(0,)),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
    tabulate=tabulate,
)
