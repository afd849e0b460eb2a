"""Time of a training step of predictive coding against backprop's, in one process on one core, interleaved.

Run it on one core: `taskset -c 0 python benchmarks/step_time.py`. It prints a table and writes
`results/bench/step_time.json`. Both sides run the library's own compiled loop over many batches, on the network
784-128-64-10 (ReLU, cross-entropy), batch 64, SGD .05 with momentum .9: backprop, and `pc` with 50 fixed gradient
steps of 0.1 without a stopping test, its step bound refreshed every 50 batches.
"""

import json
import platform
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import energax as ex
from energax.data import Dataset
from energax.training.epoch import stretch
from energax.training.feed import feed_of
from energax.training.learner import Learner, begin

BATCHES = 200
ROUNDS = 9


def learner(rule, refresh=0) -> Learner:
    """The network under a rule; the step bound is held between refreshes."""
    graph = ex.networks.mlp(
        [784, 128, 64, 10], jax.nn.relu, shape=(28, 28, 1), output_state=False, key=jax.random.key(0)
    )
    stop = ex.Stopping(max_steps=50, check_every=0)
    solver = ex.GradientFlow(0.1, stop=stop, bound=ex.solvers.Held())
    optimiser = optax.sgd(0.05, momentum=0.9)
    return Learner(graph, ex.PredictiveCoding(ex.CrossEntropy()), solver, rule, optimiser, refresh)


def images() -> Dataset:
    """Random images of MNIST's size: the time does not depend on what they show."""
    random = np.random.default_rng(0)
    rows = (random.integers(0, 256, (64 * BATCHES, 28, 28, 1), dtype=np.uint8), random.integers(0, 10, 64 * BATCHES))
    return Dataset.from_arrays("random", train=rows, validation=rows, test=rows, classes=10)


def seconds_per_step(which: Learner, feed) -> float:
    """Wall time of a compiled stretch, per batch."""
    progress, key = begin(which), jax.random.key(1)
    begun = time.perf_counter()
    jax.block_until_ready(stretch(which, progress, feed, 64, key, jnp.asarray(0), jnp.asarray(BATCHES)))
    return (time.perf_counter() - begun) / BATCHES


def main() -> None:
    """Time the two in turn and report medians."""
    data = images()
    feed = feed_of(data, data.train, standardise=False)
    sides = {"backprop": learner(ex.Backprop()), "pc": learner(ex.Contrastive(ex.rules.clamped()), refresh=50)}
    for side in sides.values():
        seconds_per_step(side, feed)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            times[name].append(1e3 * seconds_per_step(side, feed))
    ratios = [pc / bp for pc, bp in zip(times["pc"], times["backprop"], strict=True)]
    report = {
        **{f"{name}_ms": statistics.median(values) for name, values in times.items()},
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_most": max(ratios),
        "rounds": ROUNDS,
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    out = Path("results/bench")
    out.mkdir(parents=True, exist_ok=True)
    (out / "step_time.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, value in report.items():
        print(f"{name:14} {value:.3f}" if isinstance(value, float) else f"{name:14} {value}")


if __name__ == "__main__":
    main()
