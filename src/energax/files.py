"""Files written so that nobody ever reads a half of one; `opening` reads them."""

import contextlib
import os
import re
import threading
from pathlib import Path

from energax.exceptions import SaveError

WRITE_REMEDY = "free some space or choose another folder"
NO_FOLDER = "There is no such folder: make it, or choose another"
PART = re.compile(r".+\.[0-9]+-[0-9]+\.part")


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
        nowhere = isinstance(error, (FileNotFoundError, NotADirectoryError))
        raise SaveError(
            f"could not write {path}: {why}. "
            + (NO_FOLDER if nowhere else f"The file that was there before is untouched; {remedy}")
        ) from error


def remove_parts(folder: Path) -> None:
    """Remove what `write_atomically` leaves of the files of a folder where a process is killed while it writes."""
    for path in folder.iterdir():
        if PART.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)
