"""The systems that are measured. To add one, write its worker and add a row to `SYSTEMS`."""

import dataclasses
import sys
from pathlib import Path

from benchmarks.environments import Environment

WORKERS = Path(__file__).parent / "workers"


@dataclasses.dataclass(frozen=True)
class System:
    """A worker and the interpreter that runs it.

    Attributes:
        name: for table and picture.
        worker: a module of `benchmarks.workers`, or the name of a script there where `environment` is given.
        framework: the one whose backprop its times are divided by: `jax` or `torch`.
        packages: distributions whose versions are reported.
        environment: its own; None runs in the benchmark's interpreter.
    """

    name: str
    worker: str
    framework: str
    packages: tuple[str, ...]
    environment: Environment | None = None

    def command(self, environments: Path) -> list[str]:
        """How to start the worker.

        Raises:
            Absent: its environment cannot be made.
        """
        if self.environment is None:
            return [sys.executable, "-m", f"benchmarks.workers.{self.worker}"]
        return [str(self.environment.interpreter(environments.absolute())), str(WORKERS / f"{self.worker}.py")]


OWN = (
    System("by hand", "by_hand", "jax", ("jax", "jaxlib")),
    System("energax", "own", "jax", ("energax", "jax", "jaxlib")),
)

PEERS = (
    System(
        "torch",
        "peer_torch",
        "torch",
        ("torch",),
        Environment("torch", (("numpy", "torch==2.13.0"),)),
    ),
    System(
        "pcx",
        "peer_pcx",
        "jax",
        ("pcx", "jax"),
        Environment("pcx", (("jax", "equinox", "optax", "tqdm"), ("--no-deps", "pcx==0.6.3"))),
    ),
    System("FabricPC", "peer_fabricpc", "jax", ("fabricpc", "jax"), Environment("fabricpc", (("fabricpc==0.6",),))),
    System(
        "ngclearn",
        "peer_ngclearn",
        "jax",
        ("ngclearn", "jax"),
        Environment("ngclearn", (("ngclearn==3.2.*",),), python="3.12"),
    ),
    System(
        "jpc",
        "peer_jpc",
        "jax",
        (),
        Environment("jpc", absent="not on the package index, and needs jax <= 0.5.2"),
    ),
)
