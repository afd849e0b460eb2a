"""A run is not continued with something else: what a learner is made of is kept beside its parameters."""

import json
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energax as ex
from energax.activations import Tanh, hard_sigmoid
from energax.exceptions import DataError, RunError
from energax.recipes import RECIPES, make_learner
from energax.rules import centred, nudge
from energax.solvers import Diffrax, Held
from energax.training.identity import describe_learner, find_difference

X = np.random.default_rng(0).normal(size=(20, 4))


def learner(**changes):
    """A small learner, all of it made anew."""
    graph = ex.networks.mlp([4, 3, 2], changes.pop("activation", jnp.tanh), key=jax.random.key(changes.pop("key", 0)))
    parts = {
        "graph": graph,
        "dynamics": ex.PredictiveCoding(ex.CrossEntropy(), {"hidden1": 0.5}),
        "solver": ex.ConjugateGradient(ex.Stopping(1e-4, 50)),
        "rule": ex.Contrastive(nudge(0.1)),
        "optimiser": optax.chain(optax.clip(1.0), optax.adam(optax.cosine_decay_schedule(0.02, 100))),
    }
    return ex.Learner(**(parts | changes))


CHANGES = {
    "activation": ({"activation": jax.nn.relu}, "graph.functions.activation"),
    "a dynamics": ({"dynamics": ex.Hopfield(), "activation": Tanh()}, "are in one of them only"),
    "cost": ({"dynamics": ex.PredictiveCoding(ex.SquaredError(), {"hidden1": 0.5})}, "dynamics.cost='energax"),
    "precision": ({"dynamics": ex.PredictiveCoding(ex.CrossEntropy(), {"hidden1": 2.0})}, "precisions.hidden1='0.5'"),
    "solver": ({"solver": ex.GradientFlow(stop=ex.Stopping(1e-4, 50))}, "are in one of them only"),
    "a solver of the same fields": (
        {"solver": ex.FixedPoint(stop=ex.Stopping(1e-4, 50))},
        "solver='energax.*ConjugateGradient', and now it is 'energax.*FixedPoint'",
    ),
    "tolerance": (
        {"solver": ex.ConjugateGradient(ex.Stopping(1e-3, 50))},
        "solver.stop.tol='0.0001', and now .*'0.001'",
    ),
    "steps": ({"solver": ex.ConjugateGradient(ex.Stopping(1e-4, 51))}, "solver.stop.max_steps=50, and now it is 51"),
    "rule": ({"rule": ex.Backprop()}, "rule='energax"),
    "nudge": ({"rule": ex.Contrastive(nudge(0.2))}, "rule.scheme.points"),
    "scheme": ({"rule": ex.Contrastive(centred(0.1))}, "rule.scheme"),
    "another optimiser": ({"optimiser": optax.chain(optax.clip(1.0), optax.sgd(0.02))}, "are in one of them only"),
    "rate": (
        {"optimiser": optax.chain(optax.clip(1.0), optax.adam(optax.cosine_decay_schedule(0.03, 100)))},
        "init_value=0.02, and now it is 0.03",
    ),
    "decay": (
        {"optimiser": optax.chain(optax.clip(1.0), optax.adam(optax.cosine_decay_schedule(0.02, 200)))},
        "decay_steps=100, and now it is 200",
    ),
    "clip": (
        {"optimiser": optax.chain(optax.clip(2.0), optax.adam(optax.cosine_decay_schedule(0.02, 100)))},
        "max_delta=1.0, and now it is 2.0",
    ),
    "refresh": ({"refresh": 5}, "refresh=0, and now it is 5"),
}


