"""Run folders: locks, deaths at every operation, and checkpoints that do not belong together."""

import builtins
import contextlib
import json
import multiprocessing
import os
import random
import re
from pathlib import Path

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import energax as ex
from energax import files
from energax.exceptions import RunError
from energax.metrics import ACCURACY, COST
from energax.training import Arrays, RunFolder, pages
from energax.training.callbacks import Callback
from tests.killing.command import read_run
from tests.sealing import put_together, take_apart


def learner() -> ex.Learner:
    """A network of 23 parameters. Its learning rate changes sign, so that epochs after the second are worse."""
    graph = ex.networks.mlp([4, 3, 2], jnp.tanh, key=jax.random.key(0))
    optimiser = optax.adam(lambda count: jnp.where(count < 8, 0.02, -0.02))
    return ex.Learner(graph, ex.PredictiveCoding(ex.CrossEntropy()), ex.ConjugateGradient(), ex.Backprop(), optimiser)


ONE = learner()


def train(folder, *, epochs: int = 4, resume: bool = False, validation: bool = True, **options):
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(n, 4)) for n in (20, 30)]
    x, v = ((r, np.eye(2)[(r.sum(1) > 0).astype(int)]) for r in rows)
    if validation:
        options |= {"validation": v, "test": v}
    settings = {"epochs": epochs, "regime": False, "metrics": (COST, ACCURACY), "display": Callback(), **options}
    return ex.train(ONE, Arrays(*x, batch=5), folder=folder, resume=resume, **settings)


@pytest.fixture(autouse=True)
def plain_curve(monkeypatch):
    """Drawing takes longer than training, and the picture is not what is tested here."""
    monkeypatch.setattr(pages, "draw_curve", lambda path, *_: files.write_atomically(path, b"a picture"))


class Killed(BaseException):
    """The process is dead: nothing that it would do afterwards is done."""


class Mortal:
    """Counts operations on files, and lets none happen from a certain one on, as a process that is killed."""

    def __init__(self, patch: pytest.MonkeyPatch, at: float):
        self.at, self.done = at, 0
        for name in ("replace", "fsync"):
            patch.setattr(os, name, self.count(getattr(os, name)))
        for name in ("unlink", "mkdir"):
            patch.setattr(Path, name, self.count(getattr(Path, name)))
        patch.setattr(files, "open", self.open, raising=False)

    def count(self, operation):
        def run(*arguments, **options):
            self.step()
            return operation(*arguments, **options)

        return run

    def step(self):
        if self.done >= self.at:
            raise Killed
        self.done += 1

    @contextlib.contextmanager
    def open(self, path, mode):
        self.step()
        with builtins.open(path, mode) as file:
            yield Torn(file, self)


class Torn:
    """A file of which a process that dies while it writes leaves a half."""

    def __init__(self, file, mortal: Mortal):
        self.file, self.mortal = file, mortal
        self.flush, self.fileno = file.flush, file.fileno

    def write(self, content):
        try:
            self.mortal.step()
        except Killed:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            raise
        self.file.write(content)


def live(folder: Path, at: float) -> int | None:
    """Start or go on until the end, and return None, or until death at an operation; return how many were done."""
    with pytest.MonkeyPatch.context() as patch:
        mortal = Mortal(patch, at)
        try:
            train(folder, resume=RunFolder(folder).last.exists())
        except Killed:
            return None
        return mortal.done


@pytest.mark.parametrize("first", range(4))
def test_a_death_at_any_operation_costs_nothing(first, tmp_path):
    """Oracle: the run that lived: checkpoints, history, log and result, bit for bit, after one death or two."""
    operations = live(tmp_path / "whole", float("inf"))
    assert operations > 50
    whole = read_run(tmp_path / "whole")
    chosen = json.loads((tmp_path / "whole" / "result.json").read_text())["selected_epoch"]
    assert chosen == 2, "the best epoch must be neither the first nor the last one"
    rng = random.Random(0)
    for at in range(first, operations, 4):
        folder = tmp_path / str(at)
        assert live(folder, at) is None
        if at % 3 == 0:
            live(folder, rng.randrange(30))
        live(folder, float("inf"))
        found = read_run(folder)
        assert found.keys() == whole.keys()
        assert [part for part in whole if found[part] != whole[part]] == [], f"death at operation {at}"


