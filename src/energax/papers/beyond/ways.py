"""The public study's nets, the energies and solvers that are compared on them, and how they are followed step by step.

References: github.com/tarun-ks/predictive-coding-depth-scaling for the nets; docs/bipc.md for the energies.
"""

import dataclasses
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

import energax as ex
from energax.data import Dataset
from energax.dynamics import AbstractDynamics, Model
from energax.papers.names import require_name
from energax.rules.base import energy_gradient
from energax.solvers import AbstractIteration, AbstractSolver
from energax.solvers.engine import run
from energax.solvers.verdict import conclude, ended_uphill, keep_in_scale, measure_scale
from energax.training.learner import root_key

COST = ex.SquaredError()
ENOUGH = 0.9  # the cosine that is asked for
LOOK = 1 / 32  # of the steps taken so far lie between two looks at the cosine


def make_net(data: Dataset, width: int, depth: int, seed: int) -> ex.Graph:
    """The study's residual MLP: ReLU, muPC's factors, a linear output that the cost reads directly."""
    key, shape = jax.random.fold_in(root_key(seed), depth), data.image_shape
    return ex.networks.residual_mlp(shape, width, depth, data.classes, jax.nn.relu, output_state=False, key=key)


def strength(depth: int) -> float:
    """Of skew feedback: a L at most 10, since the error shrinks by about 1 - a from block to block."""
    return min(0.3, 10 / depth)


def slow(depth: int) -> float:
    """Momentum 1 - 2 / L, where an error must last for as many steps as there are blocks to cross."""
    return 1 - 2 / depth


def quick(depth: int) -> float:
    """Momentum .6, .8, .9 at 8, 32, 128 blocks, where feedback damps: with more, the lowest gradients change sign."""
    return 1 - 0.1 * math.sqrt(128 / max(depth, 8))


def predictive(depth: int) -> AbstractDynamics:
    """Predictive coding."""
    return ex.PredictiveCoding(COST)


def skew(depth: int) -> AbstractDynamics:
    """Feedback alone, weaker in deeper nets."""
    return ex.Bidirectional(feedback=jnp.asarray(strength(depth)), self_term=jnp.asarray(0.0), cost=COST)


def balanced(depth: int) -> AbstractDynamics:
    """Feedback with a self-term, as strong at every depth (`beyond-feedback`)."""
    return ex.Bidirectional(feedback=jnp.asarray(0.5), self_term=jnp.asarray(0.5), cost=COST)


@dataclasses.dataclass(frozen=True)
class Energy:
    """An energy and its nudge.

    Attributes:
        label: what the picture calls it.
        dynamics: of a net of so many blocks.
        momentum: of Nesterov's steps in a net of so many blocks.
        beta: nudge strength.
    """

    label: str
    dynamics: Callable[[int], AbstractDynamics]
    momentum: Callable[[int], float]
    beta: float = 1.0


ENERGIES = {
    "pc": Energy("PC", predictive, slow),
    "nudge": Energy("PC-Nudge", predictive, slow, 1e-3),
    "skew": Energy("skew", skew, quick),
    "balanced": Energy("balanced", balanced, quick),
}

ONE = ex.Stopping(max_steps=1, check_every=0)  # the solvers here are counted from outside


@dataclasses.dataclass(frozen=True)
class Solver:
    """A solver, one step at a time.

    Attributes:
        label: what the picture calls it.
        make: the iteration, with the energy's momentum.
        reach: most steps for so many blocks.
        local: whether a step hears neighbours alone (and, by conjugate gradients, two numbers per sample).
    """

    label: str
    make: Callable[[float], AbstractIteration]
    reach: Callable[[int], int]
    local: bool = True


def flow(momentum: float) -> AbstractIteration:
    """Gradient flow of the states, its step bounded by the measured curvature; without momentum compiled as with."""
    return ex.GradientFlow(step_size=1.0, momentum=jnp.asarray(momentum), stop=ONE)


SOLVERS = {
    "flow": Solver("gradient flow", lambda momentum: flow(0.0), lambda depth: min(2 * depth**2, 12_000)),
    "nesterov": Solver("Nesterov", flow, lambda depth: 8 * depth),
    "cg": Solver("CG on states", lambda momentum: ex.ConjugateGradient(ONE), lambda depth: 8 * depth),
    "errors": Solver(
        "CG on errors",
        lambda momentum: ex.ConjugateGradient(ONE, ex.ErrorCoordinates()),
        lambda depth: 16,
        local=False,
    ),
}


WAYS = tuple(
    f"{energy}-{solver}"
    for energy in ENERGIES
    for solver in SOLVERS
    if SOLVERS[solver].local or energy in ("pc", "nudge")
)
"""Energies and solvers that go together: errors are coordinates of predictive coding."""


