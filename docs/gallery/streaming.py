"""More rows than fit into memory: a generator of a million rows, of which a few batches exist at a time.

    python docs/gallery/streaming.py            # a million rows of 200 columns: 800 MB if they were held
    python docs/gallery/streaming.py --small    # ten thousand rows; seconds

`ex.Stream` takes any iterable of batches. Here it is a function that returns a generator, so that another pass can
begin anew. A thread draws the next batches while the network learns. A tenth of the rows is called an epoch, after
which the largest memory so far is noted (Linux and macOS: Python's `resource` module tells it).

Prints the accuracy on rows that were not learnt from, how many batches existed at once at most, and the largest memory
after the first tenth and at the end.
"""

import argparse
import resource
import sys
import weakref
from collections.abc import Iterator

import jax
import numpy as np
import optax

import energax as ex

COLUMNS, BATCH, EPOCHS = 200, 100, 10


def draw_batches(seed: int, batches: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of rows of four classes, the largest of four fixed projections."""
    planes = np.random.default_rng(0).normal(size=(COLUMNS, 4))
    draw = np.random.default_rng(seed)
    for _ in range(batches):
        x = draw.normal(size=(BATCH, COLUMNS)).astype(np.float32)
        yield x, np.argmax(x @ planes, axis=1)


class Count:
    """Counts the batches that exist, and keeps the largest number."""

    def __init__(self):
        self.now, self.most = 0, 0

    def watch(self, batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same batches, each counted until nothing refers to it any more."""
        for x, y in batches:
            self.now += 1
            self.most = max(self.most, self.now)
            weakref.finalize(x, self.forget)
            yield x, y

    def forget(self) -> None:
        """One less."""
        self.now -= 1


def measure_peak() -> float:
    """The largest memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


class Peak(ex.Callback):
    """Notes the largest memory after every epoch."""

    def __init__(self):
        self.megabytes: list[float] = []

    def epoch(self, row, learner):
        """Note it."""
        self.megabytes.append(measure_peak())


def main(small: bool = False) -> dict[str, float]:
    """Learn from the stream; print, and return by name, accuracy and memory."""
    rows = 10_000 if small else 1_000_000
    batches = rows // BATCH
    learner = ex.Learner(
        ex.networks.mlp([COLUMNS, 32, 4], jax.nn.relu, key=jax.random.key(0)),
        ex.PredictiveCoding(ex.CrossEntropy()),
        ex.GradientFlow(coordinates=ex.ErrorCoordinates()),
        ex.FirstStep(),
        optax.adam(3e-3),
    )
    peak, count = Peak(), Count()
    run = ex.train(
        learner,
        ex.Stream(lambda: count.watch(draw_batches(1, batches)), per_epoch=batches // EPOCHS),
        epochs=EPOCHS,
        test=list(draw_batches(2, 4)),
        regime=False,
        callbacks=[peak],
    )
    found = {
        "rows": rows,
        "test accuracy": run.result["test_accuracy"],
        "batches": batches,
        "batches at once, at most": count.most,
        "MB of the rows, were they held": rows * COLUMNS * 4 / 1e6,
        "MB after a tenth": peak.megabytes[0],
        "MB at the end": peak.megabytes[-1],
    }
    for name, value in found.items():
        print(f"{name:32s} {value:12.4g}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="ten thousand rows")
    main(parser.parse_args().small)
