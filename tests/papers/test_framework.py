"""What every experiment can rely on: resumption, refusal of foreign parts, verdicts from numbers alone, the command."""

import dataclasses
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import energax
from energax import papers
from energax.cli import main
from energax.cli.main import parse
from energax.cli.reproduce import STYLES, keep_programs
from energax.exceptions import DataError, RunError, SettingError
from energax.papers import Experiment, Outcome, judge_claim
from energax.papers.cells import Cells
from energax.papers.fits import order, straightness
from energax.papers.reproduction import write_options
from energax.papers.tables import Table


@dataclasses.dataclass(frozen=True)
class Settings:
    seeds: tuple[int, ...] = (0, 1, 2)
    scale: float = 1.0


class Interrupted(Exception):
    pass


def toy(calls, stop_at=None):
    """Means of random numbers, one cell per seed; raises in the cell of seed `stop_at`."""

    def run(settings, cells):
        def mean(seed):
            calls.append(seed)
            if seed == stop_at:
                raise Interrupted
            return float(np.random.default_rng(seed).normal(size=1000).mean() * settings.scale)

        return {"means": [cells(f"seed{seed}", lambda seed=seed: mean(seed)) for seed in settings.seeds]}

    def draw(numbers):
        figure = Figure()
        figure.subplots().plot(numbers["means"])
        return figure

    def judge(numbers):
        worst = max(map(abs, numbers["means"]))
        return [
            judge_claim(
                "Fig. 0", "means vanish", worst < 0.1, f"{worst:.3g}", change="in float64", tried="1000 numbers"
            )
        ]

    return Experiment("toy", "Nobody 1900", "means of random numbers", Settings(), Settings(), run, draw, judge)


def folder_of(path):
    """All that a finished folder says, but for the seconds."""
    report = json.loads((path / "report.json").read_text())
    return json.loads((path / "numbers.json").read_text()), {**report, "seconds": 0}


def silent(text):
    pass


