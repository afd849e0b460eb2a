"""The public names of a package, read from its sources without importing it: what the reference shows, a page a room.

A name is public when a package declares it: in `__all__`, or by importing it under its own name in `__init__.py`
(`from a.b import C as C`). A package below the root is a room and gets a page; so does a single module. Of a module
without `__all__`, its own classes, functions and documented constants are public; but where the root imports names from
it and not the whole, only those names.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

NOT_FOR_IMPORT = {"cli"}  # described by `--help`


class UndocumentedError(Exception):
    """Public names lack a docstring, are defined nowhere, or name two things; the message lists them."""


@dataclass(frozen=True)
class Entry:
    """One public name: where it is imported from, where it is defined, and the first line of its docstring."""

    path: str
    origin: str
    summary: str
    is_module: bool

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Page:
    """One page of the reference: a module, its docstring, and its public names in the order of their declaration."""

    path: str
    docstring: str
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """The path without the package's own name, unless it is all of it."""
        return self.path.partition(".")[2] or self.path

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return first_line(self.docstring)


class Module:
    """A source file: its docstring, what it defines, what it imports under the same name, and its `__all__`.

    Attributes:
        definitions: Docstring (None: there is none) of every class, function and constant, by name.
        exports: Origin of every name imported under itself, by name.
        declared: The names of `__all__`; None without one.
    """

    def __init__(self, path: str, file: Path):
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
        self.path = path
        self.is_package = file.name == "__init__.py"
        self.docstring = ast.get_docstring(tree)
        self.definitions: dict[str, str | None] = {}
        self.constants: set[str] = set()
        self.exports: dict[str, str] = {}
        self.declared: list[str] | None = None
        for node, following in zip_longest(tree.body, tree.body[1:]):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                self.definitions[node.name] = ast.get_docstring(node)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                same = [alias.name for alias in node.names if alias.name == alias.asname]
                self.exports |= {name: f"{node.module}.{name}" for name in same}
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                self._read_assignment(node, following)

    def _read_assignment(self, node: ast.Assign | ast.AnnAssign, following: ast.stmt | None) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if not isinstance(target, ast.Name):
                continue
            if target.id == "__all__" and node.value is not None:
                self.declared = list(ast.literal_eval(node.value))
                continue
            self.constants.add(target.id)
            self.definitions[target.id] = string_of(following)

    def public(self) -> list[str]:
        """The names that this module declares public, in its order.

        A single module without `__all__` declares its classes and functions, and the constants that have a docstring.
        """
        if self.declared is not None:
            return self.declared
        own = [name for name in self.definitions if not name.startswith("_")]
        if self.is_package:
            return [*self.exports, *own]
        return [name for name in own if name not in self.constants or self.definitions[name]]


def string_of(node: ast.stmt | None) -> str | None:
    """The text of a statement that is one string, as stands below a documented constant."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return None


def first_line(docstring: str) -> str:
    """The first sentence-like part of a docstring: its first paragraph on one line."""
    return " ".join(docstring.strip().split("\n\n")[0].split())


class Sources:
    """The modules below one folder, each parsed once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._modules: dict[str, Module] = {}

    def find(self, path: str) -> Module | None:
        """The module or package of this dotted path, if there is one."""
        if path not in self._modules:
            stem = self.folder.joinpath(*path.split("."))
            file = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
            if not file.is_file():
                return None
            self._modules[path] = Module(path, file)
        return self._modules[path]

    def origin(self, path: str) -> str | None:
        """Where the object of this dotted path is defined, or None: follows re-exports to the definition."""
        parent, _, name = path.rpartition(".")
        module = self.find(parent) if parent else None
        if module is not None and name in module.definitions:
            return path
        if module is not None and name in module.exports and module.exports[name] != path:
            return self.origin(module.exports[name])
        return path if self.find(path) is not None else None

    def whole(self, origin: str) -> Module | None:
        """The module that is defined at this path; None for an object, also where a module has the same path."""
        parent, _, name = origin.rpartition(".")
        module = self.find(parent) if parent else None
        return None if module is not None and name in module.definitions else self.find(origin)

    def docstring(self, origin: str) -> str | None:
        """Docstring of what is defined at this path: a module, or an object of a module."""
        whole = self.whole(origin)
        if whole is not None:
            return whole.docstring
        parent, _, name = origin.rpartition(".")
        module = self.find(parent)
        return None if module is None else module.definitions[name]

    def children(self, path: str) -> Iterator[str]:
        """Dotted paths of the public modules and packages directly below a package."""
        for file in sorted(self.folder.joinpath(*path.split(".")).iterdir()):
            is_module = file.suffix == ".py" or (file / "__init__.py").is_file()
            if is_module and not file.name.startswith("_"):
                yield f"{path}.{file.stem}"


def reference_pages(folder: Path, package: str) -> list[Page]:
    """Every page of the reference of the package whose sources lie in `folder`, sorted by path.

    Raises:
        UndocumentedError: A public name, or a module that gets a page, has no docstring, no definition or two.
    """
    sources = Sources(folder)
    root = sources.find(package)
    if root is None:
        raise UndocumentedError(f"{folder} holds no package {package}")
    at_root = {name: sources.origin(f"{package}.{name}") for name in root.public() if name[0] != "_"}
    lists = {page: names_of(page, sources, set(at_root.values())) for page in sources.children(package)}
    listed = [*at_root.values(), *(sources.origin(name) for names in lists.values() for name in names)]
    for module in [origin for origin in listed if origin is not None and sources.whole(origin) is not None]:
        lists.setdefault(module, names_of(module, sources, {module}))  # a module among the names has a page of its own
    shown = {sources.origin(name) for names in lists.values() for name in names}
    for name, origin in at_root.items():  # what the root takes from within a room joins the room's page
        if origin is not None and origin not in shown and sources.whole(origin) is None:
            room = package if origin == f"{package}.{name}" else f"{package}.{origin.split('.')[1]}"
            lists.setdefault(room, []).append(f"{package}.{name}")

    faults: list[str] = [f"{package}.{name} is defined nowhere" for name, origin in at_root.items() if origin is None]
    pages = []
    for path, names in sorted(lists.items()):
        if not names:
            continue
        module = sources.find(path)
        assert module is not None
        if not module.docstring:
            faults.append(f"{path} has no docstring")
        pages.append(Page(path, module.docstring or "", tuple(entries_of(names, sources, faults))))
    if faults:
        raise UndocumentedError("public names that cannot be documented:\n  " + "\n  ".join(faults))
    return pages


def names_of(path: str, sources: Sources, at_root: set[str | None]) -> list[str]:
    """Dotted paths of what one module shows: see the head of this file."""
    module = sources.find(path)
    assert module is not None
    if path.split(".")[1] in NOT_FOR_IMPORT:
        return []
    names = [f"{path}.{name}" for name in module.public()]
    taken = [name for name in names if name in at_root]
    chosen = not module.is_package and module.declared is None and path not in at_root and taken
    return taken if chosen else names


def entries_of(names: list[str], sources: Sources, faults: list[str]) -> Iterator[Entry]:
    """The entries of these dotted paths; what is wrong with one is added to `faults`."""
    for name in names:
        origin = sources.origin(name)
        docstring = None if origin is None else sources.docstring(origin)
        if origin is None:
            faults.append(f"{name} is defined nowhere")
        elif sources.find(origin) is not None and sources.whole(origin) is None:
            faults.append(f"{origin} is a module and something defined in the package above it: rename one")
        elif not docstring:
            faults.append(f"{name} (defined as {origin}) has no docstring")
        else:
            yield Entry(name, origin, first_line(docstring), sources.whole(origin) is not None)
