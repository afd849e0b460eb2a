"""Checkpoints and run folders: round trips, damage, foreign files, and disks that are full."""

import errno
import io
import json
import os
import pickle
import resource
import signal
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save as to_bytes

from energax.exceptions import RunError
from energax.files import write_atomically
from energax.saving.container import checksum
from energax.training import RunFolder
from energax.training.checkpoint import restore, save
from tests.sealing import put_together, take_apart

FACTS = {"history": [{"epoch": 1, "cost": 0.1 + 0.2, "residual": float("nan")}]}


def checksummed(payload: bytes) -> bytes:
    """A file with the right checksum whose one tensor is any payload."""
    tensors = {"['weight']": np.frombuffer(payload, np.uint8)}
    content = {"version": 1, "arrays": {}, "leaves": {"['weight']": "['weight']"}, "facts": "{}"}
    text = json.dumps(content)
    return to_bytes(tensors, {"energax": f'{{"sha256": "{checksum(text, tensors)}", {text[1:]}'})


@pytest.fixture
def tree():
    return {"weight": jnp.arange(6.0).reshape(2, 3) / 7, "count": jnp.asarray(3), "name": "not an array"}


@pytest.fixture
def file(tmp_path, tree) -> Path:
    save(tmp_path / "last.ckpt", tree, FACTS)
    return tmp_path / "last.ckpt"


def zeros(tree):
    return {"weight": jnp.zeros((2, 3)), "count": jnp.asarray(0), "name": tree["name"]}


def test_a_round_trip_keeps_every_bit_and_the_facts(file, tree, same):
    """Oracle: what was saved; the floats of the facts too, NaN among them."""
    found, facts = restore(file, zeros(tree))
    assert same(found, tree)
    assert found["weight"].dtype == tree["weight"].dtype
    assert repr(facts) == repr(FACTS)


def test_the_progress_of_a_learner_survives(learner, progress, same, tmp_path):
    """Oracle: what was saved. The graph, the momentum and the solver's arrays, into a fresh learner's progress."""
    saved = eqx.tree_at(lambda p: p.batches, progress(learner("ep")), jnp.asarray(17))
    saved = eqx.tree_at(lambda p: p.model.graph.functions["layer2"].bias, saved, replace_fn=lambda b: b + 1 / 3)
    save(tmp_path / "x.ckpt", saved, {})
    found, _ = restore(tmp_path / "x.ckpt", progress(learner("ep")))
    assert same(found, saved)
    assert int(found.batches) == 17


def test_every_truncation_and_every_flipped_bit_is_found(file, tree, same):
    """Oracle: exhaustion. Of the file cut at any byte, and with any byte changed, none passes as another state.

    A byte of the header may change without consequence (a blank): then what is read must be what was written.
    """
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(RunError, match=r"last\.ckpt.*restore it from a copy or start anew"):
            restore(file, tree)
    first = 8 + int.from_bytes(content[:8], "little")
    refused = 0
    for at in range(len(content)):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        try:
            found, facts = restore(file, tree)
        except RunError:
            refused += 1
        else:
            assert 8 <= at < first
            assert same(found, tree)
            assert repr(facts) == repr(FACTS)
    assert refused > len(content) - 20


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"hello\n", b"[]\n", b"3\n", b"{}\n", b'{"sha256": 5}\n', b"\xff\xfe\x00\n", b"null\nxx"]
)
def test_files_that_are_no_checkpoint_are_refused(content, file, tree):
    """Oracle: the message, which names the file and the remedy."""
    file.write_bytes(content)
    with pytest.raises(RunError, match=r"last\.ckpt is (not a checkpoint|damaged).*restore it from a copy"):
        restore(file, tree)


def test_a_missing_file_and_a_folder_in_its_place_are_refused(tmp_path, tree):
    """Oracle: the message, which names the path and what may be wrong."""
    with pytest.raises(RunError, match=r"no checkpoint at .*last\.ckpt: is this a run folder"):
        restore(tmp_path / "last.ckpt", tree)
    (tmp_path / "best.ckpt").mkdir()
    with pytest.raises(RunError, match=r"best\.ckpt: cannot be read \(it is a folder, .*Restore it"):
        restore(tmp_path / "best.ckpt", tree)


