"""`fit`: resumption, selection by validation, compilations, and runs that go wrong."""

import dataclasses
import json
import re
import time
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from energax import Backprop, Contrastive, Equilibrium, GradientFlow, Stopping, Verdict
from energax.data import Split
from energax.diagnostics.regime import measure_regime
from energax.exceptions import DivergenceError, RunError, SettingError
from energax.rules import RandomSign
from energax.solvers import AbstractSolver, Unbounded
from energax.training import RunFolder, evaluate
from energax.training import epoch as epochs
from energax.training.alarms import Ending, find_alarms, gather_alarms
from energax.training.callbacks import Callback
from energax.training.display import Terminal, TrainingWarning
from energax.training.learner import begin
from energax.training.rows import make_device_split

TIMES = ("seconds", "compile_seconds")


def without_seconds(history):
    """Rows of the log as text, so that NaN equals NaN."""
    return [json.dumps({key: value for key, value in row.items() if key not in TIMES}) for row in history]


def without_time(result):
    return json.dumps({key: value for key, value in result.items() if key not in TIMES})


@pytest.mark.parametrize("recipe", ["pc-nudge", "ep-one-sided"])
@pytest.mark.parametrize("midway", [False, True])
def test_resumed_run_equals_the_uninterrupted_one(recipe, midway, learner, train, stopper, same, progress, tmp_path):
    """Oracle: the run that nothing interrupted; its parameters, optimiser state and log, bit for bit."""
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    expected = train(learner(recipe), epochs=3, seed=5, folder=whole)
    with pytest.raises(InterruptedError):
        train(learner(recipe), epochs=3, seed=5, folder=broken, display=stopper(2, midway))
    finished = 1 if midway else 2
    assert len(broken.path.joinpath("metrics.jsonl").read_text().splitlines()) == finished
    resumed = train(learner(recipe), epochs=3, seed=5, folder=broken, resume=True)

    like = progress(learner(recipe))
    for best in (False, True):
        (a, facts), (b, others) = (folder.restore(learner(recipe), best=best) for folder in (whole, broken))
        assert same(a, b)
        assert without_seconds(facts["history"]) == without_seconds(others["history"])
    assert not same(whole.restore(learner(recipe))[0], like)
    assert same(whole.load(learner(recipe)), expected.learner)
    assert same(expected.learner, resumed.learner)
    assert without_seconds(expected.history) == without_seconds(resumed.history)
    assert without_time(expected.result) == without_time(resumed.result)


def test_a_run_killed_in_its_first_epoch_can_be_started_again(learner, train, stopper, same, tmp_path):
    """Oracle: the same run in a fresh folder. Nothing is there to resume, and a resumption says so."""
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(InterruptedError):
        train(learner("backprop"), epochs=1, folder=folder, display=stopper(1, midway=True))
    with pytest.raises(RunError, match=r"no checkpoint at .*last\.ckpt.*has its first epoch ended"):
        train(learner("backprop"), epochs=1, folder=folder, resume=True)
    again = train(learner("backprop"), epochs=1, folder=folder)
    assert same(again.learner, train(learner("backprop"), epochs=1).learner)


