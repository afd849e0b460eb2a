"""Figure 6: how much the weight gradient fluctuates under Adam, LARS and LALR, for BiPC and for EP."""

import dataclasses
import itertools
import math
import statistics

from matplotlib.figure import Figure

from energax.graph.groups import group_norms
from energax.papers.cells import Cells
from energax.papers.chen2025.common import PAPER
from energax.papers.chen2025.grid import TITLES, split_optimisers
from energax.papers.chen2025.traces import Trace, TraceSettings, run_traces
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.names import require_name
from energax.papers.pictures import QUIET, panels


@dataclasses.dataclass(frozen=True)
class Settings(TraceSettings):
    """What the figure depends on, besides what all traced trainings do.

    Attributes:
        data: data set.
        layer: whose gradient is looked at, a function of the graph.
        optimisers: with their rates, separated by commas.
    """

    net: str = "conv"
    epochs: int = 8
    rows: int = 4096
    stretches: int = 16
    data: str = "cifar10"
    layer: str = "layer1"
    optimisers: str = "adam:0.001,lars:1,lalr:0.01"


METHODS = ("bipc", "ep")


def run(settings: Settings, cells: Cells) -> Numbers:
    """Both methods under all optimisers."""
    traces = [
        Trace.of(settings, settings.data, method, optimiser, rate)
        for method in METHODS
        for optimiser, rate in split_optimisers(settings.optimisers)
    ]
    learner, _ = traces[0].prepare()
    require_name("layer", settings.layer, group_norms(learner.graph))
    return {"traces": run_traces(cells, traces), "layer": settings.layer}


def norms(trace: dict, layer: str) -> list[float]:
    """The layer's gradient norm over the course; infinite where it is no number."""
    return [math.inf if (value := row["gradient"][layer]) is None else value for row in trace["rows"]]


def fluctuation(values: list[float]) -> float:
    """Median |change of the logarithm| from one point to the next."""
    kept = [value for value in values if 0 < value < math.inf]
    if len(kept) < len(values):
        return math.inf
    return statistics.median(abs(math.log(b / a)) for a, b in itertools.pairwise(kept))


def draw(numbers: Numbers) -> Figure:
    """A panel per method."""
    figure, axes = panels(2 * len(METHODS), width=3.6)
    for trace in numbers["traces"]:
        at = METHODS.index(trace["method"])
        epochs, label = [row["epoch"] for row in trace["rows"]], f"{trace['optimiser']} {trace['rate']:g}"
        axes[2 * at].plot(epochs, norms(trace, numbers["layer"]), linewidth=1, label=label)
        axes[2 * at + 1].plot(epochs, [row["cost"] for row in trace["rows"]], linewidth=1, label=label)
    for at, method in enumerate(METHODS):
        axes[2 * at].set(title=f"{TITLES[method]}: |gradient| of {numbers['layer']}", yscale="log", xlabel="epoch")
        axes[2 * at + 1].set(title=f"{TITLES[method]}: training loss", xlabel="epoch")
    axes[-1].legend(**QUIET)
    return figure


def judge(numbers: Numbers) -> list[Judgement]:
    """Whether the gradient is steadiest under LALR."""
    found: dict[str, list[tuple[str, float]]] = {method: [] for method in METHODS}
    for trace in numbers["traces"]:
        found[trace["method"]].append((trace["optimiser"], fluctuation(norms(trace, numbers["layer"]))))

    def judge_method(method: str, values: list[tuple[str, float]]) -> Judgement:
        own = [value for optimiser, value in values if optimiser == "lalr"]
        others = [value for optimiser, value in values if optimiser != "lalr"]
        told = ", ".join(f"{optimiser} {value:.3g}" for optimiser, value in values)
        return judge_claim(
            "Fig. 6",
            f"{TITLES[method]}'s weight gradient fluctuates least under LALR",
            max(own) < min(others) if own and others else None,
            f"median change of log |gradient| from point to point: {told}",
            change="the paper looks at block 4 of SCRN (BiPC) and layer 1 of HFN (EP)",
        )

    return [judge_method(method, values) for method, values in found.items()]


EXPERIMENT = Experiment(
    name="chen2025-fig6",
    small_decides=False,  # on digits, which are soon learned, LALR's gradient fluctuates most at this rate
    paper=PAPER,
    summary="fluctuation of the weight gradient under Adam, LARS and LALR, for BiPC and EP",
    small=Settings(data="digits", net="mlp", epochs=3, rows=1400, stretches=7, optimisers="adam:0.001,lalr:0.01"),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
)
