"""Projections that keep a directed net certified while it trains: the last part of an optimiser's chain."""

import abc
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from functools import singledispatch
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from energax.certificates.comparison import Comparison
from energax.certificates.criteria import find_weights, floor_of
from energax.checking import require_between, require_kind
from energax.dynamics.base import AbstractDynamics
from energax.dynamics.directed import as_graph, leaks_of
from energax.dynamics.leaky_directed import LeakyDirected
from energax.dynamics.leaky_flow import LeakyFlow, SignedOutflow
from energax.dynamics.model import Model, split_parameters
from energax.exceptions import SettingError
from energax.graph.graph import Graph
from energax.graph.structure import AnyGraph
from energax.graph.synapses import pull
from energax.graph.topology import distances
from energax.layers import Linear, Sparse, change_weights

HALVINGS = 24
NONE: AbstractSet[str] = frozenset()


class AbstractProjection(eqx.Module):
    """Moves a model back into a set."""

    @abc.abstractmethod
    def __call__(self, model: Model, frozen: AbstractSet[str] = NONE) -> Model:
        """The model with other weights.

        Args:
            model: what is trained.
            frozen: functions of the graph whose weights stay as they are.
        """


def project(
    projections: AbstractProjection | Sequence[AbstractProjection], dynamics: AbstractDynamics, graph: Graph
) -> optax.GradientTransformation:
    """Optax's form of projections: updates that end where these put the parameters; nothing may come after it.

    As `optax.chain(optax.adam(1e-3), project(CapFeedback(), dynamics, graph))`.

    Args:
        projections: one or several, in this order.
        dynamics: that of the learner.
        graph: the learner's; of its numbers only what is not trained is read. Frozen functions stay as they are here.

    Raises:
        SettingError: something else in the place of a projection, or one for another dynamics; an update without
            parameters.
    """
    parts = require_projections("project", projections, dynamics, graph)
    known, rest = split_parameters(Model(graph, dynamics))

    def update(updates, state, params=None):
        if params is None:
            raise SettingError("a projection needs the parameters: give them to update as its third argument")
        after = optax.apply_updates(params, updates)
        frozen = {name for name, function in params.graph.functions.items() if not jax.tree.leaves(function)}
        model: Any = eqx.combine(after, known, rest)
        for part in parts:
            model = part(model, frozen)
        # frozen groups have no update
        moved = jax.tree.map(
            lambda u, new, old: None if u is None else new - old,
            updates,
            split_parameters(model)[0],
            params,
            is_leaf=lambda leaf: leaf is None,
        )
        return moved, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def move_inside(
    projections: AbstractProjection | Sequence[AbstractProjection],
    dynamics: AbstractDynamics,
    graph: Graph,
    frozen: Iterable[str] = (),
) -> Graph:
    """The graph with its weights where projections put them: where a training by `project` shall begin.

    Args:
        projections: one or several, in this order.
        dynamics: that of the learner.
        graph: the network.
        frozen: functions that stay as they are, as of `Learner.freeze`.

    Raises:
        SettingError: something else in the place of a projection, or one for another dynamics.
    """
    model: Any = Model(graph, dynamics)
    for part in require_projections("move_inside", projections, dynamics, graph):
        model = part(model, frozenset(frozen))
    return as_graph(model.graph)


def require_projections(place: str, given: Any, dynamics: Any, graph: Any) -> list[AbstractProjection]:
    """A list of projections, each of which fits the dynamics and the graph."""
    require_kind(f"{place}: dynamics", dynamics, AbstractDynamics, "give that of the learner, before the graph")
    require_kind(f"{place}: graph", graph, Graph, "give that of the learner, after the dynamics")
    parts = [given] if isinstance(given, AbstractProjection) else list(given)
    for part in parts:
        require_kind(f"{place}: projections", part, AbstractProjection, "give some, as CapFeedback()")
        eqx.filter_eval_shape(part, Model(graph, dynamics))  # what does not fit is told before a training begins
    return parts


class KeepPositive(AbstractProjection):
    """Weights among free units at 0 or above: flows of signed or absolute outflow are then certified by any leak."""

    def __call__(self, model, frozen=NONE):
        """Negative ones become 0."""
        names = free_functions(model.graph) - frozen
        return change_functions(model, names, lambda weight: jnp.maximum(weight, 0))


class CapOutflow(AbstractProjection):
    """Negative weight that leaves a unit at most `share` of half its leak: C1 of a flow with signed outflow.

    Attributes:
        share: in (0, 1).
    """

    share: float = eqx.field(static=True, default=0.9)

    def __check_init__(self):
        require_between("CapOutflow: share", self.share, 0, 1, open_least=True, open_most=True)

    def __call__(self, model, frozen=NONE):
        """Where there is more, it is scaled down, unit by unit."""
        dynamics, graph = model.dynamics, model.graph
        if not isinstance(dynamics, LeakyFlow) or not isinstance(dynamics.outflow, SignedOutflow):
            raise SettingError(
                f"CapOutflow: {type(dynamics).__name__}: it is for LeakyFlow with SignedOutflow(); give CapFeedback() "
                "or CapIncoming() to LeakyDirected"
            )
        net = Comparison.of(dynamics, graph)
        negative = pull(net.graph, lambda weight: jnp.minimum(weight, 0), net.ones)
        leaks = leaks_of(dynamics.leak, graph, net.losses)
        factors = {
            name: jnp.minimum(1, self.share * leaks[name] / 2 / jnp.maximum(-loss, jnp.finfo(loss.dtype).tiny))
            for name, loss in negative.items()
        }
        for edge in graph.edges:
            if edge.source in factors and edge.target in factors and edge.function not in frozen:
                spread, _ = spread_ends(graph.functions[edge.function])
                kept = spread(factors[edge.source].reshape(-1))
                model = change_functions(
                    model, {edge.function}, lambda weight, kept=kept: jnp.where(weight < 0, kept * weight, weight)
                )
        return model


