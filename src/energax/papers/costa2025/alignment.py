"""Updates of local rules against the gradient: measured cosines of random directed nets, and the bounds on them."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from matplotlib.figure import Figure

import energax as ex
from energax.arithmetic import add_all, total
from energax.certificates import bound_alignment, certify_alignment, is_cooperative
from energax.dynamics import AbsoluteOutflow, SignedOutflow, prepare_phase
from energax.graph.networks import directed_complete
from energax.papers.cells import Cells
from energax.papers.costa2025.common import PAPER
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.names import split_names
from energax.papers.pictures import QUIET, panels
from energax.papers.tables import Table
from energax.rules import AsymEP, Deep2020
from energax.solvers import Verdict, certified_flow
from energax.training.learner import root_key

HIDDEN = 5
LEAKS = (0.25, 0.5, 1.0, 2.0, 4.0)
KINDS = ("signed", "cooperative", "absolute", "additive")
SHOWN = 60  # nets of a point that are drawn
BETA = 1e-6
SLACK = 1e-5  # what differences of float64 states at this nudge, settled to the tolerance below, leave of a cosine
FLOW = certified_flow(ex.Stopping(1e-9, 20_000, check_every=20))


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the experiment depends on.

    Attributes:
        kinds: of nets, separated by commas: signed, cooperative (signed, no negative weight, one output), absolute,
            additive.
        nets: random nets of every kind at every leak.
    """

    kinds: str = ",".join(KINDS)
    nets: int = 750


def make_dynamics(kind: str, leak: Array) -> Any:
    """The dynamics of a kind of nets."""
    if kind == "additive":
        return ex.LeakyDirected(leak=leak)
    return ex.LeakyFlow(leak=leak, outflow=AbsoluteOutflow() if kind == "absolute" else SignedOutflow())


def draw_net(kind: str, template: ex.Graph, key: PRNGKeyArray) -> tuple[ex.Graph, Array]:
    """A complete net, and its asymmetry, uniform on [0, 1]: the share of the skew part that its synapses keep.

    Synapses among free units are S + share * A of a normal matrix of deviation .4 (its absolute values in a cooperative
    net), those from the input normal, and biases uniform, about a state of 1/2 or of 0.
    """
    units = HIDDEN + template.node("output").shape[0]
    inner, mixed, entering, biases = jax.random.split(key, 4)
    drawn = 0.4 * jax.random.normal(inner, (units, units), float)
    drawn = jnp.abs(drawn) if kind == "cooperative" else drawn
    share = jax.random.uniform(mixed, (), float)
    matrix = (drawn + drawn.T) / 2 + share * (drawn - drawn.T) / 2
    places = {"hidden": slice(0, HIDDEN), "output": slice(HIDDEN, units)}
    functions: dict[str, Any] = dict(template.functions)
    for edge in template.edges:
        layer = functions[edge.function]
        if edge.source == "input":
            own = jax.random.fold_in(entering, places[edge.target].start)
            weight = jax.random.normal(own, layer.weight.shape, float)
            bias = jax.random.uniform(jax.random.fold_in(biases, places[edge.target].start), layer.bias.shape, float)
            functions[edge.function] = eqx.tree_at(lambda l: (l.weight, l.bias), layer, (weight, bias))
            continue
        block = matrix[places[edge.source], places[edge.target]]
        weight = block[layer.sources, layer.targets] if edge.source == edge.target else block
        functions[edge.function] = eqx.tree_at(lambda l: l.weight, layer, weight)
    return eqx.tree_at(lambda graph: graph.functions, template, functions), share


