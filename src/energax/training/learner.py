"""What is trained, and one compiled update of it."""

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from energax.checking import require_kind, require_whole
from energax.dynamics.model import Model, name_parts, select_parameters
from energax.dynamics.phase import Batch, prepare_phase
from energax.exceptions import DivergenceError, SettingError
from energax.graph.groups import require_groups
from energax.inference.predictor import Predictor
from energax.rules.base import AbstractRule, Info, open_batch
from energax.solvers.engine import AbstractSolver


def as_names(names: str | Iterable[str]) -> tuple[str, ...]:
    """One name, or several."""
    return (names,) if isinstance(names, str) else tuple(names)


class Learner(Predictor):
    """Everything that a training step needs: the five nouns in one place.

    Attributes:
        graph: the network, with its parameters.
        dynamics: how states move.
        solver: what settles them.
        rule: what turns settled states into a gradient.
        optimiser: any optax transformation.
        refresh: batches between calibrations, in which the solver measures what it holds (`Held`); 0 never calls them.
        freeze: functions of the graph, and trained fields of the dynamics, whose parameters stay as they are. The
            optimiser does not see them: they neither decay nor count where a gradient is clipped.

    Raises:
        SettingError: something in the place of something else, or an unknown function to freeze.
    """

    rule: AbstractRule
    optimiser: optax.GradientTransformation
    refresh: int = eqx.field(static=True, default=0)
    freeze: tuple[str, ...] = eqx.field(static=True, default=(), converter=as_names)

    def __check_init__(self):
        Predictor.__check_init__(self)  # first: what stands in the place of a graph has no parameters to look at
        order = "(in this order: graph, dynamics, solver, rule, optimiser)"
        kinds = {
            "rule": (AbstractRule, f"give a rule, as Contrastive(rules.nudge(1e-3)) {order}"),
            "optimiser": (optax.GradientTransformation, f"give an optax transformation, as optax.sgd(0.1) {order}"),
        }
        for name, (kind, remedy) in kinds.items():
            require_kind(f"Learner: {name}", getattr(self, name), kind, remedy)
        require_whole("Learner: refresh", self.refresh, 0)
        require_groups("Learner: freeze", self.freeze, name_parts(self.model))


def root_key(seed: int) -> PRNGKeyArray:
    """The key that everything random of a run follows from."""
    require_whole("seed", seed, 0)
    if seed >= 2**32:
        raise SettingError(f"seed={seed}: give a whole number from 0 to {2**32 - 1}")
    return jax.random.key(seed)


class Progress(eqx.Module):
    """What changes during training.

    Attributes:
        model: the network and how its states move, with their parameters.
        optimiser: the optimiser's state.
        solver: what settles the states; it is here because it may hold measurements.
        batches: number of batches so far.
    """

    model: Model
    optimiser: Any
    solver: AbstractSolver
    batches: Array

    def as_predictor(self) -> Predictor:
        """What would be left if the training ended here."""
        return Predictor(self.model.graph, self.model.dynamics, self.solver)

    def as_learner(self, learner: Learner) -> Learner:
        """The learner with these parameters and this solver."""
        found = (self.model.graph, self.model.dynamics, self.solver)
        return eqx.tree_at(lambda l: (l.graph, l.dynamics, l.solver), learner, found)


def begin(learner: Learner) -> Progress:
    """The progress before the first batch: the learner's parameters and a new state of its optimiser."""
    parameters: Any = select_parameters(learner.model, learner.freeze)
    return strengthen_dtypes(
        Progress(learner.model, learner.optimiser.init(parameters), learner.solver, jnp.zeros((), int))
    )


def strengthen_dtypes(tree):
    """Give every array a definite dtype, so that a loop's carry keeps its type."""
    return jax.tree.map(lambda a: jnp.asarray(a, a.dtype) if eqx.is_array(a) else a, tree)


def apply_update(learner: Learner, progress: Progress, batch: Batch) -> tuple[Progress, Info]:
    """`update`, as a function that is compiled with whatever calls it."""
    model, solver = progress.model, progress.solver
    if learner.refresh:
        solver = refresh_solver(learner, progress, batch)
    carry = learner.rule.init(model.dynamics, model.graph, batch)
    model, state, carry, info = one_update(learner, model, progress.optimiser, solver, batch, carry)
    if learner.rule.updates_per_batch > 1:
        dynamic, static = eqx.partition((model, state, carry, info), eqx.is_array)

        def again(_, dynamic):
            model, state, carry, _ = eqx.combine(dynamic, static)
            return eqx.filter(one_update(learner, model, state, solver, batch, carry), eqx.is_array)

        dynamic = jax.lax.fori_loop(1, learner.rule.updates_per_batch, again, dynamic)
        model, state, carry, info = eqx.combine(dynamic, static)
    return Progress(model, state, solver, progress.batches + 1), info


@eqx.filter_jit
def update(learner: Learner, progress: Progress, batch: Batch) -> tuple[Progress, Info]:
    """Train on one batch: `rule.updates_per_batch` gradients, each applied before the next is asked for.

    Compiled at the first call with a batch of these shapes. A loop of one's own is `progress = begin(learner)`, then
    `progress, info = update(learner, progress, batch)` as long as there are batches, and `progress.as_learner(learner)`
    at the end.

    Args:
        learner: what is trained; the parameters that count are those of `progress`.
        progress: where the training stands, as `begin` or the last update returned it.
        batch: the rows, with targets where the rule learns from targets.

    Returns:
        The new progress, and what the rule reported: output and cost before the first update, phases of the last.

    Raises:
        DataError: a batch that does not fit the graph.
    """
    return apply_update(learner, progress, batch)


def one_update(learner: Learner, model: Model, state, solver, batch: Batch, carry):
    """One gradient, applied."""
    gradient, carry, info = learner.rule(model.dynamics, model.graph, batch, solver, carry)
    gradient, parameters = (select_parameters(tree, learner.freeze) for tree in (gradient, model))
    updates, state = learner.optimiser.update(gradient, state, parameters)
    return eqx.apply_updates(model, updates), state, carry, info


def refresh_solver(learner: Learner, progress: Progress, batch: Batch) -> AbstractSolver:
    """The solver, measured anew every `refresh` batches."""
    dynamic, static = eqx.partition(progress.solver, eqx.is_array)

    def measure():
        calibrated = calibrate(progress.model, progress.solver, batch)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), eqx.filter(calibrated, eqx.is_array), dynamic)

    due = progress.batches % learner.refresh == 0
    return eqx.combine(jax.lax.cond(due, measure, lambda: dynamic), static)


def calibrate(model: Model, solver: AbstractSolver, batch: Batch) -> AbstractSolver:
    """The solver with what it holds measured on a batch, in the phase nudged with strength 1."""
    rows = open_batch(model.graph, batch)
    beta = jnp.ones((), rows.weights.dtype)
    phase = prepare_phase(model.dynamics, model.graph, rows.clamped, target=rows.target, beta=beta)
    return solver.calibrate(phase, phase.start())


def require_finite_parameters(model: Model, when: str) -> None:
    """Refuse NaN and infinite parameters, naming the function, or the field of the dynamics, that holds them."""
    lost = find_lost_parameters(model)
    if lost:
        raise DivergenceError(
            f"parameters of {lost[0]!r} are not finite {when}: lower the learning rate, or start from "
            "a checkpoint that is sound"
        )


def find_lost_parameters(model: Model) -> list[str]:
    """Names of the parts of a model whose parameters are not finite."""
    return [
        name
        for name, part in name_parts(model).items()
        if not all(
            bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(eqx.filter(part, eqx.is_inexact_array))
        )
    ]
