"""`energax data`, `energax recipes` and the help texts."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from energax.data import DATASETS
from energax.recipes import RECIPES
from energax.recipes.settings import COMMON, Settings


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
    assert done.err.startswith("energax: unknown data set 'nosuch'; known: digits, mnist")


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
def test_help_shows_what_the_recipe_chooses(words, energax):
    """Oracle: the recipe's settings; without a recipe those of all of them, from the table of recipes."""
    shown = []
    for recipe in (words, ()):
        done = energax("train", *recipe, "--help")
        assert done.code == 0
        shown.append(" ".join(done.out.replace("│", " ").split()))
    own, every = shown
    assert "nudge strength (0.2)" in own
    assert "its learning rate (0.02)" in own
    betas = "pc-nudge 0.001; ep, ep-one-sided, ep-holomorphic 0.2; deep, vf-ep, asym-ep 0.1"
    assert f"nudge strength ({betas})" in every
    rates = {name: recipe.defaults.learning_rate or COMMON.learning_rate for name, recipe in RECIPES.items()}
    others = {rate: [name for name in rates if rates[name] == rate] for rate in rates.values() if rate != 0.05}
    told = "; ".join(f"{', '.join(names)} {rate}" for rate, names in others.items())
    assert f"its learning rate (0.05; {told})" in every
    refused = energax("train", "--recipe", "nosuch", "--help")
    assert refused.code == 2
    assert refused.err.startswith("energax: unknown recipe 'nosuch'")


def test_what_a_recipe_is_made_of_is_told(energax):
    """Oracle: the five nouns of docs/architecture.md, and the recipe's source."""
    done = energax("recipes", "ep")
    rows = dict(line.strip().split("  ", 1) for line in done.out.splitlines()[4:9])
    assert list(rows) == ["graph", "dynamics", "solver", "rule", "optimiser"]
    for noun, text in [
        ("graph", "mlp: input 28x28x1, hidden1 512, output 10"),
        ("dynamics", "Hopfield(cost=SquaredError())"),
        ("solver", "FixedPoint(order=Alternating(), stop=Stopping(tol=0.01, max_steps=60"),
        ("rule", "Contrastive(scheme=NudgingScheme(points=[0.2, -0.2]"),
        ("optimiser", "sgd(learning_rate=0.02, momentum=0.9, weight_decay=0.0)"),
    ]:
        assert rows[noun].strip().startswith(text)


def test_help_is_for_every_command_and_names_its_options(energax):
    """Oracle: the convention of parsers, exit code 0; the usage has the whole command."""
    experiment = "millidge2023-fig2a"
    for *command, option in (
        ("train", "--recipe"),
        ("compare", "--seeds"),
        ("data", "--fetch"),
        ("recipes", "one recipe"),
        ("reproduce", "--small"),
        ("reproduce", experiment, "--redraw"),
    ):
        done = energax(*command, "--help")
        assert done.code == 0
        assert done.out.startswith(f"usage: energax {' '.join(command)} [-h]")
        assert option in done.out
    assert energax("compare", "--help").out.count("pc-nudge 0.001") == 1


def test_version_is_the_installed_one(energax):
    """Oracle: the file that the package is built from."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert energax("--version").out.strip() == f"energax {project['version']}"
