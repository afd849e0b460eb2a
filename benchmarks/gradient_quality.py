"""Gradient errors of `pc-nudge` and `pc` in float32 against float64, and of `first-step` against backprop.

Run: `python -m benchmarks.gradient_quality` with ENERGAX_DATA set, or `--data digits` without it. Trains the recipes
for a number of epochs (default 5), then, on a few batches, compares their float32 gradients with the same rule's
gradient in float64 relaxed to a residual of 1e-7, by the same solver and by gradient flow: a ReLU net's energy has
several minima, and where the two references differ a sample has settled in different ones. It also trains `first-step`
and `backprop` side by side in float64 for one epoch and reports the largest difference of any parameter. Writes
`gradient_quality.json`.
"""

import json

import equinox as eqx
import jax
import jax.numpy as jnp

import energax as ex
from benchmarks.reports import options_of, write
from energax.diagnostics.regime import flat
from energax.recipes import make_learner
from energax.training.rows import make_device_split


def cast(tree, dtype):
    """All floating arrays of a pytree in another precision."""
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, tree)


@eqx.filter_jit
def gradient(learner, rule, solver, batch):
    """One gradient and its report."""
    found, _, info = rule(learner.dynamics, learner.graph, batch, solver, ())
    return found, info


def relative(found, exact) -> float:
    """Relative difference of two gradients."""
    return float(jnp.linalg.norm(flat(found).astype(float) - flat(exact)) / jnp.linalg.norm(flat(exact)))


def errors(data, recipe: str, epochs: int, batches: int) -> dict:
    """First-layer and whole errors of the trained recipe, and how far apart its references are, per batch."""
    learner, settings = make_learner(recipe, data.image_shape, data.classes)
    learner = ex.fit(cast(learner, jnp.float32), data, epochs=epochs, batch=settings.batch or 64).learner
    feed, wide = make_device_split(data, data.train, standardise=False), cast(learner, jnp.float64)
    flow = ex.GradientFlow(step_size=1.0, momentum=0.8, stop=ex.Stopping(1e-7, 20_000))
    first, everything, apart, verdicts = [], [], [], []
    for index in range(batches):
        batch = feed.batch(jnp.arange(64) + 64 * index)
        found, info = gradient(learner, learner.rule, learner.solver, cast(batch, jnp.float32))
        careful = wide.solver.tighten(1e-7, 10)
        exact, other = (gradient(wide, wide.rule, s, cast(batch, jnp.float64))[0] for s in (careful, flow))
        first.append(relative(found.graph.functions["layer1"], exact.graph.functions["layer1"]))
        everything.append(relative(found, exact))
        apart.append(relative(other.graph.functions["layer1"], exact.graph.functions["layer1"]))
        verdicts.append(float(jnp.mean(info.phases["nudged"].result <= 1)))
    return {
        "epochs": epochs,
        "first_layer_error": first,
        "error": everything,
        "first_layer_difference_of_flow": apart,
        "converged_or_stalled": verdicts,
    }


def first_step_difference(data) -> dict:
    """`first-step` against backprop: one batch in float32, one epoch in float64."""
    sides = {}
    for recipe in ("first-step", "backprop"):
        learner, _ = make_learner(recipe, data.image_shape, data.classes)
        sides[recipe] = learner
    batch = cast(make_device_split(data, data.train, standardise=False).batch(jnp.arange(64)), jnp.float32)
    narrow = {name: gradient(cast(side, jnp.float32), side.rule, side.solver, batch)[0] for name, side in sides.items()}
    trained = {name: ex.fit(cast(side, jnp.float64), data, epochs=1).learner for name, side in sides.items()}
    difference = flat(trained["first-step"].graph) - flat(trained["backprop"].graph)
    return {
        "one_batch_float32": relative(narrow["first-step"], flat(narrow["backprop"]).astype(float)),
        "one_epoch_float64": float(jnp.max(jnp.abs(difference))),
    }


def main() -> None:
    """Run both comparisons and report."""
    options = options_of(__doc__, data="mnist", epochs=5, batches=5)
    jax.config.update("jax_enable_x64", True)
    data = ex.load_data(options.data)
    report = {
        "data": options.data,
        **{name: errors(data, name, options.epochs, options.batches) for name in ("pc-nudge", "pc")},
        "first-step": first_step_difference(data),
    }
    write(options.out, "gradient_quality", report)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
