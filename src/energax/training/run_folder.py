"""The folder of one run: settings, log, checkpoints, a picture and a page."""

import contextlib
import json
import math
import os
import platform
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock
import jax

from energax.checking import require_kind, tell
from energax.exceptions import RunError, SettingError
from energax.files import remove_parts, write_atomically
from energax.opening import open_file, read_json, shorten
from energax.saving.container import READ_REMEDY
from energax.training import checkpoint
from energax.training.learner import Learner, Progress, begin

History = list[dict[str, Any]]
LARGEST_LOG = 2**30  # bytes of a metrics.jsonl: an epoch writes some two thousand
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
        require_kind("folder", path, (str, os.PathLike), "give the path of a folder")
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
                f"cannot make the run folder {self.path}: {error.strerror}; choose another (--out)"
            ) from error
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise RunError(
                f"another process is training in {self.path}: wait until it has ended, or choose another folder (--out)"
            ) from error
        except OSError as error:
            raise RunError(f"cannot write into {self.path}: {error}; choose another folder (--out)") from error
        try:
            remove_parts(self.path)
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
                "folder (--out)"
            )
        if self.last.exists():
            raise RunError(
                f"{self.path} holds a run already: continue it (resume=True; --resume {self.path}), or choose another "
                "folder (--out)"
            )
        self._next_best.unlink(missing_ok=True)
        self.best.unlink(missing_ok=True)  # of a run whose first epoch was never kept
        self.write_json("config.json", {"run": uuid.uuid4().hex, **config})

    def require_same(self, config: dict[str, Any], facts: dict[str, Any]) -> None:
        """Refuse to go on with the run that is here under other settings, or to fewer epochs.

        Args:
            config: the settings that are asked for now.
            facts: what `restore` says of the last checkpoint.

        Raises:
            RunError: it was started with other settings.
            SettingError: it has more epochs already.
        """
        before, now = flatten_config(self.config()), flatten_config(finite(config))
        for name in sorted(before.keys() & now.keys() - set(LOOSE)):
            if before[name] != now[name]:
                raise RunError(
                    f"the run in {self.path} has {name}={tell(before[name])}, and now {name}={tell(now[name])} is "
                    "asked for: continue with the same settings, or choose another folder (--out)"
                )
        if config["epochs"] < facts["epoch"]:
            raise SettingError(
                f"epochs={config['epochs']}: the run in {self.path} has {facts['epoch']} already; give at least "
                "as many, or choose another folder (--out)"
            )

    def resume(self, config: dict[str, Any], facts: dict[str, Any]) -> None:
        """Go on with the run that is here: finish what a killed process began, and record the new number of epochs.

        Arguments as of `require_same`, which they have passed.
        """
        if self._next_best.exists():
            if self._find_best(facts["best"]) == self._next_best:
                os.replace(self._next_best, self.best)
            else:  # of an epoch that was never kept
                self._next_best.unlink()
        self.write_json("config.json", {**self.config(), "epochs": config["epochs"]})
        self.write_history(facts["history"])

    def config(self) -> dict[str, Any]:
        """The settings that the run was started with."""
        file = self.path / "config.json"
        missing = f"no run at {self.path}: {file.name} is missing; give the folder of a run"
        remedy = "Restore it from a copy or start the run anew."
        config = read_json(file, remedy, most=LARGEST_CONFIG, kind=RunError, missing=missing)
        if not isinstance(config, dict):
            raise RunError(f"{file}: it holds no object of JSON. {remedy}")
        if not isinstance(config.get("settings", {}), dict):
            raise RunError(f"{file}: settings={tell(config['settings'])}: give an object. {remedy}")
        for name, value in config.get("settings", {}).items():
            if value is not None and name in config and config[name] != value:
                raise RunError(
                    f"{file}: {shorten(name, 40)}={tell(config[name])}, and {tell(value)} among the settings. {remedy}"
                )
        return config

    def epochs(self) -> int:
        """Number of finished epochs that the log holds."""
        log = self.path / "metrics.jsonl"
        if not log.exists():
            return 0
        with open_file(log, LARGEST_LOG, f"{READ_REMEDY.capitalize()}.", kind=RunError) as opened:
            return sum(piece.count(b"\n") for piece in iter(lambda: opened.read(2**20), b""))

    def require_settings(self) -> None:
        """Refuse a run whose `config.json` has been changed since its last epoch, before anything is built from it.

        Raises:
            RunError: another setting, which is named, or no checkpoint.
        """
        self._require_own(self.last, checkpoint.read_facts(self.last))

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
        if best == epoch:
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
        return self._read(self._find_best(facts["best"]), learner) if best else (progress, facts)

    def _find_best(self, epoch: int) -> Path:
        """The checkpoint of the best epoch: where a process was killed before it was moved, it is still the next."""
        for path in (self.best, self._next_best):
            if path.exists() and checkpoint.read_facts(path).get("epoch") == epoch:
                return path
        raise RunError(
            f"{self.best} is not of epoch {epoch}, which {self.last.name} says was the best: restore both from one "
            "copy, or start anew"
        )

    def _read(self, path: Path, learner: Learner) -> tuple[Progress, dict[str, Any]]:
        """A checkpoint of this run."""
        progress, facts = checkpoint.restore(path, begin(learner))
        self._require_own(path, facts)
        return progress, facts

    def _require_own(self, path: Path, facts: dict[str, Any]) -> None:
        """Refuse what a checkpoint says if it is of another run, or of other settings."""
        require_history(path, facts)
        identity, belongs = self._identity(), facts.get("belongs")
        if not isinstance(belongs, dict):
            raise RunError(f"{path} is no checkpoint of a run: it does not say which run it is of")
        if belongs.get("run") != identity.get("run"):
            raise RunError(f"{path} is of another run than {self.path / 'config.json'}: restore both from one copy")
        for name in sorted(belongs.keys() | identity.keys()):
            before, now = belongs.get(name), identity.get(name)
            if before != now:
                raise RunError(
                    f"{path} was made with {shorten(name, 40)}={tell(before)}, and {self.path / 'config.json'} has "
                    f"{shorten(name, 40)}={tell(now)}: put the setting back, or start a new run"
                )

    def load(self, learner: Learner, *, best: bool = False) -> Learner:
        """The learner with the parameters that the run ended with; arguments and errors as of `restore`."""
        return self.restore(learner, best=best)[0].as_learner(learner)


