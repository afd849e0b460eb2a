"""Convolution inside a relaxation loop: XLA's primitive against slices and a matrix product, forward and backward.

Run on one core: `taskset -c 0 python benchmarks/convolution.py`. Prints milliseconds per iteration, medians of
paired runs.
"""

import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp

from energax.layers import convolve, convolve_patches

SHAPES = [(16, 8, 16, 2), (16, 8, 16, 1), (18, 32, 64, 1), (10, 64, 128, 1)]  # padded side, in, out, stride
STEPS, ROUNDS, BATCH = 5, 5, 64


def relaxation(function, weight):
    """A few gradient steps on the input of a convolution, as one compiled loop."""

    def energy(images):
        return jnp.sum((jnp.tanh(jax.vmap(lambda image: function(image, weight))(images)) - 0.1) ** 2) / 2

    return jax.jit(lambda v: jax.lax.fori_loop(0, STEPS, lambda _, v: v - 0.1 * jax.grad(energy)(v), v))


def main() -> None:
    """Time both in turn on every shape."""
    print("side  in out stride  primitive    patches   ratio")
    for side, channels, out, stride in SHAPES:
        images = jax.random.normal(jax.random.key(0), (BATCH, side, side, channels))
        weight = jax.random.normal(jax.random.key(1), (3, 3, channels, out)) * 0.05
        sides = [relaxation(partial(f, stride=stride), weight) for f in (convolve, convolve_patches)]
        times: list[list[float]] = [[], []]
        for round_ in range(ROUNDS + 1):
            for index, run in enumerate(sides):
                begun = time.perf_counter()
                jax.block_until_ready(run(images))
                if round_:
                    times[index].append(1e3 * (time.perf_counter() - begun) / STEPS)
        ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
        first, second = (statistics.median(t) for t in times)
        print(f"{side:4} {channels:3} {out:3} {stride:6} {first:8.2f} ms {second:8.2f} ms {ratio:7.2f}")


if __name__ == "__main__":
    main()
