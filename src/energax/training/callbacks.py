"""Who is told of a training while it goes on, and may end it."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energax.checking import require_between, require_callable, require_whole
from energax.exceptions import SettingError
from energax.metrics import Metric

if TYPE_CHECKING:
    from energax.training.learner import Learner


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a training is about to do.

    Attributes:
        epochs: the last epoch.
        batches: in an epoch; None where that is not known.
        done: epochs that are done already.
        metrics: what is told of the outputs; the best epoch is chosen by the first.
        parts: the parts of the data that are told of after an epoch.
    """

    epochs: int
    batches: int | None
    done: int
    metrics: tuple[Metric, ...]
    parts: tuple[str, ...]


class Callback:
    """Who is told of a training. Does nothing: what one of your own does not need, it leaves out."""

    def begin(self, plan: Plan) -> None:
        """A training begins, or goes on."""

    def advance(self, epoch: int, batches: int, averages: dict[str, float]) -> None:
        """`batches` more are done in this epoch, with these averages so far."""

    def epoch(self, row: dict[str, Any], learner: "Learner") -> bool | None:
        """An epoch has ended.

        Args:
            row: its line of the log.
            learner: as it is now. Its arrays are used up by the next epoch: copy what is to be kept.

        Returns:
            True ends the training after this epoch, as if no more had been asked for.
        """

    def warn(self, message: str) -> None:
        """Something is wrong with the epoch that has ended."""

    def end(self) -> None:
        """The training has ended or failed."""


class EarlyStopping(Callback):
    """Ends a training whose validation no longer gets better.

    Args:
        patience: epochs without a better value before it ends.
        least: by how much a value must be better.
        metric: name of the metric; left out, the first one.

    Raises:
        SettingError: numbers out of range; at the beginning of a training: a metric that is not told, or no validation.
    """

    def __init__(self, patience: int = 3, least: float = 0.0, metric: str | None = None):
        require_whole("EarlyStopping: patience", patience, 1)
        require_between("EarlyStopping: least", least, 0, math.inf)
        self.patience, self.least, self.metric = patience, least, metric

    def begin(self, plan):
        """Find the metric."""
        names = [metric.name for metric in plan.metrics]
        if "validation" not in plan.parts:
            raise SettingError("EarlyStopping watches validation rows: give `validation`")
        if self.metric is not None and self.metric not in names:
            raise SettingError(f"EarlyStopping: metric={self.metric!r}: give one of {', '.join(names)}")
        self._watched = plan.metrics[0 if self.metric is None else names.index(self.metric)]
        self._best, self._since = math.nan, 0

    def epoch(self, row, learner):
        """Whether it has waited long enough."""
        value, sign = row[f"validation_{self._watched.name}"], 1 if self._watched.higher_is_better else -1
        if self._watched.better(value - sign * self.least, self._best):
            self._best, self._since = value, 0
        else:
            self._since += 1
        return self._since >= self.patience


class Logger(Callback):
    """Hands every epoch's numbers to a function: the one way to any tracker of experiments.

    Args:
        write: called with the epoch and the numbers by name, as `logger(epoch, {"train_cost": .3, ...})`.
        close: called at the end of the training.
    """

    def __init__(self, write: Callable[[int, dict[str, float]], None], close: Callable[[], None] = lambda: None):
        require_callable("Logger: write", write)
        self._write, self._close = write, close

    def epoch(self, row, learner):
        """Every number of the row; those of a layer by its name."""
        self._write(row["epoch"], flatten_numbers(row))

    def end(self):
        """Close."""
        self._close()


def flatten_numbers(row: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of a row; `layer_cosine/layer1` for those within a dictionary."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= {f"{name}/{inner}": number for inner, number in flatten_numbers(value).items()}
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            found[name] = value
    found.pop("epoch", None)
    return found


def log_to_tensorboard(folder: str | Path) -> Logger:
    """Event files for TensorBoard; needs the extra `tensorboard` (the package tensorboardX).

    Args:
        folder: where the files go.

    Raises:
        SettingError: the package is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise SettingError("log_to_tensorboard needs tensorboardX: pip install 'energax[tensorboard]'") from error
    writer = SummaryWriter(str(folder))

    def write(epoch: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, epoch)

    return Logger(write, writer.close)


def log_to_wandb(run: Any) -> Logger:
    """Numbers for Weights & Biases.

    Args:
        run: what `wandb.init(...)` returned; it is left open.
    """
    return Logger(lambda epoch, numbers: run.log(numbers, step=epoch))
