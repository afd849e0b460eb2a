"""Conformance checks for classes of your own: dynamics, solvers and rules (what scikit-learn's check_estimator is).

Each of the three functions runs a list of small checks and raises `CheckError` at the first that fails, saying what
failed and by how much. Tolerances follow the precision of the arrays you hand over; float64 tells most.

Example:
    >>> import jax, jax.numpy as jnp
    >>> from energax import PredictiveCoding, Batch, checks, networks
    >>> graph = networks.mlp([4, 6, 3], jnp.tanh, key=jax.random.key(0))
    >>> batch = Batch(jnp.ones((4, 4)), jnp.eye(4, 3))
    >>> checks.check_dynamics(PredictiveCoding(), graph, batch)
"""

from collections.abc import Callable
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from energax.activations import identity
from energax.costs import SquaredError
from energax.dynamics import AbstractBlockEnergy, AbstractDynamics, AbstractEnergy
from energax.energies import PredictiveCoding
from energax.errors import EnergaxError
from energax.graph import Graph
from energax.networks import mlp
from energax.phase import Batch, Phase, prepared
from energax.rules.base import AbstractRule
from energax.solvers.engine import AbstractSolver, Verdict, precision_floor
from energax.structure import AnyGraph, States

prepare_phase = eqx.filter_jit(prepared)


class CheckError(EnergaxError, AssertionError):
    """A class that does not keep its contract."""


# Dynamics --------------------------------------------------------------------------------------------------------


def check_dynamics(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch, *, complete: bool = True) -> None:
    """Check a dynamics on a graph that it is made for.

    Args:
        dynamics: what to check.
        graph: a small network.
        batch: at least two samples; y as the dynamics' cost takes it.
        complete: whether the parameter gradient is the full derivative. False where the theory holds a part of it
            constant by `stop_gradient`; then only that no function is left without a gradient is checked.

    Raises:
        CheckError: the first broken promise.
    """
    check_force_shapes(dynamics, graph, batch)
    check_force_is_downhill(dynamics, graph, batch)
    check_samples_are_independent(dynamics, graph, batch)
    check_labels_stay_out_of_the_free_phase(dynamics, graph, batch)
    check_parameter_gradient(dynamics, graph, batch, complete)
    check_block_minimiser(dynamics, graph, batch)
    check_force_traces_once(dynamics, graph, batch)


