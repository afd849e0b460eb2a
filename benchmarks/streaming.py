"""A stream of batches against the same rows on the device: time and memory of an epoch.

`python -m benchmarks.streaming` prints a table and writes `streaming.json`. Both train the same net on the same rows in
the same order: once from arrays on the device, once from a generator that makes each batch on the host. Rounds are
paired (A B A B); the first epoch of either, which compiles, is left out.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Iterator

import equinox as eqx
import jax
import numpy as np
import optax

import energax as ex
from benchmarks.reports import options_of, write
from energax.training import Callback, Run


def make_batch(index: int, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """One batch of made-up rows, the same ones whenever it is asked for."""
    rng = np.random.default_rng(index)
    x = rng.random((options.batch, options.features), np.float32)
    return x, (10 * x[:, 0]).astype(np.int32)


def stream(options: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All batches, one after the other."""
    return (make_batch(index, options) for index in range(options.rows // options.batch))


def peak() -> float:
    """The most memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and write."""
    options = options_of(__doc__, rows=1_000_000, batch=500, rounds=3, features=64)
    graph = ex.networks.mlp([options.features, 128, 64, 10], jax.nn.relu, output_state=False, key=jax.random.key(0))
    solver = ex.ConjugateGradient(coordinates=ex.ErrorCoordinates())
    rule = ex.Contrastive(ex.rules.nudge(1e-3))
    learner = ex.Learner(graph, ex.PredictiveCoding(ex.CrossEntropy()), solver, rule, optax.adam(1e-3))

    def epoch(batches, after: Run | None) -> Run:
        given = {"display": Callback(), "regime": False}
        return ex.train(learner, batches, **given) if after is None else after.continue_(batches, **given)

    def generate() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return stream(options)

    memory = {"before": peak()}
    streamed = epoch(ex.Stream(generate), None)
    memory["after the stream"] = peak()
    made = [make_batch(index, options) for index in range(options.rows // options.batch)]
    x, y = (np.concatenate(part) for part in zip(*made, strict=True))
    del made
    arrays = ex.Arrays(x, y, batch=options.batch, shuffle=False)
    placed = epoch(arrays, None)
    memory["after the arrays"] = peak()
    begun = time.perf_counter()
    for _ in generate():
        pass
    making = time.perf_counter() - begun
    seconds: dict[str, list[float]] = {"arrays": [], "stream": []}
    for _ in range(options.rounds):
        placed, streamed = epoch(arrays, placed), epoch(ex.Stream(generate), streamed)
        seconds["arrays"].append(placed.history[-1]["seconds"])
        seconds["stream"].append(streamed.history[-1]["seconds"])
    ratios = [b / a for a, b in zip(seconds["arrays"], seconds["stream"], strict=True)]
    found = {
        **{name: getattr(options, name) for name in ("rows", "batch", "features")},
        "seconds": seconds,
        "making the batches alone, seconds": making,
        "ratio, median": statistics.median(ratios),
        "memory, MB": memory,
        "same parameters, bit for bit": bool(eqx.tree_equal(placed.learner.graph, streamed.learner.graph)),
    }
    print(f"stream / arrays: {found['ratio, median']:.3f}; memory in MB: {memory}; seconds: {seconds}")
    write(options.out, "streaming", found)


if __name__ == "__main__":
    main()
