"""Unpacking `.tar.gz` and `.zip` archives: folders and regular files, inside of one new folder, up to a ceiling."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import filelock
from rich.console import Console
from rich.progress import Progress

from energax.exceptions import DataError
from energax.opening import PIECE, BoundedReader, Excess, open_file, refuse_broken

MOST_BYTES = 2 * 10**9  # of an archive, and of what it unpacks to, unless the catalogue knows better
MOST_MEMBERS = 250_000  # twice what Tiny-ImageNet has
_MOST_NAME = 1_000
_MOST_PART = 255  # what the usual file systems take
_MOST_DEPTH = 32
_HEADER = 1 << 16  # a tar's header, its long name or its extended fields
_OVERHEAD = 4_096  # headers and padding of one member of a tar
_LISTED = 200  # bytes of one member in a zip's directory
_WAIT = 3_600  # seconds for another process that unpacks the same archive
_DAMAGED = "Delete it and download it again."
_REFUSED = "Such an archive is not the official one: delete it."
_KINDS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def unpack(archive: Path, target: Path, *, progress: bool = True, most: int = MOST_BYTES) -> Path:
    """Unpack a `.tar.gz`, `.tar` or `.zip` archive into a new folder.

    The members are written into a folder beside `target`, which is renamed once all are there; an interrupted
    extraction leaves no `target`, and the next one begins by removing what it left. Of two processes that unpack the
    same archive, the second waits.

    Args:
        archive: The archive.
        target: The folder to make. If it exists, the archive is taken to be unpacked already.
        progress: Whether to show a progress bar on the error stream.
        most: Ceiling on the size of the archive and on what its members have together, in bytes.

    Returns:
        `target`.

    Raises:
        DataError: If the archive is damaged; if a member is a link or a device, would land outside of `target` or
            comes twice; if there are too many members or they are too large (nothing is kept then); or if the folder
            cannot be written.

    """
    if target.is_dir():
        return target
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock(target):
            if target.is_dir():  # the process that was waited for has unpacked it
                return target
            half_made = target.parent / f".unpacking-{target.name}"
            if half_made.is_symlink():
                half_made.unlink()
            shutil.rmtree(half_made, ignore_errors=True)
            half_made.mkdir()
            try:
                _extract(archive, _Folder(archive, half_made, most), progress, most)
                half_made.rename(target)
            finally:
                shutil.rmtree(half_made, ignore_errors=True)
    return target


class _Folder:
    """Where members are written, and what is left of the ceilings."""

    def __init__(self, archive: Path, folder: Path, most: int):
        self.archive, self.folder = archive, folder
        self.most = self.left = most
        self.members = 0

    def refuse(self, why: str) -> DataError:
        return DataError(f"{self.archive}: refused, since {why}. {_REFUSED}")

    def add_folder(self, name: str) -> None:
        with writing(self.folder):
            self._place(name).mkdir(parents=True, exist_ok=True)

    def add_file(self, name: str, size: int, content: Any) -> None:
        """Write one member piece by piece; its size is what the archive states."""
        path = self._place(name)
        if not 0 <= size <= self.left:
            raise self.refuse(f"its members have more than {self.most} bytes together")
        self.left -= size
        try:
            with writing(self.folder):
                path.parent.mkdir(parents=True, exist_ok=True)
                file = io.FileIO(path, "x")
        except DataError as error:
            if not isinstance(error.__cause__, (FileExistsError, NotADirectoryError)):
                raise
            raise self.refuse(f"its member {_show(name)} comes twice") from error
        with file:
            while size and (piece := content.read(min(size, PIECE))):
                with writing(self.folder):
                    file.write(piece)
                size -= len(piece)
        if size:
            raise EOFError(f"the member {_show(name)} ends {size} bytes too early")

    def _place(self, name: str) -> Path:
        self.members += 1
        if self.members > MOST_MEMBERS:
            raise self.refuse(f"it has more than {MOST_MEMBERS} members")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        # A colon or a backslash is no matter here, and leads out of the folder where it parts names.
        if name.startswith("/") or ".." in parts or any(sign in name for sign in "\\:\0"):
            raise self.refuse(f"its member {_show(name)} would be extracted outside of the folder")
        long = len(name) > _MOST_NAME or len(parts) > _MOST_DEPTH
        if long or any(len(os.fsencode(part)) > _MOST_PART for part in parts):
            raise self.refuse(f"its member {_show(name)} has a name that is too long")
        return self.folder.joinpath(*parts)


def _extract(archive: Path, folder: _Folder, progress: bool, most: int) -> None:
    with open_file(archive, most, _DAMAGED) as file, refuse_broken(archive, _DAMAGED, what="damaged or cut short"):
        start = file.read(2)
        file.seek(0)
        try:
            if start == b"PK":
                _extract_zip(file, folder, progress)
            else:
                content = gzip.GzipFile(fileobj=file, mode="rb") if start == b"\x1f\x8b" else file
                ceiling = most + _OVERHEAD * MOST_MEMBERS
                _extract_tar(BoundedReader(cast(BinaryIO, content), ceiling, _HEADER), folder)
        except Excess as error:
            raise folder.refuse(str(error)) from error


def _extract_tar(content: BoundedReader, folder: _Folder) -> None:
    with tarfile.open(fileobj=cast(Any, content), mode="r:") as tar:
        while (member := tar.next()) is not None:
            cast(Any, tar).members.clear()  # else every header stays in memory
            if member.isdir():
                folder.add_folder(member.name)
            elif member.isreg() and not member.issparse():
                folder.add_file(member.name, member.size, tar.extractfile(member))
            else:
                raise folder.refuse(f"its member {_show(member.name)} is a link, a device or has holes")
        # tarfile takes a damaged header for the end: what follows must be zeros. Reading on to the end of the file
        # also lets gzip compare its checksum.
        content.seek(tar.offset)
        while piece := content.read(_HEADER):
            if piece.count(0) < len(piece):
                raise tarfile.ReadError("there is something behind the last member that can be read")


def _extract_zip(file: BinaryIO, folder: _Folder, progress: bool) -> None:
    listed = BoundedReader(file, folder.most, _LISTED * MOST_MEMBERS)  # the directory is read at once
    bar = Progress(console=Console(stderr=True), disable=not progress, transient=True)
    with zipfile.ZipFile(cast(Any, listed)) as archive, bar:
        for member in bar.track(archive.infolist(), description=f"unpacking {folder.archive.name}"):
            mode = stat.S_IFMT(member.external_attr >> 16)
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise folder.refuse(f"its member {_show(member.filename)} is a link or a device")
            if member.flag_bits & 1 or member.compress_type not in _KINDS:
                raise folder.refuse(f"its member {_show(member.filename)} is encrypted or packed in another way")
            if member.is_dir():
                folder.add_folder(member.filename)
                continue
            with archive.open(member) as content:
                folder.add_file(member.filename, member.file_size, content)
                if content.read(1):  # and with it the checksum is compared
                    raise zipfile.BadZipFile(f"the member {_show(member.filename)} is longer than it says")


def _show(name: str) -> str:
    return repr(name if len(name) <= 100 else f"{name[:100]} ...")


@contextmanager
def lock(target: Path) -> Iterator[None]:
    """Keep other processes from making the same file or folder; the lock's own file goes when `target` is there.

    Raises:
        DataError: Another process has held it for an hour.

    """
    path = target.parent / f".{target.name}.lock"
    try:
        with filelock.FileLock(path, timeout=_WAIT):
            yield
            # Whoever still waits for this very file finds `target` as soon as it has it, and does nothing. Without a
            # target the file must stay: a waiter and a newcomer would hold two different ones.
            if target.exists() and os.name != "nt":
                path.unlink(missing_ok=True)
    except filelock.Timeout as error:
        raise DataError(
            f"{target}: another process has been making it for {_WAIT} s. Wait for it, or end it and try again."
        ) from error


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals into a `DataError` that names the folder and the way out."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error}). Make room or set ENERGAX_CACHE to a folder that can be written."
        ) from error