class CapIncoming(AbstractProjection):
    """What reaches a unit, sum |W| rho', at most `share` of its leak: C2 of an additive net, by synaptic scaling.

    Every unit scales its own incoming synapses, so that nothing but what is at the synapse's end is known. Inputs do
    not count. Frozen functions count and stay: a unit that they alone drive beyond its leak stays so, and C2 with it;
    C3 may still certify the net.

    Attributes:
        share: in (0, 1).
    """

    share: float = eqx.field(static=True, default=0.9)

    def __check_init__(self):
        require_between("CapIncoming: share", self.share, 0, 1, open_least=True, open_most=True)

    def __call__(self, model, frozen=NONE):
        """Where there is more, it is scaled down, unit by unit."""
        dynamics, graph = model.dynamics, model.graph
        require_additive("CapIncoming", dynamics)
        net = Comparison.of(dynamics, graph)
        learnt = free_functions(graph) - frozen
        without = change_functions(model, learnt, lambda weight: 0 * weight)
        total, fixed = (one.deliver(net.ones) for one in (net, Comparison.of(dynamics, without.graph)))
        factors = {
            name: jnp.clip((self.share * loss - fixed[name]) / floor_of(total[name] - fixed[name]), 0, 1).reshape(-1)
            for name, loss in net.losses.items()
        }
        for edge in graph.edges:
            if edge.source in factors and edge.function in learnt:
                _, spread = spread_ends(graph.functions[edge.function])
                kept = spread(factors[edge.target])
                model = change_functions(model, {edge.function}, lambda weight, kept=kept: kept * weight)
        return model


class CapFeedback(AbstractProjection):
    """Spectral radius of N / l at most `radius`, by scaling feedback alone: C5 of an additive net.

    Feedback are the edges that do not lead away from the input. A cap on all weights would strangle what drives the
    net; without feedback every such net is certified.

    Attributes:
        radius: in (0, 1).
    """

    radius: float = eqx.field(static=True, default=0.9)

    def __check_init__(self):
        require_between("CapFeedback: radius", self.radius, 0, 1, open_least=True, open_most=True)

    def __call__(self, model, frozen=NONE):
        """The largest factor up to 1 that is enough, by halving."""
        require_additive("CapFeedback", model.dynamics)
        back = feedback_functions(model.graph) - frozen
        if not back:
            return model
        least, gains = Comparison.of(model.dynamics, model.graph).blocks()
        without = change_functions(model, back, lambda weight: 0 * weight)
        _, forward = Comparison.of(model.dynamics, without.graph).blocks()
        ones = jnp.ones_like(least)

        def radius_at(factor):
            total = (forward + factor * (gains - forward)) / least[:, None]
            weights = find_weights(lambda w: total @ w, ones)
            return jnp.max(total @ weights / weights)

        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            fits = radius_at(middle) <= self.radius
            return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

        one = jnp.ones((), least.dtype)
        low, _ = jax.lax.fori_loop(0, HALVINGS, halve, (0 * one, one))
        factor = jnp.where(radius_at(one) <= self.radius, one, low)
        return change_functions(model, back, lambda weight: factor * weight)


def require_additive(place: str, dynamics: AbstractDynamics) -> None:
    """Refuse what is no additive net."""
    if not isinstance(dynamics, LeakyDirected):
        raise SettingError(
            f"{place}: {type(dynamics).__name__}: it is for LeakyDirected; give CapOutflow() or KeepPositive() to flows"
        )


def free_functions(graph: AnyGraph) -> set[str]:
    """Functions of the edges among free nodes."""
    return {edge.function for edge in graph.edges if edge.source not in graph.inputs}


def feedback_functions(graph: AnyGraph) -> set[str]:
    """Functions of the edges that do not lead away from the inputs, counted in edges."""
    links = [(edge.target, edge.source) for edge in graph.edges]
    reached = [distances(name, links) for name in graph.inputs]
    depth = {node.name: min((d[node.name] for d in reached if node.name in d), default=0) for node in graph.nodes}
    return {edge.function for edge in graph.edges if depth[edge.source] >= depth[edge.target]}


def change_functions(model: Model, names: set[str], change: Callable[[Array], Array]) -> Model:
    """The model with the weights of some functions changed; biases stay."""
    functions = dict(model.graph.functions)
    functions |= {name: change_weights(functions[name], change) for name in names}
    return eqx.tree_at(lambda m: m.graph.functions, model, functions)


@singledispatch
def spread_ends(layer: Callable) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """How values of the units that weights leave, and of those that they reach, are laid out over the weights."""
    raise SettingError(f"{type(layer).__name__}: weights are capped unit by unit of Linear and Sparse layers only")


@spread_ends.register
def _(layer: Linear):
    return lambda values: values[:, None], lambda values: values[None, :]


@spread_ends.register
def _(layer: Sparse):
    return lambda values: values[layer.sources], lambda values: values[layer.targets]
