"""Bidirectional predictive coding: forward errors and a feedback prediction, referred to the free phase."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import add_all, hold_still, total
from energax.checking import as_setting
from energax.costs import AbstractCost, CrossEntropy, as_cost
from energax.dynamics.base import AbstractEnergy, Prepared, Start
from energax.dynamics.phase import Phase
from energax.dynamics.predictive_coding import PredictiveCoding, hold_routes, predicts, sweep_free
from energax.graph.parts import States


class AbstractBidirectional(AbstractEnergy):
    """E = 1/2 sum_n |r_n|^2 with r = e + a k - b d: a forward error that feedback opposes.

    e = v - vhat is the prediction error of predictive coding, d = v - vbar what a state has moved since the free phase,
    and k = J(vbar)^T d what the states above say of that, through the edges transposed as they are at vbar. Feedback
    and vbar are held constant, so an edge learns from its two ends, as in predictive coding, which *is* a = b = 0.

    With J the Jacobian of all predictions, r is near vbar the linear map (1 - b) I - J + a J^T of d. Where a = 1 and
    b = 0 the square of that is I plus a square, whatever the graph: no relaxation meets a curvature below 1
    (docs/bipc.md).

    The free phase rests at the feed-forward pass, where r = 0. A graph without one (a cycle without a delay) settles
    its free phase by predictive coding, from silence, and the nudged phases take vbar from there.

    States are the coordinates: every step is local. `ErrorCoordinates` is for predictive coding.

    Reference: this library's reading of Chen et al. 2025, Eq. 10, with the sign of the feedback turned round.
    """

    cost: eqx.AbstractVar[AbstractCost]

    @property
    @abc.abstractmethod
    def weights(self) -> tuple[Array, Array]:
        """`(a, b)`, of the feedback and of what a state has moved itself."""

    def prepare(self, graph, clamped, reference):
        """What the clamped nodes send, held routes, and vbar: the feed-forward pass, or the free phase without one."""
        sent = graph.precompute(clamped)
        if reference is None:
            reference = sweep_free(*hold_still((graph, clamped.values, sent)))
        else:  # what a later phase clamps does not move
            reference = {name: reference[name] for name in graph.free(clamped.values)}
        return Prepared(hold_routes(graph, sent, reference), hold_still(reference))

    def linearise(self, phase):
        """The feedback d -> J(vbar)^T d, linearised once for a whole relaxation."""
        return None if phase.constants is None else linearise_feedback(phase, phase.constants)

    def start(self, phase):
        """The feed-forward pass; silence where there is none."""
        if phase.constants is None:
            return phase.silence()
        return Start(phase.constants, settled=not predicts(phase.graph, phase.clamped.values))

    def free_gradient(self, graph):
        """As predictive coding's."""
        return PredictiveCoding(self.cost).free_gradient(graph)

    def energy(self, phase, states):
        """1/2 sum_n |e_n + a k_n - b d_n|^2 over all nodes that hold a state and receive a prediction."""
        everywhere = phase.everywhere(states)
        predictions = phase.graph.predict(everywhere, phase.sent)
        residues = {n: everywhere[n] - vhat for n, vhat in predictions.items() if n in everywhere}
        if phase.constants is not None:
            moved = {name: state - phase.constants[name] for name, state in states.items()}
            (heard,) = phase.linear(moved)
            a, b = self.weights
            for name in (name for name in residues if name in moved):
                residues[name] += a * heard[name] - b * moved[name]
        return add_all(total(residue**2) / 2 for residue in residues.values())


class SkewFeedback(AbstractBidirectional):
    """r = e + a k: feedback opposes the forward error, a skew and so a damping coupling.

    Attributes:
        strength: a.
        cost: C.
    """

    strength: Array = eqx.field(converter=as_setting("SkewFeedback: strength"), default=0.3)
    cost: AbstractCost = eqx.field(converter=as_cost, default_factory=CrossEntropy)

    @property
    def weights(self):
        """The strength, and none."""
        return self.strength, jnp.zeros_like(self.strength)


class BalancedFeedback(AbstractBidirectional):
    """r = e - a (d - k): Eq. 10 of Chen et al. 2025 with the sign of the backward error turned round.

    Attributes:
        strength: a.
        cost: C.
    """

    strength: Array = eqx.field(converter=as_setting("BalancedFeedback: strength"), default=0.3)
    cost: AbstractCost = eqx.field(converter=as_cost, default_factory=CrossEntropy)

    @property
    def weights(self):
        """The strength, twice."""
        return self.strength, self.strength


class Bidirectional(AbstractBidirectional):
    """The whole family r = e + a k - b d.

    Attributes:
        feedback: a.
        self_term: b.
        cost: C.
    """

    feedback: Array = eqx.field(converter=as_setting("Bidirectional: feedback"), default=0.3)
    self_term: Array = eqx.field(converter=as_setting("Bidirectional: self_term"), default=0.0)
    cost: AbstractCost = eqx.field(converter=as_cost, default_factory=CrossEntropy)

    @property
    def weights(self):
        """As they are given."""
        return self.feedback, self.self_term


def linearise_feedback(phase: Phase, vbar: States) -> Callable[[States], tuple[States]]:
    """The map d -> (J(vbar)^T d,) with J of all predictions in all free states; parameters are held."""
    graph, sent = hold_still((phase.graph, phase.sent))

    def predict(states):
        predictions = graph.predict(phase.everywhere(states), sent)
        return {name: predictions.get(name, jnp.zeros_like(state)) for name, state in states.items()}

    return jax.vjp(predict, vbar)[1]  # a pytree, as all of a phase must be
