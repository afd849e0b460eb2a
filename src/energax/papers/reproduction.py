"""Running an experiment: its numbers, its picture, its verdicts, and the folder that holds them."""

import dataclasses
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from energax.checking import require_between, require_whole
from energax.exceptions import RunError, SettingError
from energax.files import write_atomically
from energax.papers.cells import Cells, Tell, read
from energax.papers.experiment import Experiment, Judgement, Numbers, Outcome
from energax.papers.tables import Table
from energax.recipes.settings import MOST
from energax.training.pages import save_figure, write_row
from energax.training.run_folder import machine

FIGURE, NUMBERS, REPORT, PAGE, TABLE = "figure.png", "numbers.json", "report.json", "README.md", "table.html"
PARTS, CELLS = "parts", "cells"  # of an experiment that is not done yet; of a grid, for good

Report = dict[str, Any]
"""What `report.json` holds: name, paper, size, settings, machine, seconds and the judgements."""


def reproduce(experiment: Experiment, settings: Any, size: str, folder: Path, tell: Tell) -> Report:
    """Run an experiment, or what an interruption left of it, and write its folder.

    Args:
        experiment: what to run.
        settings: its `small`, its `full`, or settings of your own.
        size: what to call these settings.
        folder: where `figure.png`, `numbers.json`, `report.json`, `README.md` and the table's `table.html` go; `parts`
            in it holds what is done until all is; of a grid, `cells` for good.
        tell: who is told of the progress.

    Raises:
        SettingError: a number in the settings is out of range.
    """
    require_ranges(settings)
    plain = json.loads(json.dumps(dataclasses.asdict(settings)))
    shared = {name: value for name, value in plain.items() if name not in experiment.selects}
    cells = Cells(folder / (CELLS if experiment.selects else PARTS), shared, tell)
    numbers = json.loads(json.dumps(experiment.run(settings, cells)))
    facts = {"size": size, "settings": plain, "seconds": round(cells.seconds, 1), **machine()}
    write_atomically(folder / NUMBERS, (json.dumps(numbers) + "\n").encode())
    report = publish(experiment, numbers, facts, folder)
    if not experiment.selects:
        cells.clear()
    return report


def require_ranges(settings: Any) -> None:
    """Refuse numbers that no experiment can work with: all are counts, sizes, rates or seeds, which alone may be 0.

    Raises:
        SettingError: the first such setting, by name.
    """
    for name, value in vars(settings).items():
        values = value if isinstance(value, tuple) else (value,)
        if not values:
            raise SettingError(f"{name}=(): give at least one value")
        for number in values:
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if isinstance(number, float):
                require_between(name, number, 0, math.inf, open_least=True, open_most=True)
            else:
                # a setting `seeds` that is no list is their number
                least = 0 if name == "seed" or (name == "seeds" and isinstance(value, tuple)) else 1
                require_whole(name, number, least)
                require_between(name, number, least, MOST)


def redraw(experiment: Experiment, folder: Path) -> Report:
    """Draw and judge again from the numbers that are there.

    Raises:
        RunError: there are none.
    """
    if not (folder / NUMBERS).exists() or not (folder / REPORT).exists():
        raise RunError(f"{folder} holds no numbers of {experiment.name}: run it first")
    kept = read(folder / REPORT)
    facts = {key: value for key, value in kept.items() if key not in ("name", "paper", "summary", "judgements")}
    return publish(experiment, read(folder / NUMBERS), facts, folder)


def publish(experiment: Experiment, numbers: Numbers, facts: dict[str, Any], folder: Path) -> Report:
    """Write what people look at: the picture, the verdicts and a page with both."""
    judgements = experiment.judge(numbers)
    report = {
        "name": experiment.name,
        "paper": experiment.paper,
        "summary": experiment.summary,
        **facts,
        "judgements": [dataclasses.asdict(judgement) for judgement in judgements],
    }
    save_figure(folder / FIGURE, experiment.draw(numbers))
    write_atomically(folder / REPORT, (json.dumps(report, indent=1) + "\n").encode())
    table = experiment.tabulate(numbers) if experiment.tabulate else None
    if table:
        write_atomically(folder / TABLE, table.html().encode())
    write_atomically(folder / PAGE, page(experiment, judgements, facts, table).encode())
    return report


def page(experiment: Experiment, judgements: list[Judgement], facts: dict[str, Any], table: Table | None) -> str:
    """One page: picture, verdicts, table, settings."""
    options = write_options(experiment, facts["settings"])
    rows = "\n".join(
        write_row([one.source, one.claim, f"**{one.outcome}**", one.found, one.remark]) for one in judgements
    )
    settings = "\n".join(write_row([name, show_value(value)]) for name, value in facts["settings"].items())
    others = "\n".join(write_row(pair) for pair in facts.items() if pair[0] not in ("size", "settings"))
    return f"""# {experiment.name}

{experiment.summary} ({experiment.paper})

`energax reproduce {experiment.name}{options}` wrote this folder.

![{experiment.name}]({FIGURE})

| source | claim | verdict | found | remark |
|---|---|---|---|---|
{rows}

{table.markdown() if table else ""}
| setting | value |
|---|---|
{settings}
{others}
"""


def write_options(experiment: Experiment, settings: dict[str, Any]) -> str:
    """The words of a command line that ask for settings, as the small ones or the full ones with few changes.

    What chooses among the cells of a grid is left out: its folder holds what several choices found.
    """
    bases = ((experiment.full, ""), (experiment.small, " --small"))
    found = [(start, write_changes(base, settings, experiment.selects)) for base, start in bases]
    return min((start + changes for start, changes in found if changes is not None), key=len, default="")


def write_changes(base: Any, settings: dict[str, Any], without: Sequence[str]) -> str | None:
    """The options for settings that differ from those of a base; None where one is a mapping, which no option gives."""
    words = []
    for name, value in json.loads(json.dumps(dataclasses.asdict(base))).items():
        now = settings.get(name, value)
        if show_value(now, 12) == show_value(value, 12) or name in without:  # the last digits are the machine's
            continue
        if isinstance(now, dict):
            return None
        option = name.replace("_", "-")
        if isinstance(now, bool):
            words.append(f" --{option}" if now else f" --no-{option}")
        else:
            words.append(f" --{option} {shlex.join(map(str, now if isinstance(now, list) else [now]))}")
    return "".join(words)


def show_value(value: Any, digits: int = 4) -> str:
    """A setting for a table."""
    if isinstance(value, list):
        return ", ".join(f"{item:.{digits}g}" if isinstance(item, float) else str(item) for item in value)
    return str(value)


def outcomes(report: Report) -> dict[str, int]:
    """Number of claims per outcome."""
    found = [judgement["outcome"] for judgement in report["judgements"]]
    return {outcome.value: found.count(outcome.value) for outcome in Outcome}
