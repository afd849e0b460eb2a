"""Progress on the terminal, on standard error so that standard output stays clean."""

from typing import Any, Protocol

import rich.console
import rich.progress

from energax.training.pages import number, percent


class Display(Protocol):
    """What the training loop tells of itself."""

    def begin(self, epochs: int, batches: int, done: int) -> None:
        """A run begins, or goes on after `done` epochs."""

    def advance(self, epoch: int, batches: int, averages: dict[str, float]) -> None:
        """`batches` more are done in this epoch, with these averages so far."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch has ended."""

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

    def end(self):
        """Nothing."""


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
        """Move it, with cost, accuracy and residual so far."""
        note = f"cost {number(averages['cost'])}  accuracy {percent(averages['accuracy'])}"
        if averages["residual"] == averages["residual"]:
            note += f"  residual {number(averages['residual'])}"
        self.bar.update(self.task, advance=batches, description=f"epoch {epoch}/{self.epochs}", note=note)

    def epoch(self, row):
        """One line per epoch, with a warning where relaxations did not settle."""
        line = (
            f"epoch {row['epoch']:>3}  cost {number(row['train_cost'])}  train {percent(row['train_accuracy'])}  "
            f"validation {percent(row['validation_accuracy'])}"
        )
        if row["residual"] == row["residual"]:
            line += (
                f"  residual {number(row['residual'])}  converged {percent(row['converged_fraction'])}"
                f"  stalled {percent(row['stalled_fraction'])}"
            )
        line += f"  cosine to {row['reference']} {number(row['gradient_cosine'])}  {row['seconds']:.1f} s"
        self.bar.console.print(line, soft_wrap=True)
        left = row["out_of_steps_fraction"]
        if left == left and left > 0.01:
            self.bar.console.print(
                f"  [yellow]{percent(left)} of the relaxations ran out of steps: "
                "raise --max-relaxation-steps, or loosen --relaxation-tol[/]",
                soft_wrap=True,
            )
        if row["diverged_fraction"] > 0:
            self.bar.console.print(
                f"  [red]{percent(row['diverged_fraction'])} of the relaxations diverged and did "
                "not train: lower --step-size[/]",
                soft_wrap=True,
            )

    def end(self):
        """Take the bar away."""
        self.bar.stop()
