"""`energax compare`: one table for several recipes and seeds, from the results of their runs."""

import statistics

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from energax.cli import compare as command

OPTIONS = ("compare", "--recipes", "backprop,pc-nudge", "--seeds", "2", "--epochs", "1", "--out", "both")


@pytest.fixture
def calls(monkeypatch):
    """Names and seeds of the runs that were asked for, in order."""
    made, run = [], command.run_recipe

    def counted(recipe, data, seed, *rest, **options):
        made.append((recipe, seed))
        return run(recipe, data, seed, *rest, **options)

    monkeypatch.setattr(command, "run_recipe", counted)
    return made


def test_a_comparison_is_the_mean_and_spread_of_its_runs(energax, read, folder, calls):
    """Oracle: mean and standard deviation recomputed from the runs' own result.json."""
    done = energax(*OPTIONS, "--json", small=True)
    assert done.code == 0
    assert calls == [("backprop", 0), ("backprop", 1), ("pc-nudge", 0), ("pc-nudge", 1)]
    both = folder / "both"
    assert {path.name for path in both.iterdir() if path.is_file()} == {"compare.json", "compare.md", "compare.png"}
    found = read(both / "compare.json")
    assert read(done.out.splitlines()[-1]) == found
    assert (found["data"], found["seeds"]) == ("digits", 2)
    lines = (both / "compare.md").read_text().splitlines()
    assert len(lines) == 4
    for row, name, line in zip(found["rows"], ("backprop", "pc-nudge"), lines[2:], strict=True):
        results = [read(both / f"{name}-{seed}" / "result.json") for seed in (0, 1)]
        accuracies = [result["test_accuracy"] for result in results]
        assert accuracies[0] != accuracies[1]
        assert (row["recipe"], row["epochs"]) == (name, 1)
        assert row["test_accuracies"] == accuracies
        assert row["test_accuracy"] == pytest.approx(sum(accuracies) / 2, rel=1e-12)
        spread = abs(accuracies[0] - accuracies[1]) / 2**0.5
        assert row["spread"] == pytest.approx(spread, rel=1e-12)
        assert row["seconds"] == statistics.median(result["seconds"] for result in results)
        assert row["least_gradient_cosine"] == min(result["least_gradient_cosine"] for result in results)
        cosine = sum(result["gradient_cosine"] for result in results) / 2
        assert row["gradient_cosine"] == pytest.approx(cosine, rel=1e-12)
        told = (name, f"{100 * row['test_accuracy']:.2f}", f"{100 * spread:.2f}")
        (printed,) = [out for out in done.out.splitlines()[:-1] if out.split()[:1] == [name]]
        for text in (line, printed):
            assert all(part in text for part in told)
    assert found["rows"][0]["residual"] is None
    assert done.out.count("standard deviation") == 1
    image = Image.open(both / "compare.png")
    image.verify()
    assert image.format == "PNG"


def test_seeds_are_drawn_as_their_median_and_a_band():
    """Oracle: medians, least and largest values written out by hand; a run without a value counts where it has one."""
    nan = float("nan")
    axes = Figure().subplots()
    command.draw_spread(axes, [1, 2, 3], [[5.0, 2.0, nan], [1.0, 4.0, nan], [2.0, nan, nan]], color="C0")
    (line,), (band,) = axes.lines, axes.collections
    np.testing.assert_array_equal(line.get_ydata(), [2.0, 3.0, nan])
    corners = {tuple(corner) for path in band.get_paths() for corner in path.vertices}
    assert corners == {(1.0, 1.0), (1.0, 5.0), (2.0, 2.0), (2.0, 4.0)}


def test_a_single_seed_has_no_band():
    """Oracle: its own values."""
    axes = Figure().subplots()
    command.draw_spread(axes, [1, 2], [[5.0, 2.0]], color="C0")
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [5.0, 2.0])
    assert not axes.collections


def test_no_two_of_many_recipes_are_drawn_alike():
    """Oracle: 30 different pairs of colour and marker; of the first three, which often agree, different dashes too."""
    styles = [command.style_of(index) for index in range(30)]
    assert len({(style["color"], style["marker"]) for style in styles}) == 30
    assert len({style["linestyle"] for style in styles[:3]}) == 3


