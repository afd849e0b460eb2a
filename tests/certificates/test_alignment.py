"""Bounds on the angle between local updates and gradients, against the updates that the rules then make."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax import Adjoint, Batch, LeakyDirected, LeakyFlow, Stopping, VectorFieldRule
from energax.activations import Box, Sigmoid
from energax.certificates import bound_alignment, certify_alignment, is_cooperative, least_cosine
from energax.dynamics import AbsoluteOutflow, NoOutflow, SignedOutflow, prepare_phase
from energax.exceptions import SettingError
from energax.graph.networks import directed_complete
from energax.solvers import certified_flow
from oracles import gradient, numbers, solve

pytestmark = pytest.mark.usefixtures("strict")

FLOW = certified_flow(Stopping(1e-13, 20_000, check_every=20))
KINDS = {
    "additive": (jnp.tanh, lambda leak: LeakyDirected(leak)),
    "signed": (None, lambda leak: LeakyFlow(leak, SignedOutflow())),
    "absolute": (None, lambda leak: LeakyFlow(leak, AbsoluteOutflow())),
    "none": (None, lambda leak: LeakyFlow(leak, NoOutflow())),
}
bound = eqx.filter_jit(bound_alignment)
cooperative = eqx.filter_jit(is_cooperative)


@eqx.filter_jit
def aligned(dynamics, graph, x, states):
    return certify_alignment(prepare_phase(dynamics, graph, graph.clamp(x)), states)


def template(activation, outputs):
    """A net in float64."""
    graph = directed_complete(2, 3, outputs, activation, key=jax.random.key(0))
    return jax.tree.map(lambda a: a.astype(jnp.float64) if eqx.is_inexact_array(a) else a, graph)


def redraw(graph, rng, low, high):
    """Other weights."""
    return jax.tree.map(lambda a: rng.uniform(low, high, a.shape) if eqx.is_inexact_array(a) else a, graph)


def cosine(a, b):
    """Of two gradients."""
    a, b = numbers(a), numbers(b)
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize("kind", KINDS)
def test_no_update_is_further_from_the_gradient_than_proved(kind):
    """Theorem 3 and corollary 4, against measured cosines of one sample's updates with the adjoint's gradient."""
    activation, make = KINDS[kind]
    graph = template(activation, 2)
    proved, measured, uniform = [], [], 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        net, dynamics = redraw(graph, rng, -0.6, 0.6), make(np.asarray(rng.choice([1.0, 2.0, 4.0])))
        batch = Batch(rng.uniform(0, 1, (1, 2)), rng.uniform(0, 1, (1, 2)))
        phase = prepare_phase(dynamics, net, net.clamp(batch.x))
        states = solve(FLOW, phase, phase.start()).states
        exact = gradient(Adjoint(), dynamics, net, batch, FLOW)
        found = gradient(VectorFieldRule(1e-5), dynamics, net, batch, FLOW)
        if np.linalg.norm(numbers(exact)) < 1e-9:
            continue  # all outputs rest at walls
        alignment = aligned(dynamics, net, batch.x, states)
        least, kappa = float(alignment.cosine[0]), float(alignment.signal[0])
        assert cosine(exact, found) >= least - 1e-7
        proved.append(least)
        measured.append(cosine(exact, found))
        everywhere = float(bound(dynamics, net))
        assert kappa <= everywhere * (1 + 1e-9)
        uniform += everywhere <= 1
    assert np.mean(np.asarray(proved) > 0) > 0.5
    assert uniform >= 5
    assert min(measured) < 0.999


@pytest.mark.parametrize("off", [0.0, 1e-16, -1e-16, 1e-17])
def test_a_unit_at_a_wall_but_for_rounding_has_no_part(off):
    """Oracle: the unit exactly at the wall; a step along the force ends there but for rounding."""
    dynamics, graph = LeakyFlow(np.asarray(1.0)), redraw(template(None, 2), np.random.default_rng(3), -0.6, 0.6)
    for wall, pull in ((0.0, -9.0), (1.0, 9.0)):
        held = eqx.tree_at(lambda g: g.functions["input_to_output"].bias, graph, np.asarray([0.4, pull]))
        x = np.full((1, 2), 0.3)
        phase = prepare_phase(dynamics, held, held.clamp(x))
        states = solve(FLOW, phase, phase.start()).states
        assert float(states["output"][0, 1]) == pytest.approx(wall, abs=1e-15)
        exact = aligned(dynamics, held, x, {**states, "output": states["output"].at[0, 1].set(wall)})
        near = aligned(dynamics, held, x, {**states, "output": states["output"].at[0, 1].set(wall + off)})
        np.testing.assert_allclose(near.signal, exact.signal, rtol=1e-9)
        np.testing.assert_allclose(near.update, exact.update, rtol=1e-9)


def test_a_leak_buys_alignment():
    """Corollary 4: the bound falls with the leak, as 1 / l in the end."""
    graph = redraw(template(jnp.tanh, 2), np.random.default_rng(0), -1, 1)
    leaks = np.asarray([2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    kappas = [float(bound(LeakyDirected(np.asarray(leak)), graph)) for leak in leaks]
    assert np.all(np.diff(kappas) < 0)
    assert abs(np.log2(kappas[-2] / kappas[-1]) - 1) < 0.1
    assert float(least_cosine(jnp.asarray(kappas[-1]))) > 0.99
    assert float(least_cosine(jnp.asarray(1.5))) == -1


def test_cooperative_nets_answer_with_the_right_sign():
    """Theorem 5: signals of one sign in every unit, whatever the input weights; refused for other nets."""
    graph = template(None, 1)
    for outflow in (SignedOutflow(), AbsoluteOutflow()):
        dynamics = LeakyFlow(np.asarray(0.3), outflow, box=Box())
        for seed in range(10):
            rng = np.random.default_rng(seed)
            net = redraw(graph, rng, 0.0, 1.0)
            entering = {n: redraw(fn, rng, -1, 1) if n.startswith("input") else fn for n, fn in net.functions.items()}
            net = eqx.tree_at(lambda g: g.functions, net, entering)
            assert cooperative(dynamics, net)
            batch = Batch(rng.uniform(0, 1, (1, 2)), rng.uniform(0, 1, (1, 1)))
            exact = gradient(Adjoint(), dynamics, net, batch, FLOW)
            found = gradient(VectorFieldRule(1e-5), dynamics, net, batch, FLOW)
            for name in ("input_to_hidden", "input_to_output"):  # their biases are the signals
                a, b = exact.functions[name].bias, found.functions[name].bias
                assert np.all(np.sign(a) == np.sign(b))
            assert cosine(exact, found) > 0
    negative = redraw(graph, np.random.default_rng(0), -1, 1)
    assert not cooperative(LeakyFlow(0.3), negative)
    assert not cooperative(LeakyFlow(0.0), redraw(graph, np.random.default_rng(0), 0, 1))
    assert not cooperative(LeakyFlow(0.3, NoOutflow()), redraw(graph, np.random.default_rng(0), 0, 1))
    assert not cooperative(LeakyFlow(0.3), redraw(template(None, 2), np.random.default_rng(0), 0, 1))


def test_steep_activations_are_refused():
    """The bound is for slopes up to 1."""
    with pytest.raises(SettingError, match="slopes up to 1"):
        bound_alignment(LeakyDirected(), template(Sigmoid(8.0), 2))
