"""Fetching files: mirrors in turn, retries, checksums, and nothing half-made under a final name."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pooch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn, track

from energax.exceptions import DataError

ATTEMPTS = 3
_TIMEOUT = 30  # seconds without a byte before an attempt counts as failed


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded.

    Attributes:
        name: Its file name.
        md5: MD5 of the official file, in hexadecimal.
        urls: Where to get it, tried in turn.

    """

    name: str
    md5: str
    urls: tuple[str, ...]


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, in hexadecimal.

    Raises:
        DataError: If the file cannot be read.

    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). Make it readable or remove it.") from error


def download(
    remote: Remote, folder: Path, *, progress: bool = True, attempts: int = ATTEMPTS, backoff: float = 1.0
) -> Path:
    """Download a file unless `folder` already holds it whole.

    Every address is tried up to `attempts` times, with a pause of `backoff`, then `2 * backoff`, ... seconds
    between attempts. An answer that repetition cannot mend (a client error such as 404, a wrong checksum)
    moves on to the next address at once. The bytes arrive under a temporary name, which is renamed only once
    their MD5 is right and removed in every other case.

    Args:
        remote: What to download.
        folder: Where to put it; created if need be.
        progress: Whether to show a progress bar on the error stream.
        attempts: Most attempts per address.
        backoff: Seconds before the second attempt.

    Returns:
        The path of the file.

    Raises:
        DataError: If no address yields the right file, saying what happened at each; or if `folder` cannot be
            written.

    """
    target = folder / remote.name
    if target.is_file() and md5_of(target) == remote.md5:
        return target
    failures = []
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for url in remote.urls:
            failure = _from_one(url, remote, target, progress, attempts, backoff)
            if failure is None:
                return target
            failures.append(f"  {url}: {failure}")
    raise DataError("\n".join([f"{remote.name}: could not be downloaded.", *failures]))


def unpack(archive: Path, target: Path, *, progress: bool = True) -> Path:
    """Unpack a `.tar.gz` or `.zip` archive into a new folder.

    The members are written into a temporary folder beside `target`, which is renamed once all are there; an
    interrupted extraction leaves no `target`.

    Args:
        archive: The archive.
        target: The folder to make. If it exists, the archive is taken to be unpacked already.
        progress: Whether to show a progress bar on the error stream.

    Returns:
        `target`.

    Raises:
        DataError: If the archive is damaged, if one of its members would land outside of `target` (nothing is
            kept then), or if the folder cannot be written.

    """
    if target.is_dir():
        return target
    with _writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        half_made = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
        try:
            _extract(archive, half_made, progress)
            # Another process may have unpacked the same archive meanwhile: its folder is as good as this one.
            if not target.is_dir():
                half_made.rename(target)
        finally:
            shutil.rmtree(half_made, ignore_errors=True)
    return target


def _from_one(url: str, remote: Remote, target: Path, progress: bool, attempts: int, backoff: float) -> str | None:
    """Try one address; return what went wrong, or None once `target` is in place."""
    import requests  # pooch's own means of download, slow to import and only needed here

    failure = "no attempt was made"
    for attempt in range(attempts):
        if attempt:
            time.sleep(backoff * 2 ** (attempt - 1))
        descriptor, name = tempfile.mkstemp(prefix=f".{remote.name}-", suffix=".part", dir=target.parent)
        os.close(descriptor)
        try:
            with _bar(remote.name, progress) as bar:
                # Without this header some servers compress, and requests decompresses, what is stored as .gz.
                headers = {"Accept-Encoding": "identity"}
                getter = pooch.HTTPDownloader(
                    progressbar=cast(Any, bar), chunk_size=1 << 16, timeout=_TIMEOUT, headers=headers
                )
                getter(url, name, None)
            found = md5_of(Path(name))
            if found == remote.md5:
                os.replace(name, target)
                return None
            return f"its MD5 is {found}, expected {remote.md5}; the file was refused and deleted"
        except requests.RequestException as error:
            failure = f"{error} (attempt {attempt + 1} of {attempts})"
            if error.response is not None and 400 <= error.response.status_code < 500:
                return str(error)
        finally:
            Path(name).unlink(missing_ok=True)
    return failure


def _extract(archive: Path, folder: Path, progress: bool) -> None:
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, folder, progress)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise DataError(
            f"{archive}: refused, since {error}. Such an archive is not the official one: delete it."
        ) from error
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive}: damaged or cut short ({error}). Delete it and download it again.") from error


def _extract_zip(archive: Path, folder: Path, progress: bool) -> None:
    # zipfile drops `..` and leading slashes silently; an archive that has them is refused, as tarfile does.
    inside = folder.resolve()
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:
            if not (inside / member.filename).resolve().is_relative_to(inside):
                raise DataError(
                    f"{archive}: refused, since its member {member.filename!r} would be extracted outside of "
                    "the "
                    "folder. Such an archive is not the official one: delete it."
                )
        console = Console(stderr=True)
        for member in track(
            members, f"unpacking {archive.name}", console=console, disable=not progress, transient=True
        ):
            file.extract(member, folder)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals into a `DataError` that names the folder and the way out."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error}). Make room or set ENERGAX_CACHE to a folder that can be written."
        ) from error


class _Bar:
    """What pooch asks of a progress bar, drawn by rich."""

    total: float = 0

    def __init__(self, progress: Progress, name: str):
        self._progress, self._task = progress, progress.add_task(name, total=None)

    def update(self, amount: float) -> None:
        self._progress.update(self._task, advance=amount, total=self.total or None)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.stop()


@contextmanager
def _bar(name: str, show: bool) -> Iterator[_Bar]:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not show, transient=True) as progress:
        yield _Bar(progress, name)
