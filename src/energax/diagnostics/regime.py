"""The regime report: how far from equilibrium a rule runs, and how far its gradient is from the exact one."""

import re

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
from energax.rules.base import AbstractRule, Info, open_batch
from energax.solvers.coordinates import StateCoordinates
from energax.solvers.engine import AbstractSolver
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
    gradient, info = settled_gradient(dynamics, graph, batch, solver, rule)
    careful = solver.tighten(CAREFUL, 10)
    rows = open_batch(graph, batch)
    held = rows.clamped
    phase = prepare_phase(dynamics, graph, held)
    start = phase.start()
    reference = rule.reference() or (Backprop() if start.settled else Adjoint())
    exact, _, exact_info = reference(dynamics, graph, batch, careful, ())
    free = start.states if start.settled else careful.solve(phase, start).states
    nudged = prepare_phase(dynamics, graph, held, target=rows.target, beta=jnp.ones(()))
    curvature = jnp.max(largest_curvature(*StateCoordinates().view(nudged, Start(free))))
    _, better = settled_gradient(dynamics, graph, batch, careful, rule) if info.phases else (None, exact_info)
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
