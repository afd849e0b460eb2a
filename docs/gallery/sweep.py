"""A sweep over learning rate and width with Optuna, which ends poor trials early.

    pip install optuna
    python docs/gallery/sweep.py            # 20 trials of 15 epochs
    python docs/gallery/sweep.py --small    # 2 trials of 2 epochs; seconds

A callback tells Optuna the validation accuracy of every epoch, and ends the training where Optuna finds it worse than
the median of the trials before. Only validation rows choose; the best network is tested at the end. Every trial
compiles programs of its own, which takes longer than an epoch of this small data set.

Prints a line per trial, the best settings, and their test accuracy.
"""

import argparse

import jax
import numpy as np
import optax
import optuna

import energax as ex

PARTS = ("train", "validation", "test")


class Prune(ex.Callback):
    """Tells a trial of every epoch, and ends the training where the trial should be pruned."""

    def __init__(self, trial: optuna.Trial):
        self.trial, self.pruned = trial, False

    def epoch(self, row, learner):
        """True ends the training."""
        self.trial.report(row["validation_accuracy"], row["epoch"])
        self.pruned = self.trial.should_prune()
        return self.pruned


def make_learner(width: int, rate: float) -> ex.Learner:
    """Predictive coding by the first step of the relaxation."""
    return ex.Learner(
        ex.networks.mlp([64, width, 10], jax.nn.relu, key=jax.random.key(0)),
        ex.PredictiveCoding(ex.CrossEntropy()),
        ex.GradientFlow(coordinates=ex.ErrorCoordinates()),
        ex.FirstStep(),
        optax.adam(rate),
    )


def main(small: bool = False) -> dict[str, float]:
    """Search, then train and test the best; print, and return by name, what was found."""
    trials, epochs = (2, 2) if small else (20, 15)
    data = ex.load_data("digits")
    rows = {
        part: ((split.images.reshape(len(split.images), -1) / 16).astype("float32"), split.labels)
        for part, split in zip(PARTS, (data.train, data.validation, data.test), strict=True)
    }

    networks: dict[int, ex.Predictor] = {}

    def objective(trial: optuna.Trial) -> float:
        """The best validation accuracy of one training."""
        width = trial.suggest_categorical("width", [16] if small else [16, 32, 64])
        rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        prune = Prune(trial)
        run = ex.train(
            make_learner(width, rate),
            rows["train"],
            epochs=epochs,
            validation=rows["validation"],
            regime=False,
            callbacks=[prune],
        )
        networks[trial.number] = run.best
        if prune.pruned:
            raise optuna.TrialPruned
        return max(row["validation_accuracy"] for row in run.history)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )
    study.optimize(objective, trials)
    for trial in study.trials:
        shown = f"{trial.value:.4f}{' and pruned' if trial.state is optuna.trial.TrialState.PRUNED else ''}"
        print(f"trial {trial.number:2d}: width {trial.params['width']:2d}, rate {trial.params['rate']:.5f}: {shown}")
    best, (x, y) = study.best_params, rows["test"]
    right = np.argmax(networks[study.best_trial.number].predict(x), axis=1) == y
    pruned = sum(trial.state is optuna.trial.TrialState.PRUNED for trial in study.trials)
    found = {
        "validation accuracy": study.best_value,
        "test accuracy": float(np.mean(right)),
        "width": best["width"],
        "rate": best["rate"],
        "pruned": pruned,
    }
    print("best:", ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few and short trials")
    main(parser.parse_args().small)
