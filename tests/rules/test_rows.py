"""Rows of a batch that must not count, count more than others, or have no target: in every rule alike."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax.activations import Tanh
from energax.dynamics import FreeGradient
from energax.exceptions import DataError, SettingError
from energax.graph.networks import mlp
from energax.rules import RandomSign, centred, holomorphic, nudge, one_sided, richardson, unit_nudge
from energax.solvers import Unbounded, Verdict
from oracles import batch_for, flat, gradient, informed, relative

PC, HOPFIELD = ex.PredictiveCoding(ex.CrossEntropy()), ex.Hopfield()
FLOW = ex.GradientFlow(0.5, stop=ex.Stopping(1e-10, 2000))
SWEEPS = ex.FixedPoint(stop=ex.Stopping(1e-11, 500))
NET = mlp([4, 6, 5, 3], jnp.tanh, output_state=False, key=jax.random.key(0))
SETTLING = mlp([4, 6, 3], Tanh(), key=jax.random.key(0))
RULES = {
    "backprop": (ex.Backprop(), PC, NET, FLOW),
    "first_step": (ex.FirstStep(), PC, NET, FLOW),
    "unit_nudge": (ex.Contrastive(unit_nudge()), PC, NET, FLOW),
    "nudge": (ex.Contrastive(nudge(1e-2)), PC, NET, FLOW),
    "incremental": (ex.Incremental(), PC, NET, FLOW),
    "one_sided": (ex.Contrastive(one_sided(0.1)), HOPFIELD, SETTLING, SWEEPS),
    "centred": (ex.Contrastive(centred(0.1)), HOPFIELD, SETTLING, SWEEPS),
    "richardson": (ex.Contrastive(richardson(0.1)), HOPFIELD, SETTLING, SWEEPS),
    "hebbian": (ex.ContrastiveHebbian(), HOPFIELD, SETTLING, SWEEPS),
    "adjoint": (ex.Adjoint(), HOPFIELD, SETTLING, SWEEPS),
    "vector_field": (ex.VectorFieldRule(0.1), PC, NET, FLOW),
}


@pytest.mark.parametrize("row", RULES)
def test_weights_repeat_rows(row):
    """Oracle: the batch in which a row of weight 2 stands twice, and one of weight 0 not at all."""
    rule, dynamics, graph, solver = RULES[row]
    batch = batch_for(graph, 4)
    weighed = ex.Batch(batch.x, batch.y, batch.key, jnp.array([1.0, 2.0, 0.0, 1.0]))
    rows = np.array([0, 1, 1, 3])
    repeated = ex.Batch(batch.x[rows], batch.y[rows], batch.key)
    found = gradient(rule, dynamics, graph, weighed, solver)
    assert relative(found, gradient(rule, dynamics, graph, repeated, solver)) < 1e-9


@pytest.mark.parametrize("where", ["x", "y"])
@pytest.mark.parametrize("row", RULES)
def test_a_row_without_numbers_does_not_move_the_parameters(row, where):
    """Oracle: the other rows' gradient, divided by the whole batch; the row itself is told of."""
    rule, dynamics, graph, solver = RULES[row]
    batch = batch_for(graph, 3)
    broken = eqx.tree_at(lambda b: getattr(b, where), batch, getattr(batch, where).at[1, 0].set(jnp.nan))
    found, info = informed(rule, dynamics, graph, broken, solver)
    rest = ex.Batch(batch.x[::2], batch.y[::2])
    expected = jax.tree.map(lambda g: g * 2 / 3, gradient(rule, dynamics, graph, rest, solver))
    assert relative(found, expected) < 1e-9
    assert list(np.isnan(info.cost)) == [False, True, False]
    for phase in info.phases.values():
        diverged = np.asarray(phase.result).reshape(-1, 3) == Verdict.DIVERGED
        assert diverged[:, 1].all()
        assert not diverged[:, ::2].any()


