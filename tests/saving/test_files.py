"""Files from elsewhere: old, new, damaged, tampered with, and no files at all. All that comes out is a RunError."""

import json
import os
import pickle
import random
import re
import tracemalloc
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energax as ex
from energax import opening
from energax.exceptions import RunError
from energax.saving import container as files
from energax.saving import registry
from tests.sealing import change_tree, put_together, take_apart

KEY = jax.random.key(0)


def make_model() -> ex.Predictor:
    """A little of what small models have: layers, functions, a prior, weak numbers."""
    graph = ex.networks.mlp([4, 3, 2], jnp.tanh, key=KEY)
    dynamics = ex.PredictiveCoding(ex.CrossEntropy(), priors={"input": ex.dynamics.GaussianPrior()})
    return ex.Predictor(graph, dynamics, ex.ConjugateGradient())


@pytest.fixture
def file(tmp_path):
    ex.save(tmp_path / "m", make_model())
    return tmp_path / "m"


def test_the_tools_of_this_file_change_nothing(file):
    """Oracle: the bytes that `save` wrote."""
    before = file.read_bytes()
    put_together(file, *take_apart(file))
    assert file.read_bytes() == before


def test_every_truncation_and_every_flipped_bit_is_found(file):
    """Oracle: exhaustion over the tensors' bytes and a sample of the header's: refused, or what was written."""
    content, expected = file.read_bytes(), jax.tree.leaves(make_model())
    places = random.Random(0).sample(range(len(content)), 300)
    for length in places:
        file.write_bytes(content[:length])
        with pytest.raises(RunError, match=r"m is not a model of energax"):
            ex.load(file)
    passed = 0
    for at in places:
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        try:
            found = jax.tree.leaves(ex.load(file))
        except RunError:
            continue
        passed += 1
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert passed < 3


def test_no_mutant_crashes(file):
    """Oracle: every mutant with a right checksum is refused by a RunError, or is a model that can be saved again."""
    content, tensors = take_apart(file)
    text, chance, refused = json.dumps(content), random.Random(1), 0
    for _ in range(200):
        mutant = json.loads(text)
        for _ in range(chance.choice((1, 1, 3))):
            change_tree(mutant, chance)
        put_together(file, mutant, tensors)
        try:
            found = ex.load(file)
        except RunError:
            refused += 1
        else:
            ex.save(file, found)
            assert ex.summary(ex.load(file)) == ex.summary(found)
    assert 100 < refused < 200


def change(content, *keys, value):
    for key in keys[:-1]:
        content = content[key]
    content[keys[-1]] = value


GRAPH = ("structure", "fields", "graph")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (
            ("structure", "fields", "solver", "fields", "stop", "fields", "max_steps"),
            0,
            r"Stopping: max_steps.*=0: give",
        ),
        (("structure", "fields", "solver", "fields", "stop", "fields", "max_steps"), "1", r"max_steps='1' is not what"),
        ((*GRAPH, "fields", "input"), "nowhere", r"the input 'nowhere' is not a node"),
        ((*GRAPH, "fields", "length"), -3, r"position -1 of the axis 'time', which has -3"),
        ((*GRAPH, "fields", "more"), 3, r"energax\.graph\.Graph has no field more here"),
        ((*GRAPH, "fields"), {}, r"energax\.graph\.Graph needs its field nodes, edges, functions, input, output,"),
        (GRAPH, {"class": "energax.layers.Flatten", "fields": {}}, r"Predictor: graph=.*is not what|give a Graph"),
        (("structure",), {"class": "energax.layers.Flatten", "fields": {}}, r"holds a Flatten, and no Predictor"),
        (("structure",), {"class": "os.system", "fields": {}}, r"it is made of os\.system, which is not known here"),
        (("structure",), {"known": "builtins.eval"}, r"it is made of builtins\.eval, which is not known here"),
        (("structure",), {"class": "energax.graph.graph.lru_cache", "fields": {}}, r"lru_cache, which is not known"),
        (("structure",), {"class": "energax.solvers.AbstractSolver", "fields": {}}, r"abstract"),
        (("structure",), {"dict": [[[], 1]]}, r"unhashable"),
        (("structure",), {"array": "nowhere"}, r"it has no tensor 'nowhere'"),
        (("structure",), {"dtype": "object"}, r"unknown dtype 'object'"),
        (
            ("arrays",),
            {"graph.functions['layer1'].weight": {"dtype": "complex64"}},
            r"is no array of dtype 'complex64'",
        ),
        (
            ("arrays",),
            {"graph.functions['layer1'].weight": {"key": "pickle"}},
            r"PRNG keys of the unknown kind 'pickle'",
        ),
        (("arrays",), 3, r"lacks a version or a table of arrays"),
        (("version",), 99, r"has version 99 of the format, and this energax reads up to 1: update energax"),
        (("version",), -1, r"has version -1 of the format, which is not known"),
    ],
)
def test_what_was_tampered_with_is_named(keys, value, message, file):
    """Oracle: the message."""
    content, tensors = take_apart(file)
    if keys == ("arrays",) and isinstance(value, dict):
        first = next(name for name in tensors if tensors[name].ndim)
        value = {first: next(iter(value.values()))}
    change(content, *keys, value=value)
    put_together(file, content, tensors)
    with pytest.raises(RunError, match=message):
        ex.load(file)


