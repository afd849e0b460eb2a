"""The door for files: what is opened, and what is refused with the file's name."""

import os
import socket

import pytest

from energax.exceptions import DataError, RunError
from energax.opening import is_file, is_folder, open_file, read_bytes, read_json, read_text

REMEDY = "Write it anew."


def put_pipe(path):
    os.mkfifo(path)


def put_folder(path):
    path.mkdir()


def put_device(path):
    path.symlink_to("/dev/zero")


def put_loop(path):
    path.symlink_to(path.name)


def put_dangling(path):
    path.symlink_to("nowhere")


def put_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        one.bind(path.name)
        os.chdir(here)


def put_large(path):
    path.write_bytes(bytes(11))


PLACES = {
    put_pipe: "it is a pipe, and no regular file",
    put_folder: "it is a folder, and no regular file",
    put_device: "it is a device, and no regular file",
    put_socket: "it is a socket, and no regular file",
    put_loop: "cannot be read",
    put_dangling: "cannot be read",
    put_large: "11 bytes, and such a file has at most 10",
}


@pytest.mark.parametrize("put", PLACES)
def test_only_regular_files_of_usual_sizes_are_opened(put, tmp_path):
    """Oracle: the message, which names the file and ends in the remedy."""
    put(tmp_path / "a")
    with pytest.raises(DataError, match=rf"/a: .*{PLACES[put]}.* Write it anew\.$") as caught:
        read_bytes(tmp_path / "a", 10, REMEDY)
    assert str(caught.value).count(REMEDY) == 1
    with pytest.raises(RunError, match=PLACES[put]), open_file(tmp_path / "a", 10, REMEDY, kind=RunError):
        pass


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "missing", "file/below"])
def test_names_that_no_file_has(name, tmp_path):
    """Oracle: there is no such file, and the error is the library's."""
    (tmp_path / "file").touch()
    assert not is_file(tmp_path / name)
    assert not is_folder(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path / name)


def test_links_to_regular_files_are_followed(tmp_path):
    """Oracle: the bytes written."""
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "b").symlink_to("a")
    assert is_file(tmp_path / "b")
    assert read_bytes(tmp_path / "b", 10, REMEDY) == b"0123456789"


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 50_000, b"\xff", b"{", b"", b"9" * 5_000])
def test_what_is_no_json_is_refused(content, tmp_path):
    """Oracle: the message; Python's parser raises RecursionError for arrays in arrays."""
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RunError, match=r"a\.json: cannot be read as JSON .*Write it anew"):
        read_json(tmp_path / "a.json", REMEDY, kind=RunError)
    (tmp_path / "a.json").write_text('{"a": [1]}')
    assert read_json(tmp_path / "a.json", REMEDY) == {"a": [1]}
