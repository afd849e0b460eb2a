"""Random directed nets against leak: which settle, which are certified to, and how close the bound on steps is."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

import energax as ex
from energax.certificates import certify
from energax.dynamics import AbsoluteOutflow, NoOutflow, SignedOutflow, prepare_phase
from energax.graph.networks import directed_complete
from energax.papers.cells import Cells
from energax.papers.costa2025.common import PAPER
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.pictures import QUIET, panels
from energax.papers.tables import Table
from energax.training.learner import root_key

HIDDEN, OUTPUTS = 6, 2
LEAKS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
KINDS = {"signed": SignedOutflow(), "absolute": AbsoluteOutflow(), "none": NoOutflow(), "additive": None}
BETAS = (0.0, 1.0)
TOL = 1e-3
MOST = 4000  # steps after which a net that is not certified has not settled; certified ones get their bound


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the experiment depends on.

    Attributes:
        nets: random nets of every kind at every leak.
    """

    nets: int = 400


@eqx.filter_jit
def measure(
    dynamics: ex.dynamics.AbstractDynamics, graphs: Any, keys: Array, leak: Array, beta: Array
) -> dict[str, Array]:
    """Of every net: what is certified, and what two relaxations from random states then do."""
    arrays, static = eqx.partition(graphs, eqx.is_array)

    def one(arrays, key):
        graph = eqx.combine(arrays, static)
        moved = eqx.tree_at(lambda d: d.leak, dynamics, leak)
        certificate = certify(moved, graph)
        step = certificate.step(1.0) if isinstance(moved, ex.LeakyFlow) else None
        best = certificate.best
        # a flow certified in the Euclidean norm must take that step; what is not certified takes the safe one
        shorter = (certificate.gains[best] > 0) & certificate.certified
        inputs, target, low, high = jax.random.split(key, 4)
        x = jnp.repeat(jax.random.uniform(inputs, (1, 2)), 2, axis=0)
        y = jnp.repeat(jax.random.uniform(target, (1, OUTPUTS)), 2, axis=0)
        phase = prepare_phase(moved, graph, graph.clamp(x), target=y, beta=beta)
        safe = moved.safe_step(phase)
        h = safe if step is None else jnp.where(shorter, jnp.minimum(step, safe), safe)
        if isinstance(moved, ex.LeakyFlow):
            phase = prepare_phase(
                ex.LeakyFlow(leak=leak, outflow=moved.outflow, step=h), graph, graph.clamp(x), target=y, beta=beta
            )
        shapes = {"hidden": (HIDDEN,), "output": (OUTPUTS,)}
        starts = {
            name: jnp.stack([jax.random.uniform(jax.random.fold_in(k, i), shape) for k in (low, high)])
            for i, (name, shape) in enumerate(shapes.items())
        }
        bound = jnp.minimum(certificate.steps(TOL, 1.0), 1e6)
        limit = jnp.where(certificate.certified, bound, MOST)
        begun = size(phase.force(starts))

        def unfinished(now):
            states, taken = now
            return (taken < limit) & jnp.any(size(phase.force(states)) > TOL * begun)

        def advance(now):
            states, taken = now
            return jax.tree.map(lambda s, f: s + h * f, states, phase.force(states)), taken + 1

        states, taken = jax.lax.while_loop(unfinished, advance, (starts, jnp.zeros(())))
        left = size(phase.force(states))
        apart = size(jax.tree.map(lambda v: v[:1] - v[1:], states))[0]
        return {
            "certified": certificate.certified,
            "best": jnp.where(certificate.certified, best, -1),
            "steps": taken,
            "bound": bound,
            "settled": jnp.all(left <= TOL * begun),
            # of two points whose forces are small, a contraction knows how far they can be apart
            "one": apart
            <= certificate.stretches[best] * jnp.sum(left) / jnp.maximum(certificate.rate, 1e-12) * (1 + 1e-3) + 1e-5,
        }

    return jax.vmap(one)(arrays, keys)


def size(states: dict[str, Array]) -> Array:
    """Euclidean norm of every row."""
    return jnp.sqrt(sum(jnp.sum(v**2, axis=1) for v in states.values()))


