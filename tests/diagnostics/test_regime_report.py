"""The regime report: distance from equilibrium and from the exact gradient, each against its own oracle."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from energax import (
    Adjoint,
    Backprop,
    Contrastive,
    CrossEntropy,
    FixedPoint,
    GradientFlow,
    Hopfield,
    PredictiveCoding,
    SquaredError,
    Stopping,
    networks,
)
from energax.activations import Tanh
from energax.diagnostics.regime import compare_gradients, measure_regime
from energax.dynamics.model import Model
from energax.rules.nudging import centred, nudge, unit_nudge
from energax.solvers import Held, Unbounded

measured = eqx.filter_jit(measure_regime)


def coding_net():
    return networks.mlp([4, 6, 5, 3], jnp.tanh, output_state=False, gain=1.7, key=jax.random.key(1))


def coding(rule, solver, batch=None):
    """Regime of a rule on six samples of a predictive-coding net."""
    graph = coding_net()
    return measured(PredictiveCoding(CrossEntropy()), graph, batch or oracles.batch_for(graph, 6), solver, rule)


def numbers():
    """The same net and batch in numpy: weights, biases, inputs, targets."""
    graph = coding_net()
    batch = oracles.batch_for(graph, 6)
    return *oracles.parameters(graph, 3), np.asarray(batch.x), np.asarray(batch.y)


def numpy_backprop(weights, biases, x, y):
    """dC/dW and dC/db of the mean cross-entropy by the chain rule."""
    v = [x]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        v.append(np.tanh(v[-1] @ w + b))
    signal = (oracles.softmax(v[-1] @ weights[-1] + biases[-1]) - y) / len(x)
    dw, db = [], []
    for layer in reversed(range(len(weights))):
        dw.insert(0, v[layer].T @ signal)
        db.insert(0, signal.sum(0))
        signal = (signal @ weights[layer].T) * (1 - v[layer] ** 2)
    return dw, db


def cosines(found, expected):
    """Cosines and norm ratios per layer and over all, in numpy; each argument is `(dw, db)`."""

    def vectors(gradient):
        layers = [np.concatenate([w.ravel(), b.ravel()]) for w, b in zip(*gradient, strict=True)]
        return {**{f"layer{i + 1}": v for i, v in enumerate(layers)}, "all": np.concatenate(layers)}

    a, b = vectors(found), vectors(expected)
    sizes = {name: (np.linalg.norm(a[name]), np.linalg.norm(b[name])) for name in a}
    return {n: a[n] @ b[n] / (p * q) for n, (p, q) in sizes.items()}, {n: p / q for n, (p, q) in sizes.items()}


def test_backprop_is_its_own_reference():
    """Oracle: a vector's angle to itself. Cosine 1 and ratio 1 in every layer; nothing was relaxed, so no verdicts."""
    regime = coding(Backprop(), GradientFlow())
    assert regime.reference == "backprop"
    assert set(regime.cosine) == set(regime.norm_ratio) == {"layer1", "layer2", "layer3", "all"}
    for value in [*regime.cosine.values(), *regime.norm_ratio.values()]:
        assert float(value) == pytest.approx(1, abs=1e-12)
    for value in (
        regime.residual,
        regime.relaxed,
        regime.converged,
        regime.stalled,
        regime.out_of_steps,
        regime.diverged,
    ):
        assert np.isnan(value)


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_cosines_of_predictive_coding_are_those_of_the_two_gradients(beta):
    """Oracle: predictive coding relaxed by explicit errors and the chain rule, both in numpy, layer by layer."""
    regime = coding(Contrastive(nudge(beta)), GradientFlow(0.2, stop=Stopping(1e-9, 5000)))
    _, dw, db = oracles.numpy_pc(*numbers(), step=0.2, steps=2000, beta=beta)
    cosine, ratio = cosines((dw, db), numpy_backprop(*numbers()))
    assert regime.reference == "backprop"
    for name in ("layer1", "layer2", "layer3", "all"):
        assert float(regime.cosine[name]) == pytest.approx(cosine[name], abs=1e-7)
        assert float(regime.norm_ratio[name]) == pytest.approx(ratio[name], rel=1e-6)
    assert cosine["layer1"] < 1 - 1e-5, "a net this easy could not tell a cosine from the constant 1"


