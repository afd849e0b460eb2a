"""A generative net of handwritten digits: it reconstructs, completes and draws them, and never sees a label.

    python docs/gallery/generate_digits.py            # a minute or two on one core
    python docs/gallery/generate_digits.py --small    # seconds

Latents with a Gaussian prior predict an image. The image is clamped, the latents above it are drawn from their
posterior by Langevin dynamics, and the weights follow dE/dtheta there: on average the gradient of -log p(image).
`--settle` learns from the latents' most likely value instead. It reconstructs as well, but shrinks the latents until
their prior says nothing of them, and completes worse than the mean image does.
"""

import argparse
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import energax as ex
from energax.training.learner import begin, update

LATENTS = 16
KNOWN = np.arange(64) < 32  # the upper half of an image
NOISE = 30.0  # precision of a pixel, whose values lie between 0 and 1
CAREFUL = ex.ConjugateGradient(ex.Stopping(1e-3, 200))


def load_images() -> tuple[jax.Array, jax.Array]:
    """Pixels from 0 to 1 of the rows to learn from, and of held-out ones, shape `(rows, 64)`."""
    data = ex.load_data("digits")
    train, validation, test = (
        jnp.asarray(split.images.reshape(len(split.images), -1) / 16, jnp.float32)
        for split in (data.train, data.validation, data.test)
    )
    return jnp.concatenate([train, validation]), test


def make_graph(mean: jax.Array, hidden: int, key: jax.Array) -> ex.Graph:
    """Latents that predict an image through hidden units without a state."""
    up, down = jax.random.split(key)
    functions = {
        "up": ex.layers.Linear(LATENTS, hidden, key=up),
        "down": eqx.tree_at(lambda layer: layer.bias, ex.layers.Linear(hidden, 64, key=down), mean),
        "tanh": jnp.tanh,
    }
    nodes = [ex.Node("latents", (LATENTS,)), ex.Node("hidden", (hidden,), "tanh", state=False), ex.Node("image", (64,))]
    edges = [ex.Edge("latents", "hidden", "up"), ex.Edge("hidden", "image", "down")]
    return ex.Graph(nodes, edges, functions, input="image", output="image")


