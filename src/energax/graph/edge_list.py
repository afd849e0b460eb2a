"""Lists of synapses: who sends to whom, read from files of any circuit."""

import collections
import csv
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from energax.checking import as_array, require_kind, require_whole
from energax.exceptions import DataError

CHUNK = 200_000  # rows that are text at one time


@dataclasses.dataclass(frozen=True)
class EdgeList:
    """Synapses among named units, one row each.

    Attributes:
        names: of the units, shape `(units,)`; where a file has numbers, these as text.
        sources: index of the unit that a synapse leaves, shape `(synapses,)`.
        targets: index of the unit that it reaches, likewise.
        columns: what else a file says of every synapse: name -> numbers, or text where some are none.
    """

    names: np.ndarray
    sources: np.ndarray
    targets: np.ndarray
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        """The number of synapses."""
        return len(self.sources)

    def select(self, rows: np.ndarray) -> "EdgeList":
        """Some of the synapses, in the order given; the units stay.

        Args:
            rows: their indices, or a mask.
        """
        columns = {name: values[rows] for name, values in self.columns.items()}
        return dataclasses.replace(self, sources=self.sources[rows], targets=self.targets[rows], columns=columns)

    def find(self, names: Iterable[str]) -> np.ndarray:
        """Indices of named units.

        Raises:
            DataError: a name that no unit has.
        """
        places = {name: index for index, name in enumerate(self.names.tolist())}
        wanted = list(names)
        if missing := [name for name in wanted if name not in places]:
            raise DataError(f"no unit is called {', '.join(map(repr, missing[:5]))}; there are {len(places)} units")
        return np.asarray([places[name] for name in wanted], int)


def read_edges(
    file: str | Path,
    *,
    source: str = "source",
    target: str = "target",
    columns: Sequence[str] = (),
    units: Sequence[str] | None = None,
) -> EdgeList:
    """Read an edge list from a CSV file with a heading, or from a feather or Parquet file.

    `python -m benchmarks.synapses --read N` tells what N rows take. Feather and Parquet need the package `pyarrow`.

    Args:
        file: ending in `.csv`, `.tsv` (columns separated by tabs), `.feather`, `.arrow` or `.parquet`.
        source: heading of the column of the units that synapses leave.
        target: heading of the column of the units that they reach.
        columns: headings of other columns to be kept.
        units: names of all units, in their order; left out: those that the file names, in the order of their first row.

    Raises:
        DataError: no such file or column, an unknown ending, a row with too few columns or without a name, a unit that
            is not among `units`, no rows, or a package that is missing.
    """
    path = Path(file)
    wanted = (source, target, *columns)
    if path.suffix in (".csv", ".tsv"):
        chunks = _read_text(path, wanted)
    elif path.suffix in (".feather", ".arrow", ".parquet"):
        chunks = _read_arrow(path, wanted)
    else:
        raise DataError(f"{path}: edge lists end in .csv, .tsv, .feather, .arrow or .parquet")
    places: dict[str, int] = collections.defaultdict(itertools.count().__next__)  # a new name gets the next index
    if units is not None:
        places = {name: index for index, name in enumerate(units)}
    ends: list[list[np.ndarray]] = [[], []]
    kept: list[list[np.ndarray]] = [[] for _ in columns]
    for chunk in chunks:
        for parts, names in zip(ends, chunk[:2], strict=True):
            parts.append(_number(path, names, places))
        for parts, values in zip(kept, chunk[2:], strict=True):
            parts.append(np.asarray(values))
    if not ends[0]:
        raise DataError(f"{path}: no rows below the heading")
    if "" in places:
        raise DataError(f"{path}: a row names no {source!r} or no {target!r}: give every synapse both ends")
    sources, targets = (np.concatenate(parts) for parts in ends)
    found = {name: _as_numbers(np.concatenate(parts)) for name, parts in zip(columns, kept, strict=True)}
    return EdgeList(np.asarray(list(places)), sources, targets, found)


def _number(path: Path, names: Sequence[Any], places: dict[str, int]) -> np.ndarray:
    """Indices of names."""
    try:
        return np.fromiter(map(places.__getitem__, names), np.int32, len(names))
    except KeyError as error:
        raise DataError(f"{path}: unit {error.args[0]!r} is not among the {len(places)} that were given") from None


