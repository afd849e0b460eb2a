"""A sparse layer of 10^5 synapses under every rule, against the dense layer with zeros where no synapse is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import energax as ex
from energax.activations import Tanh
from energax.exceptions import GraphError, SettingError
from energax.graph.parts import Axis
from energax.graph.stacking import Stacked
from energax.layers import Chain, Linear, Sparse
from energax.rules import centred, nudge, one_sided, unit_nudge
from oracles import gradient, relative

pytestmark = pytest.mark.usefixtures("strict")

KEY = jax.random.key(0)
INPUTS, UNITS, SYNAPSES = 700, 600, 100_000
PC, HOPFIELD = ex.PredictiveCoding(ex.CrossEntropy()), ex.Hopfield()
FLOW = ex.ConjugateGradient(ex.Stopping(1e-8, 100))
SWEEPS = ex.FixedPoint(stop=ex.Stopping(1e-11, 300))
RULES = {
    "backprop": (ex.Backprop(), PC, FLOW),
    "first_step": (ex.FirstStep(), PC, FLOW),
    "unit_nudge": (ex.Contrastive(unit_nudge()), PC, FLOW),
    "nudge": (ex.Contrastive(nudge(0.01)), PC, FLOW),
    "incremental": (ex.Incremental(), PC, ex.GradientFlow()),
    "one_sided": (ex.Contrastive(one_sided(0.1)), HOPFIELD, SWEEPS),
    "centred": (ex.Contrastive(centred(0.1)), HOPFIELD, SWEEPS),
    "hebbian": (ex.ContrastiveHebbian(), HOPFIELD, SWEEPS),
    "adjoint": (ex.Adjoint(), HOPFIELD, SWEEPS),
    "vector_field": (ex.VectorFieldRule(0.1), PC, FLOW),
}


def net(first):
    return ex.Graph(
        nodes=[ex.Node("x", (INPUTS,)), ex.Node("h", (UNITS,), "act"), ex.Node("y", (3,))],
        edges=[ex.Edge("x", "h", "first"), ex.Edge("h", "y", "second")],
        functions={"first": first, "second": Linear(UNITS, 3, key=KEY), "act": Tanh()},
        input="x",
        output="y",
    )


@pytest.fixture(scope="module")
def pair():
    """The sparse net, and the dense one with the same numbers."""
    chosen = jax.random.choice(KEY, INPUTS * UNITS, (SYNAPSES,), replace=False)
    layer = Sparse(chosen // UNITS, chosen % UNITS, INPUTS, UNITS, key=KEY)
    weight = jnp.zeros((INPUTS, UNITS)).at[layer.sources, layer.targets].set(layer.weight)
    dense = eqx.tree_at(lambda l: (l.weight, l.bias), Linear(INPUTS, UNITS, key=KEY), (weight, layer.bias))
    return layer, net(layer), net(dense)


@pytest.mark.parametrize("row", RULES)
def test_every_rule_learns_synapses_like_the_dense_net(row, pair):
    """Oracle: the dense net's gradient at the places of the synapses."""
    layer, sparse, dense = pair
    rule, dynamics, solver = RULES[row]
    batch = ex.Batch(jax.random.normal(KEY, (3, INPUTS)), jax.nn.one_hot(jnp.arange(3), 3, dtype=float))
    found = gradient(rule, dynamics, sparse, batch, solver).functions
    expected = gradient(rule, dynamics, dense, batch, solver).functions
    synapses = expected["first"].weight[layer.sources, layer.targets]
    ours = [found["first"].weight, found["first"].bias, found["second"]]
    assert relative(ours, [synapses, expected["first"].bias, expected["second"]]) < 1e-9


def test_a_chain_takes_a_batch_where_a_part_of_it_does(pair):
    """Oracle: the parts one after the other; along an axis too, into which the batch is folded."""
    layer, _, _ = pair
    chain = Chain((jnp.tanh, layer, jnp.sin))
    x = jax.random.normal(KEY, (2, INPUTS))
    np.testing.assert_allclose(chain(x), jnp.sin(layer(jnp.tanh(x))), rtol=1e-12)
    axis = Axis("place", 3)
    graph = ex.Graph(
        nodes=[ex.Node("x", (INPUTS,), axes=(axis,)), ex.Node("y", (UNITS,), axes=(axis,))],
        edges=[ex.Edge("x", "y", "chain")],
        functions={"chain": chain},
        input="x",
        output="y",
    )
    x = jax.random.normal(KEY, (2, 3, INPUTS))
    y = graph.sweep(x)["y"]
    for place in range(3):
        np.testing.assert_allclose(y[:, place], chain(x[:, place]), rtol=1e-12)


def test_adaptors_that_map_over_samples_refuse_it_by_name(pair):
    _, graph, _ = pair
    solver = ex.Optimistix(optx.BFGS(1e-6, 1e-6))
    with pytest.raises(SettingError, match=r"'first' takes a whole batch.*Optimistix settles every sample on its own"):
        ex.relax(PC, graph, solver, clamp={"x": jnp.ones((2, INPUTS))}, start={"h": jnp.ones((2, UNITS))})


def test_stacks_of_it_are_refused():
    axis = Axis("stack", 2)
    square = Sparse(jnp.array([0]), jnp.array([1]), 2, 2, key=KEY)
    with pytest.raises(GraphError, match="takes a whole batch, and such functions cannot be stacked"):
        ex.Graph(
            nodes=[ex.Node("x", (2,), axes=(axis,)), ex.Node("y", (2,), axes=(axis,))],
            edges=[ex.Edge("x", "y", "f")],
            functions={"f": Stacked.of([square, square], axis)},
            input="x",
            output="y",
        )


@pytest.mark.parametrize(
    ("sources", "targets", "message"),
    [
        ([0, 1], [0], "2 sources and 1 targets: give one pair per synapse"),
        ([0.0], [0], r"sources of shape \(1,\) and dtype float64: give a list of whole numbers"),
        ([5], [0], "sources from 5 to 5: there are units 0 to 4"),
        ([0], [-1], "targets from -1 to -1: there are units 0 to 2"),
    ],
)
def test_synapses_that_join_nothing_are_refused(sources, targets, message):
    with pytest.raises(SettingError, match=message):
        Sparse(jnp.array(sources), jnp.array(targets), 5, 3, key=KEY)
