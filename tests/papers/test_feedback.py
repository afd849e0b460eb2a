"""The experiment on feedback by depth: verdicts from made-up numbers, right and wrong ones, and what it counts."""

import jax.numpy as jnp
import pytest

import energax as ex
from energax.papers import Outcome
from energax.papers.beyond import feedback
from energax.papers.beyond.depth import BATCH, backprop
from energax.papers.beyond.ways import COST, Counted, blocks, flow, make_net, quick
from energax.rules.base import energy_gradient
from energax.training.rows import make_device_split
from oracles import solve

GOOD, BAD, OPEN = Outcome.REPRODUCED, Outcome.FAILED, Outcome.OPEN
SMALL, DEEP = 0.3, 10 / 64  # what min(.3, 10 / L) is at 4 and at 64 blocks
STEPS = {
    (4, 0.05, 0.0): 8,
    (4, SMALL, 0.0): 4,
    (4, 0.05, 1.0): 4,
    (4, SMALL, 1.0): 3,
    (64, 0.05, 0.0): 100,
    (64, DEEP, 0.0): 64,
    (64, 0.05, 1.0): 62,
    (64, DEEP, 1.0): 60,
}
"""Steps by depth, a and b / a, as the claims have them."""


def judged(changes=()):
    """The verdicts on these steps, some of them replaced."""
    return [one.outcome for one in feedback.judge(made_up(changes))]


def made_up(changes=()):
    """The numbers of such steps."""
    rows = {**STEPS, **dict(changes)}.items()
    keys = ("depth", "a", "share")
    return {"rows": [dict(zip(keys, at, strict=True)) | {"seed": 0, "steps": n, "size": n and 0.1} for at, n in rows]}


def test_it_is_judged_by_its_numbers():
    """Oracle: by hand; each claim turns with a number that it is about."""
    assert judged() == [GOOD, GOOD, GOOD, GOOD]
    assert judged({(64, SMALL, 0.0): 90, (64, SMALL, 1.0): 90}) == [BAD, GOOD, GOOD, GOOD]
    assert judged({(64, DEEP, 1.0): 40}) == [GOOD, BAD, GOOD, GOOD]
    assert judged({(4, SMALL, 0.0): 2}) == [GOOD, GOOD, BAD, GOOD]
    assert judged({(64, 0.05, 1.0): 65}) == [GOOD, GOOD, GOOD, BAD]
    assert judged({(4, 0.05, 1.0): None}) == [GOOD, GOOD, GOOD, BAD]


def test_what_gets_nowhere_is_no_success():
    """Oracle: by hand; None is no number of steps."""
    never = {at: None for at in STEPS if at[0] == 4}
    assert judged(never) == [BAD, BAD, GOOD, BAD]
    assert judged(dict.fromkeys(STEPS)) == [BAD, BAD, OPEN, BAD]
    alone = {"rows": [row for row in made_up()["rows"] if (row["depth"], row["share"]) == (4, 0.0)]}
    assert [one.outcome for one in feedback.judge(alone)] == [OPEN, GOOD, OPEN, OPEN]
    for numbers in (made_up(), made_up(never), alone):
        assert all(len(panel.lines) >= 1 for panel in feedback.draw(numbers).axes)
    assert "| 0.3 | - / - |" in feedback.tabulate(made_up(never)).markdown()


def test_steps_are_those_of_the_engine():
    """Oracle: the gradient after so many steps of the same solver, run by itself; one step fewer is not enough."""
    settings = feedback.Settings(data="digits", depths=(4,), feedback=(0.3,), balanced=False, seeds=(0,))
    data = ex.load_data("digits")
    (row,) = feedback.count_steps(settings, data, 4, 0)
    graph = make_net(data, settings.width, 4, 0)
    batch = make_device_split(data, data.train, standardise=False).batch(jnp.arange(BATCH))
    exact = blocks(backprop(graph, batch))[:1]  # of four blocks the lowest quarter is the lowest block

    dynamics, weights = ex.Bidirectional(feedback=jnp.asarray(0.3), cost=COST), jnp.full(BATCH, 1 / BATCH)
    phase = ex.prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=jnp.asarray(1.0))

    def after(steps):
        states = solve(Counted(flow(quick(4)), jnp.asarray(steps)), phase, phase.start()).states
        found = blocks(energy_gradient(phase, states, weights))[:1]
        size, true = jnp.linalg.norm(found), jnp.linalg.norm(exact)
        return float(jnp.sum(found * exact) / (size * true)), float(size / true)

    assert row["steps"] > 1
    cosine, size = after(row["steps"])
    assert cosine >= 0.9
    assert not after(row["steps"] - 1)[0] >= 0.9  # NaN while nothing has arrived there
    assert size == pytest.approx(row["size"], rel=1e-4)
