"""How far an error gets in T local steps: residual nets of many blocks, by every energy and solver.

A public study (tarun-ks/predictive-coding-depth-scaling) trains residual MLPs of width 32, ReLU, with muPC's factors
and a squared error for one epoch of MNIST, and finds that predictive coding needs T ~ L^1.9 relaxation steps. Here two
things are measured. First, on the initial net, the number of steps until the gradient of the *lowest* block has a
cosine of .9 to backprop's: a whole net's cosine is ruled by its output side. L steps are the least that local steps
can do. Second, the accuracy after an epoch.
"""

import dataclasses
import math
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from matplotlib.figure import Figure

import energax as ex
from energax import rules
from energax.dynamics import AbstractDynamics
from energax.papers.cells import Cells
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.fits import power
from energax.papers.pictures import QUIET, panels
from energax.rules.base import energy_gradient
from energax.solvers.coordinates import ErrorCoordinates
from energax.solvers.engine import AbstractSolver, trace
from energax.training.device_split import make_device_split
from energax.training.display import Silent
from energax.training.learner import root_key

COST, ENOUGH, BATCH = ex.SquaredError(), 0.9, 64


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the experiment depends on.

    Attributes:
        data: data set.
        depths: numbers of blocks L at which steps are counted.
        reach: most steps that are taken, in multiples of L.
        trained: numbers of blocks of the nets that are trained.
        ways: which ways are trained.
        width: units of a block.
        seeds: initialisations.
    """

    data: str = "mnist"
    depths: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    reach: int = 8
    trained: tuple[int, ...] = (8, 32)
    ways: tuple[str, ...] = ("backprop", "nudge_errors", "pc_nesterov", "skew_nesterov", "balanced_nesterov")
    width: int = 32
    seeds: tuple[int, ...] = (0, 1)


def momentum_of(depth: int) -> float:
    """Momentum that carries an error down `depth` blocks: .6, .8 and .9 at 8, 32 and 128."""
    return 1 - 0.1 * math.sqrt(128 / max(depth, 8))


def strength_of(depth: int) -> float:
    """Strength of the skew feedback: a L about 10, so that float32 holds the lowest block's error."""
    return min(0.3, 10 / depth)


def nesterov(depth: int, steps: int) -> ex.GradientFlow:
    """Gradient flow of the states with a step bounded by the curvature, and the depth's momentum."""
    return ex.GradientFlow(1.0, momentum=momentum_of(depth), stop=ex.Stopping(1e-3, steps, 0))


def plain(depth: int, steps: int) -> ex.GradientFlow:
    """The same without momentum."""
    return ex.GradientFlow(1.0, stop=ex.Stopping(1e-3, steps, 0))


def cg_states(depth: int, steps: int) -> ex.ConjugateGradient:
    """Conjugate gradients of the states."""
    return ex.ConjugateGradient(ex.Stopping(1e-3, steps, 0))


def cg_errors(depth: int, steps: int) -> ex.ConjugateGradient:
    """Conjugate gradients of the errors: no local dynamics, for every step sweeps the net forth and back."""
    return ex.ConjugateGradient(ex.Stopping(1e-3, steps, 0), ErrorCoordinates())


@dataclasses.dataclass(frozen=True)
class Way:
    """An energy and a solver.

    Attributes:
        label: what the picture calls it.
        dynamics: of a net of so many blocks.
        solver: of a net of so many blocks, for so many steps.
        beta: strength of the nudge.
        local: whether every step of a state hears its neighbours alone.
        steps: how many a net of so many blocks is trained with.
    """

    label: str
    dynamics: Callable[[int], AbstractDynamics]
    solver: Callable[[int, int], AbstractSolver]
    beta: float = 1.0
    local: bool = True
    steps: Callable[[int], int] = lambda depth: math.ceil(1.5 * depth)


def coding(depth: int) -> ex.PredictiveCoding:
    """Predictive coding."""
    return ex.PredictiveCoding(COST)


WAYS: dict[str, Way] = {
    "pc_flow": Way("PC, gradient flow", coding, plain),
    "pc_nesterov": Way("PC, Nesterov", coding, nesterov),
    "pc_cg": Way("PC, CG of the states", coding, cg_states),
    "skew_flow": Way("skew, gradient flow", lambda d: ex.SkewFeedback(strength_of(d), COST), plain),
    "skew_nesterov": Way("skew, Nesterov", lambda d: ex.SkewFeedback(strength_of(d), COST), nesterov),
    "skew_cg": Way("skew, CG of the states", lambda d: ex.SkewFeedback(strength_of(d), COST), cg_states),
    "balanced_nesterov": Way("balanced, Nesterov", lambda d: ex.BalancedFeedback(strength_of(d), COST), nesterov),
    "nudge_errors": Way("PC-Nudge, CG of the errors", coding, cg_errors, 1e-3, local=False, steps=lambda depth: 2),
}


