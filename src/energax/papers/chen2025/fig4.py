"""Figure 4: the force on the states of shallow, middle and deep nodes along the relaxation, for three energies.

The network is the simple recurrent one, without recurrence and skips, with recurrence, and with both. The paper's
relaxation is a number of explicit steps of one size; whether they blow up is a matter of that size and of the largest
curvature of the energy, which the paper does not state: here both sides of 2 / curvature are looked at.
"""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

import energax as ex
from energax.arithmetic import norm
from energax.dynamics.phase import prepare_phase
from energax.papers.cells import Cells
from energax.papers.chen2025.common import PAPER
from energax.papers.chen2025.printed import PrintedEq9, PrintedEq10
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.names import require_name
from energax.papers.pictures import QUIET, panels
from energax.solvers.coordinates import StateCoordinates
from energax.solvers.spectrum import largest_curvature
from energax.training.learner import root_key
from energax.training.rows import make_device_split

ENERGIES = {
    "hpc": ("HPC", ex.PredictiveCoding(ex.CrossEntropy())),
    "eq10": ("Eq. 10", PrintedEq10()),
    "eq9": ("Eq. 9", PrintedEq9()),
    "skew": ("skew feedback", ex.SkewFeedback()),
}
WIRINGS = {
    "plain": {"recurrent": False, "skips": False},
    "recurrent": {"recurrent": True, "skips": False},
    "skips": {"recurrent": True, "skips": True},
}
NETWORKS = {"scrn": ex.networks.recurrent_simple, "scrn-dense": ex.networks.recurrent_dense}
DEPTHS = {"shallow": "node2", "middle": "node4", "deep": "node6"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the figure depends on.

    Attributes:
        data: data set, pixels normalised per channel.
        network: scrn, or scrn-dense with dense layers.
        rows: images.
        width: factor of the network's channels.
        length: steps of time.
        gains: scales of the initial weights.
        beta: nudge strength.
        step: the paper's step of the states.
        steps: number of steps.
        margins: further steps, as multiples of 2 / the largest curvature of any image at the start.
        seed: of the weights.
    """

    data: str = "cifar10"
    network: str = "scrn"
    rows: int = 16
    width: float = 0.125
    length: int = 6
    gains: tuple[float, ...] = (1.0, 3.0)
    beta: float = 1.0
    step: float = 0.01
    steps: int = 200
    margins: tuple[float, ...] = (0.5, 1.5)
    seed: int = 0


def build_network(settings: Settings, shape, classes: int, wiring: str, gain: float) -> ex.Graph:
    """The network with one of the wirings."""
    make = NETWORKS[require_name("network", settings.network, NETWORKS)]
    options = {"width": settings.width, "length": settings.length, "gain": gain, **WIRINGS[wiring]}
    return make(shape, classes, jnp.tanh, key=root_key(settings.seed), **options)


@eqx.filter_jit
def measure(dynamics, graph, batch: ex.Batch, beta, step, margins, steps: int):
    """Largest curvature at the start, and for every step size the mean norm of the force at three depths, over time."""
    phase = prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=beta)
    view, start = StateCoordinates().view(phase, phase.start())
    curvature = jnp.max(largest_curvature(view, start, 20))

    def one(states, size):
        force = phase.force(states)
        norms = {depth: jnp.mean(norm({node: force[node]})) for depth, node in DEPTHS.items()}
        return jax.tree.map(lambda v, f: v + size * f, states, force), norms

    sizes = jnp.concatenate([jnp.atleast_1d(step), margins * 2 / curvature])
    _, norms = jax.lax.scan(lambda states, _: jax.vmap(one)(states, sizes), tile(start, len(sizes)), length=steps)
    return curvature, norms


def tile(tree, times: int):
    """The same tree several times, along a new axis."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (times, *a.shape)), tree)


def one_cell(settings: Settings, energy: str, wiring: str, gain: float) -> dict:
    """One network under one energy."""
    data = ex.load_data(settings.data)
    batch = make_device_split(data, data.train, standardise=True).batch(jnp.arange(settings.rows))
    graph = build_network(settings, data.image_shape, data.classes, wiring, gain)
    beta, step, margins = jnp.asarray(settings.beta), jnp.asarray(settings.step), jnp.asarray(settings.margins)
    curvature, norms = measure(ENERGIES[energy][1], graph, batch, beta, step, margins, settings.steps)
    return {"curvature": float(curvature), "norms": {depth: values.T.tolist() for depth, values in norms.items()}}


def run(settings: Settings, cells: Cells) -> Numbers:
    """All energies, wirings and gains."""
    found = {
        f"{energy} {wiring} {gain:g}": cells(
            f"{energy}-{wiring}-{gain:g}", lambda e=energy, w=wiring, g=gain: one_cell(settings, e, w, g)
        )
        for gain in settings.gains
        for energy in ENERGIES
        for wiring in WIRINGS
    }
    return {"found": found, "step": settings.step, "margins": settings.margins, "gains": settings.gains}


def growth(norms: dict[str, list], at: int) -> tuple[float, float]:
    """The largest force of any depth and the last one, over that at the start; infinite where it is no number."""
    rows = [[math.inf if value is None else value for value in values[at]] for values in norms.values()]
    first = max(row[0] for row in rows)
    return max(map(max, rows)) / first, max(row[-1] for row in rows) / first


def draw(numbers: Numbers) -> Figure:
    """The paper's nine panels in three, its step and its largest gain: colours are wirings, dashes depths."""
    figure, axes = panels(len(ENERGIES), width=3.6)
    gain = numbers["gains"][-1]
    for one, (energy, (title, _)) in zip(axes, ENERGIES.items(), strict=True):
        for index, wiring in enumerate(WIRINGS):
            found = numbers["found"][f"{energy} {wiring} {gain:g}"]
            for dashes, (depth, norms) in zip(("-", "--", ":"), found["norms"].items(), strict=True):
                label = f"{wiring}, {depth}"
                values = [math.nan if value is None else value for value in norms[0]]
                one.plot(range(len(values)), values, dashes, color=f"C{index}", label=label)
        bound = min(2 / numbers["found"][f"{energy} {wiring} {gain:g}"]["curvature"] for wiring in WIRINGS)
        one.set(title=f"{title}, 2 / curvature > {bound:.2g}", yscale="log", xlabel="step of the states")
    axes[0].set_ylabel(f"force on the states, steps of {numbers['step']:g}, gain {gain:g}", fontsize="small")
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right center", **QUIET)
    return figure


def judge(numbers: Numbers) -> list[Judgement]:
    """What the paper sees in its figure, and what decides it."""
    found, margins = numbers["found"], numbers["margins"]
    low, high = (margins.index(margin) + 1 for margin in (min(margins), max(margins)))

    def of(energy: str, at: int) -> tuple[list[float], list[float]]:
        """Growth, and what is left, of every network."""
        pairs = [growth(found[f"{energy} {w} {gain:g}"]["norms"], at) for gain in numbers["gains"] for w in WIRINGS]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def told(values: dict[str, float]) -> str:
        return ", ".join(f"{ENERGIES[energy][0]} {value:.3g}" for energy, value in values.items())

    paper = {energy: max(of(energy, 0)[0]) for energy in ENERGIES}
    below = {energy: max(of(energy, low)[0]) for energy in ENERGIES}
    excess = {
        energy: min(b / a for a, b in zip(of(energy, low)[1], of(energy, high)[1], strict=True)) for energy in ENERGIES
    }
    curvatures = {
        energy: [one["curvature"] for key, one in found.items() if key.startswith(f"{energy} ")] for energy in ENERGIES
    }
    ends = {wiring: found[f"eq10 {wiring} {numbers['gains'][0]:g}"]["norms"] for wiring in WIRINGS}
    shares = {w: (norms["shallow"][0][-1] or 0) / (norms["deep"][0][-1] or math.inf) for w, norms in ends.items()}
    gains = f"initial weights of gains {', '.join(f'{gain:g}' for gain in numbers['gains'])}"
    sizes = f"largest force over the first one, steps of {numbers['step']:g}"
    return [
        judge_claim(
            "Fig. 4, top",
            "HPC's forces explode, whatever the connections",
            paper["hpc"] > 10,
            f"{sizes}: {paper['hpc']:.3g}",
            tried=gains,
        ),
        judge_claim(
            "Fig. 4, bottom", "Eq. 9's forces explode", paper["eq9"] > 10, f"{sizes}: {paper['eq9']:.3g}", tried=gains
        ),
        judge_claim("Fig. 4, middle", "Eq. 10 keeps them bounded", paper["eq10"] < 10, f"{sizes}: {paper['eq10']:.3g}"),
        judge_claim(
            "Fig. 4, middle",
            "under Eq. 10 they vanish in shallow nodes without skips, and skips cure that",
            shares["plain"] < 0.1 < shares["skips"],
            "force at node 2 over that at node 6 at the end: " + ", ".join(f"{w} {v:.2g}" for w, v in shares.items()),
            tried=gains,
        ),
        judge_claim(
            "energax",
            f"the step decides, under every energy: at {min(margins):g} times 2 / curvature no force ever rises, at "
            f"{max(margins):g} times at least ten times more of it is left",
            min(excess.values()) > 10 and max(below.values()) < 1.05,
            f"largest force over the first one, below: {told(below)}; what is left above over what is left below, at "
            f"least: {told(excess)}",
        ),
        judge_claim(
            "energax",
            "Eqs. 9 and 10 are stiffer than HPC: they take smaller steps",
            all(
                min(a, b) > c for a, b, c in zip(curvatures["eq9"], curvatures["eq10"], curvatures["hpc"], strict=True)
            ),
            "2 / curvature: "
            + ", ".join(
                f"{ENERGIES[energy][0]} {2 / max(values):.2g} to {2 / min(values):.2g}"
                for energy, values in curvatures.items()
            ),
        ),
    ]


EXPERIMENT = Experiment(
    name="chen2025-fig4",
    paper=PAPER,
    summary="forces on the states along the relaxation: HPC, Eq. 10, Eq. 9, and what their explosion depends on",
    small=Settings(data="digits", network="scrn-dense", width=0.5, rows=8),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
)
