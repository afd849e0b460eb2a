"""Columns of feather and Parquet files, some rows at a time: what a file unpacks to is known before it is unpacked."""

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from energax.exceptions import DataError
from energax.opening import open_file, refuse_broken

MOST_BYTES = 10**11  # of one table
_FREE = 1 << 28  # bytes that any file may unpack to
_RATIO = 100  # and what larger ones may, as a multiple of their size
_ROW = 4  # bytes of each value in an edge list, however little place a repeated one takes in a file
_REMEDY = "Write the table anew, or give a CSV file."
_WHAT = "cannot be read as an edge list"


def read_arrow(path: Path, wanted: Sequence[str], rows: int) -> Iterable[list[Any]]:
    """The wanted columns of a binary table.

    Args:
        path: ending in `.parquet`, or else a feather file (Arrow's format for files).
        wanted: headings; the first two become text, "" where there is none.
        rows: how many at a time.

    Yields:
        A column each: numbers as float64, NaN where there is none, or a list of text.

    Raises:
        DataError: the package `pyarrow` is missing; no such table or column; a column of neither numbers nor text; or a
            file that unpacks to far more than such files do.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise DataError(f"{path}: tables of this kind need pyarrow: pip install pyarrow, or give a CSV file") from error
    with open_file(path, MOST_BYTES, _REMEDY) as file:
        batches = _open_parquet if path.suffix == ".parquet" else _open_feather
        with refuse_broken(path, _REMEDY, what=_WHAT):
            for batch in batches(file, path, wanted, rows):
                for first in range(0, batch.num_rows, rows):
                    part = batch.slice(first, rows)
                    part.validate(full=True)  # offsets, indices and text: what is broken there would be read blindly
                    columns = {name: part.column(part.schema.get_field_index(name)) for name in wanted}
                    ends = [_as_text(pyarrow, path, columns[name], name) for name in wanted[:2]]
                    yield [*ends, *(_as_values(pyarrow, path, columns[name], name) for name in wanted[2:])]


def require_columns(path: Path, wanted: Sequence[str], heading: Sequence[str]) -> None:
    """Refuse a file without a column that is asked for, or with two of that name."""
    if missing := [name for name in wanted if name not in heading]:
        shown = ", ".join(repr(name[:100]) for name in heading[:20]) + (", ..." if len(heading) > 20 else "")
        raise DataError(f"{path}: no column {', '.join(map(repr, missing))}; it has {shown}")


def _open_parquet(file: BinaryIO, path: Path, wanted: Sequence[str], rows: int) -> Iterable[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(file) as table:
        require_columns(path, wanted, table.schema_arrow.names)
        facts, stated = table.metadata, 0
        for group in range(facts.num_row_groups):
            parts = (facts.row_group(group).column(at) for at in range(facts.num_columns))
            stated += sum(part.total_uncompressed_size for part in parts if part.path_in_schema in wanted)
        _require_size(path, file, max(stated, _ROW * len(wanted) * facts.num_rows))
        left = facts.num_rows
        for batch in table.iter_batches(rows, columns=list(dict.fromkeys(wanted))):
            left -= batch.num_rows
            if left < 0:
                raise DataError(f"{path}: more than the {facts.num_rows} rows that it states. {_REMEDY}")
            yield batch


def _open_feather(file: BinaryIO, path: Path, wanted: Sequence[str], rows: int) -> Iterable[Any]:
    from pyarrow import ipc

    unpacked, length = _measure_feather(file)
    _require_size(path, file, max(unpacked, _ROW * len(wanted) * length))
    file.seek(0)
    schema = ipc.open_file(file).schema
    require_columns(path, wanted, schema.names)
    fields = sorted({schema.get_field_index(name) for name in wanted})
    file.seek(0)
    with ipc.open_file(file, options=ipc.IpcReadOptions(included_fields=fields)) as table:
        for at in range(table.num_record_batches):
            yield table.get_batch(at)


def _require_size(path: Path, file: BinaryIO, unpacked: int) -> None:
    most = max(_FREE, _RATIO * file.seek(0, 2))
    if unpacked > most:
        raise DataError(f"{path}: unpacks to {unpacked} bytes, and {most} are allowed. {_REMEDY}")


def _as_text(pyarrow: Any, path: Path, column: Any, name: str) -> list[str]:
    """Names, or numbers as text."""
    kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
    if not (_is_text(pyarrow, kind) or pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)):
        raise DataError(f"{path}: column {name!r} holds {kind}, and neither names nor numbers. {_REMEDY}")
    return ["" if value is None else str(value) for value in column.to_pylist()]


def _as_values(pyarrow: Any, path: Path, column: Any, name: str) -> np.ndarray | list[str]:
    """Numbers as such, everything else as text."""
    types = pyarrow.types
    if types.is_integer(column.type) or types.is_floating(column.type) or types.is_boolean(column.type):
        return column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
    return _as_text(pyarrow, path, column, name)


def _is_text(pyarrow: Any, kind: Any) -> bool:
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


# What a feather file unpacks to stands in the first eight bytes of each packed buffer; where these lie, in headers of
# the format "flatbuffers": a table begins with the distance back to a list of where its fields are.


def _measure_feather(file: BinaryIO) -> tuple[int, int]:
    """Bytes of all buffers of a file in Arrow's format, unpacked, and its rows."""
    size = file.seek(0, 2)
    file.seek(size - 10)
    length, mark = struct.unpack("<i6s", file.read(10))
    if mark != b"ARROW1" or not 0 < length < size:
        raise ValueError("it does not end as a feather file of version 2 does")
    footer, total, rows = _Header(_read_at(file, size - 10 - length, length)), 0, 0
    for field in (2, 3):  # dictionaries, then batches
        for offset, header, _ in footer.read_structs(footer.root, field, "<qi4xq"):
            message = _Header(_read_at(file, offset, header)[8:])
            batch = message.follow(message.root, 2)
            if field == 2:
                batch = message.follow(batch, 1)
            elif stated := message.find(batch, 0):
                rows += message.unpack("<q", stated)[0]
            packed = message.find(batch, 3)
            for begin, stored in message.read_structs(batch, 2, "<qq"):
                stated = -1
                if packed and stored >= 8:
                    (stated,) = struct.unpack("<q", _read_at(file, offset + header + begin, 8))
                total += stored if stated < 0 else stated  # -1: this one was not packed
    return total, rows


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    if not 0 <= size <= 1 << 28:
        raise ValueError(f"it has a header of {size} bytes")
    file.seek(offset)
    return file.read(size)


