"""The command line: `python -m benchmarks`."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import rich.console
import tyro

from benchmarks.client import ROOT
from benchmarks.controller import Plan, bench
from benchmarks.devices import CPU, device_of
from benchmarks.measure import FULL, SHORT
from benchmarks.systems import OWN, PEERS
from benchmarks.table import markdown
from benchmarks.workload import LARGE, QUICK, WORKLOADS
from energax.data import cache_folder
from energax.exceptions import EnergaxError, SettingError


@dataclasses.dataclass(frozen=True)
class Options:
    """Time training steps and the quality of their equilibria, energax beside other systems."""

    quick: Annotated[bool, tyro.conf.arg(help="small nets and few rounds: minutes, not an hour")] = False
    workloads: Annotated[
        str,
        tyro.conf.arg(
            help="which, separated by commas (W1, W2, W3, W4, depth 2, ...; quick: small, small hopfield), or all"
        ),
    ] = "all"
    peers: Annotated[
        str, tyro.conf.arg(help="other systems, each in an environment of its own: torch,pcx,FabricPC,ngclearn or all")
    ] = ""
    rounds: Annotated[int | None, tyro.conf.arg(help="measurements per row (7; quick: 3)")] = None
    device: Annotated[
        str, tyro.conf.arg(help="cpu (one thread), or gpu (with the large convolutional workloads W3 wide and HFN)")
    ] = "cpu"
    resume: Annotated[bool, tyro.conf.arg(help="leave workloads as they are that --out already has")] = False
    environments: Annotated[
        Path | None, tyro.conf.arg(help="folder of the peers' environments (made there; the cache if left out)")
    ] = None
    out: Annotated[
        Path | None,
        tyro.conf.arg(help="folder of bench.json, table.md and bench.png (runs/bench, or runs/bench-gpu)"),
    ] = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: words of the command line; those of the process if left out.

    Returns:
        0; 2 after an error that the user can mend, told in one line on standard error; 130 after an interruption.
    """
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks")
    try:
        run(options)
    except EnergaxError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: interrupted; finished workloads are kept, continue with --resume", file=sys.stderr)
        return 130
    return 0


def run(options: Options) -> None:
    """Measure, write, and print the table.

    Raises:
        SettingError: a wrong option, or a current folder in which relative paths would not mean the same to workers.
    """
    if not Path.cwd().samefile(ROOT):
        raise SettingError(
            f"the current folder is {Path.cwd()}: run `python -m benchmarks` in {ROOT}, the repository's root, where "
            "worker processes start and find the package"
        )
    console = rich.console.Console(stderr=True, highlight=False)
    plan = planned(options)
    with console.status("start") as status:
        results = bench(plan, status.update if console.is_terminal else console.print)
    rich.console.Console(highlight=False).print(markdown(results), soft_wrap=True, markup=False)
    console.print(f"written to {plan.out}")


def planned(options: Options) -> Plan:
    """The options as a plan.

    Raises:
        SettingError: a name of a workload, peer or device that is not known, or no rounds.
    """
    device = device_of(options.device)
    workloads = QUICK if options.quick else (*WORKLOADS, *LARGE)
    names = [workload.name for workload in workloads if device != CPU or workload not in LARGE]
    wanted = chosen(options.workloads, names, "workloads")
    size = SHORT if options.quick else FULL
    if options.rounds is not None and options.rounds < 1:
        raise SettingError(f"rounds={options.rounds}: give a whole number of at least 1")
    peers = chosen(options.peers, [peer.name for peer in PEERS], "peers")
    return Plan(
        workloads=tuple(workload for name in wanted for workload in workloads if workload.name == name),
        systems=(*OWN, *(peer for peer in PEERS if peer.name in peers)),
        size=size if options.rounds is None else dataclasses.replace(size, rounds=options.rounds),
        out=options.out or Path("runs") / ("bench" if device == CPU else f"bench-{device.name}"),
        environments=options.environments or cache_folder() / "environments",
        device=device,
        resume=options.resume,
    )


def chosen(given: str, known: list[str], what: str) -> list[str]:
    """Names out of a list separated by commas; `all`, or none of them."""
    names = [name.strip() for name in given.split(",") if name.strip()]
    names = known if names == ["all"] else names
    for name in names:
        if name not in known:
            raise SettingError(f"{what}: unknown {name!r}; known: all, {', '.join(known)}")
    return names
