"""Checks of a dynamics."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from energax.checks.means import (
    change_targets,
    distance,
    draw_feasible_states,
    draw_states,
    energy_of,
    force_of,
    free_phase_of,
    leaves,
    minimise_block,
    nudged_phase_of,
    precision,
    require,
    require_close,
    require_one_trace,
    rounding,
    samples,
    scale_of,
    start_of,
    take_part,
)
from energax.costs import SquaredError
from energax.dynamics.base import (
    AbstractBlockEnergy,
    AbstractDynamics,
    AbstractEnergy,
    AbstractTotalEnergy,
    FreeGradient,
)
from energax.dynamics.model import Model, name_parts, split_parameters
from energax.dynamics.phase import Batch
from energax.graph.graph import Graph
from energax.graph.structure import AnyGraph
from energax.rules.base import energy_gradient


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
    check_free_phase(dynamics, graph, batch)
    check_parameter_gradient(dynamics, graph, batch, complete)
    check_block_minimiser(dynamics, graph, batch)
    check_force_traces_once(dynamics, graph, batch)


def check_force_shapes(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> None:
    """One force per free node, with its state's shape and dtype; one energy per sample."""
    for phase in (free_phase_of(dynamics, graph, batch), nudged_phase_of(dynamics, graph, batch)):
        start = start_of(phase).states
        expected = set(graph.free(phase.clamped.values))
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
    states, direction = draw_states(phase, 0), draw_states(phase, 1)
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
    states = draw_states(whole, 0)
    single = nudged_phase_of(dynamics, graph, take_part(batch, slice(1)))
    alone = force_of(single, jax.tree.map(lambda v: v[:1], states))
    together = jax.tree.map(lambda v: v[:1], force_of(whole, states))
    require_close(together, alone, rounding(batch), "the force on a sample depends on the rest of its batch")


def check_labels_stay_out_of_the_free_phase(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> None:
    """A nudge of strength 0 is no nudge; a positive one moves something."""
    free = free_phase_of(dynamics, graph, batch)
    states = draw_states(free, 0)
    expected = force_of(free, states)
    none = force_of(nudged_phase_of(dynamics, graph, batch, 0.0), states)
    require_close(none, expected, rounding(batch), "the target reaches the force at beta = 0")
    moved = distance(force_of(nudged_phase_of(dynamics, graph, batch), states), expected)
    require(moved > 0, "beta = 1 leaves every force as it is: the nudge is lost")


def check_free_phase(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> None:
    """A start that is said to be settled has no force, and no gradient either where `free_gradient` says so.

    With these states for a reference the phase has the same gradient there: rules prepare once for all phases.
    """
    phase = free_phase_of(dynamics, graph, batch)
    start = start_of(phase)
    if not start.settled:
        return
    allowed = 1e2 * rounding(batch)
    scale = scale_of(phase, start.states, jnp.asarray(allowed))
    residual = float(jnp.max(scale.residual(force_of(phase, start.states))))
    require(residual <= allowed, f"start() says settled=True, and a force is left: residual {residual:.3g}")
    if not isinstance(dynamics, AbstractTotalEnergy):
        return
    weights = jnp.ones(samples(batch)) / samples(batch)
    found = eqx.filter_jit(energy_gradient)(phase, start.states, weights)
    again = eqx.filter_jit(energy_gradient)(phase.prepare_again(reference=start.states), start.states, weights)
    off = distance(again, found)
    require(off <= allowed, f"dF/dtheta at the free equilibrium changes with that for a reference: off by {off:.3g}")
    if dynamics.free_gradient(graph) is not FreeGradient.ZERO:
        return
    size = max(float(jnp.max(jnp.abs(leaf))) for leaf in leaves(found))
    require(size <= allowed, f"free_gradient() says ZERO, and dF/dtheta at the free equilibrium is up to {size:.3g}")


def check_parameter_gradient(dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch, complete: bool = True) -> None:
    """What `prepare` hoists out of the relaxation keeps its parameter gradient.

    Compared with central differences of the energy (of the force along a random direction where there is none),
    everything prepared anew for the shifted parameters.
    """
    parameters, rest = split_parameters(Model(graph, dynamics))
    vector, unravel = ravel_pytree(parameters)
    states, signal = (draw_states(nudged_phase_of(dynamics, graph, batch), seed) for seed in (0, 1))

    @jax.jit
    def objective(vector):
        model = eqx.combine(unravel(vector), rest)
        phase = nudged_phase_of(model.dynamics, model.graph, batch)
        if phase.has_energy:
            return jnp.sum(phase.energy(states))
        return sum(jnp.sum(f * s) for f, s in zip(leaves(phase.force(states)), leaves(signal), strict=True))

    found = jax.jit(jax.grad(objective))(vector)
    lost = [name for name, fn in name_parts(unravel(found)).items() if leaves(fn) and not any(map(np.any, leaves(fn)))]
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
        names = graph.free(phase.clamped.values)
        at, *others = (draw_feasible_states(phase, seed) for seed in range(4))
        blocks = graph.colouring(names) if isinstance(graph, Graph) else (names,)
        for block in blocks:
            best = minimise_block(phase, at, block)
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
        return phase.force(phase.start().states)

    require_one_trace(
        force, [(dynamics, graph, b, jnp.asarray(s)) for b, s in ((batch, 0.5), (change_targets(batch), 0.25))]
    )
