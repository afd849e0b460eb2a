"""Circuits given synapse by synapse: time and memory of an update against the number of synapses, and reading them.

`taskset -c 0 python -m benchmarks.synapses` prints rows and writes `synapses.json`. Each row is a process of its own:

- `random-S`: S synapses among S / 10 units, drawn at random;
- `microcircuit-F`: the populations of Potjans & Diesmann 2014 at F times their 77,169 units.

An update is one of a leaky flow with absolute outflow, which certificates cover at any size, by the consistent local
rule with plain gradient descent and signs kept: a free and two nudged phases of `--steps` steps on `--batch` rows. Told
are the seconds to draw and to certify, the median seconds of an update, the peak memory of the process in GB, and both
per million synapses. `--read N` writes an edge list of N rows first, as CSV and feather, and times reading each.
"""

import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import energax as ex
from benchmarks.reports import options_of, write
from energax.certificates import KeepSigns, certify, project
from energax.dynamics import AbsoluteOutflow
from energax.graph import EdgeList, draw_edges, read_edges
from energax.papers.costa2025.populations import PROBABILITIES, scale_sizes
from energax.solvers import certified_flow
from energax.training.learner import begin, update
from energax.training.run_folder import machine

KILOBYTES = 1 if sys.platform != "darwin" else 1024  # the unit in which a process is told its peak memory
ENDS = 200  # units that read the input, and that the output reads


def draw(name: str) -> EdgeList:
    """The circuit of a row."""
    kind, _, size = name.partition("-")
    if kind == "microcircuit":
        return draw_edges(scale_sizes(float(size)), PROBABILITIES, seed=0)
    synapses = round(float(size))
    units = synapses // 10
    rng = np.random.default_rng(0)
    ends = rng.integers(0, units, (2, synapses), np.int32)
    return EdgeList(np.arange(units).astype(str), *ends)


def measure(name: str, batch: int, steps: int, rounds: int) -> dict[str, Any]:
    """One row."""
    begun = time.perf_counter()
    edges = draw(name)
    key = jax.random.key(0)
    signs = np.where(np.arange(len(edges.names)) % 5, 1, -1)[edges.sources]
    graph = ex.networks.from_edges(
        edges,
        (8, 8, 1),
        10,
        reading=np.arange(ENDS),
        shown=np.arange(len(edges.names) - ENDS, len(edges.names)),
        weights=signs * np.abs(np.asarray(jax.random.normal(key, (len(edges),)))) / 10,
        key=key,
    )
    drawn = time.perf_counter() - begun
    dynamics = ex.LeakyFlow(leak=0.5, outflow=AbsoluteOutflow())
    begun = time.perf_counter()
    certified = bool(eqx.filter_jit(lambda d, g: certify(d, g).certified)(dynamics, graph))
    certifying = time.perf_counter() - begun
    solver = certified_flow(ex.Stopping(1e-3, steps, check_every=0))
    optimiser = optax.chain(optax.sgd(0.1), project(KeepSigns({"synapses": signs}), dynamics, graph))
    learner = ex.Learner(graph, dynamics, solver, ex.VectorFieldRule(0.1), optimiser)
    rows = ex.Batch(jax.random.uniform(key, (batch, 8, 8, 1)), jax.nn.one_hot(jnp.arange(batch) % 10, 10))
    progress, step = begin(learner), eqx.filter_jit(lambda progress, rows: update(learner, progress, rows)[0])
    begun = time.perf_counter()
    progress = jax.block_until_ready(step(progress, rows))
    first = time.perf_counter() - begun
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        progress = jax.block_until_ready(step(progress, rows))
        seconds.append(time.perf_counter() - begun)
    taken, memory = statistics.median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KILOBYTES / 1e6
    return {
        "name": name,
        "units": len(edges.names),
        "synapses": len(edges),
        "certified": certified,
        "draw_seconds": drawn,
        "certify_seconds": certifying,
        "first_seconds": first,
        "update_seconds": taken,
        "seconds_per_million": taken / len(edges) * 1e6,
        "memory_gb": memory,
    }


def read(rows: int) -> dict[str, float]:
    """Seconds to read an edge list of so many rows."""
    rng = np.random.default_rng(0)
    names = np.char.add("neuron", rng.integers(0, rows // 10 + 1, (2, rows)).astype(str))
    weights = rng.integers(1, 9, rows)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        import pyarrow as pa
        from pyarrow import feather

        files = [Path(folder, f"edges.{kind}") for kind in ("csv", "feather")]
        with files[0].open("w") as text:
            text.write("source,target,weight\n")
            text.writelines(f"{a},{b},{w}\n" for a, b, w in zip(*names, weights, strict=True))
        feather.write_feather(pa.table({"source": names[0], "target": names[1], "weight": weights}), str(files[1]))
        for file in files:
            begun = time.perf_counter()
            edges = read_edges(file, columns=("weight",))
            found[file.suffix[1:]] = time.perf_counter() - begun
            assert len(edges) == rows
    return found


def main() -> None:
    """Measure the rows one after another and report."""
    options = options_of(
        __doc__,
        rows="random-1e5 random-1e6 random-1e7 microcircuit-0.01 microcircuit-0.03 microcircuit-0.1 microcircuit-0.2",
        batch=1,
        steps=10,
        rounds=3,
        read=0,
    )
    found = []
    for name in options.rows.split():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(measure, (name, options.batch, options.steps, options.rounds))
        found.append(row)
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()))
    reading = read(options.read) if options.read else {}
    if reading:
        print(f"{options.read} rows read in", "  ".join(f"{kind} {taken:.1f} s" for kind, taken in reading.items()))
    settings = {name: getattr(options, name) for name in ("batch", "steps", "rounds", "read")}
    write(options.out, "synapses", {**settings, **machine(), "rows": found, "read_seconds": reading})


if __name__ == "__main__":
    main()
