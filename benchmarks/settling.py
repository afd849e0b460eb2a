"""Whether predictive coding at beta = 1 settles on the hierarchical net while it trains it, and what it then follows.

Run it on one core: `taskset -c 0 python -m benchmarks.settling` with ENERGAX_DATA set. The net of Chen et al. 2025 at
1/16 of its channels, tanh, held routes, CIFAR-10 (per channel mean 0, variance 1), batches of 64, Adam .001, as in
their Table 3 here. It is trained by predictive coding at beta = 1, four conjugate gradients on the errors a relaxation,
and beside that with a nudge of .001. Writes `settling.json`:

- `courses`: after so many updates, on images of the validation split: the cost of the feed-forward pass; F at beta = 1
  after 32 steps (median); relative residual (median, 95th percentile) after 1 to 32 steps, with every layer's cosine
  to backprop's gradient; and the norm of every layer's weights beside its initial one;
- `step_time`: training steps at a quarter of the channels and initial weights, in units of backprop's, medians of
  paired rounds, processor time.
"""

import platform
import statistics
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import energax as ex
from benchmarks.kinks import (
    CODING,
    SKEW,
    WAYS,
    backprop,
    centre,
    cosines,
    follow,
    look,
    short,
    stepping,
    weights_of,
    with_pools,
)
from benchmarks.reports import options_of, write
from energax.data import Dataset, load_data
from energax.training.learner import Learner, begin, update
from energax.training.rows import make_device_split

COUNTS = (1, 2, 4, 8, 32)
UPDATES = (0, 30, 60, 125, 250, 625)
RULES = {
    "beta = 1": ex.Contrastive(ex.rules.unit_nudge()),
    "beta = .001": ex.Contrastive(ex.rules.nudge(1e-3)),
}


def make_net(data: Dataset, width: float) -> Any:
    """The hierarchical net."""
    return ex.networks.hierarchical(data.image_shape, data.classes, jnp.tanh, width=width, key=jax.random.key(0))


def inspect(graph: Any, first: dict[str, np.ndarray], batch: Any) -> dict:
    """What a relaxation at beta = 1 does on these weights; `first` are the initial ones."""
    residuals, energies, states = follow(graph, batch, CODING, stepping(1), max(COUNTS))
    exact, report = weights_of(backprop(graph, batch)), {}
    for count in COUNTS:
        at = {key: value[count] for key, value in states.items()}
        angles = cosines(weights_of(look(graph, batch, at)[1]), exact)
        report[count] = {"residual": centre(residuals[count]), "cosine": angles}
    weights = weights_of(graph)
    return {
        "cost": short(np.mean(energies[0])),  # before the first step all errors are 0, and F is the cost
        "energy": short(np.median(energies[-1])),
        "steps": report,
        "weights": [short(np.linalg.norm(weights[k]) / np.linalg.norm(first[k])) for k in weights],
    }


def follow_training(data: Dataset, graph: Any, rule: Any, images: int) -> dict:
    """A training, looked at now and then."""
    split = make_device_split(data, data.train, standardise=True)
    batch = make_device_split(data, data.validation, standardise=True).batch(jnp.arange(images))
    learner = Learner(graph, CODING, stepping(4), rule, optax.adam(1e-3))
    first, progress, step, report = weights_of(graph), begin(learner), eqx.filter_jit(update), {}
    for index in range(UPDATES[-1] + 1):
        if index in UPDATES:
            report[index] = inspect(progress.model.graph, first, batch)
            print(f"after {index} updates: {report[index]}", flush=True)
        progress, _ = step(learner, progress, split.batch(jnp.arange(64) + 64 * (index % 125)))  # 8,000 rows, in turn
    return report


def measure_time(graph: Any, batch: Any, rounds: int) -> dict:
    """Processor time of training steps, in units of backprop's."""
    pc, states = ex.Contrastive(ex.rules.unit_nudge()), ex.solvers.StateCoordinates()
    sides = {
        "backprop": (CODING, stepping(1), ex.Backprop(), "maximum"),
        "maximum, 2 steps": (CODING, stepping(2), pc, "maximum"),
        "held, 2 steps": (CODING, stepping(2), pc, "held"),
        "held, 3 steps": (CODING, stepping(3), pc, "held"),
        "held, to .01": (CODING, stepping(40, 1), pc, "held"),
        "softmax, 4 steps": (CODING, stepping(4), pc, "softmax"),
        "skew feedback, held, 8 steps": (SKEW, stepping(8, coordinates=states), pc, "held"),
    }
    learners = {
        name: Learner(with_pools(graph, WAYS[pool]), dynamics, solver, rule, optax.adam(1e-3))
        for name, (dynamics, solver, rule, pool) in sides.items()
    }
    step, spent = eqx.filter_jit(update), {name: [] for name in learners}
    for round_ in range(rounds + 1):
        for name, learner in learners.items():
            progress = begin(learner)
            begun = time.process_time()
            jax.block_until_ready(eqx.filter(step(learner, progress, batch), eqx.is_array))
            if round_:  # the first round compiles
                spent[name].append(time.process_time() - begun)
    ratios = {
        name: short(statistics.median(a / b for a, b in zip(values, spent["backprop"], strict=True)))
        for name, values in spent.items()
    }
    print(ratios, flush=True)
    return {"backprop_s": short(statistics.median(spent["backprop"])), "over_backprop": ratios}


def main() -> None:
    """Measure, report, print."""
    options = options_of(__doc__, width=0.0625, timed_width=0.25, images=64, timed_images=32, rounds=7)
    data = load_data("cifar10")
    graph = make_net(data, options.width)
    report: dict = {**{name: value for name, value in vars(options).items() if name != "out"}, "courses": {}}
    for name, rule in RULES.items():
        print(name, flush=True)
        report["courses"][name] = follow_training(data, graph, rule, options.images)
    batch = make_device_split(data, data.validation, standardise=True).batch(jnp.arange(options.timed_images))
    report["step_time"] = measure_time(make_net(data, options.timed_width), batch, options.rounds)
    report.update(machine=platform.machine(), jax=jax.__version__, device=jax.default_backend())
    write(options.out, "settling", report)


if __name__ == "__main__":
    main()
