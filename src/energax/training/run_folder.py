"""The folder of one run: settings, log, checkpoints, a picture and a page."""

import json
import math
import platform
from pathlib import Path
from typing import Any

import jax

from energax.errors import RunError
from energax.training import checkpoint
from energax.training.checkpoint import write_atomically

History = list[dict[str, Any]]


class RunFolder:
    """Where a run is kept: `config.json`, `metrics.jsonl`, `last.ckpt`, `best.ckpt`, `curve.png`, `summary.md`.

    Args:
        path: the folder; made if it is not there.

    Raises:
        RunError: the folder cannot be made or written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the run folder {self.path}: {error.strerror}; choose another with --out") from error

    @property
    def last(self) -> Path:
        """Checkpoint after the last finished epoch."""
        return self.path / "last.ckpt"

    @property
    def best(self) -> Path:
        """Checkpoint of the epoch with the best validation accuracy."""
        return self.path / "best.ckpt"

    def start(self, config: dict[str, Any]) -> None:
        """Write the settings of a new run.

        Raises:
            RunError: there is a run here already.
        """
        if self.last.exists() or (self.path / "metrics.jsonl").exists():
            raise RunError(f"{self.path} holds a run already: continue it with --resume {self.path}, or choose another "
                           "folder with --out")
        self.write_json("config.json", config)

    def config(self) -> dict[str, Any]:
        """The settings that the run was started with."""
        file = self.path / "config.json"
        try:
            return json.loads(file.read_text())
        except FileNotFoundError as error:
            raise RunError(f"no run at {self.path}: {file.name} is missing") from error
        except ValueError as error:
            raise RunError(f"{file} is damaged: {error}") from error

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file, replacing it as a whole."""
        write_atomically(self.path / name, (json.dumps(finite(content), indent=2) + "\n").encode())

    def write_history(self, history: History) -> None:
        """Write the log, one line of JSON per epoch."""
        lines = "".join(json.dumps(finite(row)) + "\n" for row in history)
        write_atomically(self.path / "metrics.jsonl", lines.encode())

    def save(self, progress, facts: dict[str, Any], *, best: bool) -> None:
        """Write the checkpoints; the log goes into the same file, so that the two cannot disagree."""
        if best:
            checkpoint.save(self.best, progress, facts)
        checkpoint.save(self.last, progress, facts)
        self.write_history(facts["history"])

    def restore(self, like, *, best: bool = False) -> tuple[Any, dict[str, Any]]:
        """Read a checkpoint into the structure of `like`: `(progress, facts)`."""
        return checkpoint.restore(self.best if best else self.last, like)


def machine() -> dict[str, str]:
    """What the numbers of a run depend on besides its settings."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": f"{device.platform}: {device.device_kind}",
        "system": f"{platform.system()} {platform.machine()}",
    }


def finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not have, by null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
