"""What every rule shares: its call, what it reports, and the parameter gradient of a weighted energy."""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.arithmetic import align_batch
from energax.checking import as_array, require_kind
from energax.dynamics.base import AbstractDynamics, AbstractTotalEnergy
from energax.dynamics.model import Model, split_parameters
from energax.dynamics.phase import Batch, Phase, prepare_phase
from energax.exceptions import DataError, SettingError
from energax.graph.clamping import hold
from energax.graph.parts import Clamped, Output, States, list_names
from energax.graph.structure import AbstractStructure, AnyGraph, shape_outputs
from energax.solvers.engine import AbstractSolver
from energax.solvers.verdict import Equilibrium, Verdict


class PhaseInfo(eqx.Module):
    """One relaxation, per sample; with several nudge strengths, sample after sample for each of them.

    Attributes:
        energy_before, energy_after: total energy F at the start and at the end (NaN without an energy).
        steps, residual, result: as in `Equilibrium`.
        known: True where the states are an equilibrium by construction: then nothing was relaxed.
    """

    energy_before: Array
    energy_after: Array
    steps: Array
    residual: Array
    result: Array
    known: bool = eqx.field(static=True, default=False)


class Info(eqx.Module):
    """What a rule reports of one batch.

    Attributes:
        output: output of the free phase (or of the feed-forward pass), shape `(batch, ...)`, or one for every output.
        cost: C of that output per sample, shape `(batch,)`; NaN without a target.
        phases: name of the phase -> what its relaxation did; empty for rules that relax nothing.
        solve: what the linear solve of a rule did that takes one; no relaxation, so that no share counts it as one.
        target: what the cost compared with, as it takes it; None where there is none.
    """

    output: Output
    cost: Array
    phases: dict[str, PhaseInfo]
    solve: PhaseInfo | None = None
    target: Output | None = None


class AbstractRule(eqx.Module):
    """Turns settled states into a parameter gradient."""

    @property
    def updates_per_batch(self) -> int:
        """How many gradients one batch yields; `fit` applies each before asking for the next. One, unless said."""
        return 1

    def init(self, dynamics: AbstractDynamics, graph: AnyGraph, batch: Batch) -> Any:
        """What the rule carries from one update to the next on the same batch. Nothing, unless said."""
        return ()

    def reference(self) -> "AbstractRule | None":
        """What the regime report compares the gradient with, taken with a careful solver.

        None, unless said, is the exact gradient of the cost: `Backprop` where the feed-forward pass is the free
        equilibrium, `Adjoint` elsewhere.
        """
        return None

    @abc.abstractmethod
    def __call__(
        self,
        dynamics: AbstractDynamics,
        graph: AnyGraph,
        batch: Batch,
        solver: AbstractSolver,
        carry: Any,
    ) -> tuple[Model, Any, Info]:
        """One parameter gradient.

        Args:
            dynamics: how states move.
            graph: the network, whose inexact arrays are the parameters.
            batch: what to train on.
            solver: what settles the states.
            carry: what `init` or the last update of this batch returned.

        Returns:
            `(gradient, carry, info)`; the gradient has the structure of `Model(graph, dynamics)`, None at what is no
            parameter, and is the batch's average.
        """


ORDER = "(in this order: dynamics, graph, batch, solver, carry)"


class Rows(eqx.Module):
    """A batch at the door of a rule: checked, in one dtype, rows that hold no numbers set to 0 and marked.

    A weight of 0 does not cancel a NaN in a gradient, so none may come in.

    Attributes:
        clamped: the input, with a key per sample where the batch has a key, and which of its units are known.
        target: as the cost takes it, or None.
        weights: of every sample in the batch's average, shape `(batch,)`; they sum to 1 over the rows of the batch.
        finite: samples of which everything is a number, shape `(batch,)`; the others must not move the parameters.
    """

    clamped: Clamped
    target: Output | None
    weights: Array
    finite: Array