def test_a_field_that_a_file_lacks_takes_its_default(file):
    """Oracle: the class's defaults, converted as its constructor does: files from before a field was added are read."""
    content, tensors = take_apart(file)
    stop = content["structure"]["fields"]["solver"]["fields"]["stop"]["fields"]
    del stop["tol"], stop["stall"]
    stop["max_steps"] = 77
    put_together(file, content, tensors)
    assert eqx.tree_equal(ex.load(file).solver.stop, ex.Stopping(max_steps=77, check_every=1))


def test_older_versions_are_read_through_the_table(file, monkeypatch):
    """Oracle: the model that was saved, after the format has gone on twice: a key renamed, then a class."""

    def rename_key(content):
        return {**content, "content": content["structure"]}

    def rename_class(content):
        text = json.dumps(content["content"]).replace("energax.graph.Graph", "energax.graph.Net")
        return {**content, "structure": json.loads(text.replace("energax.graph.Net", "energax.graph.Graph"))}

    monkeypatch.setattr(files, "VERSION", 3)
    with pytest.raises(RunError, match=r"m has version 1 of the format, which is not known"):
        ex.load(file)
    called = []
    for old, migration in {1: rename_key, 2: rename_class}.items():
        monkeypatch.setitem(files.MIGRATIONS, old, lambda content, m=migration: called.append(m) or m(content))
    assert eqx.tree_equal(ex.load(file), make_model())
    assert called == [rename_key, rename_class]


def header(text: str, rest: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text.encode() + rest


HUGE = '{"__metadata__":{"energax":"x"},"a":{"dtype":"F32","shape":[SHAPE],"data_offsets":[0,END]}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        b"\xff" * 8,
        header("{}"),
        header("[]"),
        header('{"__metadata__":{}}'),
        header('{"__metadata__":{"energax":"x"}}'),
        header('{"__metadata__":{"energax":"x"}}', b"more"),
        header("[" * 100_000),
        header('"' + '\\"' * 100_000),
        header('{"a":' * 50_000 + "}" * 50_000),
        header('{"__metadata__":{"energax":"x","energax":"y"}}'),
        header(HUGE.replace("SHAPE", "1000000000000").replace("END", "4000000000000")),
        header(HUGE.replace("SHAPE", "4611686018427387904,4").replace("END", "0")),
        header(HUGE.replace("SHAPE", "-1").replace("END", "4"), b"1234"),
        header(HUGE.replace("SHAPE", "9" * 5000).replace("END", "4"), b"1234"),
        header("[" + "{}," * 20_000 + "{}]"),
        b"\x00" * 4096,
        pickle.dumps({"a": 1}),
    ],
)
def test_what_is_no_model_is_refused_with_little_memory(content, tmp_path, monkeypatch):
    """Oracle: the message, and tracemalloc: a small multiple of the file, whatever sizes it claims."""
    (tmp_path / "m").write_bytes(content)
    monkeypatch.setattr(opening, "ITEMS", 20_000)
    tracemalloc.start()
    try:
        with pytest.raises(RunError, match=r"m is not a model of energax: .*; restore it from a copy"):
            ex.load(tmp_path / "m")
        assert tracemalloc.get_traced_memory()[1] < 8 * len(content) + 1_000_000
    finally:
        tracemalloc.stop()


