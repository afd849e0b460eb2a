"""`energax data` and `energax recipes`."""

import dataclasses
import math
import typing
from typing import Any

import jax
import numpy as np
import rich.box
import rich.console
import rich.table

from energax.cli.options import SHAPE, DataOptions, RecipesOptions, tell_value
from energax.data import available, describe, load_data
from energax.optimisers import OPTIMISERS
from energax.recipes import RECIPES, complete_settings, make_learner, settings_read
from energax.recipes.settings import Settings


def data(options: DataOptions) -> None:
    """List the data sets, or fetch one."""
    console = rich.console.Console(highlight=False)
    if options.fetch is not None:
        found = load_data(options.fetch)
        console.print(
            f"{found.name}: {len(found.train)} training, {len(found.validation)} validation and "
            f"{len(found.test)} test rows, from {found.origin}",
            soft_wrap=True,
        )
        return
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("name", no_wrap=True)
    for heading in ("training / validation / test", "image", "classes", "where", "terms"):
        table.add_column(heading, overflow="fold")
    for name in available():
        facts = describe(name)
        sizes = facts["sizes"] or facts["official_sizes"]
        table.add_row(
            name,
            " / ".join(map(str, sizes.values())),
            " x ".join(map(str, facts["image_shape"])),
            str(facts["classes"]),
            str(facts["where"]),
            facts["terms"],
        )
    console.print(table)


def recipes(options: RecipesOptions) -> None:
    """List the recipes and the settings that make them, or those of one with flags and help texts."""
    console = rich.console.Console(highlight=False)
    if options.name is not None:
        console.print(tabulate_nouns(options.name))
        console.print(tabulate_settings(options.name))
        return
    table = rich.table.Table("recipe", "what it is", "settings")
    for name, recipe in RECIPES.items():
        chosen = {key: value for key, value in vars(settings_read(name, SHAPE, 10)).items() if value is not None}
        table.add_row(name, recipe.summary, ", ".join(f"{key} {value}" for key, value in chosen.items()))
    console.print(table)


def tabulate_nouns(name: str) -> rich.table.Table:
    """The five nouns that a recipe is made of.

    Raises:
        SettingError: an unknown recipe.
    """
    recipe = complete_settings(name)[0]
    learner, read = make_learner(name, SHAPE, 10)
    sizes = ", ".join(f"{node.name} {'x'.join(map(str, node.shape))}" for node in learner.graph.nodes)
    reads = () if read.optimiser is None else OPTIMISERS[read.optimiser].reads
    own = {"learning_rate": read.learning_rate, **{key: getattr(read, key) for key in reads}}
    told = {
        "graph": f"{read.network}: {sizes}" if read.network else sizes,
        **{noun: tell_module(getattr(learner, noun)) for noun in ("dynamics", "solver", "rule")},
        "optimiser": f"{read.optimiser}({', '.join(f'{key}={value}' for key, value in own.items())})",
    }
    title = f"{name}: {recipe.summary}"
    table = rich.table.Table("noun", title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    table.add_column("for images of 28 x 28 in 10 classes", overflow="fold")
    for noun, text in told.items():
        table.add_row(noun, text)
    return table


def tell_module(value: Any) -> str:
    """An object as it is written in Python, its arrays as numbers; what is None is left out."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        shown = (f"{name}={tell_module(one)}" for name, one in fields.items() if one is not None)
        return f"{type(value).__name__}({', '.join(shown)})"
    if isinstance(value, jax.Array):
        numbers = np.asarray(value)
        if np.iscomplexobj(numbers):  # points on a circle, without the rounding of their sines
            numbers = np.round(numbers, 6 - math.ceil(math.log10(np.abs(numbers).max())))
        return f"{numbers:.4g}" if numbers.ndim == 0 else f"[{', '.join(f'{one:.4g}' for one in numbers)}]"
    return getattr(value, "__name__", None) or repr(value)


def tabulate_settings(name: str) -> rich.table.Table:
    """Every setting of a recipe: its flag, its value, and what it is; a dash where it is not set or not read.

    Raises:
        SettingError: an unknown recipe.
    """
    read, fields = settings_read(name, SHAPE, 10), typing.get_type_hints(Settings, include_extras=True)
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for heading in ("flag", "value"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for setting, annotation in fields.items():
        table.add_row(
            f"--{setting.replace('_', '-')}", tell_value(getattr(read, setting)), annotation.__metadata__[0].help
        )
    return table
