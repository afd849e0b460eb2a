"""Recipes: each builds, trains and reports; settings are layered; what cannot work is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oracles
from energax import (
    Backprop,
    BalancedFeedback,
    Contrastive,
    ContrastiveHebbian,
    FirstStep,
    Hopfield,
    Incremental,
    LeakyDirected,
    LeakyFlow,
    PredictiveCoding,
    SkewFeedback,
    VectorFieldRule,
    networks,
)
from energax.activations import rectifier
from energax.dynamics import Start, prepare_phase
from energax.exceptions import SettingError
from energax.graph.rounding import round_products
from energax.optimisers import OPTIMISERS
from energax.recipes import RECIPES, make_learner, settings_read
from energax.recipes.recipes import complete_settings
from energax.recipes.settings import COMMON, Settings
from energax.rules import AsymEP, Homeostasis
from energax.rules.base import open_batch
from energax.rules.nudging import centred, holomorphic, nudge, one_sided, unit_nudge

# name: rule, dynamics, reference, least gradient cosine, whether it relaxes
TABLE = {
    "backprop": (Backprop(), PredictiveCoding, "backprop", 1 - 1e-9, False),
    "pc": (Contrastive(unit_nudge()), PredictiveCoding, "backprop", 0.6, True),
    "ipc": (Incremental(8), PredictiveCoding, "backprop", 0.6, True),
    "pc-nudge": (Contrastive(nudge(1e-3)), PredictiveCoding, "backprop", 0.9999, True),
    "bipc": (Contrastive(unit_nudge()), SkewFeedback, "backprop", 0.6, True),
    "bipc-balanced": (Contrastive(unit_nudge()), BalancedFeedback, "backprop", 0.6, True),
    "first-step": (FirstStep(), PredictiveCoding, "backprop", 1 - 1e-9, False),
    "ep": (Contrastive(centred(0.2)), Hopfield, "adjoint", 0.95, True),
    "ep-one-sided": (Contrastive(one_sided(0.2)), Hopfield, "adjoint", 0.95, True),
    "ep-holomorphic": (Contrastive(holomorphic(0.2, 4)), Hopfield, "adjoint", 0.99, True),
    "chl": (ContrastiveHebbian(), Hopfield, "adjoint", 0.9, True),
    "deep": (VectorFieldRule(0.1), LeakyFlow, "adjoint", 0.3, True),
    "vf-ep": (Homeostasis(VectorFieldRule(0.1)), LeakyDirected, "adjoint", 0.3, True),
    "asym-ep": (AsymEP(0.1), LeakyDirected, "adjoint", 0.999, True),
}

QUICK = {name: {"learning_rate": 0.02} for name in ("deep", "vf-ep", "asym-ep")}  # of Adam, for 22 updates


def test_the_table_knows_every_recipe():
    """Oracle: the two lists; a recipe without a row would go untested."""
    assert set(TABLE) == set(RECIPES)
    assert all(recipe.summary for recipe in RECIPES.values())


@pytest.mark.parametrize("name", list(TABLE))
def test_a_recipe_trains_in_its_regime(name, learner, train):
    """Oracle: the row of the table above; chance on ten classes is 10 %, and a uniform guess costs log 10 or 1/2.

    Verdicts must be shares that add up to 1 where the rule relaxes, and absent where it does not.
    """
    rule, dynamics, reference, cosine, relaxes = TABLE[name]
    one = learner(name, **QUICK.get(name, {}))
    assert type(one.rule) is type(rule)
    assert isinstance(one.dynamics, dynamics)
    run = train(one, epochs=2, regime=True)
    row = run.history[-1]
    assert row["reference"] == reference
    assert row["gradient_cosine"] >= cosine
    assert row["train_cost"] < run.history[0]["train_cost"] < 2.5
    assert run.result["test_accuracy"] > 0.25
    shares = [row[f"{verdict}_fraction"] for verdict in ("converged", "stalled", "out_of_steps", "diverged")]
    if relaxes:
        assert sum(shares) == pytest.approx(1, abs=1e-6)
        assert row["diverged_fraction"] == 0
        assert np.isfinite(row["residual"])
    else:
        assert np.isnan([*shares, row["residual"]]).all()


def test_holomorphic_and_nudged_rules_carry_the_settings(learner):
    """Oracle: the quadratures built by hand; points and weights follow beta and the number of points."""
    for name, settings, expected in [
        ("ep", {"beta": 0.3}, centred(0.3)),
        ("ep-one-sided", {"beta": 0.3}, one_sided(0.3)),
        ("ep-holomorphic", {"beta": 0.3, "nudge_points": 6}, holomorphic(0.3, 6)),
        ("pc-nudge", {"beta": 0.3}, nudge(0.3)),
        ("pc", {}, unit_nudge()),
    ]:
        quadrature = learner(name, **settings).rule.scheme
        np.testing.assert_allclose(quadrature.points, expected.points)
        np.testing.assert_allclose(quadrature.weights, expected.weights)
    assert learner("ipc", max_relaxation_steps=5).rule.updates_per_batch == 5
    assert float(learner("chl", gamma=0.7).dynamics.feedback_scale) == pytest.approx(0.7)


def test_hopfield_recipes_carry_feedback_unit_kernel_and_test_interval(learner):
    """Oracle: the fields of the objects built by hand; gamma left out is symmetric feedback."""
    given = Settings(network="conv", kernel=5, activation="rectifier", gamma=0.3, check_every=2)
    built, _ = make_learner("ep", (8, 8, 1), 10, settings=given)
    assert built.graph.functions["layer1"].weight.shape[:2] == (5, 5)
    assert built.graph.functions["activation1"] == rectifier()
    assert float(built.dynamics.feedback_scale) == pytest.approx(0.3)
    assert built.solver.stop.check_every == 2
    assert learner("ep").dynamics.feedback_scale is None


@pytest.mark.parametrize(
    ("network", "make", "own"),
    [
        ("hfn", networks.hierarchical, {}),
        ("scrn", networks.recurrent_simple, {"length": 5}),
        ("scrn-dense", networks.recurrent_dense, {"length": 5}),
        ("scrn-complex", networks.recurrent_complex, {"length": 5}),
    ],
)
def test_networks_of_chen2025_carry_width_length_and_activation(network, make, own):
    """Oracle: the same network built by hand."""
    given = Settings(network=network, width=0.05, activation="tanh", **own)
    built, read = make_learner("bipc", (16, 16, 3), 7, seed=3, settings=given)
    key = jax.random.fold_in(jax.random.key(3), 2**31 - 1)
    expected = make((16, 16, 3), 7, jnp.tanh, width=0.05, output_state=False, key=key, **own)
    assert eqx.tree_equal(built.graph, expected)
    assert (read.length is None) == (not own)
    assert read.hidden is None


def test_another_optimiser_comes_with_its_own_learning_rate():
    """Oracle: the table of optimisers; a rate that is given stays, and so does that of gradient descent."""
    assert (
        complete_settings("backprop", Settings(optimiser="lalr"))[1].learning_rate == OPTIMISERS["lalr"].rate == 0.003
    )
    assert complete_settings("ep", Settings(optimiser="adam"))[1].learning_rate == 0.001
    assert complete_settings("backprop", Settings(optimiser="lalr", learning_rate=0.1))[1].learning_rate == 0.1
    assert complete_settings("ep", Settings(optimiser="lars"))[1].learning_rate == 0.02


def test_bidirectional_recipes_carry_the_strength_of_the_feedback(learner):
    """Oracle: the settings."""
    for name in ("bipc", "bipc-balanced"):
        assert float(learner(name, feedback=0.1).dynamics.strength) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["backprop", "pc", "ep", "chl"])
def test_every_recipe_rounds_its_products_where_it_is_told_to(name, learner):
    """Oracle: the network built in full, rounded by hand."""
    built = learner(name, precision="bfloat16").graph
    assert eqx.tree_equal(built, round_products(learner(name).graph, "bfloat16"))
    assert not eqx.tree_equal(built, learner(name).graph)


def test_the_learning_rate_falls_along_a_half_cosine(learner):
    """Oracle: the schedule's formula at its start, its middle and its end."""
    optimiser = learner("pc", learning_rate=0.4, momentum=0.0, lr_decay_steps=2).optimiser
    state, updates = optimiser.init(jnp.ones(())), []
    for _ in range(3):
        update, state = optimiser.update(jnp.ones(()), state)
        updates.append(float(update))
    np.testing.assert_allclose(updates, [-0.4, -0.2, 0.0], atol=1e-7)


