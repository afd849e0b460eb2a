"""Convolution and pooling inside a relaxation loop: the library's formulations against JAX's own and against slices.

Run it on one core, XLA on one thread:
`XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" taskset -c 0 python -m
benchmarks.convolution`. It prints tables and writes `convolution.json`: milliseconds of CPU time,
medians of interleaved runs. First the three maps of `energax.layers.bilinear`, with the rounding of the convolution in
single precision, and maximum pooling, each repeated in a compiled loop. Then training steps of two networks: backprop,
and predictive coding with 8 gradient steps, as a loop and unrolled. The relaxation starts off the feed-forward pass, or
the unrolled program would share its first step with it.
"""

import platform
import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks.reports import options_of, write
from energax.layers import Conv2d, Pool, bilinear, maximum

BATCH, STEPS, TURNS, ROUNDS = 64, 8, 2, 5  # turns: of the loop around a single map, some of which take a second
SHAPES = [(32, 3, 32, 1), (16, 32, 64, 1), (8, 64, 128, 1), (4, 128, 128, 1), (28, 1, 8, 2), (14, 8, 16, 2)]
FORMS = {
    "jax": (bilinear.plain_convolution, bilinear.plain_adjoint, bilinear.plain_correlation),
    "slices": (bilinear.sliced_convolution, bilinear.sliced_adjoint, bilinear.sliced_correlation),
    "energax": (bilinear.ordinary_convolution, bilinear.ordinary_adjoint, bilinear.ordinary_correlation),
}


def timed(programs: dict, *args, repeats: int = 1, rounds: int = ROUNDS) -> dict:
    """Milliseconds of each program, run in turn."""
    compiled = {name: jax.jit(run) for name, run in programs.items()}
    times: dict = {name: [] for name in programs}
    for round_ in range(rounds + 1):
        for name, run in compiled.items():
            begun = time.process_time()
            jax.block_until_ready(run(*args))
            if round_:
                times[name].append(1e3 * (time.process_time() - begun) / repeats)
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def looped(function):
    """A compiled loop whose every turn needs the whole of the last one's result."""

    def run(first, second):
        def turn(_, out):
            return function(first + 1e-9 * out.ravel()[0], second)

        return jax.lax.fori_loop(0, TURNS, turn, jnp.zeros_like(function(first, second)))

    return run


def maps(side: int, channels: int, out: int, stride: int) -> dict:
    """The three maps of one convolution 3 x 3 with padding 1."""
    geometry = bilinear.Geometry((side, side), (3, 3), stride, 1)
    x = jax.random.normal(jax.random.key(0), (BATCH, side, side, channels))
    w = jax.random.normal(jax.random.key(1), (3, 3, channels, out)) * 0.1
    y = bilinear.plain_convolution(x, w, geometry)
    result = {}
    for index, (name, args) in enumerate({"convolution": (x, w), "adjoint": (y, w), "correlation": (x, y)}.items()):
        programs = {
            form: looped(lambda a, b, f=functions[index]: f(a, b, geometry)) for form, functions in FORMS.items()
        }
        result[name] = timed(programs, *args, repeats=TURNS, rounds=2)
    return {**result, "rounding": rounding(x, w, geometry)}


def rounding(x, w, geometry) -> dict:
    """How far the convolution is from that in double precision, relative."""
    with jax.enable_x64(True):
        exact = bilinear.plain_convolution(x.astype(jnp.float64), w.astype(jnp.float64), geometry)

        def loss(convolution):
            found = convolution(x, w, geometry).astype(jnp.float64)
            return float(f"{jnp.linalg.norm((found - exact).ravel()) / jnp.linalg.norm(exact.ravel()):.1e}")

        return {form: loss(convolution) for form, (convolution, _, _) in FORMS.items()}


def window_maximum(image):
    """Maximum over 2 x 2 by `reduce_window`."""
    return jax.lax.reduce_window(image, -jnp.inf, jax.lax.max, (2, 2, 1), (2, 2, 1), "VALID")