def hold_and_wait(folder: Path, began, end) -> None:
    """Train in a folder until told otherwise."""

    class Waiter(Callback):
        def epoch(self, row, learner):
            began.set()
            end.wait(60)

    train(folder, display=Waiter())


def test_two_processes_do_not_train_in_one_folder(tmp_path, monkeypatch):
    """Oracle: the message, while the first one trains; the second goes on as soon as the first is killed."""
    monkeypatch.setenv("JAX_ENABLE_X64", "1")  # as here
    context = multiprocessing.get_context("spawn")
    began, end = context.Event(), context.Event()
    first = context.Process(target=hold_and_wait, args=(tmp_path / "run", began, end))
    first.start()
    try:
        assert began.wait(100)
        for resume in (False, True):
            with pytest.raises(RunError, match=r"another process is training in .*run: wait until it has ended, or"):
                train(tmp_path / "run", resume=resume)
        assert ex.load(tmp_path / "run").graph.nodes == ONE.graph.nodes  # whoever reads needs no lock
    finally:
        first.kill()
        first.join()
    run = train(tmp_path / "run", resume=True)
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4]


def test_the_lock_is_given_back_after_an_error_and_a_folder_that_takes_none_is_refused(tmp_path, monkeypatch):
    """Oracle: a lock taken by hand afterwards, and the message."""

    class Failing(Callback):
        def epoch(self, row, learner):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(tmp_path / "run", display=Failing())
    with filelock.FileLock(tmp_path / "run" / ".lock").acquire(blocking=False):
        pass

    def refuse(self, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(tmp_path / "run" / ".lock"))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(RunError, match=r"cannot write into .*run: .*Permission denied.*; choose another folder"):
        train(tmp_path / "run", resume=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs, of which the second is the best one."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "draw_curve", lambda *_: None)
        run = train(folder, epochs=2, config={"settings": {"learning_rate": 0.1}})
    assert run.result["selected_epoch"] == 2
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of it."""
    target = tmp_path / "run"
    target.mkdir()
    for path in finished.iterdir():
        if path.is_file() and path.name != ".lock":
            (target / path.name).write_bytes(path.read_bytes())
    return target


def resume(folder, **options):
    return train(folder, epochs=3, resume=True, config={"settings": {"learning_rate": 0.1}}, **options)


def change(path: Path, change_content=None, change_tensors=None) -> None:
    content, tensors = take_apart(path)
    facts = json.loads(content["facts"])
    if change_content is not None:
        change_content(facts)
    if change_tensors is not None:
        change_tensors(tensors)
    put_together(path, {**content, "facts": json.dumps(facts)}, tensors)


def test_a_checkpoint_of_another_run_is_refused(folder, tmp_path):
    """Oracle: the message. The settings are the same, the run is not."""
    train(tmp_path / "other", epochs=2, config={"settings": {"learning_rate": 0.1}})
    (folder / "last.ckpt").write_bytes((tmp_path / "other" / "last.ckpt").read_bytes())
    with pytest.raises(RunError, match=r"last\.ckpt is of another run than .*config\.json: restore both from one copy"):
        resume(folder)


def test_an_edited_learning_rate_is_refused_by_name(folder):
    """Oracle: the message has both values and the remedy; put back, the run goes on."""
    kept = (folder / "config.json").read_text()
    edited = re.sub(r'"learning_rate": 0\.1', '"learning_rate": 0.2', kept)
    assert edited != kept
    (folder / "config.json").write_text(edited)
    with pytest.raises(RunError, match=r"made with learning_rate=0\.1, and .*config\.json has learning_rate=0\.2: put"):
        resume(folder)
    with pytest.raises(RunError, match=r"learning_rate=0\.1, and .* learning_rate=0\.2: put the setting back"):
        RunFolder(folder).require_settings()
    (folder / "config.json").write_text(kept)
    assert len(resume(folder).history) == 3


@pytest.mark.parametrize(
    "name", [".model.graph.functions['layer1'].weight", ".optimiser[0].mu.graph.functions['layer2'].bias"]
)
def test_a_checkpoint_with_nan_is_refused_by_the_name_of_the_array(name, folder):
    """Oracle: the message, with a right checksum; of the parameters and of the optimiser."""

    def spoil(tensors):
        tensors[name] = np.full_like(tensors[name], np.nan)

    change(folder / "last.ckpt", change_tensors=spoil)
    with pytest.raises(RunError, match=rf"last\.ckpt holds values that are not finite in {re.escape(name)}: .*lower"):
        resume(folder)


def test_best_and_last_of_different_epochs_are_refused(folder):
    """Oracle: the message. A best checkpoint from before is no longer what the last one calls the best."""

    def turn_back(facts):
        facts |= {"epoch": 1, "best": 1, "history": facts["history"][:1]}

    change(folder / "best.ckpt", turn_back)
    with pytest.raises(RunError, match=r"best\.ckpt is not of epoch 2, which last\.ckpt says was the best: restore"):
        resume(folder)
    (folder / "best.ckpt").unlink()
    with pytest.raises(RunError, match=r"best\.ckpt is not of epoch 2"):
        resume(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda facts: facts.pop("belongs"), "does not say which run it is of"),
        (lambda facts: facts.update(best=3), "is of 2 epochs, and says best=3"),
        (lambda facts: facts.update(epoch=True), "is of 2 epochs, and says epoch=True"),
        (lambda facts: facts.update(history=[]), "holds no log of a run"),
        (lambda facts: facts["history"].reverse(), "row 1 of its log is of epoch 2"),
        (lambda facts: facts["history"][1].update(seconds="1"), "row 2 of its log has seconds='1'"),
        (lambda facts: facts["history"][0].update(residual=10**400), "row 1 of its log has residual="),
        (lambda facts: facts["history"][0].update(warnings="none"), "row 1 of its log has warnings='none'"),
        (lambda facts: facts["history"][1].pop("validation_cost"), "row 2 of its log has no validation_cost, which"),
        (lambda facts: facts["history"][1].pop("diverged_fraction"), "row 2 of its log has no diverged_fraction"),
    ],
)
def test_facts_that_no_run_writes_are_refused(edit, message, folder):
    """Oracle: the message, which names the file, the row and the value."""
    change(folder / "last.ckpt", edit)
    with pytest.raises(RunError, match=rf"last\.ckpt.*{message}"):
        resume(folder)


def test_a_run_without_validation_is_not_gone_on_with_validation(tmp_path):
    """Oracle: the message; its epochs cannot be compared with the new ones."""
    train(tmp_path / "run", epochs=1, validation=False)
    with pytest.raises(RunError, match=r"row 1 of its log has no validation_accuracy, validation_cost, which this"):
        train(tmp_path / "run", epochs=2, resume=True)
    assert len(train(tmp_path / "run", epochs=2, resume=True, validation=False).history) == 2


def test_a_resumption_tidies_up(folder):
    """Oracle: the log from before, part files of killed writers gone, and other people's files as they were."""
    log = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(log.splitlines(keepends=True)[0])
    for name in ("last.ckpt.123-4567.part", "film.part", "notes.txt"):
        (folder / name).write_text("here")
    resume(folder)
    assert (folder / "metrics.jsonl").read_text().startswith(log)
    assert sorted(path.name for path in folder.iterdir() if path.suffix in (".part", ".txt")) == [
        "film.part",
        "notes.txt",
    ]


def test_reading_changes_nothing(folder, same):
    """Oracle: bytes and names before and after, also where a killed process left the best checkpoint to be moved.

    What `energax.load` and `RunFolder.load` read of the best epoch is the same.
    """
    os.replace(folder / "best.ckpt", folder / "best.ckpt.next")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run = RunFolder(folder)
    best, last = run.load(ONE, best=True), run.load(ONE)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert same(best.graph, last.graph)
    resume(folder)
    assert not (folder / "best.ckpt.next").exists()
    assert same(ex.load(folder).graph, run.load(ONE, best=True).graph)


def test_batches_that_stand_nowhere_are_refused(tmp_path):
    """Oracle: the message names the checkpoint: the place of a stream in its checkpoint was tampered with."""
    rows = [(np.ones((5, 4)), np.eye(2)[[0, 1, 0, 1, 0]])] * 3
    options = {"regime": False, "display": Callback(), "folder": tmp_path / "run"}
    ex.train(ONE, ex.training.Stream(rows, per_epoch=2), epochs=1, **options)
    change(tmp_path / "run" / "last.ckpt", lambda facts: facts.update(source="nowhere"))
    with pytest.raises(RunError, match=r"last\.ckpt: says no place in them .*Give the batches of before"):
        ex.train(ONE, ex.training.Stream(rows, per_epoch=2), epochs=2, resume=True, **options)