LOOSE = ("epochs", "origin", "python", "jax", "device", "system")
"""Settings that a resumption may change."""


def require_history(file: Path, facts: dict[str, Any]) -> None:
    """Refuse a checkpoint whose log is none that a run could have written: rows of numbers, epoch after epoch."""
    rows = facts.get("history")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise RunError(f"{file} holds no log of a run; {READ_REMEDY}")
    for number, row in enumerate(rows, start=1):
        for name, value in row.items():
            if not KINDS.get(name, is_number)(value):
                raise RunError(f"{file}: row {number} of its log has {shorten(name, 40)}={tell(value)}; {READ_REMEDY}")
        if row.get("epoch") != number:
            raise RunError(f"{file}: row {number} of its log is of epoch {tell(row.get('epoch'))}; {READ_REMEDY}")
    for name, most in (("epoch", len(rows)), ("best", len(rows))):
        value = facts.get(name)
        if type(value) is not int or not 1 <= value <= most or (name == "epoch" and value != most):
            raise RunError(f"{file} is of {len(rows)} epochs, and says {name}={tell(value)}; {READ_REMEDY}")


def require_names(file: Path, history: History, names: Iterable[str]) -> None:
    """Refuse a log that lacks what this training tells: its parts of the data or its metrics were others."""
    for row in history:
        if lacking := sorted(set(names) - row.keys()):
            raise RunError(
                f"{file}: row {row['epoch']} of its log has no {', '.join(lacking)}, which this training goes on from: "
                "give the same validation rows and metrics as before, or start anew"
            )


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


KINDS: dict[str, Callable[[Any], bool]] = {
    "reference": lambda value: isinstance(value, str),
    "warnings": lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value),
    **dict.fromkeys(
        ("layer_cosine", "layer_norm_ratio"),
        lambda value: isinstance(value, dict) and all(map(is_number, value.values())),
    ),
}
"""Names of what is no number in a row of the log, and whether a value is one of them."""


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
