"""The run that is killed: `python -m tests.killing.run FOLDER CACHE` starts it, or goes on where it stands."""

import sys
from pathlib import Path

import jax

from energax.data import load_data
from energax.recipes import make_learner
from energax.recipes.settings import Settings
from energax.training import Arrays, RunFolder, train
from energax.training.callbacks import Callback

EPOCHS = 6


class Teller(Callback):
    """Writes the number of an epoch when its batches are done: what is measured and what is written comes next."""

    def advance(self, epoch, batches, averages):
        print(epoch, flush=True)


def main(folder: str, cache: str) -> None:
    """Train to the end, or to death."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    settings = Settings(hidden=(16,), optimiser="adam", learning_rate=0.02)
    learner, _ = make_learner("backprop", (8, 8, 1), 10, settings=settings)
    digits, run = load_data("digits"), RunFolder(Path(folder))

    def cut(split, rows: int) -> Arrays:
        classes = jax.nn.one_hot(split.labels[:rows], 10)
        return Arrays(split.images[:rows].astype("float32") / 16, classes, batch=10)

    train(
        learner,
        cut(digits.train, 200),
        validation=cut(digits.validation, 100),
        test=cut(digits.test, 100),
        epochs=EPOCHS,
        regime=False,
        folder=run,
        resume=run.last.exists(),
        display=Teller(),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
