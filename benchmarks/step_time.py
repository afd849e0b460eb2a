"""Time of a training step of predictive coding against backprop's, in one process on one core, interleaved.

Run it on one core: `taskset -c 0 python -m benchmarks.step_time`. It prints a table and writes `step_time.json`.
Both sides run the library's own compiled loop over many batches, on the network 784-128-64-10 (ReLU, cross-entropy),
batch 64, SGD .05 with momentum .9: backprop, and `pc` with 50 fixed gradient steps of 0.1 without a stopping test, its
step bound refreshed every 50 batches. A third side is the same `pc` step written by hand in plain JAX for this one
network, without bound, verdicts or report.
"""

import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import energax as ex
from benchmarks.reports import options_of, write
from energax.data import Dataset
from energax.metrics import ACCURACY, COST
from energax.training.epoch import Cut, stretch
from energax.training.learner import Learner, begin
from energax.training.rows import make_device_split

BATCHES = 200
ROUNDS = 9


def learner(rule, refresh=0) -> Learner:
    """The network under a rule; the step bound is held between refreshes."""
    graph = ex.networks.mlp(
        [784, 128, 64, 10], jax.nn.relu, shape=(28, 28, 1), output_state=False, key=jax.random.key(0)
    )
    stop = ex.Stopping(max_steps=50, check_every=0)
    solver = ex.GradientFlow(step_size=0.1, stop=stop, bound=ex.solvers.Held())
    optimiser = optax.sgd(0.05, momentum=0.9)
    return Learner(graph, ex.PredictiveCoding(ex.CrossEntropy()), solver, rule, optimiser, refresh)


def by_hand(images, labels):
    """The same training by hand: a compiled loop over batches, 50 gradient steps on the states in each."""
    layers = learner(ex.Backprop()).graph.functions
    linear = (layers["layer1"].layers[1], layers["layer2"], layers["layer3"])
    weights = [(one.weight, one.bias) for one in linear]

    def energy(states, constant, weights, y):
        first, second = states
        output = second @ weights[2][0] + weights[2][1]
        errors = (first - constant, second - jax.nn.relu(first @ weights[1][0] + weights[1][1]))
        return sum(jnp.sum(e**2) / 2 for e in errors) - jnp.sum(y * jax.nn.log_softmax(output))

    def step(index, carry):
        weights, velocity = carry
        x = jax.lax.dynamic_slice_in_dim(images, index * 64, 64).reshape(64, -1).astype(jnp.float32) / 255
        y = jax.nn.one_hot(jax.lax.dynamic_slice_in_dim(labels, index * 64, 64), 10)
        constant = jax.nn.relu(x @ weights[0][0] + weights[0][1])
        start = (constant, jax.nn.relu(constant @ weights[1][0] + weights[1][1]))

        def relax(_, states):
            slope = jax.grad(energy)(states, constant, weights, y)
            return jax.tree.map(lambda v, g: v - 0.1 * g, states, slope)

        states = jax.lax.fori_loop(0, 50, relax, start)

        def cost(weights):
            return energy(states, jax.nn.relu(x @ weights[0][0] + weights[0][1]), weights, y) / 64

        velocity = jax.tree.map(lambda u, g: 0.9 * u + g, velocity, jax.grad(cost)(weights))
        return jax.tree.map(lambda w, u: w - 0.05 * u, weights, velocity), velocity

    zero = jax.tree.map(jnp.zeros_like, weights)
    return jax.jit(lambda: jax.lax.fori_loop(0, BATCHES, step, (weights, zero)))


def images() -> Dataset:
    """Random images of MNIST's size: the time does not depend on what they show."""
    random = np.random.default_rng(0)
    rows = (random.integers(0, 256, (64 * BATCHES, 28, 28, 1), dtype=np.uint8), random.integers(0, 10, 64 * BATCHES))
    return Dataset.from_arrays("random", train=rows, validation=rows, test=rows, classes=10)


def seconds_per_step(which: Learner, split) -> float:
    """Wall time of a compiled stretch, per batch."""
    progress, key, cut = begin(which), jax.random.key(1), Cut(64, True, (ACCURACY, COST))
    begun = time.perf_counter()
    jax.block_until_ready(stretch(which, progress, split, cut, key, jnp.asarray(0), jnp.asarray(BATCHES)))
    return (time.perf_counter() - begun) / BATCHES


def seconds_by_hand(run) -> float:
    """Wall time of the hand-written loop, per batch."""
    begun = time.perf_counter()
    jax.block_until_ready(run())
    return (time.perf_counter() - begun) / BATCHES


def main() -> None:
    """Time the sides in turn and report medians."""
    options = options_of(__doc__)
    data = images()
    split = make_device_split(data, data.train, standardise=False)
    hand = by_hand(split.images, split.labels)
    backprop, pc = learner(ex.Backprop()), learner(ex.Contrastive(ex.rules.unit_nudge()), refresh=50)
    sides = {
        "backprop": lambda: seconds_per_step(backprop, split),
        "pc": lambda: seconds_per_step(pc, split),
        "pc_by_hand": lambda: seconds_by_hand(hand),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(ROUNDS + 1):
        for name, side in sides.items():
            seconds = side()
            if round_:  # the first round compiles
                times[name].append(1e3 * seconds)

    def ratio(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))

    report = {
        **{f"{name}_ms": statistics.median(values) for name, values in times.items()},
        "pc_over_backprop": ratio("pc", "backprop"),
        "by_hand_over_backprop": ratio("pc_by_hand", "backprop"),
        "pc_over_by_hand": ratio("pc", "pc_by_hand"),
        "matmul_gflops": matmul_speed(),
        "rounds": ROUNDS,
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    write(options.out, "step_time", report)
    for name, value in report.items():
        print(f"{name:22} {value:.3f}" if isinstance(value, float) else f"{name:22} {value}")


def matmul_speed() -> float:
    """What a large matrix product reaches here, in GFLOP/s: the ratios depend on it."""
    side = jnp.ones((1024, 1024))
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(side))
    times = []
    for _ in range(9):
        begun = time.perf_counter()
        jax.block_until_ready(product(side))
        times.append(time.perf_counter() - begun)
    return 2 * 1024**3 / statistics.median(times) / 1e9


if __name__ == "__main__":
    main()