@pytest.mark.parametrize("row", RULES)
def test_a_weight_that_is_no_number_leaves_its_row_out(row):
    """Oracle: the batch without that row; the row itself is told of."""
    rule, dynamics, graph, solver = RULES[row]
    batch = batch_for(graph, 3)
    broken = ex.Batch(batch.x, batch.y, weights=jnp.array([1.0, jnp.nan, 1.0]))
    found, info = informed(rule, dynamics, graph, broken, solver)
    rest = ex.Batch(batch.x[::2], batch.y[::2])
    assert relative(found, gradient(rule, dynamics, graph, rest, solver)) < 1e-9
    assert list(np.isnan(info.cost)) == [False, True, False]


def test_a_free_phase_known_by_construction_has_diverged_where_its_states_are_no_numbers():
    """Oracle: parameters that are NaN leave no state."""
    broken = eqx.tree_at(lambda g: g.functions["layer1"].weight, NET, replace_fn=lambda w: w * jnp.nan)
    _, info = informed(ex.Contrastive(unit_nudge()), PC, broken, batch_for(NET, 2), FLOW)
    np.testing.assert_array_equal(info.phases["free"].result, Verdict.DIVERGED)


class Runaway(ex.AbstractDynamics):
    """dv/dt = w x + (x - 1) v - beta (v - y): above x = 1 nothing is settled."""

    cost: ex.AbstractCost = eqx.field(default_factory=ex.SquaredError)

    def prepare(self, graph, clamped, reference):
        return ex.Prepared(clamped)

    def start(self, phase):
        return phase.silence()

    def force(self, phase, states):
        x, v = phase.clamped.values["x"], states["v"]
        nudge = jax.grad(lambda s: jnp.sum(phase.nudge_energy(s)))(states)["v"]
        return {"v": phase.graph.functions["w"] * x + (x - 1) * v - nudge}


@pytest.mark.parametrize("rule", [ex.Adjoint(), ex.VectorFieldRule(1e-4)])
def test_samples_that_diverge_leave_the_gradient(rule):
    """Oracle: the closed form v = w x / (1 - x), so dC/dw = (v - y) x / (1 - x), of the two samples that settle."""
    x, y, w = np.array([0.2, 0.5, 3.0]), np.array([0.1, -0.2, 0.3]), 0.7
    graph = ex.Nodes([ex.Node("x", (1,)), ex.Node("v", (1,))], {"w": jnp.asarray(w)}, "x", "v")
    batch = ex.Batch(jnp.asarray(x)[:, None], jnp.asarray(y)[:, None])
    solver = ex.GradientFlow(0.5, bound=Unbounded(), stop=ex.Stopping(1e-12, 2000))
    found, info = informed(rule, Runaway(), graph, batch, solver)
    settled = w * x[:2] / (1 - x[:2])
    expected = np.sum((settled - y[:2]) * x[:2] / (1 - x[:2])) / 3
    np.testing.assert_allclose(float(flat(found)[0]), expected, rtol=1e-6)
    assert int(info.phases["free"].result[2]) == Verdict.DIVERGED


@pytest.mark.parametrize("scheme", [nudge(1e-3), unit_nudge()])
@pytest.mark.parametrize("dynamics", [HOPFIELD, ex.ScellierBengio()])
def test_a_scheme_that_drops_the_free_term_is_refused_where_that_is_no_constant(scheme, dynamics):
    batch = batch_for(SETTLING, 2)
    with pytest.raises(SettingError, match=r"gradient of its own.*rules\.centred"):
        gradient(ex.Contrastive(scheme), dynamics, SETTLING, batch, FLOW)
    with pytest.raises(SettingError, match="Incremental takes dF/dtheta of a nudged phase alone"):
        gradient(ex.Incremental(), dynamics, SETTLING, batch, FLOW)
    overridden = gradient(ex.Contrastive(scheme, drop_free_term=True), dynamics, SETTLING, batch, FLOW)
    assert np.all(np.isfinite(flat(overridden)))


