"""The simple recurrent network of Chen et al. 2025: what a step costs, and what feedback adds to it.

`taskset -c 0 python -m benchmarks.recurrent` times, in turns, one gradient each of

- backprop, in JAX's own convolutions unrolled by hand, and by energax;
- predictive coding by conjugate gradients on the errors, three steps, and by Nesterov steps of the states;
- skew feedback by as many Nesterov steps of the states,

in processor time on one core, and writes medians, their ratios to backprop by hand, what a step of the states costs
with feedback beside one without, and the mean residuals to `recurrent.json`. Images are CIFAR-10's where
`ENERGAX_DATA` has them, random ones elsewhere: the times are the same.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp

import energax as ex
from benchmarks.reports import options_of, write
from energax.exceptions import DataError
from energax.training.rows import make_device_split
from energax.training.run_folder import machine

STRIDES = {2: 2, 3: 2, 4: 2, 5: 1, 6: 1}


def convolve(fn, x, stride: int = 1):
    """JAX's own convolution with the weights of a layer, channels last."""
    pad = fn.weight.shape[0] // 2
    dims = ("NHWC", "HWIO", "NHWC")
    found = jax.lax.conv_general_dilated(x, fn.weight, (stride, stride), [(pad, pad)] * 2, dimension_numbers=dims)
    return found + fn.bias


def output_by_hand(f, x, steps: int):
    """The network, every node of every step written out; what cannot reach the output is left to the compiler."""
    first = jnp.tanh(convolve(f["forward1"], x))  # the same at every step
    before: dict = {}
    for t in range(steps):
        now: dict = {1: first}
        for node in range(2, 7):
            if t == 0:
                like = jax.eval_shape(lambda v, n=node: convolve(f[f"forward{n}"], v, STRIDES[n]), now[node - 1])
                now[node] = jnp.zeros(like.shape, like.dtype)
                continue
            sent = convolve(f[f"forward{node}"], before[node - 1], STRIDES[node])
            sent = sent + convolve(f[f"again{node}"], before[node])
            if node >= 4:
                sent = sent + convolve(f[f"skip{node}"], before[node - 2], STRIDES[node] * STRIDES[node - 1])
            now[node] = jnp.tanh(sent)
        before = now
    readout = f["readout"].layers[1]
    return before[6].reshape(len(x), -1) @ readout.weight + readout.bias


def make_rows(length: int, steps: int) -> dict[str, Callable]:
    """Name -> `(graph, batch) -> (gradient, mean residual)`."""
    coding = ex.PredictiveCoding(ex.CrossEntropy())
    flow = ex.GradientFlow(step_size=1.0, momentum=0.8, stop=ex.Stopping(1e-3, steps, 0))
    errors = ex.ConjugateGradient(ex.Stopping(1e-3, 3, 0), ex.ErrorCoordinates())
    unit = ex.Contrastive(ex.rules.unit_nudge())

    def by_hand(graph, batch):
        def cost(functions):
            return jnp.mean(ex.CrossEntropy()(output_by_hand(functions, batch.x, length), batch.y))

        return eqx.filter_grad(cost)(graph.functions), jnp.zeros(())

    def by(rule, dynamics, solver):
        def gradient(graph, batch):
            found, _, info = rule(dynamics, graph, batch, solver, rule.init(dynamics, graph, batch))
            left = info.phases["nudged"].residual if "nudged" in info.phases else jnp.zeros(1)
            return found, jnp.mean(left)

        return gradient

    return {
        "backprop by hand": by_hand,
        "backprop": by(ex.Backprop(), coding, flow),
        "HPC, CG on errors x3": by(unit, coding, errors),
        f"HPC, Nesterov x{steps}": by(unit, coding, flow),
        f"skew feedback, Nesterov x{steps}": by(unit, ex.SkewFeedback(), flow),
    }


def main() -> None:
    """Time the rows in turns and report."""
    options = options_of(__doc__, width=0.25, length=6, batch=128, steps=10, rounds=3)
    try:
        data = ex.load_data("cifar10")
        batch = make_device_split(data, data.train, standardise=True).batch(jnp.arange(options.batch))
    except DataError:
        x = jax.random.normal(jax.random.key(1), (options.batch, 32, 32, 3))
        batch = ex.Batch(x, jax.nn.one_hot(jnp.arange(options.batch) % 10, 10))
    graph = ex.networks.recurrent_simple(
        (32, 32, 3), 10, jnp.tanh, width=options.width, length=options.length, key=jax.random.key(0)
    )
    rows, seconds, compiling, residuals = make_rows(options.length, options.steps), {}, {}, {}
    compiled = {}
    for name, row in rows.items():
        begun = time.process_time()
        compiled[name] = cast(Any, eqx.filter_jit(row)).lower(graph, batch).compile()
        compiling[name] = time.process_time() - begun
        residuals[name] = float(compiled[name](graph, batch)[1])
    for _ in range(options.rounds):
        for name, step in compiled.items():
            begun = time.process_time()
            jax.block_until_ready(step(graph, batch)[1])
            seconds.setdefault(name, []).append(time.process_time() - begun)
    hand = seconds["backprop by hand"]
    table = {
        name: {
            "seconds": statistics.median(own),
            "ratio": statistics.median(a / b for a, b in zip(own, hand, strict=True)),
            "compile_seconds": compiling[name],
            "residual": residuals[name],
        }
        for name, own in seconds.items()
    }
    flows = [own for name, own in seconds.items() if "Nesterov" in name]
    feedback = statistics.median(b / a for a, b in zip(*flows, strict=True))
    for name, own in table.items():
        print(name, "  ".join(f"{key} {value:.4g}" for key, value in own.items()), flush=True)
    print(f"a step of the states with feedback takes {feedback:.3g} times one without")
    settings = {key: getattr(options, key) for key in ("width", "length", "batch", "steps", "rounds")}
    report = {**settings, **machine(), "rows": table, "feedback": feedback}
    write(options.out, "recurrent", report)


if __name__ == "__main__":
    main()