def open_batch(graph: AnyGraph, batch: Batch) -> Rows:
    """Check a batch and bring it into the dtype of the parameters.

    Raises:
        DataError: shapes, dtypes or numbers of rows that do not fit.
        GraphError: an unknown node.
        SettingError: something else in the place of the graph or the batch.
    """
    require_kind("graph", graph, AbstractStructure, f"give a Graph, as networks.mlp makes them {ORDER}")
    require_kind("batch", batch, Batch, f"give a Batch(x, y) {ORDER}")
    held = hold(graph, batch.x, batch.key, batch.known)
    like = held.example
    size = like.shape[0]
    target = None if batch.y is None else check_targets(graph, batch.y, size, like)
    given = jnp.ones(size, like.dtype) if batch.weights is None else as_array("weights", batch.weights)
    if given.shape != (size,):
        raise DataError(f"weights of shape {given.shape} for {size} samples: give one number for every sample")
    finite = jnp.isfinite(given)
    given = jnp.where(finite, given, 0).astype(like.dtype)
    for one in jax.tree.leaves((held.values, held.known, target)):
        finite &= find_numbers(one)
    values, known = jax.tree.map(
        lambda one: jnp.where(align_batch(find_numbers(one), one), one, jnp.zeros_like(one)), (held.values, held.known)
    )
    target = jax.tree.map(lambda one: jnp.where(align_batch(finite, one), one, 0), target)
    weights = given / jnp.maximum(jnp.sum(given), jnp.finfo(like.dtype).tiny)
    return Rows(Clamped(values, keys=held.keys, known=known), target, weights, finite)


def find_numbers(values: Array) -> Array:
    """Which rows hold numbers only, shape `(batch,)`."""
    return jnp.all(jnp.isfinite(values).reshape(values.shape[0], -1), axis=1)


def check_targets(graph: AnyGraph, given: Output, size: int, like: Array) -> Output:
    """Targets as a cost takes them: in the dtype of the states, one for each of `size` samples, classes one-hot.

    Whole numbers are classes (or tokens) where they have the shape of the output without its last axis.
    """
    shapes = shape_outputs(graph)
    if not isinstance(given, Mapping):
        if isinstance(shapes, dict):
            raise DataError(f"one array of targets for the outputs {list_names(shapes)}: give a mapping from names")
        return check_target("y", given, size, like, shapes)
    shapes = shapes if isinstance(shapes, dict) else {place.node: shapes for place in graph.outputs}
    if set(given) != set(shapes):
        raise DataError(f"targets for {list_names(given)}, outputs {list_names(shapes)}: give each output a target")
    found = {name: check_target(f"y[{name!r}]", one, size, like, shapes[name]) for name, one in given.items()}
    return found if isinstance(shape_outputs(graph), dict) else next(iter(found.values()))


def check_target(place: str, target: Array, size: int, like: Array, shape: tuple[int, ...]) -> Array:
    """The targets of one output of this shape."""
    target = as_array(place, target)
    if target.ndim == 0 or target.shape[0] != size:
        have = target.shape[0] if target.ndim else "no"
        raise DataError(f"{have} targets for {size} inputs: give one target for every sample")
    if target.dtype == bool:
        target = target.astype(int)  # the classes 0 and 1
    if jnp.issubdtype(target.dtype, jnp.inexact):
        return target.astype(like.dtype) if jnp.issubdtype(target.dtype, jnp.floating) else target
    if target.shape[1:] == shape or not shape:
        return target.astype(like.dtype)
    if target.shape[1:] != shape[:-1]:
        raise DataError(
            f"{place} holds whole numbers of shape {target.shape}, and the output has shape {('batch', *shape)}: give "
            f"classes of shape {('batch', *shape[:-1])}, or numbers of the output's shape"
        )
    if shape[-1] == 1:
        raise DataError(f"{place} holds classes, and the output has one unit: give numbers, as y[..., None] * 1.0")
    classes = shape[-1]
    known = (target >= 0) & (target < classes)
    encoded = jax.nn.one_hot(target, classes, dtype=like.dtype)
    # no class has these numbers: a row that holds no numbers is left out, and says so
    return jnp.where(known[..., None], encoded, jnp.nan)


def make_info(
    dynamics: AbstractDynamics,
    rows: Rows,
    output: Output,
    phases: dict[str, PhaseInfo],
    solve: PhaseInfo | None = None,
) -> Info:
    """What a rule reports; a row that held no numbers has no cost (NaN), and without targets none has."""
    cost = jnp.nan if rows.target is None else dynamics.cost(output, rows.target)
    return Info(output, jnp.where(rows.finite, cost, jnp.nan), phases, solve, rows.target)


def require_whole_nodes(rows: Rows, rule: str) -> None:
    """Refuse nodes of which some units are known, for a rule that sweeps and relaxes nothing."""
    if rows.clamped.known:
        raise SettingError(
            f"{rule} sweeps forward, and of {list_names(rows.clamped.known)} some units are known and others have to "
            "relax: use Contrastive, Adjoint or FreeEnergy, or fill the missing values in"
        )


def require_target(rows: Rows, rule: str) -> Output:
    """The targets, for a rule that has no use without them."""
    if rows.target is None:
        raise DataError(f"{rule} learns from targets, and the batch has none: give (x, y), Arrays(x, y) or Batch(x, y)")
    return rows.target


