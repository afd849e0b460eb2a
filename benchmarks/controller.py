"""The benchmark: workers started, workloads measured, results written after each of them."""

import contextlib
import dataclasses
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.client import Client, versions
from benchmarks.devices import CPU, Device
from benchmarks.environments import Absent
from benchmarks.measure import WARM, Measurement, Report, Size
from benchmarks.picture import draw
from benchmarks.systems import System
from benchmarks.table import markdown
from benchmarks.workload import Workload
from energax.exceptions import SettingError
from energax.files import write_atomically
from energax.training.run_folder import finite


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured, how much of it, and where results go.

    Attributes:
        workloads: the workloads.
        systems: the systems, energax among them.
        size: rounds and lengths.
        out: folder of the results.
        environments: folder of the other systems' environments.
        device: where it is measured.
        resume: whether workloads that `out` already has are left as they are.
    """

    workloads: tuple[Workload, ...]
    systems: tuple[System, ...]
    size: Size
    out: Path
    environments: Path
    device: Device = CPU
    resume: bool = False


def bench(plan: Plan, report: Report) -> dict[str, Any]:
    """Measure everything; what cannot be measured is in the results with its reason.

    Args:
        plan: what to do.
        report: called with what is being done, for people to watch.

    Returns:
        The results, as they are written to `bench.json`.

    Raises:
        SettingError: the device is not there, or what is to be resumed cannot be.
    """
    results = begun(plan)
    done = {found["workload"]["name"] for found in results["workloads"]}
    for workload in plan.workloads:
        if workload.name not in done:
            results["workloads"].append(measured(workload, plan, results, report))
            write(plan.out, results)
    return results


def begun(plan: Plan) -> dict[str, Any]:
    """Results without any workload, or those that are to be resumed.

    Raises:
        SettingError: these are of another machine, or no results.
    """
    here, path = machine(plan.device), plan.out / "bench.json"
    if not (plan.resume and path.is_file()):
        return {"machine": here, "warm": WARM, "versions": {}, "absent": {}, "workloads": []}
    try:
        results = json.loads(path.read_text())
        there = results["machine"]
    except (ValueError, LookupError, TypeError) as error:
        raise SettingError(
            f"--resume: {path} holds no results of `python -m benchmarks` ({type(error).__name__}: {error}); "
            "move it away, or give another folder with --out"
        ) from error
    for what in ("cpu", "cores", "accelerator"):
        if there.get(what) != here[what]:
            raise SettingError(
                f"--resume: {path} was measured with {what} = {there.get(what)!r}, here it is {here[what]!r}; "
                "give another folder with --out"
            )
    return {**results, "machine": {**here, **there}}


def measured(workload: Workload, plan: Plan, results: dict[str, Any], report: Report) -> dict[str, Any]:
    """One workload, by workers of its own: what a process has compiled stays with it, and its memory has an end."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(system: System) -> Client:
            return stack.enter_context(Client(system.command(plan.environments), plan.device))

        helpers = {name: start(helper(name)) for name in ("maker", "reference")}
        there = [system for system in plan.systems if present(system, plan, results, report)]
        return Measurement(workload, plan.size, helpers, there, start, scratch, report, plan.device.clock).run()


def present(system: System, plan: Plan, results: dict[str, Any], report: Report) -> bool:
    """Whether a system can be started, after making its environment; its versions, or the reason, are noted."""
    report(f"environment of {system.name}")
    try:
        command = system.command(plan.environments)
    except Absent as reason:
        results["absent"][system.name] = str(reason)
        return False
    results["versions"].setdefault(system.name, versions(command[0], system.packages))
    return True


def helper(name: str) -> System:
    """A worker of the benchmark's own that trains nothing to be timed."""
    return System(name, name, "", ())


def write(out: Path, results: dict[str, Any]) -> None:
    """The numbers, the table and the picture."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "bench.json", (json.dumps(finite(results), indent=1) + "\n").encode())
    write_atomically(out / "table.md", markdown(results).encode())
    draw(out / "bench.png", results)


def machine(device: Device) -> dict[str, Any]:
    """Model and number of the processor cores, how busy they are, the accelerator, and how it is measured."""
    return {
        "accelerator": accelerator(device),
        "conditions": device.conditions,
        "cpu": processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def accelerator(device: Device) -> str | None:
    """The model of the GPU, as a worker finds it: this process leaves the GPU's memory alone.

    Raises:
        SettingError: there is none.
    """
    if device.name == "cpu":
        return None
    try:
        with Client(helper("maker").command(Path()), device) as client:
            return client.ask("device")["kind"]
    except Absent as reason:
        remedy = "run it where JAX finds one (`pip install 'jax[cuda12]'`)"
        raise SettingError(f"device={device.name!r}: {reason}; {remedy}, or leave --device out") from reason


def processor() -> str:
    """The processor's model."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
