"""Checks of a rule."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from energax.checks.means import (
    change_targets,
    leaves,
    require,
    require_close,
    require_one_trace,
    rounding,
    samples,
    take_part,
)
from energax.dynamics.base import AbstractDynamics
from energax.dynamics.model import Model, split_parameters
from energax.dynamics.phase import Batch
from energax.graph.structure import AnyGraph
from energax.rules.base import AbstractRule
from energax.solvers.engine import AbstractSolver


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
    alike = [(rule, dynamics, graph, each, solver) for each in (batch, change_targets(batch))]
    gradient, info = require_one_trace(update_of, alike)[0]
    check_gradient_structure(gradient, Model(graph, dynamics))
    require(info.cost.shape == (samples(batch),), f"info.cost has shape {info.cost.shape}; expected one per sample")

    half = samples(batch) // 2
    halves = (take_part(batch, slice(half)), take_part(batch, slice(half, 2 * half)))
    call = eqx.filter_jit(update_of)
    first, second = (call(rule, dynamics, graph, each, solver)[0] for each in halves)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    require_close(gradient, mean, 1e2 * rounding(batch), "the gradient is not the average over the batch")
    if reference is not None:
        expected = call(reference, dynamics, graph, batch, solver)[0]
        require_close(gradient, expected, within, f"the gradient is not {type(reference).__name__}'s")


def check_gradient_structure(gradient: PyTree, model: Model) -> None:
    """One finite array per parameter, of its shape and dtype."""
    parameters, _ = split_parameters(model)
    require(
        jax.tree.structure(gradient) == jax.tree.structure(parameters),
        "the gradient's structure is not that of Model(graph, dynamics) (arrays at its parameters, None elsewhere)",
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
