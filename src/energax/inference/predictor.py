"""What is left of a training once it has ended: a network, how its states move, and what settles them."""

import warnings
from collections.abc import Mapping
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from energax.checking import require_kind, require_whole
from energax.dynamics.base import AbstractDynamics
from energax.dynamics.model import Model
from energax.dynamics.phase import Batch
from energax.exceptions import RelaxationWarning
from energax.graph.clamping import hold
from energax.graph.parts import Output, States
from energax.graph.structure import AbstractStructure, AnyGraph
from energax.inference.trace import Trace, trace_phase
from energax.rules.base import free_phase, open_batch
from energax.solvers.engine import AbstractSolver
from energax.solvers.relax import relax, require_finite
from energax.solvers.verdict import Equilibrium, Verdict

ORDER = "(in this order: graph, dynamics, solver; a learner: rule and optimiser after them)"


class Predictor(eqx.Module):
    """A trained network with the solver that settles it.

    Attributes:
        graph: the network, with its parameters.
        dynamics: how states move.
        solver: what settles them.

    Raises:
        SettingError: something in the place of something else, or a dynamics that does not fit the graph.
    """

    graph: AnyGraph
    dynamics: AbstractDynamics
    solver: AbstractSolver

    def __check_init__(self):
        kinds = {
            "graph": (AbstractStructure, f"give a Graph, as networks.mlp makes them {ORDER}"),
            "dynamics": (AbstractDynamics, f"give a dynamics, as PredictiveCoding() {ORDER}"),
            "solver": (AbstractSolver, f"give a solver, as GradientFlow() {ORDER}"),
        }
        for name, (kind, remedy) in kinds.items():
            require_kind(f"{type(self).__name__}: {name}", getattr(self, name), kind, remedy)
        self.dynamics.require_fit(self.graph)

    @property
    def model(self) -> Model:
        """What the parameters are in."""
        return Model(self.graph, self.dynamics)

    def with_solver(self, solver: AbstractSolver) -> Self:
        """The same network settled by another solver.

        Raises:
            SettingError: something else than a solver.
        """
        require_kind("with_solver", solver, AbstractSolver, "give a solver, as GradientFlow()")
        return eqx.tree_at(lambda one: one.solver, self, solver)

    def predict(
        self, x: Array | Mapping[str, Array], *, known: Mapping[str, Array] | None = None, batch: int = 500
    ) -> Any:
        """What the outputs settle to with the inputs clamped: logits, values, as the cost reads them.

        Rows are settled so many at a time, the last ones filled up, so that one program serves all and no prediction
        depends on the others.

        Args:
            x: shape `(rows, *shape)`, or a mapping from clamped nodes to such arrays.
            known: node -> which of its units are known, boolean, of the shape of its values; None: all of them.
            batch: rows at a time.

        Returns:
            An array of numpy, shape `(rows, *output shape)`; in a graph of several outputs a mapping of them.

        Warns:
            RelaxationWarning: some rows did not settle, so that their predictions are of no equilibrium.

        Raises:
            DataError: no rows, a shape that does not fit, or NaN and infinite values.
        """
        return self._answer(x, known, batch, None)

    def predict_proba(
        self, x: Array | Mapping[str, Array], *, known: Mapping[str, Array] | None = None, batch: int = 500
    ) -> Any:
        """The probabilities of the classes, as the cost makes them of the outputs; the rest as of `predict`.

        Raises:
            SettingError: the cost makes none of them.
        """
        return self._answer(x, known, batch, self.dynamics.cost.probabilities)

    def relax(
        self,
        clamp: Mapping[str, Array],
        *,
        start: States | None = None,
        known: Mapping[str, Array] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Equilibrium:
        """Settle every node that is not clamped: completion, generation, recall; arguments as of `energax.relax`."""
        return relax(self.dynamics, self.graph, self.solver, clamp=clamp, start=start, known=known, key=key)

    def trace(
        self,
        x: Array | Mapping[str, Array],
        *,
        steps: int = 50,
        y: Output | None = None,
        beta: float | None = None,
    ) -> Trace:
        """Watch the states settle: energy, and error and force of every node, before the first step and after each.

        Args:
            x: inputs, shape `(rows, *shape)`, or a mapping from clamped nodes to such arrays.
            steps: steps of the solver.
            y: targets that nudge the outputs, shape `(rows, ...)`; None watches the free phase.
            beta: nudge strength, with targets; the nudged phase begins where the free one has settled.

        Raises:
            SettingError: a solver that takes no steps of its own, a beta without targets or the other way round.
        """
        require_whole("trace: steps", steps, 1)
        require_finite(self.graph.clamp(x))
        return trace_phase(self.dynamics, self.graph, self.solver, Batch(x, y), steps, beta)

    def _answer(self, x: Any, known: Any, batch: int, finish: Any) -> Any:
        """The outputs of all rows, or what is made of them."""
        require_whole("predict: batch", batch, 1)
        held = hold(self.graph, x, None, known)
        values = {**held.values, **{name: part.value for name, part in held.known.items()}}
        require_finite(values)
        given = Batch(values, known={name: part.mask for name, part in held.known.items()} or None)
        rows = len(held.example)
        size, found, lost = min(batch, rows), [], 0
        for first in range(0, rows, size):
            chosen = np.minimum(np.arange(first, first + size), rows - 1)
            output, result = settle_outputs(self, jax.tree.map(lambda a, chosen=chosen: a[chosen], given), finish)
            count = min(size, rows - first)
            found.append(jax.tree.map(lambda a, count=count: np.asarray(a)[:count], output))
            lost += int(np.sum(np.isin(np.asarray(result)[:count], UNSETTLED)))
        if lost:
            warnings.warn(
                f"{lost} of {rows} rows did not settle, so that their predictions are of no equilibrium: give "
                "with_solver a solver with more steps, or a shorter step",
                RelaxationWarning,
                stacklevel=3,
            )
        return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


UNSETTLED = (int(Verdict.OUT_OF_STEPS), int(Verdict.DIVERGED))
"""Verdicts of states that are no equilibrium."""


@eqx.filter_jit
def settle_outputs(predictor: Predictor, batch: Batch, finish: Any) -> tuple[Any, Array]:
    """What the outputs settle to, or what is made of that, and the verdicts."""
    rows = open_batch(predictor.graph, batch)
    phase, end, _ = free_phase(predictor.dynamics, predictor.graph, rows, predictor.solver)
    output = phase.output(end.states)
    return (output if finish is None else finish(output)), jnp.asarray(end.result)
