"""The experiments of Millidge et al. 2023: verdicts from numbers, right and wrong ones, and a training that resumes.

The numbers here are made up from the theory; the continuous integration runs the experiments themselves.
"""

import copy
import dataclasses

import jax
import numpy as np
import optax
import pytest

import energax as ex
from energax.papers import Outcome
from energax.papers.cells import Cells
from energax.papers.millidge2023 import fig2a, fig2b, fig2c, fig3a, fig3b, fig3c, limits
from energax.papers.millidge2023.common import converged_solver
from energax.papers.millidge2023.training import learner_of, nudge
from energax.papers.training import train_net

STEPS = np.arange(51)
SHORT = np.logspace(-6, -2, 9)
BETAS = np.linspace(0.01, 0.1, 10)


def limit_numbers():
    scales = {
        1: np.logspace(-6, -3, 9),
        2: np.logspace(-4, -2, 9),
        4: np.logspace(-2, -1, 9),
        8: np.logspace(-1, -0.4, 9),
    }
    found = {}
    for name, limit in limits.LIMITS.items():
        x = scales[limit.expected or 1]
        errors = 0.3 * x**limit.expected if limit.expected else np.ones_like(x)
        found[name] = {"scales": x.tolist(), "errors": [errors.tolist()]}
    return {"limits": found, "first_step": [1e-17]}


def readings():
    rising, falling = (1 - np.exp(-STEPS / 9)).tolist(), (0.3 + 0.6 * np.exp(-STEPS / 9)).tolist()
    return {"seeds": [{name: rising if name == "velocity" else falling for name in fig2b.READINGS}] * 2}


def energies():
    internal = (0.2 * (1 - np.exp(-STEPS / 9))).tolist()
    supervised = (2.3 - 0.5 * (1 - np.exp(-STEPS / 9))).tolist()
    trace = {"internal": internal, "supervised": supervised, "total": np.add(internal, supervised).tolist()}
    one = {"trace": trace, "slope": {"total": -0.3, "supervised": -0.3}, "departure": (0.5 * SHORT).tolist()}
    return {"step": 0.1, "short": SHORT.tolist(), "seeds": [one, copy.deepcopy(one)]}


def equilibria():
    pairs = [[d, 0.7 * d, 1.0] for d in np.logspace(-4, 0, 13).tolist()]
    floor = [[d, 0.7 * d + 0.05, 1.0] for d in np.logspace(-4, 0, 13).tolist()]
    return {"seeds": [{"converged": pairs, "printed": floor}] * 2}


def strengths():
    one = {
        "converged": (0.2 * BETAS).tolist(),
        "smooth": (0.2 * BETAS).tolist(),
        "printed": (0.2 * BETAS + 0.1).tolist(),
    }
    return {"betas": BETAS.tolist(), "seeds": [one, copy.deepcopy(one)]}


def trainings():
    rows = [{"epoch": 0.1 * i, "accuracy": 0.9, "cost": 0.3, "settled": 1.0} for i in range(1, 11)]
    one = {"rows": rows, "test_accuracy": [0.9, 0.93]}
    return {"seeds": [0], "sides": {"backprop": [one], "nudge": [copy.deepcopy(one)]}}


def cosines():
    rows = [
        {"epoch": 0.1 * i, "converged": 0.9999, "printed": 0.998, "smaller": 0.99999, "curvature": 5.0}
        for i in range(1, 11)
    ]
    return {"rates": [0.001], "trainings": [{"rate": 0.001, "seed": 0, "rows": rows}]}


def put(path, value):
    """A function that spoils one number."""

    def spoil(numbers):
        at = numbers
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return spoil


