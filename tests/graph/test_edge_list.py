"""Edge lists: what is read, drawn and refused, and the nets made of them."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from energax import LeakyDirected, LeakyFlow, networks
from energax.certificates import certify
from energax.dynamics import AbsoluteOutflow, prepare_phase
from energax.exceptions import DataError, SettingError
from energax.graph import EdgeList, draw_edges, read_edges

ROWS = [("a", "b", 1.5, "gap"), ("b", "c", -2.0, "chemical"), ("c", "a", 0.5, "chemical"), ("a", "c", 3.0, "gap")]
HEADING = ("from", "to", "weight", "kind")


def write(folder, suffix):
    file = folder / f"edges{suffix}"
    if suffix in (".csv", ".tsv"):
        between = "," if suffix == ".csv" else "\t"
        file.write_text("\n".join(between.join(map(str, row)) for row in (HEADING, *ROWS)) + "\n\n")
        return file
    table = pa.table({name: [row[at] for row in ROWS] for at, name in enumerate(HEADING)})
    (pa.parquet.write_table if suffix == ".parquet" else pa.feather.write_feather)(table, file)
    return file


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".feather", ".arrow", ".parquet"])
def test_every_kind_of_file_is_read(suffix, tmp_path):
    """Oracle: the rows written."""
    edges = read_edges(write(tmp_path, suffix), source="from", target="to", columns=("weight", "kind"))
    assert edges.names.tolist() == ["a", "b", "c"]
    assert edges.sources.tolist() == [0, 1, 2, 0]
    assert edges.targets.tolist() == [1, 2, 0, 2]
    np.testing.assert_array_equal(edges.columns["weight"], [row[2] for row in ROWS])
    assert edges.columns["kind"].tolist() == [row[3] for row in ROWS]
    gaps = edges.select(edges.columns["kind"] == "gap")
    assert (len(gaps), gaps.targets.tolist(), gaps.names.tolist()) == (2, [1, 2], ["a", "b", "c"])


def test_units_may_be_given_in_their_order(tmp_path):
    """Oracle: the order given; a unit without a synapse is one all the same."""
    file = write(tmp_path, ".csv")
    edges = read_edges(file, source="from", target="to", units=["d", "c", "b", "a"])
    assert edges.sources.tolist() == [3, 2, 1, 3]
    assert edges.find(["a", "d"]).tolist() == [3, 0]
    with pytest.raises(DataError, match="unit 'c' is not among the 2"):
        read_edges(file, source="from", target="to", units=["a", "b"])


def test_a_synapse_without_an_end_is_refused(tmp_path):
    """Oracle: the message; None must not become a unit of that name. Blanks after a comma are no part of a name."""
    pa.feather.write_feather(pa.table({"source": ["a", None], "target": ["b", "a"]}), tmp_path / "a.feather")
    with pytest.raises(DataError, match="names no 'source'"):
        read_edges(tmp_path / "a.feather")
    (tmp_path / "a.csv").write_text("source, target\na, b\nb, a\n")
    assert read_edges(tmp_path / "a.csv").names.tolist() == ["a", "b"]


def test_numbers_are_names_in_every_kind_of_file(tmp_path):
    """Oracle: the identifiers as text, as in tables of a fly's neurons."""
    large = 720575940628908548
    pa.feather.write_feather(pa.table({"source": [large, 1], "target": [1, large]}), tmp_path / "ids.feather")
    (tmp_path / "ids.csv").write_text(f"source,target\n{large},1\n1,{large}\n")
    for suffix in (".csv", ".feather"):
        assert read_edges(tmp_path / f"ids{suffix}").names.tolist() == [str(large), "1"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "source,goal\n1,2\n", "no column 'target'; it has 'source', 'goal'"),
        ("a.csv", "source,target\n1,2\n3\n", "line 3: 1 columns of 2"),
        ("a.csv", "source,target\n", "no rows"),
        ("a.csv", "source,target\n1,2\n,2\n", "names no 'source'"),
        ("a.csv", "", "no column"),
        ("a.xls", "x", "edge lists end in"),
        ("a.feather", "no table", "cannot be read"),
        ("a.parquet", "no table", "cannot be read"),
    ],
)
def test_bad_files_are_refused(name, text, message, tmp_path):
    """Oracle: the messages; each names the file."""
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_edges(tmp_path / name)
    assert name in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_edges(tmp_path / "missing.csv")


