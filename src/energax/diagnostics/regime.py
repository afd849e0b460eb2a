"""The regime report: how far from equilibrium a rule runs, and how far its gradient is from the exact one."""

import re
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.diagnostics.relaxations import gather_relaxations, verdict_shares, weighted_mean
from energax.dynamics.base import AbstractDynamics, Start
from energax.dynamics.model import name_parts
from energax.dynamics.phase import Batch, prepare_phase
from energax.graph.structure import AnyGraph
from energax.rules.adjoint import Adjoint
from energax.rules.backprop import Backprop
from energax.rules.base import AbstractRule, Info, free_phase, open_batch
from energax.solvers.coordinates import StateCoordinates
from energax.solvers.engine import AbstractIteration, AbstractSolver
from energax.solvers.spectrum import largest_curvature
from energax.solvers.verdict import Verdict

CAREFUL = 1e-5  # tolerance of what a rule is compared with; float32 has little to give below it


class Regime(eqx.Module):
    """Where a rule stands on one batch. Ratios and cosines are per function of the graph and over all of them.

    Attributes:
        cosine: function name -> cosine between the rule's gradient and the reference's, 0 where either is 0; `all` for
            all parameters.
        norm_ratio: function name -> norm of the rule's gradient over the reference's, infinite where only that is 0;
            `all` likewise.
        residual: mean relative residual over samples and phases; NaN for rules that relax nothing.
        converged, stalled, out_of_steps, diverged, sampled: shares of the relaxations with that verdict. Phases
            that are known by construction are no relaxations.
        relaxed: energy gained by the nudged relaxations over what they gain when they go on to the tolerance `CAREFUL`;
            NaN without an energy.
        curvature: largest curvature (estimate, from below) over the batch where the free phase ends.
        step_bound: 2 / curvature, the largest stable explicit step.
        step_margin: step_bound over the solver's nominal step, below 1 where that step would be unstable; NaN where the
            solver has none.
        reference: name of the reference: that of the rule where it has one of its own (`free-energy`), else `backprop`
            where the feed-forward pass is the free equilibrium, and `adjoint` elsewhere.
    """

    cosine: dict[str, Array]
    norm_ratio: dict[str, Array]
    residual: Array
    converged: Array
    stalled: Array
    out_of_steps: Array
    diverged: Array
    sampled: Array
    relaxed: Array
    curvature: Array
    step_bound: Array
    step_margin: Array
    reference: str = eqx.field(static=True)


def measure_regime(
    dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch, solver: AbstractSolver, rule: AbstractRule
) -> Regime:
    """Measure the regime of a rule on one batch. Compile it with `eqx.filter_jit`.

    Args:
        dynamics: how states move.
        graph: the network.
        batch: inputs, and targets where the rule learns from them.
        solver: the solver of the training.
        rule: the rule of the training.
    """
    careful = solver.tighten(CAREFUL, 10)
    (gradient, info), (_, better) = settled_gradients(dynamics, graph, batch, (solver, careful), rule)
    rows = open_batch(graph, batch)
    held = rows.clamped
    phase = prepare_phase(dynamics, graph, held)
    start = phase.start()
    reference = rule.reference() or (Backprop() if start.settled else Adjoint())
    if isinstance(reference, Adjoint):
        settled = free_phase(dynamics, graph, rows, careful)
        exact, _ = reference.at(rows, *settled)
        free = settled[1].states
    else:
        exact, _, _ = reference(dynamics, graph, batch, careful, ())
        free = start.states if start.settled else careful.solve(phase, start).states
    nudged = prepare_phase(dynamics, graph, held, target=rows.target, beta=jnp.ones(()))
    curvature = jnp.max(largest_curvature(*StateCoordinates().view(nudged, Start(free))))
    cosine, ratio = compare_gradients(gradient, exact)
    relaxations = gather_relaxations(info, batch.weights)
    shares = verdict_shares(relaxations)
    return Regime(
        cosine=cosine,
        norm_ratio=ratio,
        residual=weighted_mean(relaxations.residual, relaxations.weights),
        **{verdict.name.lower(): shares[verdict] for verdict in Verdict},
        relaxed=relaxed_fraction(info, better),
        curvature=curvature,
        step_bound=2 / curvature,
        step_margin=2 / curvature / solver.nominal_step,
        reference=re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(reference).__name__).lower(),
    )