def make_net(settings: Settings, data, depth: int, seed: int) -> ex.Graph:
    """The public study's net, its blocks one stack."""
    key = jax.random.fold_in(root_key(seed), depth)
    return ex.networks.residual_mlp(
        data.image_shape, settings.width, depth, data.classes, jax.nn.relu, output_state=False, key=key
    )


@eqx.filter_jit
def follow_cosines(graph: ex.Graph, dynamics, solver, batch: ex.Batch, beta: float, steps: int) -> tuple[Array, Array]:
    """Cosines to backprop's gradient and norms relative to it, of every block after every step, shape `(steps, L)`."""
    exact = ex.Backprop()(ex.PredictiveCoding(dynamics.cost), graph, batch, solver, ())[0]
    exact = blocks(exact)
    phase = ex.prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=jnp.asarray(beta))
    weights = jnp.full(len(batch.y), 1 / beta / len(batch.y))

    def compare(states):
        found = blocks(energy_gradient(phase, states, weights))
        size, true = jnp.linalg.norm(found, axis=1), jnp.linalg.norm(exact, axis=1)
        tiny = jnp.finfo(size.dtype).tiny
        return jnp.sum((found / (size + tiny)[:, None]) * (exact / true[:, None]), axis=1), size / true

    return trace(solver, phase, phase.start(), steps, compare)[1]


def blocks(gradient) -> Array:
    """The gradient of every block as a row."""
    (leaf,) = jax.tree.leaves(gradient.graph.functions["branch"])
    return leaf.reshape(leaf.shape[0], -1)


