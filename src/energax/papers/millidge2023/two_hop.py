"""Predictive coding over one and two hops, with errors that saturate: an energy that the theory predicts must work."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import add_all, total
from energax.checking import as_setting
from energax.costs import AbstractCost, SquaredError
from energax.dynamics.base import AbstractEnergy, Prepared
from energax.dynamics.phase import Phase
from energax.dynamics.predictive_coding import PredictiveCoding
from energax.graph.parts import States


class TwoHopCoding(AbstractEnergy):
    """E = sum_n psi(v_n - vhat_n) + kappa/2 |v_n - vhathat_n|^2, psi(e) = s^2 (sqrt(1 + (e/s)^2) - 1) elementwise.

    vhat is predicted from the states, vhathat from the predictions vhat: two hops along the graph, clamped nodes
    kept. Near the feed-forward pass v_n - vhathat_n = e_n + sum_m J_nm e_m with J = dvhat/dv, so the second term
    couples the errors of neighbouring nodes, and psi makes the energy non-quadratic. For every theta, E = 0 at the
    feed-forward pass and its Hessian there, (I - J)^T (I + kappa (I + J)^T (I + J)) (I - J), is positive definite on an
    acyclic graph. That alone makes the nudged gradient tend to backprop (docs/theory.md), provided that dE/dtheta is
    taken in full: theta enters through both hops, and the error e_n by itself is no longer the signal.

    kappa = 0 with a wide s is `PredictiveCoding`. The learning rule reaches two edges far, not one.

    Attributes:
        cost: C.
        coupling: kappa >= 0, weight of the two-hop errors.
        scale: s > 0, size beyond which an error counts linearly.

    Reference: this library's own, after the condition in section 3.1 of Millidge et al. 2023.
    """

    cost: AbstractCost = eqx.field(default_factory=SquaredError)
    coupling: Array = eqx.field(converter=as_setting("TwoHopCoding: coupling"), default=0.5)
    scale: Array = eqx.field(converter=as_setting("TwoHopCoding: scale"), default=1.0)

    def prepare(self, graph, clamped, reference):
        """What the clamped nodes send; it is the same for both hops."""
        return Prepared(graph.precompute(clamped))

    def start(self, phase):
        """As predictive coding: the feed-forward pass where only the input is clamped."""
        return PredictiveCoding(self.cost).start(phase)

    def free_gradient(self, graph):
        """As predictive coding's."""
        return PredictiveCoding(self.cost).free_gradient(graph)

    def energy(self, phase, states):
        """E per sample."""
        near, far = self.errors(phase, states)
        stored = add_all(total(saturate(error, self.scale)) for error in near.values())
        return stored + self.coupling / 2 * add_all(total(error**2) for error in far.values())

    def errors(self, phase: Phase, states: States) -> tuple[States, States]:
        """The differences v - vhat and v - vhathat at every node that holds a state and receives a prediction."""
        everywhere = phase.everywhere(states)
        one = phase.graph.predict(everywhere, phase.sent)
        predicted = {name: one.get(name, v) for name, v in states.items()}
        two = phase.graph.predict(phase.everywhere(predicted), phase.sent)
        names = [name for name in one if name in everywhere]
        return {n: everywhere[n] - one[n] for n in names}, {n: everywhere[n] - two[n] for n in names}


def saturate(error: Array, scale: Array) -> Array:
    """s^2 (sqrt(1 + (e/s)^2) - 1), written without the cancellation at small e; curvature 1 at 0, slope s far out."""
    return error**2 / (1 + jnp.sqrt(1 + (error / scale) ** 2))
