"""How much the quality of an equilibrium differs from batch to batch: conjugate gradients on the errors.

`python -m benchmarks.unseen_batches`, with ENERGAX_DATA set for MNIST. `python -m benchmarks` judges every row on the
first of the batches that its trained net has not seen. This judges the rows of one line on each of them: the relative
error of the first layer's gradient against the equilibrium in float64, by the benchmark's own workers. Writes
`unseen_batches.json`.
"""

import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.client import Client
from benchmarks.measure import FULL
from benchmarks.reports import options_of, write
from benchmarks.workers.protocol import read_arrays, write_arrays
from benchmarks.workload import WORKLOADS, Workload

LINE = "energax CG on errors"
NAMES = ("W1", "W2", "depth 8")


def worker(name: str) -> Client:
    """A worker of the benchmark."""
    return Client([sys.executable, "-m", f"benchmarks.workers.{name}"])


def problems(workload: Workload, folder: Path) -> tuple[list[Path], str]:
    """The benchmark's problem, once with each of its unseen batches as the first, and what it is made of."""
    path = folder / "problem.npz"
    with worker("maker") as maker:
        asked = {"workload": dataclasses.asdict(workload), "steps": FULL.training, "out": path}
        made = maker.ask("make", **asked)["data"]
    arrays, paths = read_arrays(str(path)), []
    for index in range(len(arrays["x"])):
        paths.append(folder / f"problem{index}.npz")
        turned = {name: np.roll(arrays[name], -index, axis=0) for name in ("x", "y")}
        write_arrays(str(paths[-1]), arrays | turned)
    return paths, made


def errors(workload: Workload, folder: Path) -> dict[str, Any]:
    """Row name -> relative errors of the first layer's gradient, one per unseen batch."""
    paths, made = problems(workload, folder)
    asked = {"workload": dataclasses.asdict(workload)}
    found: dict[str, list[float]] = {}
    with worker("own") as own, worker("reference") as reference:
        names = [row["name"] for row in own.ask("rows", **asked)["rows"] if row["line"] == LINE]
        for path in paths:
            solved = reference.ask(
                "solve", problem=path, evaluations=workload.evaluations, out=folder / "solved.npz", **asked
            )
            print(f"{workload.name}: {path.stem}, reference known to {solved['uncertainty']:.1g}", flush=True)
            for name in names:
                own.ask("prepare", row=name, problem=path, **asked)
                own.ask("quality", row=name, out=folder / "found.npz")
                found.setdefault(name, []).append(reference.ask("judge", arrays=folder / "found.npz")["error"])
    return {"data": made, "errors": found}


def main() -> None:
    """Judge, report, and print a table."""
    options = options_of(__doc__)
    report = {}
    for workload in WORKLOADS:
        if workload.name in NAMES:
            with tempfile.TemporaryDirectory() as folder:
                report[workload.name] = errors(workload, Path(folder))
    write(options.out, "unseen_batches", report)
    for name, found in report.items():
        for row, values in found["errors"].items():
            shares = [100 * value for value in values]
            print(
                f"{name:8} {row:24} first {shares[0]:7.3f} %, all: mean {statistics.mean(shares):7.3f} %, "
                f"{min(shares):.3f} to {max(shares):.3f} %"
            )


if __name__ == "__main__":
    main()
