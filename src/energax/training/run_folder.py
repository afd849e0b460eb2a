"""The folder of one run: settings, log, checkpoints, a picture and a page."""

import json
import math
import os
import platform
from pathlib import Path
from typing import Any

import jax

from energax.exceptions import RunError, SettingError
from energax.training import checkpoint
from energax.training.checkpoint import write_atomically
from energax.training.learner import Learner, Progress, begin

History = list[dict[str, Any]]
LARGEST_CONFIG = 2**20  # bytes of a config.json: a run writes some two thousand


class RunFolder:
    """Where a run is kept: `config.json`, `metrics.jsonl`, `last.ckpt`, `best.ckpt`, `curve.png`, `summary.md`.

    Args:
        path: the folder; made by `start` if it is not there.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def last(self) -> Path:
        """Checkpoint after the last finished epoch."""
        return self.path / "last.ckpt"

    @property
    def best(self) -> Path:
        """Checkpoint of the epoch with the best validation accuracy."""
        return self.path / "best.ckpt"

    def start(self, config: dict[str, Any]) -> None:
        """Make the folder and write the settings of a new run.

        Raises:
            RunError: there is a run here already, or the folder cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"cannot make the run folder {self.path}: {error.strerror}; choose another with --out"
            ) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise RunError(f"cannot write into {self.path}: choose another folder with --out")
        if (self.path / "metrics.jsonl").exists() and not self.last.exists():
            raise RunError(
                f"{self.path} holds the log of a run and no checkpoint to go on from: remove it, or choose another "
                "folder with --out"
            )
        if self.last.exists():
            raise RunError(
                f"{self.path} holds a run already: continue it with --resume {self.path}, or choose another "
                "folder with --out"
            )
        self.write_json("config.json", config)

    def resume(self, config: dict[str, Any], done: int) -> None:
        """Record the new number of epochs of the run that is here, and of which `done` are finished.

        Raises:
            RunError: it was started with other settings.
            SettingError: it has more epochs already.
        """
        kept = self.config()
        before, now = flatten_config(kept), flatten_config(finite(config))
        for name in sorted(before.keys() & now.keys() - {"epochs"}):
            if before[name] != now[name]:
                raise RunError(
                    f"the run in {self.path} has {name}={before[name]}, and now {name}={now[name]} is asked "
                    "for: continue with the same settings, or choose another folder with --out"
                )
        if config["epochs"] < done:
            raise SettingError(
                f"epochs={config['epochs']}: the run in {self.path} has {done} already; give at least "
                "as many, or choose another folder with --out"
            )
        self.write_json("config.json", {**kept, "epochs": config["epochs"]})

    def config(self) -> dict[str, Any]:
        """The settings that the run was started with."""
        file = self.path / "config.json"
        try:
            if file.exists() and not file.is_file():
                raise RunError(f"{file} is no file; give the folder of a run")  # a pipe would never end
            with file.open("rb") as opened:
                content = opened.read(LARGEST_CONFIG + 1)
        except FileNotFoundError as error:
            raise RunError(f"no run at {self.path}: {file.name} is missing; give the folder of a run") from error
        except OSError as error:
            raise RunError(f"cannot read {file}: {error.strerror}; give the folder of a run") from error
        if len(content) > LARGEST_CONFIG:
            raise RunError(
                f"{file} is damaged: it has more than {LARGEST_CONFIG} bytes; restore it from a copy or start the run "
                "anew"
            )
        try:
            config = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{file} is damaged: {error}; restore it from a copy or start the run anew") from error
        if not isinstance(config, dict):
            raise RunError(f"{file} is damaged: it holds no object; restore it from a copy or start the run anew")
        return config

    def epochs(self) -> int:
        """Number of finished epochs that the log holds."""
        log = self.path / "metrics.jsonl"
        try:
            return log.read_bytes().count(b"\n") if log.is_file() else 0
        except OSError as error:
            raise RunError(f"cannot read {log}: {error.strerror}; {checkpoint.REMEDY}") from error

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

    def restore(self, learner: Learner, *, best: bool = False) -> tuple[Progress, dict[str, Any]]:
        """Where the run of this learner stands: its progress, and facts about it (the history).

        Args:
            learner: as the run was started with; its own parameters do not matter.
            best: read the epoch with the best validation accuracy instead of the last one.

        Raises:
            RunError: no checkpoint, a damaged one, or one of another network.
        """
        file = self.best if best else self.last
        progress, facts = checkpoint.restore(file, begin(learner))
        require_history(file, facts)
        return progress, facts

    def load(self, learner: Learner, *, best: bool = False) -> Learner:
        """The learner with the parameters that the run ended with; arguments and errors as of `restore`."""
        return self.restore(learner, best=best)[0].as_learner(learner)


NEEDED = ("epoch", "first_cost", "validation_accuracy", "gradient_cosine", "seconds", "compile_seconds")


def require_history(file: Path, facts: Any) -> None:
    """Refuse a checkpoint whose rows of the log lack what a run goes on from."""
    rows = facts.get("history") if isinstance(facts, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RunError(f"{file} holds no log of a run; {checkpoint.REMEDY}")
    for number, row in enumerate(rows, start=1):
        if lacking := [name for name in NEEDED if name not in row]:
            raise RunError(
                f"{file}: row {number} of its log has no {', '.join(lacking)}: it was written by an older version, and "
                "cannot go on; start the run anew"
            )


def machine() -> dict[str, str]:
    """What the numbers of a run depend on besides its settings."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": f"{device.platform}: {device.device_kind}",
        "system": f"{platform.system()} {platform.machine()}",
    }


def flatten_config(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run by name, those of its recipe among them."""
    own = {name: value for name, value in config.items() if name != "settings"}
    return {**own, **config.get("settings", {})}


def finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not have, by null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
