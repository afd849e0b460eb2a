"""What is done to a file of any kind. Each function takes a generator and a folder, and says what it did."""

import gzip
import io
import os
import pickle
import re
import shutil
import socket
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

from PIL import Image

from .target import Mutation

_MOST = 1 << 20  # bytes of a file that is rewritten; larger ones were made by another mutation


def pick_file(rng: Random, folder: Path) -> Path:
    """One file; of many images and a list the list is as likely as all images together."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MOST:
            kinds.setdefault(path.suffix, []).append(path)
    if not kinds:
        path = next(path for n in range(99) if not os.path.lexists(path := folder / f"nothing-{n}"))
        path.touch()
        return path
    return rng.choice(kinds[rng.choice(sorted(kinds))])


def rewrite(change: Callable[[Random, bytes], bytes]) -> Mutation:
    """A mutation of a file's bytes."""

    def mutate(rng: Random, folder: Path) -> str:
        path = pick_file(rng, folder)
        path.write_bytes(change(rng, path.read_bytes()))
        return f"{change.__name__} of {path.relative_to(folder)}"

    return mutate


def replace(put: Callable[[Random, Path], None]) -> Mutation:
    """A mutation that puts something else in the place of a file."""

    def mutate(rng: Random, folder: Path) -> str:
        path = pick_file(rng, folder)
        path.unlink()
        put(rng, path)
        return f"{put.__name__} in the place of {path.relative_to(folder)}"

    return mutate


def flip_bits(rng: Random, content: bytes) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut_off(rng: Random, content: bytes) -> bytes:
    return content[: rng.choice([0, 1, rng.randint(0, len(content)), max(0, len(content) - rng.randint(1, 64))])]


def extend(rng: Random, content: bytes) -> bytes:
    more = rng.choice([1, 16, 5_000, 100_000])
    return content + rng.choice([bytes(more), rng.randbytes(more), content[:more]])


def insert(rng: Random, content: bytes) -> bytes:
    at = rng.randint(0, len(content))
    return content[:at] + rng.randbytes(rng.choice([1, 2, 7, 300])) + content[at:]


def set_number(rng: Random, content: bytes) -> bytes:
    """An extreme number at a place near the beginning or the end, where headers are."""
    width = rng.choice([1, 2, 4, 8])
    values = [0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1, rng.getrandbits(8 * width)]
    value = rng.choice(values).to_bytes(width, rng.choice(["big", "little"]))
    at = rng.randrange(max(1, min(len(content), rng.choice([32, 128, 1024]))))
    if rng.random() < 0.4:
        at = max(0, len(content) - at - width)
    return content[:at] + value + content[at + width :]


def set_digits(rng: Random, content: bytes) -> bytes:
    """Another number where a text has one."""
    found = list(re.finditer(rb"-?[0-9][0-9.]*", content[:50_000]))
    if not found:
        return flip_bits(rng, content)
    one = rng.choice(found)
    odd = [b"-1", b"0", b"1e999", b"NaN", b"9" * 30, b"99999999999", b"1.5", b"true", b'"text"', b"null", b"[]", b""]
    return content[: one.start()] + rng.choice(odd) + content[one.end() :]


def swap_pieces(rng: Random, content: bytes) -> bytes:
    a, b, c = sorted(rng.randint(0, len(content)) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def nest_deeply(rng: Random, content: bytes) -> bytes:
    """Arrays in arrays, in the place of everything or of one number."""
    nest = rng.choice([b"[" * 100_000, b'{"a":' * 100_000, b"[" * 50_000 + b"]" * 50_000])
    return nest if rng.random() < 0.5 else re.sub(rb"[0-9]+", lambda _: nest, content[:50_000], count=1)


def lengthen_names(rng: Random, content: bytes) -> bytes:
    """A word of a text becomes one that no file system takes, or that leads elsewhere."""
    found = list(re.finditer(rb"[A-Za-z_][A-Za-z0-9_.]+", content[:50_000]))
    if not found:
        return flip_bits(rng, content)
    one = rng.choice(found)
    odd = [
        b"n" * 300,
        b"n" * 70_000,
        b"../" * 8 + b"etc/passwd",
        b"/etc/passwd",
        b"a\0b",
        b"\xff\xfe",
        "\u202e".encode(),
    ]
    return content[: one.start()] + rng.choice(odd) + content[one.end() :]


@cache
def other_files() -> tuple[bytes, ...]:
    """Files of other formats, and some that unpack to much more than they are."""
    many, images = [], [Image.new("RGB", (64, 64)), Image.new("L", (9_000, 9_000))]
    for image, kind in [(images[0], kind) for kind in ("EPS", "PNG", "TIFF", "GIF", "BMP", "PPM", "JPEG")] + [
        (images[1], "PNG"),
        (images[1], "JPEG"),
    ]:
        buffer = io.BytesIO()
        image.save(buffer, format=kind)
        many.append(buffer.getvalue())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(100_000_000))
    bomb = gzip.compress(bytes(200_000_000), 1)
    return (*many, packed.getvalue(), bomb, gzip.compress(bomb), pickle.dumps({"a": 1}), b"\x1f\x8b", b"PK", b"")


def another_format(rng: Random, path: Path) -> None:
    path.write_bytes(rng.choice(other_files()))


def pipe(rng: Random, path: Path) -> None:
    os.mkfifo(path)


def link(rng: Random, path: Path) -> None:
    places = [
        "/dev/zero",
        "/dev/null",
        "/dev/random",
        "/proc/self/mem",
        "/nowhere",
        path.name,
        ".",
        "/",
        "../../sentinel",
    ]
    path.symlink_to(rng.choice(places))


def folder(rng: Random, path: Path) -> None:
    path.mkdir()


def nothing(rng: Random, path: Path) -> None:
    """Leave the place empty."""


def unix_socket(rng: Random, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        try:
            one.bind(path.name[:90])
        finally:
            os.chdir(here)


def hole(rng: Random, path: Path) -> None:
    """A file of 100 GB that takes no room."""
    path.touch()
    os.truncate(path, rng.choice([10**9, 10**11]))


def rename(rng: Random, folder: Path) -> str:
    path = pick_file(rng, folder)
    path.rename(
        path.with_name(rng.choice(["n" * 240 + path.suffix, f"x{path.suffix}", f"{path.name}.gz", f"..{path.name}"]))
    )
    return f"rename of {path.relative_to(folder)}"


def swap_files(rng: Random, folder: Path) -> str:
    one, other = pick_file(rng, folder), pick_file(rng, folder)
    first = one.read_bytes()
    shutil.copyfile(other, one) if one != other else None
    other.write_bytes(first)
    return f"swap of {one.relative_to(folder)} and {other.relative_to(folder)}"


_BYTES = (flip_bits, cut_off, extend, insert, set_number, set_digits, swap_pieces, nest_deeply, lengthen_names)
_PLACES = (another_format, another_format, pipe, link, folder, nothing, unix_socket, hole)
# Twice the changes of bytes: they have more outcomes.
GENERAL: tuple[Mutation, ...] = (*map(rewrite, _BYTES * 2), *map(replace, _PLACES), rename, swap_files)


def mutate(rng: Random, folder: Path, own: tuple[Mutation, ...]) -> list[str]:
    """Change a folder in one to three ways."""

    def change() -> str:
        mutation = rng.choice(own if own and rng.random() < 1 / 3 else GENERAL)
        try:
            return mutation(rng, folder)
        except (OSError, RecursionError, ValueError) as error:  # what an earlier change has left cannot be read
            return f"nothing: {error}"

    return [change() for _ in range(rng.choice([1, 1, 1, 2, 3]))]
