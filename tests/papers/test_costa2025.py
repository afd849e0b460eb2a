"""Experiments on directed nets: numbers made for each verdict, and the initial weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax.certificates import certify
from energax.dynamics import prepare_phase
from energax.dynamics.directed import as_graph
from energax.papers import Outcome
from energax.papers.costa2025 import alignment, connectome, digits, microcircuit, populations, stability, xor


def letters(judgements):
    """y of a claim that holds, n of one that does not, o of one that nothing was run for."""
    return "".join({Outcome.FAILED: "n", Outcome.OPEN: "o"}.get(one.outcome, "y") for one in judgements)


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
    assert letters(found) == outcomes
    only = {"leaky-r1": {"or": way(easy, 0.0, 1.0)}}  # says nothing of XOR
    assert letters(xor.EXPERIMENT.judge({"ways": only, "seeds": 100})) == f"o{outcomes[1]}oo"


@pytest.mark.parametrize(
    ("change", "outcomes"),
    [({}, "yy"), ({"failed": 1}, "ny"), ({"split": 1}, "ny"), ({"certified": 9}, "yn"), ({"certified": 0}, "nn")],
)
def test_stability_is_judged_by_its_numbers(change, outcomes):
    """Oracle: one violation is enough, and one net with absolute outflow that is not certified."""
    point = {"kind": "absolute", "leak": 0.1, "nets": 10, "certified": 10, "failed": 0, "split": 0} | change
    found = stability.EXPERIMENT.judge({"points": [point]})
    assert letters(found) == outcomes


def test_centred_nets_rest_at_one_half():
    """Oracle: the text: no force where all units and inputs are at 1/2; weights among free units are positive."""
    graph = xor.draw_flow(0.4, 0.15, 0.1, True, jax.random.key(0))
    half = {"hidden": jnp.full((1, xor.HIDDEN), 0.5), "output": jnp.full((1, 1), 0.5)}
    phase = prepare_phase(ex.LeakyFlow(leak=0.1), graph, graph.clamp(jnp.full((1, 2), 0.5)))
    for force in phase.force(half).values():
        np.testing.assert_allclose(force, 0, atol=1e-5)
    free = [fn.weight for name, fn in graph.functions.items() if not name.startswith("input")]
    assert all(np.all(np.asarray(weight) >= 0) for weight in free)


@pytest.mark.parametrize(
    ("change", "outcomes"),
    [({}, "yyy"), ({"below": 1}, "nyy"), ({"above": 1}, "yny"), ({"turned": 1}, "yyn"), ({"proved": 0}, "oyy")],
)
def test_bounds_on_cosines_are_judged_by_their_numbers(change, outcomes):
    """Oracle: one violation is enough, and nothing is judged where nothing has a bound."""
    names = ("counted", "proved", "bounded", "cooperative")
    point = dict.fromkeys(names, 5) | {"below": 0, "above": 0, "turned": 0} | change
    found = alignment.EXPERIMENT.judge({"points": [point]})
    assert letters(found) == outcomes


def test_drawn_nets_keep_the_share_of_the_skew_part():
    """Oracle: matrices in numpy: at share 0 the net is symmetric, and the skew part grows with the share."""
    template = ex.networks.directed_complete(2, alignment.HIDDEN, 2, key=jax.random.key(0))
    for seed in range(4):
        graph, share = alignment.draw_net("signed", template, jax.random.key(seed))
        one, two = (np.asarray(graph.functions[f].weight) for f in ("hidden_to_output", "output_to_hidden"))
        symmetric, skew = (one + two.T) / 2, (one - two.T) / 2
        again, larger = alignment.draw_net("cooperative", template, jax.random.key(seed))
        assert float(larger) == float(share)
        assert min(np.min(fn.weight) for n, fn in again.functions.items() if not n.startswith("input")) >= 0
        assert np.linalg.norm(skew) < 3 * float(share) * np.linalg.norm(symmetric)


def way_on(data, way, accuracy, converged=1.0):
    return {
        "data": data,
        "way": way,
        "seed": 0,
        "diverged": None,
        "test_accuracy": accuracy,
        "converged_fraction": converged,
    }


@pytest.mark.parametrize(
    ("change", "outcomes"),
    [
        ({}, "yyyy"),
        ({("digits", "asym"): (0.95, 1.0)}, "nyyy"),
        ({("digits", "homeostasis-uncapped"): (0.99, 0.9)}, "ynyy"),
        ({("digits", "activity-uncapped"): (0.5, 1.0)}, "ynyy"),
        ({("digits", "fixed"): (0.94, 1.0)}, "yyny"),
        ({("mnist", "asym"): (0.98, 0.999)}, "yyyn"),
        ({("mnist", "asym"): None}, "yyyo"),
    ],
)
def test_digits_are_judged_by_their_numbers(change, outcomes):
    """Oracle: numbers on either side of every bound; what was not run is open."""
    ways = ("asym", "activity", "homeostasis")
    found = {("digits", way): (0.97, 1.0) for way in (*ways, "fixed")} | {("mnist", "asym"): (0.98, 1.0)}
    found |= {("digits", f"{way}-uncapped"): (0.9, 0.9) for way in ways} | change
    rows = [way_on(*at, *numbers) for at, numbers in found.items() if numbers is not None]
    judged = digits.EXPERIMENT.judge({"rows": rows})
    assert letters(judged) == outcomes


def counts(worm):
    """Of every neuron and kind: chemical synapses to and from it, and gap junctions."""
    codes = np.unique(worm.kinds, return_inverse=True)[1]
    sources, targets = worm.edges.sources, worm.edges.targets
    found = np.zeros((3, len(worm.names), codes.max() + 1), int)
    np.add.at(found[0], (sources[~worm.gaps], codes[targets[~worm.gaps]]), 1)
    np.add.at(found[1], (targets[~worm.gaps], codes[sources[~worm.gaps]]), 1)
    np.add.at(found[2], (sources[worm.gaps], codes[targets[worm.gaps]]), 1)
    return found


def test_the_worm_is_what_its_paper_counts():
    """Oracle: Cook et al. 2019: 302 neurons; the numbers of the folder's tables without autapses."""
    worm = connectome.read_worm()
    assert len(worm.names) == 302
    assert {kind: int((worm.kinds == kind).sum()) for kind in ("sensory", "inter", "motor")} == {
        "sensory": 83,
        "inter": 89,
        "motor": 123,
    }
    assert (int((~worm.gaps).sum()), int(worm.gaps.sum())) == (3671, 2182)
    assert worm.signs[worm.names.index("DD1")] == -1
    assert worm.signs[worm.names.index("AVAL")] == 1