def _read_text(path: Path, wanted: Sequence[str]) -> Iterable[list[Sequence[str]]]:
    """The wanted columns of a text file, some rows at a time."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", skipinitialspace=True)
            heading = [name.strip() for name in next(rows, [])]
            _require_columns(path, wanted, heading)
            at = [heading.index(name) for name in wanted]
            least, line = max(at) + 1, 1
            while chunk := list(itertools.islice(rows, CHUNK)):
                short = [index for index, row in enumerate(chunk) if len(row) < least]
                empty = [index for index in short if not chunk[index]]
                if len(short) > len(empty):
                    first = min(set(short) - set(empty))
                    raise DataError(f"{path}, line {line + first + 1}: {len(chunk[first])} columns of {len(heading)}")
                full = [row for row in chunk if row] if empty else chunk
                line += len(chunk)
                if full:
                    yield [[row[place] for row in full] for place in at]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as an edge list: {error}") from error


def _read_arrow(path: Path, wanted: Sequence[str]) -> Iterable[list[Sequence[Any]]]:
    """The wanted columns of a binary table, some rows at a time."""
    try:
        from pyarrow import ArrowException, feather, parquet
    except ImportError as error:
        raise DataError(f"{path}: tables of this kind need pyarrow: pip install pyarrow, or give a CSV file") from error
    read = parquet.read_table if path.suffix == ".parquet" else feather.read_table
    try:
        table = read(path)
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} cannot be read as an edge list: {error}") from error
    _require_columns(path, wanted, table.column_names)
    for first in range(0, len(table), CHUNK):
        part = table.slice(first, CHUNK)
        ends = [["" if v is None else str(v) for v in part.column(name).to_pylist()] for name in wanted[:2]]
        yield [*ends, *(part.column(name).to_pylist() for name in wanted[2:])]


def _require_columns(path: Path, wanted: Sequence[str], heading: Sequence[str]) -> None:
    """Refuse a file without a column that is asked for."""
    if missing := [name for name in wanted if name not in heading]:
        raise DataError(f"{path}: no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, heading))}")


def _as_numbers(values: np.ndarray) -> np.ndarray:
    """Text as numbers, if all of it is."""
    try:
        return values.astype(float)
    except ValueError:
        return values


def draw_edges(sizes: Mapping[str, int], probabilities: np.ndarray, *, seed: int) -> EdgeList:
    """Draw a circuit of populations: every pair of units is joined with the probability of its populations.

    No unit is joined to itself. Time and memory grow with the synapses that are drawn, and not with the pairs.

    Args:
        sizes: population -> its units, which are named `L4E/0` and so on.
        probabilities: row target, column source, in the order of `sizes`.
        seed: fixes the circuit.

    Raises:
        DataError: a table of another shape, or numbers that are no probabilities.
        SettingError: sizes or a seed that are no whole numbers.
    """
    require_kind("draw_edges: sizes", sizes, Mapping, "give population -> its units")
    for name, size in sizes.items():
        require_whole(f"draw_edges: sizes[{name!r}]", size, 1)
    require_whole("draw_edges: seed", seed, 0)
    table, counts = np.asarray(as_array("draw_edges: probabilities", probabilities), float), list(sizes.values())
    if not counts:
        raise DataError("draw_edges: sizes={}: give at least one population")
    if table.shape != (len(counts), len(counts)):
        raise DataError(
            f"draw_edges: probabilities of shape {table.shape} for {len(counts)} populations: give one number for each "
            "target (row) and source (column)"
        )
    if not ((table >= 0) & (table <= 1)).all():
        raise DataError(f"draw_edges: probabilities from {table.min():g} to {table.max():g}: give some from 0 to 1")
    rng, first = np.random.default_rng(seed), np.concatenate([[0], np.cumsum(counts)])
    ends: list[np.ndarray] = []
    for target, source in np.argwhere(table > 0):
        pairs = _draw_places(rng, counts[source] * counts[target], float(table[target, source]))
        joined = np.stack([first[source] + pairs // counts[target], first[target] + pairs % counts[target]])
        ends.append(joined[:, joined[0] != joined[1]].astype(np.int32))
    sources, targets = np.concatenate(ends, axis=1) if ends else np.zeros((2, 0), np.int32)
    names = np.asarray([f"{name}/{index}" for name, count in sizes.items() for index in range(count)])
    return EdgeList(names, sources, targets)


def _draw_places(rng: np.random.Generator, places: int, probability: float) -> np.ndarray:
    """Each of so many places with a probability: by the gaps between those that are chosen."""
    found, last = [], -1
    while last < places:
        left = places - last
        gaps = rng.geometric(probability, int(left * probability + 4 * (left * probability) ** 0.5) + 8)
        found.append(last + np.cumsum(gaps))
        last = found[-1][-1]
    chosen = np.concatenate(found)
    return chosen[chosen < places]
