"""The benchmark: workers started, workloads measured, results written after each of them."""

import contextlib
import dataclasses
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from energax.bench.client import Client, versions
from energax.bench.environments import Absent
from energax.bench.measure import WARM, Measurement, Report, Size
from energax.bench.picture import draw
from energax.bench.systems import System
from energax.bench.table import markdown
from energax.bench.workload import Workload
from energax.training.checkpoint import write_atomically
from energax.training.run_folder import finite

HELPERS = ("maker", "reference")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured, how much of it, and where results go.

    Attributes:
        workloads: the workloads.
        systems: the systems, energax among them.
        size: rounds and lengths.
        out: folder of the results.
        environments: folder of the other systems' environments.
    """

    workloads: tuple[Workload, ...]
    systems: tuple[System, ...]
    size: Size
    out: Path
    environments: Path


def bench(plan: Plan, report: Report) -> dict[str, Any]:
    """Measure everything; what cannot be measured is in the results with its reason.

    Args:
        plan: what to do.
        report: called with what is being done, for people to watch.

    Returns:
        The results, as they are written to `bench.json`.
    """
    results: dict[str, Any] = {"machine": machine(), "warm": WARM, "versions": {}, "absent": {}, "workloads": []}
    for workload in plan.workloads:
        results["workloads"].append(measured(workload, plan, results, report))
        write(plan.out, results)
    return results


def measured(workload: Workload, plan: Plan, results: dict[str, Any], report: Report) -> dict[str, Any]:
    """One workload, by workers of its own: what a process has compiled stays with it, and its memory has an end.

    Versions, and systems that cannot be started, are noted in `results`.
    """
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        helpers = [System(name, name, "", ()) for name in HELPERS]
        clients = {helper.name: stack.enter_context(Client(helper.command(scratch))) for helper in helpers}
        there = []
        for system in plan.systems:
            report(f"{workload.name}: start {system.name}")
            try:
                command = system.command(plan.environments)
                clients[system.name] = stack.enter_context(Client(command))
            except Absent as reason:
                results["absent"][system.name] = str(reason)
                continue
            there.append(system)
            results["versions"].setdefault(system.name, versions(command[0], system.packages))
        return Measurement(workload, plan.size, clients, there, scratch, report).run()


def write(out: Path, results: dict[str, Any]) -> None:
    """The numbers, the table and the picture."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "bench.json", (json.dumps(finite(results), indent=1) + "\n").encode())
    write_atomically(out / "table.md", markdown(results).encode())
    draw(out / "bench.png", results)


def machine() -> dict[str, Any]:
    """Model and number of the processor cores, and how busy they are."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def processor() -> str:
    """The processor's model."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
