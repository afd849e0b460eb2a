"""A transformer block that learns by PC-Nudge: where among seven tokens is the one that equals the first?

    python docs/gallery/attention.py            # three seeds, both rules
    python docs/gallery/attention.py --small    # one seed, fewer updates; seconds

A sample is eight tokens: a random vector each, and the position as one-hot. One of the last seven has the vector of the
first; the class is which. The block is that of a transformer: attention and a skip edge lead to one node, a two-layer
map of every token and a skip edge to the next, and the class is read from the first token there. Attention is a class
of this script, applied to one sample of shape `(tokens, features)`; the library adds the batch. `ex.register` gives it
a name, so that a model that holds it can be saved.

Both rules start from the same weights and see the same batches. Prints test accuracies, and the cosine between the
gradient of PC-Nudge and that of backprop at the end, which the small run leaves out since it takes a while to compile.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import energax as ex

TOKENS, VECTOR = 8, 8
FEATURES = VECTOR + TOKENS


@ex.register
class Attention(eqx.Module):
    """Every token takes the values of all tokens, weighed by how well its query fits their keys."""

    query: jax.Array
    key: jax.Array
    value: jax.Array

    def __init__(self, features: int, *, key: jax.Array):
        self.query, self.key, self.value = jax.random.normal(key, (3, features, features)) / features**0.5

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape `(tokens, features)` to the same."""
        fits = (x @ self.query) @ (x @ self.key).T / x.shape[-1] ** 0.5
        return jax.nn.softmax(fits, axis=-1) @ (x @ self.value)


@ex.register
class EachToken(eqx.Module):
    """Two layers, the same for every token."""

    first: ex.layers.Linear
    second: ex.layers.Linear

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape `(tokens, features)` to the same."""
        return jax.vmap(lambda token: self.second(jax.nn.gelu(self.first(token))))(x)


@ex.register
class ReadFirst(eqx.Module):
    """The class, from the first token."""

    linear: ex.layers.Linear

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape `(tokens, features)` to `(classes,)`."""
        return self.linear(x[0])


def make_block(key: jax.Array) -> ex.Graph:
    """One block, and a class from its first token."""
    attend, first, second, read = jax.random.split(key, 4)
    shape = (TOKENS, FEATURES)
    return ex.Graph(
        [
            ex.Node("tokens", shape),
            ex.Node("mixed", shape),
            ex.Node("mapped", shape),
            ex.Node("class", (7,), state=False),
        ],
        [
            ex.Edge("tokens", "mixed", "attention"),
            ex.Edge("tokens", "mixed", "skip"),
            ex.Edge("mixed", "mapped", "each"),
            ex.Edge("mixed", "mapped", "skip"),
            ex.Edge("mapped", "class", "read"),
        ],
        {
            "attention": Attention(FEATURES, key=attend),
            "each": EachToken(ex.layers.Linear(FEATURES, 32, key=first), ex.layers.Linear(32, FEATURES, key=second)),
            "read": ReadFirst(ex.layers.Linear(FEATURES, 7, key=read)),
            "skip": ex.layers.Identity(),
        },
        input="tokens",
        output="class",
    )


def draw_samples(count: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tokens, shape `(count, 8, 16)`, and classes from 0 to 6."""
    vectors = draw.normal(size=(count, TOKENS, VECTOR)).astype(np.float32)
    where = draw.integers(TOKENS - 1, size=count)
    vectors[np.arange(count), where + 1] = vectors[:, 0]
    positions = np.broadcast_to(np.eye(TOKENS, dtype=np.float32), (count, TOKENS, TOKENS))
    return np.concatenate([vectors, positions], axis=2), where


def main(small: bool = False) -> dict[str, list[float]]:
    """Train by both rules; print, and return by name, a number for every seed."""
    rows, seeds, epochs = (4000, 1, 6) if small else (20000, 3, 12)
    found: dict[str, list[float]] = {"pc-nudge": [], "backprop": [], "cosine": []}
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        train, test = draw_samples(rows, draw), draw_samples(2000, draw)
        for name, rule in (("pc-nudge", ex.Contrastive(ex.rules.nudge(1e-3))), ("backprop", ex.Backprop())):
            learner = ex.Learner(
                make_block(jax.random.key(seed)),
                ex.PredictiveCoding(ex.CrossEntropy()),
                ex.ConjugateGradient(coordinates=ex.ErrorCoordinates()),
                rule,
                optax.adam(optax.cosine_decay_schedule(1e-2, epochs * (rows // 100))),
            )
            run = ex.train(learner, ex.Arrays(*train, batch=100), epochs=epochs, test=test, seed=seed, regime=False)
            found[name].append(run.result["test_accuracy"])
            if name == "pc-nudge" and not small:
                report = eqx.filter_jit(ex.diagnostics.measure_regime)(
                    run.learner.dynamics,
                    run.learner.graph,
                    ex.Batch(jnp.asarray(test[0][:100]), jax.nn.one_hot(test[1][:100], 7)),
                    run.learner.solver,
                    rule,
                )
                found["cosine"].append(float(report.cosine["all"]))
        print(f"seed {seed}: " + ", ".join(f"{name} {numbers[-1]:.4f}" for name, numbers in found.items() if numbers))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one seed and fewer rows")
    main(parser.parse_args().small)
