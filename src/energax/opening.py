"""The one door through which the library reads files; `files` writes them.

Only regular files are opened, sizes are checked before anything is read, compressed bytes are unpacked in pieces up to
what the format may hold, and whatever a parser makes of broken bytes becomes one error that names the file.
"""

import errno
import gzip
import io
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np

from energax.exceptions import DataError, EnergaxError

PIECE = 1 << 16  # bytes unpacked or copied at a time
TEXT = 16_000_000  # bytes of a text or JSON file, unless its format says otherwise
DEPTH = 200  # brackets of JSON within brackets: far below where Python's recursion ends
ITEMS = 2_000_000  # brackets and commas of the largest JSON text: each may cost a reader about a hundred bytes
TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
"""Texts, which hide what is in them, and all that makes JSON deep or long; one pass, whatever the text."""
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


def is_file(path: Path) -> bool:
    """Whether a path leads to a regular file; a name that no file can have leads to none.

    Raises:
        DataError: The folder cannot be searched.

    """
    return _has_mode(path, stat.S_ISREG)


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder; see `is_file`."""
    return _has_mode(path, stat.S_ISDIR)


def _has_mode(path: Path, test: Callable[[int], bool]) -> bool:
    try:
        return test(path.stat().st_mode)
    except ValueError:  # a zero byte in the name
        return False
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise DataError(f"{path}: cannot be looked at ({shorten(error)}). Make it readable or remove it.") from error


def as_folder(place: str, given: Any) -> Path:
    """A path that a user gave for a folder, with `~` replaced; whether it is there is not looked at.

    Args:
        place: what was given, for the message.
        given: text or a path.

    Raises:
        DataError: It is neither, or names a user that this machine does not have.

    """
    try:
        return Path(given).expanduser()
    except (TypeError, RuntimeError) as error:
        raise DataError(f"{place} is {given!r}, which is no folder ({shorten(error)}). Give one.") from error


def find_memory() -> float:
    """Bytes of this machine's memory, where the system tells: no larger file can be read whole."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf


def shorten(error: BaseException | str, most: int = 300) -> str:
    """What an error says, in one line of limited length: broken files end up in messages."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[:most]} ..."


@contextmanager
def refuse_broken(
    path: Path, remedy: str, *, what: str = "cannot be read", kind: type[EnergaxError] = DataError
) -> Iterator[None]:
    """Turn whatever a parser makes of broken bytes into an error that names the file.

    Parsers raise far more than they document (`struct.error`, `KeyError`, `RecursionError`, ...), so everything is
    caught: hold nothing but the call of a parser in it.

    Args:
        path: the file, for the message.
        remedy: what to do about it, a sentence.
        what: what cannot be done with it.
        kind: the error.

    """
    try:
        yield
    except EnergaxError:
        raise
    except MemoryError as error:
        raise kind(f"{path}: {what}: it asks for more memory than there is ({shorten(error)}). {remedy}") from error
    except Exception as error:
        raise kind(f"{path}: {what} ({shorten(error)}). {remedy}") from error


@contextmanager
def open_file(
    path: Path, most: float, remedy: str, *, kind: type[EnergaxError] = DataError, missing: str | None = None
) -> Iterator[BinaryIO]:
    """Open a regular file of at most so many bytes, for reading and without a buffer.

    A link to a regular file is followed. Pipes, devices and folders are refused without being opened: to open one may
    wait for ever or set off what a device does.

    Args:
        path: the file.
        most: the most bytes that a file of this format may have.
        remedy: what to do about a file that is refused, a sentence.
        kind: the error.
        missing: the message where there is no such file; left out, that of one that cannot be read.

    Yields:
        The file.

    Raises:
        DataError: (or `kind`) No regular file, too large, or not readable.

    """
    if not isinstance(path, Path):
        raise kind(f"{path!r} is no path of a file. {remedy}")
    try:
        _require_regular(os.stat(path), path, most, remedy, kind)
        # What lies there may change between the look and the opening: hence no waiting for a pipe, and a second look.
        file = cast(BinaryIO, io.FileIO(path, opener=lambda name, flags: os.open(name, flags | _NO_WAITING)))
    except EnergaxError:  # some are ValueErrors as well
        raise
    except (OSError, ValueError) as error:
        if missing is not None and isinstance(error, FileNotFoundError):
            raise kind(missing) from error
        raise kind(f"{path}: cannot be read ({shorten(error)}). {remedy}") from error
    with file:
        _require_regular(os.fstat(file.fileno()), path, most, remedy, kind)
        yield file


def _require_regular(found: os.stat_result, path: Path, most: float, remedy: str, kind: type[EnergaxError]) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise kind(f"{path}: cannot be read (it is {_name_mode(found.st_mode)}, and no regular file). {remedy}")
    if found.st_size > most:
        raise kind(f"{path}: {found.st_size} bytes, and such a file has at most {most}. {remedy}")


def _name_mode(mode: int) -> str:
    names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")


def read_bytes(
    path: Path, most: int, remedy: str, *, kind: type[EnergaxError] = DataError, missing: str | None = None
) -> bytes:
    """All bytes of a regular file; see `open_file`."""
    with open_file(path, most, remedy, kind=kind, missing=missing) as file, refuse_broken(path, remedy, kind=kind):
        content = read_up_to(file, most + 1)
    if len(content) > most:
        raise kind(f"{path}: more than {most} bytes, the most that such a file has. {remedy}")
    return content


def read_text(path: Path, most: int = TEXT, remedy: str = "Give a text file.") -> str:
    """All of a regular file of UTF-8 text.

    Raises:
        DataError: No regular file, too large, not readable, or no such text.

    """
    content = read_bytes(path, most, remedy)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as text ({error}). {remedy}") from error


def read_json(
    path: Path, remedy: str, *, most: int = TEXT, kind: type[EnergaxError] = DataError, missing: str | None = None
) -> Any:
    """What a regular file of JSON holds; see `parse_json`.

    Args:
        path: the file.
        remedy: what to do about a file that is refused, a sentence.
        most: the most bytes that it may have.
        kind: the error.
        missing: as of `open_file`.

    Raises:
        DataError: (or `kind`) As `read_bytes`, or no JSON.

    """
    content = read_bytes(path, most, remedy, kind=kind, missing=missing)
    with refuse_broken(path, remedy, what="cannot be read as JSON", kind=kind):
        return parse_json(content.decode())


def parse_json(text: str) -> Any:
    """JSON of bounded depth and size, without doubled names; `ValueError` otherwise."""
    check_json(text)
    return json.loads(text, object_pairs_hook=_refuse_doubles)


def check_json(text: str) -> None:
    """Refuse brackets within too many brackets, and too many of them, before anything is built; `ValueError`."""
    depth = items = 0
    for found in TOKENS.finditer(text):
        token = found.group()[0]
        if token == '"':
            continue
        items += 1
        depth += (token in "[{") - (token in "]}")
        if depth > DEPTH or items > ITEMS:
            raise ValueError(f"its JSON is nested more than {DEPTH} deep, or has more than {ITEMS} parts")


def _refuse_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in an object of its JSON")
    return found


def open_packed(file: BinaryIO, path: Path) -> BinaryIO:
    """The bytes of an open file, unpacked piece by piece if its name ends in `.gz`."""
    return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb")) if path.suffix == ".gz" else file


class Readable(Protocol):
    """What fills memory with its bytes: every binary file, though the type of one does not say so."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read into memory and say how many bytes; none at the end."""
        ...


