"""The feed-forward pass: node after node, and position after position along every axis.

All nodes that share an axis take it as one unit: a scan whose step is a feed-forward pass of these nodes at one
position, in which deeper axes are units again. So a graph of any length or depth is traced once.
"""

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.graph import topology
from energax.graph.parts import Axis, Clamped, Edge, Node, States, add_to, axes_of, shifts_of
from energax.graph.stacking import Position, Stacked
from energax.layers import takes_key
from energax.layers.bilinear import tracing_scan

if TYPE_CHECKING:
    from energax.graph.graph import Graph


class Unit(NamedTuple):
    """The nodes that share an axis, in feed-forward order."""

    axis: Axis
    parts: "Plan"


Plan = tuple[str | Unit, ...]
"""Names and units in feed-forward order."""

Fns = dict[str, Callable]

UNROLLED = 8  # positions of an axis up to which they are written out: a loop over few costs more than it compiles less


@lru_cache
def plan_sweep(nodes: tuple[Node, ...], edges: tuple[Edge, ...], length: int | None) -> Plan | None:
    """The feed-forward order of a graph; None where nodes form a cycle without a delay."""
    axes = {node.name: axes_of(node, length) for node in nodes}
    links = tuple((e.source, e.target, shifts_of(e, axes[e.source], axes[e.target])) for e in edges)
    return _plan(tuple(axes), links, axes, 0)


def _plan(names: tuple[str, ...], links, axes: dict[str, tuple[Axis, ...]], level: int) -> Plan | None:
    unit = {name: axes[name][level] if len(axes[name]) > level else name for name in names}
    between = [(unit[a], unit[b]) for a, b, _ in links if unit[a] != unit[b] or isinstance(unit[a], str)]
    order = topology.topological_order(tuple(dict.fromkeys(unit.values())), between)
    if order is None:
        return None
    plan: list[str | Unit] = []
    for one in order:
        if isinstance(one, str):
            plan.append(one)
            continue
        inside = tuple(name for name in names if unit[name] == one)
        now = [(a, b, shift) for a, b, shift in links if a in inside and b in inside and not shift.get(one)]
        parts = _plan(inside, now, axes, level + 1)
        if parts is None:
            return None
        plan.append(Unit(one, parts))
    return tuple(plan)


def names_of(plan: Plan) -> tuple[str, ...]:
    """All nodes of a plan, in feed-forward order."""
    parts = [(part,) if isinstance(part, str) else names_of(part.parts) for part in plan]
    return tuple(name for part in parts for name in part)


def sweep_nodes(graph: "Graph", plan: Plan, clamped: Clamped, errors: States) -> States:
    """The values of all nodes, direct ones included: predictions plus errors, and the clamped values.

    `clamped.sums` is what the clamped nodes send, to all positions at once.
    """
    return _walk(graph, graph.functions, plan, 0, clamped, errors)


def _walk(graph: "Graph", functions: Fns, plan: Plan, level: int, clamped: Clamped, errors: States) -> States:
    """The values of the nodes in `plan` at one position of the first `level` axes.

    Args:
        graph: the network.
        functions: its functions, those stacked along these axes at the position.
        plan: the nodes and their order.
        level: how many axes are entered.
        clamped: clamped values at the position, and as sums what has come there from elsewhere.
        errors: what is added to predictions there.
    """
    values, sums = dict(clamped.values), dict(clamped.sums or {})
    inside = set(names_of(plan)) - set(clamped.values)  # clamped nodes have sent all they send
    now = [e for e in _select_undelayed(graph, level) if e.source in inside and e.target not in clamped.values]
    for part in plan:
        members = names_of((part,))
        for edge in now:
            if edge.target in members and edge.source not in members:
                add_to(sums, edge.target, graph.send(edge, functions, values[edge.source], level, clamped))
        if isinstance(part, Unit):
            # what came from outside has arrived at all positions, so the unit can walk along its axis by itself
            here = Clamped(_select(clamped.values, members), _select(sums, members), clamped.keys)
            values |= _visit_all(graph, functions, part, level, here, _select(errors, members))
        elif part not in clamped.values:
            values[part] = graph.activate(part, sums[part], functions, level, clamped.keys) + errors.get(part, 0)
    return values


