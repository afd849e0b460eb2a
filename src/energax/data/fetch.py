"""Fetching files: mirrors in turn, resumption, limits, checksums, and nothing half-made under a final name."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import queue
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from energax.data.archives import MOST_BYTES, lock, writing
from energax.exceptions import DataError
from energax.opening import PIECE, is_file, open_file, refuse_broken, shorten

ATTEMPTS = 3
LIMIT = 3_600.0  # seconds for one file, all attempts together
_TIMEOUT = 30.0  # seconds without a byte before an attempt counts as failed
_PAUSE = 60.0  # most seconds between two attempts, whatever a server asks for
_TEMPORARY = {408, 425, 429}  # and all from 500: repeating the request may help
_BROKEN = "Make it readable or remove it."


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded.

    Attributes:
        name: Its file name.
        md5: MD5 of the official file, in hexadecimal.
        urls: Where to get it, tried in turn.
        most: The most bytes that are accepted: those of the official file, where they are known.

    """

    name: str
    md5: str
    urls: tuple[str, ...]
    most: int = MOST_BYTES


def md5_of(path: Path, most: int = MOST_BYTES) -> str:
    """Return the MD5 of a regular file, in hexadecimal.

    Args:
        path: The file.
        most: The most bytes that it may have.

    Raises:
        DataError: If it cannot be read, is no regular file or is larger.

    """
    digest = hashlib.md5(usedforsecurity=False)
    with open_file(path, most, _BROKEN) as file, refuse_broken(path, _BROKEN):
        while piece := file.read(16 * PIECE):
            digest.update(piece)
    return digest.hexdigest()


def is_whole(remote: Remote, path: Path) -> bool:
    """Whether a path leads to the official file."""
    return is_file(path) and path.stat().st_size <= remote.most and md5_of(path, remote.most) == remote.md5


def download(
    remote: Remote,
    folder: Path,
    *,
    progress: bool = True,
    attempts: int = ATTEMPTS,
    backoff: float = 1.0,
    limit: float = LIMIT,
) -> Path:
    """Download a file unless `folder` already holds it whole.

    Every address is tried up to `attempts` times. Between attempts there is a pause of `backoff`, then
    `2 * backoff`, ... seconds, or what the server asks for, and a minute at most. An answer that repetition cannot mend
    (a client error such as 404) moves on to the next address at once.

    The bytes arrive in one part file, which is renamed only once their MD5 is right. A part that was left by a broken,
    stopped or killed download is gone on from, at whichever address, if the server can. A part whose MD5 turns out to
    be wrong is deleted and the file asked for once more from its beginning. Of two processes that want the same file,
    the second waits for the first.

    Args:
        remote: What to download.
        folder: Where to put it; created if need be.
        progress: Whether to show a progress bar on the error stream.
        attempts: Most attempts per address.
        backoff: Seconds before the second attempt.
        limit: Most seconds in all.

    Returns:
        The path of the file.

    Raises:
        DataError: If no address yields the right file in time, saying what happened at each and how many bytes are
            kept; or if `folder` cannot be written.

    """
    if Path(remote.name).name != remote.name or remote.name in ("", ".", ".."):
        raise DataError(f"{remote.name!r} is no name of a file that can be downloaded. Give one without folders.")
    target = folder / remote.name
    if is_whole(remote, target):
        return target
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with lock(target):
            if not is_whole(remote, target):  # else the process that was waited for has brought it
                _Download(remote, target, progress, time.monotonic() + limit).run(attempts, backoff, limit)
    return target


class _Trouble(Exception):
    """An attempt that failed: what happened, and how to go on."""

    def __init__(self, text: str, *, again: bool = True, wait: float = 0.0):
        super().__init__(text)
        self.again, self.wait = again, wait


