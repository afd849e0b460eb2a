"""Progress on the terminal, on standard error so that standard output stays clean."""

import warnings
from typing import Any, Protocol

import rich.console
import rich.progress

from energax.training.metrics import METRICS, RELAXATION_METRICS, number


class Display(Protocol):
    """What the training loop tells of itself."""

    def begin(self, epochs: int, batches: int, done: int) -> None:
        """A run begins, or goes on after `done` epochs."""

    def advance(self, epoch: int, batches: int, averages: dict[str, float]) -> None:
        """`batches` more are done in this epoch, with these averages so far."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch has ended."""

    def warn(self, message: str) -> None:
        """Something is wrong with the epoch that has ended."""

    def end(self) -> None:
        """The run has ended or failed."""


class Silent:
    """Tells nothing."""

    def begin(self, epochs, batches, done):
        """Nothing."""

    def advance(self, epoch, batches, averages):
        """Nothing."""

    def epoch(self, row):
        """Nothing."""

    def warn(self, message):
        """Nothing: it stands in the log."""

    def end(self):
        """Nothing."""


class TrainingWarning(UserWarning):
    """An epoch ended, and something is wrong with it."""


class WarningsOnly(Silent):
    """Tells of what is wrong, as Python warnings."""

    def warn(self, message):
        """Warn."""
        warnings.warn(message, TrainingWarning, stacklevel=2)


class Terminal:
    """A bar over the whole run and one line per epoch."""

    def __init__(self):
        """Write to standard error."""
        self.console = rich.console.Console(stderr=True, highlight=False)
        self.bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("{task.fields[note]}"),
            rich.progress.TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
        )
        self.epochs = 0

    def begin(self, epochs, batches, done):
        """Show the bar."""
        self.epochs = epochs
        self.task = self.bar.add_task("compiling", total=epochs * batches, completed=done * batches, note="")
        self.bar.start()

    def advance(self, epoch, batches, averages):
        """Move it, with the averages so far."""
        shown = [metric for metric in METRICS + RELAXATION_METRICS if metric.brief]
        note = "  ".join(f"{m.title} {m.show(averages[m.name])}" for m in shown if is_known(averages[m.name]))
        self.bar.update(self.task, advance=batches, description=f"epoch {epoch}/{self.epochs}", note=note)

    def epoch(self, row):
        """One line per epoch."""
        parts = [f"epoch {row['epoch']:>3}"]
        for part in ("train", "validation"):
            shown = (
                f"{metric.title} {metric.show(row[f'{part}_{metric.name}'])}" for metric in METRICS if metric.brief
            )
            parts.append(f"{part} {' '.join(shown)}")
        brief = [metric for metric in RELAXATION_METRICS if metric.brief]
        parts += [f"{metric.title} {metric.show(row[metric.name])}" for metric in brief if is_known(row[metric.name])]
        parts.append(f"cosine to {row['reference']} {number(row['gradient_cosine'])}")
        parts.append(f"{row['seconds']:.1f} s")
        if row["compile_seconds"] > SEEN:
            parts.append(f"compiling {row['compile_seconds']:.1f} s")
        self.bar.console.print("  ".join(parts), soft_wrap=True)

    def warn(self, message):
        """A line in colour."""
        self.bar.console.print(f"  warning: {message}", style="yellow", soft_wrap=True)

    def end(self):
        """Take the bar away."""
        self.bar.stop()


SEEN = 0.05  # seconds of compiling below which nothing was compiled


def is_known(value: float) -> bool:
    """Whether there is such a number: what was not relaxed has none."""
    return value == value