def _visit_all(graph: "Graph", functions: Fns, unit: Unit, level: int, clamped: Clamped, errors: States) -> States:
    """The values of a unit's nodes, position after position."""
    members = set(names_of(unit.parts))
    sending = members - set(clamped.values)
    within = [
        (e, graph.shifts(e)[unit.axis])
        for e in _select_undelayed(graph, level)
        if e.source in sending and e.target in sending
    ]
    # only edges between two nodes of the unit tie positions together
    delayed = [(edge, delay) for edge, delay in within if delay]
    slices, rest = _slices(functions, unit.axis)
    like = next(iter((clamped.values or clamped.sums or errors).values()))

    def visit(now, heard: list[tuple[Edge, Array, Array | None]]) -> States:
        """The values at one position; `heard`: what delayed edges read, with a mask where they may not reach so far."""
        held, errors, sums, own = now
        here = {**functions, **eqx.combine(own, rest)}
        sums = dict(sums)
        for edge, value, reaches in heard:
            sent = graph.send(edge, here, value, level + 1, clamped)
            add_to(sums, edge.target, sent if reaches is None else jnp.where(reaches, sent, 0))
        for edge, _ in delayed:
            if edge.target not in sums:  # a node that nothing has reached yet hears silence
                shape = graph.full_shape(edge.target)[level + 1 :]
                sums[edge.target] = jnp.zeros((like.shape[0], *shape), like.dtype)
        return _walk(graph, here, unit.parts, level + 1, Clamped(held, sums, clamped.keys), errors)

    given = (clamped.values, errors, clamped.sums or {})
    positions = (*(jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), tree) for tree in given), slices)
    if unit.axis.length <= UNROLLED:
        return _unroll(visit, positions, delayed, unit.axis.length)
    return _scan(visit, positions, delayed, _history(graph, delayed, level, like), unit.axis.length)


def _scan(visit: Callable, positions, delayed: list[tuple[Edge, int]], history: States, length: int) -> States:
    """A loop, so that an axis of any length is compiled once; the carry holds the values at the last few positions."""

    def step(carry, now):
        position, history = carry
        # one body serves all positions, so those that a delayed edge does not reach are masked
        heard = [(edge, history[edge.source][delay - 1], position >= delay) for edge, delay in delayed]
        with tracing_scan():
            values = visit(now, heard)
        # the newest comes first, so that delay d is always found at d - 1
        history = {name: jnp.concatenate([values[name][None], past[:-1]]) for name, past in history.items()}
        return (position + 1, history), values

    _, values = jax.lax.scan(step, (0, history), positions, length=length)
    return jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), values)


def _unroll(visit: Callable, positions, delayed: list[tuple[Edge, int]], length: int) -> States:
    """The same, written out: positions that a delayed edge does not reach are known, and nothing is mapped for them."""
    seen: list[States] = []
    for position in range(length):
        now = jax.tree.map(lambda a, at=position: a[at], positions)
        reached = [(edge, position - delay) for edge, delay in delayed if delay <= position]
        seen.append(visit(now, [(edge, seen[at][edge.source], None) for edge, at in reached]))
    return jax.tree.map(lambda *values: jnp.stack(values, axis=1), *seen)


def _history(graph: "Graph", delayed: list[tuple[Edge, int]], level: int, like: Array) -> States:
    """Silence before the first position, for every node that is read with a delay."""
    depth = max((delay for _, delay in delayed), default=0)
    shapes = {edge.source: graph.full_shape(edge.source)[level + 1 :] for edge, _ in delayed}
    return {name: jnp.zeros((depth, like.shape[0], *shape), like.dtype) for name, shape in shapes.items()}


def _slices(functions: Fns, axis: Axis):
    """The arrays of the functions stacked along an axis, one function per position, and what they all share.

    A delayed edge has no function for the first positions, which it does not reach; the first one stands in.
    """

    def filled(leaf: Array) -> Array:
        missing = axis.length - leaf.shape[0]
        return jnp.concatenate([jnp.repeat(leaf[:1], missing, axis=0), leaf]) if missing else leaf

    own = {name: _number(fn) for name, fn in functions.items() if isinstance(fn, Stacked) and fn.axis == axis}
    arrays, rest = eqx.partition(own, eqx.is_array)
    return jax.tree.map(filled, arrays), rest


def _number(stack: Stacked) -> Callable:
    """The functions of a stack; random ones know which they are, so that each draws from a key of its own."""
    if not takes_key(stack.function):
        return stack.function
    return Position(stack.function, jnp.arange(stack.positions))


def _select_undelayed(graph: "Graph", level: int) -> list[Edge]:
    """The edges that stay at one position of the first `level` axes."""
    return [edge for edge in graph.edges if not any(graph.shifts(edge).get(a) for a in graph.axes(edge.target)[:level])]


def _select(states: States, names: Collection[str]) -> States:
    return {name: value for name, value in states.items() if name in names}
