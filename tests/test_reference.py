"""The reference lists what the package declares public, and refuses what has no documentation."""

import importlib
import importlib.util
import inspect
import sys
import types
from pathlib import Path

import pytest

import energax

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def public_names():
    """The module beside the pages; it is no part of the package."""
    spec = importlib.util.spec_from_file_location("public_names", ROOT / "docs" / "hooks" / "public_names.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["public_names"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["public_names"]


def write(folder: Path, files: dict[str, str]) -> Path:
    """A package `house` below `folder`, from its files."""
    for name, text in files.items():
        file = folder / "house" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


HOUSE = {
    "__init__.py": '"""House."""\n'
    "from house import costs as costs\n"
    "from house.graph import Graph as Graph\n"
    "from house.training.display import Terminal as Terminal\n"
    "from house.single import shown as shown\n"
    'def enter():\n    """In."""\n',
    "costs.py": '"""Costs."""\nclass Cost:\n    """C."""\ndef _hidden(): ...\nLIMIT = 3\nSCALE = 2\n"""A scale."""\n',
    "single.py": '"""Single."""\ndef shown():\n    """Yes."""\ndef helper(): ...\n',
    "whole.py": '"""Whole."""\nfrom house import costs\ndef norm():\n    """Length."""\n',
    "_private.py": "def nothing(): ...\n",
    "graph/__init__.py": '"""G."""\nfrom house.graph import nets as nets\n'
    "from house.graph.graph import Graph as Graph\n",
    "graph/nets.py": '"""Nets."""\nfrom house.graph.graph import Graph\ndef mlp():\n    """A net."""\n',
    "graph/graph.py": '"""Where."""\nclass Graph:\n    """A graph.\n\n    More."""\ndef helper(): ...\n',
    "training/__init__.py": '"""Training."""\n__all__ = ["fit"]\nfrom house.training.loop import fit as fit\n',
    "training/fit.py": "def other(): ...\n",
    "training/loop.py": 'def fit():\n    """Fit."""\n',
    "training/display.py": 'class Terminal:\n    """Show."""\n',
    "bench/__init__.py": '"""Nothing to import."""\n',
    "cli/__init__.py": '"""Commands."""\nfrom house.cli.main import main as main\n',
    "cli/main.py": "def main(): ...\n",
}


def test_pages_follow_the_declarations(public_names, tmp_path):
    """Oracle: the names written down here by hand for a small package with every kind of declaration."""
    pages = public_names.reference_pages(write(tmp_path, HOUSE), "house")
    assert {page.path: [(entry.path, entry.origin) for entry in page.entries] for page in pages} == {
        "house": [("house.enter", "house.enter")],
        "house.costs": [("house.costs.Cost", "house.costs.Cost"), ("house.costs.SCALE", "house.costs.SCALE")],
        "house.graph": [
            ("house.graph.nets", "house.graph.nets"),
            ("house.graph.Graph", "house.graph.graph.Graph"),
        ],
        "house.graph.nets": [("house.graph.nets.mlp", "house.graph.nets.mlp")],
        "house.single": [("house.single.shown", "house.single.shown")],
        "house.training": [
            ("house.training.fit", "house.training.loop.fit"),
            ("house.Terminal", "house.training.display.Terminal"),
        ],
        "house.whole": [("house.whole.norm", "house.whole.norm")],
    }
    assert [(entry.is_module, entry.summary) for entry in pages[2].entries] == [(True, "Nets."), (False, "A graph.")]


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        (
            "graph/graph.py",
            '"""Where."""\nclass Graph: ...\n',
            "house.graph.Graph (defined as house.graph.graph.Graph)",
        ),
        ("costs.py", "class Cost:\n    '''C.'''\n", "house.costs has no docstring"),
        ("training/loop.py", "", "house.training.fit is defined nowhere"),
        ("graph/__init__.py", "def nets():\n    'Nets.'\n", "house.graph.nets is a module and something"),
    ],
)
def test_undocumented_names_are_refused(public_names, tmp_path, file, text, fault):
    """Oracle: the fault that was put in."""
    folder = write(tmp_path, {**HOUSE, file: text})
    with pytest.raises(public_names.UndocumentedError) as caught:
        public_names.reference_pages(folder, "house")
    assert fault in str(caught.value)


def test_reference_of_the_library_is_what_importing_it_gives(public_names):
    """Oracle: the imported package itself, where the reference reads sources."""
    pages = public_names.reference_pages(ROOT / "src", "energax")
    shown = {}
    for entry in (entry for page in pages for entry in page.entries):
        parent, _, name = entry.path.rpartition(".")
        value = getattr(importlib.import_module(parent), name)
        shown[id(value)] = entry
        defined = inspect.isclass(value) or inspect.isfunction(value)
        if defined and value.__module__.startswith("energax."):  # not an alias of another library's class
            assert public_names.first_line(inspect.getdoc(value)) == entry.summary
    missing = [
        name
        for name, value in vars(energax).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and id(value) not in shown
    ]
    assert missing == []