def test_training_changes_with_the_seed_and_with_nothing_else(learner, train, same):
    """Oracle: determinism. Two runs with one seed agree in every bit; another seed orders the rows differently."""
    first, again, other = (train(learner("backprop"), epochs=1, seed=seed).learner for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


def test_resume_refuses_other_settings_fewer_epochs_and_no_folder(learner, train, tmp_path):
    """Oracle: the message, which names the value before, the value now and the remedy."""
    folder = RunFolder(tmp_path / "run")
    train(learner("backprop"), epochs=2, seed=3, folder=folder)
    kept = folder.last.read_bytes()
    with pytest.raises(RunError, match=r"has seed=3, and now seed=4 is asked for.*--out"):
        train(learner("backprop"), epochs=3, seed=4, folder=folder, resume=True)
    with pytest.raises(RunError, match=r"has batch=20, and now batch=10 is asked for"):
        train(learner("backprop"), epochs=3, seed=3, batch=10, folder=folder, resume=True)
    with pytest.raises(SettingError, match=r"epochs=1: the run in .* has 2 already; give at least as many"):
        train(learner("backprop"), epochs=1, seed=3, folder=folder, resume=True)
    with pytest.raises(SettingError, match="resume needs the folder"):
        train(learner("backprop"), epochs=1, resume=True)
    with pytest.raises(RunError, match=r"holds a run already: continue it \(resume=True; --resume .*\), or choose"):
        train(learner("backprop"), epochs=1, folder=folder)
    assert folder.last.read_bytes() == kept
    assert folder.config()["epochs"] == 2


def test_settings_that_cannot_work_are_refused_before_anything_is_written(learner, train, data, tmp_path):
    """Oracle: the message names the value; the folder does not exist afterwards."""
    wide = dataclasses.replace(data, classes=11)
    tall = dataclasses.replace(data, train=Split(np.zeros((30, 9, 8, 1), np.uint8), np.zeros(30, np.int32)))
    broken = eqx.tree_at(
        lambda l: l.graph.functions["layer2"].weight, learner("backprop"), replace_fn=lambda w: w * np.nan
    )
    whole = learner("backprop")
    several = [
        dataclasses.replace(whole, graph=dataclasses.replace(whole.graph, **{end: names}))
        for end, names in (("input", ("input", "hidden1")), ("output", ("hidden1", "output")))
    ]
    cases = [
        *((SettingError, "give the graph one input and one output", {"learner": one}) for one in several),
        (SettingError, "epochs=0: give a whole number of at least 1", {"epochs": 0}),
        (SettingError, "epochs=-1", {"epochs": -1}),
        (SettingError, "batch=0: give a whole number of at least 1", {"batch": 0}),
        *(
            (SettingError, f"batch={batch!r}: give a whole number of at least 1", {"batch": batch})
            for batch in (2.0, "8", None, True)
        ),
        (SettingError, "epochs=1.5: give a whole number", {"epochs": 1.5}),
        (SettingError, "seed='1': give a whole number", {"seed": "1"}),
        (
            SettingError,
            r"fit: data=a tuple: give a Dataset, as energax.load_data",
            {"data": (data.train.images, 0)},
        ),
        (SettingError, r"fit: learner=\(\): give a Learner\(graph, dynamics", {"learner": ()}),
        (SettingError, "batch=204: give a size between 1 and the 203", {"batch": 204}),
        (SettingError, "seed=-1: give a whole number of at least 0", {"seed": -1}),
        (SettingError, r"output has shape \(10,\), and cut-digits has 11 classes", {"data": wide}),
        (SettingError, r"input has shape \(8, 8, 1\), and the images of cut-digits have \(9, 8, 1\)", {"data": tall}),
        (RunError, "parameters of 'layer2' are not finite before the first batch", {"learner": broken}),
    ]
    for kind, message, wrong in cases:
        with pytest.raises(kind, match=message):
            train(**{"learner": learner("backprop"), "epochs": 1, "folder": RunFolder(tmp_path / "run"), **wrong})
    assert not (tmp_path / "run").exists()


def test_the_best_epoch_is_validations_and_the_accuracy_is_the_last_ones(learner, train, data, tmp_path):
    """Oracle: the argmax of the log, and `evaluate` on the learners that the two checkpoints hold.

    Labels of the validation rows are shuffled with a seed for which the best epoch is not the last one.
    """
    labels = np.random.default_rng(1).permutation(data.validation.labels)
    noisy = dataclasses.replace(data, validation=Split(data.validation.images, labels))
    folder = RunFolder(tmp_path / "run")
    run = train(learner("backprop"), data=noisy, epochs=6, seed=2, folder=folder)
    accuracies = [row["validation_accuracy"] for row in run.history]
    assert len(set(accuracies)) > 1
    chosen = int(np.argmax(accuracies))
    assert chosen < 5, "pick another seed: the test needs a best epoch before the last"
    assert run.result["selected_epoch"] == chosen + 1
    assert run.result["validation_accuracy"] == accuracies[-1]

    def tested(learner):
        return evaluate(learner, make_device_split(noisy, noisy.test, standardise=False)).accuracy

    at_chosen = train(learner("backprop"), data=noisy, epochs=chosen + 1, seed=2).learner
    assert run.result["test_accuracy"] == tested(run.learner)
    assert run.result["selected_test_accuracy"] == tested(at_chosen)
    assert tested(run.learner) != tested(at_chosen)
    rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["validation_accuracy"] for row in rows] == accuracies


