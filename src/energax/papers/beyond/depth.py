"""How many steps an error needs to reach the lowest block: residual nets of 4 to 128 blocks, by energy and solver.

A public study (github.com/tarun-ks/predictive-coding-depth-scaling) trains residual MLPs of width 32 for one epoch of
MNIST, and finds that predictive coding needs T ~ L^1.9 relaxation steps for 90 % of backprop's accuracy. On its nets
two things are measured. At the initial weights: the steps until the blocks of the lowest quarter, and the lowest
block, have gradients with a cosine of .9 to backprop's (a whole net's cosine is ruled by its output side). After
training: the steps that bring 90 and 98 % of backprop's accuracy.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import energax as ex
from energax import rules
from energax.data import Dataset
from energax.papers.beyond.picture import draw, tabulate
from energax.papers.beyond.reading import PLACES, SHARES, average, exponent, mean_steps, tell, training_steps
from energax.papers.beyond.ways import (
    COST,
    LOOK,
    WAYS,
    Counted,
    Seen,
    blocks,
    follow,
    iteration,
    label,
    make_net,
    parts,
)
from energax.papers.cells import Cells
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.training import train_net
from energax.training.rows import make_device_split

STUDY, BATCH = "depth study", 64
AT_ONCE = jnp.asarray(1e9)  # of `follow`: no looks on the way


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the experiment depends on.

    Attributes:
        data: data set.
        width: units of a block.
        depths: numbers of blocks L at which steps are counted.
        ways: what is counted there: energies and solvers.
        seeds: initialisations there.
        trained: way -> numbers of blocks of the nets that it trains, with L/4, L/2, L ... steps of the states or 1, 2
            ... of the errors, until 98 % of backprop's accuracy is reached.
        longest: most steps that are tried, in multiples of L.
        epochs: passes over the training rows.
        seed: initialisation and order of the rows in training.
    """

    data: str = "mnist"
    width: int = 32
    depths: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    ways: tuple[str, ...] = WAYS
    seeds: tuple[int, ...] = (0,)
    trained: Mapping[str, tuple[int, ...]] = dataclasses.field(
        default_factory=lambda: {
            "pc-flow": (4, 8, 16),
            "pc-nesterov": (4, 8, 16),
            "nudge-cg": (4, 8, 16),
            "skew-nesterov": (4, 8, 16, 32),
            "balanced-nesterov": (4, 8, 16, 32),
            "nudge-errors": (4, 8, 16, 32, 64, 128),
        }
    )
    longest: int = 8
    epochs: int = 1
    seed: int = 0


@eqx.filter_jit
def backprop(graph: ex.Graph, batch: ex.Batch):
    """The exact gradient."""
    return ex.Backprop()(ex.PredictiveCoding(COST), graph, batch, ex.ConjugateGradient(), ())[0]


