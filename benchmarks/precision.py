"""What rounded products cost: gradients of trained nets against float32, and the accuracy of nets trained with them.

Run: `python -m benchmarks.precision` with ENERGAX_DATA set, or `--data digits` without it. Trains every recipe in
float32, bfloat16 and TensorFloat-32, seed 0. Then, on a few batches, the net trained in float32 is given rounded
products, and its gradients are compared with its own. Writes `precision.json`.
"""

import json
from typing import get_args

import equinox as eqx
import jax.numpy as jnp

import energax as ex
from benchmarks.gradient_quality import gradient, relative
from benchmarks.reports import options_of, write
from energax.graph.rounding import round_products
from energax.recipes import make_learner
from energax.recipes.settings import Precision, Settings
from energax.training.rows import make_device_split

RECIPES = ("backprop", "pc-nudge", "pc", "ep")


def errors(learner, feed, precision: str, batches: int) -> dict:
    """Relative errors of the first layer's and of the whole gradient, and the verdicts, per batch."""
    short = eqx.tree_at(lambda side: side.graph, learner, round_products(learner.graph, precision))
    first, everything, settled = [], [], []
    for index in range(batches):
        batch = feed.batch(jnp.arange(64) + 64 * index)
        exact, _ = gradient(learner, learner.rule, learner.solver, batch)
        found, info = gradient(short, short.rule, short.solver, batch)
        first.append(relative(found.graph.functions["layer1"], exact.graph.functions["layer1"]))
        everything.append(relative(found, exact))
        settled += [float(jnp.mean(phase.result <= 1)) for phase in info.phases.values()]
    return {"first_layer_error": first, "error": everything, "converged_or_stalled": settled}


def compared(data, recipe: str, epochs: int, batches: int) -> dict:
    """One recipe in every precision."""
    fits = {}
    for precision in get_args(Precision):
        learner, settings = make_learner(recipe, data.image_shape, data.classes, settings=Settings(precision=precision))
        fits[precision] = ex.fit(learner, data, epochs=epochs, batch=settings.batch or 64)
    feed, full = make_device_split(data, data.train, standardise=False), fits["float32"].learner
    tested = make_device_split(data, data.test, standardise=False)
    return {
        name: {"test_accuracy": float(ex.evaluate(fit.learner, tested).accuracy)}
        | (errors(full, feed, name, batches) if name != "float32" else {})
        for name, fit in fits.items()
    }


def main() -> None:
    """Compare and report."""
    options = options_of(__doc__, data="mnist", epochs=5, batches=5)
    data = ex.load_data(options.data)
    recipes = {name: compared(data, name, options.epochs, options.batches) for name in RECIPES}
    report = {"data": options.data, "epochs": options.epochs, **recipes}
    write(options.out, "precision", report)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