def test_only_regular_files_are_read(tmp_path):
    """Oracle: the message; to open a pipe would wait for ever."""
    for suffix in (".csv", ".parquet", ".feather"):
        os.mkfifo(tmp_path / f"a{suffix}")
        with pytest.raises(DataError, match="it is a pipe, and no regular file"):
            read_edges(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,target\n" + "a" * 300 + ",b\n", "has 300 characters, and 250 are allowed"),
        ("source,target\n" + "a," * 60_000 + "\n", "a line of more than 100000 characters"),
        ("source,target\na\0,b\n", "a text with a zero byte"),
        ("source,target\na,\ud83d\n", "cannot be read"),
    ],
)
def test_texts_are_of_usual_lengths(text, message, tmp_path):
    """Oracle: the messages. An array gives to every text the place of the longest, and drops zero bytes at the end."""
    (tmp_path / "a.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=message):
        read_edges(tmp_path / "a.csv")


def test_one_long_text_does_not_cost_the_place_of_millions(tmp_path):
    """Oracle: the message, and 400 MB that are not asked for."""
    (tmp_path / "a.csv").write_text("source,target,kind\n" + "a,b,x\n" * 400_000 + f"a,b,{'x' * 250}\n")
    with pytest.raises(DataError, match="one text of 250 characters among 400001"):
        read_edges(tmp_path / "a.csv", columns=("kind",))


BROKEN_TEXT = pa.StringArray.from_buffers(2, pa.py_buffer(np.arange(3, dtype=np.int32)), pa.py_buffer(b"\xff\xfe"))
OUTSIDE = pa.DictionaryArray.from_arrays(pa.array([0, 10**6], pa.int32()), pa.array(["a", "b"]), safe=False)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (BROKEN_TEXT, "cannot be read as an edge list"),
        (OUTSIDE, "cannot be read as an edge list"),
        (pa.array([[1], [2]]), "column 'source' holds list"),
        (pa.array([2**62, 1], pa.timestamp("s")), "column 'source' holds timestamp"),
    ],
)
def test_broken_tables_are_refused(column, message, tmp_path):
    """Oracle: the messages; pyarrow does not look at texts and indices unless it is asked to."""
    pa.feather.write_feather(pa.table({"source": column, "target": ["a", "b"]}), tmp_path / "a.feather", "uncompressed")
    with pytest.raises(DataError, match=message):
        read_edges(tmp_path / "a.feather")


def test_numbers_that_are_missing_are_nan(tmp_path):
    """Oracle: the numbers written, whether whole or not; what repeats is a name as any other."""
    table = {"source": pa.array(["a", "b"]).dictionary_encode(), "target": [1, 2], "n": [1, None], "x": [None, 0.5]}
    pa.feather.write_feather(pa.table(table), tmp_path / "a.feather")
    edges = read_edges(tmp_path / "a.feather", columns=("n", "x"))
    assert edges.names.tolist() == ["a", "b", "1", "2"]
    np.testing.assert_array_equal(edges.columns["n"], [1.0, np.nan])
    np.testing.assert_array_equal(edges.columns["x"], [np.nan, 0.5])


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_what_tables_unpack_to_is_limited(suffix, tmp_path):
    """Oracle: the ceiling; twenty million rows of one synapse in less than 100 KB."""
    zeros = pa.array(np.zeros(20_000_000, np.int8))
    table = pa.table(dict.fromkeys(("source", "target", "n"), zeros))
    if suffix == ".parquet":
        pa.parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    else:
        pa.feather.write_feather(table, tmp_path / "a.feather", "zstd")
    with pytest.raises(DataError, match=f"a{suffix}: unpacks to .*268435456 are allowed"):
        read_edges(tmp_path / f"a{suffix}", columns=("n", "n"))


