"""Options that several commands share; tyro turns them into flags and help texts."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from energax.recipes.settings import Settings


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Train one network by one recipe and report how well, how far from equilibrium, and how far from backprop.

    Values in brackets are those of the recipe that stands on this command line.
    """

    data: Annotated[str, tyro.conf.arg(help="data set: see `energax data`")] = "digits"
    recipe: Annotated[str, tyro.conf.arg(help="algorithm: see `energax recipes`")] = "pc-nudge"
    epochs: Annotated[
        int | None, tyro.conf.arg(help="passes over the training rows (30 on digits, elsewhere the recipe's own)")
    ] = None
    seed: Annotated[int, tyro.conf.arg(help="fixes parameters, order of rows and augmentations")] = 0
    out: Annotated[Path | None, tyro.conf.arg(help="run folder (runs/RECIPE-DATA-SEED if left out)")] = None
    resume: Annotated[
        Path | None, tyro.conf.arg(help="continue the run in this folder; only --epochs may be changed")
    ] = None
    json: Annotated[bool, tyro.conf.arg(help="print the result as one last line of JSON")] = False
    settings: Annotated[Settings, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Settings)


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """Train several recipes with several seeds on the same splits, and print one table and draw one picture.

    Settings that are left out are each recipe's own: see `energax recipes NAME`.
    """

    recipes: Annotated[str, tyro.conf.arg(help="recipes, separated by commas")] = "backprop,pc-nudge,ep"
    data: Annotated[str, tyro.conf.arg(help="data set: see `energax data`")] = "digits"
    seeds: Annotated[int, tyro.conf.arg(help="number of seeds, from 0")] = 3
    epochs: Annotated[
        int | None, tyro.conf.arg(help="passes over the training rows (30 on digits, elsewhere the recipe's own)")
    ] = None
    out: Annotated[Path | None, tyro.conf.arg(help="folder (runs/compare-DATA if left out); what is done is kept")] = (
        None
    )
    json: Annotated[bool, tyro.conf.arg(help="print the table as one last line of JSON")] = False
    settings: Annotated[Settings, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Settings)


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """List the data sets and where they would be read from, or fetch one."""

    fetch: Annotated[str | None, tyro.conf.arg(help="data set to make available, by download if need be")] = None


@dataclasses.dataclass(frozen=True)
class RecipesOptions:
    """List the recipes, or the settings of one of them with their flags."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(help="one recipe")] = None


@dataclasses.dataclass(frozen=True)
class ReproduceOptions:
    """Reproduce figures and tables of papers: picture, numbers, and a verdict on every claim.

    With the name of one experiment its own settings are options too: see `energax reproduce NAME --help`.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(help="experiments: see --list")] = ()
    list: Annotated[bool, tyro.conf.arg(help="list the experiments")] = False
    all: Annotated[bool, tyro.conf.arg(help="run all of them that were run in full before")] = False
    small: Annotated[bool, tyro.conf.arg(help="smaller settings, about a minute each, without any download")] = False
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            help="folder of the results' folders (results; runs/small with --small, runs/own with settings of your own)"
        ),
    ] = None
    redraw: Annotated[bool, tyro.conf.arg(help="draw and judge again from the numbers that are there")] = False
    json: Annotated[bool, tyro.conf.arg(help="print the reports as one last line of JSON")] = False
    settings: tyro.conf.Suppress[Any] = None


def with_settings(given: Any) -> type[ReproduceOptions]:
    """`ReproduceOptions` with the settings of one experiment among the options, as they are where they are left out."""
    field = (Annotated[type(given), tyro.conf.arg(name="")], dataclasses.field(default=given))
    made = dataclasses.make_dataclass(
        "ReproduceOptions", [("settings", *field)], bases=(ReproduceOptions,), frozen=True, kw_only=True
    )
    made.__doc__ = ReproduceOptions.__doc__
    return made
