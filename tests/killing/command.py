"""Kill, resume, compare, and report."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from safetensors.numpy import load_file

from tests.sealing import take_apart

from .run import EPOCHS

ROOT = Path(__file__).parents[2]
AT_ONCE = 10  # moments of one run: each resumption may be killed again
AHEAD = 4  # epochs within which death comes: the first one of a process takes longer than the others
LIMIT = 120.0  # seconds that a run may take
TIMES = ("seconds", "compile_seconds")


@dataclass(frozen=True)
class Death:
    """One moment: how long after the batches of which epoch were done, and what stood in the folder then."""

    epoch: int
    seconds: float
    epochs: int
    files: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.killing", description=__doc__)
    parser.add_argument("--moments", type=int, default=50, help="how often a process is killed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="killing-") as place:
        deaths, differences = kill_and_compare(Path(place), options.moments, options.seed)
    print(*differences, sep="\n")
    caught = sum(any(name.endswith((".part", ".next")) for name in death.files) for death in deaths)
    print(
        f"{len(deaths)} moments in {time.monotonic() - begun:.0f} s, {caught} of them while a file was written; "
        f"{len(differences)} differences from the run that was left alone"
    )
    sys.exit(1 if differences else 0)


def kill_and_compare(place: Path, moments: int, seed: int) -> tuple[list[Death], list[str]]:
    """Kill a run so many times, in several folders if need be, and compare each with one that was left alone.

    Args:
        place: an empty folder.
        moments: how many deaths.
        seed: of the moments.

    Returns:
        The deaths, and in what the resumed runs differ.

    """
    rng, deaths, differences = Random(seed), [], []
    span = Training(place, "whole").finish()
    whole = read_run(place / "whole")
    number = 0
    while len(deaths) < moments:
        name, number = f"killed-{number}", number + 1
        for _ in range(min(AT_ONCE, moments - len(deaths))):
            done = look(place / name)[0]
            if done == EPOCHS:
                break
            # the earlier ones are likelier, so that a run can be killed often
            epoch = min(rng.randint(done + 1, EPOCHS) for _ in range(3))
            death = Training(place, name).kill(epoch, rng.uniform(0, AHEAD * span))
            if death is not None:  # else it had ended before
                deaths.append(death)
                when = f"{1000 * death.seconds:.0f} ms after the batches of epoch {death.epoch}"
                print(f"killed {when}, {death.epochs} kept: {', '.join(death.files)}", flush=True)
        Training(place, name).finish()
        found = read_run(place / name)
        differences += [f"{name}: {part}" for part in whole if found.get(part) != whole[part]]
        differences += [f"{name}: {part} is there" for part in sorted(found.keys() - whole.keys())]
    return deaths, differences


class Training:
    """A process that trains in a folder."""

    def __init__(self, place: Path, name: str):
        self.folder = place / name
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        self.errors = place / f"{name}.errors"
        with self.errors.open("w") as errors:  # the process keeps its own hold on it
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.killing.run", str(self.folder), str(place / "compiled")],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=environment,
            )
        self.told = self.process.stdout

    def finish(self) -> float:
        """Wait for its end; seconds from the batches of one epoch to those of the next, on an average."""
        times = [time.monotonic() for _ in self.told]
        code = self.process.wait(LIMIT)
        self.told.close()
        if code:
            raise AssertionError(f"the run in {self.folder} ended with {code}: {self.errors.read_text()}")
        return (times[-1] - times[1]) / (len(times) - 2) if len(times) > 2 else 0.0

    def kill(self, epoch: int, seconds: float) -> Death | None:
        """Kill it so long after the batches of an epoch are done; None where it has ended by itself."""
        for line in self.told:
            if int(line) == epoch:
                break
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(LIMIT)
            self.told.close()
            return Death(epoch, seconds, *look(self.folder))
        self.finish()
        return None


def look(folder: Path) -> tuple[int, tuple[str, ...]]:
    """Number of epochs of the last checkpoint, and the files there."""
    names = tuple(sorted(path.name for path in folder.iterdir())) if folder.exists() else ()
    last = folder / "last.ckpt"
    return (json.loads(take_apart(last)[0]["facts"])["epoch"] if last.exists() else 0), names


def read_run(folder: Path) -> dict[str, Any]:
    """All that a run leaves and that two runs have in common: not its times, nor its own name."""
    found: dict[str, Any] = {"files": sorted(path.name for path in folder.iterdir())}
    for name in ("last.ckpt", "best.ckpt"):
        facts = json.loads(take_apart(folder / name)[0]["facts"])
        found[f"{name}: history"] = [without_times(row) for row in facts["history"]]
        found[f"{name}: best"] = (facts["epoch"], facts["best"])
        for tensor, array in load_file(folder / name).items():
            found[f"{name}: {tensor}"] = (array.shape, array.dtype.name, array.tobytes())
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found["metrics.jsonl"] = [without_times(json.loads(line)) for line in lines]
    found["result.json"] = without_times(json.loads((folder / "result.json").read_text()))
    config = json.loads((folder / "config.json").read_text())
    found["config.json"] = json.dumps({**config, "run": None})
    return found


def without_times(row: dict[str, Any]) -> str:
    """A row as text, so that NaN equals NaN."""
    return json.dumps({key: value for key, value in row.items() if key not in TIMES})
