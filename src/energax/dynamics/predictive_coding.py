"""Predictive coding: every state is pulled towards its prediction."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import add_all, total
from energax.costs import AbstractCost, SquaredError
from energax.dynamics.base import AbstractErrorEnergy, Context, Start


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

    def prepare(self, graph, clamped, key):
        """What the clamped nodes send is all that stays constant."""
        for name in self.precisions:
            graph.node(name)
        return Context(clamped, graph.constant(clamped))

    def start(self, graph, context):
        """The feed-forward pass, which is the free equilibrium while only the input is clamped; else zeros."""
        clamped = context.clamped
        if graph.order is None or graph.input not in clamped:
            return Start(graph.zeros(graph.free(clamped), next(iter(clamped.values()))))
        swept = graph.sweep(clamped)
        return Start({name: swept[name] for name in graph.free(clamped)}, settled=set(clamped) == {graph.input})

    def energy(self, graph, states, context):
        """E per sample (Millidge et al. 2023, section 2.1; Chen et al. 2025, Eq. 2)."""
        states = context.everywhere(states)
        predictions = graph.predict(states, context.constant)
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