@pytest.mark.parametrize("wiring", ["shuffled", "random"])
def test_other_wirings_keep_what_they_say(wiring):
    """Oracle: counts of every neuron by kind, or totals alone; no pair twice, none to itself, gaps both ways."""
    worm = connectome.read_worm()
    other, again = (connectome.rewire(worm, wiring, 4) for _ in range(2))
    pairs = set(zip(other.edges.sources.tolist(), other.edges.targets.tolist(), other.gaps.tolist(), strict=True))
    assert len(pairs) == len(other.edges) == len(worm.edges)
    assert all(source != target for source, target, _ in pairs)
    assert all((target, source, True) in pairs for source, target, gap in pairs if gap)
    assert (int(other.gaps.sum()), len(other.edges)) == (int(worm.gaps.sum()), len(worm.edges))
    assert np.array_equal(counts(other), counts(worm)) == (wiring == "shuffled")
    np.testing.assert_array_equal(other.edges.sources, again.edges.sources)
    before = set(zip(worm.edges.sources.tolist(), worm.edges.targets.tolist(), worm.gaps.tolist(), strict=True))
    assert len(pairs & before) < 0.6 * len(pairs)


@pytest.mark.parametrize(
    ("worm", "others", "certified", "outcomes"),
    [
        ((70, 71), (60, 61), {}, "yyyy"),
        ((70, 60), (60, 61), {}, "nynn"),
        ((70, 71), (75, 76), {"after": "none"}, "ynnn"),
        ((70, 71), (60, 61), {"before": "none"}, "ynyy"),
    ],
)
def test_wirings_are_compared_seed_by_seed(worm, others, certified, outcomes):
    """Oracle: accuracies on either side, in per cent."""
    rows = [
        {
            "wiring": wiring,
            "rule": "local",
            "seed": seed,
            "diverged": None,
            "test_accuracy": accuracies[seed] / 100,
            "before": "C3 Perron",
            "after": "C3 Perron",
            **certified,
        }
        for wiring, accuracies in (("worm", worm), ("shuffled", others), ("random", others))
        for seed in range(2)
    ]
    found = connectome.EXPERIMENT.judge({"rows": rows})
    assert letters(found) == outcomes


