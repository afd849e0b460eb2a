"""The command line in this process, in a folder of its own, with networks of 16 units."""

import json
from types import SimpleNamespace

import pytest

from energax.cli import main

SMALL = ("--hidden", "16", "--batch", "100")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in an empty folder, and forget the machine's own data sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENERGAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ENERGAX_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


@pytest.fixture
def energax(capsys):
    """Run a command; returns its exit code and what it wrote."""

    def run(*words, small=False):
        capsys.readouterr()
        code = main([*map(str, words), *(SMALL if small else ())])
        told = capsys.readouterr()
        return SimpleNamespace(code=code, out=told.out, err=told.err)

    return run


@pytest.fixture
def read():
    """A JSON file or text, refusing NaN and Infinity, which JSON does not have."""

    def parse(text):
        text = text if isinstance(text, str) else text.read_text()
        return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))

    return parse
