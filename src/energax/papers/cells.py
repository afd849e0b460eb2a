"""Intermediate results, one JSON file each: an interrupted experiment continues and ends with the same numbers.

Any number of processes may work at one experiment: each cell is computed by one of them.
"""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock

from energax.exceptions import RunError
from energax.files import write_atomically
from energax.opening import read_json
from energax.training.run_folder import finite

Tell = Callable[[str], None]

SETTINGS = "settings.json"
_MOST = 1 << 28  # bytes of the values of one cell


class Cells:
    """The parts of one experiment that are done.

    A value goes through JSON before anyone sees it, so a resumed experiment computes with the very numbers that an
    uninterrupted one does. NaN and infinities become None.

    Args:
        folder: where the files are; made if it is not there.
        settings: what the values depend on, plain JSON.
        tell: who is told of the progress.

    Raises:
        RunError: the folder holds parts that were made with other settings, or are being made, or cannot be made.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], tell: Tell):
        self.folder, self.tell, self.seconds, self._counted = folder, tell, 0.0, set[str]()
        file, plain = folder / SETTINGS, json.loads(json.dumps(settings))
        if file.exists() and read(file) != plain and is_begun(folder):
            raise RunError(
                f"{folder} holds parts of an experiment with other settings: remove it, or choose another place (--out)"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {folder}: {error.strerror}; choose another (--out)") from error
        write_atomically(file, json.dumps(plain, indent=2).encode())

    def __call__(self, name: str, compute: Callable[[], Any]) -> Any:
        """The value of a cell: read where an earlier run left it, else computed and kept.

        Where another process is at the cell, this one waits for it.

        Args:
            name: unique in the experiment, usable as a file name.
            compute: returns plain JSON values.
        """
        if not self.file(f"{name}.json").exists():
            with self._lock(name):
                self._compute(name, compute)
        return self._read(name)

    def offer(self, name: str, compute: Callable[[], Any]) -> Any | None:
        """As a call, but None at once where another process is at the cell."""
        if not self.file(f"{name}.json").exists():
            try:
                with self._lock(name).acquire(blocking=False):
                    self._compute(name, compute)
            except filelock.Timeout:
                self.tell(f"{name}  is being computed by another process")
                return None
        return self._read(name)

    def finished(self) -> dict[str, Any]:
        """Name -> value of every cell that is done, by whichever process and settings."""
        names = sorted(file.stem for file in self.folder.glob("*.json") if file.name != SETTINGS)
        return {name: self._read(name) for name in names}

    def _lock(self, name: str) -> filelock.BaseFileLock:
        """The operating system gives it back when a process ends, however that happens."""
        return filelock.FileLock(self.file(f"{name}.lock"))

    def _compute(self, name: str, compute: Callable[[], Any]) -> None:
        """Compute and keep, unless another process has just done so."""
        file = self.file(f"{name}.json")
        if file.exists():
            return
        begun = time.perf_counter()
        value = finite(compute())
        took = time.perf_counter() - begun
        write_atomically(file, json.dumps({"seconds": took, "value": value}).encode())
        self.tell(f"{name}  {took:.1f} s")

    def _read(self, name: str) -> Any:
        kept = read(self.file(f"{name}.json"))
        if name not in self._counted:
            self._counted.add(name)
            self.seconds += kept["seconds"]
        return kept["value"]

    def file(self, name: str) -> Path:
        """A place for a checkpoint within a cell that is not done yet."""
        return self.folder / name

    def clear(self) -> None:
        """Remove the parts of an experiment that is complete."""
        shutil.rmtree(self.folder)


def is_begun(folder: Path) -> bool:
    """Whether a folder holds a cell that is done, or one that some process is at; a mistyped setting leaves neither."""
    for file in folder.iterdir():
        if file.suffix == ".lock":
            try:
                with filelock.FileLock(file).acquire(blocking=False):
                    continue
            except filelock.Timeout:
                return True
        if file.name != SETTINGS:
            return True
    return False


def read(file: Path) -> Any:
    """A JSON file.

    Raises:
        RunError: it cannot be read.
    """
    return read_json(file, "Remove it, and what it holds is computed again.", most=_MOST, kind=RunError)
