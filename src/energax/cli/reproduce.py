"""`energax reproduce`: the figures and tables of papers, with a verdict on every claim."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import rich.box
import rich.console
import rich.markup
import rich.table

from energax.cli.options import ReproduceOptions, with_settings
from energax.exceptions import SettingError
from energax.papers import EXPERIMENTS, Experiment, find_experiment, redraw
from energax.papers import reproduce as reproduced
from energax.papers.reproduction import Report, outcomes, require_ranges

STYLES = {"reproduced": "green", "reproduced with a change": "yellow", "not reproduced": "red", "not run": "dim"}


def reproduce(options: ReproduceOptions) -> None:
    """List the experiments, or run some and print their verdicts."""
    if options.list:
        list_experiments()
        return
    if bool(options.names) == options.all:
        raise SettingError(f"give names of experiments or --all, not both; known: {', '.join(EXPERIMENTS)}")
    every = [one for one in EXPERIMENTS.values() if not one.pending]
    chosen = every if options.all else [find_experiment(name) for name in options.names]
    for one in list(chosen):
        if lacking := ", ".join(one.lacks()):
            told = f"{one.name} needs {lacking}: pip install {lacking}"
            if not options.all:
                raise SettingError(told)
            rich.console.Console(stderr=True, highlight=False).print(f"{told}; left out", soft_wrap=True)
            chosen.remove(one)
    keep_programs()
    reports = [one_experiment(one, options) for one in chosen]
    if options.json:
        print(json.dumps(reports))


def keep_programs() -> None:
    """Keep what took long to compile for the next seed, the next process and the next run, where the user says nothing.

    The cells of a grid differ in what is computed with one program; that of a deep network takes minutes to compile.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(Path("runs") / "compiled"))


def named_experiment(words: Sequence[str]) -> str | None:
    """The experiment that the words of a command line name, where it is exactly one."""
    named = [word for word in words if word in EXPERIMENTS]
    return named[0] if words[:1] == ["reproduce"] and len(named) == 1 else None


def open_settings(words: Sequence[str]) -> type[ReproduceOptions]:
    """`ReproduceOptions`; where exactly one experiment is named, with its settings as options."""
    named = named_experiment(words)
    if named is None:
        return ReproduceOptions
    experiment = EXPERIMENTS[named]
    return with_settings(experiment.small if "--small" in words else experiment.full)


def one_experiment(one: Experiment, options: ReproduceOptions) -> Report:
    """Run one experiment, tell of its parts, and print its verdicts."""
    size, settings = ("small", one.small) if options.small else ("full", one.full)
    if options.settings is not None and (options.settings != settings):
        size, settings = "own", options.settings
    require_ranges(settings)
    place = {"full": Path("results"), "small": Path("runs") / "small", "own": Path("runs") / "own"}
    folder = (options.out or place[size]) / one.name
    notes = rich.console.Console(stderr=True, highlight=False)
    notes.print(f"[bold]{one.name}[/]  {one.summary}", soft_wrap=True)
    if options.redraw:
        report = redraw(one, folder)
    else:
        report = reproduced(
            one, settings, size, folder, lambda text: notes.print(f"  {text}", style="dim", soft_wrap=True)
        )
    console = rich.console.Console(highlight=False, stderr=options.json)
    show(report, console)
    console.print(f"  {folder}  {report['seconds']:.0f} s", style="dim", soft_wrap=True)
    return report


def show(report: Report, console: rich.console.Console) -> None:
    """One line per claim, and the sum."""
    for judgement in report["judgements"]:
        style = STYLES[judgement["outcome"]]
        text = f"{judgement['claim']}: {judgement['found']}"
        remark = f" ({judgement['remark']})" if judgement["remark"] else ""
        console.print(
            f"  [{style}]{judgement['outcome']}[/]  {rich.markup.escape(judgement['source'] + ': ' + text + remark)}",
            soft_wrap=True,
        )
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes(report).items() if count)
    console.print(f"  {report['name']}: {counts}", soft_wrap=True)


def list_experiments() -> None:
    """The experiments and what they show."""
    table = rich.table.Table("experiment", "what it shows", "paper", box=rich.box.SIMPLE_HEAD)
    for one in EXPERIMENTS.values():
        table.add_row(one.name, f"{one.summary} (not run in full yet)" if one.pending else one.summary, one.paper)
    rich.console.Console(highlight=False).print(table)
