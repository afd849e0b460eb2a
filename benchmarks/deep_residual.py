"""A residual MLP of 64 blocks, scaled by muPC, trained by predictive coding on the embedded digits.

`taskset -c 0 python -m benchmarks.deep_residual` trains it through `fit` by `pc`, by `pc-nudge` and by backprop's first
step, prints a row each and writes `deep_residual.json`. Blocks of 64 ReLU units, direct softmax output,
Adam .02, batch 64, 6 epochs, one seed. The errors are settled by conjugate gradients to a residual of 5e-3; beside
them `pc` by gradient flow of the states with momentum .9 and 64 steps, as many as blocks because a step moves the error
by one block: that one stays far from its equilibrium, as the share that ran out of steps says.
"""

import platform

import jax
import optax

import energax as ex
from benchmarks.reports import options_of, write
from energax.graph.networks import residual_mlp

DEPTH, WIDTH, EPOCHS = 64, 64, 6


ERRORS = ex.ConjugateGradient(ex.Stopping(5e-3, 100, check_every=1), ex.ErrorCoordinates())
FLOW = ex.GradientFlow(step_size=1.0, momentum=0.9, stop=ex.Stopping(1e-2, DEPTH, 0))


def trained(rule, solver) -> dict:
    """The result of one training."""
    data = ex.load_data("digits")
    graph = residual_mlp(
        data.image_shape, WIDTH, DEPTH, data.classes, jax.nn.relu, output_state=False, key=jax.random.key(0)
    )
    learner = ex.Learner(graph, ex.PredictiveCoding(ex.CrossEntropy()), solver, rule, optax.adam(0.02))
    return ex.fit(learner, data, epochs=EPOCHS, batch=64, display=ex.Terminal()).result


def main() -> None:
    """Train in turn and report."""
    options = options_of(__doc__)
    rows = {
        "pc": (ex.Contrastive(ex.rules.unit_nudge()), ERRORS),
        "pc-nudge": (ex.Contrastive(ex.rules.nudge(1e-3)), ERRORS),
        "pc by flow": (ex.Contrastive(ex.rules.unit_nudge()), FLOW),
        "first-step": (ex.FirstStep(), ERRORS),
    }
    report: dict = {"depth": DEPTH, "width": WIDTH, "epochs": EPOCHS, "machine": platform.machine()}
    for name, (rule, solver) in rows.items():
        report[name] = trained(rule, solver)
        row = {
            key: report[name][key] for key in ("test_accuracy", "gradient_cosine", "out_of_steps_fraction", "seconds")
        }
        print(name, "  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    write(options.out, "deep_residual", report)


if __name__ == "__main__":
    main()
