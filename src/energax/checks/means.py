"""What the checks share: phases, random states, distances, and the error they raise."""

from collections.abc import Callable
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from energax.dynamics.base import AbstractBlockEnergy, AbstractDynamics, Start
from energax.dynamics.phase import Batch, Phase, prepare_phase
from energax.exceptions import DataError, EnergaxError
from energax.graph.clamping import hold
from energax.graph.parts import States
from energax.graph.structure import AnyGraph
from energax.solvers.verdict import measure_scale

prepare_phase, scale_of = eqx.filter_jit(prepare_phase), eqx.filter_jit(measure_scale)


class CheckError(EnergaxError, AssertionError):
    """A class that does not keep its contract."""


def free_phase_of(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> Phase:
    """A free phase on the batch's inputs."""
    return prepare_phase(dynamics, graph, hold(graph, batch.x, batch.key, batch.known))


def nudged_phase_of(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch, beta: float | Array = 1.0) -> Phase:
    """A nudged phase on the batch."""
    return prepare_phase(
        dynamics, graph, hold(graph, batch.x, batch.key, batch.known), target=batch.y, beta=jnp.asarray(beta)
    )


@eqx.filter_jit
def start_of(phase: Phase) -> Start:
    """Where the phase starts, compiled."""
    return phase.start()


@eqx.filter_jit
def force_of(phase: Phase, states: States) -> States:
    """The force, compiled."""
    return phase.force(states)


@eqx.filter_jit
def energy_of(phase: Phase, states: States) -> Array:
    """The energy, compiled."""
    return phase.energy(states)


@eqx.filter_jit
def minimise_block(phase: Phase, states: States, block: tuple[str, ...]) -> States:
    """One block at its minimiser, compiled."""
    return cast(AbstractBlockEnergy, phase.dynamics).block_minimiser(phase, states, block)


def draw_states(phase: Phase, seed: int) -> States:
    """States of order 0.3 in (0, 1), inside every activation's range."""
    start = start_of(phase).states
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.uniform(0.1, 0.5, v.shape), v.dtype) for name, v in start.items()}


def draw_feasible_states(phase: Phase, seed: int) -> States:
    """States that block minimisers can return, so that they keep to any box."""
    states = draw_states(phase, seed)
    force = force_of(phase, states)
    return {name: states[name] + force[name] for name in states}


def change_targets(batch: Batch) -> Batch:
    """Another batch of the same shape."""
    return Batch(jax.tree.map(lambda a: a[::-1] * 0.5, batch.x), targets(batch)[::-1], batch.key)


def take_part(batch: Batch, rows: slice) -> Batch:
    """Some of the samples."""
    return Batch(jax.tree.map(lambda a: a[rows], batch.x), targets(batch)[rows], batch.key)


def samples(batch: Batch) -> int:
    """Number of samples."""
    return targets(batch).shape[0]


def targets(batch: Batch) -> Array:
    """The targets, which every check needs."""
    if batch.y is None:
        raise DataError("the checks nudge phases: give the batch a y")
    if isinstance(batch.y, dict):
        raise DataError("the checks know one output: give the batch one array of targets")
    return batch.y


def leaves(tree: PyTree) -> list:
    """`jax.tree.leaves`."""
    return jax.tree.leaves(tree)


def precision(batch: Batch) -> float:
    """Machine epsilon of the inputs."""
    return float(jnp.finfo(leaves(batch.x)[0].dtype).eps)


def rounding(batch: Batch) -> float:
    """What may differ by the order of summation alone."""
    return 1e4 * precision(batch)


def distance(a: PyTree, b: PyTree) -> float:
    """Largest absolute difference."""
    pairs = zip(leaves(a), leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(p) - np.asarray(q)))) for p, q in pairs)


def require_one_trace(function: Callable, calls: list[tuple]) -> list:
    """Refuse a function that is traced again where only values change; what it returned, call by call."""
    traces = []

    @eqx.filter_jit
    def counted(*arguments):
        traces.append(None)
        return function(*arguments)

    found = [counted(*arguments) for arguments in calls]
    require(len(traces) == 1, f"traced {len(traces)} times for inputs of one shape: a value has become static")
    return found


def require_close(found: PyTree, expected: PyTree, tolerance: float, message: str) -> None:
    """Refuse |found - expected| > tolerance * (|expected| or 1, the smaller) + tolerance^2, over all leaves."""
    a, b = (np.concatenate([np.ravel(leaf) for leaf in leaves(tree)]) for tree in (found, expected))
    scale = min(1.0, float(np.linalg.norm(b)))
    off = float(np.linalg.norm(a - b)) if np.all(np.isfinite(a)) else float("inf")
    require(off <= tolerance * scale + tolerance**2, f"{message}: off by {off:.3g}, allowed {tolerance * scale:.3g}")


def require(holds: bool, message: str) -> None:
    """Raise `CheckError` unless `holds`."""
    if not holds:
        raise CheckError(message)
