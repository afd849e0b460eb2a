"""What a reproduced figure or table is: settings, a run, a picture, and a verdict for every claim."""

import dataclasses
import enum
import importlib.util
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from energax.papers.cells import Cells
from energax.papers.tables import Table

Numbers = dict[str, Any]
"""What an experiment measured: plain JSON. The picture and the verdicts are made from it and from nothing else."""


class Outcome(enum.StrEnum):
    """Whether a claim was found to hold."""

    REPRODUCED = "reproduced"
    CHANGED = "reproduced with a change"
    FAILED = "not reproduced"
    OPEN = "not run"


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The verdict on one claim.

    Attributes:
        source: where the claim is made: a figure or section of the paper, or `energax` for a claim of this library.
        claim: what is said to hold.
        outcome: whether it does.
        found: the measurement that decides.
        remark: the change that was needed, or what was tried in vain.
    """

    source: str
    claim: str
    outcome: Outcome
    found: str
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One figure or table.

    Attributes:
        name: what the command line calls it.
        paper: the paper it is from.
        summary: one line for the list.
        small: settings of about a minute on two cores; a frozen dataclass.
        full: settings of the paper; the same dataclass.
        run: `(settings, cells) -> numbers`; everything slow goes through `cells`, so that it can resume.
        draw: `numbers -> figure`.
        judge: `numbers -> judgements`; nothing but the numbers decides.
        tabulate: `numbers -> table`, for the pages; None where the picture is enough.
        selects: names of the settings of a grid, which only choose among its cells. Such an experiment keeps its cells
            when it is done, so that another run, with another choice or beside it, adds to them.
        needs: packages beside the library's own.
        small_decides: whether the small size reaches the verdicts of the full one. Where a verdict needs more than
            small data can show, the small size only shows that all of it runs.
        pending: it was not run in full yet, so that results are not there or not complete; `--all` leaves it out.
    """

    name: str
    paper: str
    summary: str
    small: Any
    full: Any
    run: Callable[[Any, Cells], Numbers]
    draw: Callable[[Numbers], Figure]
    judge: Callable[[Numbers], list[Judgement]]
    tabulate: Callable[[Numbers], Table] | None = None
    selects: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    small_decides: bool = True
    pending: bool = False

    def lacks(self) -> list[str]:
        """The packages that it needs and that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def judge_claim(
    source: str, claim: str, holds: bool | None, found: str, *, change: str = "", tried: str = ""
) -> Judgement:
    """The verdict on a claim that holds or not; `change` is what it took, `tried` what did not help.

    None is for a claim that nothing was run for.
    """
    if holds is None:
        return Judgement(source, claim, Outcome.OPEN, found)
    if not holds:
        return Judgement(source, claim, Outcome.FAILED, found, tried)
    return Judgement(source, claim, Outcome.CHANGED if change else Outcome.REPRODUCED, found, change)
