"""Bad input is refused with a message that names the value, the place and the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energax as ex
from energax.activations import Tanh
from energax.dynamics.phase import prepare_phase
from energax.exceptions import DataError, EnergaxError, GraphError, SettingError
from energax.graph.networks import convolutional, mlp, sequential
from energax.layers import Linear
from energax.rules import RandomSign, centred, holomorphic, nudge, one_sided, richardson, unit_nudge
from energax.rules.nudging import NudgingScheme
from energax.solvers import Synchronous, Unbounded
from oracles import batch_for, solve

KEY = jax.random.key(0)
GRAPH = mlp([4, 5, 3], Tanh(), key=KEY)
DIRECT = mlp([4, 5, 3], jnp.tanh, output_state=False, key=KEY)
X = jnp.ones((2, 4))
PC, FLOW = ex.PredictiveCoding(), ex.GradientFlow()


def relax(clamp, graph=GRAPH, dynamics=PC, solver=FLOW, **more):
    return ex.relax(dynamics, graph, solver, clamp=clamp, **more)


@pytest.mark.parametrize(
    ("clamp", "error", "message"),
    [
        ({}, DataError, "nothing is clamped"),
        ({"input": X.at[1, 2].set(jnp.nan)}, DataError, r"node 'input': value nan at index \(1, 2\)"),
        ({"input": X.at[0, 3].set(-jnp.inf)}, DataError, r"node 'input': value -inf at index \(0, 3\)"),
        ({"input": jnp.ones((2, 5))}, DataError, r"'input' have shape \(2, 5\); expected \(batch, 4\)"),
        ({"input": jnp.ones(4)}, DataError, r"'input' have shape \(4,\); expected \(batch, 4\)"),
        ({"input": jnp.ones((2, 4), int)}, DataError, "'input' have dtype int64; give floating-point numbers"),
        ({"input": "some text"}, DataError, "node 'input': 'some text' is no array of numbers"),
        ({"input": [[1.0, 2.0], [3.0]]}, DataError, "node 'input': .* is no array of numbers"),
        ({"inptu": X}, GraphError, "unknown node 'inptu'; the graph has: hidden1, input, output"),
        ({"input": X, "output": jnp.ones((3, 3))}, DataError, r"different sizes: \{'input': 2, 'output': 3\}"),
    ],
)
def test_relax_refuses(clamp, error, message):
    with pytest.raises(error, match=message):
        relax(clamp)


def test_keys_are_checked():
    with pytest.raises(SettingError, match=r"key=0: give a PRNG key, as jax.random.key\(0\)"):
        relax({"input": X}, key=0)
    with pytest.raises(SettingError, match=r"key=0: give a PRNG key"):
        ex.Backprop()(PC, DIRECT, ex.Batch(X, jnp.ones((2, 3)), 0), FLOW, ())


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            (DIRECT, PC, "batch", FLOW),
            SettingError,
            r"dynamics=a Graph: give a dynamics, .*in this order: dynamics,",
        ),
        ((PC, "net", "batch", FLOW), SettingError, r"graph='net': give a Graph"),
        ((PC, DIRECT, FLOW, "batch"), SettingError, r"batch=a GradientFlow: give a Batch\(x, y\) \(in this order"),
        ((PC, DIRECT, "batch", "flow"), SettingError, r"solver='flow': give a solver, as GradientFlow\(\)"),
        ((ex.PredictiveCoding, DIRECT, "batch", FLOW), SettingError, r"dynamics=the class .*: give an instance, Pred"),
        ((PC, DIRECT, "empty", FLOW), DataError, r"values for input hold no samples"),
    ],
)
def test_a_rule_refuses_what_is_in_the_wrong_place(wrong, error, message):
    given = {"batch": ex.Batch(X, jnp.ones((2, 3))), "empty": ex.Batch(X[:0], jnp.ones((0, 3)))}
    arguments = [given.get(one, one) if isinstance(one, str) else one for one in wrong]
    with pytest.raises(error, match=message):
        ex.Contrastive(unit_nudge())(*arguments, ())


def test_what_a_dynamics_returns_is_checked():
    class Forgetful(ex.PredictiveCoding):
        def prepare(self, graph, clamped, reference):
            return None

    with pytest.raises(SettingError, match=r"Forgetful\.prepare returned=None: return a Prepared"):
        relax({"input": X}, dynamics=Forgetful())


def test_a_direct_output_cannot_be_clamped():
    with pytest.raises(GraphError, match=r"node 'output' holds no state \(state=False\), so it cannot be clamped"):
        relax({"output": jnp.ones((2, 3))}, DIRECT)


def test_start_states_are_checked():
    with pytest.raises(GraphError, match="start gives 'input' a state, but it is clamped"):
        relax({"input": X}, start={"input": X})
    with pytest.raises(DataError, match=r"'hidden1' have shape \(2, 6\); expected \(batch, 5\)"):
        relax({"input": X}, start={"hidden1": jnp.ones((2, 6))})


def test_labels_never_reach_relax():
    """Oracle: `relax` takes no target; its equilibrium from a displaced start is the sweep."""
    swept = GRAPH.sweep(X)
    settled = relax(
        {"input": X}, solver=ex.GradientFlow(0.5, stop=ex.Stopping(1e-9, 500)), start={"hidden1": 0 * swept["hidden1"]}
    )
    np.testing.assert_allclose(settled.states["output"], swept["output"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("build", [nudge, one_sided, centred, richardson, RandomSign, lambda b: holomorphic(b, 4)])
@pytest.mark.parametrize("beta", [-0.1, 0.0, float("nan")])
def test_nudge_strengths_must_be_positive(build, beta):
    with pytest.raises(SettingError, match="the nudge strength must be positive"):
        build(beta)


def test_quadratures_are_checked():
    with pytest.raises(SettingError, match="points=1: holomorphic nudging needs at least 2"):
        holomorphic(0.1, 1)
    with pytest.raises(SettingError, match=r"points of shape \(2,\) and weights of shape \(1,\)"):
        NudgingScheme(points=jnp.ones(2), weights=jnp.ones(1))
    batch = batch_for(GRAPH, 2)
    with pytest.raises(SettingError, match="RandomSign draws signs: give the batch a key"):
        ex.Contrastive(RandomSign(0.1))(PC, GRAPH, batch, FLOW, ())


@pytest.mark.parametrize(
    ("graph", "name"),
    [
        (mlp([4, 5, 3], ex.activations.hard_sigmoid(), key=KEY), "activation1"),
        (mlp([4, 5, 3], jax.nn.relu, key=KEY), "activation1"),
        (convolutional((4, 4, 1), [2], 3, jnp.tanh, pool=ex.layers.maximum, key=KEY), "layer1"),
    ],
)
def test_holomorphic_nudging_needs_an_analytic_graph(graph, name):
    with pytest.raises(SettingError, match=f"need analytic layers, and '{name}'"):
        ex.Contrastive(holomorphic(0.1, 4))(PC, graph, batch_for_images(graph), FLOW, ())


def batch_for_images(graph):
    return ex.Batch(jnp.ones((2, *graph.node("input").shape)), jnp.ones((2, 3)))


def test_holomorphic_nudging_needs_a_graph():
    nodes = ex.Nodes([ex.Node("x", (2,)), ex.Node("u", (2,))], {}, "x", "u")
    energy = ex.FunctionEnergy(lambda _, s: jnp.sum((s["u"] - s["x"]) ** 2, axis=1))
    with pytest.raises(SettingError, match="complex nudge strengths need a Graph"):
        ex.Contrastive(holomorphic(0.1, 4))(energy, nodes, ex.Batch(jnp.ones((2, 2)), jnp.ones((2, 2))), FLOW, ())


def test_fixed_point_needs_block_minimisers():
    with pytest.raises(SettingError, match="PredictiveCoding has none; use GradientFlow"):
        relax({"input": X}, solver=ex.FixedPoint())


def test_a_unit_that_reads_itself_is_no_block_of_its_own():
    nodes, edges = [ex.Node("x", (2,)), ex.Node("h", (2,))], [ex.Edge("x", "h", "w"), ex.Edge("h", "h", "w")]
    graph = ex.Graph(nodes, edges, {"w": Linear(2, 2, gain=0.3, key=KEY)}, "x", "h")
    with pytest.raises(GraphError, match=r"'h' has an edge to itself.*FixedPoint\(Synchronous\(\)\)"):
        relax({"x": jnp.ones((1, 2))}, graph, ex.Hopfield(), ex.FixedPoint())
    settled = relax({"x": jnp.ones((1, 2))}, graph, ex.Hopfield(), ex.FixedPoint(Synchronous()))
    assert settled.result[0] == ex.Verdict.CONVERGED


class Drift(ex.AbstractDynamics):
    """A force without an energy."""

    cost: ex.AbstractCost

    def prepare(self, graph, clamped, reference):
        return ex.Prepared(graph.precompute(clamped))

    def start(self, phase):
        return phase.silence()

    def force(self, phase, states):
        vhat = phase.graph.predict(phase.everywhere(states), phase.sent)
        return {name: vhat[name] - v for name, v in states.items()}


@pytest.mark.parametrize("rule", [ex.Contrastive(unit_nudge()), ex.ContrastiveHebbian(), ex.Incremental()])
def test_rules_of_energies_refuse_a_dynamics_without_one(rule):
    dynamics, batch = Drift(ex.SquaredError()), batch_for(GRAPH, 2)
    with pytest.raises(SettingError, match=f"{type(rule).__name__} differentiates an energy, and Drift has none"):
        rule(dynamics, GRAPH, batch, FLOW, rule.init(dynamics, GRAPH, batch))


def test_the_energy_of_a_dynamics_without_one_is_nan():
    phase = prepare_phase(Drift(ex.SquaredError()), GRAPH, GRAPH.clamp(X))
    start = phase.start().states
    assert np.all(np.isnan(phase.energy(start)))
    assert np.all(solve(ex.GradientFlow(0.5), phase, start).result == ex.Verdict.CONVERGED)


@pytest.mark.parametrize("step", [0.0, -0.1, float("nan")])
def test_step_sizes_must_be_positive(step):
    with pytest.raises(SettingError, match=f"step_size={step}.*must be positive"):
        ex.GradientFlow(step)


SGD = optax.sgd(0.1)
PARTS = {"graph": GRAPH, "dynamics": PC, "solver": FLOW, "rule": ex.Backprop(), "optimiser": SGD}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimiser": 0.1}, r"Learner: optimiser=0\.1: give an optax transformation, as optax\.sgd\(0\.1\)"),
        (
            {"solver": ex.Backprop(), "rule": FLOW},
            r"Learner: solver=Backprop\(\): give a solver, as GradientFlow\(\)",
        ),
        ({"rule": ex.GradientFlow}, r"Learner: rule=the class GradientFlow: give a rule, as Contrastive"),
        ({"rule": ex.Backprop}, r"Learner: rule=the class Backprop: give an instance, Backprop\(\.\.\.\)"),
        (
            {"graph": PC},
            r"Learner: graph=a PredictiveCoding: give a Graph",
        ),
        ({"dynamics": None}, r"Learner: dynamics=None: give a dynamics, as PredictiveCoding\(\)"),
        ({"refresh": 0.5}, r"Learner: refresh=0\.5: give a whole number of at least 0"),
        ({"freeze": "layer9"}, r"freeze: unknown group 'layer9'; the model has: activation1, layer1, layer2"),
    ],
)
def test_a_learner_refuses_what_is_in_the_wrong_place(wrong, message):
    with pytest.raises(SettingError, match=message):
        ex.Learner(**{**PARTS, **wrong})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ex.Contrastive(1e-3), r"Contrastive: scheme=0\.001: give a scheme, as rules\.nudge\(1e-3\)"),
        (lambda: ex.Contrastive(unit_nudge), r"Contrastive: scheme=.*: give a scheme"),
        (
            lambda: ex.PredictiveCoding(ex.CrossEntropy),
            r"cost=the class CrossEntropy: give an instance, Cross",
        ),
        (lambda: ex.Hopfield(ex.SquaredError), r"Hopfield: cost=the class SquaredError: give an instance"),
        (lambda: ex.Hopfield(0.3), r"Hopfield: cost=0\.3: give a cost, as CrossEntropy\(\)"),
        (lambda: ex.Hopfield(feedback_scale=1.5), r"Hopfield: feedback_scale=1\.5: give a number above 0 to 1"),
        (lambda: mlp([4, 5, 3], "relu", key=KEY), r"activation 1='relu': give a function, as jax\.numpy\.tanh"),
        (lambda: mlp([4, 5, 3], jnp.tanh, key=0), r"mlp: key=0: give a PRNG key, as jax\.random\.key\(0\)"),
        (lambda: convolutional((4, 4, 1), [2], 3, jnp.tanh, key=None), r"convolutional: key=None: give a PRNG key"),
        (lambda: ex.networks.residual((4, 4, 1), [2], 3, "tanh", key=KEY), r"residual: activation='tanh'"),
        (lambda: ex.networks.residual((4, 4, 1), [2], 3, jnp.tanh, key=1), r"residual: key=1"),
        (lambda: ex.networks.residual_mlp((4,), 3, 2, 2, "tanh", key=KEY), r"residual_mlp: activation='tanh'"),
        (lambda: ex.networks.residual_mlp((4,), 3, 2, 2, jnp.tanh, key=1.5), r"residual_mlp: key=1\.5"),
        (lambda: mlp(6, jnp.tanh, key=KEY), r"mlp: sizes=6: give a sequence of at least 2 numbers"),
        (
            lambda: mlp([4, 0, 3], jnp.tanh, key=KEY),
            r"mlp: sizes=\[4, 0, 3\], at index 1=0: give a whole number of at least 1",
        ),
        (
            lambda: convolutional((4, 4), [2], 3, jnp.tanh, key=KEY),
            r"convolutional: shape=\(4, 4\): give a sequence",
        ),
        (lambda: ex.networks.residual((4, 4), [2], 3, jnp.tanh, key=KEY), r"residual: shape=\(4, 4\): give a sequence"),
        (lambda: ex.networks.residual((4, 4, 1), [], 3, jnp.tanh, key=KEY), r"residual: channels=\[\]: give a seq"),
        (lambda: ex.networks.residual_mlp(4, 3, 2, 2, jnp.tanh, key=KEY), r"residual_mlp: shape=4: give a sequence"),
        (lambda: ex.networks.residual_mlp((4,), 3, 0, 2, jnp.tanh, key=KEY), r"residual_mlp: depth=0: give a whole"),
        (lambda: ex.GradientFlow(stop=1e-3), r"GradientFlow: stop=0\.001: give a Stopping, as Stopping\(1e-3\)"),
        (lambda: ex.ConjugateGradient(coordinates="errors"), r"ConjugateGradient: coordinates='errors': give coord"),
        (lambda: ex.Stopping("1e-3"), r"Stopping: tol: '1e-3' is no array of numbers"),
        (lambda: ex.GradientFlow("fast"), r"GradientFlow: step_size: 'fast' is no array of numbers"),
        (lambda: ex.GradientFlow(momentum="much"), r"GradientFlow: momentum: 'much' is no array of numbers"),
        (lambda: ex.Stopping(max_steps=0), r"Stopping: max_steps=0: give a whole number of at least 1"),
        (lambda: ex.Stopping(max_steps=10.5), r"Stopping: max_steps=10\.5: give a whole number of at least 1"),
        (lambda: ex.Stopping(check_every=-1), r"Stopping: check_every \(0 .*\)=-1: give a whole number of at least 0"),
        (lambda: ex.Stopping(tol=-1), r"Stopping: tol=-1.*: give a number from 0"),
        (lambda: ex.Stopping(tol=float("nan")), r"Stopping: tol=nan: give a number from 0"),
        (lambda: ex.Stopping(stall=-0.1), r"Stopping: stall=-0\.1: give a number from 0"),
        (lambda: ex.GradientFlow(momentum=1.5), r"GradientFlow: momentum=1\.5: give a number from 0 to below 1"),
        (lambda: ex.GradientFlow(momentum=-0.1), r"GradientFlow: momentum=-0\.1"),
        (lambda: ex.activations.Box(1, 0), r"Box: upper=0: give a number above 1"),
        (lambda: ex.activations.Sigmoid(-1.0), r"Sigmoid: gain=-1\.0: give a number above 0"),
        (lambda: ex.ContrastiveHebbian(1.5), r"ContrastiveHebbian: strength=1\.5: give a number above 0 to 1"),
        (lambda: ex.Incremental(0), r"Incremental: steps=0: give a whole number of at least 1"),
        (lambda: ex.Incremental(beta=-1.0), r"Incremental: beta=-1\.0: give a number above 0"),
        (lambda: ex.VectorFieldRule(unit_nudge()), "difference of equilibria"),
        (lambda: ex.VectorFieldRule(holomorphic(0.1, 4)), "real"),
        (lambda: ex.VectorFieldRule(0.0), r"beta=0\.0: the nudge strength must be positive"),
    ],
)
def test_constructors_name_the_value_the_place_and_the_remedy(build, message):
    with pytest.raises(SettingError, match=message):
        build()


def test_traced_values_pass_the_checks():
    """Oracle: the number itself; a swept setting may be traced, and nothing is known of it then."""

    @jax.jit
    def built(value):
        rule, stop = ex.ContrastiveHebbian(value), ex.Stopping(value)
        flow = ex.GradientFlow(value, momentum=value, stop=ex.Stopping(0.1))
        return rule.strength + stop.tol + flow.momentum + ex.Hopfield(feedback_scale=value).feedback_scale

    assert float(built(0.25)) == 1.0


@pytest.mark.parametrize("cost", [ex.SquaredError(), ex.CrossEntropy()])
@pytest.mark.parametrize("target", [jnp.ones((2, 1)), jnp.ones(2), jnp.ones((1, 3))])
def test_targets_do_not_broadcast(cost, target):
    with pytest.raises(DataError, match=r"the output has shape \(2, 3\) and the target .*one-hot"):
        cost(jnp.ones((2, 3)), target)


def test_precisions_of_unknown_nodes_are_refused():
    with pytest.raises(GraphError, match="unknown node 'hidden9'"):
        relax({"input": X}, dynamics=ex.PredictiveCoding(precisions={"hidden9": 1.0}))


def test_alternating_blocks_need_edges():
    graph = ex.Nodes([ex.Node("x", (2,))], {}, "x", "x")
    phase = prepare_phase(ex.FunctionEnergy(lambda _, s: s["x"]), graph, {})
    with pytest.raises(SettingError, match="alternating blocks need a Graph"):
        ex.solvers.Alternating().blocks(phase, ("x",))


def test_an_empty_chain_is_refused():
    with pytest.raises(GraphError, match="at least one layer"):
        sequential([], (3,))


def test_every_refusal_can_be_caught_as_one():
    for refused in (lambda: ex.GradientFlow(-1.0), lambda: relax({"q": X}), lambda: relax({})):
        with pytest.raises(EnergaxError):
            refused()


def test_a_diverging_relaxation_says_so():
    """Oracle: descent with a step of 5 on curvature of at least 1 multiplies the distance by at least 4."""
    graph = sequential([Linear(4, 3, key=KEY)], (4,))
    solver = ex.GradientFlow(5.0, bound=Unbounded(), stop=ex.Stopping(1e-3, 100))
    settled = relax({"input": X}, graph, solver=solver, start={"output": jnp.ones((2, 3))})
    assert np.all(settled.result == ex.Verdict.DIVERGED)
    assert ex.Verdict(int(settled.result[0])).message.startswith("the states grew without bound")
    assert np.all(np.isfinite(settled.states["output"]))


@pytest.mark.parametrize("rule", [ex.Backprop(), ex.FirstStep()])
def test_feed_forward_rules_refuse_nodes_without_edges(rule):
    """Oracle: there is nothing to sweep through; the message names the remedy."""
    nodes = ex.Nodes(nodes=[ex.Node("a", (2,)), ex.Node("b", (2,))], functions={}, input="a", output="b")
    batch = ex.Batch(jnp.zeros((3, 2)), jnp.zeros((3, 2)))
    with pytest.raises(GraphError, match="no feed-forward pass: use Adjoint"):
        rule(ex.FunctionEnergy(lambda functions, states: states["b"].sum(1)), nodes, batch, ex.GradientFlow(), ())
