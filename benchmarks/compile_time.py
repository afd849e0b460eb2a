"""Time to compile a training step of a residual MLP of 8 and of 64 blocks: it must not grow with depth.

`taskset -c 0 python -m benchmarks.compile_time` prints a table and writes `compile_time.json`. One step is one update
by predictive coding (gradient at the beta = 1 equilibrium) with 20 fixed steps of gradient flow, Adam, batch 64, blocks
of 128 units: traced, lowered and compiled from nothing, both depths in turn, medians of 3. The same net of 8 blocks
with every block a node of its own shows what a stack saves.
"""

import platform
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import energax as ex
from benchmarks.reports import options_of, write
from energax.graph.graph import Graph
from energax.graph.networks import residual_mlp
from energax.graph.unrolling import unroll
from energax.training.learner import Learner, begin, update

ROUNDS = 3
LIMIT = 1.5  # what 64 blocks may take, in units of 8


def graph_of(depth: int) -> Graph:
    """A residual MLP of this many blocks."""
    return residual_mlp((28, 28, 1), 128, depth, 10, jax.nn.relu, output_state=False, key=jax.random.key(0))


def seconds_to_compile(graph: Graph) -> tuple[float, float]:
    """Seconds to trace and lower one training step, and to compile it."""
    solver = ex.GradientFlow(step_size=0.1, stop=ex.Stopping(max_steps=20, check_every=0))
    rule = ex.Contrastive(ex.rules.unit_nudge())
    learner = Learner(graph, ex.PredictiveCoding(ex.CrossEntropy()), solver, rule, optax.adam(1e-3))
    batch = ex.Batch(jnp.zeros((64, 28, 28, 1)), jax.nn.one_hot(jnp.arange(64) % 10, 10))
    arrays, rest = eqx.partition((begin(learner), batch), eqx.is_array)
    jax.clear_caches()

    def step(arrays):
        progress, batch = eqx.combine(arrays, rest)
        return eqx.filter(update(learner, progress, batch), eqx.is_array)

    begun = time.perf_counter()
    lowered = jax.jit(step).lower(arrays)
    traced = time.perf_counter()
    lowered.compile()
    return traced - begun, time.perf_counter() - traced


def main() -> None:
    """Compile in turn and report medians."""
    options = options_of(__doc__)
    small, large = graph_of(8), graph_of(64)
    sides = {"8": small, "64": large, "8_apart": unroll(small, small.node("block").axes[0])}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for round_ in range(ROUNDS + 1):
        for name, graph in sides.items():
            seconds = seconds_to_compile(graph)
            if round_:  # the first round fills what is cached for good
                times[name].append(seconds)

    def ratio(a: str, b: str) -> float:
        return statistics.median(sum(x) / sum(y) for x, y in zip(times[a], times[b], strict=True))

    report = {
        **{f"trace_{name}_s": statistics.median(t[0] for t in values) for name, values in times.items()},
        **{f"compile_{name}_s": statistics.median(t[1] for t in values) for name, values in times.items()},
        "64_over_8": ratio("64", "8"),
        "8_apart_over_8": ratio("8_apart", "8"),
        "limit": LIMIT,
        "rounds": ROUNDS,
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    write(options.out, "compile_time", report)
    for name, value in report.items():
        print(f"{name:22} {value:.3f}" if isinstance(value, float) else f"{name:22} {value}")


if __name__ == "__main__":
    main()
