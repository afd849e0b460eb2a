"""Handwritten digits read row by row: a recurrent network that learns by predictive coding through time.

    python docs/gallery/sequence_mnist.py            # MNIST, 28 steps of 28 pixels; minutes
    python docs/gallery/sequence_mnist.py --small    # the embedded digits, 8 steps of 8 pixels; seconds

One layer of units reads a row at every step, and itself as it was one step and some steps before: two edges with a
delay. The class is read after the last row. The rule is PC-Nudge: the states of all steps relax together with the
output nudged by 1e-3, by conjugate gradients in error coordinates, and weights change by the errors and states that
meet at each step. Once the cost is small, so are the displacements, and float32 ends most relaxations as STALLED before
they reach the tolerance; the gradient is close to backprop's all the same, and a larger nudge, which converges, is
farther from it. `--rule backprop` trains the same network by backprop through time, `--rule first-step` by the first
step of the relaxation, which is the same in this limit.

Prints a line per epoch, the test accuracy after the last epoch and of the epoch that validation chose, and the cosine
between the gradient of the rule and that of backprop.
"""

import argparse
import json
import math
import time
from pathlib import Path

import jax
import numpy as np
import optax

import energax as ex

RULES = {
    "pc-nudge": lambda: ex.Contrastive(ex.rules.nudge(1e-3)),
    "first-step": ex.FirstStep,
    "backprop": ex.Backprop,
}


def make_graph(steps: int, pixels: int, units: int, far: int, key: jax.Array) -> ex.Graph:
    """A row at a time into one layer with two delays; the class after the last one."""
    enter, again, skip, leave = jax.random.split(key, 4)
    return ex.Graph(
        [ex.Node("row", (pixels,)), ex.Node("units", (units,), "tanh"), ex.Node("class", (10,), state=False)],
        [
            ex.Edge("row", "units", "enter"),
            ex.Edge("units", "units", "again", delay=1),
            ex.Edge("units", "units", "skip", delay=far),
            ex.Edge("units", "class", "leave"),
        ],
        {
            "enter": ex.layers.Linear(pixels, units, gain=1.7, key=enter),
            "again": ex.layers.Linear(units, units, use_bias=False, gain=1.2, key=again),
            "skip": ex.layers.Linear(units, units, use_bias=False, gain=1.2, key=skip),
            "leave": ex.layers.Linear(units, 10, key=leave),
            "tanh": ex.activations.Tanh(),
        },
        input="row",
        output="class",
        length=steps,
    )


def load_rows(small: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images as `(images, steps, pixels)` from 0 to 1, and their classes, in three parts."""
    data, white = (ex.load_data("digits"), 16) if small else (ex.load_data("mnist"), 255)
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: (part.images[..., 0].astype(np.float32) / white, part.labels) for name, part in parts.items()}


def main(
    small: bool = False,
    rule: str = "pc-nudge",
    seed: int = 0,
    epochs: int | None = None,
    units: int | None = None,
    batch: int = 100,
    rate: float = 2e-3,
) -> dict[str, float]:
    """Train and test; print, and return by name, accuracies and seconds."""
    epochs, units = epochs or (15 if small else 6), units or (32 if small else 128)
    parts = load_rows(small)
    _, steps, pixels = parts["train"][0].shape
    graph = make_graph(steps, pixels, units, 2 if small else 5, jax.random.key(seed))
    updates = epochs * (len(parts["train"][0]) // batch)
    learner = ex.Learner(
        graph,
        ex.PredictiveCoding(ex.CrossEntropy()),
        ex.ConjugateGradient(ex.Stopping(1e-2, 20), ex.ErrorCoordinates()),
        RULES[rule](),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, updates))),
    )
    begun = time.process_time()
    run = ex.train(
        learner,
        ex.Arrays(*parts["train"], batch=batch),
        epochs=epochs,
        validation=parts["validation"],
        test=parts["test"],
        seed=seed,
        regime=not small,  # compiles for a while
        display=ex.Terminal(),
    )
    found = {
        "epochs": epochs,
        "test accuracy, last epoch": run.result["test_accuracy"],
        "test accuracy, chosen by validation": run.result["selected_test_accuracy"],
        "relaxations converged": run.result["converged_fraction"],
        "cosine to backprop": run.result.get("gradient_cosine", math.nan),
        "seconds of one core": time.process_time() - begun,
    }
    for name, value in found.items():
        print(f"{name:36s} {value:8.4f}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the embedded digits")
    parser.add_argument("--rule", choices=RULES, default="pc-nudge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--units", type=int)
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    chosen = vars(parser.parse_args())
    out = chosen.pop("out")
    numbers = main(**chosen)
    if out is not None:
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        out.write_text(json.dumps({"rule": chosen["rule"], "seed": chosen["seed"], **finite}, indent=1) + "\n")
