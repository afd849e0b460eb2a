"""One case: files are copied and changed, then opened under a limit of time, and what came of it is judged."""

import os
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from energax.exceptions import EnergaxError

from .mutations import mutate
from .target import Target

SECONDS = 20.0
MEGABYTES = 1_000.0  # beyond what the process had before
LONGEST_MESSAGE = 4_000
FAILURES = ("crashed", "hung", "memory", "outside")


@dataclass(frozen=True)
class Outcome:
    """What came of a case: `accepted`, `refused`, or one of `FAILURES`."""

    kind: str
    detail: str = ""
    changes: tuple[str, ...] = ()
    megabytes: float = 0.0
    seconds: float = 0.0


class Hang(BaseException):
    """The time is over; nothing that catches errors catches this."""


class Room:
    """A folder for cases, with things around them that must stay as they are."""

    def __init__(self, place: Path):
        self.place = place
        self.around, self.case = place / "around", place / "around" / "in" / "case"
        for name in ("in", "here", "temporary"):
            (self.around / name).mkdir(parents=True)
        (self.around / "sentinel").write_text("stays as it is\n")

    def prepare(self, target: Target, rng: Random) -> tuple[str, ...]:
        """Put changed files of a target into the folder of the case."""
        template = self.place / "templates" / target.name
        if not template.exists():
            template.mkdir(parents=True)
            target.make(template)
        self.clear()
        shutil.copytree(template, self.case)
        return tuple(mutate(rng, self.case, target.mutations))

    def clear(self) -> None:
        """Remove the last case."""
        shutil.rmtree(self.case, ignore_errors=True)

    def look_around(self) -> dict[str, tuple[int, ...]]:
        """Everything beside the case."""
        found = {}
        for folder, folders, files in os.walk(self.around):
            if Path(folder) == self.case.parent:
                folders.remove("case")
            for name in (*folders, *files):
                facts = os.lstat(Path(folder, name))
                changed = 0 if name == "in" or name in folders else facts.st_mtime_ns
                found[os.path.join(folder, name)] = (facts.st_mode, facts.st_size if changed else 0, changed)
        return found


def run_case(target: Target, seed: str, room: Room, seconds: float = SECONDS, most: float = MEGABYTES) -> Outcome:
    """Run one case in this process.

    Args:
        target: what is tried.
        seed: fixes what is done to its files.
        room: where.
        seconds: limit of time.
        most: limit of memory, in megabytes beyond what the process has.

    """
    changes = room.prepare(target, Random(f"{target.name}/{seed}"))
    before, start, begun = room.look_around(), reset_peak(), time.monotonic()
    with living_in(room):
        kind, detail = judge(target, room.case, seconds)
    megabytes, took = max(0.0, find_peak() - start), time.monotonic() - begun
    if kind not in FAILURES and megabytes > most:
        kind, detail = "memory", f"{megabytes:.0f} MB"
    if kind not in FAILURES and (after := room.look_around()) != before:
        kind, detail = "outside", str(sorted({*after.items()} ^ {*before.items()}))
    return Outcome(kind, detail, changes, megabytes, took)


def judge(target: Target, folder: Path, seconds: float) -> tuple[str, str]:
    """Open the files and say what came of it."""
    opening = True

    def stop(*_: Any) -> None:
        if opening:  # an alarm that comes late, when the case has ended, would otherwise end whoever runs it
            raise Hang

    old = signal.signal(signal.SIGALRM, stop)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            target.open(folder)
        finally:
            opening = False
    except EnergaxError as error:
        message = str(error)
        if len(message) > LONGEST_MESSAGE:
            return "crashed", f"a message of {len(message)} characters: {message[:200]}"
        return "refused", message
    except Hang:
        return "hung", traceback.format_exc()
    except Exception:
        return "crashed", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    return "accepted", ""


@contextmanager
def living_in(room: Room) -> Iterator[None]:
    """Current and temporary folders inside of a room: what is written there carelessly is seen."""
    names = ("TMPDIR", "ENERGAX_CACHE", "ENERGAX_DATA")
    kept, here, temporary = {name: os.environ.get(name) for name in names}, os.getcwd(), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = str(room.around / "temporary")
    os.environ["ENERGAX_CACHE"] = str(room.case / "cache")
    os.environ.pop("ENERGAX_DATA", None)
    os.chdir(room.around / "here")
    try:
        yield
    finally:
        os.chdir(here)
        tempfile.tempdir = temporary
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def reset_peak() -> float:
    """Forget the largest memory so far where the system can; return it in megabytes."""
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5")
    return find_peak()


def find_peak() -> float:
    """The largest memory of this process since `reset_peak`, in megabytes."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000
