"""The experiment on depth: verdicts from numbers, right and wrong ones, and a count of steps against the engine's own.

The numbers here are made up; the continuous integration runs the experiment itself.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax.papers import Outcome
from energax.papers.beyond import depth
from energax.papers.beyond.ways import WAYS, Counted, blocks, flow, follow, iteration, make_net, parts
from oracles import energy_gradient, solve

DEPTHS = (4, 8, 16)
STEPS = {"flow": lambda L: L**2, "nesterov": lambda L: 2 * L, "cg": lambda L: L, "errors": lambda L: 1}


def count_row(way, L):
    steps = STEPS[way.split("-")[1]](L)
    seen = {"cosines": [0.95] * 5, "sizes": [0.1, 0.2, 0.4, 0.8, 0.05]}
    return {"reach": 99, "steps": dict.fromkeys(depth.PLACES, steps), "times": 3.0 * steps, **seen, "early": seen}


def counts_until(L, steps):
    """Accuracies with 1, 2, 4 ... steps, .9 from `steps` on, .8 below."""
    return {str(2**k): 0.9 if 2**k >= steps else 0.8 for k in range(12) if 2**k < 2 * steps}


def made_up():
    """As the theory has it: L^2 for gradient flow, L for what carries an error block by block, 1 on the errors."""
    counted = {str(L): [{way: count_row(way, L) for way in WAYS} for _ in range(2)] for L in DEPTHS}
    trained = {}
    for L in DEPTHS:
        feedback = {way: counts_until(L, L) for way in ("skew-nesterov", "balanced-nesterov")}
        ways = {"pc-flow": counts_until(L, L**2), **feedback, "nudge-errors": {"1": 0.9}}
        trained[str(L)] = {"backprop": 0.9, "ways": ways}
    trained["32"] = {"backprop": 0.9, "ways": {"nudge-errors": {"1": 0.7, "2": 0.89}}}
    return {"data": "made up", "counted": counted, "trained": trained}


def put(path, value):
    """A function that spoils one number."""

    def spoil(numbers):
        at = numbers
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return spoil


def set_steps(way, place, steps):
    """A function that gives a way other steps at the deepest net."""
    return put(("counted", "16", 0, way, "steps", place), steps)


def linear(numbers):
    """Gradient flow in 2 L steps."""
    for L in DEPTHS:
        for seed in numbers["counted"][str(L)]:
            seed["nudge-flow"]["steps"] = dict.fromkeys(depth.PLACES, 2 * L)


def slow_everywhere(numbers):
    """No way of the states below L^1.5."""
    for L in DEPTHS:
        for seed in numbers["counted"][str(L)]:
            for way in (way for way in WAYS if parts(way)[1].local):
                seed[way]["steps"]["lowest block"] = L**1.5


SPOILT = {
    "flow": (linear, "predictive coding by gradient flow needs"),
    "errors": (set_steps("nudge-errors", "lowest quarter", 4), "PC-Nudge by conjugate gradients"),
    "errors never": (set_steps("nudge-errors", "lowest quarter", None), "PC-Nudge by conjugate gradients"),
    "local": (slow_everywhere, "the best steps of the states"),
    "skew": (put(("counted", "8", 1, "skew-nesterov", "early"), {"cosines": [0.8] * 5}), "after 1.5 L Nesterov steps"),
    "flow trains": (put(("trained", "16", "ways", "pc-flow"), {"32": 0.9}), "trained by gradient flow"),
    "skew trains": (put(("trained", "8", "ways", "skew-nesterov"), {"16": 0.9}), "at most 1.5 L Nesterov steps"),
    "skew never": (put(("trained", "16", "ways", "skew-nesterov"), {"16": 0.8}), "at most 1.5 L Nesterov steps"),
    "balanced trains": (
        put(("trained", "8", "ways", "balanced-nesterov"), {"16": 0.9}),
        "at most L Nesterov steps of balanced",
    ),
    "errors train": (put(("trained", "32", "ways", "nudge-errors"), {"4": 0.9}), "two steps of conjugate gradients"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_wrong_number_turns_its_verdict(case):
    """Oracle: numbers as the theory has them uphold every claim; one is spoilt, and its claim falls."""
    spoil, claim = SPOILT[case]
    numbers = made_up()
    assert all(one.outcome != Outcome.FAILED for one in depth.judge(numbers))
    spoil(numbers)
    failed = [one.claim for one in depth.judge(numbers) if one.outcome == Outcome.FAILED]
    assert len(failed) == 1
    assert failed[0].startswith(claim)


@pytest.mark.parametrize("way", WAYS)
def test_what_was_not_run_is_open(way):
    """Oracle: with one way alone the claims about others are neither upheld nor refuted; nor is growth at one depth."""
    numbers = made_up()
    counted = {L: [{way: seed[way]} for seed in seeds] for L, seeds in numbers["counted"].items()}
    trained = {
        L: {**row, "ways": {k: v for k, v in row["ways"].items() if k == way}} for L, row in numbers["trained"].items()
    }
    found = [one.outcome != Outcome.OPEN for one in depth.judge({**numbers, "counted": counted, "trained": trained})]
    skew, balanced = "skew-nesterov", "balanced-nesterov"
    about = ("nudge-flow", "nudge-errors", None, skew, "pc-flow", skew, balanced, "nudge-errors")
    assert found == [way == one or (one is None and parts(way)[1].local) for one in about]
    alone = depth.judge({**numbers, "counted": {"4": numbers["counted"]["4"]}})
    assert [one.outcome == Outcome.OPEN for one in alone[:4]] == [True, True, True, False]


def test_exponents_are_those_of_the_numbers():
    """Oracle: T = L^2 and T = L by construction; a depth that one seed did not reach is left out."""
    numbers = made_up()
    np.testing.assert_allclose(depth.exponent(depth.mean_steps(numbers, "nudge-flow")), 2)
    np.testing.assert_allclose(depth.exponent(depth.mean_steps(numbers, "pc-cg")), 1)
    assert depth.training_steps(numbers, "pc-flow", 0.98) == {4: 16, 8: 64, 16: 256}
    set_steps("pc-cg", "lowest quarter", None)(numbers)
    assert depth.mean_steps(numbers, "pc-cg") == {4: 4, 8: 8}


def test_the_table_has_every_way_at_every_depth():
    """Oracle: the numbers; a way that a seed did not get there by has a dash for its steps."""
    numbers = made_up()
    set_steps("pc-cg", "lowest block", None)(numbers)
    rows = depth.tabulate(numbers).rows
    assert len(rows) == len(WAYS) * len(DEPTHS)
    told = ", ".join(["0.95"] * 4), "0.1, 0.2, 0.4, 0.8"
    assert [row[1:] for row in rows if row[0] == "PC, CG on states"][-1] == ["16", "16", "-", "48", *told]


def test_the_picture_is_drawn_from_the_numbers():
    """Oracle: the numbers; every panel has a line for every way that it is about."""
    counts = [len(panel.lines) for panel in depth.draw(made_up()).axes]
    assert counts == [len(WAYS) + 1, len(WAYS), len(WAYS), 4 + 3, 2 * 4]


@pytest.fixture(scope="module")
def case():
    """A net of 8 blocks, a batch, and the exact gradient of its blocks."""
    data = ex.load_data("digits")
    graph = make_net(data, 6, 8, 0)
    batch = ex.Batch(jnp.asarray(data.train.images[:5] / 16.0, jnp.float32), jax.nn.one_hot(jnp.arange(5), 10))
    return graph, batch, blocks(depth.backprop(graph, batch))


@pytest.mark.parametrize("way", [pytest.param("pc-nesterov", marks=pytest.mark.slow), "skew-nesterov", "nudge-errors"])
def test_a_trajectory_is_the_engines_own(case, way):
    """Oracle: a relaxation of the library of as many steps, and the cosine of its gradient in numpy."""
    graph, batch, exact = case
    energy, solver = parts(way)
    dynamics, beta = energy.dynamics(8), jnp.asarray(energy.beta)
    steps = 6
    phase = ex.prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=beta)
    one = solver.make(energy.momentum(8))
    whole = dataclasses.replace(one, stop=ex.Stopping(max_steps=steps, check_every=0))
    states = solve(whole, phase, phase.start()).states
    found = np.asarray(blocks(energy_gradient(phase, states, jnp.full(5, 1 / energy.beta / 5))))
    size, true = np.linalg.norm(found, axis=1), np.linalg.norm(exact, axis=1)
    cosines = np.sum(found * exact, axis=1) / np.maximum(size * true, 1e-30)

    seen = follow(dynamics, one, graph, batch, exact, beta, jnp.asarray(steps), depth.AT_ONCE)
    by_quarter = [*cosines.reshape(4, 2).mean(axis=1), cosines[0]]
    np.testing.assert_allclose(seen.cosines[: len(by_quarter)], by_quarter, atol=2e-3)
    counted = solve(Counted(one, jnp.asarray(steps)), phase, phase.start()).states
    for name, value in states.items():
        np.testing.assert_allclose(counted[name], value, rtol=1e-5, atol=1e-6)


def test_an_error_moves_one_block_a_step(case):
    """Oracle: locality. Nothing of the label is at the lowest block before step L, and something is then."""
    graph, batch, exact = case
    given = (ex.PredictiveCoding(ex.SquaredError()), flow(0.0), graph, batch, exact, jnp.asarray(1.0))
    before, after = (follow(*given, jnp.asarray(steps), jnp.asarray(0.0)) for steps in (7, 8))
    assert before.sizes[-1] == 0
    assert after.sizes[-1] > 0


def test_the_first_step_of_the_errors_is_backprop(case):
    """Oracle: theory (docs/theory.md): the force at e = 0 is backprop's, and one step goes along it."""
    graph, batch, exact = case
    given = (ex.PredictiveCoding(ex.SquaredError()), iteration("nudge-errors", 8), graph, batch, exact)
    seen = follow(*given, jnp.asarray(1e-3), jnp.asarray(16), jnp.asarray(0.0))
    assert seen.reached.tolist() == [1, 1]
    np.testing.assert_allclose(seen.cosines, 1, atol=1e-3)
