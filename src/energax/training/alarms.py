"""What is wrong with an epoch that ended all the same: nothing fails in silence."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from energax.metrics import number, percent
from energax.training.learner import Learner

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


class Ending(NamedTuple):
    """How the relaxations of a learner are meant to end.

    Attributes:
        stepwise: whether the rule learns after every single step, so that none is meant to end a relaxation.
        fixed: how many steps each takes whatever is left, as was asked for; None: until they have settled.
    """

    stepwise: bool = False
    fixed: int | None = None

    @classmethod
    def of(cls, learner: Learner) -> "Ending":
        """That of a learner."""
        return cls(learner.rule.updates_per_batch > 1, learner.solver.fixed_steps)


def find_alarms(row: dict[str, Any], ending: Ending) -> list[Alarm]:
    """What is wrong with one row of the log.

    Args:
        row: the row.
        ending: how relaxations are meant to end. What a fixed number of steps leaves is no fault of an epoch: it is
            told with the first one, and stands in every row's shares.
    """
    epoch, first, found = row["epoch"], row.get("first_cost"), []
    more = f"allow more steps ({'--max-relaxation-steps' if ending.fixed is None else '--fixed-steps'})"
    for part in ("train", "validation"):
        cost = row.get(f"{part}_cost")
        if cost is not None and first is not None and cost > GROWN * first:
            message = (
                f"epoch {epoch}: the {part} cost is {number(cost)}, {number(cost / first)} times the {number(first)} "
                "before the first update: lower the learning rate (--learning-rate), or clip the gradient (--clip)"
            )
            found.append(Alarm(f"{part} cost", message))
    if row["diverged_fraction"] > 0:
        message = (
            f"epoch {epoch}: {percent(row['diverged_fraction'])} of the relaxations diverged and did not train: "
            "lower the nudge strength (--beta), the step of the states (--step-size) or the learning rate "
            "(--learning-rate)"
        )
        found.append(Alarm("diverged", message))
    unsettled = row["out_of_steps_fraction"]
    if unsettled > TOLERATED and not ending.stepwise and (ending.fixed is None or epoch == 1):
        remedy = "allow more steps (--max-relaxation-steps), or a larger tolerance (--relaxation-tol)"
        if ending.fixed is not None:
            remedy = (
                f"{ending.fixed} fixed steps were asked for, and leave a mean residual of {number(row['residual'])}; "
                "more of them come closer to equilibrium, and without --fixed-steps each takes as many as it needs"
            )
        message = f"epoch {epoch}: {percent(unsettled)} of the relaxations ran out of steps: {remedy}"
        found.append(Alarm("out of steps", message))
    if row.get("validation_settled", 1.0) < 1 - TOLERATED and (ending.fixed is None or epoch == 1):
        message = (
            f"epoch {epoch}: {percent(1 - row['validation_settled'])} of the validation rows did not settle, so that "
            f"their outputs are of no equilibrium: {more}, or shorter ones (--step-size)"
        )
        found.append(Alarm("validation", message))
    still = [name for name, ratio in (row.get("layer_norm_ratio") or {}).items() if ratio == 0]
    if still:
        message = (
            f"epoch {epoch}: on the first rows the gradient of {', '.join(map(repr, still))} is 0, and nothing is "
            f"learnt there: {more}, or look for saturated units above (--gain)"
        )
        found.append(Alarm("still", message))
    return found


def gather_alarms(history: Iterable[dict[str, Any]], ending: Ending) -> list[str]:
    """The last message of every kind in a run, and of how many epochs it is; arguments as of `find_alarms`."""
    last, counts = {}, {}
    for alarm in (alarm for row in history for alarm in find_alarms(row, ending)):
        last[alarm.kind] = alarm.message
        counts[alarm.kind] = counts.get(alarm.kind, 0) + 1
    return [text if counts[kind] == 1 else f"{text} ({counts[kind]} epochs)" for kind, text in last.items()]
