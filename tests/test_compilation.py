"""Compilations are counted: values never retrace, only structure does.

Oracle: the number of times Python runs inside a jitted function.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix as optx
import pytest

import energax as ex
from energax import compilation
from energax.activations import Tanh
from energax.exceptions import SettingError
from energax.graph.networks import mlp
from energax.rules import centred, holomorphic, nudge
from energax.solvers import Held, PerSample
from energax.training.learner import calibrate
from oracles import batch_for

GRAPH = mlp([4, 5, 3], Tanh(), key=jax.random.key(0))
BATCH, OTHER = batch_for(GRAPH, 4), batch_for(GRAPH, 4, seed=9)
PC, HOPFIELD = ex.PredictiveCoding(), ex.Hopfield()


@pytest.fixture
def traces():
    """A jitted rule call, and how often it was traced."""
    seen = []

    @eqx.filter_jit
    def call(rule, dynamics, graph, batch, solver):
        seen.append(None)
        return rule(dynamics, graph, batch, solver, rule.init(dynamics, graph, batch))[0]

    return call, seen


def flow(step=0.1, tol=1e-2, margin=0.8):
    return ex.GradientFlow(step, stop=ex.Stopping(tol, 50), bound=PerSample(margin))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((nudge(0.1), PC, flow()), (nudge(0.2), PC, flow(0.05, 1e-3, 0.7))),
        (
            (centred(0.1), HOPFIELD, ex.FixedPoint()),
            (centred(0.3), HOPFIELD, ex.FixedPoint(stop=ex.Stopping(1e-4, 100))),
        ),
        ((holomorphic(0.1, 4), HOPFIELD, ex.FixedPoint()), (holomorphic(0.2, 4), HOPFIELD, ex.FixedPoint())),
        (
            (nudge(0.1), PC, ex.Optimistix(optx.Newton(1e-3, 1e-3), 1e-2)),
            (nudge(0.1), PC, ex.Optimistix(optx.Newton(1e-3, 1e-3), 1e-3)),
        ),
        (
            (nudge(0.1), ex.PredictiveCoding(precisions={"hidden1": 1.0}), ex.GradientFlow(0.1, 0.5, bound=Held(1.0))),
            (nudge(0.1), ex.PredictiveCoding(precisions={"hidden1": 2.0}), ex.GradientFlow(0.1, 0.9, bound=Held(3.0))),
        ),
        (
            (centred(0.1), ex.Hopfield(feedback_scale=0.5), flow()),
            (centred(0.1), ex.Hopfield(feedback_scale=0.1), flow()),
        ),
    ],
    ids=["flow", "centred", "holomorphic", "optimistix", "momentum_precisions", "feedback"],
)
def test_values_do_not_retrace(traces, first, second):
    call, seen = traces
    for (quadrature, dynamics, solver), batch in ((first, BATCH), (second, OTHER)):
        call(ex.Contrastive(quadrature), dynamics, GRAPH, batch, solver)
    assert len(seen) == 1


def test_structure_does_retrace(traces):
    """The counter counts: another number of steps, or another rule, is another program."""
    call, seen = traces
    call(ex.Backprop(), PC, GRAPH, BATCH, flow())
    call(ex.Backprop(), PC, GRAPH, OTHER, flow())
    call(ex.FirstStep(), PC, GRAPH, BATCH, flow())
    call(ex.Backprop(), PC, GRAPH, BATCH, ex.GradientFlow(stop=ex.Stopping(max_steps=7)))
    assert len(seen) == 3


def test_a_calibrated_solver_does_not_retrace(traces):
    call, seen = traces
    learner = ex.Learner(GRAPH, PC, ex.GradientFlow(bound=Held()), ex.Contrastive(nudge(0.1)), optax.sgd(0.1))
    for batch in (BATCH, OTHER):
        call(learner.rule, PC, GRAPH, batch, calibrate(learner.model, learner.solver, batch))
    assert len(seen) == 1


def test_updated_parameters_do_not_retrace(traces):
    call, seen = traces
    found = call(ex.Backprop(), PC, GRAPH, BATCH, flow())
    call(ex.Backprop(), PC, eqx.apply_updates(GRAPH, jax.tree.map(jnp.negative, found.graph)), BATCH, flow())
    assert len(seen) == 1


def test_relax_compiles_once():
    """Other values, another start, and a solver of other numbers are the same program."""
    seen = []

    def energy(_, states):
        seen.append(None)
        return jnp.sum(states["v"] ** 2, axis=1) / 2

    dynamics, nodes = ex.FunctionEnergy(energy), ex.Nodes([ex.Node("v", (2,))], {}, "v", "v")
    counts = []
    for start, step in ((1.0, 0.1), (2.0, 0.2)):
        ex.relax(dynamics, nodes, flow(step), clamp={}, start={"v": jnp.full((3, 2), start)})
        counts.append(len(seen))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(("limit", "forgotten"), [("1", 1), ("1000000000", 0)])
def test_programs_are_forgotten_where_memory_maps_run_short(monkeypatch, tmp_path, learner, data, limit, forgotten):
    """Oracle: JAX is told to forget them when `fit` begins (and ends at once), or is not.

    To have them forgotten in earnest takes a quarter of a minute of a process that has run a thousand tests.
    """
    file, calls = tmp_path / "max_map_count", []
    file.write_text(f"{limit}\n")
    monkeypatch.setattr(compilation, "LIMIT", file)
    monkeypatch.setattr(jax, "clear_caches", lambda: calls.append(None))
    with pytest.raises(SettingError, match="resume needs the folder"):
        ex.fit(learner("pc"), data, epochs=1, batch=20, resume=True)
    assert len(calls) == forgotten
