"""The conformance suite: every class of ours joins by one row, and every check catches a class that breaks it."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix as optx
import pytest

import energax as ex
from energax import checks
from energax.activations import Sigmoid, Tanh, hard_sigmoid
from energax.checks.means import require_one_trace
from energax.dynamics import FreeGradient
from energax.graph.networks import directed_mlp, mlp
from energax.papers.millidge2023.two_hop import TwoHopCoding
from energax.rules import centred, holomorphic, nudge, one_sided, richardson, unit_nudge
from energax.solvers import Alternating, Diffrax, Held, OptaxFlow, Synchronous
from oracles import batch_for, recurrent, skipping

KEY = jax.random.key(0)


def chain(activation, output_state=True):
    return mlp([4, 5, 4, 3], activation, output_state=output_state, gain=0.8, key=KEY)


def nodes():
    return ex.Nodes([ex.Node("x", (3,)), ex.Node("u", (3,))], {"w": jnp.eye(3) + 0.1}, "x", "u")


def well(parameters, states):
    return jnp.sum((states["u"] - states["x"] @ parameters["w"]) ** 2, axis=1) + jnp.sum(states["u"] ** 4, axis=1)


DYNAMICS = {
    "pc": (ex.PredictiveCoding(ex.CrossEntropy(), {"hidden1": 0.5}), chain(jnp.tanh)),
    "pc_direct_skip": (ex.PredictiveCoding(ex.CrossEntropy()), skipping(jnp.tanh, False)),
    "pc_recurrent": (ex.PredictiveCoding(), recurrent(jnp.tanh, True)),
    "hopfield_tanh": (ex.Hopfield(), chain(Tanh())),
    "hopfield_box_skip": (ex.Hopfield(), skipping(hard_sigmoid(), True)),
    "hopfield_readout": (ex.Hopfield(ex.CrossEntropy()), chain(Sigmoid(), False)),
    "hopfield_weak_feedback": (ex.Hopfield(feedback_scale=0.5), chain(Tanh())),
    "scellier_bengio": (ex.ScellierBengio(), chain(Tanh())),
    "function": (ex.FunctionEnergy(well), nodes()),
    "skew_feedback": (ex.SkewFeedback(), recurrent(jnp.tanh, False)),
    "balanced_feedback": (ex.BalancedFeedback(), skipping(jnp.tanh, True)),
    "leaky_directed": (ex.LeakyDirected(), directed_mlp([4, 5, 3], jnp.tanh, key=KEY)),
    "leaky_flow": (ex.LeakyFlow(), directed_mlp([4, 5, 3], None, key=KEY)),
    "two_hop": (TwoHopCoding(ex.CrossEntropy(), coupling=0.7, scale=0.5), skipping(jnp.tanh, False)),
}


@pytest.mark.parametrize("row", DYNAMICS)
def test_every_dynamics_conforms(row):
    dynamics, graph = DYNAMICS[row]
    complete = not isinstance(
        dynamics, ex.dynamics.AbstractBidirectional
    )  # whose feedback is held, so that it is local
    checks.check_dynamics(dynamics, graph, batch_for(graph, 3), complete=complete)


SOLVERS = {
    "flow": (lambda tol, n: ex.GradientFlow(0.5, stop=ex.Stopping(tol, n)), None),
    "momentum": (lambda tol, n: ex.GradientFlow(0.5, momentum=0.5, stop=ex.Stopping(tol, n)), None),
    "held": (lambda tol, n: ex.GradientFlow(0.1, bound=Held(), stop=ex.Stopping(tol, n)), None),
    "optax": (lambda tol, n: OptaxFlow(optax.sgd(0.5, momentum=0.3), ex.Stopping(tol, n)), None),
    "alternating": (lambda tol, n: ex.FixedPoint(Alternating(), ex.Stopping(tol, n)), ex.Hopfield()),
    "synchronous": (lambda tol, n: ex.FixedPoint(Synchronous(), ex.Stopping(tol, n)), ex.Hopfield()),
    "conjugate_gradient": (lambda tol, n: ex.ConjugateGradient(ex.Stopping(tol, n, 1)), None),
    "conjugate_gradient_on_errors": (
        lambda tol, n: ex.ConjugateGradient(ex.Stopping(tol, n, 1), ex.ErrorCoordinates()),
        None,
    ),
    "flow_on_errors": (
        lambda tol, n: ex.GradientFlow(0.5, momentum=0.5, stop=ex.Stopping(tol, n), coordinates=ex.ErrorCoordinates()),
        None,
    ),
    "diffrax": (lambda tol, n: Diffrax(diffrax.Tsit5(), tol, max_steps=n), None),
    "newton": (lambda tol, n: ex.Optimistix(optx.Newton(1e-13, 1e-13), tol, n), None),
}


@pytest.mark.parametrize("row", SOLVERS)
def test_every_solver_conforms(row):
    make, dynamics = SOLVERS[row]
    checks.check_solver(make, dynamics=dynamics)


PC, HOPFIELD = ex.PredictiveCoding(ex.CrossEntropy()), ex.Hopfield()
FLOW = ex.GradientFlow(0.5, stop=ex.Stopping(1e-10, 2000))
SWEEPS = ex.FixedPoint(stop=ex.Stopping(1e-11, 500))
RULES = {
    "backprop": (ex.Backprop(), PC, FLOW, None),
    "first_step": (ex.FirstStep(), PC, FLOW, ex.Backprop()),
    "clamped": (ex.Contrastive(unit_nudge()), PC, FLOW, None),
    "nudge": (ex.Contrastive(nudge(1e-3)), PC, FLOW, ex.Backprop()),
    "one_sided": (ex.Contrastive(one_sided(1e-3)), HOPFIELD, SWEEPS, ex.Adjoint()),
    "centred": (ex.Contrastive(centred(1e-2)), HOPFIELD, SWEEPS, ex.Adjoint()),
    "richardson": (ex.Contrastive(richardson(1e-2)), HOPFIELD, SWEEPS, ex.Adjoint()),
    "holomorphic": (ex.Contrastive(holomorphic(5e-2, 4)), HOPFIELD, SWEEPS, ex.Adjoint()),
    "hebbian": (
        ex.ContrastiveHebbian(),
        ex.Hopfield(feedback_scale=3e-3),
        ex.FixedPoint(stop=ex.Stopping(1e-14, 60, 0)),
        ex.Backprop(),
    ),
    "incremental": (ex.Incremental(), PC, FLOW, None),
    "directed": (ex.VectorFieldRule(1e-2), PC, FLOW, ex.Adjoint()),
    "adjoint": (ex.Adjoint(), HOPFIELD, SWEEPS, None),
}


@pytest.mark.parametrize("row", RULES)
def test_every_rule_conforms(row):
    rule, dynamics, solver, reference = RULES[row]
    graph = chain(Tanh())
    checks.check_rule(rule, dynamics, graph, batch_for(graph, 4), solver, reference=reference)


# Broken classes, one per check ------------------------------------------------------------------------------------


class Broken(ex.AbstractEnergy):
    """E = |v - W x|^2 / 2 + ..., with one thing wrong at a time."""

    fault: str = eqx.field(static=True)
    cost: ex.AbstractCost = eqx.field(default_factory=ex.SquaredError)

    def prepare(self, graph, clamped, reference):
        sent = graph.precompute(clamped)
        lean = reference if self.fault == "leaning" else None
        return ex.Prepared(jax.lax.stop_gradient(sent) if self.fault == "hoisted" else sent, lean)

    def start(self, phase):
        if self.fault in ("weighed", "settled", "leaning"):
            swept = phase.graph.sweep(phase.sent)
            return ex.Start({name: swept[name] for name in phase.graph.free(phase.clamped.values)}, settled=True)
        states = phase.silence().states
        return ex.Start({**states, "x": phase.clamped.values["x"]} if self.fault == "start" else states)

    def free_gradient(self, graph):
        return FreeGradient.ZERO

    def energy(self, phase, states):
        graph = phase.graph
        vhat = graph.predict(phase.everywhere(states), phase.sent)
        energy = sum(jnp.sum((states[n] - vhat[n]) ** 2, axis=1) / 2 for n in vhat)
        if self.fault == "scaled":
            energy = (
                energy
                + jnp.sum(0.1 * graph.functions["xa"].weight)
                - jax.lax.stop_gradient(jnp.sum(0.1 * graph.functions["xa"].weight))
            )
        if self.fault == "settled":
            energy = energy + sum(jnp.sum(v**2, axis=1) for v in states.values())
        if self.fault == "weighed":
            energy = energy + jnp.sum(graph.functions["xa"].weight ** 2)
        if phase.constants is not None:
            energy = energy + jnp.sum(graph.functions["xa"].weight * 0.1)
        if self.fault == "averaged":
            energy = energy / energy.shape[0]
        if self.fault == "summed":
            energy = jnp.sum(energy)
        if self.fault == "sideways":
            energy = energy + wrong_slope(states["a"])
        if self.fault == "leaking" and phase.target is not None:
            energy = energy + 0.01 * phase.cost(states, phase.target)
        return energy


class Deaf(ex.AbstractCost):
    """No target changes it."""

    def __call__(self, output, target):
        return jnp.zeros_like(output[:, 0])

    def quadratic(self, output, target):
        return jnp.zeros_like(output), 0.0


@jax.custom_jvp
def wrong_slope(a):
    return jnp.sum(a**2, axis=1)


@wrong_slope.defjvp
def _(primals, tangents):
    return wrong_slope(*primals), jnp.sum(3 * primals[0] * tangents[0], axis=1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("start", r"start\(\) gives states to \['a', 'b', 'x', 'y'\]"),
        ("summed", r"energy has shape \(\); expected one number per sample"),
        ("sideways", "force is not -dF/dv along a random direction: off by"),
        ("averaged", "force on a sample depends on the rest of its batch: off by"),
        ("leaking", "target reaches the force at beta = 0"),
        ("deaf", "the nudge is lost"),
        ("settled", r"start\(\) says settled=True, and a force is left: residual"),
        ("weighed", r"free_gradient\(\) says ZERO, and dF/dtheta at the free equilibrium is up to"),
        ("leaning", "dF/dtheta at the free equilibrium changes with that for a reference: off by"),
        ("hoisted", r"no gradient reaches \['xa'\]"),
        ("scaled", "parameter gradient is not the derivative: off by"),
    ],
)
def test_broken_dynamics_are_caught(fault, message):
    graph = skipping(jnp.tanh, True)
    with pytest.raises(checks.CheckError, match=message):
        checks.check_dynamics(
            Broken(fault, Deaf() if fault == "deaf" else ex.SquaredError()), graph, batch_for(graph, 3)
        )


def test_a_sound_dynamics_with_a_held_part_passes_as_incomplete():
    graph = skipping(jnp.tanh, True)
    checks.check_dynamics(Broken("none"), graph, batch_for(graph, 3))
    checks.check_dynamics(Broken("scaled"), graph, batch_for(graph, 3), complete=False)


class Overshooting(ex.AbstractBlockEnergy):
    """A Hopfield energy whose blocks go 1.3 times too far."""

    cost: ex.AbstractCost = eqx.field(default_factory=ex.SquaredError)
    inner: ex.Hopfield = eqx.field(default_factory=ex.Hopfield)

    def prepare(self, graph, clamped, reference):
        return self.inner.prepare(graph, clamped, reference)

    def start(self, phase):
        return self.inner.start(phase)

    def energy(self, phase, states):
        return self.inner.energy(phase, states)

    def block_minimiser(self, phase, states, block):
        best = self.inner.block_minimiser(phase, states, block)
        return {n: states[n] + 1.3 * (v - states[n]) for n, v in best.items()}


def test_a_block_minimiser_that_overshoots_is_caught():
    graph = chain(ex.activations.identity())
    with pytest.raises(checks.CheckError, match="F is higher at the minimiser of"):
        checks.check_dynamics(Overshooting(), graph, batch_for(graph, 3))


class Lying(ex.solvers.AbstractSolver):
    """Gradient flow with one thing wrong at a time."""

    inner: ex.GradientFlow
    fault: str = eqx.field(static=True)

    def solve(self, phase, start):
        settled = self.inner.solve(phase, start)
        if self.fault == "displaced":
            return eqx.tree_at(lambda s: s.states["hidden1"], settled, settled.states["hidden1"] + 1e-3)
        if self.fault == "boasting":
            return eqx.tree_at(lambda s: s.result, settled, jnp.zeros_like(settled.result))
        if self.fault == "flattering":
            return eqx.tree_at(lambda s: s.residual, settled, settled.residual / 10)
        if self.fault == "timid":
            return eqx.tree_at(lambda s: s.result, settled, jnp.full_like(settled.result, 2))
        if self.fault == "mixing":
            mean = jnp.mean(settled.states["output"], axis=0) * 1e-7
            return eqx.tree_at(lambda s: s.states["output"], settled, settled.states["output"] + mean)
        return settled

    def calibrate(self, phase, start):
        return self

    def tighten(self, tol, factor):
        return Lying(self.inner.tighten(tol, factor), self.fault)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("displaced", "equilibrium is not the linear system's solution: off by"),
        ("boasting", r"verdicts \[0 0 0 0\] with residuals"),
        ("flattering", "residual is not |force| / drive"),
        ("timid", r"verdicts \[2 2 2 2\] on a linear net"),
        ("mixing", "residual is not|depends on the rest of its batch"),
    ],
)
def test_broken_solvers_are_caught(fault, message):
    with pytest.raises(checks.CheckError, match=message):
        checks.check_solver(lambda tol, n: Lying(ex.GradientFlow(0.5, stop=ex.Stopping(tol, n)), fault))


class Faulty(ex.rules.AbstractRule):
    """Backprop with one thing wrong at a time."""

    fault: str = eqx.field(static=True)

    @property
    def updates_per_batch(self):
        return 1

    def init(self, dynamics, graph, batch):
        return ()

    def __call__(self, dynamics, graph, batch, solver, carry):
        found, carry, info = ex.Backprop()(dynamics, graph, batch, solver, carry)
        if self.fault == "summed":
            found = jax.tree.map(lambda g: g * batch.y.shape[0], found)
        if self.fault == "unfinished":
            found = eqx.tree_at(lambda g: g.graph.functions["layer1"].bias, found, jnp.full(5, jnp.nan))
        if self.fault == "partial":
            found = found.graph
        if self.fault == "ascending":
            found = jax.tree.map(jnp.negative, found)
        if self.fault == "cast":
            found = jax.tree.map(lambda g: g.astype(jnp.float32), found)
        return found, carry, info


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("summed", "gradient is not the average over the batch: off by"),
        ("unfinished", r"gradient of .graph.functions\['layer1'\].bias is not finite"),
        ("partial", "gradient's structure is not that of Model"),
        ("ascending", "gradient is not Backprop's: off by"),
        ("cast", r"is float32\(4, 5\); expected float64\(4, 5\)"),
    ],
)
def test_broken_rules_are_caught(fault, message):
    graph = chain(jnp.tanh)
    with pytest.raises(checks.CheckError, match=message):
        checks.check_rule(Faulty(fault), PC, graph, batch_for(graph, 4), FLOW, reference=ex.Backprop())


def test_a_value_that_becomes_static_is_caught():
    def static(x, scale):
        return x * scale

    require_one_trace(static, [(jnp.ones(2), jnp.asarray(1.0)), (jnp.ones(2), jnp.asarray(2.0))])
    with pytest.raises(checks.CheckError, match="traced 2 times"):
        require_one_trace(static, [(jnp.ones(2), 1.0), (jnp.ones(2), 2.0)])