def test_the_microcircuit_has_its_published_size():
    """Oracle: Potjans & Diesmann 2014: 77,169 neurons, about 0.3 billion synapses."""
    assert sum(populations.SIZES.values()) == 77169
    sizes = np.asarray(list(populations.SIZES.values()))
    assert 2.8e8 < sizes @ populations.PROBABILITIES @ sizes < 3.1e8
    assert populations.scale_sizes(1e-3)["L5I"] == 1


@pytest.mark.parametrize(
    ("change", "outcomes"),
    [
        ({}, "yyy"),
        ({("local", 1): {"test_accuracy": 0.899}}, "nny"),
        ({("readout", 1): {"diverged": "NaN"}}, "nnn"),  # it is not beaten
        ({("local", 0): {"diverged": "NaN"}}, "nnn"),
        ({("adjoint", 0): {"after": "none"}}, "yyn"),
        ({("local", 0): {"data": "digits"}}, "ooy"),
    ],
)
def test_the_microcircuit_is_judged_seed_by_seed(change, outcomes):
    """Oracle: margins on either side of five points."""
    rows = []
    for data, way, seed in itertools.product(("digits", "mnist"), ("local", "adjoint", "readout"), range(2)):
        accuracy = {"local": 0.901, "adjoint": 0.95, "readout": 0.85}[way]
        row = {"data": data, "factor": 0.01, "way": way, "seed": seed, "test_accuracy": accuracy}
        row |= {"diverged": None, "before": "C3 Perron", "after": "C3 Perron"} | change.get((way, seed), {})
        if row["diverged"]:
            del row["after"]
        rows.append(row)
    found = microcircuit.EXPERIMENT.judge({"rows": rows})
    assert letters(found) == outcomes


def test_the_microcircuit_is_certified_and_keeps_its_signs():
    """Oracle: names of populations: what excites and inhibits, what is read, what the thalamus and the output reach."""
    learner = microcircuit.make_learner(ex.load_data("digits"), 0.002, "local", 0, 10)
    graph = as_graph(learner.graph)
    sizes = populations.scale_sizes(0.002)
    names = np.repeat(list(sizes), list(sizes.values()))
    synapses, leaving, returning = (graph.functions[name] for name in ("synapses", "leaving", "returning"))
    weights = np.asarray(synapses.weight)
    inhibits = np.char.endswith(names[np.asarray(synapses.sources)], "I")
    assert np.all(weights[inhibits] <= 0)
    assert np.all(weights[~inhibits] >= 0)
    assert set(names[np.asarray(leaving.sources)]) == {"L5E"}
    assert len(np.unique(np.asarray(returning.targets))) == len(names)
    reached = names[np.asarray(graph.functions["entering"].layers[-1].targets)]
    assert set(reached) == {"L4E", "L4I", "L6E", "L6I"}
    arriving = np.bincount(synapses.targets, np.abs(weights), len(names))
    arriving += np.bincount(returning.targets, np.abs(np.asarray(returning.weight)), len(names))
    assert 0.8 < arriving.max() <= 0.9 + 1e-5
    assert certify(learner.dynamics, graph).certified
