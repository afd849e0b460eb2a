"""The measurement of one workload: every row prepared, judged against the reference, and timed in turn."""

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.client import Client
from benchmarks.environments import Absent
from benchmarks.systems import System
from benchmarks.workers.protocol import Arrays, read_arrays
from benchmarks.workload import Workload

WARM = 3  # steps after which weights are compared


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: measurements per row, in turn.
        seconds: length of one measurement.
        training: batches that the net has been trained on.
        whole: whether lines are swept, each by a worker of its own; otherwise only their customary and their longest
            relaxation is measured, by one worker per system.
    """

    rounds: int
    seconds: float
    training: int
    whole: bool = True


FULL = Size(rounds=7, seconds=0.3, training=300)
SHORT = Size(rounds=3, seconds=0.02, training=60, whole=False)


@dataclasses.dataclass
class Row:
    """One way of training of one system on one workload, and what was found.

    Attributes:
        system, framework: whose it is.
        name, line, steps, role, same, note: as the worker describes it.
        clock: whose seconds count, `cpu` or `wall`.
        failure: the reason, where it could not be measured.
        cpu, wall: seconds per step, one per round.
        error: relative difference of its first-layer gradient from the reference's.
        gap: share of the energy to be gained that it left.
        difference: largest difference of its weights from those of the first row that computes the same, over how
            far those had moved.
    """

    system: str
    framework: str
    name: str
    line: str
    steps: int
    role: str
    same: bool
    note: str
    clock: str = "cpu"
    failure: str | None = None
    cpu: list[float] = dataclasses.field(default_factory=list)
    wall: list[float] = dataclasses.field(default_factory=list)
    error: float | None = None
    gap: float | None = None
    difference: float | None = None
    count: int = 1

    @property
    def seconds(self) -> list[float]:
        """Those that count."""
        return self.wall if self.clock == "wall" else self.cpu

    @property
    def milliseconds(self) -> float | None:
        """Median time of a step."""
        return 1e3 * statistics.median(self.seconds) if self.seconds else None


Report = Callable[[str], None]


class Measurement:
    """One workload.

    Args:
        workload: what is measured.
        size: how much.
        helpers: the workers that make problems and judge equilibria, `maker` and `reference`.
        systems: the systems that are there.
        start: starts another worker of a system.
        scratch: a folder for arrays.
        report: called with what is being done.
        clock: whose seconds count, `cpu` or `wall`.
    """

    def __init__(
        self,
        workload: Workload,
        size: Size,
        helpers: dict[str, Client],
        systems: list[System],
        start: Callable[[System], Client],
        scratch: Path,
        report: Report,
        clock: str = "cpu",
    ):
        self.clock = clock
        self.workload, self.size, self.helpers, self.start = workload, size, helpers, start
        self.systems = {system.name: system for system in systems}
        self.workers: dict[tuple[str, str], Client] = {}
        self.scratch, self.report = scratch, report
        self.problem = scratch / f"{workload.name}.npz"
        self.rows: list[Row] = []
        self.facts: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Measure, and hand over what was found as plain data."""
        self.pose()
        for system in self.systems.values():
            self.rows += self.offered(system)
        for row in self.rows:
            self.report(f"{self.workload.name}: {row.name}")
            self.attempt(row, self.prepare)
        self.compare()
        for round_ in range(self.size.rounds):
            for row in self.rows:
                self.report(f"{self.workload.name}: round {round_ + 1} of {self.size.rounds}, {row.name}")
                self.attempt(row, self.time)
        ratios = over_backprop(self.rows)
        rows = [{**dataclasses.asdict(r), "milliseconds": r.milliseconds, "ratio": ratios[r.name]} for r in self.rows]
        return {
            "workload": {**dataclasses.asdict(self.workload), "title": self.workload.title},
            **self.facts,
            "rows": rows,
        }

    def pose(self) -> None:
        """Make the problem and find its equilibrium."""
        self.report(f"{self.workload.name}: a trained net")
        asked = {"workload": dataclasses.asdict(self.workload), "out": self.problem}
        self.facts |= self.helpers["maker"].ask("make", steps=self.size.training, **asked)
        self.report(f"{self.workload.name}: its equilibrium in float64")
        asked |= {"problem": self.problem, "out": self.scratch / "reference.npz"}
        self.facts["reference"] = self.helpers["reference"].ask("solve", evaluations=self.workload.evaluations, **asked)

    def offered(self, system: System) -> list[Row]:
        """What a system has for this workload."""
        self.report(f"{self.workload.name}: start {system.name}")
        try:
            rows = self.worker(system.name, "").ask("rows", workload=dataclasses.asdict(self.workload))["rows"]
        except Absent as reason:
            failed = {"name": system.name, "line": system.name, "steps": 0, "role": "relaxation", "same": False}
            return [Row(system.name, system.framework, **failed, note="", clock=self.clock, failure=str(reason))]
        if not self.size.whole:
            longest = {row["line"]: row["name"] for row in rows}
            rows = [row for row in rows if row["same"] or row["name"] == longest[row["line"]]]
        return [Row(system.name, system.framework, **row, clock=self.clock) for row in rows]

    def attempt(self, row: Row, do: Callable[[Row], Any]) -> None:
        """Do something with a row that has not failed; a failure is kept with its reason."""
        if row.failure is None:
            try:
                do(row)
            except Absent as reason:
                row.failure = str(reason)

    def ask(self, row: Row, do: str, **message) -> dict:
        """Ask the row's worker."""
        return self.worker(row.system, row.line if self.size.whole else "").ask(do, row=row.name, **message)

    def worker(self, system: str, line: str) -> Client:
        """The worker of one line of a system, started when it is needed first.

        Lines do not share one: what a process has compiled and allocated before decides where its arrays lie, and that
        is seen in its times. Someone who trains a network has compiled little else.

        Raises:
            Absent: it cannot be started.
        """
        key = (system, line)
        if key not in self.workers:
            self.workers[key] = self.start(self.systems[system])
        return self.workers[key]

    def prepare(self, row: Row) -> None:
        """Build it, take a few steps, judge its equilibrium, and find out how long a step takes."""
        self.ask(row, "prepare", workload=dataclasses.asdict(self.workload), problem=self.problem)
        self.ask(row, "train", steps=WARM, out=self.path(row))
        if row.role != "backprop":
            found = self.scratch / "found.npz"
            self.ask(row, "quality", out=found)
            judged = self.helpers["reference"].ask("judge", arrays=found)
            row.error, row.gap = judged["error"], judged["gap"]
        for _ in range(2):  # the first call may compile
            seconds = self.ask(row, "time", steps=row.count)[row.clock] / row.count
            row.count = max(1, min(1000, round(self.size.seconds / max(seconds, 1e-6))))

    def path(self, row: Row) -> Path:
        """Where its weights lie after the first steps."""
        return self.scratch / f"{self.rows.index(row)}.npz"

    def compare(self) -> None:
        """Compare rows that claim to compute the same with the first of them."""
        given = read_arrays(str(self.problem))
        for role in ("backprop", "relaxation"):
            rows = [row for row in self.rows if row.role == role and row.same and row.failure is None]
            for row in rows[1:]:
                row.difference = difference(
                    given, read_arrays(str(self.path(rows[0]))), read_arrays(str(self.path(row)))
                )

    def time(self, row: Row) -> None:
        """One measurement."""
        taken = self.ask(row, "time", steps=row.count)
        row.cpu.append(taken["cpu"] / row.count)
        row.wall.append(taken["wall"] / row.count)


def difference(given: Arrays, one: Arrays, other: Arrays) -> float:
    """Largest difference of two sets of weights over how far the first has moved."""
    moved = max(float(np.max(np.abs(one[name] - given[name]))) for name in one)
    return max(float(np.max(np.abs(one[name] - other[name]))) for name in one) / moved


def over_backprop(rows: list[Row]) -> dict[str, float | None]:
    """Median over rounds of a row's time over the fastest backprop's of its framework."""
    ratios: dict[str, float | None] = {}
    for row in rows:
        backprops = [r for r in rows if r.role == "backprop" and r.framework == row.framework and r.failure is None]
        if row.failure is not None or not backprops:
            ratios[row.name] = None
            continue
        fastest = min(backprops, key=lambda r: r.milliseconds or float("inf"))
        ratios[row.name] = statistics.median(a / b for a, b in zip(row.seconds, fastest.seconds, strict=True))
    return ratios
