"""`energax bench`."""

import dataclasses
from pathlib import Path

import rich.console

from energax.bench.controller import Plan, bench
from energax.bench.devices import CPU, device_of
from energax.bench.measure import FULL, SHORT
from energax.bench.systems import OWN, PEERS
from energax.bench.table import markdown
from energax.bench.workload import LARGE, QUICK, WORKLOADS
from energax.cli.options import BenchOptions
from energax.data import cache_folder
from energax.exceptions import SettingError


def run(options: BenchOptions) -> None:
    """Measure, write, and print the table."""
    console = rich.console.Console(stderr=True, highlight=False)
    plan = planned(options)
    with console.status("start") as status:
        results = bench(plan, status.update if console.is_terminal else console.print)
    rich.console.Console(highlight=False).print(markdown(results), soft_wrap=True, markup=False)
    console.print(f"written to {plan.out}")


def planned(options: BenchOptions) -> Plan:
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
        out=options.out or Path("results") / ("bench" if device == CPU else f"bench-{device.name}"),
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
