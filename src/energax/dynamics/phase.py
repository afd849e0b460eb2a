"""One phase: a dynamics on one batch at one nudge strength, with everything held constant computed."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.arithmetic import norm, subtract, total
from energax.checking import require_kind
from energax.dynamics.base import (
    AbstractDynamics,
    AbstractEnergy,
    AbstractErrorEnergy,
    AbstractTotalEnergy,
    Prepared,
    Start,
    descend,
)
from energax.dynamics.model import Model
from energax.graph.parts import Clamped, Output, States
from energax.graph.structure import AnyGraph


class Batch(eqx.Module):
    """What a rule trains on.

    Attributes:
        x: inputs, shape `(batch, *shape)`, or a mapping from clamped nodes to their values.
        y: targets as the cost takes them, shape `(batch, ...)`, or a dictionary of outputs and these; None where there
            are none.
        key: for random layers, or None.
        weights: of every sample in the batch's average, shape `(batch,)`; None weighs all alike, and a weight
            that is no number leaves its sample out.
        known: name of a node of `x` -> which of its units are held, booleans of shape `(batch, *shape)`; its other
            units relax, and their values are never looked at: `~jnp.isnan(x)` is a mask. None holds all.
    """

    x: Array | Mapping[str, Array]
    y: Output | None = None
    key: PRNGKeyArray | None = None
    weights: Array | None = None
    known: Mapping[str, Array] | None = None


class Phase(eqx.Module):
    """What a solver settles, and what a dynamics reads. A free phase holds neither target nor nudge strength.

    Attributes:
        dynamics: how states move.
        graph: the network.
        clamped: values of the clamped nodes, batch first, which units of free nodes are held, and a key per sample.
        sent: the clamped nodes as the graph's maps read them, with what they send: from `dynamics.prepare`.
        constants: whatever else `dynamics.prepare` computed, batch first.
        linear: what `dynamics.linearise` made for these samples.
        reference: what earlier phases found, batch first, or None.
        target: what the cost compares with, shape `(batch, ...)`, or None.
        beta: nudge strength, shape `()` or `(batch,)`, or None.
    """

    dynamics: AbstractDynamics
    graph: AnyGraph
    clamped: Clamped
    sent: Clamped
    constants: Any = None
    linear: Any = None
    reference: Any = None
    target: Output | None = None
    beta: Array | None = None

    def nudge_by(self, beta: Array | None, target: Output | None) -> "Phase":
        """The same phase under a nudge of strength beta towards the target; a free phase where both are None."""
        return dataclasses.replace(self, beta=beta, target=target)

    @property
    def model(self) -> Model:
        """What the parameters are in."""
        return Model(self.graph, self.dynamics)

    def prepare_again(self, model: Model | None = None, reference: Any = None) -> "Phase":
        """The same phase with what it holds constant computed anew: of other parameters, or at another reference."""
        model = self.model if model is None else model
        reference = self.reference if reference is None else reference
        options = {"reference": reference, "target": self.target, "beta": self.beta}
        return prepare_phase(model.dynamics, model.graph, self.clamped, **options)

    def take(self, rows: Array) -> "Phase":
        """The phase of some samples, given by their indices, shape `(rows,)`."""
        return self._each(lambda a: a[rows])

    def tile(self, times: int) -> "Phase":
        """The phase of all samples `times` times over, one batch after the other."""
        return self if times == 1 else self._each(lambda a: jnp.concatenate([a] * times))

    def _each(self, change: Callable[[Array], Array]) -> "Phase":
        """The phase with every array changed that has a row per sample, and linearised anew."""
        rows = (self.clamped, self.sent, self.constants, self.reference, self.target)
        clamped, sent, constants, reference, target = jax.tree.map(change, rows)
        beta = self.beta if self.beta is None or jnp.ndim(self.beta) == 0 else change(self.beta)
        return _linearised(
            Phase(self.dynamics, self.graph, clamped, sent, constants, None, reference, target, beta),
        )

    def everywhere(self, states: States) -> States:
        """Free and clamped states together."""
        return {**self.clamped.values, **states}

    def pin(self, states: States) -> States:
        """The states with units that are known at their values."""
        known = self.clamped.known
        return {
            name: jnp.where(known[name].mask, known[name].value.astype(v.dtype), v) if name in known else v
            for name, v in states.items()
        }

    def release(self, states: States) -> States:
        """The states with 0 at units that are known."""
        known = self.clamped.known
        return {name: jnp.where(known[name].mask, 0, v) if name in known else v for name, v in states.items()}

    @property
    def has_energy(self) -> bool:
        """Whether the dynamics descends an energy."""
        return isinstance(self.dynamics, AbstractTotalEnergy)

    def start(self) -> Start:
        """Where the free phase begins."""
        start = self.dynamics.start(self)
        require_kind(f"{type(self.dynamics).__name__}.start returned", start, Start, "return a Start(states)")
        # where units are held that the dynamics took for free ones, its start is no equilibrium
        return Start(self.pin(start.states)) if self.clamped.known else start

    def silence(self) -> Start:
        """Zeros for every free node, with the batch and the dtype of what is clamped."""
        return Start(self.graph.zeros(self.graph.free(self.clamped.values), self.clamped.example))

    def force(self, states: States) -> States:
        """dv/dt of the free nodes. A unit that is known is pulled to its value, and rests there."""
        found = self.dynamics.force(self, self.pin(states))
        if not self.clamped.known:
            return found
        home = subtract(self.pin(states), states)
        return {name: home[name] + self.release({name: force})[name] for name, force in found.items()}

    def energy(self, states: States) -> Array:
        """Total energy F = E + beta C per sample, shape `(batch,)`; NaN for a dynamics without an energy.

        Units that are known count with their values, and add half the squared distance from these: 0 where they are.
        """
        if not isinstance(self.dynamics, AbstractTotalEnergy):
            return jnp.full_like(norm(states), jnp.nan)
        pinned = self.pin(states)
        internal = self.dynamics.energy(self, pinned)
        for name in self.clamped.known:
            internal = internal + total((states[name] - pinned[name]) ** 2) / 2
        return internal if self.target is None else internal + self.nudge_energy(states)

    def energy_of(self, start: Start) -> Array:
        """The real part of F where a relaxation begins; errors that are 0 by construction are not computed."""
        if start.settled and isinstance(self.dynamics, AbstractErrorEnergy):
            none = jax.tree.map(jnp.zeros_like, start.states)
            internal = self.dynamics.error_energy(none) + self.dynamics.offset(self.graph)
            return internal + self.nudge_energy(start.states)
        return jnp.real(self.energy(start.states))

    def nudge_energy(self, states: States) -> Array:
        """Beta C per sample, what a nudge adds to E; 0 in a free phase."""
        if self.target is None or self.beta is None:
            return jnp.zeros_like(norm(states))
        return self.beta * self.cost(states, self.target)

    def cost(self, states: States, target: Output) -> Array:
        """C per sample, shape `(batch,)`."""
        return self.dynamics.cost(self.output(states), target)

    def output(self, states: States) -> Output:
        """What the cost reads."""
        return self.graph.output_value(self.activities(self.everywhere(self.pin(states))), self.sent)

    def activities(self, states: States) -> States:
        """What these nodes show of their states."""
        return self.dynamics.activities(self, states)

    def drive(self, start: States) -> Array:
        """The force that sets this phase in motion, per sample: what a residual is relative to. 0 where nothing does.

        In a free phase what the clamped nodes exert on silent ones; in a nudged phase what the nudge adds to
        the free force at `start`. Leftovers of an unfinished free phase do not count, so they cannot make a
        nudged phase look converged.
        """
        if self.target is None:
            return norm(self.force(self.pin(jax.tree.map(jnp.zeros_like, start))))
        return norm(self.nudge(start))

    def nudge(self, states: States) -> States:
        """What the nudge adds to the free force."""
        if isinstance(self.dynamics, AbstractEnergy):
            return descend(self.nudge_energy, states)  # F = E + beta C
        return subtract(self.force(states), self.nudge_by(None, None).force(states))


def prepare_phase(
    dynamics: AbstractDynamics,
    graph: AnyGraph,
    clamped: States | Clamped,
    *,
    reference: Any = None,
    target: Output | None = None,
    beta: Array | None = None,
) -> Phase:
    """A phase, with what it holds constant computed from the clamped values.

    Args:
        dynamics: how states move.
        graph: the network.
        clamped: node name -> value, as `graph.clamp` returns it, or these with a key per sample for random layers.
        reference: what earlier phases found, batch first.
        target: what the cost compares with, shape `(batch, ...)`; None for a free phase.
        beta: nudge strength, shape `()` or `(batch,)`; None for a free phase.
    """
    held = clamped if isinstance(clamped, Clamped) else Clamped(clamped)
    dynamics.require_fit(graph)
    prepared = dynamics.prepare(graph, held, reference)
    require_kind(
        f"{type(dynamics).__name__}.prepare returned", prepared, Prepared, "return a Prepared(sent, constants)"
    )
    return _linearised(
        Phase(dynamics, graph, held, prepared.sent, prepared.constants, None, reference, target, beta),
    )


def _linearised(phase: Phase) -> Phase:
    linear = phase.dynamics.linearise(phase)
    return phase if linear is None else dataclasses.replace(phase, linear=linear)
