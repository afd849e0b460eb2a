"""Random layers: one mask per sample and edge, the same in every phase and step; off without a key."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax.activations import Tanh
from energax.checks.means import energy_of
from energax.dynamics.phase import prepare_phase
from energax.exceptions import GraphError, SettingError
from energax.graph.clamping import hold
from energax.graph.parts import Axis, Clamped
from energax.graph.stacking import Stacked
from energax.layers import Chain, Dropout, Identity, Linear, takes_key
from energax.layers.basic import fold_in
from energax.rules import centred, nudge
from oracles import gradient, relative, sweep

pytestmark = pytest.mark.usefixtures("strict")

KEY = jax.random.key(0)
RATE = 0.5
PC = ex.PredictiveCoding(ex.CrossEntropy())


def build(drop, *, state=False):
    """3 -> 6 -> 5 -> 2 with a random layer before the second and third map, in a chain and on its own."""
    keys = jax.random.split(KEY, 3)
    return ex.Graph(
        nodes=[
            ex.Node("x", (3,)),
            ex.Node("a", (6,), "act"),
            ex.Node("b", (5,), "act"),
            ex.Node("c", (5,), None, state=False),
            ex.Node("y", (2,), state=state),
        ],
        edges=[
            ex.Edge("x", "a", "one"),
            ex.Edge("a", "b", "two"),
            ex.Edge("b", "c", "drop"),
            ex.Edge("c", "y", "three"),
        ],
        functions={
            "one": Linear(3, 6, key=keys[0]),
            "two": Chain((drop("a", 6), Linear(6, 5, key=keys[1]))),
            "drop": drop("b", 5),
            "three": Linear(5, 2, key=keys[2]),
            "act": Tanh(),
        },
        input="x",
        output="y",
    )


def masks(row, key):
    """What the library draws for a sample, from its definition: the batch's key, the row, the edge, the place."""
    sample = jax.random.fold_in(key, row)
    drawn = {"a": (jax.random.fold_in(jax.random.fold_in(sample, 1), 0), 6), "b": (jax.random.fold_in(sample, 2), 5)}
    return {
        name: jnp.where(jax.random.bernoulli(k, 1 - RATE, (n,)), 1 / (1 - RATE), 0.0) for name, (k, n) in drawn.items()
    }


CASES = {
    "backprop": (ex.Backprop(), PC, ex.GradientFlow(), False),
    "first_step": (ex.FirstStep(), PC, ex.GradientFlow(), False),
    "pc": (ex.Contrastive(nudge(0.1)), PC, ex.ConjugateGradient(ex.Stopping(1e-9, 200)), False),
    "pc_errors": (
        ex.Contrastive(nudge(0.1)),
        PC,
        ex.ConjugateGradient(ex.Stopping(1e-9, 200), coordinates=ex.solvers.ErrorCoordinates()),
        False,
    ),
    "pc_untested": (ex.Contrastive(nudge(0.1)), PC, ex.GradientFlow(stop=ex.Stopping(1e-9, 30, 0)), False),
    "ep": (ex.Contrastive(centred(0.1)), ex.Hopfield(), ex.FixedPoint(stop=ex.Stopping(1e-11, 500)), True),
    "adjoint": (ex.Adjoint(), ex.Hopfield(), ex.FixedPoint(stop=ex.Stopping(1e-11, 500)), True),
}


@pytest.mark.parametrize("case", CASES)
def test_dropout_trains_like_the_masked_net(case):
    """Oracle: the net with the masks as fixed layers, sample by sample, averaged; of 20, slow ones are gathered."""
    rule, dynamics, solver, state = CASES[case]
    size = 20
    x, y = jax.random.normal(KEY, (size, 3)), jax.nn.one_hot(jnp.arange(size) % 2, 2, dtype=float)
    key = jax.random.key(7)
    random = build(lambda name, count: Dropout(RATE), state=state)
    found = gradient(rule, dynamics, random, ex.Batch(x, y, key), solver)
    whole = []
    for row in range(size):
        drawn = masks(row, key)
        fixed = build(lambda name, count, drawn=drawn: Weigh(drawn[name]), state=state)
        one = gradient(rule, dynamics, fixed, ex.Batch(x[row : row + 1], y[row : row + 1]), solver)
        whole.append([fn.weight for fn in layers_of(one)])
    expected = [jnp.mean(jnp.stack(parts), axis=0) for parts in zip(*whole, strict=True)]
    assert relative([fn.weight for fn in layers_of(found)], expected) < 1e-8


class Weigh(eqx.Module):
    """Multiply by an array that is held."""

    by: jax.Array

    def __call__(self, x):
        return x * jax.lax.stop_gradient(self.by)


def layers_of(graph):
    """The linear maps of a gradient, in order."""
    return [graph.functions["one"], graph.functions["two"].layers[1], graph.functions["three"]]


def test_no_key_is_no_dropout():
    """Oracle: the net with the identity in its place."""
    batch = ex.Batch(jax.random.normal(KEY, (4, 3)), jax.nn.one_hot(jnp.arange(4) % 2, 2, dtype=float))
    rule, dynamics, solver, _ = CASES["pc"]
    expected = layers_of(gradient(rule, dynamics, build(lambda *_: Identity()), batch, solver))
    for layer in (Dropout(RATE), eqx.nn.Dropout(RATE), Chain((Dropout(RATE),)), ex.layers.Analytic(Dropout(RATE))):
        found = layers_of(gradient(rule, dynamics, build(lambda *_, layer=layer: layer), batch, solver))
        assert relative(found, expected) == 0