def test_circuits_are_drawn_with_their_probabilities():
    """Oracle: binomial counts within five deviations, no unit joined to itself, no pair twice."""
    sizes, table = {"E": 300, "I": 80}, np.asarray([[0.1, 0.3], [0.0, 1.0]])
    edges = draw_edges(sizes, table, seed=3)
    assert len(np.unique(edges.sources.astype(np.int64) * 380 + edges.targets)) == len(edges)
    assert np.all(edges.sources != edges.targets)
    assert (edges.names[0], edges.names[299], edges.names[300], len(edges.names)) == ("E/0", "E/299", "I/0", 380)
    counts = np.zeros((2, 2))
    np.add.at(counts, ((edges.targets >= 300).astype(int), (edges.sources >= 300).astype(int)), 1)
    for target in range(2):
        for source in range(2):
            pairs = [300, 80][target] * ([300, 80][source] - (target == source))
            p = table[target, source]
            assert abs(counts[target, source] - p * pairs) <= 5 * (pairs * p * (1 - p)) ** 0.5
    again = draw_edges(sizes, table, seed=3)
    np.testing.assert_array_equal(again.sources, edges.sources)
    with pytest.raises(DataError, match="for 2 populations"):
        draw_edges(sizes, np.asarray([[0.5]]), seed=0)
    with pytest.raises(DataError, match="from -1 to 0"):
        draw_edges(sizes, np.asarray([[0.5, 0.5], [0.5, -1.0]]), seed=0)


def circuit(**options):
    edges = EdgeList(np.asarray(["a", "b", "c", "d"]), np.asarray([0, 1, 2, 3]), np.asarray([1, 2, 3, 0]))
    chosen = {"reading": ["a", "b"], "shown": [2, 3], "weights": np.asarray([1.0, -2.0, 0.5, 0.25])} | options
    return networks.from_edges(edges, (2, 2), 3, key=jax.random.key(0), **chosen)