def stacked_maximum(image):
    """Maximum over 2 x 2 of stacked strided slices."""
    return jnp.max(jnp.stack([image[i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=-1), axis=-1)


POOLS = {"jax": window_maximum, "slices": stacked_maximum, "energax": Pool(2, maximum)}


def pooling(side: int, channels: int) -> dict:
    """Maximum pooling forwards and backwards."""

    def there_and_back(pool):
        def function(images, target):
            out, pull = jax.vjp(jax.vmap(pool), images)
            return pull(target - out)[0]

        return looped(function)

    images = jax.random.normal(jax.random.key(0), (BATCH, side, side, channels))
    target = jnp.zeros((BATCH, side // 2, side // 2, channels))
    programs = {form: there_and_back(pool) for form, pool in POOLS.items()}
    return timed(programs, images, target, repeats=TURNS)


def steps(shape: tuple[int, int, int], channels: tuple[int, ...], form: str) -> dict:
    """Training steps of a net of convolutions that halve the image (by pooling if it has colours), tanh, linear."""
    stride = 1 if shape[-1] == 3 else 2
    keys = jax.random.split(jax.random.key(0), len(channels) + 3)
    pairs = zip((shape[-1], *channels), channels, keys, strict=False)
    layers = [Conv2d(a, b, 3, stride=stride, padding=1, key=k) for a, b, k in pairs]
    x = jax.random.normal(keys[-1], (BATCH, *shape))
    y = jax.nn.one_hot(jax.random.randint(keys[-2], (BATCH,), 0, 10), 10)

    def convolved(w, b, v):
        if form == "energax":
            return bilinear.convolve(v, w, stride=stride, padding=1) + b
        geometry = bilinear.Geometry(v.shape[1:3], (3, 3), stride, 1)
        return FORMS[form][0](v, w, geometry) + b

    def predicted(weights, index, v):
        if index == len(channels):
            return v.reshape(BATCH, -1) @ weights[index][0] + weights[index][1]
        w, b = weights[index]
        out = convolved(w, b, v)
        return jnp.tanh(out if stride == 2 else jax.vmap(POOLS[form])(out))

    def sweep(weights):
        states = [x]
        for index in range(len(weights)):
            states.append(predicted(weights, index, states[-1]))
        return states[1:]

    def energy(hidden, weights, first):
        targets = [*hidden, y]
        sent = [first] + [predicted(weights, i + 1, v) for i, v in enumerate(hidden)]
        return sum(jnp.sum((t - p) ** 2) for t, p in zip(targets, sent, strict=True)) / 2

    def learned(weights, slope):
        return jax.tree.map(lambda a, b: a - 1e-3 * b, weights, slope)

    def backprop(weights):
        return learned(weights, jax.grad(lambda w: jnp.sum((sweep(w)[-1] - y) ** 2) / 2 / BATCH)(weights))

    def relaxed(loop):
        def step(weights):
            first, *rest = sweep(weights)[:-1]

            def move(_, hidden):
                slope = jax.grad(energy)(hidden, weights, first)
                return jax.tree.map(lambda v, g: v - 0.1 * g, hidden, slope)

            hidden = loop(0, STEPS, move, [0.9 * v for v in (first, *rest)])
            slope = jax.grad(lambda w: energy(hidden, w, predicted(w, 0, x)))(weights)
            return learned(weights, slope)

        return step

    def unrolled(start, stop, body, carry):
        for index in range(start, stop):
            carry = body(index, carry)
        return carry

    halved = shape[0] // 2 ** len(channels) if stride == 1 else -(-shape[0] // 2 ** len(channels))
    readout = 0.05 * jax.random.normal(keys[-3], (halved**2 * channels[-1], 10))
    weights = [(layer.weight, layer.bias) for layer in layers] + [(readout, jnp.zeros(10))]
    programs = {"backprop": backprop, "pc_loop": relaxed(jax.lax.fori_loop), "pc_unrolled": relaxed(unrolled)}
    result = timed(programs, weights, rounds=2 if form == "jax" else ROUNDS)
    return {**result, "pc_loop_over_backprop": round(result["pc_loop"] / result["backprop"], 2)}


def matmul_gflops() -> float:
    """What the machine gives at this moment."""
    a = jax.random.normal(jax.random.key(0), (1024, 1024))
    return round(2 * 1024**3 / timed({"product": lambda a: a @ a}, a)["product"] / 1e6, 1)


def main() -> None:
    """Time everything, print and write it."""
    options = options_of(__doc__)
    result: dict = {"matmul_gflops": matmul_gflops(), "maps": {}, "pooling": {}, "steps": {}}
    for shape in SHAPES:
        name = "side {} channels {}-{} stride {}".format(*shape)
        result["maps"][name] = maps(*shape)
        print(name, result["maps"][name], flush=True)
    for side, _, channels, stride in SHAPES:
        if stride == 1:
            name = f"side {side} channels {channels}"
            result["pooling"][name] = pooling(side, channels)
            print("maximum", name, result["pooling"][name], flush=True)
    nets = {"32x32x3 32-64-128-128 pooled": ((32, 32, 3), (32, 64, 128, 128)), "28x28x1 8-16": ((28, 28, 1), (8, 16))}
    for name, (shape, channels) in nets.items():
        result["steps"][name] = {form: steps(shape, channels, form) for form in FORMS}
        for form, figures in result["steps"][name].items():
            print(name, form, figures, flush=True)
    result.update(machine=platform.machine(), jax=jax.__version__, device=jax.default_backend(), batch=BATCH)
    write(options.out, "convolution", result)


if __name__ == "__main__":
    main()
