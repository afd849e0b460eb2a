"""Servers that answer with anything: the answers of a server are files, one for each connection in turn."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from energax.data.fetch import Remote, download

from ..target import Target, register

PAYLOAD = Random(0).randbytes(50_000)
LIMIT = 0.8  # seconds for a download


def make(folder: Path) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(PAYLOAD)}\r\n\r\n".encode()
    (folder / "0.answer").write_bytes(head + PAYLOAD[:20_000])  # breaks off
    rest = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 20000-49999/50000\r\nContent-Length: 30000\r\n\r\n"
    (folder / "1.answer").write_bytes(rest.encode() + PAYLOAD[20_000:])
    (folder / "2.answer").write_bytes(head + PAYLOAD)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Answer each connection with the next file: at once, or byte by byte if it is called `.drip`."""
    answers = sorted(path for path in folder.iterdir() if path.suffix in (".answer", ".drip"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        over = threading.Event()

        def run() -> None:
            index = 0
            while not over.is_set():
                with suppress(OSError):  # nobody asks, or whoever asked has gone
                    connection, _ = listening.accept()
                    with connection:
                        answer(connection, answers[min(index, len(answers) - 1)] if answers else None)
                    index += 1

        def answer(connection: socket.socket, path: Path | None) -> None:
            connection.settimeout(1)
            connection.recv(10_000)
            usable = path is not None and path.is_file() and not path.is_symlink()
            content = path.read_bytes() if usable and path.stat().st_size < 1 << 22 else b""
            if path is None or path.suffix != ".drip":
                connection.sendall(content)
                return
            for byte in content:
                if over.is_set():
                    return
                connection.sendall(bytes([byte]))
                time.sleep(0.02)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/file"
        finally:
            over.set()
            thread.join()


def open_download(folder: Path) -> None:
    with serve(folder) as url:
        remote = Remote("file", hashlib.md5(PAYLOAD).hexdigest(), (url, url), 60_000)
        before, begun = set(os.listdir(folder)), time.monotonic()
        try:
            path = download(remote, folder, progress=False, attempts=2, backoff=0, limit=LIMIT)
            assert path.read_bytes() == PAYLOAD
        finally:
            assert time.monotonic() - begun < LIMIT + 10  # a busy machine may stand still for a while
            assert set(os.listdir(folder)) - before <= {"file", ".file.part", ".file.lock"}


def change_head(rng: Random, folder: Path) -> str:
    """Another status, or a header with a value that nobody expects."""
    path = rng.choice([one for one in sorted(folder.glob("*.answer")) if one.is_file()] or [folder / "3.answer"])
    odd = ["-1", "1e9", "abc", "", "9" * 50, "5, 6", "0", "50000", "49999", "\u00e9", "x" * 70_000]
    header = rng.choice(
        ["Content-Length", "Content-Range", "Retry-After", "Transfer-Encoding", "Content-Encoding", "X"]
    )
    status = rng.choice([100, 200, 204, 206, 301, 304, 400, 404, 408, 416, 425, 429, 500, 503, 999, "abc", ""])
    value = rng.choice([*odd, "bytes 0-9/10", "bytes 20000-1/2", "bytes */50000", "chunked", "gzip", "1", "Mon, 99"])
    if status == 301:
        header, value = (
            "Location",
            rng.choice(["/file", "file:///etc/passwd", "ftp://x", "http://", "//", "http://[", ""]),
        )
    body = PAYLOAD[rng.choice([0, 20_000]) :]
    path.unlink(missing_ok=True)
    path.write_bytes(f"HTTP/1.1 {status} x\r\n{header}: {value}\r\n\r\n".encode() + body)
    return f"{path.name}: {status}, {header}: {value[:40]}"


def drip(rng: Random, folder: Path) -> str:
    """Byte by byte, so slowly that it never ends."""
    path = folder / "0.answer"
    if path.is_file() and not path.is_symlink():
        path.rename(folder / "0.drip")
    return "drip"


def large_answer(rng: Random, folder: Path) -> str:
    path = rng.choice([folder / "0.answer", folder / "2.answer"])
    if path.is_file() and not path.is_symlink():
        path.write_bytes(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(3_000_000))
    return f"3 MB without a length: {path.name}"


def plant_part(rng: Random, folder: Path) -> str:
    """Something where the part file goes."""
    part = folder / ".file.part"
    if os.path.lexists(part):
        return "a part is there already"
    kind = rng.choice(["right", "wrong", "long", "link", "pipe", "folder"])
    if kind == "link":
        part.symlink_to("../../sentinel")
    elif kind == "pipe":
        os.mkfifo(part)
    elif kind == "folder":
        part.mkdir()
    else:
        part.write_bytes({"right": PAYLOAD[:20_000], "wrong": bytes(20_000), "long": bytes(70_000)}[kind])
    return f"part: {kind}"


register(
    Target(
        "download",
        "downloads",
        make,
        open_download,
        (change_head, change_head, change_head, drip, large_answer, plant_part),
    )
)