def test_another_networks_checkpoint_is_refused(learner, progress, tmp_path):
    """Oracle: the message. Other shapes, and other numbers of arrays."""
    save(tmp_path / "x.ckpt", progress(learner("backprop")), {})
    for other in (learner("backprop", hidden=(17,)), learner("backprop", hidden=(16, 16))):
        with pytest.raises(RunError, match=r"x\.ckpt does not fit this network: .*written with other settings"):
            restore(tmp_path / "x.ckpt", progress(other))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_values_that_are_no_numbers_are_refused_by_name(bad, tmp_path):
    """Oracle: the message. Infinities that a fresh optimiser begins with stay, as the best cost so far does."""
    tree = {"weight": jnp.ones(3), "best": jnp.asarray(jnp.inf)}
    save(tmp_path / "x.ckpt", tree, {})
    found, _ = restore(tmp_path / "x.ckpt", tree)
    assert jnp.isposinf(found["best"])
    save(tmp_path / "x.ckpt", {**tree, "weight": jnp.ones(3).at[1].set(bad)}, {})
    with pytest.raises(RunError, match=r"x\.ckpt holds values that are not finite in \['weight'\]: .*lower learning"):
        restore(tmp_path / "x.ckpt", tree)


def test_other_dtypes_and_other_arrays_are_refused(file, tree):
    """Oracle: the message names the array, and what stands in the file and here."""
    like = {**zeros(tree), "count": jnp.asarray(0.0)}
    with pytest.raises(
        RunError, match=r"\['count'\] has shape \(\) and dtype int64 in the file, and \(\) and float64 here"
    ):
        restore(file, like)
    with pytest.raises(RunError, match=r"does not fit this network: \['bias'\] are in one of them only"):
        restore(file, {**zeros(tree), "bias": jnp.zeros(2)})


def test_numbers_of_every_kind_survive(tmp_path, same):
    """Oracle: what was saved: Python's numbers, numpy's, PRNG keys, halves, complex ones."""
    tree = [True, 3, 1.5, 2j, np.float32(0.1), np.arange(3), jnp.ones(2, "bfloat16") / 3, jnp.ones(2) * 1j]
    save(tmp_path / "x", [*tree, jax.random.key(7)], {})
    found, _ = restore(tmp_path / "x", [*tree, jax.random.key(0)])
    assert [type(one) for one in found[:5]] == [type(one) for one in tree[:5]]
    assert found[:5] == tree[:5]
    assert same(found[5:8], tree[5:8])
    assert jnp.array_equal(jax.random.key_data(found[8]), jax.random.key_data(jax.random.key(7)))


class Bomb:
    """An object whose unpickling leaves a trace."""

    def __init__(self, at: Path):
        self.at = at

    def __reduce__(self):
        return (Path.touch, (self.at,))


def object_array(bomb: Bomb) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([bomb, bomb], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def zipped_arrays(bomb: Bomb) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, np.array([bomb], dtype=object))
    return buffer.getvalue()


@pytest.mark.parametrize("make", [pickle.dumps, object_array, zipped_arrays])
def test_no_pickle_is_ever_loaded(make, file, tree, tmp_path):
    """Oracle: the trace that the payload leaves when executed, checksum or no checksum."""
    bomb = tmp_path / "executed"
    for content in (make(Bomb(bomb)), checksummed(make(Bomb(bomb)))):
        file.write_bytes(content)
        with pytest.raises(RunError, match=r"last\.ckpt"):
            restore(file, tree)
        assert not bomb.exists()
    pickle.loads(pickle.dumps(Bomb(bomb)))
    assert bomb.exists()


def test_names_of_any_length_are_told_in_short(file, tree):
    """Oracle: the length of the message; whoever made the file chose the names in it."""
    content, tensors = take_apart(file)
    content["leaves"]["n" * 70_000] = content["leaves"].pop("['weight']")
    put_together(file, content, tensors)
    with pytest.raises(RunError, match=r"does not fit this network: \['weight'\], n+ \.\.\. are in one") as refused:
        restore(file, zeros(tree))
    assert len(str(refused.value)) < 1_000