def test_an_interrupted_comparison_goes_on_where_it_stopped(energax, read, folder, monkeypatch):
    """Oracle: the comparison that nothing interrupted, and the modification times of what was done before."""
    run, made = command.run_recipe, []

    def pulled(recipe, data, seed, *rest, **options):
        made.append(seed)
        if len(made) == 2:
            raise KeyboardInterrupt
        return run(recipe, data, seed, *rest, **options)

    options = ("compare", "--recipes", "backprop", "--seeds", "2", "--epochs", "2")
    with monkeypatch.context() as patch:
        patch.setattr(command, "run_recipe", pulled)
        stopped = energax(*options, "--out", "stopped", small=True)
    assert stopped.code == 130
    assert stopped.err.splitlines()[-1] == "energax: interrupted; finished epochs are kept, the same command continues"
    assert not (folder / "stopped" / "compare.json").exists()
    kept = (folder / "stopped" / "backprop-0" / "last.ckpt").stat().st_mtime_ns
    assert energax(*options, "--out", "stopped", small=True).code == 0
    assert (folder / "stopped" / "backprop-0" / "last.ckpt").stat().st_mtime_ns == kept
    assert energax(*options, "--out", "whole", small=True).code == 0

    def numbers(name):
        (row,) = read(folder / name / "compare.json")["rows"]
        return {key: value for key, value in row.items() if key not in ("seconds", "compile_seconds")}

    assert numbers("stopped") == numbers("whole")


def test_the_same_folder_with_more_epochs_fewer_epochs_and_other_settings(energax, read, folder):
    """Oracle: more epochs continue the runs (as a comparison from scratch); fewer, or other settings, are refused.

    A table headed by one epoch must not hold results of two, nor one learning rate those of another.
    """
    options = ("compare", "--recipes", "backprop", "--seeds", "1")
    assert energax(*options, "--epochs", 1, "--out", "run", small=True).code == 0
    assert energax(*options, "--epochs", 2, "--out", "run", small=True).code == 0
    assert energax(*options, "--epochs", 2, "--out", "fresh", small=True).code == 0
    results = [read(folder / name / "compare.json") for name in ("run", "fresh")]
    assert results[0]["rows"][0]["epochs"] == results[1]["rows"][0]["epochs"] == 2
    assert results[0]["rows"][0]["test_accuracies"] == results[1]["rows"][0]["test_accuracies"]
    for words, message in [
        (("--epochs", 1), "energax: epochs=1: the run in run/backprop-0 has 2 already; give at least as many"),
        (("--epochs", 3, "--learning-rate", 0.3), "learning_rate=0.05, and now learning_rate=0.3 is asked for"),
    ]:
        done = energax(*options, *words, "--out", "run", small=True)
        assert done.code == 2
        assert message in done.err
    assert read(folder / "run" / "compare.json") == results[0]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--recipes", "backprop,nosuch"), ("'nosuch'", "known: backprop")),
        (("--recipes", " , "), ("recipes=' , '", "at least one")),
        (("--seeds", "0"), ("seeds=0", "at least one")),
        (("--epochs", "0"), ("epochs=0", "at least 1")),
        (("--data", "nosuch"), ("'nosuch'", "known: digits")),
        (("--learning-rate", "0"), ("learning_rate=0.0", "positive")),
    ],
)
def test_errors_come_before_any_training(words, parts, energax, folder):
    """Oracle: the message, its exit code 2, and that no folder was made."""
    done = energax("compare", *words)
    assert done.code == 2
    line = done.err.splitlines()[-1]
    assert line.startswith("energax: ")
    for part in parts:
        assert part in line
    assert list(folder.iterdir()) == []


def test_recipes_share_what_they_read_and_nothing_is_ignored(energax, read, folder):
    """Oracle: the recipes' sources: backprop has no nudge, and neither of them a feedback scale."""
    done = energax(*OPTIONS, "--beta", "0.01", small=True)
    assert done.code == 0
    betas = [
        read(folder / "both" / f"{name}-0" / "config.json")["settings"]["beta"] for name in ("backprop", "pc-nudge")
    ]
    assert betas == [None, 0.01]
    refused = energax("compare", "--recipes", "backprop,pc", "--gamma", "0.5")
    assert refused.code == 2
    assert "gamma=0.5: with these settings none of backprop, pc reads it; leave it out" in refused.err