def test_equilibrium_propagation_is_compared_with_the_adjoint():
    """Oracle: even-odd relaxation in numpy, at the strength measured and, for the exact gradient, at 1e-4.

    Centred nudging errs by order beta^2, so the second stands for the adjoint to about 1e-8. A feed-forward pass of
    a Hopfield net is no equilibrium: backprop would be the wrong reference, and its cosine another one.
    """
    graph = networks.mlp([4, 6, 5, 3], Tanh(), gain=0.7, key=jax.random.key(2))
    batch = oracles.batch_for(graph, 6)
    rule, solver = Contrastive(centred(0.5)), FixedPoint(stop=Stopping(1e-10, 400))
    regime = measured(Hopfield(SquaredError()), graph, batch, solver, rule)
    numbers = *oracles.parameters(graph, 3), np.asarray(batch.x), np.asarray(batch.y)

    def by_hand(beta):
        return oracles.numpy_hopfield_ep(*numbers, sweeps=400, beta=beta)[1:]

    cosine, ratio = cosines(by_hand(0.5), by_hand(1e-4))
    assert regime.reference == "adjoint"
    for name in ("layer1", "layer2", "layer3", "all"):
        # the reference's own free phase ends at a residual of 1e-5
        assert float(regime.cosine[name]) == pytest.approx(cosine[name], abs=1e-5)
        assert float(regime.norm_ratio[name]) == pytest.approx(ratio[name], rel=1e-4)
    assert max(ratio["layer1"], 1 / ratio["layer1"]) > 1.002, "the bias of beta = 0.5 must be visible"


def test_the_reference_is_settled_well_where_the_training_is_not():
    """Oracle: the adjoint at the equilibrium; the adjoint where the training's own solver stops is another one."""
    graph = networks.mlp([4, 6, 5, 3], Tanh(), gain=0.7, key=jax.random.key(2))
    batch = oracles.batch_for(graph, 6)
    dynamics, rule, settling = Hopfield(), Contrastive(centred(0.5)), FixedPoint(stop=Stopping(0.5, 400))
    found, exact, loose = (
        oracles.flat(oracles.gradient(one, dynamics, graph, batch, solver))
        for one, solver in ((rule, settling), (Adjoint(), FixedPoint(stop=Stopping(1e-10, 400))), (Adjoint(), settling))
    )
    regime = measured(dynamics, graph, batch, settling, rule)
    ratio = np.linalg.norm(found) / np.linalg.norm(exact)
    assert float(regime.norm_ratio["all"]) == pytest.approx(ratio, rel=1e-4)
    assert abs(np.linalg.norm(loose) / np.linalg.norm(exact) - 1) > 1e-2


def energies(weights, biases, states, y, beta):
    """F of a predictive-coding net per sample, in numpy; `states` from the input on."""
    errors = [v - np.tanh(u @ w + b) for u, v, w, b in zip(states, states[1:], weights, biases, strict=False)]
    output = states[-1] @ weights[-1] + biases[-1]
    cost = -np.log((oracles.softmax(output) * y).sum(1))
    return sum((e**2).sum(1) / 2 for e in errors) + beta * cost


def test_relaxed_fraction_is_the_share_of_the_energy_that_was_gained():
    """Oracle: the energy written out in numpy at the start, after two explicit steps, and at the equilibrium."""
    weights, biases, x, y = numbers()

    def energy_after(steps, step):
        v, _, _ = oracles.numpy_pc(weights, biases, x, y, step, steps, 1.0)
        return energies(weights, biases, [x, *v], y, 1.0).sum()

    start, two, best = energy_after(0, 0.0), energy_after(2, 0.03), energy_after(3000, 0.2)
    expected = (start - two) / (start - best)
    assert 0.05 < expected < 0.5
    short = coding(Contrastive(unit_nudge()), GradientFlow(0.03, stop=Stopping(1e-3, 2, 0)))
    assert float(short.out_of_steps) == 1  # the free phases are known by construction
    careful = coding(Contrastive(unit_nudge()), GradientFlow(0.2, stop=Stopping(1e-6, 5000)))
    assert float(careful.relaxed) == pytest.approx(1, abs=1e-6)
    # the reference of the two steps takes twenty: compare with what those gain, and bound what is missing
    twenty = (start - energy_after(20, 0.03)) / (start - best)
    assert float(short.relaxed) == pytest.approx(expected / twenty, rel=1e-6)
    assert float(short.relaxed) < 0.5


