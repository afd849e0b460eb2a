"""Files written so that nobody ever reads a half of one, and read only where they are files."""

import contextlib
import errno
import os
import stat
import threading
from pathlib import Path

from energax.exceptions import RunError, SaveError

WRITE_REMEDY = "free some space or choose another folder"
READ_REMEDY = "restore it from a copy or start anew"


def write_atomically(path: Path, content: bytes, remedy: str = WRITE_REMEDY) -> None:
    """Write a file so that readers see the old one or the whole new one, whatever happens in between.

    Args:
        path: the file.
        content: all of it.
        remedy: what a message tells to do where it cannot be written.

    Raises:
        SaveError: the disk is full or the folder cannot be written; what was there before is untouched.
    """
    # a name of its own: two processes that write one file must not write into each other's part
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError, ValueError):
            part.unlink()
        if not isinstance(error, (OSError, ValueError)):  # an interruption passes on
            raise
        why = getattr(error, "strerror", None) or error
        raise SaveError(
            f"could not write {path}: {why}. The file that was there before is untouched; {remedy}"
        ) from error


def read_file(path: Path, missing: str, remedy: str = READ_REMEDY) -> bytes:
    """The bytes of a regular file; what is none is not opened, since pipes and devices may never end.

    Args:
        path: the file.
        missing: what a message says where there is no such file.
        remedy: what it tells to do where the file cannot be read.

    Raises:
        RunError: there is no such file, it is no regular one, or it cannot be read.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, and no regular file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise RunError(missing) from error
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a path with a zero byte
        why = getattr(error, "strerror", None) or error or type(error).__name__
        raise RunError(f"cannot read {path}: {why}; {remedy}") from error
