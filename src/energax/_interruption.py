"""Ctrl-C while the command line is still being imported: one line and exit code 130, as later on.

The package's first line imports this module, which watches from then on, where the process is the command line and
nothing else. Imports take seconds, and an exception in the middle of them could be swallowed by whoever imports.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

CODE = 130  # 128 + SIGINT, as shells have it


def is_command() -> bool:
    """Whether this process is `energax` or `python -m energax`, and no program of somebody else's."""
    if sys.argv[:1] == ["-m"]:  # so it is while `python -m` imports the package
        return any(pair == ("-m", "energax") for pair in zip(sys.orig_argv, sys.orig_argv[1:], strict=False))
    return bool(sys.argv) and Path(sys.argv[0]).name in ("energax", "energax.exe")


def leave(signal_number: int, frame: FrameType | None) -> None:
    """End the process at once."""
    os.write(2, b"energax: interrupted\n")
    os._exit(CODE)


def watch_imports() -> None:
    """From here on Ctrl-C ends the process in one line, where the process is the command line and nothing else."""
    if (
        is_command()
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where it is ignored, as under nohup
    ):
        signal.signal(signal.SIGINT, leave)


def watch_no_more() -> None:
    """Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


watch_imports()