def test_resumed_equals_uninterrupted_and_repeats_nothing(tmp_path):
    """Oracle: the run in one go; and the list of cells computed, which has none twice."""
    papers.reproduce(toy([]), Settings(), "full", tmp_path / "whole", silent)
    calls = []
    with pytest.raises(Interrupted):
        papers.reproduce(toy(calls, stop_at=2), Settings(), "full", tmp_path / "parts", silent)
    assert not (tmp_path / "parts" / "report.json").exists()
    papers.reproduce(toy(calls), Settings(), "full", tmp_path / "parts", silent)
    assert calls == [0, 1, 2, 2]
    assert folder_of(tmp_path / "parts") == folder_of(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {
        "figure.png",
        "numbers.json",
        "report.json",
        "README.md",
    }
    Image.open(tmp_path / "parts" / "figure.png").verify()


def test_a_finished_experiment_runs_again_instead_of_repeating_its_answer(tmp_path):
    """Oracle: the purpose. Committed results must not answer for a library that has changed since."""
    calls = []
    for _ in range(2):
        papers.reproduce(toy(calls), Settings(), "full", tmp_path, silent)
    assert calls == [0, 1, 2, 0, 1, 2]


def test_parts_of_other_settings_are_refused(tmp_path):
    """Oracle: the message. Parts of another experiment must not slip into this one."""
    with pytest.raises(Interrupted):
        papers.reproduce(toy([], stop_at=1), Settings(), "full", tmp_path, silent)
    with pytest.raises(RunError, match="parts of an experiment with other settings"):
        papers.reproduce(toy([]), Settings(scale=2.0), "full", tmp_path, silent)


def test_a_run_that_left_no_part_is_in_nobodys_way(tmp_path):
    """Oracle: the purpose: after a mistyped setting the right one runs; not while another process is at a cell."""
    with pytest.raises(Interrupted):
        papers.reproduce(toy([], stop_at=0), Settings(), "full", tmp_path, silent)

    def compute():
        with pytest.raises(RunError, match="parts of an experiment with other settings"):
            papers.reproduce(toy([]), Settings(scale=3.0), "full", tmp_path, silent)
        raise Interrupted

    with pytest.raises(Interrupted):
        Cells(tmp_path / "parts", {"scale": 2.0}, silent)("seed0", compute)
    papers.reproduce(toy([]), Settings(scale=2.0), "full", tmp_path, silent)
    assert json.loads((tmp_path / "numbers.json").read_text())["means"]


MISNAMED = [
    (one.name, field.name)
    for one in papers.EXPERIMENTS.values()
    for field in dataclasses.fields(one.small)
    if isinstance(field.default, str) and not one.lacks()
] + [("beyond-depth", "ways"), ("beyond-depth", "trained")]


@pytest.mark.parametrize(("name", "setting"), MISNAMED)
def test_what_has_no_such_name_is_refused_before_anything_runs(tmp_path, name, setting):
    """Oracle: the message names it; nothing is left that another choice would run into."""
    one, folder = papers.EXPERIMENTS[name], tmp_path / "folder"
    wrong = {("beyond-depth", "ways"): ("no-such",), ("beyond-depth", "trained"): {"no-such": (4,)}}
    settings = dataclasses.replace(one.small, **{setting: wrong.get((name, setting), "no-such")})
    with pytest.raises((SettingError, DataError), match="no-such"):
        papers.reproduce(one, settings, "own", folder, silent)
    assert not [file for file in folder.rglob("*.json") if file.name != "settings.json"]


def write_words(one, settings):
    """The words that the page of a run with such settings shows."""
    return shlex.split(write_options(one, json.loads(json.dumps(dataclasses.asdict(settings)))))


@pytest.mark.parametrize("name", [name for name, one in papers.EXPERIMENTS.items() if not one.lacks()])
def test_the_command_on_a_page_asks_for_its_settings(name):
    """Oracle: the command line's own parser, for the full settings, the small ones, and each with one changed."""
    one = papers.EXPERIMENTS[name]
    assert write_words(one, one.full) == []
    assert write_words(one, one.small) == ["--small"]
    for base, other in ((one.full, one.small), (one.small, one.full)):
        changes = {
            field.name: getattr(other, field.name)
            for field in dataclasses.fields(base)
            if getattr(base, field.name) != getattr(other, field.name) and field.name not in (*one.selects, "trained")
        }
        for setting, value in changes.items():
            settings = dataclasses.replace(base, **{setting: value})
            options = parse(["reproduce", name, *write_words(one, settings)])
            found = options.settings or (one.small if options.small else one.full)
            assert dataclasses.replace(found, **{key: getattr(settings, key) for key in one.selects}) == settings


def test_damaged_parts_are_named(tmp_path):
    """Oracle: the message."""
    with pytest.raises(Interrupted):
        papers.reproduce(toy([], stop_at=1), Settings(), "full", tmp_path, silent)
    (tmp_path / "parts" / "seed0.json").write_text("{")
    with pytest.raises(RunError, match=r"seed0\.json: cannot be read"):
        papers.reproduce(toy([]), Settings(), "full", tmp_path, silent)


def test_verdicts_follow_from_the_numbers(tmp_path):
    """Oracle: a number that is wrong on purpose turns the verdict, without running anything."""
    report = papers.reproduce(toy([]), Settings(), "full", tmp_path, silent)
    assert report["judgements"][0]["outcome"] == Outcome.CHANGED
    assert report["judgements"][0]["remark"] == "in float64"
    (tmp_path / "numbers.json").write_text('{"means": [0.01, 0.5]}')
    again = papers.redraw(toy([]), tmp_path)
    assert again["judgements"][0]["outcome"] == Outcome.FAILED
    assert again["judgements"][0]["found"] == "0.5"
    assert again["judgements"][0]["remark"] == "1000 numbers"
    assert "**not reproduced** | 0.5 | 1000 numbers" in (tmp_path / "README.md").read_text()
    assert again["settings"] == report["settings"]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(SettingError, match="unknown experiment 'nosuch'; known: millidge2023-fig2a"):
        papers.find_experiment("nosuch")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("nosuch",), "unknown experiment 'nosuch'; known: millidge2023-fig2a"),
        ((), "give names of experiments or --all"),
        (("--all", "millidge2023-fig2a"), "not both"),
        (("millidge2023-fig2a", "--redraw"), "holds no numbers of millidge2023-fig2a"),
    ],
)
def test_errors_of_the_command_are_one_line(words, part, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("energax: ")
    assert part in error


def test_the_list_names_every_experiment(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["reproduce", "--list"]) == 0
    told = capsys.readouterr().out
    for name, one in papers.EXPERIMENTS.items():
        assert name == one.name
        assert any(name in line and one.summary in line for line in told.splitlines())
        assert isinstance(one.small, type(one.full))


def grid(calls):
    """One cell per seed; which seeds is a choice that does not make it another experiment."""

    def run(settings, cells):
        for seed in settings.seeds:
            cells.offer(f"seed{seed}", lambda seed=seed: calls.append(seed) or seed * settings.scale)
        return {"means": list(cells.finished().values())}

    def tabulate(numbers):
        rows = [[f"<{index}>", f"{mean:g}"] for index, mean in enumerate(numbers["means"])]
        return Table("All means", ["seed", "mean"], rows, ["A note."])

    return dataclasses.replace(toy([]), run=run, selects=("seeds",), tabulate=tabulate)


def test_a_grid_adds_to_what_is_finished(tmp_path):
    """Oracle: the list of what was computed, and the table of all of it; parts of other settings are refused."""
    calls = []
    papers.reproduce(grid(calls), Settings(seeds=(0, 1)), "full", tmp_path, silent)
    papers.reproduce(grid(calls), Settings(seeds=(1, 2)), "full", tmp_path, silent)
    assert calls == [0, 1, 2]
    assert json.loads((tmp_path / "numbers.json").read_text()) == {"means": [0.0, 1.0, 2.0]}
    page, own = (tmp_path / "README.md").read_text(), (tmp_path / "table.html").read_text()
    assert "| seed | mean |\n| --- | --- |\n| <0> | 0 |\n| <1> | 1 |\n| <2> | 2 |\n\nA note.\n" in page
    assert "<td>&lt;2&gt;</td><td>2</td>" in own
    with pytest.raises(RunError, match="parts of an experiment with other settings"):
        papers.reproduce(grid(calls), Settings(scale=2.0), "full", tmp_path, silent)


def test_what_was_not_run_is_not_called_a_failure():
    """Oracle: the three cases of a claim; every verdict has its colour on the terminal."""
    found = [judge_claim("source", "claim", holds, "found").outcome for holds in (True, False, None)]
    assert found == [Outcome.REPRODUCED, Outcome.FAILED, Outcome.OPEN]
    assert set(STYLES) == {outcome.value for outcome in Outcome}


def test_processes_share_the_cells_of_an_experiment(tmp_path):
    """Oracle: while one process is at a cell, another leaves it alone and says so; afterwards it reads the value."""
    told, mine, other = [], Cells(tmp_path, {}, silent), Cells(tmp_path, {}, lambda text: told.append(text))

    def compute():
        assert other.offer("one", lambda: pytest.fail("computed twice")) is None
        return 5

    assert mine.offer("one", compute) == 5
    assert told == ["one  is being computed by another process"]
    assert other.offer("one", lambda: pytest.fail("computed twice")) == 5
    assert other("one", lambda: pytest.fail("computed twice")) == 5
    assert other.finished() == {"one": 5}


def test_a_cell_of_a_process_that_died_is_free(tmp_path):
    """Oracle: a process that is killed within a cell; the operating system must give the cell back."""
    script = (
        "import os, sys, pathlib; from energax.papers.cells import Cells; "
        "Cells(pathlib.Path(sys.argv[1]), {}, print)('one', lambda: os._exit(3))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == 3
    assert Cells(tmp_path, {}, silent)("one", lambda: 1) == 1


def test_the_settings_of_one_experiment_are_options(capsys, monkeypatch, tmp_path):
    """Oracle: the numbers under other settings; they are not taken for the full ones, whose folder they leave alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(papers.EXPERIMENTS, "toy", toy([]))
    assert main(["reproduce", "toy", "--seeds", "4", "5", "--scale", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])[0]
    assert report["settings"] == {"seeds": [4, 5], "scale": 2.0}
    assert report["size"] == "own"
    assert not (tmp_path / "results").exists()
    assert (tmp_path / "runs" / "own" / "toy" / "report.json").exists()
    means = json.loads((tmp_path / "runs" / "own" / "toy" / "numbers.json").read_text())["means"]
    assert means == [2 * np.random.default_rng(seed).normal(size=1000).mean() for seed in (4, 5)]
    assert main(["reproduce", "toy", "--nosuch", "1"]) == 2
    assert "unrecognized options: --nosuch" in capsys.readouterr().err


def wrong_numbers(setting, kept):
    """What cannot stand for a number, or a list of them, in an experiment's settings."""
    first = kept[0] if isinstance(kept, tuple) else kept
    if isinstance(first, bool) or not isinstance(first, int | float):
        return []
    may_be_zero = setting == "seed" or (setting == "seeds" and isinstance(kept, tuple))
    wrong = [-1.0, 0.0, math.nan, math.inf] if isinstance(first, float) else [-1, 2**40, *([] if may_be_zero else [0])]
    return [(), *((first, one) for one in wrong)] if isinstance(kept, tuple) else wrong


@pytest.mark.parametrize("name", papers.EXPERIMENTS)
def test_a_number_that_cannot_be_is_refused_before_anything_runs(name, tmp_path):
    """Oracle: the error names the setting, and no folder is made."""
    one, tried = papers.EXPERIMENTS[name], 0
    for setting, kept in vars(one.full).items():
        for wrong in wrong_numbers(setting, kept):
            with pytest.raises(SettingError, match=f"^{setting}="):
                papers.reproduce(one, dataclasses.replace(one.full, **{setting: wrong}), "own", tmp_path, silent)
            tried += 1
    assert tried >= 3
    assert not any(tmp_path.iterdir())


def test_an_interrupted_command_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    """Oracle: exit code 130; the next run of the same command continues."""
    calls = []

    def interrupted(settings, cells):
        calls.append(cells("one", lambda: 1.0))
        raise KeyboardInterrupt

    broken = dataclasses.replace(toy([]), run=interrupted)
    monkeypatch.setitem(papers.EXPERIMENTS, "toy", broken)
    assert main(["reproduce", "toy", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("finished parts are kept, the same command continues")
    monkeypatch.setitem(papers.EXPERIMENTS, "toy", toy([]))
    assert main(["reproduce", "toy", "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])[0]["name"] == "toy"


def test_the_library_does_not_know_its_experiments():
    """Oracle: the sources. Only the command imports `energax.papers`."""
    root = Path(energax.__file__).parent
    users = {str(file.relative_to(root)) for file in root.rglob("*.py") if "energax.papers" in file.read_text()}
    assert {name for name in users if not name.startswith("papers/")} == {"cli/reproduce.py"}


def test_an_order_needs_six_points_within_reach_of_the_theory():
    """Oracle: exact powers; errors outside (1e-11, 1e-2) are left out, and too few give no number."""
    scales = np.logspace(-4, -1, 10)
    assert np.isclose(order(scales, 0.9 * scales**2)[0], 2)
    assert order(scales, 0.9 * scales**2)[1] == 10
    assert np.isnan(order(scales, scales**8)[0])
    assert order(scales, scales**8)[1] < 6
    assert np.isclose(straightness(scales, 3 * scales + 1), 1)
    assert straightness(scales, np.sin(1e4 * scales)) < 0.5


def test_compiled_programs_are_kept_where_the_user_says_or_beside_the_runs():
    """Oracle: jax's own setting, before and after."""
    name = "jax_compilation_cache_dir"
    before = jax.config.values[name]
    try:
        jax.config.update(name, "elsewhere")
        keep_programs()
        assert jax.config.values[name] == "elsewhere"
        jax.config.update(name, None)
        keep_programs()
        assert jax.config.values[name] == "runs/compiled"
    finally:
        jax.config.update(name, before)