def test_settings_are_layered():
    """Oracle: the three layers. What is given wins, then the recipe's own, then the common ones; None never wins."""
    _, plain = complete_settings("ep")
    assert plain.learning_rate == RECIPES["ep"].defaults.learning_rate != COMMON.learning_rate
    assert plain.momentum == COMMON.momentum
    _, given = complete_settings(
        "ep", Settings(learning_rate=0.5, momentum=None, standardise=False, state_momentum=0.0)
    )
    assert given.learning_rate == 0.5
    assert given.momentum == COMMON.momentum
    assert given.standardise is False
    assert given.state_momentum == 0.0
    changed = {name for name, value in vars(given).items() if value != getattr(plain, name)}
    assert changed == {"learning_rate", "state_momentum"}


def test_a_learner_comes_with_all_of_its_settings():
    """Oracle: shapes of the parameters and the fields of Settings."""
    learner, complete = make_learner(
        "pc", (8, 8, 1), 7, settings=Settings(hidden=(9, 5), relaxation_tol=0.25, max_relaxation_steps=33)
    )
    assert [learner.graph.node(name).shape for name in ("input", "hidden1", "hidden2", "output")] == [
        (8, 8, 1),
        (9,),
        (5,),
        (7,),
    ]
    assert float(learner.solver.stop.tol) == 0.25
    assert learner.solver.stop.max_steps == 33
    assert (complete.hidden, complete.relaxation_tol, complete.max_relaxation_steps) == ((9, 5), 0.25, 33)
    assert complete == settings_read("pc", (8, 8, 1), 7, complete)
    assert make_learner("pc", (8, 8, 1), 7, settings=complete)[1] == complete


