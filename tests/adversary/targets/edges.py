"""Edge lists: text, and binary tables."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from energax.graph import EdgeList, read_edges

from ..target import Mutation, Target, register

ROWS = 50


def table() -> pa.Table:
    rng = np.random.default_rng(0)
    names = [f"unit {n}" for n in range(9)]
    ends = {name: [names[n] for n in rng.integers(0, 9, ROWS)] for name in ("source", "target")}
    return pa.table({**ends, "weight": rng.normal(size=ROWS), "kind": pa.array(["gap", "x"] * 25).dictionary_encode()})


def write(path: Path, rows: pa.Table, **options: str) -> None:
    if path.suffix == ".parquet":
        pa.parquet.write_table(rows, path, **options)
    elif path.suffix == ".feather":
        pa.feather.write_feather(rows, path, **options)
    else:
        between = "," if path.suffix == ".csv" else "\t"
        lines = [rows.column_names, *([str(value) for value in row.values()] for row in rows.to_pylist())]
        path.write_text("\n".join(between.join(line) for line in lines) + "\n")


def check(edges: EdgeList) -> None:
    assert len(edges.sources) == len(edges.targets) > 0
    for ends in (edges.sources, edges.targets):  # what is accepted names units that there are
        assert 0 <= ends.min() <= ends.max() < len(edges.names)
    for ends in (edges.sources, edges.targets):
        assert ((ends >= 0) & (ends < len(edges.names))).all()
    assert len(set(edges.names.tolist())) == len(edges.names)
    assert all(values.shape == (len(edges),) and values.dtype.kind in "fU" for values in edges.columns.values())


def target(suffix: str, *mutations: Mutation, **options: str) -> Target:
    name = f"edges{suffix}"

    def open_edges(folder: Path) -> None:
        check(read_edges(folder / name, columns=("weight", "kind")))

    called = " ".join((name, *options.values()))
    return Target(called, "edges", lambda folder: write(folder / name, table(), **options), open_edges, mutations)


def odd_table(suffix: str, **options: str) -> Mutation:
    """Columns of other types, with nothing in them, with broken text, or of more rows than anybody would write so."""

    @cache
    def many(_: object = None) -> pa.Table:
        zeros = pa.array(np.zeros(300_000 if "uncompressed" in options.values() else 18_000_000, np.int8))
        return pa.table(dict.fromkeys(("source", "target", "weight", "kind"), zeros))

    def one(kinds: Callable[[], pa.Array]) -> Callable[[Random], pa.Table]:
        def change(rng: Random) -> pa.Table:
            name = rng.choice(["source", "target", "weight", "kind"])
            rows = table()
            return rows.set_column(rows.column_names.index(name), name, kinds())

        return change

    broken = pa.StringArray.from_buffers(
        ROWS, pa.py_buffer(np.arange(ROWS + 1, dtype=np.int32)), pa.py_buffer(b"\xff" * ROWS)
    )
    outside = pa.DictionaryArray.from_arrays(pa.array([10**6] * ROWS, pa.int32()), pa.array(["a"]), safe=False)
    kinds = [
        lambda: pa.array([None] * ROWS, pa.string()),
        lambda: pa.array([None] * ROWS, pa.float64()),
        lambda: pa.array([None] * ROWS, pa.null()),
        lambda: pa.array([[1, 2]] * ROWS),
        lambda: pa.array([{"a": 1}] * ROWS),
        lambda: pa.array([2**62] * ROWS, pa.timestamp("s")),
        lambda: pa.array([True] * ROWS),
        lambda: pa.array([b"\xff"] * ROWS),
        lambda: pa.array(["x" * 100_000] * ROWS),
        lambda: pa.array([2**64 - 1] * ROWS, pa.uint64()),
        lambda: broken,
        lambda: outside,
    ]
    changes: list[Callable[[Any], pa.Table]] = [many, *map(one, kinds)]

    def mutate(rng: Random, folder: Path) -> str:
        path, number = folder / f"edges{suffix}", rng.randrange(len(changes))
        if path.is_file() and not path.is_symlink():
            try:
                write(path, changes[number](rng if number else None), **options)
            except pa.ArrowException:  # this kind of file cannot hold what is wrong
                path.write_bytes(b"")
        return f"odd table {number}"

    return mutate


def odd_text(rng: Random, folder: Path) -> str:
    """One long line, many columns, quotes that do not end, or other line ends."""
    between, kind = rng.choice(",\t"), rng.randrange(7)
    head = f"source{between}target{between}weight{between}kind\n"
    row = f"a{between}b{between}1{between}x\n"
    text = [
        head + "a" * 3_000_000,
        head + between * 3_000_000,
        head + (between.join(["a"] * 5_000) + "\n") * 200,
        head + '"' + row * 50_000,
        head + row * 200_000 + row.replace("a", "a" * 240).replace("x", "x" * 240),
        head + row.replace("\n", "\r") * 100 + "\0",
        (head + row * 100).encode("utf-16").decode("latin-1"),
    ][kind]
    for path in folder.glob("edges.*"):
        if path.is_file() and not path.is_symlink():
            path.write_text(text, encoding="latin-1", newline="")
    return f"odd text {kind}"


register(target(".csv", odd_text))
register(target(".tsv", odd_text))
register(target(".parquet", odd_table(".parquet")))
register(target(".feather", odd_table(".feather", compression="lz4"), compression="lz4"))
register(target(".feather", odd_table(".feather", compression="zstd"), compression="zstd"))
register(target(".feather", odd_table(".feather", compression="uncompressed"), compression="uncompressed"))