def test_equinox_dropout_is_the_same_layer():
    """Oracle: the library's own, from the same key."""
    batch = ex.Batch(jax.random.normal(KEY, (4, 3)), jax.nn.one_hot(jnp.arange(4) % 2, 2, dtype=float), KEY)
    rule, dynamics, solver, _ = CASES["pc"]
    one, two = (
        layers_of(gradient(rule, dynamics, build(lambda *_, layer=layer: layer), batch, solver))
        for layer in (Dropout(RATE), eqx.nn.Dropout(RATE))
    )
    assert relative(one, two) < 1e-12
    assert takes_key(eqx.nn.Sequential([eqx.nn.Linear(3, 3, key=KEY), eqx.nn.Dropout()]))
    assert not takes_key(eqx.nn.Sequential([eqx.nn.Linear(3, 3, key=KEY)]))


def recurrent(function, length=4):
    """A node along an axis of its own, through a random layer."""
    axis = Axis("stack", length)
    return ex.Graph(
        nodes=[ex.Node("x", (8,)), ex.Node("h", (8,), axes=(axis,)), ex.Node("y", (8,), state=False)],
        edges=[ex.Edge("x", "h", "in"), ex.Edge("h", "h", "next", 1), ex.Edge("h", "y", "out")],
        functions={"in": Identity(), "next": function(axis), "out": Identity()},
        input="x",
        output="y",
    )


@pytest.mark.parametrize("stacked", [False, True], ids=["shared", "stacked"])
def test_positions_that_share_a_layer_share_its_mask(stacked):
    """Oracle: products of masks drawn by the definition; and the hoisted prediction sees the scan's masks."""

    def function(axis):
        return (
            Stacked.of([Chain((Dropout(0.3), Scale(jnp.ones(())))) for _ in range(3)], axis)
            if stacked
            else Dropout(0.3)
        )

    graph = recurrent(function)
    held = hold(graph, jnp.ones((5, 8)), KEY)
    states = sweep(graph, held)
    for row in range(5):
        edge = fold_in(held.keys, 1)[row]
        value = jnp.ones(8)
        for position in range(3):
            own = jax.random.fold_in(jax.random.fold_in(edge, position), 0) if stacked else edge
            value = jnp.where(jax.random.bernoulli(own, 0.7, (8,)), value / 0.7, 0)
            np.testing.assert_allclose(states["h"][row, position + 1], value, rtol=1e-14)
    predictions = graph.predict(states, graph.precompute(held))
    np.testing.assert_allclose(predictions["h"], states["h"], rtol=1e-14)


class Scale(eqx.Module):
    """Times a number, so that a stack has an array to count its positions by."""

    by: jax.Array

    def __call__(self, x):
        return self.by * x


def test_a_phase_keeps_the_masks_of_its_rows():
    """Oracle: the energies of all rows, gathered and repeated."""
    graph = build(lambda *_: Dropout(RATE))
    phase = prepare_phase(PC, graph, hold(graph, jax.random.normal(KEY, (6, 3)), KEY))
    states = {n: jax.random.normal(KEY, (6, *graph.full_shape(n))) for n in graph.free({"x"})}
    whole = energy_of(phase, states)
    rows = jnp.array([4, 1])
    np.testing.assert_allclose(
        energy_of(phase.take(rows), jax.tree.map(lambda v: v[rows], states)), whole[rows], rtol=1e-13
    )
    twice = jax.tree.map(lambda v: jnp.concatenate([v, v]), states)
    np.testing.assert_allclose(energy_of(phase.tile(2), twice), jnp.concatenate([whole, whole]), rtol=1e-13)
    off = dataclasses.replace(phase, clamped=Clamped(phase.clamped.values), sent=Clamped(phase.clamped.values))
    assert float(jnp.max(jnp.abs(energy_of(off, states) - whole))) > 1e-2


def test_relax_draws_only_with_a_key():
    graph = build(lambda *_: Dropout(RATE))
    x = jax.random.normal(KEY, (4, 3))
    plain, again, drawn = (
        ex.relax(PC, graph, ex.GradientFlow(), clamp={"x": x}, key=key).states["b"] for key in (None, None, KEY)
    )
    np.testing.assert_array_equal(plain, again)
    assert float(jnp.max(jnp.abs(plain - drawn))) > 1e-2


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_that_are_none_are_refused(rate):
    with pytest.raises(SettingError, match=f"rate={rate}: give the share of numbers to drop"):
        Dropout(rate)


def test_norms_with_batch_statistics_are_refused():
    norm = eqx.nn.BatchNorm(6, axis_name="batch", mode="ema")
    with pytest.raises(GraphError, match=r"BatchNorm takes statistics over a batch.*LayerNorm, GroupNorm"):
        build(lambda *_: Chain((norm, Identity())))
    build(lambda _, count: eqx.nn.LayerNorm(count))


def test_sequences_are_taken_unless_a_layer_within_carries_a_state():
    """Oracle: `is_stateful` of equinox, and the layers one after the other."""
    relu, x = eqx.nn.Lambda(jax.nn.relu), jax.random.normal(KEY, (4, 3))
    one = build(lambda _, count: eqx.nn.Sequential([eqx.nn.LayerNorm(count), relu]))
    other = build(lambda _, count: Chain((eqx.nn.LayerNorm(count), relu)))
    jax.tree.map(np.testing.assert_array_equal, one.sweep(x), other.sweep(x))
    batch_norm = eqx.nn.BatchNorm(6, axis_name="batch", mode="ema")
    with pytest.raises(GraphError, match="BatchNorm takes statistics over a batch"):
        build(lambda *_: eqx.nn.Sequential([relu, eqx.nn.Sequential([batch_norm])]))