def test_relaxed_fraction_at_a_loose_tolerance_is_below_one():
    """Oracle: the equilibrium in numpy. A tolerance looser than the reference's must not be measured by itself."""
    weights, biases, x, y = numbers()
    loose = coding(Contrastive(unit_nudge()), GradientFlow(0.02, stop=Stopping(0.5, 5000)))
    assert float(loose.converged) == 1.0
    v, _, _ = oracles.numpy_pc(weights, biases, x, y, 0.2, 3000, 1.0)
    silent, _, _ = oracles.numpy_pc(weights, biases, x, y, 0.0, 0, 1.0)
    possible = (energies(weights, biases, [x, *silent], y, 1.0) - energies(weights, biases, [x, *v], y, 1.0)).sum()
    assert possible > 0
    assert 0.3 < float(loose.relaxed) < 0.95


def test_what_the_free_phase_left_is_no_gain_beyond_what_there_is():
    """Oracle: no phase gives up more energy than it has above its minimum; at 1e-9 it gives up all."""
    graph = networks.mlp([3, 6, 5, 2], Tanh(), gain=1.5, key=jax.random.key(3))
    batch = oracles.batch_for(graph, 6, labels=False)

    def relaxed(tol):
        solver = FixedPoint(stop=Stopping(tol, 200, 1))
        return float(measured(Hopfield(), graph, batch, solver, Contrastive(centred(0.01))).relaxed)

    assert relaxed(0.2) < 1 - 1e-6
    assert relaxed(1e-9) == pytest.approx(1, abs=1e-6)


def test_verdicts_are_shares_of_all_relaxations():
    """Oracle: they add up to 1, whatever happens; each of the three ways to end is seen."""
    ways = {
        "converged": GradientFlow(0.2, stop=Stopping(0.05, 60)),
        "out_of_steps": GradientFlow(0.01, stop=Stopping(1e-9, 60)),
        "diverged": GradientFlow(30.0, bound=Unbounded(), stop=Stopping(1e-3, 60)),
    }
    for way, solver in ways.items():
        regime = coding(Contrastive(unit_nudge()), solver)
        shares = {name: float(getattr(regime, name)) for name in ("converged", "stalled", "out_of_steps", "diverged")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
        assert shares[way] == 1


def test_curvature_is_that_of_the_nudged_energy():
    """Oracle: the dense Hessian of the energy written out again, sample by sample, and its eigenvalues.

    Power iteration approaches the largest from below; 2 / curvature is then an optimistic bound, hence margins.
    """
    weights, biases, x, y = numbers()
    graph = coding_net()

    def energy(flat, x, y):
        a, b = flat[:6], flat[6:]
        first = a - jnp.tanh(x @ weights[0] + biases[0])
        second = b - jnp.tanh(a @ weights[1] + biases[1])
        logits = b @ weights[2] + biases[2]
        return (first @ first + second @ second) / 2 - jax.nn.log_softmax(logits) @ y

    v = graph.sweep(jnp.asarray(x))
    at = jnp.concatenate([v["hidden1"], v["hidden2"]], axis=1)
    hessians = jax.jit(jax.vmap(jax.hessian(energy)))(at, jnp.asarray(x), jnp.asarray(y))
    largest = np.abs(np.linalg.eigvalsh(hessians)).max()
    regime = coding(Contrastive(unit_nudge()), GradientFlow(0.2, stop=Stopping(1e-3, 500), bound=Held(largest)))
    assert 0.85 * largest < float(regime.curvature) <= largest * (1 + 1e-12)
    assert float(regime.step_bound) == pytest.approx(2 / float(regime.curvature), rel=1e-12)
    assert float(regime.step_margin) == pytest.approx(float(regime.step_bound) / 0.2, rel=1e-12)


def test_a_part_that_no_gradient_reaches_compares_as_nothing():
    """Oracle: 0 of 0 is 0, in cosine and in size, and the other parts are as they are; beside 0 rounding is no 1e34."""
    graph = coding_net()
    one = eqx.filter(graph, eqx.is_inexact_array)
    still = eqx.tree_at(lambda g: g.functions["layer2"], one, replace_fn=lambda fn: jax.tree.map(jnp.zeros_like, fn))
    gradient, exact = (Model(tree, PredictiveCoding()) for tree in (still, jax.tree.map(lambda leaf: 2 * leaf, still)))
    cosine, ratio = compare_gradients(gradient, exact)
    assert (float(cosine["layer2"]), float(ratio["layer2"])) == (0, 0)
    for name in ("layer1", "layer3", "all"):
        np.testing.assert_allclose([cosine[name], ratio[name]], [1, 0.5], rtol=1e-12)
    noisy = Model(jax.tree.map(lambda leaf: leaf + 1e-9, still), PredictiveCoding())
    cosine, ratio = compare_gradients(noisy, exact)
    assert (float(cosine["layer2"]), float(ratio["layer2"])) == (0, np.inf)
