"""The folder of one run: settings, log, checkpoints, a picture and a page."""

import contextlib
import json
import math
import os
import platform
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import jax

from energax.exceptions import RunError, SettingError
from energax.files import READ_REMEDY, write_atomically
from energax.training import checkpoint
from energax.training.learner import Learner, Progress, begin

History = list[dict[str, Any]]
LARGEST_CONFIG = 2**20  # bytes of a config.json: a run writes some two thousand


class RunFolder:
    """Where a run is kept: `config.json`, `metrics.jsonl`, `last.ckpt`, `best.ckpt`, `curve.png`, `summary.md`.

    A checkpoint says which run it is of, with which settings, after which epoch, and which epoch was the best so far:
    what does not belong together is refused. An epoch is kept once `last.ckpt` is in its place. A new best checkpoint
    waits beside the old one until then, so that the two always belong to one another, whenever a process is killed.

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

    @property
    def _next_best(self) -> Path:
        """Checkpoint of a best epoch that is not in the last checkpoint yet."""
        return self.path / "best.ckpt.next"

    @contextlib.contextmanager
    def hold(self, *, new: bool) -> Iterator[None]:
        """Keep other processes from training here; the operating system gives the lock back however a process ends.

        Args:
            new: whether the folder may be made; a run that is resumed is there already.

        Raises:
            RunError: another process is at it, there is no folder, or it cannot be made or written.
        """
        try:
            if new:
                self.path.mkdir(parents=True, exist_ok=True)
            else:
                self.config()  # says what is missing
        except OSError as error:
            raise RunError(
                f"cannot make the run folder {self.path}: {error.strerror}; choose another with --out"
            ) from error
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise RunError(
                f"another process is training in {self.path}: wait until it has ended, or choose another folder with "
                "--out"
            ) from error
        except (OSError, NotImplementedError) as error:
            raise RunError(f"cannot write into {self.path}: {error}; choose another folder with --out") from error
        try:
            for part in self.path.glob("*.part"):  # of a process that was killed while it wrote
                part.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def start(self, config: dict[str, Any]) -> None:
        """Write the settings of a new run.

        Raises:
            RunError: there is a run here already, or the folder cannot be written.
        """
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
        self._next_best.unlink(missing_ok=True)
        self.best.unlink(missing_ok=True)  # of a run whose first epoch was never kept
        self.write_json("config.json", {"run": uuid.uuid4().hex, **config})

    def resume(self, config: dict[str, Any], history: History) -> None:
        """Record the new number of epochs of the run that is here, and write its log anew.

        Args:
            config: the settings that are asked for now.
            history: the epochs that are finished, as the last checkpoint has them.

        Raises:
            RunError: it was started with other settings.
            SettingError: it has more epochs already.
        """
        kept = self.config()
        before, now = flatten_config(kept), flatten_config(finite(config))
        for name in sorted(before.keys() & now.keys() - set(LOOSE)):
            if before[name] != now[name]:
                raise RunError(
                    f"the run in {self.path} has {name}={before[name]}, and now {name}={now[name]} is asked "
                    "for: continue with the same settings, or choose another folder with --out"
                )
        if config["epochs"] < len(history):
            raise SettingError(
                f"epochs={config['epochs']}: the run in {self.path} has {len(history)} already; give at least "
                "as many, or choose another folder with --out"
            )
        self.write_json("config.json", {**kept, "epochs": config["epochs"]})
        self.write_history(history)

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
            raise RunError(f"cannot read {log}: {error.strerror}; {READ_REMEDY}") from error

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file, replacing it as a whole."""
        write_atomically(self.path / name, (json.dumps(finite(content), indent=2) + "\n").encode())

    def write_history(self, history: History) -> None:
        """Write the log, one line of JSON per epoch."""
        lines = "".join(json.dumps(finite(row)) + "\n" for row in history)
        write_atomically(self.path / "metrics.jsonl", lines.encode())

    def save(self, progress: Progress, facts: dict[str, Any], *, best: int) -> None:
        """Keep an epoch: the checkpoints, and the log, which is in both of them as well.

        Args:
            progress: where the training stands.
            facts: the history, and what else a resumption needs.
            best: the best epoch so far; the checkpoint of the best is written where this is it.
        """
        epoch = len(facts["history"])
        facts = {**facts, "epoch": epoch, "best": best, "belongs": self._identity()}
        if best == epoch:
            checkpoint.save(self._next_best, progress, facts, progress.as_predictor())
        checkpoint.save(self.last, progress, facts, progress.as_predictor())  # from here on the epoch is kept
        if best == epoch and self._next_best.exists():  # whoever reads the folder may have moved it
            os.replace(self._next_best, self.best)
        self.write_history(facts["history"])

    def _identity(self) -> dict[str, Any]:
        """What the checkpoints of this run have in common: the run, and its settings but for the number of epochs."""
        found = flatten_config(self.config())
        return {name: value for name, value in found.items() if name not in LOOSE}

    def restore(self, learner: Learner, *, best: bool = False) -> tuple[Progress, dict[str, Any]]:
        """Where the run of this learner stands: its progress, and facts about it (the history).

        Args:
            learner: as the run was started with; its own parameters do not matter.
            best: read the epoch with the best validation accuracy instead of the last one.

        Raises:
            RunError: no checkpoint, a damaged one, or one of another network, run, or settings.
        """
        progress, facts = self._read(self.last, learner)
        if not best:
            return progress, facts
        chosen = facts["best"]
        for path in (self.best, self._next_best):  # the second where a process was killed just before it was moved
            if path.exists():
                found, told = self._read(path, learner)
                if told["epoch"] == chosen:
                    if path == self._next_best:
                        os.replace(path, self.best)
                    return found, told
        raise RunError(
            f"{self.best} is not of epoch {chosen}, which {self.last.name} says was the best: restore both from one "
            "copy, or start anew"
        )

    def _read(self, path: Path, learner: Learner) -> tuple[Progress, dict[str, Any]]:
        """A checkpoint of this run."""
        progress, facts = checkpoint.restore(path, begin(learner))
        require_history(path, facts)
        identity, belongs = self._identity(), facts.get("belongs")
        if not isinstance(belongs, dict) or not {"history", "epoch", "best"} <= facts.keys():
            raise RunError(f"{path} is no checkpoint of a run: it does not say which run it is of")
        if belongs.get("run") != identity.get("run"):
            raise RunError(f"{path} is of another run than {self.path / 'config.json'}: restore both from one copy")
        for name in sorted(belongs.keys() | identity.keys()):
            if belongs.get(name) != identity.get(name):
                raise RunError(
                    f"{path} was made with {name}={belongs.get(name)}, and {self.path / 'config.json'} has "
                    f"{name}={identity.get(name)}: put the setting back, or start a new run"
                )
        return progress, facts

    def load(self, learner: Learner, *, best: bool = False) -> Learner:
        """The learner with the parameters that the run ended with; arguments and errors as of `restore`."""
        return self.restore(learner, best=best)[0].as_learner(learner)


LOOSE = ("epochs", "origin", "python", "jax", "device", "system")
"""Settings that a resumption may change."""


NEEDED = ("epoch", "seconds", "compile_seconds")


def require_history(file: Path, facts: Any) -> None:
    """Refuse a checkpoint whose rows of the log lack what a run goes on from."""
    rows = facts.get("history") if isinstance(facts, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise RunError(f"{file} holds no log of a run; {READ_REMEDY}")
    for number, row in enumerate(rows, start=1):
        if lacking := [name for name in NEEDED if name not in row]:
            raise RunError(f"{file}: row {number} of its log has no {', '.join(lacking)}; {READ_REMEDY}")


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
