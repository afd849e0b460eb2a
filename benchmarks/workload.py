"""The workloads: networks, batch sizes and relaxation lengths that other systems are compared on."""

import dataclasses
import itertools


@dataclasses.dataclass(frozen=True)
class Workload:
    """One training step to be measured.

    Attributes:
        name: for tables.
        kind: `mlp`, `conv` (convolutions, then matrices) or `hopfield`.
        sizes: units per layer; of a `conv`, channels, then units.
        activation: `relu` or `tanh`; a `hopfield` net has hard sigmoids.
        steps: relaxation steps T of the customary gradient descent (of a `hopfield` net, of the free phase).
        nudged: steps of the nudged phase of a `hopfield` net.
        side: of a `conv`, of its images.
        convolutions: of a `conv`, of each convolution the side of its kernel and whether 2 x 2 max-pooling follows.
        gain: initial weights are U(+-gain / sqrt(fan_in)).
        step_size: of the customary gradient descent on the states.
        beta: nudge strength.
        batch: rows per step.
        evaluations: most evaluations of the energy per scale of rounding, for the reference.
        learning_rate: of the plain gradient descent on the weights that every system does.
    """

    name: str
    kind: str
    sizes: tuple[int, ...]
    activation: str = "tanh"
    steps: int = 20
    nudged: int = 0
    side: int = 0
    convolutions: tuple[tuple[int, bool], ...] = ()
    gain: float = 1.0
    step_size: float = 0.1
    beta: float = 1.0
    batch: int = 64
    evaluations: int = 400
    learning_rate: float = 0.01

    @property
    def title(self) -> str:
        """Name and network, a run of equal layers as `8 x 128`."""
        runs = [(size, len(list(run))) for size, run in itertools.groupby(self.sizes)]
        sizes = (f"{count} x {size}" if count > 1 else str(size) for size, count in runs)
        return f"{self.name}: {self.kind} {', '.join(sizes)}"


def deep(depth: int) -> Workload:
    """The depth sweep: weights of unit gain, so that a signal survives 16 layers."""
    return Workload(f"depth {depth}", "mlp", (784, *[128] * depth, 10), steps=50, gain=3**0.5)


WORKLOADS = (
    Workload("W1", "mlp", (784, 128, 64, 10), "relu", steps=50),
    Workload("W2", "mlp", (784, 256, 256, 256, 10)),
    Workload("W3", "conv", (3, 32, 64, 128, 128, 10), steps=8, side=32, convolutions=((3, True),) * 4, evaluations=100),
    Workload("W4", "hopfield", (784, 512, 10), "hard_sigmoid", steps=20, nudged=4, gain=0.7, beta=0.5),
    *(deep(depth) for depth in (2, 4, 8, 16)),
)

# For accelerators: W3 four times as wide, and the hierarchical feed-forward net of Chen et al. 2025 (its Table 2).
LARGE = (
    Workload(
        "W3 wide",
        "conv",
        (3, 128, 256, 512, 512, 10),
        steps=8,
        side=32,
        convolutions=((3, True),) * 4,
        batch=128,
        evaluations=100,
    ),
    Workload(
        "HFN",
        "conv",
        (3, 128, 256, 512, 1024, 120, 256, 80, 64, 100, 50, 512, 10),
        steps=200,
        side=32,
        convolutions=(
            *((3, False), (3, True), (3, True), (3, False), (3, True)),
            *((1, False), (1, False), (3, False), (3, False), (3, True)),
        ),
        step_size=0.01,
        batch=128,
        evaluations=100,
    ),
)

QUICK = (
    Workload("small", "mlp", (64, 32, 16, 10), "relu", batch=16, evaluations=100),
    Workload(
        "small hopfield",
        "hopfield",
        (64, 32, 10),
        "hard_sigmoid",
        steps=20,
        nudged=4,
        beta=0.5,
        batch=16,
        evaluations=100,
    ),
)
