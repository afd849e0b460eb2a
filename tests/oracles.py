"""What the tests compare with: closed forms, plain-numpy implementations, finite differences and slopes."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from energax import Batch, Edge, Graph, Node, Start
from energax.layers import Conv2d, Identity, Linear
from energax.rules.base import energy_gradient as _energy_gradient
from energax.solvers import trace as _trace

energy_gradient = eqx.filter_jit(_energy_gradient)


def flat(tree) -> jax.Array:
    """All float leaves of a gradient or of states as one vector."""
    return ravel_pytree(eqx.filter(tree, eqx.is_inexact_array))[0]


def numbers(tree) -> np.ndarray:
    """The same in numpy, which compiles nothing."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))])


def relative(found, expected) -> float:
    """|found - expected| / |expected| over all leaves."""
    a, b = numbers(found), numbers(expected)
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def largest(found, expected) -> float:
    """Largest absolute difference over all leaves."""
    a, b = numbers(found), numbers(expected)
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.max(np.abs(a - b)))


def slope(scales: Sequence[float], errors: Sequence[float]) -> float:
    """Order of convergence: regression of log error on log scale over the errors between 1e-11 and 1e-2."""
    scales, errors = np.asarray(scales), np.asarray(errors)
    used = (errors > 1e-11) & (errors < 1e-2)
    assert used.sum() >= 6, (
        f"a slope needs 6 points with errors in (1e-11, 1e-2): {list(zip(scales, errors, strict=True))}"
    )
    return float(np.polyfit(np.log(scales[used]), np.log(errors[used]), 1)[0])


def central_differences(function: Callable, at: jax.Array, step: float = 1e-5) -> jax.Array:
    """Gradient of a scalar function of a vector, all perturbations in one `vmap`."""
    shifts = step * jnp.eye(at.size)
    values = jax.jit(jax.vmap(function))(jnp.concatenate([at + shifts, at - shifts]))
    return (values[: at.size] - values[at.size :]) / (2 * step)


@eqx.filter_jit
def _gradient(rule, dynamics, graph, batch, solver):
    return rule(dynamics, graph, batch, solver, rule.init(dynamics, graph, batch))


def gradient(rule, dynamics, graph, batch, solver=None):
    """Gradient of one update in the graph's parameters; one compilation per kind of rule, dynamics, graph, solver."""
    return _gradient(rule, dynamics, graph, batch, solver)[0].graph


def informed(rule, dynamics, graph, batch, solver=None):
    """Gradient and info of one update."""
    found, _, info = _gradient(rule, dynamics, graph, batch, solver)
    return found.graph, info


@eqx.filter_jit
def sweep(graph, x, errors=None):
    """`graph.sweep`, compiled."""
    return graph.sweep(x, errors)


@eqx.filter_jit
def solve(solver, phase, start):
    """`solver.solve`, compiled once per kind of solver and phase; of bare states nothing is known."""
    return solver.solve(phase, begin(start))


@eqx.filter_jit
def trace(solver, phase, start, steps, observe):
    """`solvers.trace`, compiled, from a start or from bare states."""
    return _trace(solver, phase, begin(start), steps, observe)


def begin(start) -> Start:
    """A start, from one or from bare states."""
    return start if isinstance(start, Start) else Start(start)


# Data and graphs -----------------------------------------------------------------------------------------------


def batch_for(graph, size: int, seed: int = 1, labels: bool = True, scale: float = 1.0) -> Batch:
    """Random inputs; one-hot labels or real targets."""
    keys = jax.random.split(jax.random.key(seed), 2)
    x = scale * jax.random.normal(keys[0], (size, *graph.node(graph.input).shape))
    (outputs,) = graph.node(graph.output).shape
    y = jax.nn.one_hot(jnp.arange(size) % outputs, outputs, dtype=x.dtype)
    return Batch(x, y if labels else jax.random.normal(keys[1], (size, outputs)))


def skipping(activation, output_state: bool, gain: float = 1.0) -> Graph:
    """A skip edge beside a chain, so that two paths meet and three colours are needed."""
    keys = jax.random.split(jax.random.key(3), 4)
    return Graph(
        nodes=[Node("x", (4,)), Node("a", (5,), "act"), Node("b", (5,), "act"), Node("y", (3,), state=output_state)],
        edges=[Edge("x", "a", "xa"), Edge("a", "b", "ab"), Edge("a", "y", "ay"), Edge("b", "y", "by")],
        functions={
            "xa": Linear(4, 5, gain=gain, key=keys[0]),
            "ab": Linear(5, 5, gain=gain, key=keys[1]),
            "ay": Linear(5, 3, gain=gain, key=keys[2]),
            "by": Linear(5, 3, gain=gain, key=keys[3]),
            "act": activation,
        },
        input="x",
        output="y",
    )


