"""Intermediate results, one JSON file each: an interrupted experiment continues and ends with the same numbers."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from energax.exceptions import RunError
from energax.training.checkpoint import write_atomically
from energax.training.run_folder import finite

Tell = Callable[[str], None]


class Cells:
    """The parts of one experiment that are done.

    A value goes through JSON before anyone sees it, so a resumed experiment computes with the very numbers that an
    uninterrupted one does. NaN and infinities become None.

    Args:
        folder: where the files are; made if it is not there.
        settings: what the values depend on, plain JSON.
        tell: who is told of the progress.

    Raises:
        RunError: the folder holds parts that were made with other settings, or cannot be made.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], tell: Tell):
        self.folder, self.tell, self.seconds = folder, tell, 0.0
        file, plain = folder / "settings.json", json.loads(json.dumps(settings))
        if file.exists() and read(file) != plain:
            raise RunError(
                f"{folder} holds parts of an experiment with other settings: remove it, or choose another place with "
                "--out"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {folder}: {error.strerror}; choose another with --out") from error
        write_atomically(file, json.dumps(plain, indent=2).encode())

    def __call__(self, name: str, compute: Callable[[], Any]) -> Any:
        """The value of a cell: read where an earlier run left it, else computed and kept.

        Args:
            name: unique in the experiment, usable as a file name.
            compute: returns plain JSON values.
        """
        file = self.folder / f"{name}.json"
        if not file.exists():
            begun = time.perf_counter()
            value = finite(compute())
            took = time.perf_counter() - begun
            write_atomically(file, json.dumps({"seconds": took, "value": value}).encode())
            self.tell(f"{name}  {took:.1f} s")
        kept = read(file)
        self.seconds += kept["seconds"]
        return kept["value"]

    def file(self, name: str) -> Path:
        """A place for a checkpoint within a cell that is not done yet."""
        return self.folder / name

    def clear(self) -> None:
        """Remove the parts of an experiment that is complete."""
        shutil.rmtree(self.folder)


def read(file: Path) -> Any:
    """A JSON file.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read: {error}; remove it, and what it holds is computed again") from error