def run_point(kind: str, leak: float, beta: float, nets: int) -> dict[str, Any]:
    """All nets of one kind at one leak and nudge."""
    outflow = KINDS[kind]
    dynamics: Any = ex.LeakyDirected(leak=1.0) if outflow is None else ex.LeakyFlow(leak=0.5, outflow=outflow)
    activation = jnp.tanh if outflow is None else None
    keys = jax.random.split(root_key(list(KINDS).index(kind)), nets)

    def draw(key):
        graph = directed_complete(2, HIDDEN, OUTPUTS, activation, key=key)
        gain = jnp.exp(jax.random.uniform(jax.random.fold_in(key, 1), minval=math.log(0.05), maxval=math.log(2.0)))
        return jax.tree.map(lambda a: gain * a if eqx.is_inexact_array(a) else a, graph)

    graphs = eqx.filter_vmap(draw)(keys)
    found = {k: np.asarray(v) for k, v in measure(dynamics, graphs, keys, jnp.asarray(leak), jnp.asarray(beta)).items()}
    sure = found["certified"]
    tight = found["steps"][sure] / found["bound"][sure]
    return {
        "kind": kind,
        "leak": leak,
        "beta": beta,
        "nets": nets,
        "certified": int(sure.sum()),
        "settled": int(found["settled"].sum()),
        "failed": int((sure & ~found["settled"]).sum()),
        "split": int((sure & ~found["one"]).sum()),
        "tightness": float(np.median(tight)) if len(tight) else None,
        "criteria": [int((found["best"] == index).sum()) for index in range(5)],
    }


def run(settings: Settings, cells: Cells) -> Numbers:
    """Every kind at every leak, free and nudged; an additive net needs a leak."""
    points = [
        (kind, leak, beta) for kind in KINDS for leak in LEAKS for beta in BETAS if leak > 0 or kind != "additive"
    ]
    return {
        "points": [
            cells(f"{kind}-{leak:g}-{beta:g}", lambda at=(kind, leak, beta): run_point(*at, settings.nets))
            for kind, leak, beta in points
        ]
    }


def draw(numbers: Numbers) -> Figure:
    """Settled and certified shares against leak, and how much of the bound was needed."""
    figure, (left, right) = panels(2, width=5.0, height=3.8)
    for index, kind in enumerate(KINDS):
        rows = [row for row in numbers["points"] if row["kind"] == kind and row["beta"] == 0]
        leaks = [row["leak"] for row in rows]
        left.plot(
            leaks, [100 * row["settled"] / row["nets"] for row in rows], color=f"C{index}", label=f"{kind}, settled"
        )
        left.plot(
            leaks, [100 * row["certified"] / row["nets"] for row in rows], "--", color=f"C{index}", label="certified"
        )
        known = [(row["leak"], row["tightness"]) for row in rows if row["tightness"] is not None]
        right.plot(
            [leak for leak, _ in known], [100 * share for _, share in known], "o-", color=f"C{index}", label=kind
        )
    left.set(xlabel="leak", ylabel="nets, %", ylim=(-2, 102))
    right.set(xlabel="leak", ylabel="steps needed, % of the bound (median)", ylim=(0, 102))
    left.legend(**{**QUIET, "fontsize": "x-small"})
    right.legend(**QUIET)
    return figure


def tabulate(numbers: Numbers) -> Table:
    """A row per kind, leak and nudge."""
    rows = [
        [
            row["kind"],
            f"{row['leak']:g}",
            f"{row['beta']:g}",
            str(row["nets"]),
            str(row["certified"]),
            " / ".join(map(str, row["criteria"])),
            str(row["settled"]),
            str(row["failed"] + row["split"]),
            "-" if row["tightness"] is None else f"{100 * row['tightness']:.0f}",
        ]
        for row in numbers["points"]
    ]
    headings = ["outflow", "leak", "beta", "nets", "certified", "by C1 / C2 / C3 / C4 / C5", "settled", "violations"]
    return Table("Random complete nets of six hidden and two output units", [*headings, "steps, % of the bound"], rows)


def judge(numbers: Numbers) -> list[Judgement]:
    """No certified net fails; without a leak none is certified."""
    points = numbers["points"]
    sure, wrong = (sum(row[name] for row in points) for name in ("certified", "failed"))
    split, nets = (sum(row[name] for row in points) for name in ("split", "nets"))
    bare = [row for row in points if row["leak"] == 0 and row["kind"] == "signed"]
    absolute = [row for row in points if row["leak"] > 0 and row["kind"] == "absolute"]
    return [
        judge_claim(
            "energax",
            "no certified net fails to settle at one point or needs more steps than bounded, free or nudged",
            wrong == split == 0 and sure > 0,
            f"{sure} of {nets} nets certified, {wrong} did not settle within the bound, {split} at two points",
        ),
        judge_claim(
            "energax",
            "signed outflow without a leak is never certified, absolute outflow with any leak always",
            all(row["certified"] == 0 for row in bare) and all(row["certified"] == row["nets"] for row in absolute),
            f"certified: {sum(row['certified'] for row in bare)} of {sum(row['nets'] for row in bare)} and "
            f"{sum(row['certified'] for row in absolute)} of {sum(row['nets'] for row in absolute)}",
        ),
    ]


EXPERIMENT = Experiment(
    name="costa2025-stability",
    paper=PAPER,
    summary="random directed nets against leak: which settle, which are certified, and the bound on steps",
    small=Settings(nets=20),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
    tabulate=tabulate,
)