CASES = {
    "2A rises": (fig2a, energies, put(("seeds", 0, "trace", "internal", 0), 0.1), "the internal energy starts at 0"),
    "2A slope": (fig2a, energies, put(("seeds", 1, "slope", "total"), -0.31), "at the start the total energy changes"),
    "2A order": (fig2a, energies, put(("seeds", 0, "departure"), (SHORT**2).tolist()), "after a step of size h"),
    "2B": (fig2b, readings, put(("seeds", 0, "velocity", 0), 0.4), "dv/dt against -dI/dv"),
    "2C": (fig2c, equilibria, put(("seeds", 0, "converged", 0, 1), 0.005), "the distance of the gradients grows"),
    "2C settled": (fig2c, equilibria, put(("seeds", 0, "converged", 3, 2), 0.0), "the distance of the gradients grows"),
    "3A": (fig3a, strengths, put(("seeds", 0, "converged", 9), 0.2), "the distance between PC-Nudge's gradient"),
    "3B": (fig3b, trainings, put(("sides", "nudge", 0, "test_accuracy", 1), 0.92), "the same performance"),
    "3B rows": (
        fig3b,
        trainings,
        put(("sides", "nudge", 0, "rows", 4, "accuracy"), 0.8),
        "PC-Nudge and backprop train",
    ),
    "3C": (fig3c, cosines, put(("trainings", 0, "rows", 4, "converged"), 0.9985), "the cosine between the gradients"),
    "3C NaN": (fig3c, cosines, put(("trainings", 0, "rows", 4, "converged"), None), "the cosine between the gradients"),
    "limits": (
        limits,
        limit_numbers,
        put(("limits", "hopfield_four", "errors", 0), np.logspace(-10, -4, 9).tolist()),
        "EP, 4 points",
    ),
    "limits exact": (limits, limit_numbers, put(("first_step", 0), 1e-3), "the first step is backprop"),
    "limits few": (limits, limit_numbers, put(("limits", "pc_nudge", "errors", 0), [1e-13] * 9), "PC-Nudge: error"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_number_turns_its_verdict(case):
    """Oracle: numbers made by the theory uphold every claim of ours; one spoilt number, and its claim falls."""
    module, make, spoil, claim = CASES[case]
    numbers = make()
    judgements = module.judge(numbers)
    assert all(one.outcome != Outcome.FAILED for one in judgements if one.source == "energax")
    assert next(one for one in judgements if one.claim.startswith(claim)).outcome != Outcome.FAILED
    spoilt = copy.deepcopy(numbers)
    spoil(spoilt)
    assert next(one for one in module.judge(spoilt) if one.claim.startswith(claim)).outcome == Outcome.FAILED


def test_what_the_paper_gets_wrong_is_judged_so():
    """Oracle: the theory's own numbers: Fig. 2B's caption for gradients, and the correction after Eq. 16."""
    failed = [one.source for one in limits.judge(limit_numbers()) if one.outcome == Outcome.FAILED]
    assert failed == ["after Eq. 16"]
    captions = [one for one in fig2b.judge(readings()) if one.source == "Fig. 2B"]
    assert [one.outcome for one in captions] == [Outcome.CHANGED] + [Outcome.FAILED] * 5
    assert fig3c.judge(cosines())[1].outcome == Outcome.FAILED


@pytest.mark.parametrize("case", ["2A rises", "2B", "2C", "3A", "3B", "3C", "limits"])
def test_every_picture_is_drawn_from_the_numbers(case):
    """Oracle: the numbers; the picture has panels with lines in them."""
    module, make, _, _ = CASES[case]
    figure = module.draw(make())
    assert all(panel.lines for panel in figure.axes)


def test_small_and_full_differ_in_size_only():
    """Oracle: nothing but the size is smaller: no download, fewer seeds."""
    for module in (fig2a, fig2b, fig2c, fig3a, fig3b, fig3c):
        assert module.EXPERIMENT.small.data == "digits"
        assert module.EXPERIMENT.full.data == "mnist"
        assert len(module.EXPERIMENT.small.seeds) <= len(module.EXPERIMENT.full.seeds)


def test_an_interrupted_training_ends_with_the_same_numbers(tmp_path):
    """Oracle: the training in one go, to the last digit."""
    data = ex.load_data("digits")
    told = []

    def stop_after_one(text):
        told.append(text)
        raise KeyboardInterrupt

    def train(folder, tell):
        learner = learner_of(data, 0, nudge(1e-3), converged_solver(5e-3, 100), 0.02)
        learner = dataclasses.replace(learner, optimiser=optimiser)
        cells = Cells(folder, {}, tell)
        return train_net(cells, "one", learner, data, epochs=2, stretches=3, seed=0, measure=norm_of)

    def norm_of(progress, batch):
        return {"norm": float(optax.tree.norm(jax.tree.map(np.asarray, progress.model.graph.functions["layer1"])))}

    optimiser = optax.sgd(0.02, momentum=0.9)
    whole = train(tmp_path / "whole", told.append)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop_after_one)
    resumed = train(tmp_path / "parts", told.append)
    assert resumed == whole
    assert len(whole["rows"]) == 6
    assert len({row["norm"] for row in whole["rows"]}) == 6
