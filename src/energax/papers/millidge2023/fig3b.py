"""Figure 3B: training accuracy of PC-Nudge and of backprop from the same start, batch by batch."""

import dataclasses
import statistics

import numpy as np
from matplotlib.figure import Figure

import energax as ex
from energax import rules
from energax.papers.cells import Cells
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.millidge2023.common import PAPER, converged_solver
from energax.papers.millidge2023.training import learner_of, nudge
from energax.papers.pictures import QUIET, panels
from energax.papers.training import train_net


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the figure depends on.

    Attributes:
        data: data set.
        seeds: initialisations and orders of the rows.
        epochs: passes over the training rows.
        stretches: points per epoch.
        rate: learning rate; momentum is .9.
        beta: nudge strength (the paper's lambda).
        tol: relative residual of the relaxation.
        steps: bound on its steps.
    """

    data: str = "mnist"
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 10
    stretches: int = 71
    rate: float = 0.001
    beta: float = 1e-3
    tol: float = 5e-3
    steps: int = 400


SIDES = {"backprop": "backprop", "nudge": "PC-Nudge"}


def one_side(settings: Settings, cells: Cells, name: str, side: str, seed: int) -> dict:
    """One training."""
    data = ex.load_data(settings.data)
    rule = {"backprop": rules.Backprop(), "nudge": nudge(settings.beta)}[side]
    learner = learner_of(data, seed, rule, converged_solver(settings.tol, settings.steps), settings.rate)
    epochs, stretches = settings.epochs, settings.stretches
    return train_net(cells, name, learner, data, epochs=epochs, stretches=stretches, seed=seed)


def run(settings: Settings, cells: Cells) -> Numbers:
    """Both sides, all seeds."""
    sides = {}
    for side in SIDES:
        for seed in settings.seeds:
            name = f"{side}-{seed}"
            found = cells(name, lambda side=side, seed=seed, name=name: one_side(settings, cells, name, side, seed))
            sides.setdefault(side, []).append(found)
    return {"data": ex.load_data(settings.data).origin, "seeds": settings.seeds, "sides": sides}


def draw(numbers: Numbers) -> Figure:
    """Both curves of the first seed superposed, their difference, and test accuracies of all seeds."""
    figure, (curve, difference, test) = panels(3)
    first = {side: numbers["sides"][side][0]["rows"] for side in SIDES}
    epochs = [row["epoch"] for row in first["backprop"]]
    accuracies = {side: 100 * np.asarray([row["accuracy"] for row in rows]) for side, rows in first.items()}
    for side, color, width in (("backprop", "C0", 2.5), ("nudge", "C1", 1.0)):
        curve.plot(epochs, accuracies[side], label=SIDES[side], color=color, linewidth=width)
        for index, found in enumerate(numbers["sides"][side]):
            tested = 100 * np.asarray(found["test_accuracy"])
            label = SIDES[side] if index == 0 else None
            test.plot(np.arange(1, len(tested) + 1), tested, color=color, linewidth=width, label=label)
    difference.plot(epochs, accuracies["nudge"] - accuracies["backprop"], color="C2", linewidth=1)
    difference.axhline(0, color="0.7", linewidth=0.8)
    curve.set(title=f"B  training accuracy, seed {numbers['seeds'][0]}", ylabel="%", xlabel="epoch")
    difference.set(title="PC-Nudge minus backprop", ylabel="points", xlabel="epoch")
    test.set(title="test accuracy, all seeds", ylabel="%", xlabel="epoch")
    curve.legend(**QUIET)
    test.legend(**QUIET)
    return figure


def judge(numbers: Numbers) -> list[Judgement]:
    """Parity on training rows and on the test."""
    sides = numbers["sides"]
    final = {side: [one["test_accuracy"][-1] for one in sides[side]] for side in SIDES}
    gaps = [100 * (a - b) for a, b in zip(final["nudge"], final["backprop"], strict=True)]
    training = [
        100 * max(abs(p["accuracy"] - q["accuracy"]) for p, q in zip(one["rows"], other["rows"], strict=True))
        for one, other in zip(sides["nudge"], sides["backprop"], strict=True)
    ]
    settled = [min(row["settled"] for row in one["rows"]) for one in sides["nudge"]]
    means = {side: f"{100 * statistics.fmean(final[side]):.2f} %" for side in SIDES}
    change = "relaxed to a residual of 5e-3, its step bounded by the spectrum, instead of for 50 steps of .1"
    epochs = len(sides["nudge"][0]["test_accuracy"])
    return [
        judge_claim(
            "Fig. 3B",
            "PC-Nudge and backprop train with almost the same accuracy, batch by batch (within 2 points)",
            max(training) < 2,
            f"largest difference within a stretch, per seed: {', '.join(f'{gap:.2f}' for gap in training)} points",
            change=change,
            tried=change,
        ),
        judge_claim(
            "Fig. 3B",
            f"the same performance after {epochs} epochs: mean test accuracy within .5 points",
            abs(statistics.fmean(gaps)) < 0.5,
            f"PC-Nudge {means['nudge']}, backprop {means['backprop']}; differences per seed "
            f"{', '.join(f'{gap:+.2f}' for gap in gaps)} points",
            change=change,
            tried=change,
        ),
        judge_claim(
            "energax",
            "every relaxation of the training converges or stalls",
            min(settled) > 0.999,
            f"at least {100 * min(settled):.2f} % in every stretch",
        ),
    ]


EXPERIMENT = Experiment(
    name="millidge2023-fig3b",
    paper=PAPER,
    summary="training accuracy of PC-Nudge and backprop superposed",
    small=Settings(data="digits", seeds=(0, 1), epochs=10, stretches=5, rate=0.02),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
)
