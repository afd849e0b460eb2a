"""The folder of one run: settings, log, checkpoints, a picture and a page."""

import json
import math
import platform
from pathlib import Path
from typing import Any

import jax

from energax.exceptions import RunError, SettingError
from energax.files import write_atomically
from energax.training import checkpoint
from energax.training.learner import Learner, Progress, begin

History = list[dict[str, Any]]


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
        if self.last.exists() or (self.path / "metrics.jsonl").exists():
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
        for name in sorted(before.keys() & now.keys() - {"epochs", "origin"}):
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
            return dict(json.loads(file.read_text()))
        except FileNotFoundError as error:
            raise RunError(f"no run at {self.path}: {file.name} is missing; give the folder of a run") from error
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{file} is damaged: {error}; restore it from a copy or start the run anew") from error

    def epochs(self) -> int:
        """Number of finished epochs that the log holds."""
        log = self.path / "metrics.jsonl"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file, replacing it as a whole."""
        write_atomically(self.path / name, (json.dumps(finite(content), indent=2) + "\n").encode())

    def write_history(self, history: History) -> None:
        """Write the log, one line of JSON per epoch."""
        lines = "".join(json.dumps(finite(row)) + "\n" for row in history)
        write_atomically(self.path / "metrics.jsonl", lines.encode())

    def save(self, progress: Progress, facts: dict[str, Any], *, best: bool) -> None:
        """Write the checkpoints; the log goes into the same file, so that the two cannot disagree."""
        if best:
            checkpoint.save(self.best, progress, facts, progress.as_predictor())
        checkpoint.save(self.last, progress, facts, progress.as_predictor())
        self.write_history(facts["history"])

    def restore(self, learner: Learner, *, best: bool = False) -> tuple[Progress, dict[str, Any]]:
        """Where the run of this learner stands: its progress, and facts about it (the history).

        Args:
            learner: as the run was started with; its own parameters do not matter.
            best: read the epoch with the best validation accuracy instead of the last one.

        Raises:
            RunError: no checkpoint, a damaged one, or one of another network.
        """
        return checkpoint.restore(self.best if best else self.last, begin(learner))

    def load(self, learner: Learner, *, best: bool = False) -> Learner:
        """The learner with the parameters that the run ended with; arguments and errors as of `restore`."""
        return self.restore(learner, best=best)[0].as_learner(learner)


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
