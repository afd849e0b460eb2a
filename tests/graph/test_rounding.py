"""Rounded products: the rounding is the type's, alike in every phase, and small steps and weak nudges survive it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax import ConjugateGradient, ErrorCoordinates, FixedPoint, GradientFlow, PredictiveCoding, Stopping
from energax.exceptions import SettingError
from energax.graph.networks import convolutional, mlp, residual_mlp
from energax.graph.rounding import PRECISIONS, Rounded, round_products
from energax.rules import centred, nudge, unit_nudge
from energax.solvers import Verdict
from oracles import batch_for, informed, relative

EPS = {name: 2.0 ** -(bits + 1) for name, (bits, _) in PRECISIONS.items() if name != "float32"}
KEY = jax.random.key(0)
ERRORS = ConjugateGradient(Stopping(1e-6, 200, check_every=1), ErrorCoordinates())
SOFTMAX = PredictiveCoding(ex.CrossEntropy())
CHAIN = mlp([6, 12, 12, 3], jnp.tanh, output_state=False, key=KEY)
IMAGES = convolutional((8, 8, 1), (2, 3), 3, jnp.tanh, output_state=False, key=KEY)
HOPFIELD = mlp([6, 12, 3], ex.activations.Tanh(), gain=0.7, key=KEY)
CASES = {
    "clamped": (CHAIN, SOFTMAX, ERRORS, unit_nudge()),
    "weak nudge": (CHAIN, SOFTMAX, ERRORS, nudge(1e-3)),
    "conv": (IMAGES, SOFTMAX, ERRORS, unit_nudge()),
    "stack": (
        residual_mlp((6,), 8, 3, 3, jnp.tanh, key=KEY),
        PredictiveCoding(),
        GradientFlow(0.5, stop=Stopping(1e-5, 3000)),
        unit_nudge(),
    ),
    "hopfield": (HOPFIELD, ex.Hopfield(), FixedPoint(stop=Stopping(1e-6, 500)), centred(0.5)),
}


def learnt(case, precision):
    graph, dynamics, solver, scheme = CASES[case]
    return informed(ex.Contrastive(scheme), dynamics, round_products(graph, precision), batch_for(graph, 8), solver)


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_off_in_proportion_to_the_rounding_whatever_the_nudge(case):
    """Oracle: the same rule in full. Eight times the rounding, eight times the error, within a factor of two."""
    exact, _ = learnt(case, "float32")
    errors = {}
    for precision, eps in EPS.items():
        found, info = learnt(case, precision)
        errors[precision] = relative(found, exact)
        assert 0 < errors[precision] < 10 * eps
        assert all(np.all(phase.result <= Verdict.STALLED) for phase in info.phases.values())
    assert 4 < errors["bfloat16"] / errors["tensorfloat32"] < 16


def test_a_rounded_map_multiplies_rounded_numbers_and_sums_them_in_float32():
    """Oracle: numpy on values rounded by hand, compiled and not."""
    layer = ex.layers.Linear(3, 2, key=KEY)
    x = jnp.array([1 + 2.0**-9, -0.5, 3.0])
    weight, bias = (np.asarray(jnp.asarray(a, jnp.bfloat16), float) for a in (layer.weight, layer.bias))
    expected = np.array([1.0, -0.5, 3.0]) @ weight + bias
    short = Rounded(layer, "bfloat16")
    np.testing.assert_allclose(short(x), expected, rtol=1e-6)
    np.testing.assert_allclose(eqx.filter_jit(short)(x), expected, rtol=1e-6)
    assert np.any(np.abs(np.asarray(layer(x)) - expected) > 1e-4)


def test_derivatives_are_those_of_the_rounded_products():
    """Oracle: by hand, d(xW)/dx = W and d(xW)/dW = x at the rounded values, themselves not rounded."""
    layer = ex.layers.Linear(3, 2, key=KEY)
    x, pull = jnp.array([1 + 2.0**-9, -0.5, 3.0]), jnp.array([1 + 2.0**-12, 0.3])
    back, gradient = jax.grad(lambda x, w: jnp.sum(pull * Rounded(w, "bfloat16")(x)), argnums=(0, 1))(x, layer)
    weight = np.asarray(jnp.asarray(layer.weight, jnp.bfloat16), float)
    np.testing.assert_allclose(back, weight @ np.asarray(pull), rtol=1e-6)
    np.testing.assert_allclose(gradient.weight, np.outer([1.0, -0.5, 3.0], pull), rtol=1e-6)


def test_what_multiplies_nothing_is_left_as_it_is():
    graph = round_products(CHAIN, "bfloat16")
    assert round_products(CHAIN, "float32") is CHAIN
    kinds = [type(part) for fn in graph.functions.values() for part in getattr(fn, "layers", (fn,))]
    assert kinds.count(Rounded) == 3  # one matrix between any two layers; activations have no parameters
    leaves, expected = (jax.tree.leaves(eqx.filter(g, eqx.is_array)) for g in (graph, CHAIN))
    assert all(np.array_equal(a, b) for a, b in zip(leaves, expected, strict=True))


def test_an_unknown_precision_is_refused():
    with pytest.raises(SettingError, match="precision=float8: give float32, tensorfloat32, bfloat16"):
        round_products(CHAIN, "float8")