def test_a_variational_energy_may_be_nudged_by_one_alone():
    """Oracle: dF/dtheta at beta = 1 is the gradient of the whole; at another beta the free part is blown up."""
    free = ex.FunctionEnergy(
        lambda f, s: jnp.sum((s["u"] - s["x"] * f["w"]) ** 2, axis=1), at_rest=FreeGradient.VARIATIONAL
    )
    graph = ex.Nodes([ex.Node("x", (2,)), ex.Node("u", (2,))], {"w": jnp.ones(2)}, "x", "u")
    batch = ex.Batch(jnp.ones((2, 2)), jnp.zeros((2, 2)))
    assert np.all(np.isfinite(flat(gradient(ex.Contrastive(unit_nudge()), free, graph, batch, FLOW))))
    with pytest.raises(SettingError, match="gradient of its own"):
        gradient(ex.Contrastive(nudge(0.1)), free, graph, batch, FLOW)


@pytest.mark.parametrize("row", RULES)
def test_batches_that_do_not_fit_are_refused(row):
    rule, dynamics, graph, solver = RULES[row]
    batch = batch_for(graph, 3)
    for changed, message in (
        (ex.Batch(batch.x, batch.y[:2]), "2 targets for 3 inputs"),
        (ex.Batch(batch.x), "learns from targets, and the batch has none"),
        (ex.Batch(batch.x, batch.y, None, jnp.ones(2)), r"weights of shape \(2,\) for 3 samples"),
        (ex.Batch(batch.x, batch.y, None, "even"), "weights: 'even' is no array of numbers"),
        (ex.Batch(batch.x, "targets"), "y: 'targets' is no array of numbers"),
    ):
        with pytest.raises(DataError, match=message):
            rule(dynamics, graph, changed, solver, rule.init(dynamics, graph, changed))


@pytest.mark.parametrize("row", RULES)
def test_data_in_another_precision_than_the_parameters_are_brought_into_theirs(row):
    """Oracle: the same numbers in the parameters' own dtype."""
    rule, dynamics, graph, solver = RULES[row]
    batch = batch_for(graph, 3)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), batch)
    double = jax.tree.map(lambda a: a.astype(jnp.float64), single)
    found = gradient(rule, dynamics, graph, single, solver)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float64")}
    assert relative(found, gradient(rule, dynamics, graph, double, solver)) < 1e-9


def barrier(functions, states):
    """v^2 / 2 - w x v - v^4 / 4: a well about 0 between two slopes without end."""
    v, x = states["v"][:, 0], states["x"][:, 0]
    return v**2 / 2 - functions["w"] * x * v - v**4 / 4


@pytest.mark.parametrize(
    "scheme",
    [one_sided(0.5), centred(0.5), richardson(0.5), RandomSign(0.5), holomorphic(0.5, 2)],
    ids=lambda s: repr(s)[:40],
)
def test_a_sample_that_one_phase_loses_has_no_free_half_either(scheme):
    """Oracle: the same batch with a target that does not pull over the barrier, and the row of weight 0."""
    nodes = ex.Nodes([ex.Node("x", (1,)), ex.Node("v", (1,))], {"w": jnp.asarray(0.7)}, "x", "v")
    dynamics, x = ex.FunctionEnergy(barrier), jnp.array([[0.1], [0.2]])
    solver = ex.GradientFlow(0.1, bound=Unbounded(), stop=ex.Stopping(1e-10, 2000))
    key = jax.random.key(3)
    rule = ex.Contrastive(scheme)
    lost, info = informed(rule, dynamics, nodes, ex.Batch(x, jnp.array([[0.05], [10.0]]), key), solver)
    assert np.all(info.phases["free"].result == Verdict.CONVERGED)
    verdicts = np.asarray(info.phases["nudged"].result).reshape(-1, 2)
    assert np.all(verdicts[:, 0] == Verdict.CONVERGED)
    assert np.any(verdicts[:, 1] == Verdict.DIVERGED)
    weights = jnp.array([1.0, 0.0])
    alone = gradient(rule, dynamics, nodes, ex.Batch(x, jnp.array([[0.05], [0.05]]), key, weights), solver)
    np.testing.assert_allclose(lost.functions["w"], alone.functions["w"] / 2, rtol=1e-9)
    assert abs(float(lost.functions["w"])) > 1e-4