def test_a_resumed_run_tests_the_best_epoch_of_before(learner, train, stopper, tmp_path):
    """Oracle: the run that nothing interrupted. Epochs after the first go uphill, so that it stays the best one."""
    optimiser = optax.sgd(lambda count: jnp.where(count < 10, 0.1, -1.0))  # 10 batches are one epoch
    worsening = dataclasses.replace(learner("backprop"), optimiser=optimiser)
    expected = train(worsening, epochs=3).result
    assert expected["selected_epoch"] == 1
    assert expected["selected_test_accuracy"] > expected["test_accuracy"]
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(InterruptedError):
        train(worsening, epochs=3, folder=folder, display=stopper(2))
    resumed = train(worsening, epochs=3, folder=folder, resume=True)
    assert resumed.result["selected_epoch"] == 1
    assert resumed.result["selected_test_accuracy"] == expected["selected_test_accuracy"]


def test_labels_of_validation_and_test_rows_cannot_reach_the_parameters(learner, train, data, same):
    """Oracle: the same training with the labels of both splits replaced by class 0."""

    def poisoned(split):
        return Split(split.images, np.zeros_like(split.labels))

    other = dataclasses.replace(data, validation=poisoned(data.validation), test=poisoned(data.test))
    a, b = (train(learner("backprop"), data=each, epochs=2) for each in (data, other))
    assert same(a.learner, b.learner)
    assert a.result["test_accuracy"] != b.result["test_accuracy"]


class Counting(Backprop):
    """Backprop that counts how often Python runs it: once per trace, never per batch."""

    traces = []

    def __call__(self, dynamics, graph, batch, solver, carry):
        self.traces.append(batch.x.shape)
        return Backprop.__call__(self, dynamics, graph, batch, solver, carry)


def test_epochs_stretches_runs_and_rates_of_the_same_shape_compile_once(learner, train, data):
    """Oracle: the number of times that Python runs the rule.

    A second epoch, every later stretch, a second run and another seed must not trace the training step again; the
    regime's rule is traced for the 64 rows of its probe, once as well.
    """
    counting = eqx.tree_at(lambda l: l.rule, learner("backprop"), Counting())
    train(counting, epochs=1, regime=True)
    assert sorted(Counting.traces) == [(20, 8, 8, 1), (64, 8, 8, 1)]
    train(counting, epochs=3, regime=True)
    train(counting, epochs=1, seed=7, regime=True)
    assert len(Counting.traces) == 2
    train(counting, epochs=1, batch=10, regime=True)
    assert Counting.traces[2:] == [(10, 8, 8, 1)]


def test_a_cost_that_diverges_stops_the_run_and_keeps_earlier_epochs(learner, train, same, monkeypatch, tmp_path):
    """Oracle: the checkpoint of the epoch before, bit for bit; the message names the epoch and the remedy.

    An optimiser that multiplies its updates by infinity stands for a learning rate that is too high.
    """
    folder = RunFolder(tmp_path / "run")
    monkeypatch.setattr(Weather, "factor", 1.0)
    train(wildly(learner("backprop")), epochs=1, folder=folder)
    kept = folder.last.read_bytes(), folder.best.read_bytes()
    monkeypatch.undo()
    with pytest.raises(
        DivergenceError,
        match=r"cost became \S+ in epoch 2, at batch 1 .*'layer1', 'layer2' are no numbers: lower the learning.*kept",
    ):
        train(wildly(learner("backprop")), epochs=3, folder=folder, resume=True)
    assert (folder.last.read_bytes(), folder.best.read_bytes()) == kept
    monkeypatch.setattr(Weather, "factor", 1.0)
    after = train(wildly(learner("backprop")), epochs=2, folder=folder, resume=True)
    assert same(after.learner, train(learner("backprop"), epochs=2).learner)


class Weather:
    factor = jnp.inf


