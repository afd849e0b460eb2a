"""`energax data` and `energax recipes`."""

import typing

import rich.box
import rich.console
import rich.table

from energax.cli.options import DataOptions, RecipesOptions
from energax.data import available, describe, load_data
from energax.recipes import RECIPES, complete_settings, settings_read
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
        console.print(tabulate_settings(options.name))
        return
    table = rich.table.Table("recipe", "what it is", "settings")
    for name, recipe in RECIPES.items():
        chosen = {key: value for key, value in vars(settings_read(name, SHAPE, 10)).items() if value is not None}
        table.add_row(name, recipe.summary, ", ".join(f"{key} {value}" for key, value in chosen.items()))
    console.print(table)


SHAPE = (28, 28, 1)  # of the images for which the settings are listed: no recipe chooses by it


def tabulate_settings(name: str) -> rich.table.Table:
    """Every setting of a recipe: its flag, its value, and what it is; a dash where it is not set or not read.

    Raises:
        SettingError: an unknown recipe.
    """
    recipe = complete_settings(name)[0]
    read, fields = settings_read(name, SHAPE, 10), typing.get_type_hints(Settings, include_extras=True)
    title = f"{name}: {recipe.summary}"
    table = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    for heading in ("flag", "value"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for setting, annotation in fields.items():
        value = getattr(read, setting)
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else "-" if value is None else str(value)
        table.add_row(f"--{setting.replace('_', '-')}", shown, annotation.__metadata__[0].help)
    return table