@pytest.mark.parametrize(
    ("name", "unread"),
    [
        ("backprop", {"beta": 0.1}),
        ("backprop", {"relaxation_tol": 0.1}),
        ("pc", {"gamma": 0.5}),
        ("pc", {"step_size": 0.1}),
        ("pc", {"channels": (4,)}),
        ("pc", {"optimiser": "adam", "momentum": 0.5}),
        ("pc", {"adam_eps": 1e-6}),
        ("pc", {"fixed_steps": 4, "state_optimiser": "adam", "state_momentum": 0.5}),
        ("pc", {"solver": "flow", "state_optimiser": "adam"}),
        ("pc", {"fixed_steps": 4, "max_relaxation_steps": 50}),
        ("ep", {"nudge_points": 4}),
        ("chl", {"beta": 0.1}),
    ],
)
def test_a_setting_that_is_not_read_is_refused(name, unread):
    """Oracle: the sources of the recipes; the message names the setting, its value and what is read instead."""
    setting, value = list(unread.items())[-1]
    with pytest.raises(SettingError) as refused:
        make_learner(name, (8, 8, 1), 10, settings=Settings(**unread))
    assert f"{setting}={value}: {name} with these settings does not read it; it reads network" in str(refused.value)
    assert getattr(settings_read(name, (8, 8, 1), 10, Settings(**unread)), setting) is None


def test_solver_settings_are_read_by_the_solver_that_has_them():
    """Oracle: the flow of the states has a step size, conjugate gradients have none."""
    learner, read = make_learner("pc", (8, 8, 1), 10, settings=Settings(solver="flow", step_size=0.25))
    assert float(learner.solver.step_size) == read.step_size == 0.25


@pytest.mark.parametrize(("steps", "size"), [(20, 0.1), (3, 2.5)], ids=["small", "unbounded"])
@pytest.mark.parametrize("name", ["pc", "pc-nudge", "ep"])
def test_fixed_steps_are_the_plain_steps_of_papers(name, steps, size, learner):
    """Oracle: v <- v + size force(v) by hand: no momentum, no test on the way, and steps that a bound would shorten."""
    for solver in ({}, {"solver": "flow"}):
        one = learner(name, fixed_steps=steps, step_size=size, **solver)
        rows = open_batch(one.graph, oracles.batch_for(one.graph, 4))
        phase = prepare_phase(one.dynamics, one.graph, rows.clamped, target=rows.target, beta=jnp.asarray(1.0))
        start = phase.start().states
        settled = eqx.filter_jit(one.solver.solve)(phase, Start(start))
        states = start
        for _ in range(steps):
            states = {n: v + size * f for (n, v), f in zip(states.items(), phase.force(states).values(), strict=True)}
        for n, v in states.items():
            np.testing.assert_allclose(settled.states[n], v, rtol=1e-10, atol=1e-12)
        assert np.all(settled.steps == steps)