Y = np.eye(2)[(X.sum(1) > 0).astype(int)]


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """The folder of a run of one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    ex.train(learner(), ex.Arrays(X, Y, batch=5), folder=folder, regime=False)
    return folder


ROWS = {
    "fewer": (ex.Arrays(X[:15], Y[:15], batch=5), "batches with rows=20, and now it is 15"),
    "larger batches": (ex.Arrays(X, Y, batch=10), "batches with batch=5, and now it is 10"),
    "unshuffled": (ex.Arrays(X, Y, batch=5, shuffle=False), "batches with shuffle=True, and now it is False"),
    "other targets": (ex.Arrays(X, Y[::-1], batch=5), "rows of the checksum '[0-9a-f]{16}', and now it is '[0-9a-f]"),
    "weights": (ex.Arrays(X, Y, batch=5, weights=np.ones(20)), "rows of the checksum"),
    "a list": ([(X[:5], Y[:5])], "were of 'Arrays', and now they are of 'Stream'"),
}


@pytest.mark.parametrize("change", ROWS)
def test_a_run_is_not_continued_on_other_rows(change, begun):
    """Oracle: the message names what differs; the folder stays as it is."""
    rows, told = ROWS[change]
    before = {file.name: file.read_bytes() for file in begun.iterdir()}
    with pytest.raises(RunError, match=told):
        ex.train(learner(), rows, epochs=2, folder=begun, regime=False, resume=True)
    assert {file.name: file.read_bytes() for file in begun.iterdir()} == before


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_is_not_continued_with_something_else(change, begun):
    """Oracle: the message names what differs; the folder stays as it is."""
    changes, told = CHANGES[change]
    before = {file.name: file.read_bytes() for file in begun.iterdir()}
    with pytest.raises(RunError, match=told):
        ex.train(learner(**changes), ex.Arrays(X, Y, batch=5), epochs=2, folder=begun, regime=False, resume=True)
    assert {file.name: file.read_bytes() for file in begun.iterdir()} == before


@pytest.mark.parametrize("part", ["validation", "test"])
def test_shapes_of_every_part_are_looked_at_before_anything_is_trained(part):
    """Oracle: the message, and a callback that is never told of a beginning."""

    class Begun(ex.training.Callback):
        def begin(self, plan):
            raise AssertionError("it began")

    with pytest.raises(DataError, match=r"'input' have shape \(20, 3\); expected \(batch, 4\)"):
        ex.train(learner(), (X, Y), display=Begun(), **{part: (X[:, :3], Y)})


def test_the_same_learner_made_anew_is_the_same():
    """Oracle: no difference, whatever its parameters are, once its description has been in a file."""
    first = json.loads(json.dumps(describe_learner(learner())))
    assert find_difference(first, describe_learner(learner(key=1)), "") is None


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_described(recipe):
    """Oracle: the same with another seed; no address of this process is in it, and no parameter."""
    text, other = (json.dumps(describe_learner(make_learner(recipe, (8, 8, 1), 10, seed=seed)[0])) for seed in (0, 1))
    assert text == other
    assert " at 0x" not in text
    assert len(text) < 20_000


def test_what_a_training_changes_is_no_difference():
    """Oracle: measurements of the solver and learnt precisions are not in it; a solver that measures none is."""
    held = learner(solver=ex.GradientFlow(0.1, bound=Held()), refresh=3)
    measured = eqx.tree_at(lambda one: one.solver.step_size, held, jnp.asarray(0.3))
    assert describe_learner(held) == describe_learner(measured)
    still = learner(solver=ex.GradientFlow(0.1))
    assert describe_learner(still) != describe_learner(learner(solver=ex.GradientFlow(0.3)))


def test_what_has_no_fields_is_known_by_its_name():
    """Oracle: other libraries' solvers, bound methods, functions that hold themselves, and values of no kind."""

    def turning(n):
        return n if n < 1 else turning(n - 1)

    class Own:
        def update(self, gradient, state, parameters=None):
            return gradient, state

    for made in (Diffrax(diffrax.Tsit5()), ex.GradientFlow()):
        json.dumps(describe_learner(learner(solver=made)))
    own = Own()
    optimiser = optax.GradientTransformation(lambda parameters: turning, own.update)
    text = json.dumps(describe_learner(learner(optimiser=optimiser, activation=hard_sigmoid())))
    assert "turning" in text
    assert "Own.update" in text
    assert " at 0x" not in text


def test_what_a_newer_version_adds_is_no_difference():
    """Oracle: only what both descriptions have is compared."""
    before = describe_learner(learner())
    now = json.loads(json.dumps(before))
    now["fields"]["solver"]["fields"]["added"] = 3
    assert find_difference(before, now, "") is None
    now["fields"]["solver"]["fields"]["stop"]["fields"]["max_steps"] = 3
    assert find_difference(before, now, "") == (".solver.stop.max_steps", 50, 3)