def wildly(learner):
    """The same learner with updates times the weather's factor, which no description of it holds."""

    def update(gradient, state, parameters):
        updates, state = optimiser.update(gradient, state, parameters)
        return jax.tree.map(lambda u: u * Weather.factor, updates), state

    optimiser = learner.optimiser
    return eqx.tree_at(lambda l: l.optimiser, learner, optimiser._replace(update=update))


def test_parameters_that_break_in_the_last_batch_are_not_saved(learner, train, data, tmp_path):
    """Oracle: no checkpoint is written. The cost of the only batch is finite, the parameters after it are not."""
    folder = RunFolder(tmp_path / "run")
    wild = wildly(learner("backprop"))
    with pytest.raises(
        DivergenceError, match=r"parameters of 'layer1' are not finite after epoch 1: lower the learning rate"
    ):
        train(wild, epochs=1, batch=len(data.train), folder=folder)
    assert not folder.last.exists()
    assert not folder.best.exists()


def test_diverging_relaxations_are_counted_and_warned_of(learner, train, capsys):
    """Oracle: a step of 30 with curvature at least 1 multiplies the error by 29 or more, so all must diverge."""
    solver = GradientFlow(30.0, bound=Unbounded(), stop=Stopping(1e-3, 60))
    unstable = dataclasses.replace(learner("pc"), solver=solver)
    run = train(unstable, epochs=1, display=Terminal())
    (row,) = run.history
    assert row["diverged_fraction"] == 1  # all nudged phases; free ones are known by construction, and do not count
    told = capsys.readouterr().err
    assert (
        "epoch 1: 100.00 % of the relaxations diverged and did not train: lower the nudge strength (--beta), the step"
        in told
    )
    assert "diverged" in told.splitlines()[1]
    assert [message for message in run.result["warnings"] if message in told] == row["warnings"] != []


def test_relaxations_out_of_steps_are_warned_of(learner, train, capsys):
    """Oracle: two steps with an unreachable tolerance can only end out of steps."""
    short = dataclasses.replace(learner("pc"), solver=GradientFlow(0.1, stop=Stopping(1e-9, 2, 1)))
    (row,) = train(short, epochs=1, display=Terminal()).history
    assert row["out_of_steps_fraction"] == 1
    assert (
        "epoch 1: 100.00 % of the relaxations ran out of steps: allow more steps (--max-relaxation-steps)"
        in capsys.readouterr().err
    )


class Judging(AbstractSolver):
    """Leaves the states where they are, and says of the first 57 of every 100 samples that they stalled."""

    def solve(self, phase, start):
        size = len(next(iter(start.states.values())))
        stalled = jnp.arange(size) % 100 < 57
        result = jnp.where(stalled, int(Verdict.STALLED), int(Verdict.CONVERGED))
        residual = jnp.where(stalled, 0.2, 0.0)
        return Equilibrium(start.states, jnp.full(size, 3), residual, result, jnp.zeros(size, bool))

    def tighten(self, tol, factor):
        return self


def test_shares_and_residual_are_of_the_relaxations_that_took_place(learner, train, data, tmp_path):
    """Oracle: the definition. 57 of 100 nudged phases stall at a residual of .2, and the free ones are known.

    Counted with the free phases, the share would be 28.5 %, the residual .057 and the steps 1.5.
    """
    judged = dataclasses.replace(learner("pc"), solver=Judging())
    folder = RunFolder(tmp_path / "run")
    run = train(judged, epochs=1, batch=100, folder=folder)
    (row,) = run.history
    for found in (row, run.result):
        assert found["stalled_fraction"] == pytest.approx(0.57)
        assert found["converged_fraction"] == pytest.approx(0.43)
        assert found["residual"] == pytest.approx(0.57 * 0.2)
        assert found["steps"] == 3
    assert "| relaxations: stalled | 57.00 % |" in (folder.path / "summary.md").read_text()
    batch = make_device_split(data, data.train, standardise=False).batch(jnp.arange(100))
    regime = eqx.filter_jit(measure_regime)(judged.dynamics, judged.graph, batch, judged.solver, judged.rule)
    assert float(regime.stalled) == pytest.approx(0.57)
    assert float(regime.residual) == pytest.approx(0.57 * 0.2)


