"""Archives that are unpacked: `.tar.gz` and `.zip`, with members that want to be elsewhere, or to be endless."""

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

from energax.data.archives import unpack

from ..target import Mutation, Target, register

MOST = 20_000_000
CONTENT = {f"data/{index}.bin": bytes([index]) * 3_000 for index in range(6)}
NAMES = (
    *("../evil", "../../sentinel", "/evil", "a/../../evil", "..", "", ".", "data", "data/0.bin", "data/0.bin/x"),
    *("n" * 300, "d/" * 500 + "x", "x" * 60_000, "c:evil", "a\\..\\evil", "\udcff", "\u202e", "a\nb", "~/evil", "a\0b"),
)


def open_archive(folder: Path) -> None:
    path, target = folder / "archive", folder / "to" / "target"
    unpack(path, target, progress=False, most=MOST)
    written = [one for one in target.rglob("*") if not one.is_dir()]
    assert all(one.is_file() and not one.is_symlink() for one in written)
    assert sum(one.stat().st_size for one in written) <= MOST
    assert not [name for name in os.listdir(folder / "to") if name != "target" and not name.endswith(".lock")]


def write_tar(members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as tar:
        for name, content in CONTENT.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write_zip(*members: tuple[str | zipfile.ZipInfo, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    import warnings

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name that comes twice
        for name, content in (*CONTENT.items(), *members):
            archive.writestr(name, content)
    return buffer.getvalue()


def put(make: Callable[[Random], bytes]) -> Mutation:
    """A mutation that writes another archive."""

    def mutate(rng: Random, folder: Path) -> str:
        path = folder / "archive"
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            path.write_bytes(make(rng))
        return make.__name__

    return mutate


def tar_name(rng: Random) -> bytes:
    return write_tar([(tarfile.TarInfo(rng.choice(NAMES)), b"")], rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))


def tar_kind(rng: Random) -> bytes:
    """A link, a device, a pipe, or a member with holes."""
    info = tarfile.TarInfo(rng.choice(["evil", "data/evil", "data/0.bin"]))
    info.type = rng.choice(
        [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE]
    )
    info.linkname = rng.choice(["../../../sentinel", "/etc/passwd", "data/0.bin", "evil", ".."])
    then = tarfile.TarInfo("evil/x")
    return write_tar([(info, b""), (then, b"")])


@cache
def raw_tar(name: str, kind: bytes, size: int, piece: bytes, times: int) -> bytes:
    """A header, and whatever follows it."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(times):
            file.write(piece)
    return buffer.getvalue()


def tar_long_header(rng: Random) -> bytes:
    """A name, or extended fields, of 50 MB."""
    kind = rng.choice([tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
    return raw_tar("././@LongLink", kind, rng.choice([5 * 10**7, 2**33, 10**5]), b"9" * 10**7, 5)


def tar_headers_in_headers(rng: Random) -> bytes:
    """Long names of long names."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5
    one = info.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")
    return raw_tar(info.name, info.type, 5, b"name\0".ljust(512, b"\0") + one * 5_000, 1)


def tar_large(rng: Random) -> bytes:
    return raw_tar("large", tarfile.REGTYPE, rng.choice([5 * 10**7, 2**40, MOST]), bytes(10**7), 5)


def tar_many(rng: Random) -> bytes:
    one = tarfile.TarInfo(rng.choice(["a", "", "d/"]))
    return raw_tar(one.name, one.type, 0, one.tobuf(tarfile.GNU_FORMAT) * 1_000, 20)


def zip_name(rng: Random) -> bytes:
    name = rng.choice([name for name in NAMES if name and (name.isprintable() or name == "a\nb")])
    return write_zip((name.encode("utf-8", "replace").decode(), b"x"))


def zip_kind(rng: Random) -> bytes:
    """Links and devices by their mode."""
    info = zipfile.ZipInfo("evil")
    info.external_attr = rng.choice([0o120777, 0o020666, 0o010666, 0o100644, 0o040755]) << 16
    return write_zip((info, b"../../../sentinel"))


def zip_fields(rng: Random) -> bytes:
    """Another method, an encrypted member, another size: in the directory, in the member's head, or in both."""
    content = bytearray(write_zip())
    field, width = rng.choice([(8, 2), (6, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4)])
    value = rng.choice([0, 1, 9, 12, 14, 93, 97, 99, 0xFFFF, rng.getrandbits(16)]) * rng.choice([1, 1, 65_537])
    at = [place for place in range(len(content) - 46) if content[place : place + 4] == b"PK\x01\x02"]
    for place in at if rng.random() < 0.5 else at[:1]:
        content[place + field : place + field + width] = (value % 256**width).to_bytes(width, "little")
    return bytes(content)


def zip_end(rng: Random) -> bytes:
    """Other numbers in the record at the end."""
    content = bytearray(write_zip())
    at = content.rfind(b"PK\x05\x06") + rng.choice([4, 8, 10, 12, 16, 20])
    content[at : at + 2] = rng.choice([b"\0\0", b"\xff\xff", rng.randbytes(2)])
    return bytes(content)


def zip_packed(rng: Random) -> bytes:
    """Packed in ways that the official archives do not use."""
    return write_zip(kind=rng.choice([zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_STORED]))


def zip_large(rng: Random) -> bytes:
    return large_zip(rng.choice([5 * 10**7, MOST, MOST - 18_000]))


@cache
def large_zip(size: int) -> bytes:
    return write_zip(("large", bytes(size)))


def zip_many(rng: Random) -> bytes:
    """The same bytes under many names."""
    content = write_zip()
    end = content.rfind(b"PK\x05\x06")
    first = content.find(b"PK\x01\x02")
    entries = content[first:end] * 500
    tail = bytearray(content[end:])
    tail[8:10] = tail[10:12] = (3_000).to_bytes(2, "little")
    tail[12:16] = len(entries).to_bytes(4, "little")
    return content[:first] + entries + bytes(tail)


def write(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "archive").write_bytes(content) and None


_TAR = (tar_name, tar_kind, tar_long_header, tar_headers_in_headers, tar_large, tar_many)
_ZIP = (zip_name, zip_kind, zip_fields, zip_fields, zip_end, zip_packed, zip_large, zip_many)
register(Target("tar.gz", "archives", write(write_tar([])), open_archive, tuple(map(put, _TAR))))
register(Target("tar", "archives", write(gzip.decompress(write_tar([]))), open_archive))
register(Target("zip", "archives", write(write_zip()), open_archive, tuple(map(put, _ZIP))))
