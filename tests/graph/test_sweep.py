"""The sweep along an axis: a few positions are written out, many are a loop, and both are the same network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax.activations import Tanh
from energax.graph import sweep
from energax.graph.graph import Graph
from energax.graph.parts import Edge, Node
from energax.layers import Conv2d, Linear
from graph.test_stacking import BUILDERS, apart, split_states
from oracles import batch_for, recurrent

pytestmark = pytest.mark.usefixtures("strict")

KEY = jax.random.key(0)


@pytest.mark.parametrize("build", [*BUILDERS, lambda: recurrent(Tanh(), True)])
def test_an_axis_written_out_is_the_loop(build, monkeypatch):
    """Oracle: the loop, in values and in gradients of parameters and of errors, to 1e-12."""
    graph = build()
    x = batch_for(graph, 3).x
    free = graph.zeros(graph.free({graph.input: x}), x)
    errors = {name: jax.random.normal(KEY, value.shape) for name, value in free.items()}

    def swept(graph, errors):
        values = graph.sweep(x, errors)
        return sum(jnp.sum(jnp.sin(value)) for value in values.values()), values

    def measured():
        slope, values = eqx.filter_jit(eqx.filter_grad(lambda both: swept(*both), has_aux=True))((graph, errors))
        return jax.tree.leaves(eqx.filter((slope, values), eqx.is_array))

    out = measured()
    monkeypatch.setattr(sweep, "UNROLLED", 0)
    for one, other in zip(out, measured(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("most", [0, 8])
def test_both_ways_are_the_network_of_separate_nodes(build, most, monkeypatch):
    """Oracle: the graph in which every position is a node of its own."""
    monkeypatch.setattr(sweep, "UNROLLED", most)
    graph = build()
    x = batch_for(graph, 3).x
    expected = apart(graph).sweep(x)
    for name, value in split_states(graph, graph.sweep(x)).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-12, atol=1e-12)


class Counted(eqx.Module):
    """A map that counts how often it is traced."""

    layer: Linear
    calls: list = eqx.field(static=True)

    def __call__(self, x):
        self.calls.append(None)
        return self.layer(x)


@pytest.mark.parametrize("delay", [1, 3])
def test_silent_positions_are_not_mapped(delay):
    """Oracle: the length less the delay, where the axis is written out; above, a count that no length changes."""
    counts = {}
    for length in (4, 8, 9, 30):
        counted = Counted(Linear(2, 2, key=KEY), [])
        graph = Graph(
            nodes=[Node("x", (2,)), Node("h", (2,))],
            edges=[Edge("x", "h", "in"), Edge("h", "h", "again", delay=delay)],
            functions={"in": Linear(2, 2, key=KEY), "again": counted},
            input="x",
            output="h",
            length=length,
        )
        counted.calls.clear()  # the graph's checks look at shapes
        graph.sweep(jnp.ones((1, 2)))
        counts[length] = len(counted.calls)
    assert counts[4] == 4 - delay
    assert counts[8] == 8 - delay
    assert counts[9] == counts[30]


@pytest.mark.parametrize(("length", "looped"), [(4, False), (9, True)])
def test_convolutions_know_that_they_are_in_a_loop(length, looped):
    """Oracle: the program: forwards and backwards, what runs in the loop says so, and nothing else does."""
    graph = Graph(
        nodes=[Node("x", (4, 4, 2)), Node("h", (4, 4, 2))],
        edges=[Edge("x", "h", "in"), Edge("h", "h", "again", delay=1)],
        functions={name: Conv2d(2, 2, 3, padding=1, key=KEY) for name in ("in", "again")},
        input="x",
        output="h",
        length=length,
    )
    x = jnp.ones((1, 4, 4, 2))
    text = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(graph.sweep(x)["h"] ** 2)))(x))
    assert ("scanned=True" in text) == looped
    assert "scanned=False" in text
