"""What every experiment can rely on: resumption, refusal of foreign parts, verdicts from numbers alone, the command."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import energax
from energax import papers
from energax.cli import main
from energax.exceptions import RunError, SettingError
from energax.papers import Experiment, Outcome, judge_claim
from energax.papers.fits import order, straightness


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


def test_damaged_parts_are_named(tmp_path):
    """Oracle: the message."""
    with pytest.raises(Interrupted):
        papers.reproduce(toy([], stop_at=1), Settings(), "full", tmp_path, silent)
    (tmp_path / "parts" / "seed0.json").write_text("{")
    with pytest.raises(RunError, match=r"seed0\.json cannot be read"):
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