@pytest.fixture
def full_disk():
    """Files end at 1000 bytes from now on: the kernel's own refusal, in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


def test_a_write_that_is_cut_short_leaves_the_old_file(file, tree, full_disk):
    """Oracle: the bytes that were there before; no other file is left."""
    kept = file.read_bytes()
    with pytest.raises(RunError, match=r"could not write .*last\.ckpt: File too large.*untouched; free some space"):
        write_atomically(file, b"x" * 2000)
    assert file.read_bytes() == kept
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def no_space(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_during_a_run_costs_one_epoch_and_no_more(learner, train, same, tmp_path, monkeypatch):
    """Oracle: the run on a disk with space. The checkpoints before are intact, and resumption goes on from them."""
    folder = RunFolder(tmp_path / "run")
    train(learner("backprop"), epochs=1, folder=folder)
    kept = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.suffix == ".ckpt"}
    written = []

    def full_from_the_second_file_on(file):
        written.append(file)
        if len(written) > 1:
            no_space()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_from_the_second_file_on)
        with pytest.raises(RunError, match=r"could not write .*: No space left on device.*free some space"):
            train(learner("backprop"), epochs=3, folder=folder, resume=True)
    assert {name: (folder.path / name).read_bytes() for name in kept} == kept
    assert not list(folder.path.glob("*.part"))
    resumed = train(learner("backprop"), epochs=3, folder=folder, resume=True)
    assert same(resumed.learner, train(learner("backprop"), epochs=3).learner)


@pytest.mark.parametrize("survivor", ["none", "best"])
def test_a_disk_that_fills_up_between_two_files(survivor, learner, train, same, tmp_path, monkeypatch):
    """Oracle: the run on a disk with space, when only best.ckpt of an epoch was written, or nothing of it."""
    folder = RunFolder(tmp_path / "run")
    train(learner("backprop"), epochs=1, folder=folder)
    replace, refused = os.replace, []

    def full_for_checkpoints(source, target):
        name = Path(target).name
        if name == "last.ckpt" or (survivor == "none" and name == "best.ckpt"):
            refused.append(name)
            no_space()
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_for_checkpoints)
        with pytest.raises(RunError, match="No space left"):
            train(learner("backprop"), epochs=3, folder=folder, resume=True)
    assert refused
    resumed = train(learner("backprop"), epochs=3, folder=folder, resume=True)
    expected = train(learner("backprop"), epochs=3)
    assert same(resumed.learner, expected.learner)
    assert resumed.result["selected_test_accuracy"] == expected.result["selected_test_accuracy"]


def test_folders_that_cannot_be_made_are_refused_before_training(learner, train, tmp_path):
    """Oracle: the message names the path and the remedy; root may write anywhere but below a file."""
    (tmp_path / "file").write_text("here")
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere/run")):
        with pytest.raises(RunError, match=rf"cannot make the run folder {path}: .*; choose another \(--out\)"):
            train(learner("backprop"), epochs=1, folder=RunFolder(path))
    with pytest.raises(RunError, match=r"could not write .*below: Not a directory"):
        write_atomically(tmp_path / "file" / "below", b"x")
    assert (tmp_path / "file").read_text() == "here"


@pytest.mark.parametrize("content", ["{", "", "[1]", "3", "\x00"])
def test_a_damaged_config_is_refused(content, tmp_path):
    """Oracle: the message names the file and the remedy."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json: .*\. Restore it from a copy or start the run anew"):
        RunFolder(tmp_path).config()


def test_a_folder_without_a_run_is_refused(tmp_path):
    """Oracle: the message names the folder and the file that is missing."""
    with pytest.raises(RunError, match=r"no run at .*: config\.json is missing"):
        RunFolder(tmp_path).config()


def test_numbers_that_json_lacks_become_null(tmp_path):
    """Oracle: a strict JSON parser, which refuses NaN and Infinity."""
    folder = RunFolder(tmp_path)
    folder.write_json("x.json", {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (2, float("-inf"))}})

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert found == {"a": None, "b": [1.5, None], "c": {"d": [2, None]}}


def test_metrics_are_plain_json_lines(learner, train, tmp_path):
    """Oracle: a strict JSON parser and the history in memory; backprop relaxes nothing, so its residual is null."""
    folder = RunFolder(tmp_path / "run")
    run = train(learner("backprop"), epochs=2, folder=folder, regime=True)
    rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    for row, expected in zip(rows, run.history, strict=True):
        assert row.keys() == expected.keys()
        assert row["residual"] is None
        assert row["train_cost"] == expected["train_cost"]
        assert row["layer_cosine"] == expected["layer_cosine"]
