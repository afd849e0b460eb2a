"""What the benchmarks share: the options of those that train on a data set, and the place of their reports."""

import argparse
import json
from pathlib import Path
from typing import Any

OUT = Path("results/bench")


def options_of(doc: str | None, **more: Any) -> argparse.Namespace:
    """The data set, the epochs, and further options with their default values."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"data": "mnist", "epochs": 5, **more}.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    return parser.parse_args()


def write(name: str, report: dict[str, Any]) -> None:
    """Write `results/bench/NAME.json`."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