def fill_array(file: BinaryIO, shape: tuple[int, ...]) -> np.ndarray:
    """Read bytes into a new uint8 array; memory is touched only as far as there are bytes.

    Args:
        file: where to read from.
        shape: of the array; the caller has checked that the format may have it.

    Returns:
        The array, or, where the file ends too early, a vector of the bytes that there are.

    """
    content = np.empty(math.prod(shape), np.uint8)
    view, filled, reader = memoryview(cast(Any, content)), 0, cast(Readable, file)
    while filled < len(content) and (count := reader.readinto(view[filled : filled + PIECE])):
        filled += count
    return content.reshape(shape) if filled == len(content) else content[:filled]


def read_up_to(file: BinaryIO, most: int) -> bytes:
    """At most so many bytes; an unbuffered file may give fewer at a time than it has."""
    there = max(16 * PIECE, os.fstat(file.fileno()).st_size)  # a file of /proc has more bytes than it says
    pieces, left = [], most
    while left and (piece := file.read(min(left, there))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


class Excess(Exception):
    """An archive asks for more bytes than an honest one needs."""


class BoundedReader:
    """A file that parsers of archives read from, which gives out no more than an honest archive needs.

    A header may ask a parser to take any number of bytes into memory at once, and a few compressed bytes unpack to any
    number of bytes.

    Attributes:
        most: position that is never passed.
        at_once: most bytes that one call returns.

    """

    def __init__(self, file: BinaryIO, most: int, at_once: int):
        self._file, self.most, self.at_once = file, most, at_once

    def read(self, size: int = -1) -> bytes:
        """Read; without a size, all that is left.

        Raises:
            Excess: More bytes than one call may ask for, or a position beyond the ceiling.

        """
        content = self._file.read(min(size, self.at_once + 1) if size >= 0 else self.at_once + 1)
        if max(size, len(content)) > self.at_once:
            raise Excess(f"it has a header of more than {self.at_once} bytes")
        self._check(self._file.tell())
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; see `read`."""
        if whence == os.SEEK_SET:
            self._check(offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Always: parsers go back by little only."""
        return True

    def _check(self, position: int) -> None:
        if position > self.most:
            raise Excess(f"it unpacks to more than {self.most} bytes")
