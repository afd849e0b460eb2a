"""How large the code is, and how much of it one step needs: counted, never estimated.

`python -m benchmarks.measures` prints a table of this tree and writes `measures.json`. `--tree PATH` counts another
tree, and `--before PATH` counts an older one beside it (`git worktree add PATH 5478fa5` makes one to compare with).
What the numbers are:

- lines of code: lines that hold a token of code, so neither docstrings nor comments nor blank lines;
- core: graph, dynamics, solvers with their coordinates, rules and diagnostics; in an older tree what became of them;
- rooms: packages and modules directly below `energax`; an arrow says that one imports from another;
- files of a step: those of the package of which a function is called while one update of `pc-nudge` is traced;
- share of comments: lines that hold a comment, over lines that hold a comment or code.
"""

import ast
import io
import json
import os
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from benchmarks.reports import options_of, write

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src") / "energax"

NOW = {
    "graph": ["graph"],
    "dynamics": ["dynamics"],
    "solvers": ["solvers"],
    "rules": ["rules"],
    "diagnostics": ["diagnostics"],
}
OLDER = {  # where the same things lay before the rooms were made, up to commit 5478fa5
    "graph": [
        *("graph.py", "networks.py", "parametrisation.py", "rounding.py", "stacking.py"),
        *("structure.py", "sweeping.py", "topology.py", "unrolling.py", "wiring.py"),
    ],
    "dynamics": ["dynamics.py", "phase.py", "energies"],
    "solvers": ["solvers", "coordinates"],
    "rules": ["rules"],
    "diagnostics": ["regime.py"],
}
HARDEST = {  # the logic that is hardest to read, as it is called now and as it was called
    "engine": ["solvers/engine.py"],
    "plane search": ["solvers/plane.py", "solvers/search.py"],
    "sweep": ["graph/sweep.py", "sweeping.py"],
}

STEP = """
import sys
import equinox as eqx, jax, jax.numpy as jnp
from energax import Batch
from energax.recipes import make_learner
from energax.training.learner import begin, update

learner, _ = make_learner("pc-nudge", (8, 8, 1), 10)
progress = begin(learner)
x, y = jnp.zeros((20, 8, 8, 1)), jax.nn.one_hot(jnp.arange(20) % 10, 10)
files = set()
sys.setprofile(lambda frame, event, argument: files.add(frame.f_code.co_filename))
eqx.filter_eval_shape(update, learner, progress, Batch(x, y, jax.random.key(0)))
sys.setprofile(None)
print("\\n".join(sorted(files)))
"""


def main() -> None:
    """Count one tree, or two."""
    options = options_of(__doc__, tree=str(ROOT), before="")
    report = {"after": measure(Path(options.tree))}
    if options.before:
        report = {"before": measure(Path(options.before)), **report}
    columns = {name: dict(flatten(measures)) for name, measures in report.items()}
    print(f"{'':32}" + "".join(f"{name:>10}" for name in columns))
    for row in columns["after"]:
        print(f"{row:32}" + "".join(f"{column[row]!s:>10}" for column in columns.values()))
    print(json.dumps(report))
    write(options.out, "measures", report)


def measure(tree: Path) -> dict:
    """All measures of the tree below this folder."""
    package = tree / PACKAGE
    core = NOW if (package / "graph").is_dir() else OLDER
    lines = {room: sum(count_code(file) for file in sources(package, places)) for room, places in core.items()}
    arrows = find_arrows(package)
    touched = files_of_a_step(tree)
    return {
        "core_lines_of_code": sum(lines.values()),
        "core_lines_of_code_by_room": lines,
        "root_modules": len([file for file in package.glob("*.py") if not file.stem.startswith("__")]),
        "rooms": len(rooms_of(package)),
        "arrows_between_rooms": len(arrows),
        "files_of_a_step": len(touched),
        "wheel_lines": sum(len(file.read_text(encoding="utf-8").splitlines()) for file in package.rglob("*.py")),
        "percent_comments": {
            name: share_of_comments(next(package / place for place in places if (package / place).exists()))
            for name, places in HARDEST.items()
        },
        "which_files": touched,
    }


def flatten(measures: dict) -> Iterator[tuple[str, float]]:
    """Names and numbers for the table; lists of names are left to the report."""
    for name, value in measures.items():
        if isinstance(value, dict):
            yield from ((f"{name.replace('_', ' ')}, {part}", number) for part, number in value.items())
        elif not isinstance(value, list):
            yield name.replace("_", " "), value


def sources(package: Path, places: list[str]) -> Iterator[Path]:
    """The Python files at these places, folders with all that is below them."""
    for place in places:
        path = package / place
        yield from path.rglob("*.py") if path.is_dir() else [path]


def count_code(file: Path) -> int:
    """Lines of code."""
    return len(code_and_comments(file)[0])


def share_of_comments(file: Path) -> float:
    """Lines with a comment, in percent of those with a comment or code."""
    code, comments = code_and_comments(file)
    return round(100 * len(comments) / len(code | comments), 1)


def code_and_comments(file: Path) -> tuple[set[int], set[int]]:
    """Numbers of the lines that hold code, and of those that hold a comment."""
    text = file.read_text(encoding="utf-8")
    strings = lines_of_bare_strings(ast.parse(text))
    code: set[int] = set()
    comments: set[int] = set()
    nothing = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in nothing and token.start[0] not in strings:
            code |= set(range(token.start[0], token.end[0] + 1))
    return code, comments


def lines_of_bare_strings(tree: ast.AST) -> set[int]:
    """Lines of the docstrings: of statements that are a string and nothing else."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def rooms_of(package: Path) -> set[str]:
    """Names directly below the package."""
    modules = {file.stem for file in package.glob("*.py") if not file.stem.startswith("__")}
    return modules | {folder.parent.name for folder in package.glob("*/__init__.py")}


def find_arrows(package: Path) -> set[tuple[str, str]]:
    """Which room imports from which, imports for the type checker among them."""
    rooms, arrows = rooms_of(package), set()
    for file in package.rglob("*.py"):
        room = file.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                paths = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                paths = [alias.name for alias in node.names]
            else:
                continue
            for path in paths:
                parts = path.split(".")
                if parts[0] == "energax" and len(parts) > 1 and {room, parts[1]} <= rooms and room != parts[1]:
                    arrows.add((room, parts[1]))
    return arrows


def files_of_a_step(tree: Path) -> list[str]:
    """Files of the package of which something is called while one update of `pc-nudge` is traced."""
    environment = {**os.environ, "PYTHONPATH": str((tree / "src").resolve()), "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run([sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=True)
    package = (tree / PACKAGE).resolve()
    return sorted(str(Path(f).relative_to(package)) for f in ran.stdout.splitlines() if Path(f).is_relative_to(package))


if __name__ == "__main__":
    main()
