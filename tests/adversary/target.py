"""What is tried: a name, files that are sound, and what opens them."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

GROUPS = ("readers", "archives", "downloads", "edges", "models", "checkpoints", "configs")
Mutation = Callable[[Random, Path], str]  # changes what is in a folder, and says how


@dataclass(frozen=True)
class Target:
    """Something that opens files.

    Attributes:
        name: what the table and `--again` call it.
        group: one of `GROUPS`.
        make: writes a sound set of files into an empty folder. It is called once and copied for every case.
        open: opens the files of such a folder. What it returns has to be sound: it asserts so itself. Whatever it
            writes belongs into that folder.
        mutations: of this kind of file, beside the general ones; drawn for a third of the cases.

    """

    name: str
    group: str
    make: Callable[[Path], None]
    open: Callable[[Path], Any]
    mutations: tuple[Mutation, ...] = ()


TARGETS: dict[str, Target] = {}


def register(target: Target) -> None:
    """Try a target from now on."""
    if target.group not in GROUPS or target.name in TARGETS:
        raise ValueError(f"{target.name}: known already, or its group {target.group!r} is none of {GROUPS}")
    TARGETS[target.name] = target


def load_targets() -> dict[str, Target]:
    """Import every module of `targets/` and return what they registered."""
    package = importlib.import_module(f"{__package__}.targets")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return TARGETS