def train(learner: ex.Learner, images: jax.Array, epochs: int, batch: int) -> ex.Graph:
    """The net after some epochs; chance is that of one seed."""
    progress, order = begin(learner), np.random.default_rng(0)
    step = eqx.filter_jit(update)
    for epoch in range(epochs):
        rows = order.permutation(len(images))[: len(images) // batch * batch].reshape(-1, batch)
        for number, chosen in enumerate(rows):
            key = jax.random.fold_in(jax.random.key(epoch), number)
            progress, _ = step(learner, progress, ex.Batch(images[chosen], key=key))
    return progress.model.graph


def decode(graph: ex.Graph, latents: jax.Array) -> jax.Array:
    """The images that latents predict."""
    return graph.sweep({"latents": latents})["image"]


def measure_error(found: jax.Array, images: jax.Array) -> float:
    """Mean squared distance per image."""
    return float(jnp.mean(jnp.sum((found - images) ** 2, axis=1)))


def main(small: bool = False, settle: bool = False, picture: Path | None = None) -> dict[str, float]:
    """Train, print what held-out images lose by each way, draw, and return the errors by name."""
    hidden, epochs, batch, steps = (32, 3, 100, 20) if small else (128, 60, 100, 60)
    images, held_out = load_images()
    mean = jnp.mean(images, axis=0)
    dynamics = ex.PredictiveCoding(priors={"latents": ex.dynamics.GaussianPrior()}, precisions={"image": NOISE})
    rate = optax.cosine_decay_schedule(3e-3, epochs * (len(images) // batch))
    solver = ex.ConjugateGradient(ex.Stopping(1e-3, 60)) if settle else ex.Langevin(0.05, steps=steps)
    learner = ex.Learner(
        make_graph(mean, hidden, jax.random.key(0)),
        dynamics,
        solver,
        ex.FreeEnergy(),
        optax.adamw(rate, weight_decay=1e-3),
    )
    graph = train(learner, images, epochs, batch)

    # reconstruction: 16 numbers of an image, and back
    inferred = ex.relax(dynamics, graph, CAREFUL, clamp={"image": held_out})
    rebuilt = decode(graph, inferred.states["latents"])
    # completion: the upper half is known, and the lower one relaxes with the latents
    known = {"image": jnp.broadcast_to(jnp.asarray(KNOWN), held_out.shape)}
    missing = jnp.where(jnp.asarray(KNOWN), held_out, jnp.nan)
    completed = ex.relax(dynamics, graph, CAREFUL, clamp={"image": missing}, known=known)
    for name, settled in (("inference", inferred), ("completion", completed)):
        print(f"{name}: {100 * float(settled.share(ex.Verdict.CONVERGED)):.1f} % converged")

    # principal components: the best linear code of 16 numbers, and least squares from half an image
    components = np.linalg.svd(np.asarray(images - mean), full_matrices=False)[2][:LATENTS]
    seen, *_ = np.linalg.lstsq(components.T[KNOWN], np.asarray(held_out - mean).T[KNOWN], rcond=None)
    lower = held_out[:, ~KNOWN]
    errors = {
        "reconstruction": measure_error(rebuilt, held_out),
        "reconstruction, PCA-16": measure_error(mean + (held_out - mean) @ components.T @ components, held_out),
        "reconstruction, mean": measure_error(mean, held_out),
        "completion": measure_error(completed.states["image"][:, ~KNOWN], lower),
        "completion, PCA-16": measure_error((mean + seen.T @ components)[:, ~KNOWN], lower),
        "completion, mean": measure_error(mean[~KNOWN], lower),
    }
    for name, error in errors.items():
        print(f"{name:24s} {error:7.3f}")

    # ancestral samples are latents of the prior, decoded; Langevin draws the joint law of both from a start alone
    prior = jax.random.normal(jax.random.key(1), (20, LATENTS))
    drawn = ex.relax(
        dynamics,
        graph,
        ex.Langevin(0.05, steps=20 if small else 2000),
        clamp={},
        start={"latents": jnp.zeros_like(prior)},
        key=jax.random.key(2),
    )
    spread = float(jnp.std(drawn.states["latents"]))
    print(f"{len(prior)} samples: {ex.Verdict(int(drawn.result[0])).name}; spread of latents {spread:.2f} (prior: 1)")
    if picture is not None:
        rows = {
            "held-out image": held_out[:20],
            "reconstruction": rebuilt[:20],
            "upper half": jnp.where(jnp.asarray(KNOWN), held_out[:20], 0.5),
            "completion": completed.states["image"][:20],
            "ancestral samples": decode(graph, prior),
            "Langevin samples": decode(graph, drawn.states["latents"]),
        }
        draw(rows, picture)
    return errors


def draw(rows: dict[str, jax.Array], picture: Path) -> None:
    """Rows of images, each with its name."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(rows), 1, figsize=(10, 0.75 * len(rows)), layout="constrained")
    for place, (name, images) in zip(axes, rows.items(), strict=True):
        tiles = np.pad(np.asarray(images).reshape(-1, 8, 8), ((0, 0), (0, 0), (0, 1)), constant_values=1)
        place.imshow(np.concatenate(tiles, axis=1), cmap="gray", vmin=0, vmax=1)
        place.set_title(name, fontsize="small", loc="left")
        place.set_axis_off()
    figure.savefig(picture, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small net and few epochs")
    parser.add_argument("--settle", action="store_true", help="learn from the latents' most likely value")
    parser.add_argument("--picture", type=Path, default=Path("generate_digits.png"), help="where the picture goes")
    given = parser.parse_args()
    main(given.small, given.settle, given.picture)
