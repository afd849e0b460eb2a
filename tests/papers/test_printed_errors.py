"""What is wrong in the printed equations of Millidge et al. 2023, each measured (docs/theory.md lists them)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import energax as ex
from energax.dynamics.phase import prepare_phase
from energax.graph.networks import mlp
from energax.rules import nudge
from energax.rules.nudging import NudgingScheme
from energax.solvers import Unbounded
from energax.solvers.verdict import Verdict
from oracles import batch_for, gradient, informed, relative

GRAPH = mlp([4, 6, 5, 3], jnp.tanh, output_state=False, key=jax.random.key(0))
BATCH = batch_for(GRAPH, 4)
ENERGY = ex.PredictiveCoding(ex.SquaredError())
FLOW = ex.GradientFlow(1.0, momentum=0.5, stop=ex.Stopping(1e-10, 3000))


@eqx.filter_jit
def forces(states):
    """The library's force, Eq. 3's right-hand side as printed, and the energy."""
    phase = prepare_phase(ENERGY, GRAPH, GRAPH.clamp(BATCH.x))
    w2 = GRAPH.functions["layer2"].weight
    vhat = {n: v for n, v in GRAPH.predict(phase.everywhere(states)).items() if n in states}
    e = {n: states[n] - vhat[n] for n in states}
    printed = {"hidden1": e["hidden1"] - (e["hidden2"] * (1 - vhat["hidden2"] ** 2)) @ w2.T, "hidden2": e["hidden2"]}
    return phase.force(states), printed, phase.energy(states), phase.energy(jax.tree.map(sum_of, states, printed))


def sum_of(v, move):
    return v + 1e-3 * move


def test_equation_3_has_its_sign_reversed():
    """Oracle: the gradient of the energy, by automatic differentiation and by hand; along Eq. 3 the energy rises."""
    keys = jax.random.split(jax.random.key(3), 2)
    states = {"hidden1": jax.random.normal(keys[0], (4, 6)), "hidden2": jax.random.normal(keys[1], (4, 5))}
    force, printed, before, after = forces(states)
    for name in states:
        np.testing.assert_allclose(printed[name], -force[name], rtol=0, atol=1e-12)
    assert np.all(after > before)


def test_algorithm_1_divides_the_state_step_by_lambda_and_diverges():
    """Oracle: the verdict; the same 50 steps of .1 undivided stay within reach of the equilibrium."""

    def run(step):
        stop = ex.Stopping(max_steps=50, check_every=0)
        solver = ex.GradientFlow(step, bound=Unbounded(), stop=stop)
        info = informed(ex.Contrastive(nudge(0.01)), ENERGY, GRAPH, BATCH, solver)[1]
        return info.phases["nudged"]

    assert np.all(run(0.1).residual < 0.1)
    assert np.all(run(0.1 / 0.01).result == Verdict.DIVERGED)


def test_algorithm_1_weights_the_output_error_by_the_inverse_of_lambda():
    """Oracle: backprop. With Eq. 22's weight lambda the gradient is near it, with 1 / lambda it is not."""
    exact = gradient(ex.Backprop(), ENERGY, GRAPH, BATCH)
    heavy = NudgingScheme(points=20.0, weights=1 / 20.0)
    assert relative(gradient(ex.Contrastive(nudge(0.05)), ENERGY, GRAPH, BATCH, FLOW), exact) < 0.1
    assert relative(gradient(ex.Contrastive(heavy), ENERGY, GRAPH, BATCH, FLOW), exact) > 0.5


class Unsquared(ex.AbstractCost):
    """Eq. 22's last term as printed: the sum of the output's errors."""

    def __call__(self, output, target):
        return jnp.sum(output - target, axis=-1)

    def quadratic(self, output, target):
        return -jnp.ones_like(output), 0.0


def test_equation_22_without_its_square_learns_nothing_from_the_target():
    """Oracle: another target, the same gradient."""
    other = ex.Batch(BATCH.x, BATCH.y[::-1] + 3)
    rule, energy = ex.Contrastive(nudge(1e-3)), ex.PredictiveCoding(Unsquared())
    one, two = (gradient(rule, energy, GRAPH, batch, FLOW) for batch in (BATCH, other))
    assert relative(one, two) < 1e-12
    squared = [gradient(rule, ENERGY, GRAPH, batch, FLOW) for batch in (BATCH, other)]
    assert relative(*squared) > 0.5


def test_equation_7_alone_has_no_minimum():
    """Oracle: a quadratic form without a potential is unbounded below; with the potential G it is bounded."""
    bare = ex.FunctionEnergy(lambda w, v: jnp.einsum("bi,ij,bj->b", v["u"], w, v["u"]))
    nodes = ex.Nodes([ex.Node("x", (2,)), ex.Node("u", (2,))], jnp.array([[0.0, 0.3], [0.3, 0.0]]), "x", "u")
    phase = prepare_phase(bare, nodes, nodes.clamp(jnp.ones((1, 2))))
    lengths = [1.0, 10.0, 100.0]
    energies = [float(phase.energy({"u": jnp.array([[t, -t]])})[0]) for t in lengths]
    np.testing.assert_allclose(energies, [-0.6 * t**2 for t in lengths], rtol=1e-12)