def sharing(activation, output_state: bool) -> Graph:
    """One function on two edges, and an identity skip over the first of them."""
    keys = jax.random.split(jax.random.key(4), 3)
    return Graph(
        nodes=[
            Node("x", (4,)),
            Node("a", (5,), "act"),
            Node("b", (5,), "act"),
            Node("c", (5,), "act"),
            Node("y", (3,), state=output_state),
        ],
        edges=[
            Edge("x", "a", "in"),
            Edge("a", "b", "same"),
            Edge("b", "c", "same"),
            Edge("a", "c", "skip"),
            Edge("c", "y", "out"),
        ],
        functions={
            "in": Linear(4, 5, key=keys[0]),
            "same": Linear(5, 5, key=keys[1]),
            "out": Linear(5, 3, key=keys[2]),
            "skip": Identity(),
            "act": activation,
        },
        input="x",
        output="y",
    )


def imaging(activation, output_state: bool) -> Graph:
    """Two convolutions, the second with an identity skip around it, and a linear readout."""
    from energax.layers import Chain, Flatten

    keys = jax.random.split(jax.random.key(5), 3)
    return Graph(
        nodes=[
            Node("x", (6, 6, 1)),
            Node("a", (3, 3, 2), "act"),
            Node("b", (3, 3, 2), "act"),
            Node("y", (3,), state=output_state),
        ],
        edges=[Edge("x", "a", "first"), Edge("a", "b", "second"), Edge("a", "b", "skip"), Edge("b", "y", "out")],
        functions={
            "first": Conv2d(1, 2, 3, stride=2, padding=1, key=keys[0]),
            "second": Conv2d(2, 2, 3, padding=1, key=keys[1]),
            "skip": Identity(),
            "out": Chain((Flatten(), Linear(18, 3, key=keys[2]))),
            "act": activation,
        },
        input="x",
        output="y",
    )


def recurrent(activation, output_state: bool, length: int = 4) -> Graph:
    """Recurrence with delays 1 and 2, a delayed skip and a delayed input, unrolled over `length` steps."""
    keys = jax.random.split(jax.random.key(6), 6)
    return Graph(
        nodes=[Node("x", (3,)), Node("h", (4,), "act"), Node("g", (4,), "act"), Node("y", (2,), state=output_state)],
        edges=[
            Edge("x", "h", "xh"),
            Edge("h", "h", "hh", delay=1),
            Edge("g", "h", "gh", delay=2),
            Edge("h", "g", "hg", delay=1),
            Edge("x", "g", "xg", delay=1),
            Edge("h", "y", "hy"),
            Edge("g", "y", "gy"),
        ],
        functions={
            "xh": Linear(3, 4, key=keys[0]),
            "hh": Linear(4, 4, key=keys[1]),
            "gh": Linear(4, 4, key=keys[2]),
            "hg": Linear(4, 4, key=keys[3]),
            "xg": Linear(3, 4, key=keys[4]),
            "hy": Linear(4, 2, key=keys[5]),
            "gy": Linear(4, 2, key=keys[5]),
            "act": activation,
        },
        input="x",
        output="y",
        length=length,
    )


def recurrent_by_hand(functions, x, length: int, activation):
    """The same net as a Python loop over one sequence or one constant input; returns all states by time."""
    h, g, y = [], [], []
    for t in range(length):
        into_h = functions["xh"](x[t])
        if t >= 1:
            into_h = into_h + functions["hh"](h[t - 1])
        if t >= 2:
            into_h = into_h + functions["gh"](g[t - 2])
        into_g = jnp.zeros(4)
        if t >= 1:
            into_g = functions["hg"](h[t - 1]) + functions["xg"](x[t - 1])
        h.append(activation(into_h))
        g.append(activation(into_g))
        y.append(functions["hy"](h[t]) + functions["gy"](g[t]))
    return {"x": x, "h": jnp.stack(h), "g": jnp.stack(g), "y": jnp.stack(y)}


# Deep linear predictive coding ---------------------------------------------------------------------------------


