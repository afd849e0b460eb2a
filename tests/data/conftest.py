"""Shared means of the data tests: small official layouts, an empty cache, and a server that can misbehave."""

import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from layouts import idx_bytes, md5, write_cifar10, write_cifar100, write_idx, write_tiny


@pytest.fixture
def make():
    """The writers of layouts.py: pytest's importlib mode keeps test files from importing each other."""
    writers = (md5, idx_bytes, write_idx, write_cifar10, write_cifar100, write_tiny)
    return SimpleNamespace(**{writer.__name__: writer for writer in writers})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Point the cache at an empty folder and forget the machine's own data sets."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ENERGAX_CACHE", str(folder))
    monkeypatch.delenv("ENERGAX_DATA", raising=False)
    return folder


@dataclass
class Server:
    """Files by path; `cut` paths get half of what is left of their body that many times before all of it.

    A `busy` path is refused that many times with `status` and `headers`. `ranges` holds what was asked for where not
    all was; a server that does not `resume` sends all in answer. What is `endless` goes on with that piece for ever.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    busy: dict[str, int] = field(default_factory=dict)
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    resume: bool = True
    ranges: list[str] = field(default_factory=list)
    endless: dict[str, bytes] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)


def _handler(server: Server) -> Callable[..., http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append(self.path)
            if server.busy.get(self.path, 0):
                server.busy[self.path] -= 1
                self.send_response(server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                return
            content = server.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            asked, start = self.headers.get("Range"), 0
            if asked:
                server.ranges.append(asked)
            if asked and server.resume:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                whole, content = len(content), content[start:]
                self.send_response(206 if content else 416)
                self.send_header(
                    "Content-Range", f"bytes {start}-{whole - 1}/{whole}" if content else f"bytes */{whole}"
                )
            else:
                self.send_response(200)
            if self.path not in server.endless:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if server.cut.get(self.path, 0):
                server.cut[self.path] -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)
            while self.path in server.endless and not server.over.wait(0.02):
                try:
                    self.wfile.write(server.endless[self.path])
                except OSError:  # nobody listens any more
                    return

        def log_message(self, *args):
            """Keep the test's output quiet."""

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(state)) as running:
        state.address = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        state.over.set()
        running.shutdown()
        thread.join()
