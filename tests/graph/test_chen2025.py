"""The networks of Chen et al. 2025: their size, and their sweep against convolutions written out by hand."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax import networks
from energax.diagnostics.regime import settled_gradient
from energax.exceptions import SettingError
from energax.layers import average
from energax.rules import centred, holomorphic, nudge, one_sided, unit_nudge
from energax.solvers import Synchronous
from oracles import gradient, relative, sweep

BUILDERS = {
    "hierarchical": networks.hierarchical,
    "simple": networks.recurrent_simple,
    "complex": networks.recurrent_complex,
}
KEY = jax.random.key(0)


def conv(fn, x, stride=1):
    """One of jax's own convolutions with the weights of a layer, channels last."""
    p = fn.weight.shape[0] // 2
    dims = ("NHWC", "HWIO", "NHWC")
    found = jax.lax.conv_general_dilated(x, fn.weight, (stride, stride), [(p, p), (p, p)], dimension_numbers=dims)
    return found + fn.bias


def pooled(x):
    """The largest of windows of 2 x 2, a row and a column of zeros where a side is odd."""
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def hierarchical_by_hand(f, x):
    states = []
    for layer in range(1, 11):
        part = f[f"layer{layer}"]
        x = pooled(conv(part.layers[0], x)) if layer in (2, 3, 5, 10) else conv(part, x)
        states.append(x := jnp.tanh(x))
    x = jnp.tanh(x.reshape(len(x), -1) @ f["layer11"].layers[1].weight + f["layer11"].layers[1].bias)
    return x @ f["layer12"].weight + f["layer12"].bias


def simple_by_hand(f, x, steps):
    """Every node of every step a copy of its own."""
    strides = {2: 2, 3: 2, 4: 2, 5: 1, 6: 1}
    states: dict = {}
    for t in range(steps):
        states[1, t] = jnp.tanh(conv(f["forward1"], x))
        for node in range(2, 7):
            sent = []
            if t:
                sent.append(conv(f[f"forward{node}"], states[node - 1, t - 1], strides[node]))
                sent.append(conv(f[f"again{node}"], states[node, t - 1]))
                if node >= 4:
                    stride = strides[node] * strides[node - 1]
                    sent.append(conv(f[f"skip{node}"], states[node - 2, t - 1], stride))
            states[node, t] = jnp.tanh(sum(sent)) if sent else None
            if not sent:
                shape = jax.eval_shape(lambda v, n=node: conv(f[f"forward{n}"], v, strides[n]), states[node - 1, t])
                states[node, t] = jnp.zeros(shape.shape)
    last = states[6, steps - 1]
    readout = f["readout"].layers[1]
    return last.reshape(len(last), -1) @ readout.weight + readout.bias