@eqx.filter_jit
def measure(kind: str, template: ex.Graph, leak: Array, keys: Array) -> dict[str, Array]:
    """Of every net, with a random input and target: cosines of the rules' updates, and what is proved of them."""
    dynamics = make_dynamics(kind, leak)
    rules = {"local": ex.VectorFieldRule(BETA), "asym-ep": AsymEP(BETA)}
    if kind != "additive":
        rules["deep2020"] = Deep2020(BETA)

    def one(key):
        graph, share = draw_net(kind, template, key)
        rows = [jax.random.uniform(jax.random.fold_in(key, at), (1, units), float) for at, units in enumerate(sizes)]
        batch = ex.Batch(rows[0], rows[1])
        exact, _, info = ex.Adjoint()(dynamics, graph, batch, FLOW, ())
        phase = prepare_phase(dynamics, graph, graph.clamp(batch.x))
        states = FLOW.solve(phase, phase.start()).states
        alignment = certify_alignment(phase, states)
        updates = {name: rule(dynamics, graph, batch, FLOW, ())[0] for name, rule in rules.items()}
        settled = info.phases["free"].result[0] == int(Verdict.CONVERGED)
        # their biases are the signals of hidden and output units
        signs = [
            jnp.all(jnp.sign(exact.graph.functions[f].bias) == jnp.sign(updates["local"].graph.functions[f].bias))
            for f in ("input_to_hidden", "input_to_output")
        ]
        return {
            "share": share,
            "counts": settled & (dot(exact, exact) > 1e-16),  # none where all outputs rest at walls
            "proved": alignment.cosine[0],
            "kappa": alignment.signal[0],
            "everywhere": bound_alignment(dynamics, graph),
            "cooperative": is_cooperative(dynamics, graph),
            "signs": signs[0] & signs[1],
            **{name: cosine(exact, update) for name, update in updates.items()},
        }

    sizes = (template.node("input").shape[0], template.node("output").shape[0])
    return jax.vmap(one)(keys)


def dot(one: Any, other: Any) -> Array:
    """The scalar product of two gradients."""
    parts = [jax.tree.leaves(eqx.filter(tree.graph, eqx.is_inexact_array)) for tree in (one, other)]
    return add_all(total((a * b)[None])[0] for a, b in zip(*parts, strict=True))


def cosine(one: Any, other: Any) -> Array:
    """The cosine of two gradients; 0 where one of them is 0."""
    norms = jnp.sqrt(dot(one, one) * dot(other, other))
    return dot(one, other) / jnp.where(norms > 0, norms, 1)


def run_point(kind: str, leak: float, nets: int) -> dict[str, Any]:
    """All nets of one kind at one leak."""
    with jax.enable_x64(True):
        activation = jnp.tanh if kind == "additive" else None
        template = directed_complete(2, HIDDEN, 1 if kind == "cooperative" else 2, activation, key=root_key(0))
        template = jax.tree.map(lambda a: a.astype(float) if eqx.is_inexact_array(a) else a, template)
        keys = jax.random.split(root_key(KINDS.index(kind)), nets)
        found = {name: np.asarray(v) for name, v in measure(kind, template, jnp.asarray(leak, float), keys).items()}
    counts = found["counts"]
    sure = counts & (found["proved"] > -1)
    bounded = counts & np.isfinite(found["everywhere"])
    rules = [name for name in ("local", "asym-ep", "deep2020") if name in found]
    return {
        "kind": kind,
        "leak": leak,
        "nets": nets,
        "counted": int(counts.sum()),
        "proved": int(sure.sum()),
        "below": int((found["local"][sure] < found["proved"][sure] - SLACK).sum()),
        "bounded": int(bounded.sum()),
        "above": int((found["kappa"][bounded] > found["everywhere"][bounded] * (1 + SLACK)).sum()),
        "cooperative": int((counts & found["cooperative"]).sum()),
        "turned": int((counts & found["cooperative"] & ~found["signs"]).sum()),
        "cosines": {name: summarise(found[name][counts]) for name in rules},
        "shown": [
            [float(found[name][net]) for name in ("share", "proved", "local")] for net in np.flatnonzero(counts)[:SHOWN]
        ],
    }


def summarise(cosines: np.ndarray) -> dict[str, float | None]:
    """Mean, fifth percentile and least cosine, and the share below 0."""
    if not len(cosines):
        return {"mean": None, "low": None, "least": None, "negative": None}
    return {
        "mean": float(cosines.mean()),
        "low": float(np.quantile(cosines, 0.05)),
        "least": float(cosines.min()),
        "negative": float((cosines < 0).mean()),
    }


def run(settings: Settings, cells: Cells) -> Numbers:
    """Every kind at every leak."""
    return {
        "points": [
            cells(f"{kind}-{leak:g}", lambda kind=kind, leak=leak: run_point(kind, leak, settings.nets))
            for kind in split_names("kinds", settings.kinds, KINDS)
            for leak in LEAKS
        ]
    }


