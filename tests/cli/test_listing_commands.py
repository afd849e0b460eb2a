"""`energax data`, `energax recipes` and the help texts."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from energax.cli import main
from energax.data import DATASETS
from energax.recipes import RECIPES
from energax.recipes.settings import Settings


def test_data_lists_six_sets_with_their_sizes(energax, monkeypatch):
    """Oracle: the published sizes of the data sets; none but the digits is on a machine without a data folder."""
    monkeypatch.setenv("COLUMNS", "240")
    done = energax("data")
    assert done.code == 0
    for name, sizes, image, classes in [
        ("digits", "1297 / 200 / 300", "8 x 8 x 1", "10"),
        ("mnist", "50000 / 10000 / 10000", "28 x 28 x 1", "10"),
        ("fashion-mnist", "50000 / 10000 / 10000", "28 x 28 x 1", "10"),
        ("cifar10", "45000 / 5000 / 10000", "32 x 32 x 3", "10"),
        ("cifar100", "45000 / 5000 / 10000", "32 x 32 x 3", "100"),
        ("tiny-imagenet", "90000 / 10000 / 10000", "64 x 64 x 3", "200"),
    ]:
        (line,) = [line for line in done.out.splitlines() if line.startswith(f"  {name} ")]
        assert re.split(r"  +", line.strip())[1:4] == [sizes, image, classes]
    assert len(DATASETS) == 6


def test_fetching_the_embedded_digits_tells_their_rows(energax):
    """Oracle: the sizes of the splits."""
    done = energax("data", "--fetch", "digits")
    assert done.code == 0
    assert done.out.startswith("digits: 1297 training, 200 validation and 300 test rows, from ")


def test_fetching_an_unknown_set_is_refused(energax):
    """Oracle: the message, which names the value and the known ones."""
    done = energax("data", "--fetch", "nosuch")
    assert done.code == 2
    assert done.err.startswith("energax: unknown data set 'nosuch'. Known: digits, mnist")


def test_recipes_are_listed_with_the_settings_that_make_them(energax, monkeypatch):
    """Oracle: the table of recipes."""
    monkeypatch.setenv("COLUMNS", "400")
    done = energax("recipes")
    assert done.code == 0
    for name, recipe in RECIPES.items():
        (line,) = [line for line in done.out.splitlines() if f"│ {name} " in line]
        assert recipe.summary in line
        assert f"hidden {recipe.defaults.hidden}" in line
    (line,) = [line for line in done.out.splitlines() if "│ pc-nudge " in line]
    assert "beta 0.001" in line


def test_the_settings_of_one_recipe_are_told_with_their_flags(energax):
    """Oracle: the table of recipes, and the parser: every flag that is told is one that `train` takes."""
    done = energax("recipes", "ep")
    assert done.code == 0
    words = [line.split() for line in done.out.splitlines() if line.strip().startswith("--")]
    told = {line[0]: line[1] for line in words}
    assert set(told) == {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Settings)}
    for flag, value in (("--beta", "0.2"), ("--hidden", "512"), ("--solver", "blocks"), ("--step-size", "-")):
        assert told[flag] == value
    refused = energax("recipes", "nosuch")
    assert refused.code == 2
    assert refused.err.startswith("energax: unknown recipe 'nosuch'; known: backprop, pc")


@pytest.mark.parametrize("words", [("--recipe", "ep"), ("--recipe=ep",)])
def test_help_shows_what_the_recipe_chooses(words, capsys):
    """Oracle: the recipe's settings; another recipe has others."""
    shown = []
    for recipe in (words, ()):
        with pytest.raises(SystemExit) as stopped:
            main(["train", *recipe, "--help"])
        assert stopped.value.code == 0
        shown.append(" ".join(capsys.readouterr().out.replace("│", " ").split()))
    for text, beta, rate in zip(shown, ("0.2", "0.001"), ("0.02", "0.05"), strict=True):
        assert f"nudge strength ({beta})" in text
        assert f"its learning rate ({rate})" in text
        assert "the recipe chooses" not in text
    assert main(["train", "--recipe", "nosuch", "--help"]) == 2
    assert capsys.readouterr().err.startswith("energax: unknown recipe 'nosuch'")


def test_help_is_for_every_command_and_names_its_options(capsys):
    """Oracle: the convention of parsers, exit code 0."""
    for command, option in (("train", "--recipe"), ("compare", "--seeds"), ("data", "--fetch")):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        assert option in capsys.readouterr().out


def test_no_command_and_an_unknown_one_are_refused(capsys):
    """Oracle: exit code 2, and the message lists the commands."""
    for words in ([], ["explode"]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        told = capsys.readouterr().err
        assert all(name in told for name in ("train", "compare", "data", "recipes"))


def test_version_is_the_installed_one(energax):
    """Oracle: the file that the package is built from."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert energax("--version").out.strip() == f"energax {project['version']}"
