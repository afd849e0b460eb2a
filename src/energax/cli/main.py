"""The entry point: parses the command line, runs the command, and turns errors into one line."""

import contextlib
import functools
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import jax
import tyro

from energax._interruption import CODE, watch_no_more
from energax.cli import compare, listing, reproduce, train
from energax.cli.options import (
    CompareOptions,
    DataOptions,
    RecipesOptions,
    ReproduceOptions,
    TrainOptions,
    with_recipe_values,
)
from energax.exceptions import DivergenceError, EnergaxError, SaveError, SettingError
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
    TrainOptions: "finished epochs are kept, continue with --resume FOLDER",
}
CLOSED = 141  # 128 + SIGPIPE, as shells have it
WRONG, FAILED = 2, 1  # exit codes: what was asked for cannot be done; what was begun did not come to its end
UNDERWAY = (DivergenceError, SaveError)
HELP = frozenset({"-h", "--help"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words of the command line; those of the process if left out.

    Returns:
        0; 2 where the command line, a setting, a file or a folder cannot be used; 1 where a run failed on its way; 130
        after an interruption. Each but the first is told in one line on standard error. 141, without a word, where
        whoever read the output has gone, as shells have it.
    """
    kept = ""
    try:
        watch_no_more()
        words = list(sys.argv[1:] if arguments is None else arguments)
        require_text(words)
        if words == ["--version"]:
            print(f"energax {version('energax')}")
        else:
            options = parse(words)
            kept = next((f"; {text}" for kind, text in RESUMPTIONS.items() if isinstance(options, kind)), "")
            if options is not None:
                next(run for kind, run in COMMANDS.items() if isinstance(options, kind))(options)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        return tell(f"interrupted{kept}", CODE)
    except UNDERWAY as error:
        return tell(f"{error}{kept if isinstance(error, SaveError) else ''}", FAILED)
    except EnergaxError as error:
        return tell(error, WRONG)
    except BrokenPipeError:
        discard_output()
        return CLOSED
    except SystemExit as ended:  # which no command raises: it is rich's way out where the output's reader has gone
        return CLOSED if ended.code == 1 else int(ended.code or 0)
    except OSError as error:  # what nobody foresaw: a device, or standard output, that takes no more
        discard_output()
        where = f"{error.filename}: " if error.filename else "standard output, or a file: "
        return tell(f"{where}{error.strerror or error}{kept}", FAILED)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return tell(f"there is not enough memory: lower --batch, or take a smaller network{kept}", FAILED)


def tell(message: object, code: int) -> int:
    """Say in one line what is wrong, if there is anywhere to say it; returns the exit code."""
    with contextlib.suppress(OSError):
        print(f"energax: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
    return code


def discard_output() -> None:
    """Forget what standard output would not take, so that the interpreter does not try again when it ends."""
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def require_text(words: Sequence[str]) -> None:
    """Refuse words that no terminal or file can show: bytes that are no UTF-8, and the character NUL."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise SettingError(f"{word!r} on the command line is no text in UTF-8: give it in UTF-8") from error
        if "\0" in word:
            raise SettingError(f"{word!r} on the command line holds a NUL: leave it out")


def parse(words: Sequence[str]) -> Any:
    """The options of the command that the words ask for; None where they ask for help, which is then given.

    Raises:
        SettingError: words that are no command with its options; the message is the parser's.
    """
    helped = bool(HELP & set(words))
    named = reproduce.named_experiment(words)
    kinds: dict[str, Any] = {
        "train": show_values(words) if helped else TrainOptions,
        "compare": with_recipe_values(CompareOptions) if helped and words[0] == "compare" else CompareOptions,
        "data": DataOptions,
        "recipes": RecipesOptions,
        "reproduce": reproduce.open_settings(words),
    }
    if helped and named:  # whose name stands in the usage
        kinds = {f"reproduce {named}": kinds["reproduce"]}
        words = [f"reproduce {named}", "--help"]
    told = io.StringIO()
    try:
        with contextlib.nullcontext() if helped else wide_lines(), contextlib.redirect_stderr(told):
            return tyro.extras.subcommand_cli_from_dict(
                kinds,
                args=words,
                prog="energax",
                description="Energy-based local learning: any energy, any rule, any solver, on any graph.",
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as ended:
        if ended.code:
            raise SettingError(summarise(told.getvalue())) from ended
        return None
    except (OverflowError, RecursionError, ValueError) as error:  # a value that the parser's own converters let through
        raise SettingError(f"{error}: see energax --help") from error


@contextlib.contextmanager
def wide_lines() -> Iterator[None]:
    """Let the parser write its messages without breaking them."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def summarise(text: str) -> str:
    """The parser's message as one line: what is wrong, and what may have been meant.

    The parser draws a frame of parts, with rules between them: the title, which stands in the frame's upper edge where
    standard output takes its characters, then what is wrong, then advice.
    """
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        inner = line.strip("│ ")
        if re.fullmatch(r"[─-]{3,}", inner):
            parts.append([])
        elif inner and inner[0] not in "╭╰":
            parts[-1].append(inner)
    if not text.startswith("╭") and len(parts) > 1:
        parts.pop(0)
    advice = ""
    for head, *lines in filter(None, parts[1:]):
        if head == "Perhaps you meant:":
            near = [line.split()[0] for line in lines if line.startswith("--")]
            advice += f"; perhaps you meant {' or '.join(dict.fromkeys(near))}"
        elif head.startswith("Available subcommands: "):
            advice += f"; known: {head.partition(': ')[2]}"
        elif found := re.search(r"(?:see|run) (energax.*--help)", head):
            advice += f"; see {found[1]}"
    message = tell_kind(" ".join(parts[0]).removesuffix("."))
    if choices := re.search(r"Expected one of \((.*)\)$", message):  # which the parser lists in no order
        names = sorted(set(re.findall(r"'([^']*)'", choices[1])) - {"None"})
        message = f"{message[: choices.start()].rstrip('. ')}: give one of {', '.join(names)}"
    return message[:1].lower() + message[1:] + advice


def tell_kind(message: str) -> str:
    """The parser's message with the kind of a value in words, where it tells of Python's types and of all its tries."""
    tried = re.search(r"no type matching (.*) could be instantiated from \[(.*?)\]\. Got errors: .*", message)
    if tried:
        kind = "number" if "FLOAT" in tried[1] else "whole number" if "INT" in tried[1] else "value of it"
        several = "s" if "[" in tried[1] else ""
        return f"{message[: tried.start()]}{tried[2]}: give {'' if several else 'a '}{kind}{several}"
    plain = re.search(
        r"(?:invalid literal for (int)\(\) with base 10|could not convert string to float): (.*)", message
    )
    if plain:
        return f"{message[: plain.start()]}{plain[2]}: give a {'whole number' if plain[1] else 'number'}"
    return message


def show_values(words: Sequence[str]) -> Callable[..., TrainOptions] | type[TrainOptions]:
    """`TrainOptions` with values to be seen in brackets: of the recipe at hand, or of all where none is named."""
    recipe = None
    for at, word in enumerate(words):
        if word == "--recipe" and words[at + 1 :]:
            recipe = words[at + 1]
        elif word.startswith("--recipe="):
            recipe = word.removeprefix("--recipe=")
    if recipe is None:
        return with_recipe_values(TrainOptions)
    return functools.partial(TrainOptions, recipe=recipe, settings=complete_settings(recipe)[1])
