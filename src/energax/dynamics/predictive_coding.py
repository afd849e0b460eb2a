"""Predictive coding: every state is pulled towards its prediction."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import add_all, total
from energax.costs import AbstractCost, SquaredError
from energax.dynamics.base import AbstractErrorEnergy, FreeGradient, Prepared, Start
from energax.exceptions import SettingError
from energax.graph.structure import AnyGraph


class PredictiveCoding(AbstractErrorEnergy):
    """E = 1/2 sum_n Pi_n |v_n - vhat_n|^2 over all nodes that hold a state and receive a prediction.

    An output node with a state is the *free output* of Millidge et al. 2023, Eq. 9: its error counts in E and the
    cost pulls its state. An output with `state=False` is the *direct output* of Chen et al. 2025, Eq. 2 (and
    Millidge et al. 2023, Eq. 22): the cost reads the prediction. The factor 1/2 is this library's convention; as
    printed, both papers have Pi = 2.

    Attributes:
        cost: C.
        precisions: node name -> Pi, a number or an array that broadcasts with the node; 1 where left out.
    """

    cost: AbstractCost = eqx.field(default_factory=SquaredError)
    precisions: dict[str, Array] = eqx.field(
        converter=lambda given: {name: jnp.asarray(value) for name, value in given.items()},
        default_factory=dict,
    )

    def prepare(self, graph, clamped, reference):
        """What the clamped nodes send is all that stays constant."""
        for name, precision in self.precisions.items():
            require_precision(graph, name, precision)
        return Prepared(graph.precompute(clamped))

    def start(self, phase):
        """The feed-forward pass, which is the free equilibrium while only the input is clamped; else zeros."""
        graph, clamped = phase.graph, phase.clamped.values
        if graph.order is None or graph.input not in clamped:
            return phase.silence()
        swept = graph.sweep(phase.sent)
        return Start({name: swept[name] for name in graph.free(clamped)}, settled=set(clamped) == {graph.input})

    def free_gradient(self, graph):
        """Zero at a feed-forward pass; on a cyclic graph errors may be left."""
        return FreeGradient.VARIATIONAL if graph.order is None else FreeGradient.ZERO

    def energy(self, phase, states):
        """E per sample (Millidge et al. 2023, section 2.1; Chen et al. 2025, Eq. 2)."""
        states = phase.everywhere(states)
        predictions = phase.graph.predict(states, phase.sent)
        return self.error_energy({n: states[n] - vhat for n, vhat in predictions.items() if n in states})

    def error_energy(self, errors):
        """1/2 sum_n Pi_n |e_n|^2."""
        return add_all(total(self.precisions.get(name, 1) * error**2) / 2 for name, error in errors.items())

    def precision(self, name):
        """Pi_n, 1 where none was given."""
        return self.precisions.get(name, jnp.asarray(1.0))  # weakly typed: it fits every dtype

    @property
    def separate(self):
        """Yes."""
        return True


def require_precision(graph: AnyGraph, name: str, precision: Array) -> None:
    """Refuse a precision that does not broadcast with its node: one for each sample, most of all."""
    shape = graph.full_shape(name)
    fits = len(precision.shape) <= len(shape) and all(
        have in (1, want) for have, want in zip(precision.shape[::-1], shape[::-1], strict=False)
    )
    if not fits:
        raise SettingError(
            f"the precision of node {name!r} has shape {precision.shape}, and the node {shape}: give a number or an "
            "array that broadcasts with one sample's state; what differs from sample to sample is no precision "
            "(hold known values with a node of their own, and leave missing ones free)"
        )