def count_steps(settings: Settings, data, name: str, depth: int, seed: int) -> dict:
    """The first step from which the lowest block's cosine stays at .9 or more, and cosines along the net."""
    way, graph = WAYS[name], make_net(settings, data, depth, seed)
    batch = make_device_split(data, data.train, standardise=False).batch(jnp.arange(BATCH))
    steps = settings.reach * depth if way.local else 20
    cosines, sizes = follow_cosines(graph, way.dynamics(depth), way.solver(depth, steps), batch, way.beta, steps)
    low = np.flatnonzero(~(np.asarray(cosines)[:, 0] >= ENOUGH))
    needed = int(low[-1]) + 1 if len(low) else 0
    at = min(way.steps(depth), steps)
    places = [0, depth // 4, depth // 2, 3 * depth // 4, depth - 1]
    return {
        "steps": needed if needed <= steps else None,
        "least": min(steps, needed),
        "cosines": [float(cosines[at, place]) for place in places],
        "sizes": [float(sizes[at, place]) for place in places],
    }


def train(settings: Settings, data, name: str, depth: int, seed: int) -> dict:
    """One epoch: validation accuracy, and seconds beside backprop's."""
    rate = 1e-3 * math.sqrt(32 / depth)
    optimiser = optax.adam(rate, eps=1e-20)
    graph = make_net(settings, data, depth, seed)
    if name == "backprop":
        learner = ex.Learner(graph, coding(depth), cg_errors(depth, 2), ex.Backprop(), optimiser)
    else:
        way = WAYS[name]
        scheme = rules.unit_nudge() if way.beta == 1 else rules.nudge(way.beta)
        solver = way.solver(depth, way.steps(depth))
        learner = ex.Learner(graph, way.dynamics(depth), solver, ex.Contrastive(scheme), optimiser)
    begun = time.perf_counter()
    run = ex.fit(learner, data, epochs=1, batch=BATCH, seed=seed, display=Silent())
    row = run.history[-1]
    return {
        "accuracy": row["validation_accuracy"],
        "residual": row["residual"],
        "cosine": row["gradient_cosine"],
        "seconds": row["seconds"],
        "with_compiling": time.perf_counter() - begun,
    }


def run(settings: Settings, cells: Cells) -> Numbers:
    """All ways, depths and seeds."""
    data = ex.load(settings.data)
    counted = {
        name: {
            str(depth): [
                cells(
                    f"steps-{name}-{depth}-{seed}", lambda n=name, d=depth, s=seed: count_steps(settings, data, n, d, s)
                )
                for seed in settings.seeds
            ]
            for depth in settings.depths
        }
        for name in WAYS
    }
    trained = {
        name: {
            str(depth): [
                cells(f"train-{name}-{depth}-{seed}", lambda n=name, d=depth, s=seed: train(settings, data, n, d, s))
                for seed in settings.seeds
            ]
            for depth in settings.trained
        }
        for name in settings.ways
    }
    return {"data": data.origin, "reach": settings.reach, "counted": counted, "trained": trained}


def needed_steps(numbers: Numbers, name: str) -> dict[int, float | None]:
    """Mean over seeds of the steps that the lowest block needed; None where a seed did not get there."""
    found = {}
    for depth, cells in numbers["counted"][name].items():
        steps = [cell["steps"] for cell in cells]
        found[int(depth)] = None if None in steps else float(np.mean(steps))
    return found


def exponent(numbers: Numbers, name: str) -> float:
    """P of T ~ L^p over the depths that were reached; NaN below three."""
    reached = [(depth, steps) for depth, steps in needed_steps(numbers, name).items() if steps]
    return power(*zip(*reached, strict=True)) if len(reached) >= 3 else float("nan")


def draw(numbers: Numbers) -> Figure:
    """Steps against depth; cosines along the deepest net; accuracies."""
    figure, (steps, along, accuracy) = panels(3, width=5.0, height=4.2)
    depths = sorted(int(depth) for depth in next(iter(numbers["counted"].values())))
    for index, (name, way) in enumerate(WAYS.items()):
        reached = {depth: t for depth, t in needed_steps(numbers, name).items() if t}
        style = {"color": f"C{index}", "marker": "o", "markersize": 3, "label": way.label}
        steps.plot(list(reached), list(reached.values()), **style)
        cells = numbers["counted"][name][str(depths[-1])]
        along.plot([0, 0.25, 0.5, 0.75, 1], np.mean([cell["cosines"] for cell in cells], axis=0), **style)
    steps.plot(depths, depths, color="grey", linestyle=":", label="L, the least of local steps")
    steps.set(
        xscale="log", yscale="log", xlabel="blocks L", ylabel="steps T", title="to a cosine of .9 at the lowest block"
    )
    along.set(xlabel="place in the net", ylabel="cosine to backprop", title=f"L = {depths[-1]}, the steps of training")
    for name, found in numbers["trained"].items():
        trained = sorted(int(depth) for depth in found)
        mean = [100 * float(np.mean([cell["accuracy"] for cell in found[str(depth)]])) for depth in trained]
        label = "backprop" if name == "backprop" else WAYS[name].label
        accuracy.plot(
            trained,
            mean,
            marker="o",
            markersize=3,
            label=label,
            color="k" if name == "backprop" else f"C{list(WAYS).index(name)}",
        )
    accuracy.set(xscale="log", xlabel="blocks L", ylabel="validation accuracy %", title="after one epoch")
    steps.legend(**QUIET)
    accuracy.legend(**QUIET)
    return figure


def judge(numbers: Numbers) -> list[Judgement]:
    """Exponents of T against L, flat steps on the errors, accuracies beside backprop's."""
    found = {name: exponent(numbers, name) for name in WAYS}
    local = {name: p for name, p in found.items() if WAYS[name].local and p == p}
    best = min(local, key=local.__getitem__, default=None)
    flat = [steps for steps in needed_steps(numbers, "nudge_errors").values() if steps is not None]
    judgements = [
        judge_claim(
            "energax",
            "PC-Nudge by conjugate gradients of the errors needs as many steps at any depth",
            bool(flat) and max(flat) <= min(flat) + 2,
            f"{', '.join(f'{one:.3g}' for one in flat)} steps",
        ),
        judge_claim(
            "depth study",
            "steps of predictive coding by gradient flow grow far faster than the depth (the study: L^1.9)",
            found["pc_flow"] > 1.5,
            f"L^{found['pc_flow']:.2f} to a cosine of .9 at the lowest block",
        ),
        judge_claim(
            "energax",
            "the best local dynamics needs steps in proportion to the depth: exponent at most 1.1",
            best is not None and local[best] <= 1.1,
            "; ".join(f"{WAYS[name].label} L^{p:.2f}" for name, p in found.items()),
        ),
    ]
    labels = {"backprop": "backprop"} | {name: way.label for name, way in WAYS.items()}
    for depth in next(iter(numbers["trained"].values()), {}):
        mean = {
            name: float(np.mean([c["accuracy"] for c in found[depth]])) for name, found in numbers["trained"].items()
        }
        seconds = {
            name: float(np.median([c["seconds"] for c in found[depth]])) for name, found in numbers["trained"].items()
        }
        others = {name: one for name, one in mean.items() if name != "backprop"}
        judgements.append(
            judge_claim(
                "depth study",
                f"with 1.5 L local steps {depth} blocks train to 98 % of backprop's accuracy with skew feedback",
                others.get("skew_nesterov", 0) >= 0.98 * mean.get("backprop", 1),
                "; ".join(f"{labels[name]} {100 * one:.1f} % ({seconds[name]:.0f} s)" for name, one in mean.items()),
            )
        )
    return judgements


EXPERIMENT = Experiment(
    name="beyond-depth",
    paper="energax",
    summary="steps that an error needs to reach the lowest block, and accuracy, against depth",
    small=Settings(data="digits", depths=(4, 8, 16), reach=6, trained=(4,), seeds=(0,)),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
)
