"""The results as a page."""

from collections.abc import Callable
from typing import Any

from energax.training.pages import write_row

Row = dict[str, Any]


def digits(value: float | None, form: str = ".3g") -> str:
    """A number, or a dash where there is none."""
    if value is None or value != value:
        return "-"
    text = format(value, form)
    return format(float(text), "g") if "e+" in text else text


def percent(value: float | None) -> str:
    """A share in percent, to two digits and never more than five decimals."""
    if value is None or value != value:
        return "-"
    return f"{100 * value:.2g} %" if abs(value) < 0.995 else f"{100 * value:.0f} %"


Column = tuple[str, Callable[[Row], str]]
COLUMNS: tuple[Column, ...] = (
    ("row", lambda row: row["name"]),
    ("ms per step", lambda row: digits(row["milliseconds"])),
    ("x backprop", lambda row: digits(row["ratio"])),
    ("first-layer gradient error", lambda row: percent(row["error"])),
    ("energy gap", lambda row: percent(row["gap"])),
    ("difference", lambda row: digits(row["difference"], ".1e")),
    ("note", lambda row: row["failure"] or row["note"]),
)

HEAD = """# Time against equilibrium quality

{machine}, {conditions} over rounds in which the rows take turns. A step is
everything from a batch to new parameters; what is only reported (accuracies, energies, residuals, verdicts) is in no
row. Versions: {versions}.

*x backprop*: median over the rounds of the ratio to the fastest backprop of the same framework. *First-layer gradient
error* and *energy gap*: on a trained net, against the equilibrium in float64 (energy gap: share of the energy to be
gained that is left). *Difference*: of the weights after {warm} steps, from the first row that computes the same, over
how far they moved; a dash where no other row does. What rows are called is in `docs/benchmarks.md`.
"""


def markdown(results: dict[str, Any]) -> str:
    """The page."""
    machine = f"{results['machine']['cpu']}, {results['machine']['cores']} cores"
    if results["machine"].get("accelerator"):
        machine = f"{results['machine']['accelerator']} ({machine})"
    versions = "; ".join(
        f"{system}: " + ", ".join(f"{package} {version}" for package, version in found.items())
        for system, found in results["versions"].items()
    )
    if results["machine"].get("load") is not None:
        machine += f" (load average {results['machine']['load']:.1f} when the run began)"
    conditions = results["machine"]["conditions"]
    parts = [HEAD.format(machine=machine, conditions=conditions, versions=versions, warm=results["warm"])]
    if results["absent"]:
        parts.append("Absent: " + "; ".join(f"{name} ({why})" for name, why in results["absent"].items()) + ".\n")
    return "\n".join(parts + [section(found) for found in results["workloads"]])


def section(found: dict[str, Any]) -> str:
    """One workload."""
    workload, reference = found["workload"], found["reference"]
    extra = f" + {workload['nudged']}" if workload["nudged"] else ""
    residual, known = (digits(reference[name], ".1e") for name in ("residual", "uncertainty"))
    about = (
        f"T = {workload['steps']}{extra}, batch {workload['batch']}. Net trained on {found['data']}. "
        f"Reference: residual {residual}, first-layer gradient known to {known}."
    )
    lines = [write_row(heading for heading, _ in COLUMNS), "|" + "---|" * len(COLUMNS)]
    lines += [write_row(cell(row) for _, cell in COLUMNS) for row in found["rows"]]
    return f"## {workload['title']}\n\n{about}\n\n" + "\n".join(lines) + "\n"
