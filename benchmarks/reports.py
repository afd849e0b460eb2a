"""What the single measurements share: their options and the place of their reports."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

OUT = Path("runs/bench")  # not under version control: only `--out results/bench` replaces what is


def options_of(doc: str | None, **more: Any) -> argparse.Namespace:
    """Read the command line.

    Args:
        doc: what `--help` says of the measurement.
        more: further options with their default values, whose types they have.

    Returns:
        `out`, the folder of the report, and what `more` names.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the report (%(default)s)")
    for name, value in more.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value, help="(%(default)s)")
    return parser.parse_args()


def write(out: Path, name: str, report: dict[str, Any], indent: int | None = 2) -> None:
    """Write `NAME.json` into the folder, and say so."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(report, indent=indent) + "\n")
    print(f"written to {out / name}.json", file=sys.stderr)