def draw(numbers: Numbers) -> Figure:
    """Cosines above what is proved; cosines against leak; cosines against asymmetry."""
    figure, (left, middle, right) = panels(3, width=4.4, height=3.8)
    points = numbers["points"]
    for index, kind in enumerate(dict.fromkeys(row["kind"] for row in points)):
        rows, color = [row for row in points if row["kind"] == kind], f"C{index}"
        shown = np.asarray([net for row in rows for net in row["shown"]])
        proved = shown[shown[:, 1] > -1]
        left.plot(proved[:, 1], proved[:, 2], ".", ms=3, color=color, label=kind)
        drawn = [row for row in rows if row["cosines"]["local"]["mean"] is not None]
        for value, style in (("mean", "o-"), ("low", "v:")):
            middle.plot(
                [row["leak"] for row in drawn],
                [row["cosines"]["local"][value] for row in drawn],
                style,
                color=color,
                label=f"{kind}, {value if value == 'mean' else '5 % of nets below'}",
            )
        right.plot(shown[:, 0], shown[:, 2], ".", ms=3, color=color, label=kind)
    left.plot([0, 1], [0, 1], "k-", lw=1)
    left.set(xlabel="least cosine that is proved", ylabel="cosine of the local rule's update to the gradient")
    middle.set(xlabel="leak", xscale="log", ylabel="cosine")
    middle.set_xticks(LEAKS, [f"{leak:g}" for leak in LEAKS])
    middle.minorticks_off()
    right.set(xlabel="share of the skew part that is kept", ylabel="cosine, all leaks")
    for axes in (left, middle, right):
        axes.legend(**{**QUIET, "fontsize": "x-small"})
    return figure


def tabulate(numbers: Numbers) -> Table:
    """A row per kind and leak."""

    def show(row: dict[str, Any], rule: str) -> str:
        found = row["cosines"].get(rule)
        if found is None or found["mean"] is None:
            return "-"
        return f"{found['mean']:.3f} / {found['low']:.3f} / {100 * found['negative']:.1f}"

    rows = [
        [
            row["kind"],
            f"{row['leak']:g}",
            f"{row['counted']} of {row['nets']}",
            *(show(row, rule) for rule in ("local", "deep2020", "asym-ep")),
            str(row["proved"]),
            str(row["below"]),
            str(row["above"]),
        ]
        for row in numbers["points"]
    ]
    rules = ["local rule", "rule of 2020", "AsymEP"]
    note = (
        "Cosine of a sample's update to the adjoint's gradient: mean / fifth percentile / share below 0 in per cent. "
        "Counted: free phases that converged, with a gradient that is not 0. Proved: theorem 3 says more than -1."
    )
    headings = ["net", "leak", "counted", *rules, "proved", "below the bound", "kappa above corollary 4"]
    return Table("Random complete nets of five hidden units", headings, rows, [note])


def judge(numbers: Numbers) -> list[Judgement]:
    """Whether every bound holds."""
    points = numbers["points"]

    def count(name: str) -> int:
        return sum(row[name] for row in points)

    def none(wrong: str, among: str) -> bool | None:
        """Whether there is no such net among those; None where there are none to look at."""
        return count(wrong) == 0 if count(among) else None

    return [
        judge_claim(
            "energax",
            "no update of the local rule has a smaller cosine to the gradient than theorem 3 proves",
            none("below", "proved"),
            f"{count('proved')} of {count('counted')} nets with a bound, {count('below')} below it",
        ),
        judge_claim(
            "energax",
            "no net's kappa is above the bound for all inputs of corollary 4",
            none("above", "bounded"),
            f"{count('bounded')} nets with a bound, {count('above')} above it",
        ),
        judge_claim(
            "energax",
            "in a cooperative net every unit's response has the sign of the exact signal (theorem 5)",
            none("turned", "cooperative"),
            f"{count('cooperative')} cooperative nets, {count('turned')} with a wrong sign",
        ),
    ]


EXPERIMENT = Experiment(
    name="costa2025-alignment",
    paper=PAPER,
    summary="cosines of local updates to the gradient against leak and asymmetry, and the bounds on them",
    small=Settings(kinds="cooperative", nets=60),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
    tabulate=tabulate,
)