class _Download:
    """One file on its way into its part file."""

    def __init__(self, remote: Remote, target: Path, progress: bool, deadline: float):
        self.remote, self.target, self.progress, self.deadline = remote, target, progress, deadline
        self.part = target.parent / f".{remote.name}.part"

    def run(self, attempts: int, backoff: float, limit: float) -> None:
        """Try the addresses in turn."""
        failures = []
        try:
            for url in self.remote.urls:
                failure = self._try_address(url, attempts, backoff)
                if failure is None:
                    return
                failures.append(f"  {url}: {failure}")
                if self._left() <= 0:
                    failures.append(f"  {limit:g} s are over, the most for one file")
                    break
        except KeyboardInterrupt as stop:
            stop.add_note(f"{self.remote.name}: {self._say_kept()}")
            if self.progress:
                Console(stderr=True).print(f"{self.remote.name}: stopped. {self._say_kept()}")
            raise
        raise DataError("\n".join([f"{self.remote.name}: could not be downloaded. {self._say_kept()}", *failures]))

    def _say_kept(self) -> str:
        kept = self._begin()
        return f"{kept} bytes are kept: the same command goes on from there." if kept else "Nothing is kept."

    def _left(self) -> float:
        return self.deadline - time.monotonic()

    def _begin(self) -> int:
        """Bytes of the part file that can be gone on from; one that cannot is removed."""
        usable = not self.part.is_symlink() and is_file(self.part)
        if usable and (size := self.part.stat().st_size) <= self.remote.most:
            return size
        with contextlib.suppress(FileNotFoundError):
            self.part.unlink()
        return 0

    def _try_address(self, url: str, attempts: int, backoff: float) -> str | None:
        """Try one address; return what went wrong, or None once the file is in place."""
        failure, wait = "no attempt was made", 0.0
        for attempt in range(attempts):
            if attempt:
                pause = min(max(backoff * 2 ** (attempt - 1), wait), _PAUSE)
                if pause >= self._left():
                    return f"{failure}; there is no time for another"
                time.sleep(pause)
            try:
                resumed = self._begin() > 0
                self._receive(url)
                if (wrong := self._finish()) and resumed:  # the part may have been another file's
                    self._receive(url)
                    wrong = self._finish()
                return wrong
            except _Trouble as trouble:
                failure, wait = f"{trouble} (attempt {attempt + 1} of {attempts})", trouble.wait
                if not trouble.again:
                    return str(trouble)
                if self._left() <= 0:
                    break
        return failure

    def _finish(self) -> str | None:
        """Put the part in its place if it is the official file, else delete it and say so."""
        found = md5_of(self.part, self.remote.most)
        if found == self.remote.md5:
            self.part.replace(self.target)
            return None
        self.part.unlink()
        return f"its MD5 is {found}, expected {self.remote.md5}; the file was refused and deleted"

    def _receive(self, url: str) -> None:
        """Append to the part file what it lacks.

        Raises:
            _Trouble: It did not arrive.

        """
        start = self._begin()
        answer = _Answer(url, start)
        try:
            status, headers = answer.take(self._left())
            if status == 416:  # nothing lies beyond the part: it is whole, or another file's
                if start and _total(headers) == start:
                    return
                self.part.unlink(missing_ok=True)
                raise _Trouble("416: the part that was kept does not fit, and was deleted")
            if status in _TEMPORARY or status >= 500:
                raise _Trouble(f"{status} from the server", wait=_parse_wait(headers.get("retry-after", "")))
            if status not in (200, 206) or (status == 206 and not start):
                raise _Trouble(f"{status} from the server", again=False)
            if status == 206 and _first(headers) != start:
                self.part.unlink()
                raise _Trouble("the server went on from another byte than was asked for")
            whole = _count(headers.get("content-length", ""))
            before = start if status == 206 else 0
            if whole is not None:
                whole += before
                self._check_size(whole)
            with open(self.part, "ab" if before else "wb") as file, _bar(self.remote.name, self.progress) as bar:
                bar(before, whole)
                size = before
                while piece := answer.take(self._left()):
                    size += len(piece)
                    self._check_size(size)
                    file.write(piece)
                    bar(size, whole)
            if whole is not None and size != whole:
                raise _Trouble(f"the connection ended after {size} of {whole} bytes")
        finally:
            answer.stop()

    def _check_size(self, size: int) -> None:
        if size > self.remote.most:
            self.part.unlink(missing_ok=True)
            raise _Trouble(f"more than {self.remote.most} bytes, which the official file has at most", again=False)


class _Answer:
    """What a server sends, received in a thread: neither looking up a name nor a header sent byte by byte ends in time.

    The first thing taken is `(status, headers)`, then come pieces of the body, then an empty one.
    """

    def __init__(self, url: str, start: int):
        self._arrived: queue.Queue[Any] = queue.Queue(maxsize=16)
        self._stopped = threading.Event()
        threading.Thread(target=self._receive, args=(url, start), daemon=True).start()

    def take(self, seconds: float) -> Any:
        """Return the next thing.

        Raises:
            _Trouble: The connection broke, or nothing arrived in time.

        """
        try:
            arrived = self._arrived.get(timeout=max(min(seconds, 2 * _TIMEOUT), 0.001))
        except queue.Empty:
            raise _Trouble("nothing arrived in time") from None
        if isinstance(arrived, Exception):
            raise _Trouble(shorten(arrived)) from arrived
        return arrived

    def stop(self) -> None:
        """Let the thread end."""
        self._stopped.set()

    def _put(self, thing: Any) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._arrived.put(thing, timeout=0.1)
                return

    def _receive(self, url: str, start: int) -> None:
        try:
            import requests  # slow to import and only needed here

            # Without the first header some servers compress, and requests decompresses, what is stored as .gz.
            wanted = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
            with requests.get(url, headers=wanted, stream=True, timeout=_TIMEOUT) as response:
                self._put((response.status_code, {k.lower(): v for k, v in response.headers.items()}))
                # Small pieces: a large one would be lost with a connection that sends byte by byte.
                for piece in response.iter_content(1 << 14):
                    self._put(piece)
                    if self._stopped.is_set():
                        return
            self._put(b"")
        except Exception as error:  # whatever a server's bytes or a strange address lead to
            self._put(error)


def _count(text: str) -> int | None:
    """A header's number of bytes; None where it is none."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def _first(headers: dict[str, str]) -> int | None:
    """The position in the file at which a part begins that a server sends."""
    found = re.match(r"\s*bytes\s+([0-9]{1,18})-", headers.get("content-range", ""))
    return int(found[1]) if found else None


def _total(headers: dict[str, str]) -> int | None:
    """The size of the file, as an answer without a body states it."""
    found = re.match(r"\s*bytes\s+\*/([0-9]{1,18})\s*$", headers.get("content-range", ""))
    return int(found[1]) if found else None


def _parse_wait(text: str) -> float:
    """Seconds that a server asks to wait, as a number or a date; what is neither is no wait."""
    if (seconds := _count(text)) is not None:
        return float(seconds)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError, OverflowError, IndexError):
        return 0.0


@contextmanager
def _bar(name: str, show: bool) -> Iterator[Any]:
    """A function that shows how many bytes of how many are there."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not show, transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)
