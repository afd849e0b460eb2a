"""The relaxation of a sample does not depend on its batch: alone, in any company, in any order."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from energax import (
    ConjugateGradient,
    CrossEntropy,
    ErrorCoordinates,
    FixedPoint,
    GradientFlow,
    Hopfield,
    PredictiveCoding,
    Prepared,
    Stopping,
)
from energax.activations import Tanh
from energax.dynamics.phase import prepare_phase
from energax.graph.networks import mlp
from energax.solvers.compaction import GROUPS, LEAST, SHARE
from energax.solvers.verdict import Verdict
from oracles import batch_for

pytestmark = pytest.mark.usefixtures("strict")


class Weighed(PredictiveCoding):
    """Errors weighed differently in every sample, by an array of the reference: rows must follow their sample."""

    def prepare(self, graph, clamped, reference):
        prepared = super().prepare(graph, clamped, reference)
        return Prepared(prepared.sent, 1 + jnp.abs(clamped.values["input"][:, 0]))

    def energy(self, phase, states):
        return super().energy(phase, states) * phase.constants


class Skew(PredictiveCoding):
    """E = 1/2 |v - vhat + a k|^2, k = J(vbar)^T (v - vbar): a linearisation that is made anew for other rows."""

    def prepare(self, graph, clamped, reference):
        prepared = super().prepare(graph, clamped, reference)
        swept = graph.sweep(prepared.sent)
        return Prepared(prepared.sent, {n: v for n, v in swept.items() if n not in clamped.values})

    def linearise(self, phase):
        return jax.vjp(lambda v: {n: phase.graph.predict(phase.everywhere(v))[n] for n in v}, phase.constants)[1]

    def energy(self, phase, states):
        (k,) = phase.linear({n: states[n] - phase.constants[n] for n in states})
        vhat = phase.graph.predict(phase.everywhere(states), phase.sent)
        return self.error_energy({n: states[n] - vhat[n] + 0.3 * k[n] for n in states})


CASES = {
    "pc": (PredictiveCoding(CrossEntropy()), GradientFlow(0.5, stop=Stopping(1e-4, 300))),
    "pc_momentum": (PredictiveCoding(CrossEntropy()), GradientFlow(0.9, 0.6, Stopping(1e-4, 300))),
    "pc_conjugate": (PredictiveCoding(CrossEntropy()), ConjugateGradient(Stopping(1e-6, 300, 1))),
    "pc_errors": (PredictiveCoding(CrossEntropy()), ConjugateGradient(Stopping(1e-6, 300, 1), ErrorCoordinates())),
    "pc_weighed": (Weighed(CrossEntropy()), GradientFlow(0.5, stop=Stopping(1e-4, 300))),
    "pc_skew": (Skew(CrossEntropy()), GradientFlow(0.5, stop=Stopping(1e-6, 300, 1))),
    "hopfield": (Hopfield(), FixedPoint(stop=Stopping(1e-6, 300, 1))),
    "hopfield_weak": (Hopfield(feedback_scale=0.5), FixedPoint(stop=Stopping(1e-6, 300, 1))),
}


@eqx.filter_jit
def relaxed(dynamics, graph, x, y, solver):
    phase = prepare_phase(dynamics, graph, graph.clamp(x), target=y, beta=jnp.asarray(1.0))
    return solver.solve(phase, phase.start())


@pytest.mark.parametrize("case", CASES)
def test_a_sample_relaxes_the_same_in_any_batch(case):
    """Oracle: the sample alone. In the large batch the slow samples are gathered on the way, in two groups."""
    dynamics, solver = CASES[case]
    graph = mlp([4, 8, 5, 3], Tanh(), gain=1.5, key=jax.random.key(0))
    batch = batch_for(graph, 5 * LEAST, scale=2.0)
    together = relaxed(dynamics, graph, batch.x, batch.y, solver)
    steps = np.asarray(together.steps)
    order = np.concatenate([np.argsort(-steps)[:4], np.argsort(steps)[:3]])  # the slowest and the fastest
    assert len(set(steps.tolist())) > 2
    shuffled = relaxed(dynamics, graph, batch.x[order], batch.y[order], solver)
    for place, sample in enumerate(order):
        alone = relaxed(dynamics, graph, batch.x[sample : sample + 1], batch.y[sample : sample + 1], solver)
        for other, row in ((together, sample), (shuffled, place)):
            assert int(other.steps[row]) == int(alone.steps[0])
            assert int(other.result[row]) == int(alone.result[0])
            for name, state in alone.states.items():
                np.testing.assert_allclose(other.states[name][row], state[0], rtol=0, atol=1e-12)


def test_samples_that_run_out_of_steps_in_one_group_do_not_hold_up_another():
    """Oracle: the same relaxation with steps to spare; each sample as far, or at the limit."""
    dynamics = PredictiveCoding(CrossEntropy())
    graph = mlp([4, 8, 5, 3], Tanh(), gain=1.5, key=jax.random.key(0))
    batch = batch_for(graph, 5 * LEAST, scale=2.0)
    whole = relaxed(dynamics, graph, batch.x, batch.y, GradientFlow(0.5, stop=Stopping(1e-4, 400, 1)))
    limit = int(np.sort(whole.steps)[-15])  # more are left than a group holds, and fewer than begin in groups
    late = np.asarray(whole.steps) > limit
    assert 5 * LEAST // SHARE < late.sum() < GROUPS * (5 * LEAST // SHARE)
    ended = relaxed(dynamics, graph, batch.x, batch.y, GradientFlow(0.5, stop=Stopping(1e-4, limit, 1)))
    np.testing.assert_array_equal(ended.steps, np.minimum(whole.steps, limit))
    np.testing.assert_array_equal(ended.result, np.where(late, Verdict.OUT_OF_STEPS, whole.result))
