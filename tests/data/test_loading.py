"""Where a data set is looked for, and how it is downloaded: against a server on this machine."""

import contextlib
import dataclasses
import datetime
import email.utils
import gzip
import io
import os
import re
import signal
import socket
import tarfile
import threading
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from energax.data import DATASETS, Augmentation, archives, available, describe, load_data
from energax.data.archives import unpack
from energax.data.fetch import Remote, download
from energax.exceptions import DataError

# Taken at import, before the fixture that hides the machine's own data sets from the other tests.
REAL_DATA = os.environ.get("ENERGAX_DATA")
MNIST = DATASETS["mnist"]


def quiet(source, root=None, **options):
    return load_data(source, root, progress=False, **options)


def leftovers(folder):
    """Every file and folder below, hidden ones too, but the empty ones that keep processes apart."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock")


def served_mnist(make, server, tmp_path):
    """Serve a small MNIST at /good/ and return a source that asks /missing/ first."""
    make.write_idx(tmp_path / "upstream")
    remotes = []
    for path in sorted((tmp_path / "upstream").iterdir()):
        server.files[f"/good/{path.name}"] = path.read_bytes()
        urls = tuple(f"{server.address}/{mirror}/{path.name}" for mirror in ("missing", "good"))
        remotes.append(Remote(path.name, make.md5(path.read_bytes()), urls))
    return dataclasses.replace(MNIST, files=tuple(remotes))


def tar_bytes(folder, name):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, name)
    return buffer.getvalue()


def served_cifar(make, server, tmp_path):
    make.write_cifar10(tmp_path / "upstream" / "cifar-10-batches-bin")
    content = tar_bytes(tmp_path / "upstream" / "cifar-10-batches-bin", "cifar-10-batches-bin")
    server.files["/c.tar.gz"] = content
    remote = Remote("cifar-10-binary.tar.gz", make.md5(content), (f"{server.address}/c.tar.gz",))
    return dataclasses.replace(DATASETS["cifar10"], files=(remote,)), content


def test_names():
    assert available() == ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "tiny-imagenet")
    with pytest.raises(DataError, match=r"unknown data set 'imagenet'; known: digits, mnist, fashion-mnist"):
        load_data("imagenet")
    with pytest.raises(DataError, match=r"unknown data set \['mnist'\]; known: digits"):  # which no table can look for
        load_data(["mnist"])


def test_real_data_of_this_machine():
    """Oracles: published means and standard deviations of the training pixels, and exact class counts.

    MNIST .1307 / .3081 and CIFAR-10 .4914 .4822 .4465 / .2470 .2435 .2616 over all training rows,
    Fashion-MNIST .2860 / .3530; the held-out rows move them by less than .002. Without ENERGAX_DATA the
    embedded digits are checked alone, against scikit-learn's documented mean 4.8842 of all pixels.
    """
    published = {
        "mnist": ([0.1307], [0.3081], 1e-3),
        "fashion-mnist": ([0.2860], [0.3530], 1e-3),
        "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], 1e-3),
        "digits": ([4.8842 / 16], [6.0168 / 16], 1e-2),
    }
    present = [name for name in published if describe(name, REAL_DATA)["found"]]
    assert "digits" in present
    for name in present:
        data = quiet(name, REAL_DATA, download=False)
        mean, std, tolerance = published[name]
        np.testing.assert_allclose(data.mean, mean, atol=tolerance)
        np.testing.assert_allclose(data.std, std, atol=tolerance)
        if name != "digits":
            labels = np.concatenate([data.train.labels, data.validation.labels])
            assert len(data.test) == 10_000
            assert name == "mnist" or set(np.bincount(labels)) == {len(labels) // 10}
        if name == "mnist":
            assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_data_folder_must_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("ENERGAX_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"variable ENERGAX_DATA is '.*nowhere', which is no folder\. Give"):
        load_data("mnist")
    with pytest.raises(DataError, match=r"root is '.*elsewhere', which is no folder"):
        describe("mnist", tmp_path / "elsewhere")


@pytest.mark.parametrize("given", ["~nosuchuser/x", "x" * 5_000, 5, "a\0b"])
def test_what_is_no_folder_is_refused(given, monkeypatch):
    """Oracle: the message names the argument, or the variable."""
    with pytest.raises(DataError, match=r"root is '?.*, which is no folder"):
        load_data("mnist", given)
    if given == "~nosuchuser/x":
        for name in ("ENERGAX_DATA", "ENERGAX_CACHE"):
            monkeypatch.setenv(name, given)
            with pytest.raises(DataError, match=f"{name} is '~nosuch"):
                load_data("mnist")
            monkeypatch.delenv(name)


def test_argument_goes_before_variable(make, tmp_path, monkeypatch):
    make.write_idx(tmp_path / "a" / "mnist", train=12)
    make.write_idx(tmp_path / "b" / "mnist", train=6)
    monkeypatch.setenv("ENERGAX_DATA", str(tmp_path / "a"))
    assert len(quiet("mnist").train) == 10
    assert len(quiet("mnist", tmp_path / "b").train) == 5


def test_download_then_cache(make, server, tmp_path, cache):
    """Oracle: the files served. The first mirror has none of them; the second load must not ask again."""
    source = served_mnist(make, server, tmp_path)
    (tmp_path / "empty").mkdir()
    assert describe(source)["where"].startswith("needs a download")
    first = quiet(source, tmp_path / "empty")
    assert leftovers(cache) == ["mnist", *(f"mnist/{remote.name}" for remote in source.files)]
    assert set(first.checksums.values()) == {"official"}
    asked = len(server.requests)
    assert asked == 8
    again = quiet(source, download=False)
    assert len(server.requests) == asked
    np.testing.assert_array_equal(first.train.images, again.train.images)
    assert describe(source)["where"] == str(cache / "mnist")


def test_damaged_cache_is_fetched_again(make, server, tmp_path, cache):
    source = served_mnist(make, server, tmp_path)
    quiet(source)
    path = cache / "mnist" / source.files[0].name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"the download of {path.name} is switched off"):
        quiet(source, download=False)
    quiet(source)
    assert path.read_bytes() == whole


def test_nothing_anywhere(make, server, tmp_path, cache):
    """Oracle: the contract. The message lists both mirrors, both folders, the cache and what to do."""
    source = served_mnist(make, server, tmp_path)
    server.files.clear()
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError) as caught:
        quiet(source, tmp_path / "mine")
    message = str(caught.value)
    name = source.files[0].name
    for mirror in ("missing", "good"):
        assert f"{server.address}/{mirror}/{name}: 404" in message
    assert "set ENERGAX_DATA=FOLDER" in message
    for place in (tmp_path / "mine" / "mnist", tmp_path / "mine" / "MNIST/raw", cache / "mnist", MNIST.homepage):
        assert str(place) in message
    assert leftovers(cache) == ["mnist"]


def test_switched_off_download(tmp_path, cache):
    with pytest.raises(DataError, match=r"(?s)cifar10: .*switched off.*is not set.*into FOLDER and set"):
        quiet("cifar10", download=False)
    assert not cache.exists()


def test_wrong_checksum_is_refused(server, make, tmp_path):
    server.files["/file"] = b"something else"
    remote = Remote("file", make.md5(b"the file"), (f"{server.address}/file",))
    wrong = make.md5(b"something else")
    with pytest.raises(DataError, match=rf"its MD5 is {wrong}, expected .*refused and deleted"):
        download(remote, tmp_path / "to", progress=False, backoff=0)
    assert leftovers(tmp_path / "to") == []
    assert server.requests == ["/file"]


@pytest.mark.parametrize("trouble", ["cut", "busy"])
def test_retries_after_a_broken_connection(server, make, tmp_path, trouble):
    """Oracle: the bytes served, after two bad answers; two attempts must fail and leave what has arrived."""
    content = bytes(range(256)) * 1_000
    server.files["/file"] = content
    remote = Remote("file", make.md5(content), (f"{server.address}/file",))
    getattr(server, trouble)["/file"] = 2
    with pytest.raises(DataError, match=r"attempt 2 of 2"):
        download(remote, tmp_path / "two", progress=False, attempts=2, backoff=0)
    kept = [".file.part"] if trouble == "cut" else []
    assert leftovers(tmp_path / "two") == kept
    getattr(server, trouble)["/file"] = 2
    assert download(remote, tmp_path / "three", progress=False, backoff=0).read_bytes() == content
    assert leftovers(tmp_path / "three") == ["file"]


def test_progress_bar_ends_full(server, make, tmp_path, capsys):
    """Oracle: the bytes served; the bar is drawn on the error stream alone."""
    server.files["/file"] = b"x" * 100_000
    remote = Remote("file", make.md5(b"x" * 100_000), (f"{server.address}/file",))
    assert download(remote, tmp_path, progress=True).stat().st_size == 100_000
    assert capsys.readouterr().out == ""


CONTENT = bytes(range(256)) * 1_024  # halves of halves are whole pieces


@pytest.fixture
def served(server, make, tmp_path):
    """A file on the server, and a function that downloads it."""
    server.files["/file"] = CONTENT
    remote = Remote("file", make.md5(CONTENT), (f"{server.address}/file",), len(CONTENT))

    def get(remote=remote, **options):
        return download(remote, tmp_path / "to", **{"progress": False, "backoff": 0, **options})

    return SimpleNamespace(remote=remote, get=get, folder=tmp_path / "to", part=tmp_path / "to" / ".file.part")


def test_a_broken_download_goes_on_where_it_stopped(server, served):
    """Oracle: the bytes served, and the ranges asked for: halves of what was left, over two calls."""
    server.cut["/file"] = 2
    with pytest.raises(DataError, match=r"196608 bytes are kept: the same command goes on from there"):
        served.get(attempts=2)
    assert leftovers(served.folder) == [".file.part"]
    assert served.get().read_bytes() == CONTENT
    assert server.ranges == ["bytes=131072-", "bytes=196608-"]
    assert leftovers(served.folder) == ["file"]


@pytest.mark.parametrize("part", [CONTENT[:1_000], CONTENT, b"another file's", CONTENT + b"more"])
@pytest.mark.parametrize("resume", [True, False])
def test_whatever_part_was_left_the_file_is_right(server, served, part, resume):
    """Oracle: the bytes served, whether the server can go on from a byte or not."""
    server.resume = resume
    served.folder.mkdir()
    served.part.write_bytes(part)
    assert served.get().read_bytes() == CONTENT
    assert leftovers(served.folder) == ["file"]


def test_a_part_file_that_is_a_link_is_not_followed(server, served, tmp_path):
    """Oracle: the file that the link leads to."""
    (tmp_path / "mine").write_bytes(CONTENT[:1_000])
    served.folder.mkdir()
    served.part.symlink_to(tmp_path / "mine")
    assert served.get().read_bytes() == CONTENT
    assert (tmp_path / "mine").read_bytes() == CONTENT[:1_000]


@pytest.mark.parametrize("length", ["stated", "not stated"])
def test_more_than_the_official_file_is_refused(server, served, length):
    """Oracle: the known size; a body without end must not fill the disk."""
    server.files["/file"] = CONTENT + b"more"
    if length == "not stated":
        server.endless["/file"] = bytes(20_000)
    with pytest.raises(DataError, match=r"more than 262144 bytes, which the official file has at most"):
        served.get()
    assert leftovers(served.folder) == []
    assert server.requests == ["/file"]


def test_a_download_ends(server, served):
    """Oracle: the limit, against a server that sends a byte now and then; what came is kept."""
    server.files["/file"] = CONTENT[: 1 << 16]
    server.endless["/file"] = b"x"
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"(?s)65\d\d\d bytes are kept.*nothing arrived in time.*0\.5 s are over"):
        served.get(limit=0.5)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("status", "wait", "pause"), [(429, "7", 7), (408, None, 2), (425, "x", 2), (503, "9" * 30, 2)]
)
def test_the_server_may_ask_to_wait(server, served, monkeypatch, status, wait, pause):
    """Oracle: Retry-After where it is a number, else the pause that was asked for."""
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.busy["/file"], server.status, server.headers = 1, status, {"Retry-After": wait} if wait else {}
    assert served.get(backoff=2).read_bytes() == CONTENT
    assert pause in pauses


def test_a_long_wait_is_cut_short(server, served, monkeypatch):
    """Oracle: a minute at most, and none where the time does not suffice."""
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    later = email.utils.format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=9))
    server.busy["/file"], server.status, server.headers = 2, 429, {"Retry-After": later}
    with pytest.raises(DataError, match=r"429 from the server .*there is no time for another"):
        served.get(limit=30)
    served.get()
    assert 60 in pauses
    assert max(pauses) == 60


@pytest.mark.parametrize("length", ["-5", "abc", "1e6", "", "9" * 40])
def test_a_bad_length_does_not_escape(served, length):
    """Oracle: the bytes served; where many more were stated, the library's error first, and then what was kept."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode()
    with one_answer(head + CONTENT) as url:
        remote = dataclasses.replace(served.remote, urls=(url,))
        if length == "9" * 40:
            with pytest.raises(DataError, match=r"262144 bytes are kept"):
                served.get(remote, attempts=1)
        else:
            assert served.get(remote, attempts=1).read_bytes() == CONTENT
    assert served.get().read_bytes() == CONTENT


