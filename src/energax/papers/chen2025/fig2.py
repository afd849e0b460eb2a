"""Figure 2: how far each layer's step goes beside its weights, and the training loss with and without LALR."""

import dataclasses
import itertools
import math
import statistics

from matplotlib.figure import Figure

from energax.papers.cells import Cells
from energax.papers.chen2025.common import PAPER
from energax.papers.chen2025.grid import TITLES
from energax.papers.chen2025.traces import Trace, TraceSettings, finite_costs, run_traces
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.pictures import QUIET, panels

METHODS, OPTIMISERS = ("hpc", "bipc"), ("adam", "lalr")


@dataclasses.dataclass(frozen=True)
class Settings(TraceSettings):
    """What the figure depends on, besides what all traced trainings do.

    Attributes:
        data: data set.
        rate: learning rate of both optimisers, the paper's.
    """

    net: str = "hfn"
    data: str = "cifar10"
    rate: float = 0.01


def run(settings: Settings, cells: Cells) -> Numbers:
    """Both methods under both optimisers."""
    traces = [
        Trace.of(settings, settings.data, method, optimiser, settings.rate)
        for method in METHODS
        for optimiser in OPTIMISERS
    ]
    return {"traces": run_traces(cells, traces), "rate": settings.rate}


def ratios(trace: dict, kind: str, at: int = -1, rate: float = 1.0) -> dict[str, float]:
    """|w| / (rate |u|) of every layer at a point of the course, u its gradient or its step."""
    row = trace["rows"][at]
    sizes = {name: (row["weights"][name], row[kind][name]) for name in row["weights"]}
    return {name: w / (rate * u) if w and u else math.nan for name, (w, u) in sizes.items()}


def spread(values: dict[str, float]) -> float:
    """Largest over least of the numbers."""
    found = [value for value in values.values() if value == value]
    return max(found) / min(found) if found else math.inf


def draw(numbers: Numbers) -> Figure:
    """The paper's panels: ratios with the gradient, ratios with the step, and the training loss of both methods."""
    figure, axes = panels(4, width=3.6)
    for trace in numbers["traces"]:
        label, color = f"{TITLES[trace['method']]}, {trace['optimiser']}", f"C{METHODS.index(trace['method'])}"
        dashes = "-" if trace["optimiser"] == "lalr" else "--"
        for at, kind, rate in ((axes[0], "gradient", numbers["rate"]), (axes[1], "step", 1.0)):
            values = list(ratios(trace, kind, rate=rate).values())
            at.plot(range(1, len(values) + 1), values, dashes, color=color, marker=".", label=label)
        panel = axes[2 + METHODS.index(trace["method"])]
        costs = finite_costs(trace)
        panel.plot([row["epoch"] for row in trace["rows"]], costs, dashes, color=color, label=trace["optimiser"])
    axes[0].set(title="a  |w| / (rate |gradient|), at the end", xlabel="layer", yscale="log")
    axes[1].set(title="|w| / |step|, at the end", xlabel="layer", yscale="log")
    for at, method, letter in zip(axes[2:], METHODS, "bc", strict=True):
        at.set(title=f"{letter}  training loss, {TITLES[method]}", xlabel="epoch", yscale="log")
    for at in axes[1:]:
        at.legend(**QUIET)
    return figure


def judge(numbers: Numbers) -> list[Judgement]:
    """What the figure shows, and what the text says of it."""
    traces = {(trace["method"], trace["optimiser"]): trace for trace in numbers["traces"]}
    plain = {method: spread(ratios(traces[method, "adam"], "gradient")) for method in METHODS}
    steps = {key: step_spread(trace) for key, trace in traces.items()}
    last = {key: statistics.fmean(finite_costs(trace)[-3:]) for key, trace in traces.items()}
    rough = {key: roughness(trace) for key, trace in traces.items()}
    course = [
        ratio
        for trace in numbers["traces"]
        for at in range(len(trace["rows"]))
        for ratio in ratios(trace, "gradient", at, numbers["rate"]).values()
        if ratio == ratio
    ]

    def told(values: dict) -> str:
        return ", ".join(f"{TITLES[key[0]]} with {key[1]} {value:.3g}" for key, value in values.items())

    return [
        judge_claim(
            "Fig. 2a",
            "the change of a layer beside its weights differs widely from layer to layer (tenfold)",
            min(plain.values()) > 10,
            "largest over least of |w| / (rate |gradient|): "
            + ", ".join(f"{TITLES[method]} {value:.3g}" for method, value in plain.items())
            + f"; the least of any layer at any point {min(course, default=math.nan):.3g}",
        ),
        judge_claim(
            "section 4",
            "LALR gives every layer a step of the same length; Adam does not (threefold)",
            max(steps[method, "lalr"] for method in METHODS) < 1.01 and min(steps[m, "adam"] for m in METHODS) > 3,
            f"longest over shortest step of a layer, median over the course: {told(steps)}",
        ),
        judge_claim(
            "Fig. 2b, c",
            f"at the rate of {numbers['rate']:g} LALR ends at a lower training loss than Adam",
            all(last[method, "lalr"] < last[method, "adam"] for method in METHODS),
            f"mean of the last three points: {told(last)}",
        ),
        judge_claim(
            "Fig. 2b, c",
            "LALR's training loss is steadier",
            all(rough[method, "lalr"] < rough[method, "adam"] for method in METHODS),
            f"mean rise between two points, where it rises: {told(rough)}",
        ),
    ]


def step_spread(trace: dict) -> float:
    """Longest over shortest step of the layers that take one: the median over the course."""
    found = []
    for row in trace["rows"]:
        sizes = [value for value in row["step"].values() if value]
        found.append(max(sizes) / min(sizes) if sizes else math.inf)
    return statistics.median(found)


def roughness(trace: dict) -> float:
    """How much the training loss rises, on average over all pairs of neighbouring points."""
    costs = finite_costs(trace)
    return statistics.fmean(max(after - before, 0.0) for before, after in itertools.pairwise(costs))


EXPERIMENT = Experiment(
    name="chen2025-fig2",
    paper=PAPER,
    summary="each layer's step beside its weights, and the training loss with and without LALR",
    small=Settings(data="digits", net="mlp", epochs=5, rows=1400, stretches=2),
    small_decides=False,  # three layers of one kind do not differ tenfold, and learn digits at any of these rates
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
)
