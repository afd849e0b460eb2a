"""The grids of trainings: names, resumption, what diverges, and verdicts from made-up numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from energax.exceptions import DivergenceError, RunError, SettingError
from energax.papers import Outcome, training
from energax.papers.cells import Cells
from energax.papers.chen2025 import parity, table3
from energax.papers.chen2025.grid import (
    METHODS,
    NETS,
    RATES,
    Point,
    gather,
    make_choice,
    split_optimisers,
    tabulate,
    train_point,
)
from energax.papers.names import split_names
from energax.papers.training import KEPT
from energax.recipes import make_learner, settings_read
from energax.training.run_folder import finite


def point(method="backprop", rate=0.01, **changes):
    choice = make_choice("mlp", method, "adam", rate, 64, 1.0, 6)
    return dataclasses.replace(Point("digits", "mlp", method, "adam", rate, 0, choice, 2, 500), **changes)


def row(net, method, optimiser, rate, accuracy, seed=0, data="mnist"):
    found = dict.fromkeys(KEPT, 0.5) | {"reference": "backprop", "diverged": None, "history": []}
    if accuracy is None:
        found = {"diverged": "the cost became inf"}
    else:
        found |= {"test_accuracy": accuracy, "validation_accuracy": accuracy, "selected_test_accuracy": accuracy}
    return {
        "net": net,
        "data": data,
        "method": method,
        "optimiser": optimiser,
        "rate": rate,
        "seed": seed,
        "device": "cpu",
        **found,
    }


def test_a_cell_resumes_where_its_run_stopped(tmp_path):
    """Oracle: the same training in one go; the folder of the run is gone afterwards."""
    whole = train_point(Cells(tmp_path / "whole", {}, lambda text: None), point())
    told = []

    def stop(text):
        told.append(text)
        if len(told) == 1:
            raise KeyboardInterrupt

    cells = Cells(tmp_path / "parts", {}, stop)
    with pytest.raises(KeyboardInterrupt):
        train_point(cells, point())
    again = train_point(cells, point())
    assert [text.split(":")[0] for text in told] == [f"{point().name}, epoch {epoch}" for epoch in (1, 2)]
    assert not cells.file(point().name).exists()
    for name in set(whole) - {"seconds", "compile_seconds"}:
        assert finite(again[name]) == finite(whole[name]), name


def test_a_training_that_diverges_is_a_result(tmp_path, monkeypatch):
    """Oracle: the message of the training; the table says that it diverged. Other errors of a run are none."""

    def diverge(*args, **options):
        raise DivergenceError("the cost became inf in epoch 1")

    cells = Cells(tmp_path, {}, lambda text: None)
    monkeypatch.setattr(training, "fit", diverge)
    found = train_point(cells, point())
    assert found["diverged"] == "the cost became inf in epoch 1"
    assert tabulate("", [found, {**found, "seed": 1}]).rows[0][4] == "diverged (2 of 2)"

    def fail(*args, **options):
        raise RunError("the disk is full")

    monkeypatch.setattr(training, "fit", fail)
    with pytest.raises(RunError, match="the disk is full"):
        train_point(cells, point())


def test_ep_takes_units_and_time_that_suit_the_network():
    """Oracle: the text: clipped units in shallow nets only; no time in recurrent ones; the others share tanh and T."""
    found = {net: make_choice(net, "ep", "adam", 0.001, 64, 0.1, 6) for net in ("mlp", "conv", "hfn", "scrn")}
    units = [choice.activation for choice in found.values()]
    assert units == ["hard-sigmoid", "hard-sigmoid", "tanh", "tanh"]
    assert (found["hfn"].gain, found["scrn"].length, found["scrn"].solver) == (1.0, 0, "flow")
    other = make_choice("scrn", "bipc", "adam", 0.001, 64, 0.1, 6)
    assert (other.activation, other.length) == ("tanh", 6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net", NETS)
def test_every_method_reads_what_it_is_given_on_every_network(net, method):
    """Oracle: the settings that the recipe reads; one that it does not read, `make_learner` would refuse."""
    choice = make_choice(net, method, "lalr", 0.01, 64, 0.0625, 6)
    read = settings_read(METHODS[method][0], (28, 28, 1), 10, choice)
    assert [name for name, value in vars(choice).items() if value is not None and getattr(read, name) is None] == []


def test_the_chain_begins_with_hes_weights():
    """Oracle: He et al. 2015: variance 2 / fan-in, under which rectified layers keep the mean square of a signal."""
    choice = make_choice("chain", "backprop", "adam", 0.01, 64, 1.0, 6)
    graph = make_learner("backprop", (28, 28, 1), 10, settings=choice)[0].graph
    weights = [leaf for leaf in jax.tree.leaves(graph.functions) if getattr(leaf, "ndim", 0) == 2]
    assert [weight.shape for weight in weights] == [(784, 128), *[(128, 128)] * 7, (128, 10)]
    for weight in weights[:-1]:
        assert float(jnp.var(weight)) * len(weight) == pytest.approx(2, rel=0.05)


def test_names_and_rates_are_read_or_refused():
    """Oracle: the pairs; messages name what was given and what there is."""
    assert split_optimisers("adam, lalr:0.5") == [("adam", RATES["adam"]), ("lalr", 0.5)]
    assert split_names("data", "a,b", ("a", "b", "c")) == ["a", "b"]
    with pytest.raises(SettingError, match="methods='x': give some of hpc, nudge, bipc"):
        table3.points(table3.Settings(methods="x"))
    with pytest.raises(SettingError, match="optimisers='adam:fast': give rates as numbers"):
        split_optimisers("adam:fast")
    with pytest.raises(SettingError, match="net='': give some of"):
        table3.points(table3.Settings(net=""))


def test_the_table_has_the_papers_numbers_beside_ours():
    """Oracle: two numbers read in the paper, and mean and spread by hand."""
    rows = [row("hfn", "bipc", "lalr", 0.01, accuracy, seed) for seed, accuracy in enumerate((0.97, 0.99))]
    rows.append(row("scrn", "hpc", "adam", 0.001, 0.5, data="tiny-imagenet"))
    table = tabulate("", rows, table3.PRINTED)
    assert [line[4] for line in table.rows] == ["98.82", "23.05"]
    assert table.rows[0][5] == "98.00 ± 1.41"
    (own,) = tabulate("", [row("scrn", "ep", "lalr", 0.01, 0.5)], table3.PRINTED).rows  # the paper has no such cell
    assert (own[2], own[4]) == ("EP (cyclic graph)", "none, ours")
    assert (table.headings[-1], table.rows[0][-1]) == ("on", "cpu")
    assert list(gather(rows)) == [
        ("hfn", "mnist", "bipc", "lalr", 0.01),
        ("scrn", "tiny-imagenet", "hpc", "adam", 0.001),
    ]


@pytest.mark.parametrize(
    ("bipc", "gain", "weak", "outcomes"),
    [
        (0.985, 0.01, 0.975, "yyy"),
        (0.97, 0.01, 0.975, "nyy"),
        (0.985, -0.01, 0.975, "yny"),
        (0.985, 0.01, 0.965, "yyn"),
    ],
)
def test_table_3_is_judged_by_its_numbers(bipc, gain, weak, outcomes):
    """Oracle: numbers made for each verdict; a cell that diverged counts against its method."""
    rows = [row("hfn", "backprop", "lalr", 0.01, 0.99)]
    rows += [row("hfn", "bipc", name, 0.01, value) for name, value in (("lalr", bipc), ("adam", bipc - gain))]
    rows.append(row("hfn", "nudge", "lalr", 0.01, weak))
    found = [judgement.outcome for judgement in table3.EXPERIMENT.judge({"cells": rows})]
    assert [one != Outcome.FAILED for one in found] == [letter == "y" for letter in outcomes]
    assert {one.outcome for one in table3.EXPERIMENT.judge({"cells": rows[:1]})} == {
        Outcome.OPEN
    }  # nothing to judge by
    assert "diverged" not in table3.EXPERIMENT.judge({"cells": rows[-1:]})[2].found  # backprop is only not there yet
    lost = [*rows[:1], *(row("hfn", method, "lalr", 0.01, None) for method in ("bipc", "nudge"))]
    assert [one.outcome for one in table3.EXPERIMENT.judge({"cells": lost})][::2] == [Outcome.FAILED] * 2


def test_every_net_of_the_parity_table_has_its_own_size():
    """Oracle: the text of the settings; the recurrent net goes without EP, as in the paper."""
    points = parity.points(parity.Settings(seeds=1))
    sizes = {"mlp": (5, None, 4 * 7), "conv": (2, None, 4 * 4), "scrn-dense": (8, 8000, 3 * 4)}
    for net, (epochs, rows, count) in sizes.items():
        own = [point for point in points if point.net == net]
        assert {(point.epochs, point.rows) for point in own} == {(epochs, rows)}
        assert len(own) == count
    assert not any(point.method == "ep" for point in points if point.net == "scrn-dense")


def test_parity_is_judged_at_what_validation_chooses():
    """Oracle: by hand. The worse rate does not count, a rate of which a seed diverged neither."""
    rows = [
        row("mlp", "backprop", "adam", 0.001, 0.97),
        row("mlp", "backprop", "adam", 0.01, 0.95),
        row("mlp", "backprop", "lalr", 0.01, 0.975),
        row("mlp", "bipc", "adam", 0.001, 0.966),
        row("mlp", "bipc", "adam", 0.01, None),
        row("mlp", "bipc", "lalr", 0.01, 0.967),
    ]
    close, best, hot = parity.EXPERIMENT.judge({"cells": rows})
    assert close.found == "points: BiPC, MLP -0.80"
    assert best.found.endswith("BiPC, MLP +0.10; backprop, MLP +0.50")
    assert hot.found.endswith("backprop, MLP +2.50")
    assert {one.outcome for one in (close, best, hot)} == {Outcome.REPRODUCED}
    worse = [
        one | {"test_accuracy": 0.9} if one["method"] == "bipc" else one for one in rows if one.get("test_accuracy")
    ]
    assert parity.EXPERIMENT.judge({"cells": worse})[0].outcome == Outcome.FAILED
    lost = parity.EXPERIMENT.judge({"cells": [*rows[:1], rows[4]]})[0]
    assert (lost.outcome, lost.found) == (Outcome.FAILED, "points: BiPC, MLP -inf")  # diverged at every rate
    alone = parity.EXPERIMENT.judge({"cells": rows[:1]})  # nothing to compare
    assert {one.outcome for one in alone} == {Outcome.OPEN}


@pytest.mark.parametrize("net", ["hfn", "scrn", "scrn-dense", "scrn-complex"])
def test_the_width_reaches_every_network_that_has_one(net):
    """Oracle: the setting; the dense recurrent net went without it once."""
    assert make_choice(net, "backprop", "adam", 1e-3, 32, 0.5, 6).width == 0.5
