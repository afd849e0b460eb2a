"""PC-Nudge by gradient flow with a fixed nominal step, with and without the spectral bound.

Run: `python -m benchmarks.step_bound` with ENERGAX_DATA set, or `--data digits --step-size 0.5` without it. Trains
784-128-64-10 (ReLU) with SGD .05, momentum .9, for five epochs, 50 relaxation steps per batch without a test; the bound
is measured per sample in every relaxation, or once every 50 batches, or not at all. Writes, epoch by epoch, the largest
curvature, the share of diverged relaxations and the validation accuracy to `step_bound_DATA.json`.
"""

import dataclasses

import energax as ex
from benchmarks.reports import options_of, write
from energax.recipes import make_learner


def trained(data, step_size: float, epochs: int, bound) -> list[dict]:
    """One training; a record per epoch."""
    learner, settings = make_learner("pc-nudge", data.image_shape, data.classes)
    stop = ex.Stopping(max_steps=50, check_every=0)
    solver = ex.GradientFlow(step_size=step_size, stop=stop, bound=bound)
    learner = dataclasses.replace(learner, solver=solver, refresh=50)
    run = ex.fit(learner, data, epochs=epochs, batch=settings.batch or 64)
    kept = ("epoch", "curvature", "step_bound", "diverged_fraction", "validation_accuracy", "gradient_cosine")
    return [{name: record[name] for name in kept if name in record} for record in run.history]


def main() -> None:
    """Both trainings and their records."""
    options = options_of(__doc__, data="mnist", epochs=5, step_size=0.2)
    data = ex.load_data(options.data)
    bounds = {"per_sample": ex.solvers.PerSample(), "held": ex.solvers.Held(), "unbounded": ex.solvers.Unbounded()}
    report: dict = {
        "data": options.data,
        "step_size": options.step_size,
        "margin": float(ex.solvers.PerSample().margin),
    }
    for name, bound in bounds.items():
        report[name] = trained(data, options.step_size, options.epochs, bound)
        for record in report[name]:
            print(name, record, flush=True)
    write(options.out, f"step_bound_{options.data}", report)


if __name__ == "__main__":
    main()
