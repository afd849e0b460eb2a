"""The customary computation written by hand in plain JAX for each kind of network: no library, no report, no bound."""

from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.workers.protocol import (
    AbstractRow,
    Arrays,
    Message,
    layers_of,
    named,
    named_states,
    offered,
    serve_rows,
)

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "hard_sigmoid": lambda v: jnp.clip(v, 0, 1)}


def convolve(x, layer, pooled):
    """Convolution, and 2 x 2 max-pooling by slices (`reduce_window` has a slow gradient on the CPU)."""
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, layer[0], (1, 1), "SAME", dimension_numbers=numbers) + layer[1]
    if not pooled:
        return x
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def dense(x, layer):
    """A matrix and a bias."""
    return x.reshape(len(x), -1) @ layer[0] + layer[1]


def maps_of(workload):
    """What each layer does with its input and its weights: convolutions first, then matrices."""
    convolutions = [partial(convolve, pooled=pooled) for _, pooled in workload["convolutions"]]
    return convolutions + [dense] * (len(workload["sizes"]) - 1 - len(convolutions))


def cross_entropy(output, y):
    """Summed over the batch."""
    return -jnp.sum(y * jax.nn.log_softmax(output))


def squared_error(output, y):
    """Half the squared distance, summed over the batch."""
    return jnp.sum((output - y) ** 2) / 2


def backprop(workload, weights, x, y):
    """The gradient through the feed-forward pass, of the cost that the other rows have."""
    activation, maps = ACTIVATIONS[workload["activation"]], maps_of(workload)
    price = squared_error if workload["kind"] == "hopfield" else cross_entropy

    def cost(weights):
        h = x
        for apply, layer in zip(maps[:-1], weights, strict=False):
            h = activation(apply(h, layer))
        return price(maps[-1](h, weights[-1]), y) / len(y)

    return jax.grad(cost)(weights), ()


def predictive(workload, weights, x, y):
    """T steps of gradient descent on the states from the feed-forward pass, then the gradient at fixed states."""
    activation, maps = ACTIVATIONS[workload["activation"]], maps_of(workload)

    def predict(index, v, weights):
        return activation(maps[index](v, weights[index]))

    def energy(states, first, weights):
        below = [first, *(predict(index, v, weights) for index, v in enumerate(states[:-1], start=1))]
        errors = sum(jnp.sum((v - p) ** 2) / 2 for v, p in zip(states, below, strict=True))
        return errors + cross_entropy(maps[-1](states[-1], weights[-1]), y)

    first = predict(0, x, weights)
    states = [first]
    for index in range(1, len(weights) - 1):
        states.append(predict(index, states[-1], weights))

    def relax(_, states):
        slope = jax.grad(energy)(states, first, weights)
        return jax.tree.map(lambda v, g: v - workload["step_size"] * g, states, slope)

    if not looped(workload):
        for step in range(workload["steps"]):
            states = relax(step, states)
    else:
        states = jax.lax.fori_loop(0, workload["steps"], relax, states)
    gradient = jax.grad(lambda w: energy(states, predict(0, x, w), w) / len(y))(weights)
    return gradient, states


def looped(workload):
    """Whether loops are compiled: XLA's CPU backend runs convolutions slowly inside them."""
    return workload["kind"] != "conv" or jax.default_backend() != "cpu"


def hopfield(workload, weights, x, y):
    """One-sided equilibrium propagation: synchronous sweeps, hidden units in [0, 1], a linear output."""
    (w1, b1), (w2, b2) = weights
    beta, drive = workload["beta"], x @ w1 + b1

    def sweep(beta, states):
        hidden, output = states
        return jnp.clip(drive + output @ w2.T, 0, 1), (hidden @ w2 + b2 + beta * y) / (1 + beta)

    silent = (jnp.zeros((len(x), w1.shape[1])), jnp.zeros_like(y))
    free = jax.lax.fori_loop(0, workload["steps"], lambda _, s: sweep(0.0, s), silent)
    nudged = jax.lax.fori_loop(0, workload["nudged"], lambda _, s: sweep(beta, s), free)
    (h, o), (k, p), scale = free, nudged, beta * len(x)
    gradient = [
        (x.T @ (h - k) / scale, jnp.sum(h - k, 0) / scale),
        ((h.T @ o - k.T @ p) / scale, jnp.sum(o - p, 0) / scale),
    ]
    return gradient, nudged


class ByHand(AbstractRow):
    """A gradient function with plain gradient descent."""

    def __init__(self, gradient, workload: Message, problem: Arrays):
        self.given = [tuple(jnp.asarray(part, float) for part in layer) for layer in layers_of(problem)]
        self.x, self.y = (jnp.asarray(problem[name], float) for name in ("x", "y"))
        self.gradient = partial(gradient, workload)
        self.looped = looped(workload)
        rate = workload["learning_rate"]

        def one(index, weights):
            at = index % len(self.x)
            found, _ = self.gradient(weights, self.x[at], self.y[at])
            return jax.tree.map(lambda w, g: w - rate * g, weights, found)

        self.step = jax.jit(one)
        self.many = jax.jit(lambda first, last, weights: jax.lax.fori_loop(first, last, one, weights))
        self.reset()

    def reset(self):
        """Begin again."""
        self.now, self.at = self.given, 0

    def run(self, steps):
        """A compiled loop over batches, or one call per batch."""
        if self.looped:
            self.now = self.many(self.at, self.at + steps, self.now)
        else:
            for index in range(self.at, self.at + steps):
                self.now = self.step(index, self.now)
        self.at += steps
        jax.block_until_ready(self.now)

    def weights(self):
        """As they are."""
        return named(self.now)

    def equilibrium(self):
        """On the first batch."""
        gradient, states = jax.jit(self.gradient)(self.given, self.x[0], self.y[0])
        return named(gradient), named_states(states)


def offer(workload: Message) -> list[Message]:
    """Backprop and predictive coding, or equilibrium propagation."""
    return [
        offered("JAX backprop by hand", role="backprop", same=True),
        offered("JAX by hand", workload["steps"], same=True),
    ]


def prepare(name: str, workload: Message, problem: Arrays) -> AbstractRow:
    """One row."""
    kind = {True: backprop, False: hopfield if workload["kind"] == "hopfield" else predictive}
    return ByHand(kind["backprop" in name], workload, problem)


if __name__ == "__main__":
    serve_rows(offer, prepare)
