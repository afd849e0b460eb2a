"""Environments of other systems: made once from the package index, kept in a cache folder, never shared."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from energax.exceptions import EnergaxError

TIMEOUT = 1800  # seconds for one installation


class Absent(EnergaxError):
    """A system that cannot be measured here; the message is the reason, without folders of this machine."""

    def __init__(self, reason: str):
        super().__init__(re.sub(r"(?<![\w.:/])/(?:[^\s/:'\"]+/)+", "", reason))


@dataclasses.dataclass(frozen=True)
class Environment:
    """What a system needs of its own.

    Attributes:
        name: of its folder.
        installs: arguments of one `pip install` after the other.
        python: the version that it needs, as in `3.12`; the one that runs the benchmark if left out.
        absent: the reason, where it is known beforehand that it cannot be had.
    """

    name: str
    installs: tuple[tuple[str, ...], ...] = ()
    python: str | None = None
    absent: str | None = None

    def interpreter(self, folder: Path) -> Path:
        """The environment's Python, after making the environment if it is not there yet.

        Raises:
            Absent: it cannot be made.
        """
        if self.absent is not None:
            raise Absent(self.absent)
        root, wanted = folder / self.name, json.dumps([self.python, self.installs])
        python, done = root / "bin" / "python", root / "installed.json"
        if done.is_file() and done.read_text() == wanted and python.exists():
            return python
        shutil.rmtree(root, ignore_errors=True)
        run([base(self.python), "-m", "venv", str(root)])
        for arguments in self.installs:
            run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments])
        done.write_text(wanted)
        return python


def base(version: str | None) -> str:
    """An interpreter of this version.

    Raises:
        Absent: there is none.
    """
    if version is None:
        return sys.executable
    candidates = [
        shutil.which(f"python{version}"),
        *sorted((Path.home() / ".pyenv/versions").glob(f"{version}*/bin/python")),
    ]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "--version"], capture_output=True).returncode == 0:
            return str(candidate)
    raise Absent(f"needs Python {version}, which is not on this machine")


def run(command: list[str]) -> None:
    """Run a step of an installation; its last words are the reason where it fails."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.CalledProcessError as error:
        words = (error.stderr or error.stdout).strip().splitlines() or ["no reason given"]
        wrong = [line for line in words if line.startswith("ERROR")] or words
        raise Absent(f"cannot be installed: {wrong[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"cannot be installed: {error}") from error