def test_a_tensor_named_often_takes_its_memory_once(file):
    """Oracle: identity: a thousand mentions in a list are one array."""
    content, tensors = take_apart(file)
    tensors = {**tensors, "large": np.zeros(1000)}
    weights = {"list": {"array": "large"}}
    graph = {
        "class": "energax.graph.Nodes",
        "fields": {
            "nodes": {"tuple": [{"class": "energax.graph.Node", "fields": {"name": "input", "shape": {"tuple": [2]}}}]},
            "functions": [weights["list"]] * 1000,
            "input": "input",
            "output": "input",
        },
    }
    change(content, *GRAPH, value=graph)
    put_together(file, content, tensors)
    assert len({id(one) for one in ex.load(file).graph.functions}) == 1


def hollow(shape: tuple[int, ...]) -> dict:
    """A graph of one node without parameters."""
    node = {"class": "energax.graph.Node", "fields": {"name": "input", "shape": {"tuple": list(shape)}}}
    fields = {"nodes": {"tuple": [node]}, "functions": {"dict": []}, "input": "input", "output": "input"}
    return {"class": "energax.graph.Nodes", "fields": fields}


def test_states_that_a_file_claims_and_does_not_pay_for_are_refused(file):
    """Oracle: the message, and the ceiling: 2^25 numbers are read, one more is not, and none takes memory."""
    content, tensors = take_apart(file)
    change(content, *GRAPH, value=hollow((2**25,)))
    put_together(file, content, tensors)
    assert ex.load(file).graph.node("input").shape == (2**25,)
    for shape in ((2**25 + 1,), (10**9,), (10**6, 10**6), (10**30,)):
        change(content, *GRAPH, value=hollow(shape))
        put_together(file, content, tensors)
        with pytest.raises(
            RunError, match=r"node 'input' has shape .*, and in a file with \d+ parameters a state has at"
        ):
            ex.load(file)
    ex.save(file, make_model())
    content, tensors = take_apart(file)
    change(content, *GRAPH, "fields", "length", value=10**9)
    put_together(file, content, tensors)
    with pytest.raises(RunError, match=r"node 'input' has shape \(1000000000, 4\), and in a file"):
        ex.load(file)


def test_a_file_longer_than_its_header_says_is_not_read(file):
    """Oracle: the message, and tracemalloc: a hole of 10 GB behind the tensors takes no memory."""
    size = file.stat().st_size
    os.truncate(file, 10**10)
    tracemalloc.start()
    try:
        with pytest.raises(
            RunError,
            match=r"10000000000 bytes, and (its header tells of another|such a file has at)",
        ):
            ex.load(file)
        assert tracemalloc.get_traced_memory()[1] < 20 * size
    finally:
        tracemalloc.stop()


def test_what_is_no_regular_file_is_not_opened(tmp_path, file):
    """Oracle: the message; opening the pipe would wait for a writer without end, the device would never end."""
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path / "pipe", "pipe"), ("/dev/zero", "device")):
        with pytest.raises(
            RunError, match=rf"{path}: cannot be read \(it is a {what}, and no regular file\)\. Restore"
        ):
            ex.load(path)
    with pytest.raises(RunError, match=r"no model at .*nowhere: give a file that energax\.save wrote"):
        ex.load(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"no model at .*best\.ckpt: is this a run folder"):
        ex.load(tmp_path)
    for path in ("x" * 5000, "a\0b"):
        with pytest.raises(RunError, match=r"cannot be read"):
            ex.load(path)
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(RunError, match=r"link: cannot be read .*Too many levels"):
        ex.load(tmp_path / "link")


def test_a_file_that_cannot_be_written_leaves_the_old_one(file):
    """Oracle: the bytes that were there; no other file is left."""
    before = file.read_bytes()
    with pytest.raises(RunError, match=r"could not write .*below: Not a directory\. There is no such folder: make it"):
        ex.save(file / "below", make_model())
    with pytest.raises(RunError, match=r"could not write .*: File name too long"):
        ex.save(file.parent / ("x" * 250), make_model())
    assert [path.read_bytes() for path in file.parent.iterdir()] == [before]


def test_no_pickle_is_anywhere(file):
    """Oracle: the sources of the room, and a file's bytes."""
    sources = [path.read_text() for path in Path(registry.__file__).parent.glob("*.py")]
    assert len(sources) > 5
    for source in sources:
        assert not re.search(r"import pickle|allow_pickle|import_module|__import__|\beval\(|\bexec\(", source)
    assert b"pickle" not in file.read_bytes()
