"""Plant mutants one at a time in a copy of the tree, and run the tests of the room that they are in."""

import argparse
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .mutants import Mutant, find_mutants

ROOT = Path(__file__).parents[2]
PACKAGE = Path("src") / "energax"
CORE = [
    *(PACKAGE / room for room in ("graph", "dynamics", "solvers", "rules", "diagnostics")),
    *(PACKAGE / "training" / f"{name}.py" for name in ("learner", "epoch", "loop")),
    *(PACKAGE / f"{name}.py" for name in ("costs", "activations", "arithmetic")),
]
WIDER = ["tests/rules", "tests/dynamics", "tests/solvers", "tests/graph", "tests/test_golden.py", "tests/training"]
COPIED = ["src", "tests", "docs", "benchmarks", "pyproject.toml", "README.md", "CITATION.cff"]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="which mutants; a larger count continues a smaller one")
    parser.add_argument("--count", type=int, default=60, help="how many of them")
    parser.add_argument("--only", default="", help="only files whose path holds this text")
    parser.add_argument("--wider", action="store_true", help="show what a room lets through to the other rooms as well")
    parser.add_argument("--again", action="store_true", help="try those again that survived")
    parser.add_argument("--out", type=Path, default=Path("runs/mutations"), help="results; a run goes on from there")
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    options = parser.parse_args()
    mutants = draw(options.seed, options.count, options.only)
    if options.list:
        for mutant in mutants:
            print(f"{mutant.path}:{mutant.line}: {mutant.kind}\n{difference(mutant)}")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "mutants.jsonl"
    known = {row["name"]: row for row in read(log) if not (options.again and row["outcome"] == "survived")}
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        trial = Trial(Path(folder), options.wider)
        for number, mutant in enumerate(mutants, 1):
            if mutant.name not in known:
                known[mutant.name] = row = trial.try_mutant(mutant)
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            row = known[mutant.name]
            at = f"{row['path']}:{row['line']}"
            print(f"{number}/{len(mutants)} {at} {row['kind']}: {row['outcome']} {row['by']}", flush=True)
    report([known[mutant.name] for mutant in mutants])


def draw(seed: int, count: int, only: str) -> list[Mutant]:
    """The first mutants of the core in an order that the seed decides."""
    files = sorted(file for place in CORE for file in find_sources(ROOT / place) if file.name != "__init__.py")
    every: list[Mutant] = []
    for file in files:
        path = file.relative_to(ROOT).as_posix()
        if only in path:
            every += find_mutants(path, file.read_text(encoding="utf-8"))
    random.Random(seed).shuffle(every)
    return every[:count]


def find_sources(place: Path) -> Iterator[Path]:
    """A file itself, or the Python files of a folder."""
    yield from [place] if place.is_file() else place.rglob("*.py")


def read(log: Path) -> list[dict]:
    """The rows of an earlier run; a line that was cut off by its end does not count."""
    if not log.exists():
        return []
    rows = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


class Trial:
    """A copy of the tree in which mutants are planted. Tests run there, never in the tree itself."""

    def __init__(self, folder: Path, wider: bool):
        self.folder, self.wider = folder, wider
        self.limits: dict[str, float] = {}
        for name in COPIED:
            whole = shutil.ignore_patterns("__pycache__", "*.egg-info")
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, folder / name, **({"ignore": whole} if source.is_dir() else {}))
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        where = [sys.executable, "-c", "import energax; print(energax.__file__)"]
        found = subprocess.run(where, cwd=folder, env=self.environment, capture_output=True, text=True, check=True)
        if not Path(found.stdout.strip()).is_relative_to(folder):
            sys.exit(f"the tests would import {found.stdout.strip()}, which is not the copy: nothing was changed")

    def try_mutant(self, mutant: Mutant) -> dict:
        """Plant it, run the tests until one fails, and take it out again."""
        begun = time.perf_counter()
        stages = [find_tests(mutant.path), WIDER] if self.wider else [find_tests(mutant.path)]
        outcome, by = "survived", ""
        for stage in stages:
            limit = self.limit(stage)
            target = self.folder / mutant.path
            sound = target.read_text(encoding="utf-8")
            target.write_text(mutant.source, encoding="utf-8")
            try:
                outcome, by = self.run_tests(stage, limit)
            finally:
                target.write_text(sound, encoding="utf-8")
            if outcome == "killed":
                break
        row = {"name": mutant.name, "path": mutant.path, "line": mutant.line, "kind": mutant.kind}
        seconds = round(time.perf_counter() - begun, 1)
        return {**row, "outcome": outcome, "by": by, "seconds": seconds, "difference": difference(mutant)}

    def limit(self, stage: list[str]) -> float:
        """Seconds that these tests may take: many times what they take without a mutant, where they must pass."""
        key = " ".join(sorted(stage))
        if key not in self.limits:
            begun = time.perf_counter()
            outcome, by = self.run_tests(stage, 3600)
            if outcome != "survived":
                sys.exit(f"without any mutant the tests fail: {by}")
            self.limits[key] = 60 + 4 * (time.perf_counter() - begun)
        return self.limits[key]

    def run_tests(self, paths: list[str], limit: float) -> tuple[str, str]:
        """`killed` and the test that failed, or `survived`; tests that do not end have noticed as well."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", *paths]
        pipe = subprocess.PIPE
        # of its own session, so that what the tests started ends with them
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            told, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return "killed", f"no end after {limit:.0f} s"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        if process.returncode == 0:
            return "survived", ""
        failed = [line for line in told.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return "killed", failed[0].split(" - ")[0] if failed else told.strip()[-200:]


def find_tests(path: str) -> list[str]:
    """The tests of the room that a file is in, those that have its name first."""
    file = Path(path)
    room = file.relative_to(PACKAGE).parts[0]
    if room == file.name:
        named = Path("tests") / f"test_{file.stem}.py"
        return [named.as_posix()] if (ROOT / named).exists() else ["tests/dynamics", "tests/rules"]
    tests = sorted((ROOT / "tests" / room).glob("test_*.py"), key=lambda test: (file.stem not in test.stem, test.stem))
    return [test.relative_to(ROOT).as_posix() for test in tests]


def difference(mutant: Mutant) -> str:
    """The change as a unified diff without context."""
    sound = (ROOT / mutant.path).read_text(encoding="utf-8").splitlines()
    lines = difflib.unified_diff(sound, mutant.source.splitlines(), mutant.path, mutant.path, lineterm="", n=0)
    return "\n".join(list(lines)[2:])


def report(rows: list[dict]) -> None:
    """The share that was noticed, by kind, and what was not."""
    outcomes = Counter(row["outcome"] for row in rows)
    print(f"\n{outcomes['killed']} of {len(rows)} killed, {outcomes['survived']} survived")
    for kind in sorted({row["kind"] for row in rows}):
        of_kind = [row["outcome"] for row in rows if row["kind"] == kind]
        print(f"  {kind}: {of_kind.count('killed')} of {len(of_kind)}")
    for row in rows:
        if row["outcome"] == "survived":
            print(f"\nsurvived: {row['path']}:{row['line']}: {row['kind']}\n{row['difference']}")
