"""Predictive coding: every state is pulled towards its prediction."""

from collections.abc import Collection
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import add_all, hold_still, total
from energax.checking import as_setting
from energax.costs import AbstractCost, SquaredError, as_cost
from energax.dynamics.base import AbstractErrorEnergy, FreeGradient, Prepared, Start
from energax.dynamics.precision import LearnedPrecision
from energax.dynamics.priors import AbstractPrior
from energax.exceptions import SettingError
from energax.graph.parts import Clamped, States
from energax.graph.structure import AnyGraph


class PredictiveCoding(AbstractErrorEnergy):
    """E = 1/2 sum_n Pi_n |v_n - vhat_n|^2 over all nodes that hold a state and receive a prediction.

    An output node with a state is the *free output* of Millidge et al. 2023, Eq. 9: its error counts in E and the
    cost pulls its state. An output with `state=False` is the *direct output* of Chen et al. 2025, Eq. 2 (and
    Millidge et al. 2023, Eq. 22): the cost reads the prediction. The factor 1/2 is this library's convention; as
    printed, both papers have Pi = 2.

    Attributes:
        cost: C; where there are several outputs, a mapping from their names to costs.
        precisions: node name -> Pi, a number or an array that broadcasts with the node; 1 where left out. Held.
        learned: node name -> a precision that is trained with the weights. F then holds -1/2 log Pi, so dF/dtheta of
            the free phase is not 0.
        priors: name of a node that receives no prediction -> what it costs, as for latents above a clamped image.

    Raises:
        SettingError: a precision that does not fit its node, given twice, or learnt without anything that keeps it
            from rising without end; a prior on a node that is predicted.
    """

    trainable: ClassVar[tuple[str, ...]] = ("learned",)
    cost: AbstractCost = eqx.field(converter=as_cost, default_factory=SquaredError)
    precisions: dict[str, Array] = eqx.field(
        converter=lambda given: {name: as_setting(f"precision of {name!r}")(value) for name, value in given.items()},
        default_factory=dict,
    )
    learned: dict[str, LearnedPrecision] = eqx.field(default_factory=dict)
    priors: dict[str, AbstractPrior] = eqx.field(default_factory=dict)

    def require_fit(self, graph):
        """Precisions that broadcast with their nodes, and priors of nodes that nothing predicts."""
        for name, precision in self.precisions.items():
            require_precision(graph, name, precision)
        for name, learned in self.learned.items():
            require_precision(graph, name, learned.raw)
            if name in self.precisions:
                raise SettingError(f"node {name!r} has a held precision and a learnt one: give one of them")
        predicted = {edge.target for edge in graph.edges}
        for name in self.priors:
            graph.node(name)
            if name in predicted:
                raise SettingError(f"node {name!r} is predicted: a prior is for nodes that nothing predicts")

    def prepare(self, graph, clamped, reference):
        """What the clamped nodes send, and the routes of layers that hold them."""
        for name, learned in self.learned.items():
            require_held(name, learned, name in clamped.values)
        return Prepared(hold_routes(graph, graph.precompute(clamped), reference))

    def start(self, phase):
        """The feed-forward pass, the free equilibrium while no predicted node is clamped; zeros where there is none."""
        swept = sweep_free(phase.graph, phase.clamped.values, phase.sent)
        if swept is None:
            return phase.silence()
        return Start(swept, settled=not predicts(phase.graph, phase.clamped.values))

    def anchored(self):
        """Nodes with a prior."""
        return tuple(self.priors)

    def free_gradient(self, graph):
        """Zero at a feed-forward pass; errors may be left on a cyclic graph and beside a prior, and log Pi is."""
        left = graph.order() is None or self.learned or self.priors
        return FreeGradient.VARIATIONAL if left else FreeGradient.ZERO

    def energy(self, phase, states):
        """E per sample (Millidge et al. 2023, section 2.1; Chen et al. 2025, Eq. 2)."""
        graph, states = phase.graph, phase.everywhere(states)
        predictions = graph.predict(states, phase.sent)
        errors = self.error_energy({n: states[n] - vhat for n, vhat in predictions.items() if n in states})
        whole = add_all([errors + self.offset(graph), *(prior(states[name]) for name, prior in self.priors.items())])
        # a net without hidden nodes has no errors, and no energy but the cost's
        return whole if whole.ndim else jnp.broadcast_to(whole, len(next(iter(states.values()))))

    def offset(self, graph):
        """-1/2 log Pi of every unit whose precision is learnt, and what its prior costs."""
        norms = [learned.energy(graph.full_shape(name)) for name, learned in self.learned.items()]
        return add_all(norms) if norms else 0.0

    def error_energy(self, errors):
        """1/2 sum_n Pi_n |e_n|^2."""
        return add_all(total(self.precision(name) * error**2) / 2 for name, error in errors.items())

    def precision(self, name):
        """Pi_n, 1 where none was given."""
        if name in self.learned:
            return self.learned[name].value
        return self.precisions.get(name, jnp.asarray(1.0))  # weakly typed: it fits every dtype

    @property
    def separate(self):
        """Yes."""
        return True


def sweep_free(graph: AnyGraph, clamped: States, sent: Clamped) -> States | None:
    """The feed-forward pass of the free nodes; None where there is none, or nothing predicts one of them."""
    free = graph.free(clamped)
    if not clamped or graph.order(clamped) is None or not all(predicts(graph, [name]) for name in free):
        return None
    swept = graph.sweep(sent)
    return {name: swept[name] for name in free}


def hold_routes(graph: AnyGraph, sent: Clamped, reference: States | None) -> Clamped:
    """What the clamped nodes send, with the routes of the free phase: of a feed-forward pass, or of a reference."""
    if not graph.routed:
        return sent
    if reference is None:
        reference = sweep_free(*hold_still((graph, sent.values, sent)))
        if reference is None:
            return sent
    free = {name: reference[name] for name in graph.free(sent.values)}
    return graph.hold_routes({**sent.values, **free}, sent)


def predicts(graph: AnyGraph, names: Collection[str]) -> bool:
    """Whether an edge enters any of these nodes."""
    return any(edge.target in names for edge in graph.edges)


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
            f"(of missing values: clamp the node, and say by known={{{name!r}: mask}} which of its units are known, in "
            "relax or in Batch)"
        )


def require_held(name: str, learned: LearnedPrecision, clamped: bool) -> None:
    """Refuse a learnt precision that would rise without end."""
    if not (clamped or learned.held_up):
        raise SettingError(
            f"the learnt precision of node {name!r} rises without end, because the node is not clamped and its errors "
            "can settle to 0: give LearnedPrecision bounds=(low, high), or a prior gamma=(shape, rate)"
        )
