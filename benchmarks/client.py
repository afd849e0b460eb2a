"""The controller's end of a worker: a process that is asked and answers."""

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.devices import CPU, Device
from benchmarks.environments import Absent

ROOT = Path(__file__).parent.parent


class Client:
    """A worker process. It starts in the repository's root, where Python finds `benchmarks`.

    Args:
        command: how to start it.
        device: where it computes.

    Raises:
        Absent: from `ask`, where the worker died or reports a failure.
    """

    def __init__(self, command: list[str], device: Device = CPU):
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed with the process
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, **device.variables},
            )
        except OSError as error:
            raise Absent(f"cannot be started: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, do: str, **message) -> dict:
        """Send one message and wait for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **message}, default=str) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise Absent(f"its worker ended: {self.last_words()}")
        answer = json.loads(line)
        if "failure" in answer:
            raise Absent(answer["failure"])
        return answer

    def last_words(self) -> str:
        """The last line of what the process wrote to its standard error."""
        self.process.wait(timeout=60)
        self.errors.seek(0)
        lines = [line for line in self.errors.read().splitlines() if line.strip()]
        return lines[-1] if lines else f"exit status {self.process.returncode}, no words"

    def close(self) -> None:
        """Hang up, so that the worker ends; end it where it does not."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # a message that a dead worker never took is tried once more
                self.process.stdin.close()
        if self.process.stdout is not None:
            self.process.stdout.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()


def versions(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of distributions as an interpreter sees them."""
    code = (
        "import json,sys;from importlib.metadata import version;print(json.dumps({p:version(p) for p in sys.argv[1:]}))"
    )
    found = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, cwd=Path("/"))
    return json.loads(found.stdout) if found.returncode == 0 else {}
