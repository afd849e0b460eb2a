"""Shared means of the data tests: an empty cache for each, and a local server that can misbehave."""

import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Point the cache at an empty folder and forget the machine's own data sets."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ENERGAX_CACHE", str(folder))
    monkeypatch.delenv("ENERGAX_DATA", raising=False)
    return folder


@dataclass
class Server:
    """Files by path; `cut` paths get half their body that many times before the whole."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    busy: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


def _handler(server: Server) -> Callable[..., http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append(self.path)
            if server.busy.get(self.path, 0):
                server.busy[self.path] -= 1
                self.send_error(503)
                return
            content = server.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if server.cut.get(self.path, 0):
                server.cut[self.path] -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)

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
        running.shutdown()
        thread.join()