@contextlib.contextmanager
def one_answer(content):
    """A server that sends these bytes to whoever asks first."""

    def answer():
        connection, _ = listening.accept()
        with connection:
            connection.recv(10_000)
            connection.sendall(content)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/file"
        thread.join()


def test_two_that_want_the_same_file_ask_once(server, served):
    """Oracle: one request, and the bytes served to both."""
    found, threads = [], []
    server.cut["/file"] = 1  # so that the first one takes some time
    for _ in range(2):
        threads.append(threading.Thread(target=lambda: found.append(served.get(backoff=0.2).read_bytes())))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT, CONTENT]
    assert server.requests == ["/file", "/file"]  # the one that was cut, and the rest


def test_an_interrupted_download_says_how_to_go_on(server, served):
    """Oracle: the bytes that had arrived, in the note of the interrupt and in the next request."""
    server.endless["/file"] = b"x"
    server.files["/file"] = CONTENT[:100_000]
    timer = threading.Timer(0.4, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        served.get()
    (note,) = caught.value.__notes__
    assert re.fullmatch(r"file: \d+ bytes are kept: the same command goes on from there\.", note)
    assert served.part.stat().st_size >= 65_536


@pytest.mark.parametrize("name", ["../evil", "/evil", "", "..", "a/b"])
def test_a_file_has_a_plain_name(tmp_path, name):
    """Oracle: nothing is asked for or written."""
    with pytest.raises(DataError, match="no name of a file"):
        download(Remote(name, "", ("http://127.0.0.1:9/file",)), tmp_path / "to", progress=False)
    assert leftovers(tmp_path) == []


def test_no_server_at_all(tmp_path, make):
    remote = Remote("file", make.md5(b""), ("http://127.0.0.1:9/file",))
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/file: .*attempt 2 of 2"):
        download(remote, tmp_path, progress=False, attempts=2, backoff=0)


def test_folder_that_cannot_be_written(tmp_path, make):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"cannot be written .*ENERGAX_CACHE"):
        download(Remote("x", make.md5(b""), ()), tmp_path / "file" / "below", progress=False)