def complex_by_hand(f, x, steps):
    out: dict = {}
    shapes: dict = {}
    for t in range(steps):
        out[1, t] = jnp.tanh(conv(f["forward1"], x))
        shapes[1] = out[1, t].shape
        for node in range(2, 7):
            inner, width = f[f"inner{node}"], f[f"forward{node}"].weight.shape[-1]
            side = shapes[node - 1][1]
            entering = []
            if t:
                entering.append(conv(f[f"forward{node}"], out[node - 1, t - 1]))
                if node >= 4:
                    stride = -(-shapes[node - 2][1] // side)
                    entering.append(conv(f[f"skip{node}"], out[node - 2, t - 1], stride))
            entered = jnp.tanh(sum(entering)) if entering else jnp.zeros((len(x), side, side, width))
            sent = pooled(conv(inner.layers[0], entered)) if node % 2 == 0 else conv(inner, entered)
            if t:
                sent = sent + conv(f[f"again{node}"], out[node, t - 1])
            out[node, t] = jnp.tanh(sent)
            shapes[node] = out[node, t].shape
    last = out[6, steps - 1]
    dense, readout = f["dense"].layers[1], f["readout"]
    return jnp.tanh(last.reshape(len(x), -1) @ dense.weight + dense.bias) @ readout.weight + readout.bias


@pytest.mark.parametrize("name", ["simple", "complex", "hierarchical"])  # ./test takes the first: loops, and time
def test_the_sweep_and_backprop_equal_copies_by_hand(name):
    """Oracle: the network of separate copies, in jax's own convolutions; output and gradient of the cost."""
    shape, steps = (14, 14, 1), {} if name == "hierarchical" else {"length": 4}
    graph = BUILDERS[name](shape, 10, jnp.tanh, width=0.04, gain=1.5, key=KEY, **steps)
    x = jax.random.normal(jax.random.key(1), (2, *shape))
    y = jax.nn.one_hot(jnp.arange(2), 10, dtype=x.dtype)

    def output(functions):
        if name == "hierarchical":
            return hierarchical_by_hand(functions, x)
        return (simple_by_hand if name == "simple" else complex_by_hand)(functions, x, 4)

    found = eqx.filter_jit(lambda graph: graph.output_value(graph.sweep(x)))(graph)
    np.testing.assert_allclose(found, eqx.filter_jit(output)(graph.functions), rtol=1e-9, atol=1e-12)

    def cost(graph):
        return jnp.mean(ex.CrossEntropy()(output(graph.functions), y))

    dynamics = ex.PredictiveCoding(ex.CrossEntropy())
    assert (
        relative(gradient(ex.Backprop(), dynamics, graph, ex.Batch(x, y)), eqx.filter_jit(eqx.filter_grad(cost))(graph))
        < 1e-9
    )


def test_without_recurrence_and_skips_the_simple_network_is_a_chain():
    """Oracle: its maps one after the other; of dense layers too."""
    x = jax.random.normal(KEY, (3, 8, 8, 1))
    for make in (networks.recurrent_simple, networks.recurrent_dense):
        graph = make((8, 8, 1), 5, jnp.tanh, width=0.05, length=6, recurrent=False, skips=False, key=KEY, gain=2)
        assert not {name for name in graph.functions if name.startswith(("again", "skip"))}

        def chain(image, graph=graph):
            for node in range(1, 7):
                image = jnp.tanh(graph.functions[f"forward{node}"](image))
            return graph.functions["readout"](image)

        np.testing.assert_allclose(graph.output_value(sweep(graph, x)), jax.jit(jax.vmap(chain))(x), rtol=1e-9)


def test_the_dense_network_equals_copies_by_hand():
    """Oracle: every node of every step a copy of its own."""
    graph = networks.recurrent_dense((4, 4, 1), 5, jnp.tanh, width=0.1, length=5, key=KEY, gain=2)
    assert graph.node("node3").shape == (6,)
    f, x = graph.functions, jax.random.normal(KEY, (3, 4, 4, 1))
    v = {}
    for t in range(5):
        v[1, t] = jnp.tanh(jax.vmap(f["forward1"])(x))
        for node in range(2, 7):
            sent = jnp.zeros((3, 6))
            if t:
                sent = sum(
                    (v[source, t - 1] @ f[f"{name}{node}"].weight + f[f"{name}{node}"].bias)
                    for name, source in (("forward", node - 1), ("again", node), ("skip", node - 2))
                    if name != "skip" or node >= 4
                )
            v[node, t] = jnp.tanh(sent)
    expected = v[6, 4] @ f["readout"].weight + f["readout"].bias
    np.testing.assert_allclose(graph.output_value(sweep(graph, x)), expected, rtol=1e-9)


def test_without_time_a_recurrent_network_settles_where_its_unrolling_tends_to():
    """Oracle: the last states of 60 steps of time; and of Hopfield's energy EP's gradient against the adjoint's."""
    shape = (4, 4, 1)
    make = functools.partial(networks.recurrent_dense, shape, 3, ex.activations.Tanh(), width=0.1, key=KEY)
    cyclic, unrolled = make(length=0), make(length=60)
    assert not any(edge.delay or edge.enters for edge in cyclic.edges)
    x = jax.random.normal(KEY, (3, *shape))
    solver = ex.GradientFlow(0.3, stop=ex.Stopping(1e-11, 2000, check_every=0))
    settled = ex.relax(CODING, cyclic, solver, clamp=x)
    swept = sweep(unrolled, x)
    for node in range(1, 7):
        np.testing.assert_allclose(settled.states[f"node{node}"], swept[f"node{node}"][:, -1], atol=1e-9)

    batch = ex.Batch(x, jax.nn.one_hot(jnp.arange(3), 3))
    net = make(length=0, output_state=True)
    exact, found = (
        gradient(rule, ex.Hopfield(), net, batch, solver) for rule in (ex.Adjoint(), ex.Contrastive(centred(0.01)))
    )
    assert relative(found, exact) < 1e-3


@pytest.mark.parametrize("name", ["simple", "complex"])
def test_the_networks_without_time_are_cyclic(name):
    """Oracle: by hand: no axis, no delay, an edge from a node to itself, and one state a node."""
    graph = BUILDERS[name]((8, 8, 1), 3, jnp.tanh, length=0, width=0.03, key=KEY)
    assert not any(node.axes for node in graph.nodes)
    assert any(edge.source == edge.target for edge in graph.edges)
    with pytest.raises(SettingError, match="0: the cyclic graph itself"):
        BUILDERS[name]((8, 8, 1), 3, jnp.tanh, length=3, width=0.03, key=KEY)


@pytest.mark.parametrize(
    ("name", "expected"), [("hierarchical", 7_613_040), ("simple", 7_201_282), ("complex", 20_736_842)]
)
def test_parameters_are_as_many_as_the_text_says(name, expected):
    """Oracle: the number in the module's text, and convolutions counted by hand for the first."""
    made = eqx.filter_eval_shape(lambda key: BUILDERS[name]((32, 32, 3), 10, jnp.tanh, key=key), KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(made) if hasattr(leaf, "size")) == expected
    if name == "hierarchical":
        channels, sides = (3, 128, 256, 512, 1024, 120, 256, 80, 64, 100, 50), (3, 3, 3, 3, 3, 1, 1, 3, 3, 3)
        convolutions = sum((a * s * s + 1) * b for a, b, s in zip(channels, channels[1:], sides, strict=False))
        assert convolutions + (50 * 2 * 2 + 1) * 512 + (512 + 1) * 10 == expected


@pytest.mark.parametrize(("shape", "classes"), [((28, 28, 1), 10), ((32, 32, 3), 100), ((64, 64, 3), 200)])
@pytest.mark.parametrize("name", BUILDERS)
def test_they_fit_every_data_set(name, shape, classes):
    """Oracle: the shape of the output, traced."""
    graph = BUILDERS[name](shape, classes, jnp.tanh, width=0.05, key=KEY)
    found = eqx.filter_eval_shape(lambda x: graph.output_value(graph.sweep(x)), jnp.zeros((3, *shape)))
    assert found.shape == (3, classes)


FLOW = ex.GradientFlow(0.1, stop=ex.Stopping(1e-3, 14, 0))  # an error goes down one edge in a step
ERRORS = ex.ConjugateGradient(ex.Stopping(1e-3, 2, 0), ex.ErrorCoordinates())
SWEEPS = ex.FixedPoint(Synchronous(), ex.Stopping(1e-3, 14, 0))
CODING = ex.PredictiveCoding(ex.CrossEntropy())
RULES = {
    "backprop": (ex.Backprop(), CODING, FLOW),
    "first step": (ex.FirstStep(), CODING, FLOW),
    "pc": (ex.Contrastive(unit_nudge()), CODING, FLOW),
    "pc-nudge": (
        ex.Contrastive(nudge(1e-2)),
        CODING,
        ex.ConjugateGradient(ex.Stopping(1e-3, 2, 0), ex.ErrorCoordinates()),
    ),
    "ipc": (ex.Incremental(14), CODING, FLOW),
    "bipc": (ex.Contrastive(unit_nudge()), ex.SkewFeedback(), FLOW),
    "bipc-balanced": (ex.Contrastive(unit_nudge()), ex.BalancedFeedback(), FLOW),
    "ep": (ex.Contrastive(centred(0.1)), ex.Hopfield(), SWEEPS),
    "ep-one-sided": (ex.Contrastive(one_sided(0.1)), ex.Hopfield(), SWEEPS),
    "ep-holomorphic": (ex.Contrastive(holomorphic(0.1, 2)), ex.Hopfield(), SWEEPS),
    "chl": (ex.ContrastiveHebbian(), ex.Hopfield(), SWEEPS),
    "adjoint": (ex.Adjoint(), ex.Hopfield(), SWEEPS),
}


EVERY_TIME = {("hierarchical", "pc-nudge")}  # the others: ./test -m slow


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        pytest.param(name, rule, marks=() if (name, rule) in EVERY_TIME else pytest.mark.slow)
        for name in BUILDERS
        for rule in RULES
    ],
)
def test_every_rule_takes_a_step(name, rule):
    """Oracle: none of the maps goes without a finite gradient that is not 0 (of iPC, after its last step)."""
    one, dynamics, solver = RULES[rule]
    hopfield = isinstance(dynamics, ex.Hopfield)
    options = {"pool": average} if name != "simple" else {}
    activation = ex.activations.Tanh() if hopfield else jnp.tanh
    steps = {} if name == "hierarchical" else {"length": 5}
    shape = (16, 16, 1)
    graph = BUILDERS[name](shape, 3, activation, width=0.03, output_state=hopfield, key=KEY, gain=2, **options, **steps)
    batch = ex.Batch(jax.random.normal(KEY, (2, *shape)), jax.nn.one_hot(jnp.arange(2), 3))
    found, _ = eqx.filter_jit(settled_gradient)(dynamics, graph, batch, solver, one)
    for function, part in found.graph.functions.items():
        for leaf in jax.tree.leaves(part):
            assert np.all(np.isfinite(leaf)), function
        if jax.tree.leaves(part):
            assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(part)) > 0, function
