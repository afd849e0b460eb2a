"""The experiment on stability: verdicts from made-up numbers, right and wrong ones, and what it measures.

The numbers here are made up; the continuous integration runs the experiment itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax.graph.networks import mlp
from energax.papers import Outcome
from energax.papers.beyond import stability
from oracles import batch_for, relative, solve


def cell(energy, multiple, curvature=10.0, validation=0.95):
    """A step of `multiple` times 2 / 10: it explodes where step times curvature is above 2."""
    step = multiple * 2 / 10
    rows = [
        {"epoch": epoch, "curvature": curvature, "diverged": 0.5 if step * curvature > 2 else 0.0} for epoch in (1, 2)
    ]
    facts = {"energy": energy, "multiple": multiple, "seed": 0, "step": step, "first_curvature": curvature}
    return {**facts, "rows": rows, "validation_accuracy": [0.5, validation]}


def made_up(**curvatures):
    """Every energy explodes beyond 2 / curvature; all curvatures are 10 unless given."""
    cells = [
        cell(energy, multiple, curvatures.get(energy, 10.0))
        for energy in ("hpc", "hpc_weak", "skew", "balanced")
        for multiple in (0.5, 0.9, 1.1)
    ]
    for one in cells:
        one["energy"] = one["energy"].replace("_", "-")
    return {
        "cells": [*cells, {"energy": "backprop", "seed": 0, "validation_accuracy": [0.96], "rows": []}],
        "steps": 30,
    }


def holds(numbers):
    return [one.outcome != Outcome.FAILED for one in stability.judge(numbers)]


def test_it_is_judged_by_its_numbers():
    """Oracle: by hand; each claim turns with the number that it is about."""
    assert holds(made_up()) == [False, True, True, True]
    assert holds(made_up(skew=8.0, balanced=8.0)) == [True, False, True, True]
    assert holds(made_up(balanced=8.0)) == [False, False, True, True]
    assert holds(made_up(skew=8.0, balanced=8.0, hpc_weak=5.0)) == [True, True, True, True]
    early = made_up()
    early["cells"][0]["rows"][1]["diverged"] = 0.02  # at half the stable step
    assert holds(early) == [True, True, False, True]
    poor = made_up()
    for one in poor["cells"]:
        if one["energy"] == "balanced":
            one["validation_accuracy"] = [0.9]
    assert holds(poor) == [False, True, True, False]


def test_the_picture_and_the_table_show_every_energy():
    """Oracle: the numbers."""
    counts = [len(panel.lines) for panel in stability.draw(made_up()).axes]
    assert counts == [4, 5, 4]
    table = stability.tabulate(made_up())
    assert len(table.rows) == 4 * 3
    assert ["HPC", "1.1", "0.22", "10", "10", "50.0", "95.00", "1"] in table.rows


@pytest.mark.parametrize("key", ["hpc", "skew"])
def test_the_curvature_is_that_of_the_nudged_phase_where_it_begins(key):
    """Oracle: the Hessian of F at the feed-forward pass."""
    energy = stability.ENERGIES[key]
    graph = mlp([4, 5, 5, 3], jnp.tanh, output_state=False, gain=2, key=jax.random.key(0))
    batch, dynamics = batch_for(graph, 3), energy.make()
    found = stability.measure_curvature(dynamics, graph, batch, energy.beta)
    phase = ex.prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=jnp.asarray(energy.beta))
    states = phase.start().states

    def largest(row):
        alone = phase.take(jnp.asarray([row]))
        vector, unravel = jax.flatten_util.ravel_pytree({name: v[row : row + 1] for name, v in states.items()})
        hessian = jax.jit(jax.hessian(lambda v: alone.energy(unravel(v))[0]))(vector)
        return np.linalg.eigvalsh(hessian)[-1]

    np.testing.assert_allclose(found, np.mean([largest(row) for row in range(3)]), rtol=1e-3)


def test_plain_steps_are_counted_and_unbounded():
    """Oracle: the same steps by hand, far beyond what is stable."""
    graph = mlp([4, 5, 3], lambda v: v, key=jax.random.key(0))
    batch = batch_for(graph, 2)
    solver = stability.make_plain_steps(stability.Settings(steps=4), 0.9)
    phase = ex.prepare_phase(ex.PredictiveCoding(), graph, graph.clamp(batch.x), target=batch.y, beta=jnp.ones(()))
    states = phase.start().states
    end = solve(solver, phase, ex.Start(states))
    assert np.all(end.steps == 4)
    force = jax.jit(lambda states: phase.force(states))
    for _ in range(4):
        states = jax.tree.map(lambda v, f: v + 0.9 * f, states, force(states))
    assert relative(end.states, states) < 1e-12