def test_a_cost_that_grows_many_times_over_is_warned_of(learner, train, tmp_path, capsys):
    """Oracle: the cost before the first update, by hand; a learning rate of 1e6 multiplies it.

    The warning has the number, the epoch and the remedy, in the log, on the terminal and on the page.
    """
    folder = RunFolder(tmp_path / "run")
    run = train(learner("backprop", learning_rate=1e6), epochs=1, folder=folder, display=Terminal())
    (row,) = run.history
    assert 1 < row["first_cost"] < 4  # ten classes, nearly uniform: log 10 = 2.3
    assert row["train_cost"] > 1000
    (message,) = [message for message in row["warnings"] if "train cost" in message]
    assert message.startswith(f"epoch 1: the train cost is {row['train_cost']:.4g}, ")
    assert "lower the learning rate (--learning-rate)" in message
    assert message in capsys.readouterr().err
    assert message in (folder.path / "summary.md").read_text()
    assert message in run.result["warnings"]
    with pytest.warns(TrainingWarning) as told:
        train(learner("backprop", learning_rate=1e6), epochs=1, display=None)
    assert [str(one.message) for one in told] == row["warnings"]


def test_compiling_is_no_part_of_the_training_time(learner, train, tmp_path, monkeypatch):
    """Oracle: a compiler that takes two seconds more. They stand in a column of their own, in the first epoch alone."""
    lower = epochs.stretch_in_place.lower

    def slowly(*arguments):
        time.sleep(2)
        return lower(*arguments)

    monkeypatch.setattr(epochs, "stretch_in_place", SimpleNamespace(lower=slowly))
    before = time.perf_counter()
    run = train(learner("backprop", hidden=(7,)), epochs=2, folder=RunFolder(tmp_path / "run"))
    whole = time.perf_counter() - before
    first, second = run.history
    assert first["compile_seconds"] >= 2
    assert second["compile_seconds"] < 1
    assert run.result["compile_seconds"] == first["compile_seconds"] + second["compile_seconds"]
    assert run.result["seconds"] + run.result["compile_seconds"] < whole
    assert first["seconds"] < whole - first["compile_seconds"]
    assert "| compiling |" in (tmp_path / "run" / "summary.md").read_text()


class Listener(Callback):
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def begin(self, plan):
        self.told.append(("begin", plan.epochs, plan.batches, plan.done))

    def advance(self, epoch, batches, averages):
        self.told.append(("advance", epoch, batches))

    def epoch(self, row, learner):
        self.told.append(("epoch", row["epoch"]))

    def end(self):
        self.told.append(("end",))


def test_a_display_hears_of_every_batch_and_of_the_end(learner, train):
    """Oracle: 203 rows in batches of 20 are 10 batches per epoch; each is told of once, in order, and so is the end."""
    listener = Listener()
    train(learner("backprop"), epochs=2, display=listener)
    assert listener.told[0] == ("begin", 2, 10, 0)
    assert listener.told[-1] == ("end",)
    for epoch in (1, 2):
        assert sum(told[2] for told in listener.told if told[:2] == ("advance", epoch)) == 10
    assert [told[1] for told in listener.told if told[0] == "epoch"] == [1, 2]


@pytest.mark.parametrize("optimiser", ["adamw", "lars"])
def test_frozen_functions_keep_every_bit(optimiser, learner, train, same):
    """Oracle: the parameters before. Neither momentum nor decay nor a clipped norm may touch what is frozen.

    The rest moves as it does beside a function that stands still, and the optimiser holds nothing for what is frozen.
    """
    settings = {"optimiser": optimiser, "weight_decay": 0.1, "clip": 1.0}
    start, frozen = learner("pc", **settings), learner("pc", freeze="layer1", **settings)
    assert frozen.freeze == ("layer1",)
    trained = train(frozen, epochs=1).learner.graph
    assert same(trained.functions["layer1"], start.graph.functions["layer1"])
    assert not same(trained.functions["layer2"], start.graph.functions["layer2"])
    held = [leaf.shape for leaf in jax.tree.leaves(begin(frozen).optimiser)]
    assert (16, 10) in held
    assert (64, 16) not in held
    assert (64, 16) in [leaf.shape for leaf in jax.tree.leaves(begin(start).optimiser)]
    with pytest.raises(SettingError, match="freeze: unknown group 'layer9'; the model has: activation1, layer1"):
        learner("pc", freeze="layer1,layer9")


