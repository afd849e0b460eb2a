"""Where a data set is looked for, and how it is downloaded: against a server on this machine."""

import dataclasses
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest

from energax.data import DATASETS, Augmentation, available, describe, load_data
from energax.data.fetch import Remote, download, unpack
from energax.exceptions import DataError

# Taken at import, before the fixture that hides the machine's own data sets from the other tests.
REAL_DATA = os.environ.get("ENERGAX_DATA")
MNIST = DATASETS["mnist"]


def quiet(source, root=None, **options):
    return load_data(source, root, progress=False, **options)


def leftovers(folder):
    """Every file and folder below, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


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
    with pytest.raises(DataError, match=r"unknown data set 'imagenet'\. Known: digits, mnist, fashion-mnist"):
        load_data("imagenet")


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
    """Oracle: the bytes served, after two bad answers; two attempts must fail and leave nothing."""
    content = bytes(range(256)) * 1_000
    server.files["/file"] = content
    remote = Remote("file", make.md5(content), (f"{server.address}/file",))
    getattr(server, trouble)["/file"] = 2
    with pytest.raises(DataError, match=r"attempt 2 of 2"):
        download(remote, tmp_path / "two", progress=False, attempts=2, backoff=0)
    assert leftovers(tmp_path / "two") == []
    getattr(server, trouble)["/file"] = 2
    assert download(remote, tmp_path / "three", progress=False, backoff=0).read_bytes() == content
    assert leftovers(tmp_path / "three") == ["file"]


def test_progress_bar_ends_full(server, make, tmp_path, capsys):
    """With the bar shown the file is the same: pooch's reset, update and close are all understood."""
    server.files["/file"] = b"x" * 100_000
    remote = Remote("file", make.md5(b"x" * 100_000), (f"{server.address}/file",))
    assert download(remote, tmp_path, progress=True).stat().st_size == 100_000
    assert capsys.readouterr().out == ""


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


def link(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


EVIL = {
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
    extract = tarfile.TarFile.extractall

    def interrupted(self, path, **options):
        extract(self, path, members=self.getmembers()[:3], **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quiet(source)
    assert os.listdir(cache) == ["cifar-10-binary.tar.gz"]
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
