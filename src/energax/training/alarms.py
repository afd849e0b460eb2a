"""What is wrong with an epoch that ended all the same: nothing fails in silence."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from energax.metrics import number, percent

GROWN = 10.0  # times the cost before the first update: no batch is that much harder than another
TOLERATED = 0.01  # share of relaxations, or of rows, that may end out of steps unmentioned


class Alarm(NamedTuple):
    """One thing that is wrong.

    Attributes:
        kind: what it is, the same in every epoch.
        message: the epoch, the number and the remedy.
    """

    kind: str
    message: str


def find_alarms(row: dict[str, Any], stepwise: bool) -> list[Alarm]:
    """What is wrong with one row of the log.

    Args:
        row: the row.
        stepwise: whether the rule learns after every single step, so that none is meant to end a relaxation.
    """
    epoch, first, found = row["epoch"], row.get("first_cost"), []
    for part in ("train", "validation"):
        cost = row.get(f"{part}_cost")
        if cost is not None and first is not None and cost > GROWN * first:
            message = (
                f"epoch {epoch}: the {part} cost is {number(cost)}, {number(cost / first)} times the {number(first)} "
                "before the first update: lower --learning-rate, or give --clip"
            )
            found.append(Alarm(f"{part} cost", message))
    if row["diverged_fraction"] > 0:
        message = (
            f"epoch {epoch}: {percent(row['diverged_fraction'])} of the relaxations diverged and did not train: "
            "lower --beta, --step-size or --learning-rate"
        )
        found.append(Alarm("diverged", message))
    if row["out_of_steps_fraction"] > TOLERATED and not stepwise:
        message = (
            f"epoch {epoch}: {percent(row['out_of_steps_fraction'])} of the relaxations ran out of steps: "
            "raise --max-relaxation-steps (or --fixed-steps), or loosen --relaxation-tol"
        )
        found.append(Alarm("out of steps", message))
    if row.get("validation_settled", 1.0) < 1 - TOLERATED:
        message = (
            f"epoch {epoch}: {percent(1 - row['validation_settled'])} of the validation rows did not settle, so that "
            "their outputs are of no equilibrium: raise --max-relaxation-steps, or lower --step-size"
        )
        found.append(Alarm("validation", message))
    return found


def gather_alarms(history: Iterable[dict[str, Any]], stepwise: bool) -> list[str]:
    """The last message of every kind in a run, and of how many epochs it is; arguments as of `find_alarms`."""
    last, counts = {}, {}
    for alarm in (alarm for row in history for alarm in find_alarms(row, stepwise)):
        last[alarm.kind] = alarm.message
        counts[alarm.kind] = counts.get(alarm.kind, 0) + 1
    return [text if counts[kind] == 1 else f"{text} ({counts[kind]} epochs)" for kind, text in last.items()]