def free_phase(
    dynamics: AbstractDynamics, graph: AnyGraph, rows: Rows, solver: AbstractSolver, *, samples: bool = False
) -> tuple[Phase, Equilibrium, PhaseInfo]:
    """Settle the free phase, or take it from the dynamics where it is known by construction.

    Args:
        dynamics: how states move.
        graph: the network.
        rows: the batch.
        solver: what settles the states.
        samples: whether a solver that draws samples will do; what learns from equilibria must not have them.
    """
    require_kind("dynamics", dynamics, AbstractDynamics, f"give a dynamics, as PredictiveCoding() {ORDER}")
    require_kind("solver", solver, AbstractSolver, f"give a solver, as GradientFlow() {ORDER}")
    if solver.samples and not samples:
        raise SettingError(
            f"{type(solver).__name__} draws samples, and what is asked for here is an equilibrium: use GradientFlow "
            "or ConjugateGradient (the one rule that learns from samples is FreeEnergy)"
        )
    phase = prepare_phase(dynamics, graph, rows.clamped)
    start = phase.start()
    known = start.settled or not start.states  # where every node is clamped, nothing is left to settle
    settled = known_equilibrium(start.states, rows.weights) if known else solver.solve(phase, start)
    return phase, settled, phase_info(phase, start.states, settled, rows)


def known_equilibrium(states: States, like: Array) -> Equilibrium:
    """An equilibrium that needed no relaxation: converged wherever its states are numbers.

    Args:
        states: the states of the free nodes.
        like: an array of the batch's size and the states' dtype, shape `(batch,)`.
    """
    lost = jnp.zeros(like.shape, bool)
    for value in states.values():
        lost |= ~find_numbers(value)
    result = jnp.where(lost, int(Verdict.DIVERGED), int(Verdict.CONVERGED))
    residual = jnp.where(lost, jnp.inf, jnp.zeros_like(like))
    return Equilibrium(states, jnp.zeros(lost.shape, int), residual, result, lost, known=True)


def phase_info(phase: Phase, start: States, settled: Equilibrium, rows: Rows) -> PhaseInfo:
    """What the relaxation from `start` to `settled` did; a row that held no numbers has diverged."""
    times = settled.result.shape[0] // rows.finite.shape[0]
    result = jnp.where(jnp.tile(rows.finite, times), settled.result, int(Verdict.DIVERGED))
    before, after = phase.energy(start), phase.energy(settled.states)
    return PhaseInfo(before, after, settled.steps, settled.residual, result, settled.known)


def require_energy(dynamics: AbstractDynamics, rule: str) -> AbstractTotalEnergy:
    """The dynamics, if it has an energy to differentiate."""
    require_kind("dynamics", dynamics, AbstractDynamics, f"give a dynamics, as PredictiveCoding() {ORDER}")
    if not isinstance(dynamics, AbstractTotalEnergy):
        raise SettingError(
            f"{rule} differentiates an energy, and {type(dynamics).__name__} has none; use VectorFieldRule or Adjoint"
        )
    return dynamics


def differentiate(model: Model, objective: Callable[[Model], PyTree], has_aux: bool = False) -> Any:
    """D objective / d parameters, with the structure of the model; `(gradient, aux)` where the objective has an aux."""
    parameters, rest = split_parameters(model)
    return eqx.filter_grad(lambda given: objective(eqx.combine(given, rest)), has_aux=has_aux)(parameters)


def energy_gradient(phase: Phase, states: States, weights: Array) -> Model:
    """d/dtheta of sum_b weights_b F_b at fixed states; real part where the weights are complex.

    F, not E: with a direct output or an external readout the last map is in C. What the phase holds constant is
    computed again inside the gradient, because hoisted maps have parameters too.

    Args:
        phase: dynamics, graph, target and nudge strength.
        states: settled states.
        weights: per sample, shape `(samples,)`; 1 / batch for the batch's average.
    """

    def objective(model):
        return jnp.real(jnp.sum(weights * phase.prepare_again(model).energy(states)))

    return differentiate(phase.model, objective)


def weigh_sound(rows: Rows, *ends: Equilibrium) -> Array:
    """Weights of the samples, 0 where a row held no numbers or one of its relaxations diverged, shape `(batch,)`.

    Relaxations may hold several points per sample, one batch after the other.
    """
    sound = rows.finite
    for end in ends:
        sound &= ~jnp.any(end.lost.reshape(-1, sound.shape[0]), axis=0)
    return jnp.where(sound, rows.weights, 0)
