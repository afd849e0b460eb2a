"""Lists of synapses: who sends to whom, read from files of any circuit."""

import collections
import csv
import dataclasses
import io
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from energax.checking import as_array, require_kind, require_whole
from energax.exceptions import DataError
from energax.graph.arrow_tables import MOST_BYTES, read_arrow, require_columns
from energax.opening import open_file, refuse_broken

CHUNK = 200_000  # rows that are text at one time
CHUNK_TEXT = 1 << 24  # characters, likewise: short texts take twenty times their place in a file
LONGEST_LINE = 100_000
LONGEST_TEXT = 250  # characters of a name, or of a value of a column of text
_FREE = 1 << 28  # bytes that an array of texts may take whatever their lengths; see _require_even
_WHAT = "cannot be read as an edge list"
_REMEDY = "Give one synapse a line, below a heading."


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
        DataError: no such file or column, no regular file, an unknown ending, a row with too few columns or without a
            name, texts of more than 250 characters, a unit that is not among `units`, no rows, a file that unpacks to
            far more than such files do, or a package that is missing.
    """
    path = Path(file)
    wanted = (source, target, *columns)
    if path.suffix in (".csv", ".tsv"):
        chunks = _read_text(path, wanted)
    elif path.suffix in (".feather", ".arrow", ".parquet"):
        chunks = read_arrow(path, wanted, CHUNK)
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
            parts.append(_pack(path, values) if isinstance(values, list) else values)
    if not ends[0]:
        raise DataError(f"{path}: no rows below the heading")
    if "" in places:
        raise DataError(f"{path}: a row names no {source!r} or no {target!r}: give every synapse both ends")
    sources, targets = (np.concatenate(parts) for parts in ends)
    found = {name: _as_numbers(_join(path, parts)) for name, parts in zip(columns, kept, strict=True)}
    return EdgeList(_pack(path, list(places)), sources, targets, found)


def _number(path: Path, names: Sequence[Any], places: dict[str, int]) -> np.ndarray:
    """Indices of names."""
    try:
        return np.fromiter(map(places.__getitem__, names), np.int32, len(names))
    except KeyError as error:
        raise DataError(f"{path}: unit {error.args[0]!r} is not among the {len(places)} that were given") from None


def _read_text(path: Path, wanted: Sequence[str]) -> Iterable[list[Any]]:
    """The wanted columns of a text file, some rows at a time."""
    with open_file(path, MOST_BYTES, _REMEDY) as raw, refuse_broken(path, _REMEDY, what=_WHAT):
        lines = _Lines(path, io.TextIOWrapper(io.BufferedReader(cast(Any, raw)), "utf-8-sig", newline=""))
        rows = csv.reader(lines, delimiter="\t" if path.suffix == ".tsv" else ",", skipinitialspace=True)
        heading = [name.strip() for name in next(rows, [])]
        require_columns(path, wanted, heading)
        at = [heading.index(name) for name in wanted]
        least, line = max(at) + 1, 1
        while chunk := _take(rows, lines):
            short = [index for index, row in enumerate(chunk) if len(row) < least]
            empty = [index for index in short if not chunk[index]]
            if len(short) > len(empty):
                first = min(set(short) - set(empty))
                raise DataError(f"{path}, line {line + first + 1}: {len(chunk[first])} columns of {len(heading)}")
            full = [row for row in chunk if row] if empty else chunk
            line += len(chunk)
            if full:
                yield [[row[place] for row in full] for place in at]


class _Lines:
    """Lines of limited length, counted."""

    def __init__(self, path: Path, file: io.TextIOWrapper):
        self._path, self._file = path, file
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise DataError(f"{self._path}: a line of more than {LONGEST_LINE} characters. {_REMEDY}")
            self.characters += len(line)
            yield line


def _take(rows: Iterator[list[str]], lines: _Lines) -> list[list[str]]:
    """As many rows as may be in memory at one time; none at the end."""
    chunk, most = [], lines.characters + CHUNK_TEXT
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK or lines.characters > most:
            break
    return chunk


def _pack(path: Path, texts: list[str]) -> np.ndarray:
    """Texts as an array, which gives to each the place of the longest."""
    width = max(map(len, texts))
    if width > LONGEST_TEXT:
        long = next(text for text in texts if len(text) > LONGEST_TEXT)
        raise DataError(f"{path}: {long[:40] + ' ...'!r} has {width} characters, and {LONGEST_TEXT} are allowed")
    if any("\0" in text for text in texts):  # numpy drops it at the end of a text
        raise DataError(f"{path}: a text with a zero byte. {_REMEDY}")
    _require_even(path, width, len(texts), sum(map(len, texts)))
    return np.asarray(texts)


def _join(path: Path, parts: list[np.ndarray]) -> np.ndarray:
    """Parts of a column as one array."""
    if parts[0].dtype.kind == "U":
        widths = [part.dtype.itemsize // 4 for part in parts]
        rows = [len(part) for part in parts]
        # Each part is even, so that its longest text stands for all of its texts.
        _require_even(path, max(widths), sum(rows), sum(map(operator.mul, widths, rows)))
    return np.concatenate(parts)


def _require_even(path: Path, width: int, rows: int, characters: int) -> None:
    """Refuse to pay for one long text among millions of short ones."""
    if 4 * width * rows > max(_FREE, 64 * characters):
        raise DataError(f"{path}: one text of {width} characters among {rows} of {characters // rows} on the average")


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
