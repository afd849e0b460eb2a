"""Experiments on directed nets: numbers made for each verdict, and the initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax.dynamics import prepare_phase
from energax.papers import Outcome
from energax.papers.costa2025 import stability, xor


def way(solved, late, certified):
    return {"title": "", "solved": solved, "late": late, "certified": certified}


@pytest.mark.parametrize(
    ("r1", "easy", "asym", "deep", "outcomes"),
    [
        ((78, 0.0, 1.0), 100, (95, 0.0, 1.0), (30, 0.2, 0.0), "yyyy"),
        ((77, 0.0, 1.0), 99, (94, 0.0, 1.0), (50, 0.2, 0.0), "nnnn"),
        ((90, 0.1, 1.0), 100, (100, 0.0, 0.9), (30, 0.0, 0.0), "nynn"),
        ((90, 0.0, 0.9), 100, (100, 0.0, 1.0), (30, 0.2, 0.1), "nyyn"),
    ],
)
def test_functions_of_two_bits_are_judged_by_their_numbers(r1, easy, asym, deep, outcomes):
    """Oracle: numbers on either side of every bound."""
    ways = {
        "leaky-r1": {"xor": way(*r1), "or": way(easy, 0.0, 1.0)},
        "additive-asym": {"xor": way(*asym)},
        "deep2020": {"xor": way(*deep)},
    }
    found = xor.EXPERIMENT.judge({"ways": ways, "seeds": 100})
    assert [one.outcome != Outcome.FAILED for one in found] == [letter == "y" for letter in outcomes]


@pytest.mark.parametrize(
    ("change", "outcomes"),
    [({}, "yy"), ({"failed": 1}, "ny"), ({"split": 1}, "ny"), ({"certified": 9}, "yn"), ({"certified": 0}, "nn")],
)
def test_stability_is_judged_by_its_numbers(change, outcomes):
    """Oracle: one violation is enough, and one net with absolute outflow that is not certified."""
    point = {"kind": "absolute", "leak": 0.1, "nets": 10, "certified": 10, "failed": 0, "split": 0} | change
    found = stability.EXPERIMENT.judge({"points": [point]})
    assert [one.outcome != Outcome.FAILED for one in found] == [letter == "y" for letter in outcomes]


def test_centred_nets_rest_at_one_half():
    """Oracle: the text: no force where all units and inputs are at 1/2; weights among free units are positive."""
    graph = xor.draw_flow(0.4, 0.15, 0.1, True, jax.random.key(0))
    half = {"hidden": jnp.full((1, xor.HIDDEN), 0.5), "output": jnp.full((1, 1), 0.5)}
    phase = prepare_phase(ex.LeakyFlow(leak=0.1), graph, graph.clamp(jnp.full((1, 2), 0.5)))
    for force in phase.force(half).values():
        np.testing.assert_allclose(force, 0, atol=1e-5)
    free = [fn.weight for name, fn in graph.functions.items() if not name.startswith("input")]
    assert all(np.all(np.asarray(weight) >= 0) for weight in free)
