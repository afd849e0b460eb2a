"""Some hundred cases of the adversary, and the adversary itself: what does not end soundly must not pass for it."""

import os
import signal
import time
from pathlib import Path
from random import Random

import pytest

from energax.exceptions import DataError

from .case import FAILURES, Room, judge, run_case
from .command import name_seed
from .mutations import mutate
from .target import Target, load_targets

CASES = 8  # of each target; python -m tests.adversary runs more


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


@pytest.mark.parametrize("name", load_targets())
def test_hostile_files_end_soundly(name, room):
    """Oracle: each case ends in what its target holds for sound or in an EnergaxError, in time and in its folder."""
    target = load_targets()[name]
    outcomes = {number: run_case(target, name_seed(0, number), room) for number in range(CASES)}
    failed = {f"{name}/{number}": one for number, one in outcomes.items() if one.kind in FAILURES}
    assert not failed, "; ".join(f"{case}: {one.kind} {one.changes} {one.detail}" for case, one in failed.items())


@pytest.mark.parametrize("name", load_targets())
def test_sound_files_are_accepted(name, tmp_path, monkeypatch):
    """Oracle: what the target made; else every case above would be refused for nothing."""
    monkeypatch.setenv("ENERGAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "files").mkdir()
    target = load_targets()[name]
    target.make(tmp_path / "files")
    target.open(tmp_path / "files")


def raise_key_error(folder):
    raise KeyError("a")


def write_outside(folder):
    Path("left").write_text("here")


def change_outside(folder):
    (folder / "../../sentinel").write_text("something else of another length\n")


def fill_memory(folder):
    held = bytearray(b"x") * 60_000_000
    del held


def wait(folder):
    try:
        time.sleep(10)
    except Exception as error:
        raise DataError("nothing that catches errors catches the alarm") from error


def write_inside(folder):
    (folder / "cache").mkdir()


def refuse(folder):
    raise DataError("no")


BAD = {
    raise_key_error: "crashed",
    write_outside: "outside",
    change_outside: "outside",
    fill_memory: "memory",
    wait: "hung",
    write_inside: "accepted",
    refuse: "refused",
}


@pytest.mark.parametrize("open_files", BAD)
def test_failures_are_seen(open_files, room):
    """Oracle: what each function does."""
    target = Target(open_files.__name__, "readers", lambda folder: (folder / "x").touch(), open_files)
    here = os.getcwd()
    seconds = 0.3 if open_files is wait else 60.0  # the others must not be hurried: a busy machine may stand still
    assert run_case(target, "0/0", room, seconds, 50.0).kind == BAD[open_files]
    assert os.getcwd() == here


class Late(DataError):
    """An error while whose message is made the alarm goes off."""

    def __str__(self):
        signal.raise_signal(signal.SIGALRM)
        return "no"


def raise_late(folder):
    raise Late


def test_an_alarm_that_comes_late_ends_nobody(tmp_path):
    """Oracle: the case had ended, in time."""
    assert judge(Target("late", "readers", lambda folder: None, raise_late), tmp_path, 60.0) == ("refused", "no")


def test_a_case_is_its_seed(room):
    """Oracle: the same changes and the same end, twice; others of another number."""
    target = load_targets()["idx"]
    one, again, other = (run_case(target, name_seed(0, number), room) for number in (3, 3, 4))
    assert (one.changes, one.kind, one.detail) == (again.changes, again.kind, again.detail)
    assert one.changes != other.changes


def test_a_change_that_cannot_be_made_ends_nobody(tmp_path):
    """Oracle: its error, as of a file that an earlier change has left so that it cannot be read."""

    def fail(rng, folder):
        raise OSError("cannot be read")

    assert "nothing: cannot be read" in {
        change for seed in range(20) for change in mutate(Random(seed), tmp_path, (fail,))
    }
