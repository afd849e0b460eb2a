"""Time and memory to compile a training step: by backprop, by a fixed count of steps, and to a tolerance.

`python -m benchmarks.compile_time` prints a table and writes `compile_time.json`. One step is one update of predictive
coding at beta = 1 with Adam, batch 64. It is traced, lowered and compiled from nothing in a fresh process of its own,
which reports its processor seconds (other work on the machine does not count), its peak memory and the lines of the
compiled program. The networks:

- `mlp-L`: L hidden layers of 128 units (tanh), each a node of its own;
- `hfn`: the hierarchical feed-forward net of Chen et al. 2025 (Table 2) with a quarter of its channels, 32 x 32 x 3;
- `stack-L`: a residual MLP of L blocks of 128 units (ReLU) as one stack, and `apart-L` the same as separate nodes.

The steps: `backprop`; `untested`, three conjugate gradients on the errors; `tested`, the same to a relative residual of
.01, a test after every step. `--networks "mlp-16 hfn" --steps "untested tested"` selects some. `--before FILE` puts the
rows of an earlier report, made at another commit, beside the new ones.
"""

import dataclasses
import json
import multiprocessing
import platform
import resource
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import energax as ex
from benchmarks.network import graph_of
from benchmarks.reports import options_of, write
from benchmarks.workload import LARGE, deep
from energax.graph.graph import Graph
from energax.graph.networks import residual_mlp
from energax.graph.unrolling import unroll
from energax.training.learner import Learner, begin, update

NETWORKS = ("mlp-3", "mlp-16", "mlp-64", "hfn", "stack-8", "stack-64", "apart-8")
STEPS = ("backprop", "untested", "tested")
WIDTH = 4  # what the channels of the HFN are divided by
KILOBYTES = 1 if sys.platform != "darwin" else 1024  # the unit in which a process is told its peak memory


def make_network(name: str) -> Graph:
    """A network by its name in the table."""
    kind, _, depth = name.partition("-")
    key = jax.random.key(0)
    if kind == "mlp":
        return graph_of(deep(int(depth)), key)
    if kind == "hfn":
        (hfn,) = (one for one in LARGE if one.name == "HFN")
        inside = (size // WIDTH for size in hfn.sizes[1:-1])
        return graph_of(dataclasses.replace(hfn, sizes=(hfn.sizes[0], *inside, hfn.sizes[-1])), key)
    stack = residual_mlp((784,), 128, int(depth), 10, jax.nn.relu, output_state=False, key=key)
    return stack if kind == "stack" else unroll(stack, stack.node("block").axes[0])


def make_learner(graph: Graph, step: str) -> Learner:
    """The network under one of the three kinds of step."""
    stop = ex.Stopping(0.01, check_every=1) if step == "tested" else ex.Stopping(max_steps=3, check_every=0)
    rule = ex.Backprop() if step == "backprop" else ex.Contrastive(ex.rules.unit_nudge())
    solver = ex.ConjugateGradient(stop, ex.ErrorCoordinates())
    return Learner(graph, ex.PredictiveCoding(ex.CrossEntropy()), solver, rule, optax.adam(1e-3))


def measure_compilation(job: tuple[str, str]) -> dict[str, float]:
    """Compile one step of one network; in a process that has compiled nothing before."""
    network, step = job
    learner = make_learner(make_network(network), step)
    shape = learner.graph.node(learner.graph.inputs[0]).shape
    batch = ex.Batch(jnp.zeros((64, *shape)), jax.nn.one_hot(jnp.arange(64) % 10, 10))
    arrays, rest = eqx.partition((begin(learner), batch), eqx.is_array)

    def take_step(arrays):
        progress, batch = eqx.combine(arrays, rest)
        return eqx.filter(update(learner, progress, batch), eqx.is_array)

    begun = time.process_time()
    lowered = jax.jit(take_step).lower(arrays)
    traced = time.process_time()
    compiled = lowered.compile()
    seconds = time.process_time() - traced
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KILOBYTES / 1024
    lines = str(compiled.as_text()).count("\n")
    return {"trace_s": traced - begun, "compile_s": seconds, "peak_mb": peak, "lines": lines}


def measure_all(networks: list[str], steps: list[str]) -> dict[str, dict[str, float]]:
    """Rows `network/step`, one process after the other."""
    rows = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for job in ((network, step) for network in networks for step in steps):
            rows["/".join(job)] = pool.apply(measure_compilation, (job,))
            print_row("/".join(job), rows["/".join(job)])
    return rows


def compare_steps(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Time and memory to compile a step to a tolerance, in units of the untested step's."""
    both = [name for name in NETWORKS if {f"{name}/tested", f"{name}/untested"} <= set(rows)]
    pairs = {name: (rows[f"{name}/tested"], rows[f"{name}/untested"]) for name in both}
    return {
        name: {
            "time": (a["trace_s"] + a["compile_s"]) / (b["trace_s"] + b["compile_s"]),
            "memory": a["peak_mb"] / b["peak_mb"],
        }
        for name, (a, b) in pairs.items()
    }


def print_row(name: str, row: dict[str, float]) -> None:
    """One line of the table."""
    print(f"{name:20}" + "".join(f"{key:>12} {value:8.1f}" for key, value in row.items()), flush=True)


def main() -> None:
    """Compile one after the other and report."""
    options = options_of(__doc__, networks=" ".join(NETWORKS), steps=" ".join(STEPS), before="")
    rows = measure_all(options.networks.split(), options.steps.split())
    report = {
        "rows": rows,
        "tested_over_untested": compare_steps(rows),
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    for name, ratios in report["tested_over_untested"].items():
        print_row(name, ratios)
    if options.before:
        earlier = json.loads(Path(options.before).read_text())
        report["before"] = {key: earlier[key] for key in ("rows", "tested_over_untested")}
    write(options.out, "compile_time", report)


if __name__ == "__main__":
    main()