def test_archive_is_downloaded_and_unpacked(make, server, tmp_path, cache):
    source, content = served_cifar(make, server, tmp_path)
    data = quiet(source)
    assert len(data.test) == 4
    assert dict(data.checksums) == {"cifar-10-binary.tar.gz": "official"}
    assert os.listdir(cache) == [make.md5(content)]
    quiet(source, download=False)
    assert server.requests == ["/c.tar.gz"]


def test_archive_in_the_users_folder(make, server, tmp_path, cache):
    """An archive that is not the official one is read, recorded, and later never taken for it."""
    source, content = served_cifar(make, server, tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cifar-10-binary.tar.gz").write_bytes(content)
    official = DATASETS["cifar10"]
    assert describe(official, tmp_path / "mine")["where"].endswith(f"to be unpacked into {cache}")
    data = quiet(official, tmp_path / "mine", download=False)
    assert len(data.test) == 4
    assert "differs from the official checksum c32a1d4a" in data.checksums["cifar-10-binary.tar.gz"]
    with pytest.raises(DataError, match="switched off"):
        quiet(official, download=False)
    assert dict(quiet(source, tmp_path / "mine").checksums) == {"cifar-10-binary.tar.gz": "official"}


def test_archive_without_the_data_set(tmp_path, make):
    (tmp_path / "other").mkdir()
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(tar_bytes(tmp_path / "other", "other"))
    with pytest.raises(DataError, match=r"binary\.tar\.gz: lacks cifar-10-batches-bin/data_batch_1\.bin"):
        quiet("cifar10", tmp_path)


def evil_tar(path, member):
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("good"))
        tar.addfile(member)


