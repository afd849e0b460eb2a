"""A residual MLP of 64 blocks, scaled by muPC, trained by predictive coding on the embedded digits.

`taskset -c 0 python benchmarks/deep_residual.py` trains it through `fit` by `pc`, by `pc-nudge` and by backprop's first
step, prints a row each and writes `results/bench/deep_residual.json`. Blocks of 64 ReLU units, direct softmax output,
Adam .02, batch 64, 6 epochs, one seed; states by gradient flow with momentum .9, 64 steps for pc (as many as blocks,
because a step moves the error by one block) and 150 for the nudge, which asks for a better equilibrium. Both are
far from it all the same: the share that ran out of steps and the cosine to backprop's gradient are in the row.
"""

import json
import platform
from pathlib import Path

import jax
import optax

import energax as ex
from energax.networks import residual_mlp

DEPTH, WIDTH, EPOCHS = 64, 64, 6


def trained(rule, steps: int) -> dict:
    """The result of one training."""
    data = ex.load("digits")
    graph = residual_mlp(
        data.image_shape, WIDTH, DEPTH, data.classes, jax.nn.relu, output_state=False, key=jax.random.key(0)
    )
    solver = ex.GradientFlow(1.0, momentum=0.9, stop=ex.Stopping(1e-2, steps, 0))
    learner = ex.Learner(graph, ex.PredictiveCoding(ex.CrossEntropy()), solver, rule, optax.adam(0.02))
    return ex.fit(learner, data, epochs=EPOCHS, batch=64, display=ex.Terminal()).result


def main() -> None:
    """Train in turn and report."""
    rules = {
        "pc": (ex.Contrastive(ex.rules.clamped()), 64),
        "pc-nudge": (ex.Contrastive(ex.rules.nudge(1e-2)), 150),
        "first-step": (ex.FirstStep(), 1),
    }
    report: dict = {"depth": DEPTH, "width": WIDTH, "epochs": EPOCHS, "machine": platform.machine()}
    for name, (rule, steps) in rules.items():
        report[name] = trained(rule, steps)
        row = {
            key: report[name][key] for key in ("test_accuracy", "gradient_cosine", "out_of_steps_fraction", "seconds")
        }
        print(name, "  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    out = Path("results/bench")
    out.mkdir(parents=True, exist_ok=True)
    (out / "deep_residual.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