def test_a_circuit_is_what_its_list_says():
    """Oracle: the force of a flow without outflow or leak, from dense matrices in numpy."""
    graph = circuit()
    x, units, output = (np.random.default_rng(0).normal(size=shape) for shape in ((5, 2, 2), (5, 4), (5, 3)))
    dense = {}
    for name, inner in (("entering", -1), ("synapses", None), ("leaving", None), ("returning", None)):
        layer = graph.functions[name] if inner is None else graph.functions[name].layers[inner]
        dense[name] = np.zeros((layer.in_features, layer.out_features))
        np.add.at(dense[name], (np.asarray(layer.sources), np.asarray(layer.targets)), np.asarray(layer.weight))
    assert np.all(dense["entering"][:, 2:] == 0)
    assert np.all(dense["leaving"][:2] == 0)
    assert np.all(dense["returning"][:, :2] == 0)
    assert [dense["synapses"][i, (i + 1) % 4] for i in range(4)] == [1.0, -2.0, 0.5, 0.25]
    phase = prepare_phase(LeakyDirected(leak=1.0), graph, graph.clamp(x))
    force = phase.force({"units": jnp.asarray(units), "output": jnp.asarray(output)})
    driven = x.reshape(5, 4) @ dense["entering"] + units @ dense["synapses"] + output @ dense["returning"]
    np.testing.assert_allclose(force["units"], driven - units, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(force["output"], units @ dense["leaving"] - output, rtol=1e-5, atol=1e-6)
    assert certify(LeakyFlow(0.1, AbsoluteOutflow()), graph).certified


def test_weights_may_be_a_column_of_the_file(tmp_path):
    """Oracle: the numbers written; text, and a column that was not read, are refused."""
    file = tmp_path / "edges.csv"
    file.write_text("source,target,strength,kind\na,b,1.5,x\nb,a,-2,y\n")
    chosen = {"reading": ["a"], "shown": ["b"], "key": jax.random.key(0)}
    graph = networks.from_edges(file, (2,), 3, weights="strength", **chosen)
    assert graph.functions["synapses"].weight.tolist() == [1.5, -2.0]
    with pytest.raises(DataError, match="and no numbers"):
        networks.from_edges(file, (2,), 3, weights="kind", **chosen)
    with pytest.raises(DataError, match="columns that were read: none"):
        networks.from_edges(read_edges(file), (2,), 3, weights="strength", **chosen)


def test_the_output_may_answer_to_others_than_it_reads():
    """Oracle: every pair of an output unit and a unit that is named, and no others; the readout is as it was."""
    graph, as_read = circuit(answering=["d", "a", "b"]), circuit()
    returning, leaving = graph.functions["returning"], graph.functions["leaving"]
    ends = set(zip(returning.sources.tolist(), returning.targets.tolist(), strict=True))
    assert ends == {(output, unit) for output in range(3) for unit in (0, 1, 3)}
    assert len(returning.weight) == 9
    np.testing.assert_array_equal(leaving.weight, as_read.functions["leaving"].weight)
    assert set(as_read.functions["returning"].targets.tolist()) == {2, 3}
    with pytest.raises(DataError, match="'e'"):
        circuit(answering=["e"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answering": ["a", "z"]}, r"from_edges: answering: no unit is called 'z'; there are 4 units; the first are"),
        ({"shown": "a"}, r"from_edges: shown='a': give a list"),
        ({"reading": []}, "at least one unit"),
        ({"weights": np.ones(3)}, "for 4 synapses"),
        ({"share": 0.0}, "share=0.0"),
        ({"share": np.ones(3)}, "for each of the 2 units"),
        ({"shown": [1.5]}, r"from_edges: shown=.*1.5.*: give a list"),
        ({"shown": [[1], [2, 3]]}, r"from_edges: shown=.*: give a list"),
        ({"shown": [0, 9]}, r"indices from 0 to 9: give some from 0 to 3"),
        ({"reading": ["b", "b"]}, r"from_edges: reading: unit 1 \(b\) comes twice"),
        ({"share": "half"}, r"from_edges: share: 'half'"),
        ({"weights": [1.0, np.nan, 0.5, 0.25]}, r"from_edges: weights\[1\]=nan: give finite numbers"),
        ({"weights": ["a"] * 4}, r"from_edges: weights: .*no array of numbers"),
        ({"feedback_gain": np.nan}, r"from_edges: feedback_gain=nan"),
        ({"gain": "a"}, r"from_edges: gain='a'"),
        ({"gain": -1.0}, r"from_edges: gain=-1.0: give a number from 0"),
    ],
)
def test_what_is_no_circuit_is_refused_by_name(options, message):
    """Oracle: the place and the value."""
    with pytest.raises((SettingError, DataError), match=message):
        circuit(**options)


@pytest.mark.parametrize(("shape", "classes"), [(64, 3), ((2, 2), 0), ((2, 2), 10.5), ((), 3)])
def test_sizes_of_a_circuit_are_whole_numbers(shape, classes):
    """Oracle: the argument's name."""
    edges = EdgeList(np.asarray(["a", "b"]), np.asarray([0]), np.asarray([1]))
    with pytest.raises(SettingError, match=r"from_edges: (shape|classes)"):
        networks.from_edges(edges, shape, classes, reading=["a"], shown=["b"], key=jax.random.key(0))


@pytest.mark.parametrize(
    ("sizes", "table", "seed", "message"),
    [
        ({"E": 0}, [[0.1]], 0, r"draw_edges: sizes\['E'\]=0"),
        ({"E": 2.5}, [[0.1]], 0, r"draw_edges: sizes\['E'\]=2.5"),
        ({"E": 2}, [[0.1]], -1, "draw_edges: seed=-1"),
        ({"E": 2}, [[1.5]], 0, "draw_edges: probabilities"),
        ({"E": 2}, [], 0, "draw_edges: probabilities of shape"),
        ({"E": 2}, "x", 0, "draw_edges: probabilities: 'x'"),
        ({}, np.zeros((0, 0)), 0, "at least one population"),
        ([2], [[0.1]], 0, "give population -> its units"),
    ],
)
def test_what_is_no_population_is_refused_by_name(sizes, table, seed, message):
    """Oracle: the place and the value."""
    with pytest.raises((SettingError, DataError), match=message):
        draw_edges(sizes, table, seed=seed)


def test_feedback_may_mirror_the_readout():
    """Oracle: the same numbers, scaled; half of the pairs of the input are left out by a share of one half."""
    with pytest.raises(SettingError, match="leave `answering` out"):
        circuit(mirrored=True, answering=["a"])
    graph = circuit(mirrored=True, feedback_gain=0.1)
    leaving, returning = graph.functions["leaving"], graph.functions["returning"]
    np.testing.assert_allclose(returning.weight, 0.1 * leaving.weight, rtol=1e-6)
    np.testing.assert_array_equal(returning.sources, leaving.targets)
    assert 0 < len(circuit(share=0.5).functions["entering"].layers[-1].weight) < 8
    one = circuit(share=np.asarray([1.0, 1e-9])).functions["entering"].layers[-1]
    assert (one.sources.tolist(), one.targets.tolist()) == ([0, 1, 2, 3], [0] * 4)
