"""A number from 30 columns: predictive coding on a target that no linear model can follow, beside ridge regression.

    python docs/gallery/regression.py            # three seeds of 8000 rows
    python docs/gallery/regression.py --small    # one seed, fewer rows; seconds

The target is Friedman's: 10 sin(pi a b) + 20 (c - 1/2)^2 + 10 d + 5 e and noise of variance 1, of columns that are
uniform from 0 to 1. The other 25 columns say nothing. Validation chooses the epoch, and ends the training. Ridge
regression is solved in closed form, its strength chosen on the same validation rows; both are judged by R2 on 2000 rows
that no choice has seen. The noise alone leaves an R2 of about .96.

Prints R2 of both for every seed.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import energax as ex


def draw_rows(count: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Columns of mean 0 and variance 1, shape `(count, 30)`, and targets, shape `(count, 1)`."""
    u = draw.uniform(size=(count, 30))
    y = 10 * np.sin(np.pi * u[:, 0] * u[:, 1]) + 20 * (u[:, 2] - 0.5) ** 2 + 10 * u[:, 3] + 5 * u[:, 4]
    y = y + draw.normal(size=count)
    return ((u - 0.5) * 12**0.5).astype(np.float32), y[:, None].astype(np.float32)


def measure_r2(found: np.ndarray, y: np.ndarray) -> float:
    """1 - squared error / variance."""
    return float(1 - np.mean((found - y) ** 2) / np.var(y))


def fit_ridge(train: tuple, validation: tuple, test: tuple) -> float:
    """R2 on test rows of (X'X + s I)^-1 X'y, s chosen by validation; targets have mean 0."""
    (x, y), grid = train, 10.0 ** np.arange(-3, 5)
    weights = [np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y) for strength in grid]
    best = max(weights, key=lambda w: measure_r2(validation[0] @ w, validation[1]))
    return measure_r2(test[0] @ best, test[1])


def fit_network(train: tuple, validation: tuple, test: tuple, seed: int, epochs: int, batch: int) -> tuple[float, int]:
    """R2 on test rows of the epoch that validation chose, and the number of epochs until nothing got better."""
    learner = ex.Learner(
        ex.networks.mlp([30, 32, 32, 1], jnp.tanh, key=jax.random.key(seed)),
        ex.PredictiveCoding(ex.SquaredError()),
        ex.ConjugateGradient(coordinates=ex.ErrorCoordinates()),
        ex.Contrastive(ex.rules.nudge(1e-2)),
        optax.adam(optax.cosine_decay_schedule(1e-2, epochs * (len(train[0]) // batch))),
    )
    run = ex.train(
        learner,
        ex.Arrays(*train, batch=batch),
        epochs=epochs,
        validation=validation,
        callbacks=[ex.EarlyStopping(patience=8)],
        seed=seed,
        regime=False,
    )
    return measure_r2(run.best.predict(test[0]), test[1]), len(run.history)


def main(small: bool = False) -> dict[str, list[float]]:
    """Fit both for every seed; print, and return by name, R2 on held-out rows."""
    rows, seeds, epochs, batch = (2000, 1, 20, 50) if small else (8000, 3, 60, 100)
    found: dict[str, list[float]] = {"predictive coding": [], "ridge": []}
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        parts = [draw_rows(count, draw) for count in (rows, rows // 4, 2000)]
        mean, scale = parts[0][1].mean(), parts[0][1].std()
        train, validation, test = ((x, (y - mean) / scale) for x, y in parts)
        r2, epochs_done = fit_network(train, validation, test, seed, epochs, batch)
        found["predictive coding"].append(r2)
        found["ridge"].append(fit_ridge(train, validation, test))
        print(f"seed {seed}: R2 {r2:.3f} after {epochs_done} epochs; ridge {found['ridge'][-1]:.3f}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one seed and fewer rows")
    main(parser.parse_args().small)
