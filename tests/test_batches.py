"""The relaxation of a sample does not depend on its batch: alone, in any company, in any order."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax import CrossEntropy, FixedPoint, GradientFlow, Hopfield, PredictiveCoding, Stopping
from energax.activations import Tanh
from energax.networks import mlp
from energax.phase import prepared
from oracles import batch_for

pytestmark = pytest.mark.usefixtures("strict")

CASES = {
    "pc": (PredictiveCoding(CrossEntropy()), GradientFlow(0.5, stop=Stopping(1e-4, 300))),
    "pc_momentum": (PredictiveCoding(CrossEntropy()), GradientFlow(0.9, 0.6, Stopping(1e-4, 300))),
    "hopfield": (Hopfield(), FixedPoint(stop=Stopping(1e-6, 300, 1))),
}


@eqx.filter_jit
def relaxed(dynamics, graph, x, y, solver):
    phase = prepared(dynamics, graph, graph.clamp(x), None, y, jnp.asarray(1.0))
    return solver.solve(phase, dynamics.start(graph, phase.context).states)


@pytest.mark.parametrize("case", CASES)
def test_a_sample_relaxes_the_same_in_any_batch(case):
    """Oracle: the sample alone."""
    dynamics, solver = CASES[case]
    graph = mlp([4, 6, 5, 3], Tanh(), gain=1.5, key=jax.random.key(0))
    batch = batch_for(graph, 7, scale=2.0)
    order = np.array([4, 0, 6, 2, 1, 5, 3])
    together = relaxed(dynamics, graph, batch.x, batch.y, solver)
    shuffled = relaxed(dynamics, graph, batch.x[order], batch.y[order], solver)
    assert len(set(np.asarray(together.steps).tolist())) > 1
    for sample in range(7):
        alone = relaxed(dynamics, graph, batch.x[sample : sample + 1], batch.y[sample : sample + 1], solver)
        place = int(np.argmax(order == sample))
        for other, row in ((together, sample), (shuffled, place)):
            assert int(other.steps[row]) == int(alone.steps[0])
            assert int(other.result[row]) == int(alone.result[0])
            for name, state in alone.states.items():
                np.testing.assert_allclose(other.states[name][row], state[0], rtol=0, atol=1e-12)
