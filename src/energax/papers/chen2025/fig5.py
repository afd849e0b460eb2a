"""Figure 5: training loss of HPC and of BiPC on four data sets, the simple recurrent network under Adam."""

import dataclasses
import statistics

from matplotlib.figure import Figure

from energax.papers.cells import Cells
from energax.papers.chen2025.common import PAPER
from energax.papers.chen2025.grid import DATA, TITLES
from energax.papers.chen2025.traces import Trace, TraceSettings, finite_costs, follow_costs, run_traces
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.names import split_names
from energax.papers.pictures import QUIET, panels

METHODS = ("hpc", "bipc")


@dataclasses.dataclass(frozen=True)
class Settings(TraceSettings):
    """What the figure depends on, besides what all traced trainings do.

    Attributes:
        data: data sets, separated by commas.
        optimiser: of the parameters.
        rate: its learning rate, the paper's.
    """

    net: str = "scrn"
    width: float = 0.0625
    epochs: int = 4
    rows: int = 1024
    data: str = "mnist,cifar10,cifar100,tiny-imagenet"
    optimiser: str = "adam"
    rate: float = 0.01


def run(settings: Settings, cells: Cells) -> Numbers:
    """Both methods on every data set."""
    traces = [
        Trace.of(settings, data, method, settings.optimiser, settings.rate)
        for data in split_names("data", settings.data, DATA)
        for method in METHODS
    ]
    return {"traces": run_traces(cells, traces, follow_costs), "rate": settings.rate}


def draw(numbers: Numbers) -> Figure:
    """A panel per data set."""
    names = list(dict.fromkeys(trace["data"] for trace in numbers["traces"]))
    figure, axes = panels(len(names), width=3.6)
    for trace in numbers["traces"]:
        at = axes[names.index(trace["data"])]
        at.plot([row["epoch"] for row in trace["rows"]], finite_costs(trace), label=TITLES[trace["method"]])
        at.set(title=trace["data"], xlabel="epoch")
    axes[0].set_ylabel("training loss")
    axes[-1].legend(**QUIET)
    return figure


def judge(numbers: Numbers) -> list[Judgement]:
    """Whether HPC's loss explodes where BiPC's does not, and which is lower."""
    courses: dict[str, dict[str, list[float]]] = {}
    for trace in numbers["traces"]:
        courses.setdefault(trace["data"], {})[trace["method"]] = finite_costs(trace)
    peaks = {data: {m: max(costs) / costs[0] for m, costs in own.items()} for data, own in courses.items()}
    ends = {data: {m: statistics.fmean(costs[-3:]) for m, costs in own.items()} for data, own in courses.items()}

    def told(values: dict[str, dict[str, float]]) -> str:
        return "; ".join(
            f"{data}: " + ", ".join(f"{TITLES[m]} {value:.3g}" for m, value in own.items())
            for data, own in values.items()
        )

    hard = [data for data in courses if data in ("cifar10", "cifar100")]
    relaxed = "settled by conjugate gradients, HPC on the errors, BiPC (skew feedback) in the states"
    return [
        judge_claim(
            "Fig. 5",
            "HPC's loss explodes on CIFAR-10 and CIFAR-100 (tenfold), BiPC's does not",
            all(peaks[data]["hpc"] > 10 > peaks[data]["bipc"] for data in hard) if hard else None,
            f"largest loss over the first one: {told(peaks)}",
            tried=relaxed,
        ),
        judge_claim(
            "Fig. 5",
            "BiPC's loss ends below HPC's everywhere",
            all(own["bipc"] < own["hpc"] for own in ends.values()),
            f"mean of the last three points: {told(ends)}",
            change=relaxed,
            tried=relaxed,
        ),
    ]


EXPERIMENT = Experiment(
    name="chen2025-fig5",
    small_decides=False,  # what explodes is said of CIFAR
    paper=PAPER,
    summary="training loss of HPC and BiPC on four data sets",
    small=Settings(data="digits", net="scrn-dense", width=1.0, length=4, rows=512, stretches=4),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
)
