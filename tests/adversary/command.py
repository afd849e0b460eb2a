"""Try cases in processes of their own, and report a table."""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import jax

from .case import FAILURES, SECONDS, Outcome, Room, run_case
from .target import GROUPS, Target, load_targets

ROOM = 6 << 30  # bytes of addresses beyond those that a worker begins with: a runaway must not take the machine
GRACE = 15.0  # seconds after which a worker that does not hear its alarm is ended


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.adversary", description=__doc__)
    parser.add_argument("--cases", type=int, default=300, help="how many, over all targets")
    parser.add_argument("--first", type=int, default=0, help="number of the first one: goes on from an earlier run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=GROUPS, help="one kind of file")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of one case")
    parser.add_argument("--again", metavar="TARGET/NUMBER", help="run this case here, and keep its files")
    options = parser.parse_args(arguments)
    targets = [one for one in load_targets().values() if options.only in (None, one.group)]
    if not targets:
        parser.error(f"there are no targets of {options.only} yet")
    if options.again:
        show_case(options.again, options.seed, options.seconds)
        return
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="adversary-") as place:
        results = run_all(options, targets, Path(place))
    failed = report(results, targets, options)
    print(f"{len(results)} cases in {time.monotonic() - begun:.0f} s, {failed} failed")
    sys.exit(1 if failed else 0)


def name_seed(seed: int, number: int) -> str:
    """What fixes a case."""
    return f"{seed}/{number}"


def show_case(again: str, seed: int, seconds: float) -> None:
    """Run one case in this process and tell all about it."""
    name, _, number = again.rpartition("/")
    place = Path(tempfile.mkdtemp(prefix="adversary-"))
    room = Room(place)
    outcome = run_case(load_targets()[name], name_seed(seed, int(number)), room, seconds)
    print(f"{again}: {outcome.kind} after {outcome.seconds:.1f} s, {outcome.megabytes:.0f} MB\n  in {room.case}")
    print(*(f"  {change}" for change in outcome.changes), outcome.detail, sep="\n")
    sys.exit(1 if outcome.kind in FAILURES else 0)


class Worker:
    """A process that runs one case after the other."""

    def __init__(self, place: Path, seconds: float):
        self.seconds = seconds
        place.mkdir()
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, place, seconds), daemon=True)
        self.process.start()
        other.close()
        self.case: tuple[str, int, str] | None = None
        self.until = 0.0

    def give(self, name: str, number: int, seed: str) -> None:
        """Start a case."""
        self.case, self.until = (name, number, seed), time.monotonic() + self.seconds + GRACE
        self.pipe.send((name, seed))

    def look(self) -> Outcome | None:
        """The outcome, if there is one; a process that died or does not answer is one as well."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return Outcome("crashed", f"the process ended with {self.process.exitcode}")
        if time.monotonic() > self.until:
            self.process.kill()
            self.process.join()
            return Outcome("hung", "the process did not answer")
        return None


def work(pipe: Connection, place: Path, seconds: float) -> None:
    """What a worker does."""
    targets, room = load_targets(), Room(place / "room")
    jax.config.update("jax_disable_most_optimizations", True)  # what is compiled runs once
    addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (addresses + ROOM, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            name, seed = pipe.recv()
        except EOFError:
            return
        outcome = run_case(targets[name], seed, room, seconds)
        room.clear()
        pipe.send(outcome)


def run_all(options: argparse.Namespace, targets: list[Target], place: Path) -> list[tuple[str, int, Outcome]]:
    """Run the cases, the targets in turn; each target counts its own."""
    numbers = range(options.first, options.first + options.cases)
    left = [(targets[n % len(targets)].name, n // len(targets)) for n in reversed(numbers)]
    results: list[tuple[str, int, Outcome]] = []
    workers: list[Worker] = []
    started = 0
    while left or any(worker.case for worker in workers):
        while left and len(workers) < options.jobs:
            workers.append(Worker(place / f"worker-{started}", options.seconds))
            started += 1
        for worker in list(workers):
            if worker.case and (outcome := worker.look()):
                results.append((*worker.case[:2], outcome))
                if outcome.kind in FAILURES:
                    tell(*results[-1], options.seed)
                worker.case = None
                if not worker.process.is_alive():
                    workers.remove(worker)
                    continue
            if not worker.case and left:
                name, number = left.pop()
                worker.give(name, number, name_seed(options.seed, number))
        wait([worker.pipe for worker in workers if worker.case], timeout=0.5)
    for worker in workers:
        worker.pipe.close()
        worker.process.join(5)
    return results


def tell(name: str, number: int, outcome: Outcome, seed: int) -> None:
    """Say at once what failed, and how to see it again."""
    print(f"\n{name}/{number}: {outcome.kind} ({'; '.join(outcome.changes)})\n{outcome.detail}")
    print(f"  python -m tests.adversary --seed {seed} --again {name}/{number}", flush=True)


def report(results: list[tuple[str, int, Outcome]], targets: list[Target], options: argparse.Namespace) -> int:
    """Print the table and return how many cases failed."""
    heads = ("cases", "accepted", "refused", *FAILURES, "peak MB", "longest s")
    print(f"\n{'target':22}" + "".join(f"{head:>10}" for head in heads))
    for target in targets:
        print_row(target.name, [outcome for name, _, outcome in results if name == target.name])
    print_row("all", [outcome for *_, outcome in results])
    return sum(outcome.kind in FAILURES for *_, outcome in results)


def print_row(name: str, outcomes: list[Outcome]) -> None:
    """A row of the table."""
    kinds = Counter(outcome.kind for outcome in outcomes)
    counts: list[Any] = [len(outcomes), *(kinds[kind] for kind in ("accepted", "refused", *FAILURES))]
    counts.append(f"{max((outcome.megabytes for outcome in outcomes), default=0):.0f}")
    counts.append(f"{max((outcome.seconds for outcome in outcomes), default=0):.1f}")
    print(f"{name:22}" + "".join(f"{count:>10}" for count in counts))