@pytest.mark.parametrize(
    ("given", "optimiser"),
    [
        ({"state_optimiser": "nesterov"}, optax.sgd(0.1, momentum=0.8, nesterov=True)),
        ({"state_optimiser": "adam"}, optax.adam(0.1)),
    ],
)
def test_fixed_steps_by_an_optimiser_are_those_of_optax(given, optimiser, learner):
    """Oracle: optax's own optimiser, made here, in a loop by hand on the gradient -force."""
    one = learner("pc", fixed_steps=5, step_size=0.1, **given)
    rows = open_batch(one.graph, oracles.batch_for(one.graph, 3))
    phase = prepare_phase(one.dynamics, one.graph, rows.clamped, target=rows.target, beta=jnp.asarray(1.0))
    start = phase.start().states
    settled = eqx.filter_jit(one.solver.solve)(phase, Start(start))
    states, state = start, optimiser.init(start)
    for _ in range(5):
        updates, state = optimiser.update(jax.tree.map(jnp.negative, phase.force(states)), state)
        states = optax.apply_updates(states, updates)
    for n, v in states.items():
        np.testing.assert_allclose(settled.states[n], v, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", ["conv", "residual"])
def test_networks_for_images(network):
    """Oracle: the halving of a 16 x 16 image by every entry of `channels`."""
    learner, _ = make_learner("pc", (16, 16, 3), 4, settings=Settings(network=network, channels=(2, 5)))
    shapes = {node.name: node.shape for node in learner.graph.nodes}
    names = ("hidden1", "hidden2") if network == "conv" else ("block1", "block2")
    assert [shapes[name] for name in names] == [(8, 8, 2), (4, 4, 5)]
    assert shapes["output"] == (4,)


def test_seeds_give_other_parameters_and_the_same_seed_the_same(same):
    """Oracle: determinism, and that seeds differ."""
    first, again, other = (make_learner("pc", (8, 8, 1), 10, seed=seed)[0].graph for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("nosuch", {}, r"unknown recipe 'nosuch'; known: backprop, pc, ipc"),
        ("pc", {"learning_rate": 0.0}, r"learning_rate=0\.0: give a positive number"),
        ("pc", {"learning_rate": float("nan")}, r"learning_rate=nan: give a positive"),
        ("pc", {"learning_rate": float("inf")}, r"learning_rate=inf: give a positive"),
        ("pc", {"momentum": 1.0}, r"momentum=1\.0: give a number from 0 to below 1"),
        ("pc", {"state_momentum": -0.1}, r"state_momentum=-0\.1: give a number from 0 to below 1"),
        ("pc", {"hidden": (8, 0)}, r"hidden=\(8, 0\): give one or more whole numbers of at least 1"),
        ("pc", {"network": "conv", "channels": (-2,)}, r"channels=\(-2,\): give one or more whole numbers"),
        (
            "pc",
            {"network": "transformer"},
            r"network=transformer: give mlp, conv, residual, hfn, scrn, scrn-dense or scrn-complex",
        ),
        ("pc", {"optimiser": ["adam"]}, r"optimiser=\['adam'\]: give sgd, nesterov"),
        ("pc", {"optimiser": "rprop"}, r"optimiser=rprop: give sgd, nesterov, adam, adamw, lars, lamb or lalr"),
        ("pc", {"clip": 0.0}, r"clip=0\.0: give a positive number"),
        ("pc", {"weight_decay": -0.1}, r"weight_decay=-0\.1: give a number of at least 0"),
        ("pc", {"optimiser": "adam", "adam_eps": 0.0}, r"adam_eps=0\.0: give a positive number"),
        ("pc", {"fixed_steps": 0}, r"fixed_steps=0: give a whole number"),
        ("pc", {"freeze": "layer7"}, r"freeze: unknown group 'layer7'; the model has: activation1"),
        ("pc", {"fixed_steps": 4, "solver": "cg-states"}, r"solver=cg-states: .* leave the solver out, or give flow"),
        ("pc", {"network": "conv", "pool": "min"}, r"pool=min: give stride, average or maximum"),
        ("pc", {"gain": -1.0}, r"gain=-1\.0: give a positive number"),
        ("pc", {"relaxation_tol": -0.1}, r"relaxation_tol=-0\.1: give a number of at least 0"),
        ("ep", {"relaxation_tol": float("nan")}, r"relaxation_tol=nan"),
        ("ipc", {"max_relaxation_steps": 0}, r"max_relaxation_steps=0: give a whole number of at least 1"),
        ("ep", {"max_relaxation_steps": -3}, r"max_relaxation_steps=-3: give a whole number"),
        ("pc", {"step_size": 0.0}, r"step_size=0\.0: give a positive number"),
        ("pc", {"batch": 0}, r"batch=0: give a whole number"),
        ("pc-nudge", {"beta": 0.0}, r"beta=0\.0: the nudge strength must be positive"),
        ("ep", {"beta": -0.5}, r"beta=-0\.5"),
        ("ep-holomorphic", {"nudge_points": 1}, r"points=1: .* at least 2"),
        ("ep", {"activation": "relu"}, r"activation=relu: give hard-sigmoid, rectifier or tanh"),
        ("ep", {"kernel": 4}, r"kernel=4: give an odd number"),
        ("pc", {"precision": "half"}, r"precision=half: give float32, tensorfloat32 or bfloat16"),
        ("ep", {"lr_decay_steps": 0}, r"lr_decay_steps=0: give a whole number"),
        ("ep", {"check_every": 0}, r"check_every=0: give a whole number"),
        ("ep", {"gamma": 1.5}, r"gamma=1\.5: .* \(0, 1\]"),
        ("chl", {"gamma": 0.0}, r"gamma=0\.0: .* \(0, 1\]"),
        ("chl", {"gamma": 1.5}, r"gamma=1\.5"),
    ],
)
def test_what_cannot_work_is_refused(name, wrong, message):
    """Oracle: the message, which names the value and the remedy."""
    with pytest.raises(SettingError, match=message):
        make_learner(name, (8, 8, 1), 10, settings=Settings(**wrong))