def check_force_shapes(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> None:
    """One force per free node, with its state's shape and dtype; one energy per sample."""
    for phase in (free_phase_of(dynamics, graph, batch), nudged_phase_of(dynamics, graph, batch)):
        start = dynamics.start(graph, phase.context).states
        expected = set(graph.free(phase.context.clamped))
        require(set(start) == expected, f"start() gives states to {sorted(start)}; free nodes are {sorted(expected)}")
        force = force_of(phase, start)
        require(set(force) == expected, f"force() moves {sorted(force)}; free nodes are {sorted(expected)}")
        for name, state in start.items():
            require(
                force[name].shape == state.shape and force[name].dtype == state.dtype,
                f"force on {name!r} is {force[name].dtype}{force[name].shape}; its state is {state.dtype}{state.shape}",
            )
        if phase.has_energy:
            shape, size = energy_of(phase, start).shape, samples(batch)
            require(shape == (size,), f"the energy has shape {shape}; expected one number per sample, ({size},)")


def check_force_is_downhill(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> None:
    """Force = -dF/dv of an `AbstractEnergy`, by central differences along a random direction."""
    if not isinstance(dynamics, AbstractEnergy):
        return
    phase = nudged_phase_of(dynamics, graph, batch)
    states, direction = random_states(phase, 0), random_states(phase, 1)
    step = precision(batch) ** (1 / 3)

    def energy(t):
        return energy_of(phase, jax.tree.map(lambda v, d: v + t * d, states, direction))

    measured = -(energy(step) - energy(-step)) / (2 * step)
    force = force_of(phase, states)
    given = sum(jnp.sum((force[n] * direction[n]).reshape(samples(batch), -1), axis=1) for n in states)
    require_close(given, measured, 1e4 * precision(batch) ** (2 / 3), "force is not -dF/dv along a random direction")


def check_samples_are_independent(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> None:
    """The force on a sample is the same alone and in its batch."""
    whole = nudged_phase_of(dynamics, graph, batch)
    states = random_states(whole, 0)
    single = nudged_phase_of(dynamics, graph, part(batch, slice(1)))
    alone = force_of(single, jax.tree.map(lambda v: v[:1], states))
    together = jax.tree.map(lambda v: v[:1], force_of(whole, states))
    require_close(together, alone, rounding(batch), "the force on a sample depends on the rest of its batch")


def check_labels_stay_out_of_the_free_phase(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> None:
    """A nudge of strength 0 is no nudge; a positive one moves something."""
    free = free_phase_of(dynamics, graph, batch)
    states = random_states(free, 0)
    expected = force_of(free, states)
    none = force_of(nudged_phase_of(dynamics, graph, batch, 0.0), states)
    require_close(none, expected, rounding(batch), "the target reaches the force at beta = 0")
    moved = distance(force_of(nudged_phase_of(dynamics, graph, batch), states), expected)
    require(moved > 0, "beta = 1 leaves every force as it is: the nudge is lost")


def check_parameter_gradient(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch, complete: bool = True) -> None:
    """What `prepare` hoists out of the relaxation keeps its parameter gradient.

    Compared with central differences of the energy (of the force along a random direction where there is none),
    context prepared anew for the shifted parameters.
    """
    parameters, rest = eqx.partition(graph, eqx.is_inexact_array)
    vector, unravel = ravel_pytree(parameters)
    states, signal = (random_states(nudged_phase_of(dynamics, graph, batch), seed) for seed in (0, 1))

    @jax.jit
    def objective(vector):
        phase = nudged_phase_of(dynamics, eqx.combine(unravel(vector), rest), batch)
        if phase.has_energy:
            return jnp.sum(phase.energy(states))
        return sum(jnp.sum(f * s) for f, s in zip(leaves(phase.force(states)), leaves(signal), strict=True))

    found = jax.jit(jax.grad(objective))(vector)
    lost = [name for name, fn in named(unravel(found)).items() if leaves(fn) and not any(map(np.any, leaves(fn)))]
    require(not lost, f"no gradient reaches {lost}: is a hoisted map left out of prepare(), or its gradient stopped?")
    if not complete:
        return
    direction = jnp.asarray(np.random.default_rng(0).standard_normal(vector.shape), vector.dtype)
    step = precision(batch) ** (1 / 3)
    measured = (objective(vector + step * direction) - objective(vector - step * direction)) / (2 * step)
    given = jnp.vdot(found, direction)
    require_close(given, measured, 1e4 * precision(batch) ** (2 / 3), "the parameter gradient is not the derivative")


def check_block_minimiser(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> None:
    """Every block of an `AbstractBlockEnergy` is moved to its own minimum of F."""
    if not isinstance(dynamics, AbstractBlockEnergy):
        return
    phases = [free_phase_of(dynamics, graph, batch)]
    if isinstance(dynamics.cost, SquaredError):  # other costs are linearised at the output, not minimised
        phases.append(nudged_phase_of(dynamics, graph, batch))
    for phase in phases:
        names = graph.free(phase.context.clamped)
        at, *others = (feasible(phase, seed) for seed in range(4))
        blocks = graph.colouring(names) if isinstance(graph, Graph) else (names,)
        for block in blocks:
            best = minimised(phase, at, block)
            require(set(best) == set(block), f"block_minimiser moves {sorted(best)} for the block {sorted(block)}")
            lowest = energy_of(phase, {**at, **best})
            for other in (at, *others):
                for share in (1.0, 0.01):
                    tried = {n: best[n] + share * (other[n] - best[n]) for n in block}
                    excess = float(jnp.max(lowest - energy_of(phase, {**at, **tried})))
                    allowed = rounding(batch) * (1 + float(jnp.max(jnp.abs(lowest))))
                    require(excess <= allowed, f"F is higher at the minimiser of {sorted(block)} by {excess:.3g}")


def check_force_traces_once(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> None:
    """Another batch and another nudge strength do not compile again."""

    def force(dynamics, graph, batch, beta):
        phase = nudged_phase_of(dynamics, graph, batch, beta)
        return phase.force(dynamics.start(graph, phase.context).states)

    require_one_trace(force, [(dynamics, graph, b, jnp.asarray(s)) for b, s in ((batch, 0.5), (changed(batch), 0.25))])


# Solvers ---------------------------------------------------------------------------------------------------------


def check_solver(
    make: Callable[[float, int], AbstractSolver], *, dynamics: AbstractDynamics | None = None, max_steps: int = 2000
) -> None:
    """Check a solver on a deep linear net, whose equilibrium a dense linear solve gives.

    Args:
        make: `(tol, max_steps)` to a solver.
        dynamics: a dynamics that is linear on identity activations; `PredictiveCoding()` by default. A solver by
            blocks takes `Hopfield()`.
        max_steps: steps that are enough for a small net.

    Raises:
        CheckError: the first broken promise.
    """
    dynamics = PredictiveCoding() if dynamics is None else dynamics
    graph = mlp([4, 5, 4, 3], identity(), gain=0.5, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 4))
    batch = Batch(x, jax.random.normal(jax.random.key(2), (4, 3)))
    phase = nudged_phase_of(dynamics, graph, batch)
    start = dynamics.start(graph, phase.context).states
    tol = max(precision(batch) ** 0.5 / 100, 100 * precision(batch))
    settle = eqx.filter_jit(lambda solver, phase, start: solver.solve(phase, start))
    settled = settle(make(tol, max_steps), phase, start)

    check_solution(settled.states, linear_equilibrium(phase, start), settled.result, tol)
    check_verdict(phase, start, settled, tol)
    first = nudged_phase_of(dynamics, graph, part(batch, slice(1)))
    alone = settle(make(tol, max_steps), first, jax.tree.map(lambda v: v[:1], start))
    together = jax.tree.map(lambda v: v[:1], settled.states)
    require_close(together, alone.states, rounding(batch), "a sample's equilibrium depends on the rest of its batch")
    short = settle(make(tol, 1), phase, jax.tree.map(lambda v: v + 1, start))
    check_verdict(phase, jax.tree.map(lambda v: v + 1, start), short, tol)
    again = settle(make(tol, max_steps), phase, settled.states)
    check_verdict(phase, settled.states, again, tol)
    check_solution(again.states, linear_equilibrium(phase, start), again.result, tol)


def check_solution(states: States, expected: States, result: Array, tol: float) -> None:
    """The equilibrium of the dense solve, and a verdict that says so."""
    require(bool(jnp.all(result == Verdict.CONVERGED)), f"verdicts {np.asarray(result)} on a linear net; expected 0")
    require_close(states, expected, 1e3 * tol, "the equilibrium is not the linear system's solution")


def check_verdict(phase: Phase, start: States, settled, tol: float) -> None:
    """The residual is what it is defined to be, and the verdict is what the residual says."""
    scale = jnp.maximum(phase.drive(start), precision_floor(start))
    force = sum(jnp.sum((f**2).reshape(f.shape[0], -1), axis=1) for f in leaves(force_of(phase, settled.states)))
    residual = jnp.sqrt(force) / scale
    off = float(jnp.max(jnp.abs(settled.residual - residual) / (tol + residual)))
    require(off <= 0.01, f"the residual is not |force| / drive at the states returned: off by {off:.3g} of its value")
    converged = np.asarray(settled.result) == Verdict.CONVERGED
    low = np.asarray(settled.residual) <= tol
    require(
        bool(np.all(converged == low)),
        f"verdicts {np.asarray(settled.result)} with residuals {np.asarray(settled.residual)} at tolerance {tol:.3g}",
    )


def linear_equilibrium(phase: Phase, start: States) -> States:
    """V with force(v) = 0 for an affine force, by a dense solve."""
    vector, unravel = ravel_pytree(start)

    @jax.jit
    def force(v):
        return ravel_pytree(phase.force(unravel(v)))[0]

    return unravel(vector - jnp.linalg.solve(jax.jit(jax.jacobian(force))(vector), force(vector)))


# Rules -----------------------------------------------------------------------------------------------------------


def check_rule(
    rule: AbstractRule,
    dynamics: AbstractDynamics,
    graph: AnyGraph,
    batch: Batch,
    solver: AbstractSolver,
    *,
    reference: AbstractRule | None = None,
    within: float = 1e-2,
) -> None:
    """Check a rule on a small network.

    Args:
        rule: what to check; deterministic, and in its limit (a small nudge strength) if it has a reference.
        dynamics: what it runs on.
        graph: a small network.
        batch: an even number of samples.
        solver: what settles the phases, to a tolerance well below `within`.
        reference: a rule whose gradient it tends to, e.g. `Backprop()` or `Adjoint()`.
        within: largest relative distance from the reference's gradient.

    Raises:
        CheckError: the first broken promise.
    """
    call = eqx.filter_jit(update_of)
    gradient, info = call(rule, dynamics, graph, batch, solver)
    check_gradient_structure(gradient, graph)
    require(info.cost.shape == (samples(batch),), f"info.cost has shape {info.cost.shape}; expected one per sample")

    half = samples(batch) // 2
    halves = (part(batch, slice(half)), part(batch, slice(half, 2 * half)))
    first, second = (call(rule, dynamics, graph, each, solver)[0] for each in halves)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    require_close(gradient, mean, 1e2 * rounding(batch), "the gradient is not the average over the batch")
    require_one_trace(update_of, [(rule, dynamics, graph, b, solver) for b in (batch, changed(batch))])
    if reference is not None:
        expected = call(reference, dynamics, graph, batch, solver)[0]
        require_close(gradient, expected, within, f"the gradient is not {type(reference).__name__}'s")


def check_gradient_structure(gradient: PyTree, graph: AnyGraph) -> None:
    """One finite array per parameter, of its shape and dtype."""
    parameters = eqx.filter(graph, eqx.is_inexact_array)
    require(
        jax.tree.structure(gradient) == jax.tree.structure(parameters),
        "the gradient's structure is not the graph's (arrays at its parameters, None elsewhere)",
    )
    paths = jax.tree_util.tree_leaves_with_path(gradient)
    for (path, found), parameter in zip(paths, leaves(parameters), strict=True):
        where = jax.tree_util.keystr(path)
        require(
            found.shape == parameter.shape and found.dtype == parameter.dtype,
            f"the gradient of {where} is {found.dtype}{found.shape}; expected {parameter.dtype}{parameter.shape}",
        )
        require(bool(jnp.all(jnp.isfinite(found))), f"the gradient of {where} is not finite")


def update_of(rule, dynamics, graph, batch, solver):
    """The gradient and the info of the first update on a batch."""
    gradient, _, info = rule(dynamics, graph, batch, solver, rule.init(dynamics, graph, batch))
    return gradient, info


# Means -----------------------------------------------------------------------------------------------------------


def free_phase_of(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> Phase:
    """A free phase on the batch's inputs."""
    return prepare_phase(dynamics, graph, graph.clamp(batch.x), batch.key)


def nudged_phase_of(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch, beta: float | Array = 1.0) -> Phase:
    """A nudged phase on the batch."""
    return prepare_phase(dynamics, graph, graph.clamp(batch.x), batch.key, batch.y, jnp.asarray(beta))


@eqx.filter_jit
def force_of(phase: Phase, states: States) -> States:
    """The force, compiled."""
    return phase.force(states)


@eqx.filter_jit
def energy_of(phase: Phase, states: States) -> Array:
    """The energy, compiled."""
    return phase.energy(states)


@eqx.filter_jit
def minimised(phase: Phase, states: States, block: tuple[str, ...]) -> States:
    """One block at its minimiser, compiled."""
    arguments = (phase.graph, states, phase.context, phase.target, phase.beta, block)
    return cast(AbstractBlockEnergy, phase.dynamics).block_minimiser(*arguments)


def random_states(phase: Phase, seed: int) -> States:
    """States of order 0.3 in (0, 1), inside every activation's range."""
    start = phase.dynamics.start(phase.graph, phase.context).states
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.uniform(0.1, 0.5, v.shape), v.dtype) for name, v in start.items()}


def feasible(phase: Phase, seed: int) -> States:
    """States that block minimisers can return, so that they keep to any box."""
    states = random_states(phase, seed)
    force = force_of(phase, states)
    return {name: states[name] + force[name] for name in states}


def changed(batch: Batch) -> Batch:
    """Another batch of the same shape."""
    return Batch(jax.tree.map(lambda a: a[::-1] * 0.5, batch.x), batch.y[::-1], batch.key)


def part(batch: Batch, rows: slice) -> Batch:
    """Some of the samples."""
    return Batch(jax.tree.map(lambda a: a[rows], batch.x), batch.y[rows], batch.key)


def samples(batch: Batch) -> int:
    """Number of samples."""
    return batch.y.shape[0]


def named(gradient: AnyGraph) -> dict[str, PyTree]:
    """Function name -> its part of a gradient, for reports."""
    return gradient.fns if isinstance(gradient.fns, dict) else {"fns": gradient.fns}


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
    return max(float(jnp.max(jnp.abs(p - q))) for p, q in zip(leaves(a), leaves(b), strict=True))


def require_one_trace(function: Callable, calls: list[tuple]) -> None:
    """Refuse a function that is traced again where only values change."""
    traces = []

    @eqx.filter_jit
    def counted(*arguments):
        traces.append(None)
        return function(*arguments)

    for arguments in calls:
        counted(*arguments)
    require(len(traces) == 1, f"traced {len(traces)} times for inputs of one shape: a value has become static")


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