def parts(way: str) -> tuple[Energy, Solver]:
    """What the name of a way stands for."""
    energy, solver = require_name("ways", way, WAYS).split("-")
    return ENERGIES[energy], SOLVERS[solver]


def label(way: str) -> str:
    """What the picture calls a way."""
    return ", ".join(part.label for part in parts(way))


def iteration(way: str, depth: int) -> AbstractIteration:
    """The solver of a way, for a net of so many blocks."""
    energy, solver = parts(way)
    return solver.make(energy.momentum(depth))


class Counted(AbstractSolver):
    """So many steps of an iteration; another number of them never recompiles.

    Attributes:
        iteration: whose steps are taken.
        count: how many, shape `()`.
    """

    iteration: AbstractIteration
    count: Array

    def solve(self, phase, start):
        """Take the steps, and look once at the end, as the engine does with `check_every=0`."""
        tol = self.iteration.stop.tol
        scale = measure_scale(phase, start.states, tol)
        view, point = self.iteration.coordinates.view(phase, start)
        end, _ = run(self.iteration, view, point, self.iteration.init(view, point), self.count)
        end, lost = keep_in_scale(point, end)
        lost |= ended_uphill(phase, phase.energy_of(start), view.energy(end), start.states)
        count = jnp.broadcast_to(self.count, lost.shape)
        return conclude(phase, view.states(end), count, scale, lost, tol)

    def tighten(self, tol, factor):
        """More steps; a tolerance is not asked for."""
        return Counted(self.iteration, self.count * factor)


def blocks(gradient: Model) -> Array:
    """The gradient of every block as a row, the lowest first."""
    (leaf,) = jax.tree.leaves(gradient.graph.functions["branch"])
    return leaf.reshape(leaf.shape[0], -1)


def by_depth(values: Array) -> Array:
    """Means over every quarter of the blocks, the lowest first, and the lowest block's own value, shape `(5,)`."""
    return jnp.concatenate([values.reshape(4, -1).mean(axis=1), values[:1]])


class Seen(eqx.Module):
    """What a relaxation was like when it was last looked at.

    Attributes:
        steps: steps taken, shape `()`.
        reached: the first look with a cosine of `ENOUGH`, of the lowest quarter and of the lowest block; -1 for none.
        cosines: of every block's gradient to the exact one, `by_depth`.
        sizes: their norms over the exact ones', `by_depth`.
    """

    steps: Array
    reached: Array
    cosines: Array
    sizes: Array


@eqx.filter_jit
def follow(
    dynamics: AbstractDynamics,
    solver: AbstractIteration,
    graph: ex.Graph,
    batch: ex.Batch,
    exact: Array,
    beta: Array,
    most: Array,
    look: Array,
) -> Seen:
    """Relax until the lowest quarter and the lowest block have a gradient in the direction of the exact one.

    Args:
        dynamics: an energy.
        solver: whose steps are taken.
        graph: a net of `make_net`.
        batch: samples.
        exact: the gradient to compare with, `blocks` of it.
        beta: nudge strength.
        most: steps after which it is given up.
        look: share of the steps taken so far after which the gradient is looked at again; from `most` on it is looked
            at after the first step and the last.
    """
    phase = ex.prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=beta)
    rows = len(batch.x)
    weights = jnp.full(rows, 1 / (beta * rows))
    view, point = solver.coordinates.view(phase, phase.start())

    def compare(point) -> tuple[Array, Array]:
        found = blocks(energy_gradient(phase, view.states(point), weights))
        size, true = jnp.linalg.norm(found, axis=1), jnp.linalg.norm(exact, axis=1)
        cosines = jnp.sum(found * exact, axis=1) / jnp.maximum(size * true, jnp.finfo(size.dtype).tiny)
        return by_depth(cosines), by_depth(size / true)

    def unfinished(now) -> Array:
        seen = now[0]
        return jnp.any(seen.reached < 0) & (seen.steps < most)

    def advance(now):
        seen, point, carry = now
        count = jnp.clip((look * seen.steps).astype(int), 1, most - seen.steps)
        point, carry = run(solver, view, point, carry, count)
        cosines, sizes = compare(point)
        steps = seen.steps + count
        first = (seen.reached < 0) & (cosines[jnp.array([0, -1])] >= ENOUGH)
        return Seen(steps, jnp.where(first, steps, seen.reached), cosines, sizes), point, carry

    none = jnp.zeros(5, exact.dtype)
    begun = Seen(jnp.zeros((), int), jnp.full(2, -1), none, none)
    return jax.lax.while_loop(unfinished, advance, (begun, point, solver.init(view, point)))[0]
