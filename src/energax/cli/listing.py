"""`energax data` and `energax recipes`."""

import rich.box
import rich.console
import rich.table

from energax.cli.options import DataOptions, RecipesOptions
from energax.data import available, describe, load
from energax.recipes import RECIPES, settings_read


def data(options: DataOptions) -> None:
    """List the data sets, or fetch one."""
    console = rich.console.Console(highlight=False)
    if options.fetch is not None:
        found = load(options.fetch)
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
    """List the recipes and the settings that make them."""
    table = rich.table.Table("recipe", "what it is", "settings")
    for name, recipe in RECIPES.items():
        chosen = {key: value for key, value in vars(settings_read(name, (28, 28, 1), 10)).items() if value is not None}
        table.add_row(name, recipe.summary, ", ".join(f"{key} {value}" for key, value in chosen.items()))
    rich.console.Console(highlight=False).print(table)