def time_call(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a compiled call returns, and its processor time: of many calls, or of one that takes long."""
    found = jax.block_until_ready(call())
    begun, calls = time.process_time(), 0
    while time.process_time() - begun < 0.1:
        jax.block_until_ready(call())
        calls += 1
    return found, (time.process_time() - begun) / calls


def count_steps(settings: Settings, data: Dataset, depth: int, seed: int) -> dict[str, Any]:
    """Every way on one net: steps, cosines and sizes then and after 1.5 L steps, processor time over backprop's."""
    graph = make_net(data, settings.width, depth, seed)
    batch = make_device_split(data, data.train, standardise=False).batch(jnp.arange(BATCH))
    exact, unit = time_call(lambda: backprop(graph, batch))
    found = {}
    for way in settings.ways:
        energy, solver = parts(way)
        beta, reach = jnp.asarray(energy.beta), solver.reach(depth)
        after = partial(follow, energy.dynamics(depth), iteration(way, depth), graph, batch, blocks(exact), beta)
        seen = after(jnp.asarray(reach), jnp.asarray(LOOK))
        steps = [int(step) if step > 0 else None for step in seen.reached]
        row = {"reach": reach, "steps": dict(zip(PLACES, steps, strict=True)), "times": None}
        if steps[0] is not None:
            seen, seconds = time_call(partial(after, jnp.asarray(steps[0]), AT_ONCE))
            row["times"] = seconds / unit
        early = after(jnp.asarray(math.ceil(1.5 * depth)), AT_ONCE)
        found[way] = {**row, **show(seen), "early": show(early)}
    return found


def show(seen: Seen) -> dict[str, list[float]]:
    """Cosines and sizes, of every quarter and of the lowest block."""
    return {"cosines": seen.cosines.tolist(), "sizes": seen.sizes.tolist()}


@cache
def adam(depth: int) -> optax.GradientTransformation:
    """The study's, whose eps is below the lowest gradients; one object, so that one compilation serves all counts."""
    return optax.adam(1e-3 * math.sqrt(32 / depth), eps=1e-20)


def train(settings: Settings, cells: Cells, data: Dataset, way: str, depth: int, count: int) -> float:
    """Validation accuracy after training with so many steps for every gradient; with none by backprop."""
    energy, _ = parts(way)
    rule = rules.Contrastive(rules.nudge(energy.beta)) if count else rules.Backprop()
    graph = make_net(data, settings.width, depth, settings.seed)
    steps = Counted(iteration(way, depth), jnp.asarray(count))
    learner = ex.Learner(graph, energy.dynamics(depth), steps, rule, adam(depth))
    name, epochs, seed = f"{way}-{depth}-{count}", settings.epochs, settings.seed
    found = train_net(
        cells, name, learner, data, epochs=epochs, stretches=1, seed=seed, batch=BATCH, tested="validation"
    )
    return found["validation_accuracy"][-1]


def sweep_counts(
    settings: Settings, cells: Cells, data: Dataset, way: str, depth: int, enough: float
) -> dict[str, float]:
    """Accuracies with more and more steps, up to the first that is enough."""
    found, count = {}, max(1, depth // 4) if parts(way)[1].local else 1
    while count <= settings.longest * depth and max(found.values(), default=0.0) < enough:
        name = f"train-{way}-{depth}-{count}"
        found[str(count)] = cells(name, lambda count=count: train(settings, cells, data, way, depth, count))
        count *= 2
    return found


def run(settings: Settings, cells: Cells) -> Numbers:
    """Steps at every depth, then trainings."""
    data = ex.load_data(settings.data)
    for way in (*settings.ways, *settings.trained):
        parts(way)  # an unknown one is refused before anything is counted
    counted = {
        str(depth): [
            cells(f"steps-{depth}-{seed}", lambda depth=depth, seed=seed: count_steps(settings, data, depth, seed))
            for seed in settings.seeds
        ]
        for depth in settings.depths
    }
    trained = {}
    for depth in sorted(set().union(*settings.trained.values())):
        exact = cells(
            f"train-backprop-{depth}", lambda depth=depth: train(settings, cells, data, "nudge-errors", depth, 0)
        )
        ways = [way for way, depths in settings.trained.items() if depth in depths]
        sweeps = {way: sweep_counts(settings, cells, data, way, depth, SHARES[-1] * exact) for way in ways}
        trained[str(depth)] = {"backprop": exact, "ways": sweeps}
    return {"data": data.origin, "counted": counted, "trained": trained}


def judge(numbers: Numbers) -> list[Judgement]:
    """Exponents of T against L, at the initial weights and in training."""
    return [*judge_counts(numbers), *judge_trainings(numbers)]


def judge_counts(numbers: Numbers) -> list[Judgement]:
    """What holds of gradients at the initial weights; open where a way was not counted, or at one depth only."""
    depths = [int(depth) for depth in numbers["counted"]]
    ways = list(numbers["counted"][str(depths[0])][0])
    flow, errors = (mean_steps(numbers, way) if way in ways else {} for way in ("nudge-flow", "nudge-errors"))
    lowest = {way: mean_steps(numbers, way, PLACES[1]) for way in ways if parts(way)[1].local}
    best = min(lowest, key=lambda way: (depths[-1] not in lowest[way], exponent(lowest[way])), default=None)
    reached = lowest.get(best, {}) if best else {}
    change, early = "under a weak nudge", {}
    if "pc-nesterov" in ways:
        settled = average(numbers, depths[-1], "pc-nesterov", "cosines")[3]
        change += (
            f"; at beta = 1 the cosine falls as states settle (highest quarter of {depths[-1]} blocks: {settled:.2f}), "
            "and the steps of training tell instead"
        )
    if "skew-nesterov" in ways:
        early = {depth: average(numbers, depth, "skew-nesterov", "early", "cosines")[:4].min() for depth in depths}

    several = len(depths) > 1
    return [
        judge_claim(
            STUDY,
            "predictive coding by gradient flow needs steps that grow far faster than the depth (there L^1.9)",
            exponent(flow) > 1.5 if several and "nudge-flow" in ways else None,
            f"{tell(flow)}, to a cosine of .9 in the lowest quarter",
            change=change,
        ),
        judge_claim(
            "energax",
            "PC-Nudge by conjugate gradients on the errors needs as many steps at any depth: exponent below .2",
            len(errors) == len(depths) and exponent(errors) < 0.2 if several and "nudge-errors" in ways else None,
            tell(errors),
        ),
        judge_claim(
            "energax",
            "the best steps of the states reach the lowest block in proportion to the depth: exponent at most 1.1",
            len(reached) == len(depths) and exponent(reached) <= 1.1 if several and best else None,
            f"{label(best) if best else 'no steps of the states'}: {tell(reached)}",
        ),
        judge_claim(
            "energax",
            "after 1.5 L Nesterov steps skew feedback has a cosine of at least .9 in every quarter",
            min(early.values()) >= 0.9 if early else None,
            "least of the quarters "
            + ", ".join(f"{one:.3f}" for one in early.values())
            + f" at L = {', '.join(map(str, depths))}",
        ),
    ]


def judge_trainings(numbers: Numbers) -> list[Judgement]:
    """What it takes to train as backprop does; open where a way trained no net."""
    flow, most = (training_steps(numbers, "pc-flow", share) for share in SHARES)
    skew, balanced, errors = (
        training_steps(numbers, way, SHARES[-1]) for way in ("skew-nesterov", "balanced-nesterov", "nudge-errors")
    )

    def nets(way: str) -> int:
        """The number of nets that a way trained."""
        return sum(way in row["ways"] for row in numbers["trained"].values())

    def everywhere(way: str, steps: dict[int, float], enough: Callable[[int, float], bool]) -> bool | None:
        """Whether a way got there on every net that it trained, in few enough steps; None where it trained none."""
        if not nets(way):
            return None
        return len(steps) == nets(way) and all(enough(depth, count) for depth, count in steps.items())

    return [
        judge_claim(
            STUDY,
            "trained by gradient flow, predictive coding needs T ~ L^1.9 steps for 90 % of backprop's accuracy",
            exponent(flow) > 1.5 if nets("pc-flow") > 1 else None,
            f"90 %: {tell(flow)}; 98 %: {tell(most)}",
            tried="net, Adam and learning rate as there; with an eps below every gradient, so that a direction counts "
            "however small it is, and steps that the measured curvature bounds",
        ),
        judge_claim(
            "energax",
            "at most 1.5 L Nesterov steps of skew feedback bring 98 % of backprop's accuracy",
            everywhere("skew-nesterov", skew, lambda depth, count: count <= 1.5 * depth),
            tell(skew),
        ),
        judge_claim(
            "energax",
            "at most L Nesterov steps of balanced feedback do",
            everywhere("balanced-nesterov", balanced, lambda depth, count: count <= depth),
            tell(balanced),
        ),
        judge_claim(
            "energax",
            "two steps of conjugate gradients on the errors bring 98 % of backprop's accuracy at any depth",
            everywhere("nudge-errors", errors, lambda _, count: count <= 2),
            tell(errors),
        ),
    ]


EXPERIMENT = Experiment(
    name="beyond-depth",
    paper="energax",
    summary="steps that an error needs to reach the lowest block, and accuracy, against depth",
    small=Settings(
        data="digits",
        depths=(8, 32),
        ways=("pc-nesterov", "nudge-flow", "nudge-cg", "nudge-errors", "skew-nesterov"),
        trained={"pc-flow": (4, 8), "skew-nesterov": (4,), "balanced-nesterov": (4,), "nudge-errors": (4,)},
        epochs=10,
    ),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
    tabulate=tabulate,
)
