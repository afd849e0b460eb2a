"""A logger of one's own: every epoch's numbers as a row of a CSV file, and the same for TensorBoard in one line.

    python docs/gallery/own_logger.py --out run.csv
    python docs/gallery/own_logger.py --small --tensorboard runs/first    # needs `pip install 'energax[tensorboard]'`

A `Callback` is told when a training begins, after some batches, after an epoch and at the end, and does what it likes;
what it does not need, it leaves out. `Logger(write)` is shorter where only the numbers of an epoch are wanted.

Prints the file's head: the columns, and how many rows it has.
"""

import argparse
import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import energax as ex
from energax.training import Logger, log_to_tensorboard


class CsvLog(ex.Callback):
    """Writes a row per epoch, at once, so that a training that is interrupted leaves what it has done.

    Args:
        path: the file; one that is there is overwritten.
    """

    def __init__(self, path: Path):
        self.path = path

    def begin(self, plan):
        """Open the file."""
        self.file, self.writer = self.path.open("w", newline="", encoding="utf-8"), None

    def epoch(self, row, learner):
        """Write the numbers, under names that the first epoch gives."""
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        if self.writer is None:
            self.writer = csv.DictWriter(self.file, list(numbers), extrasaction="ignore")
            self.writer.writeheader()
        self.writer.writerow(numbers)
        self.file.flush()

    def end(self):
        """Close it, after a failure too."""
        self.file.close()


def main(small: bool = False, out: Path = Path("run.csv"), tensorboard: Path | None = None) -> dict[str, list[float]]:
    """Train with three loggers; print the file's head, and return the costs as each was told them."""
    data = ex.load_data("digits")
    parts = [(part.images.reshape(len(part.images), -1) / 16, part.labels) for part in (data.train, data.validation)]
    learner = ex.Learner(
        ex.networks.mlp([64, 32, 10], jax.nn.relu, key=jax.random.key(0)),
        ex.PredictiveCoding(ex.CrossEntropy()),
        ex.GradientFlow(coordinates=ex.ErrorCoordinates()),
        ex.FirstStep(),
        optax.adam(3e-3),
    )
    told = []
    loggers = [CsvLog(out), Logger(lambda epoch, numbers: told.append(numbers["train_cost"]))]
    if tensorboard is not None:
        loggers.append(log_to_tensorboard(tensorboard))
    (x, y), validation = parts
    run = ex.train(
        learner,
        ex.Arrays(jnp.asarray(x, jnp.float32), y),
        epochs=3 if small else 10,
        validation=validation,
        regime=False,
        callbacks=loggers,
    )
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    print(f"{out}: {len(rows)} rows of {', '.join(rows[0])}")
    return {
        "file": [float(row["train_cost"]) for row in rows],
        "function": told,
        "history": [row["train_cost"] for row in run.history],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="three epochs")
    parser.add_argument("--out", type=Path, default=Path("run.csv"))
    parser.add_argument("--tensorboard", type=Path, help="a folder for TensorBoard's files")
    main(**vars(parser.parse_args()))