def linear_pc(weights, biases, x, y, precisions, softness):
    """Equilibrium of a deep linear PC chain, mathematics.md section 8 number 1, with precisions.

    minimise 1/2 sum_l Pi_l |e_l|^2 + beta/2 |y - forward(x) - sum_l P_l e_l|^2 with P_l = W_L ... W_{l+1}:
    e_l = Pi_l^-1 P_l^T S^-1 r, F* = 1/2 r^T S^-1 r, S = softness I + sum_l P_l Pi_l^-1 P_l^T.

    Args:
        weights: W_l as (in, out), l = 1..L; `biases` likewise.
        x, y: one batch each, (batch, units).
        precisions: Pi_l, or None for a layer without a state (a direct output).
        softness: 1 / beta; 0 for an output clamped at y.

    Returns:
        errors e_l (zeros where Pi_l is None), states v_0..v_L of the chain, and F*.
    """
    depth = len(weights)
    product = [np.eye(weights[-1].shape[1])]
    for w in reversed(weights[1:]):
        product.insert(0, w @ product[0])  # (units_l, units_L): P_l^T
    forward = x
    for w, b in zip(weights, biases, strict=True):
        forward = forward @ w + b
    r = y - forward
    s = softness * np.eye(r.shape[1])
    for p, precision in zip(product, precisions, strict=True):
        if precision is not None:
            s = s + p.T @ p / precision
    multiplier = np.linalg.solve(s, r.T).T
    states, errors = [x], []
    for layer in range(depth):
        precision = precisions[layer]
        error = (
            multiplier @ product[layer].T / precision
            if precision is not None
            else np.zeros((len(x), weights[layer].shape[1]))
        )
        errors.append(error)
        states.append(states[-1] @ weights[layer] + biases[layer] + error)
    return errors, states, np.sum(r * multiplier, axis=1) / 2


# Independent implementations in numpy ---------------------------------------------------------------------------


def softmax(a):
    e = np.exp(a - a.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def numpy_pc(weights, biases, x, y, step: float, steps: int, beta: float):
    """Torch2PC-style predictive coding on a tanh chain with a direct linear output and cross-entropy.

    Explicit prediction errors eps_l = v_l - tanh(v_{l-1} W_l + b_l); no automatic differentiation.

    Returns:
        Hidden states after `steps` steps from the forward pass, and dF/dW, dF/db / beta averaged over the batch.
    """
    depth = len(weights)

    def predicted(v):
        return [np.tanh(v[i] @ weights[i] + biases[i]) for i in range(depth - 1)]

    def output_error(v):
        return beta * (softmax(v[-1] @ weights[-1] + biases[-1]) - y)

    v = [x]
    for i in range(depth - 1):
        v.append(np.tanh(v[-1] @ weights[i] + biases[i]))
    for _ in range(steps):
        guesses = predicted(v)
        eps = [v[i + 1] - guesses[i] for i in range(depth - 1)]
        moves = []
        for i in range(depth - 1):
            if i + 1 < depth - 1:
                above = (eps[i + 1] * (1 - guesses[i + 1] ** 2)) @ weights[i + 1].T
            else:
                above = -output_error(v) @ weights[-1].T
            moves.append(-eps[i] + above)
        v = [x] + [state + step * move for state, move in zip(v[1:], moves, strict=True)]
    guesses = predicted(v)
    signals = [-(v[i + 1] - guesses[i]) * (1 - guesses[i] ** 2) for i in range(depth - 1)] + [output_error(v)]
    dw = [v[i].T @ signals[i] / len(x) / beta for i in range(depth)]
    db = [signals[i].mean(0) / beta for i in range(depth)]
    return v[1:], dw, db


def numpy_hopfield_ep(weights, biases, x, y, sweeps: int, beta: float):
    """Centred equilibrium propagation on a tanh chain with a linear output and squared error, by hand.

    Even-odd sweeps v_l <- tanh(v_{l-1} W_l + b_l + v_{l+1} W_{l+1}^T), the output's own minimiser
    (h + beta y) / (1 + beta); gradient -(v_{l-1} v_l^T at beta minus the same at -beta) / 2 beta.
    """
    depth = len(weights)

    def settle(v, beta):
        v = list(v)
        for _ in range(sweeps):
            for parity in (0, 1):  # first the odd layers (hidden1, hidden3, ...), then the even ones
                for layer in range(1 + parity, depth + 1, 2):
                    h = v[layer - 1] @ weights[layer - 1] + biases[layer - 1]
                    if layer == depth:
                        v[layer] = (h + beta * y) / (1 + beta)
                    else:
                        v[layer] = np.tanh(h + v[layer + 1] @ weights[layer].T)
        return v

    silent = [x] + [np.zeros((len(x), w.shape[1])) for w in weights]
    free = settle(silent, 0.0)
    ends = {sign: settle(free, sign * beta) for sign in (1, -1)}
    dw, db = [], []
    for i in range(depth):
        plus, minus = (ends[s][i].T @ ends[s][i + 1] for s in (1, -1))
        dw.append(-(plus - minus) / (2 * beta) / len(x))
        db.append(-(ends[1][i + 1] - ends[-1][i + 1]).mean(0) / (2 * beta))
    return free[1:], dw, db


def parameters(graph, depth: int):
    """Weights and biases of a `mlp` as numpy arrays."""
    layers = [graph.functions[f"layer{i + 1}"] for i in range(depth)]
    return [np.asarray(l.weight) for l in layers], [np.asarray(l.bias) for l in layers]