class _Header:
    """Fields of tables in a flatbuffer."""

    def __init__(self, content: bytes):
        self._content = content
        self.root = self.unpack("<I", 0)[0]

    def unpack(self, form: str, at: int) -> tuple[Any, ...]:
        """What stands at a place."""
        if at < 0:
            raise ValueError("its header points outside of itself")
        return struct.unpack_from(form, self._content, at)

    def find(self, table: int, field: int) -> int:
        """Where a field is; 0 if the table has none."""
        listed = table - self.unpack("<i", table)[0]
        entry = 4 + 2 * field
        offset = self.unpack("<H", listed + entry)[0] if entry < self.unpack("<H", listed)[0] else 0
        return table + offset if offset else 0

    def follow(self, table: int, field: int) -> int:
        """Where the table or the vector begins that a field points to."""
        at = self.find(table, field)
        if not at:
            raise ValueError("its header lacks a part")
        return at + self.unpack("<I", at)[0]

    def read_structs(self, table: int, field: int, form: str) -> list[tuple[Any, ...]]:
        """The structs in a vector."""
        if not self.find(table, field):
            return []
        begin = self.follow(table, field)
        count, size = self.unpack("<I", begin)[0], struct.calcsize(form)
        if count * size > len(self._content):
            raise ValueError("its header states more parts than it holds")
        return [self.unpack(form, begin + 4 + size * index) for index in range(count)]