def evil_zip(path, name):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("good", "")
        file.writestr(name, "")


def linked_zip(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


def link(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def odd_zip(path, change, kind=zipfile.ZIP_STORED):
    """A zip of one member, with bytes changed at places in its head and its line of the directory."""
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("good", bytes(5_000))
    content = bytearray(path.read_bytes())
    line = content.find(b"PK\x01\x02")
    for head, entry, value in change:
        content[head] = content[line + entry] = value
    path.write_bytes(content)


def tar_of(path, header, *pieces):
    with gzip.open(path, "wb", 1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for piece in pieces:
            file.write(piece)


def member(kind, size=0, name="evil"):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info


EVIL = {
    "tar hard link": lambda path: evil_tar(path, member(tarfile.LNKTYPE)),
    "tar device": lambda path: evil_tar(path, member(tarfile.CHRTYPE)),
    "tar pipe": lambda path: evil_tar(path, member(tarfile.FIFOTYPE)),
    "tar twice": lambda path: evil_tar(path, tarfile.TarInfo("good")),
    "tar file as folder": lambda path: evil_tar(path, tarfile.TarInfo("good/x")),
    "tar long part": lambda path: evil_tar(path, tarfile.TarInfo("n" * 256)),
    "tar deep": lambda path: evil_tar(path, tarfile.TarInfo("d/" * 40 + "x")),
    "tar larger than allowed": lambda path: tar_of(path, member(tarfile.REGTYPE, 10**12), bytes(1_000)),
    "tar long name": lambda path: tar_of(path, member(tarfile.GNUTYPE_LONGNAME, 10**8), *[b"a" * 10**7] * 10),
    "tar long fields": lambda path: tar_of(path, member(tarfile.XHDTYPE, 10**8), *[b"9" * 10**7] * 10),
    "zip encrypted": lambda path: odd_zip(path, [(6, 8, 1)]),
    "zip unknown method": lambda path: odd_zip(path, [(8, 10, 97)]),
    "zip lzma": lambda path: odd_zip(path, [], zipfile.ZIP_LZMA),
    "zip long name": lambda path: evil_zip(path, "n" * 400),
    "zip backslash": lambda path: evil_zip(path, "..\\evil"),
    "zip link": lambda path: evil_zip(path, linked_zip("evil")),
    "tar": lambda path: evil_tar(path, tarfile.TarInfo("../evil")),
    "tar link": lambda path: evil_tar(path, link("a", "../../evil")),
    "zip": lambda path: evil_zip(path, "../evil"),
    "zip deep": lambda path: evil_zip(path, "a/../../evil"),
    "zip absolute": lambda path: evil_zip(path, "/evil"),
}


@pytest.mark.parametrize("kind", EVIL)
def test_members_cannot_escape(tmp_path, kind):
    archive = tmp_path / "archive"
    EVIL[kind](archive)
    with pytest.raises(DataError, match=r"archive: refused, since .*not the official one: delete it"):
        unpack(archive, tmp_path / "in" / "target", progress=False)
    assert leftovers(tmp_path) == ["archive", "in"]


def test_what_archives_unpack_to_is_limited(tmp_path, monkeypatch):
    """Oracle: the ceilings; a megabyte must not fill the disk or the memory."""
    with zipfile.ZipFile(tmp_path / "large.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name in "abc":
            file.writestr(name, bytes(400_000))
    with pytest.raises(DataError, match="its members have more than 1000000 bytes together"):
        unpack(tmp_path / "large.zip", tmp_path / "to", progress=False, most=1_000_000)
    assert unpack(tmp_path / "large.zip", tmp_path / "to", progress=False, most=1_200_000).is_dir()
    with pytest.raises(DataError, match="such a file has at most 1000"):
        unpack(tmp_path / "large.zip", tmp_path / "other", progress=False, most=1_000)
    monkeypatch.setattr(archives, "MOST_MEMBERS", 2)
    (tmp_path / "many.tar.gz").write_bytes(tar_bytes(tmp_path / "to", "to"))
    with pytest.raises(DataError, match="it has more than 2 members"):
        unpack(tmp_path / "many.tar.gz", tmp_path / "other", progress=False)
    assert leftovers(tmp_path) == ["large.zip", "many.tar.gz", "to", "to/a", "to/b", "to/c"]


def test_a_damaged_header_is_not_the_end(tmp_path):
    """Oracle: the archive; what tarfile takes for its end would be half a data set."""
    (tmp_path / "source").mkdir()
    for name in "abc":
        (tmp_path / "source" / name).write_bytes(bytes(512))
    content = bytearray(gzip.decompress(tar_bytes(tmp_path / "source", "source")))
    content[content.find(b"source/b") + 151] ^= 1  # in its checksum
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(DataError, match=r"a\.tar\.gz: damaged"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "to", progress=False)


def test_what_an_ended_process_left_is_removed(tmp_path):
    """Oracle: the listing, after a process was killed while it unpacked."""
    archive = tmp_path / "archive"
    evil_tar(archive, tarfile.TarInfo("fine"))
    (tmp_path / "in" / ".unpacking-target" / "half").mkdir(parents=True)
    unpack(archive, tmp_path / "in" / "target", progress=False)
    assert leftovers(tmp_path / "in") == ["target", "target/fine", "target/good"]


@pytest.mark.parametrize("kind", ["tar", "zip", "noise"])
def test_damaged_archive_leaves_nothing(tmp_path, kind):
    """Oracle: the folder's listing. Half an archive must not leave a folder that passes for a whole one."""
    source = tmp_path / "source"
    source.mkdir()
    for i in range(20):
        (source / str(i)).write_bytes(np.random.default_rng(i).bytes(5_000))
    archive = tmp_path / "archive"
    if kind == "tar":
        archive.write_bytes(tar_bytes(source, "source")[:50_000])
    elif kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in source.iterdir():
                file.write(path, path.name)
        content = bytearray(archive.read_bytes())
        content[60_000] ^= 0xFF  # inside a stored file, so that its CRC is wrong
        archive.write_bytes(bytes(content))
    else:
        archive.write_bytes(b"no archive at all" * 100)
    with pytest.raises(DataError, match=r"(?s)archive: damaged or cut short .*download it again"):
        unpack(archive, tmp_path / "in" / "target", progress=False)
    assert leftovers(tmp_path / "in") == []


def test_interrupted_extraction_is_repeated(make, server, tmp_path, cache, monkeypatch):
    """An interrupt in the midst of unpacking: the next load must unpack anew, not read half a data set."""
    source, _ = served_cifar(make, server, tmp_path)
    extract, members = tarfile.TarFile.extractfile, iter(range(3))

    def interrupted(self, member):
        if next(members, None) is None:
            raise KeyboardInterrupt
        return extract(self, member)

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractfile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quiet(source)
    assert leftovers(cache) == ["cifar-10-binary.tar.gz"]
    assert len(quiet(source).test) == 4
    assert server.requests == ["/c.tar.gz"]


def test_a_source_of_ones_own(make, tmp_path):
    """Oracle: the written rows. A user's data set in a known layout needs facts and no code."""
    make.write_idx(tmp_path / "kuzushiji")
    source = dataclasses.replace(
        MNIST, name="kuzushiji", folders=("kuzushiji",), files=(), augmentation=Augmentation(pad=2)
    )
    data = quiet(source, tmp_path)
    assert (data.name, len(data.train), data.augmentation.pad) == ("kuzushiji", 50, 2)
    with pytest.raises(DataError, match="kuzushiji: it has no address for a download"):
        quiet(source)
