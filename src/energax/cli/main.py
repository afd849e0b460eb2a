"""The entry point: parses the command line, runs the command, and turns errors into one line."""

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import tyro

from energax.cli import compare, listing, reproduce, train
from energax.cli.options import (
    CompareOptions,
    DataOptions,
    RecipesOptions,
    ReproduceOptions,
    TrainOptions,
)
from energax.exceptions import EnergaxError
from energax.recipes import complete_settings

COMMANDS: dict[type, Callable] = {
    TrainOptions: train.train,
    CompareOptions: compare.compare,
    DataOptions: listing.data,
    RecipesOptions: listing.recipes,
    ReproduceOptions: reproduce.reproduce,
}
RESUMPTIONS: dict[type, str] = {
    ReproduceOptions: "finished parts are kept, the same command continues",
    CompareOptions: "finished epochs are kept, the same command continues",
    object: "finished epochs are kept, continue with --resume FOLDER",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words of the command line; those of the process if left out.

    Returns:
        0; 2 after an error that the user can mend, told in one line on standard error; 130 after an interruption.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        print(f"energax {version('energax')}")
        return 0
    try:
        train_options, reproduce_options = show_values(words), reproduce.open_settings(words)
    except EnergaxError as error:
        print(f"energax: {error}", file=sys.stderr)
        return 2
    options = tyro.extras.subcommand_cli_from_dict(
        {
            "train": train_options,
            "compare": CompareOptions,
            "data": DataOptions,
            "recipes": RecipesOptions,
            "reproduce": reproduce_options,
        },
        args=words,
        prog="energax",
        description="Energy-based local learning: any energy, any rule, any solver, on any graph.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    try:
        of_kind(COMMANDS, options)(options)
    except EnergaxError as error:
        print(f"energax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = of_kind(RESUMPTIONS, options)
        print(f"energax: interrupted; {kept}", file=sys.stderr)
        return 130
    return 0


def of_kind(table: dict[type, Any], options: Any) -> Any:
    """The entry of the class that the options are of; options of one experiment are of a class derived from it."""
    return next(entry for kind, entry in table.items() if isinstance(options, kind))


def show_values(words: Sequence[str]) -> Callable[..., TrainOptions]:
    """`TrainOptions`; where help is asked for, with the values of the recipe at hand, to be seen in brackets."""
    if not {"-h", "--help"} & set(words):
        return TrainOptions
    recipe = TrainOptions().recipe
    for at, word in enumerate(words):
        if word == "--recipe" and words[at + 1 :]:
            recipe = words[at + 1]
        elif word.startswith("--recipe="):
            recipe = word.removeprefix("--recipe=")
    return functools.partial(TrainOptions, recipe=recipe, settings=complete_settings(recipe)[1])
