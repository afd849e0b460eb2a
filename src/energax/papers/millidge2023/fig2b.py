"""Figure 2B: how far the relaxation is from backprop, step by step, in each reading of what the caption compares."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import energax as ex
from energax.arithmetic import norm, subtract
from energax.papers.cells import Cells
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.millidge2023.common import (
    PAPER,
    backprop,
    backprop_of_states,
    first_rows,
    network,
    nudge_net,
    over_seeds,
    print_values,
    printed_solver,
    relative,
)
from energax.papers.pictures import QUIET, band, panels
from energax.rules.base import energy_gradient
from energax.solvers import trace


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the figure depends on.

    Attributes:
        data: data set.
        rows: training images per seed.
        seeds: initialisations.
        beta: weight of the cost (the paper's lambda).
        step: step size of the relaxation.
        steps: number of steps.
    """

    data: str = "mnist"
    rows: int = 64
    seeds: tuple[int, ...] = tuple(range(10))
    beta: float = 1.0
    step: float = 0.1
    steps: int = 50


READINGS = {
    "velocity": "dv/dt against -dI/dv - dC/dv at the start (Eq. 11)",
    "states": "dv/dt against -dC/dv handed down by backprop",
    "displacement": "v - v(0) against -dC/dv handed down by backprop",
    "errors": "v - vhat against -dC/dv handed down by backprop",
    "images": "dF/dtheta against backprop's gradient (A.2.1), image by image",
    "parameters": "dF/dtheta against backprop's gradient (A.2.1), of the batch",
}


@eqx.filter_jit
def distances(graph, batch, beta, step, steps: int) -> dict:
    """Euclidean distance over the norm of what is compared with, averaged over samples, per step and reading."""
    phase, start = nudge_net(graph, batch, beta)
    exact = backprop(graph, batch)
    handed = jax.tree.map(lambda g: -beta * g, backprop_of_states(graph, batch))
    begin = phase.force(start.states)

    def observe(states):
        force, predictions = phase.force(states), graph.predict(phase.everywhere(states))
        error = {name: v - predictions[name] for name, v in states.items()}
        learned = energy_gradient(phase, states, jnp.ones(len(batch.y)) / beta / len(batch.y))
        return {
            "velocity": measure_distance(force, begin),
            "states": measure_distance(force, handed),
            "displacement": measure_distance(subtract(states, start.states), handed),
            "errors": measure_distance(error, handed),
            "images": image_by_image(graph, batch, beta, states),
            "parameters": relative(learned, exact),
        }

    return trace(printed_solver(step, steps), phase, start, steps, observe)[1]


def image_by_image(graph, batch, beta, states, images: int = 16):
    """|dF/dtheta - backprop| / |backprop| of one image at a time, averaged over the first ones."""

    def one(x, y, v):
        alone = ex.Batch(x[None], y[None])
        phase, _ = nudge_net(graph, alone, beta)
        learned = energy_gradient(phase, jax.tree.map(lambda a: a[None], v), jnp.ones(1) / beta)
        return relative(learned, backprop(graph, alone))

    first = jax.tree.map(lambda a: a[:images], (batch.x, batch.y, states))
    return jnp.mean(jax.vmap(one)(*first))


def measure_distance(found, expected):
    """|found - expected| / |expected|, averaged over samples."""
    return jnp.mean(norm(subtract(found, expected)) / norm(expected))


def one_seed(settings: Settings, data, seed: int) -> dict:
    """All readings, and the distance of the first step in error coordinates."""
    graph, batch = network(data, seed), first_rows(data, settings.rows)
    traced = distances(graph, batch, jnp.asarray(settings.beta), jnp.asarray(settings.step), settings.steps)
    return {name: np.asarray(values).tolist() for name, values in traced.items()}


def run(settings: Settings, cells: Cells) -> Numbers:
    """All seeds, in float64."""
    with jax.enable_x64(True):
        data = ex.load_data(settings.data)
        seeds = [cells(f"seed{seed}", lambda seed=seed: one_seed(settings, data, seed)) for seed in settings.seeds]
    return {"data": data.origin, "seeds": seeds}


def draw(numbers: Numbers) -> Figure:
    """One line per reading, mean and standard deviation over the initialisations."""
    figure, (held, other) = panels(2, width=5)
    steps = np.arange(len(numbers["seeds"][0]["velocity"]))
    for index, (name, label) in enumerate(READINGS.items()):
        axes = held if name == "velocity" else other
        mean, spread = over_seeds([one[name] for one in numbers["seeds"]])
        band(axes, steps, mean, spread, color=f"C{index}", label=label)
    for axes in (held, other):
        axes.set(xlabel="relaxation step", ylabel="relative distance", ylim=(0, None))
        axes.legend(**QUIET)
    held.set(title="B  as the caption has it: in the reading of Eq. 11")
    other.set(title="the other readings: no match at the start", ylim=(0, 1.6))
    return figure


def judge(numbers: Numbers) -> list[Judgement]:
    """The caption in each reading, and what holds instead."""
    traces = {name: np.asarray([one[name] for one in numbers["seeds"]]) for name in READINGS}
    caption = "close to backprop at the start of the relaxation, ever further from it as it goes on"
    found = []
    for name, label in READINGS.items():
        values = traces[name]
        begins, rises = bool(np.all(values[:, 0] < 0.05)), bool(np.all(values[:, -1] > values[:, 0]))
        told = f"{print_values(values[:, 0].tolist())} at the start, {print_values(values[:, -1].tolist())} at the end"
        change = "of Eq. 11's vector, which moves the top hidden layer alone; backprop's is another one"
        tried = "synchronous relaxation from the feed-forward pass"
        found.append(judge_claim("Fig. 2B", f"{label}: {caption}", begins and rises, told, change=change, tried=tried))
    values = traces["images"]
    told = f"from {print_values(values[:, 0].tolist())} to {print_values(values[:, -1].tolist())}"
    falls = bool(np.all(values[:, -1] < values[:, 0]) and np.all(values[:, 0] > 0.5))
    return [
        *found,
        judge_claim(
            "energax",
            "image by image the distance of the parameter gradients falls, as layer after layer sets out",
            falls,
            told,
        ),
    ]


EXPERIMENT = Experiment(
    name="millidge2023-fig2b",
    paper=PAPER,
    summary="distance to backprop over the relaxation, in six readings of the caption",
    small=Settings(data="digits", seeds=(0, 1, 2)),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
)