def row_of(epoch: int, **changed):
    """A row of the log with which nothing is wrong."""
    sound = {"train_cost": 1.0, "validation_cost": 1.0, "diverged_fraction": 0.0, "out_of_steps_fraction": 0.0}
    return {"epoch": epoch, "first_cost": 1.0, "validation_settled": 1.0, **sound, **changed}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"train_cost": 10.5},
            r"epoch 3: the train cost is 10\.5, 10\.5 times the 1 before .*lower the learning",
        ),
        ({"validation_cost": 20.0}, r"epoch 3: the validation cost is 20, 20 times the 1 "),
        (
            {"diverged_fraction": 0.001},
            r"epoch 3: 0\.10 % of the relaxations diverged.*lower the nudge strength",
        ),
        ({"out_of_steps_fraction": 0.25}, r"epoch 3: 25\.00 % of the relaxations ran out of steps: allow more steps"),
        (
            {"layer_norm_ratio": {"layer1": 0.0, "layer2": 1e-30, "layer3": 0.0}},
            r"epoch 3: on the first rows the gradient of 'layer1', 'layer3' is 0, and nothing is learnt there: ",
        ),
        ({"validation_settled": 0.9}, r"epoch 3: 10\.00 % of the validation rows did not settle"),
    ],
)
def test_what_is_wrong_with_an_epoch_is_named(changed, message):
    """Oracle: the row. The message has epoch, number and remedy; of several epochs the last one's stands."""
    (alarm,) = find_alarms(row_of(3, **changed), Ending())
    assert re.search(message, alarm.message)
    (told,) = gather_alarms([row_of(1), row_of(2, **changed), row_of(3, **changed)], Ending())
    assert told == f"{alarm.message} (2 epochs)"


def test_layers_that_no_signal_reaches_are_told(learner, train):
    """Oracle: one step of the states moves the highest node alone, so that errors reach two layers of four."""
    stuck = learner("pc", hidden=(8, 7, 6), fixed_steps=1)
    told = train(stuck, epochs=1, regime=True).result["warnings"]
    assert any(
        "the gradient of 'layer1', 'layer2' is 0, and nothing is learnt there: allow more steps (--fixed-steps)"
        in message
        for message in told
    )


def test_what_fixed_steps_leave_is_told_once():
    """Oracle: the rows. It was asked for: the first epoch says so, and its remedy is none that fixed steps ignore."""
    left = {"out_of_steps_fraction": 0.9, "residual": 0.3}
    history = [row_of(epoch, **left) for epoch in (1, 2, 3)]
    (alarm,) = find_alarms(history[0], Ending(fixed=20))
    assert re.search(r"90\.00 % .* 20 fixed steps were asked for, and leave a mean residual of 0\.3; ", alarm.message)
    assert "--max-relaxation-steps" not in alarm.message
    assert find_alarms(history[1], Ending(fixed=20)) == []
    assert gather_alarms(history, Ending(fixed=20)) == [alarm.message]


def test_nothing_is_said_of_what_is_right():
    """Oracle: rows with which nothing is wrong: of rules that relax nothing, and of those that take single steps."""
    nan = float("nan")
    assert find_alarms(row_of(1), Ending()) == []
    assert find_alarms(row_of(1, diverged_fraction=nan, out_of_steps_fraction=nan, train_cost=9.9), Ending()) == []
    assert find_alarms(row_of(1, out_of_steps_fraction=1.0), Ending(stepwise=True)) == []


def test_a_rule_that_draws_signs_is_measured_too(learner, train):
    """Oracle: the adjoint's gradient; the report's batch has a key, the same one in every report."""
    one = eqx.tree_at(lambda l: l.rule, learner("ep"), Contrastive(RandomSign(0.2)))
    first, second = (train(one, epochs=1, seed=seed, regime=True).history[0] for seed in (1, 1))
    assert first["gradient_cosine"] > 0.8
    assert first["gradient_cosine"] == second["gradient_cosine"]