def settled_gradients(
    dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch, solvers: Sequence[AbstractSolver], rule: AbstractRule
) -> list[tuple[PyTree, Info]]:
    """What a rule finds by each of several solvers.

    Where these differ in numbers alone they are one program that runs several times: compiling a relaxation takes far
    longer than the relaxation.
    """
    parts = [eqx.partition(open_steps(solver), eqx.is_array) for solver in solvers]
    fixed = parts[0][1]
    kinds = [jax.tree.map(lambda a: (a.shape, a.dtype), arrays) for arrays, _ in parts]
    if not all(eqx.tree_equal((fixed, kinds[0]), (other, kind)) for (_, other), kind in zip(parts, kinds, strict=True)):
        return [settled_gradient(dynamics, graph, batch, solver, rule) for solver in solvers]
    if not jax.tree.leaves(parts[0][0]):  # nor in numbers
        return [settled_gradient(dynamics, graph, batch, solvers[0], rule)] * len(solvers)
    known = []

    def find(arrays):
        found = settled_gradient(dynamics, graph, batch, eqx.combine(arrays, fixed), rule)
        numbers, rest = eqx.partition(found, eqx.is_array)
        known.append(rest)
        return numbers

    every = jax.lax.map(find, jax.tree.map(lambda *each: jnp.stack(each), *(arrays for arrays, _ in parts)))
    return [eqx.combine(numbers, known[0]) for numbers in split(every, len(solvers))]


def split(tree: PyTree, parts: int) -> list[PyTree]:
    """The slices of arrays along their first axis."""
    leaves, structure = jax.tree.flatten(tree)
    return [jax.tree.unflatten(structure, [leaf[part] for leaf in leaves]) for part in range(parts)]


def open_steps(solver: AbstractSolver) -> AbstractSolver:
    """The solver with its number of steps as an array, where it is an iteration that asks for no static one."""
    if not isinstance(solver, AbstractIteration) or solver.stop.check_every == 0:
        return solver
    return eqx.tree_at(lambda one: one.stop.max_steps, solver, replace_fn=jnp.asarray)


def settled_gradient(dynamics, graph, batch: Batch, solver, rule: AbstractRule) -> tuple[PyTree, Info]:
    """The rule's last gradient on a batch whose parameters stand still."""
    carry = rule.init(dynamics, graph, batch)
    gradient, carry, info = rule(dynamics, graph, batch, solver, carry)
    for _ in range(rule.updates_per_batch - 1):
        gradient, carry, info = rule(dynamics, graph, batch, solver, carry)
    return gradient, info


def compare_gradients(gradient, exact) -> tuple[dict[str, Array], dict[str, Array]]:
    """Cosines and norm ratios per part of the model that has parameters, and over all of them.

    A gradient of exactly 0 has no direction (cosine 0), and by it every other one is infinitely long.
    """
    others = name_parts(exact)
    pairs = {name: (flat(part), flat(others[name])) for name, part in name_parts(gradient).items()}
    pairs = {name: pair for name, pair in pairs.items() if pair[0].size}
    pairs["all"] = (flat(gradient), flat(exact))
    tiny = jnp.finfo(pairs["all"][0].dtype).tiny
    lengths = {name: (jnp.linalg.norm(a), jnp.linalg.norm(b)) for name, (a, b) in pairs.items()}
    cosine = {
        name: jnp.vdot(a / (lengths[name][0] + tiny), b / (lengths[name][1] + tiny)) for name, (a, b) in pairs.items()
    }
    return cosine, {name: jnp.where(a == 0, 0, a / b) for name, (a, b) in lengths.items()}


def flat(tree: PyTree) -> Array:
    """All arrays of a pytree as one vector."""
    leaves = [leaf.reshape(-1) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))]
    return jnp.concatenate(leaves) if leaves else jnp.zeros(0)


def relaxed_fraction(info: Info, better: Info) -> Array:
    """Energy that the last phase gained, over what was to be gained from where it began.

    That is not where the better relaxation began: what the free phase left undone is above it, and is gained as well.
    """
    if not info.phases:
        return jnp.asarray(jnp.nan)
    name = list(info.phases)[-1]
    own, lowest = info.phases[name], better.phases[name].energy_after
    return jnp.sum(own.energy_before - own.energy_after).real / jnp.sum(own.energy_before - lowest).real
