"""Progress on the terminal, on standard error so that standard output stays clean."""

import warnings

import rich.console
import rich.progress

from energax.metrics import number
from energax.training.callbacks import Callback
from energax.training.metrics import RELAXATION_METRICS


class TrainingWarning(UserWarning):
    """An epoch ended, and something is wrong with it."""


class WarningsOnly(Callback):
    """Tells of what is wrong, as Python warnings."""

    def warn(self, message):
        """Warn."""
        warnings.warn(message, TrainingWarning, stacklevel=2)


class Terminal(Callback):
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

    def begin(self, plan):
        """Show the bar."""
        self.plan = plan
        whole = None if plan.batches is None else plan.epochs * plan.batches
        done = 0 if plan.batches is None else plan.done * plan.batches
        self.task = self.bar.add_task("compiling", total=whole, completed=done, note="")
        self.bar.start()

    def advance(self, epoch, batches, averages):
        """Move it, with the averages so far."""
        shown = [metric for metric in self.plan.metrics + RELAXATION_METRICS if metric.brief]
        note = "  ".join(f"{m.title} {m.show(averages[m.name])}" for m in shown if is_known(averages[m.name]))
        self.bar.update(self.task, advance=batches, description=f"epoch {epoch}/{self.plan.epochs}", note=note)

    def epoch(self, row, learner):
        """One line per epoch."""
        parts = [f"epoch {row['epoch']:>3}"]
        for part in self.plan.parts:
            shown = (
                f"{metric.title} {metric.show(row[f'{part}_{metric.name}'])}"
                for metric in self.plan.metrics
                if metric.brief
            )
            parts.append(f"{part} {' '.join(shown)}")
        brief = [metric for metric in RELAXATION_METRICS if metric.brief]
        parts += [f"{metric.title} {metric.show(row[metric.name])}" for metric in brief if is_known(row[metric.name])]
        if "gradient_cosine" in row:
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
