"""Where the nodes of a graph stand in a picture, and the way of every edge; lengths are inches, y goes up."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from energax.graph import topology
from energax.graph.parts import At, Axis, Edge, Node, shifts_of
from energax.graph.structure import AbstractStructure

HEIGHT = 0.34  # of a node's box
RADIUS = 0.1  # of the circle of an error
NAME, SMALL = 8.0, 6.0  # points of a name, and of small print
LINE = 0.125  # height of a line of small print
LANE = 0.34  # between edges that run beside each other
AIR = 0.12  # between things that must not touch

STRAIGHT, LOOP, ABOVE, BELOW = "straight", "loop", "above", "below"

Point = tuple[float, float]
Axes = Mapping[str, Sequence[Axis]]
"""Name of a node -> its axes."""

Side = tuple[str, str | float]
"""Beside what edges run: the side, and the node of a loop, or a row, or the x of a column."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a node stands.

    Attributes:
        row: of the picture.
        index: in its layer, from the top.
        count: nodes of its layer.
        error: whether it holds a prediction error: a state at which an edge arrives.
        pile: whether it repeats along axes.
        captions: what is written below it, line by line.
        x: of the centre of its box.
        width: of its box.
        leave: how far from it edges turn that leave for above or below.
        enter: how far from it those turn that come from there.
        y: of the centre of its box.
    """

    row: int
    index: int
    count: int
    error: bool
    pile: bool
    captions: tuple[str, ...]
    x: float
    width: float
    leave: float
    enter: float
    y: float = 0.0

    @property
    def right(self) -> float:
        """The side of its box where edges leave."""
        return self.x + self.width / 2

    @property
    def entry(self) -> float:
        """Where edges arrive: the x of the circle of its error, or else the left side of its box."""
        return self.x - self.width / 2 - (1.5 * RADIUS if self.error else 0)

    def end(self, start: Point) -> Point:
        """The end of a line that comes from `start`, on the rim of the circle or the side of the box."""
        reach = RADIUS / math.dist(start, (self.entry, self.y)) if self.error else 0
        return self.entry + reach * (start[0] - self.entry), self.y + reach * (start[1] - self.y)

    def land(self, upright: int, shift: float) -> Point:
        """The end of a line from straight above or below, a little to the left or the right."""
        if self.error:
            return self.entry + shift, self.y + upright * math.sqrt(RADIUS**2 - shift**2)
        return self.entry + AIR + shift, self.y + upright * HEIGHT / 2


class Route(NamedTuple):
    """The way of an edge: its corners, where its text stands, and what is said of it beside its function."""

    edge: Edge
    corners: tuple[Point, ...]
    label: Point
    note: str

    @property
    def angle(self) -> float:
        """Slope of its text, in degrees."""
        (x, y), (right, up) = self.corners[0], self.corners[-1]
        return math.degrees(math.atan2(up - y, right - x)) if len(self.corners) == 2 else 0.0


class Layout(NamedTuple):
    """A picture without its colours: the place of every node, the way of every edge, and the size of all."""

    places: dict[str, Place]
    routes: list[Route]
    size: Point


def lay_out(graph: AbstractStructure, columns: int) -> Layout:
    """Nodes layer by layer from left to right, in rows like the lines of a text.

    An edge to the next layer is a straight line. Others run above the row where they lead on, and below one where they
    lead back or to another row; there each has a lane of its own, the shortest next to the nodes.

    Args:
        graph: the network.
        columns: the most layers in a row.
    """
    axes = {node.name: graph.axes(node.name) for node in graph.nodes}  # once: each call walks over all parameters
    layers = find_layers(graph)
    count = 1 + max(layers.values())
    across = math.ceil(count / math.ceil(count / columns))
    pairs = [(edge.source, edge.target) for edge in graph.edges]
    sides = [_side(pair, layers, across, pairs.index(pair) < index) for index, pair in enumerate(pairs)]
    notes = [_note(edge, axes) for edge in graph.edges]
    said = max((_measure(text, SMALL) for text in [*notes, *(edge.function for edge in graph.edges)]), default=0.0)
    places, gap = _place_columns(graph, axes, layers, across, said)

    flat = [[x for x, _ in way] for way in _turn_all(places, graph.edges, sides, [0.0] * len(sides))]
    lanes, counts = share_lanes(sides, [(min(xs), max(xs)) for xs in flat])
    places, starts, height = _place_rows(places, counts)
    away = [LANE * (lane + 0.6) * (-1 if side == BELOW else 1) for (side, _), lane in zip(sides, lanes, strict=True)]
    levels = [starts.get(side, 0.0) + shift for side, shift in zip(sides, away, strict=True)]
    places = _place_turns(places, graph.edges, _turn_all(places, graph.edges, sides, levels))
    ways = _turn_all(places, graph.edges, sides, levels)
    routes = [Route(edge, way, _label(way), note) for edge, way, note in zip(graph.edges, ways, notes, strict=True)]
    return Layout(places, routes, (max(place.right for place in places.values()) + gap / 2 + AIR, height))


def find_layers(graph: AbstractStructure) -> dict[str, int]:
    """The layer of every node: behind all that it reads, and next to the first that reads it.

    An edge that would close a cycle does not count. Of the edges of a cycle those with a delay are left out first, then
    those that do not lead away from the input, then those that lead back in the order in which nodes are given.
    """
    names = [node.name for node in graph.nodes]
    back = [(edge.target, edge.source) for edge in graph.edges]
    found = [topology.distances(name, back) for name in graph.inputs]
    away = {name: min(one.get(name, math.inf) for one in found) for name in names}

    def doubts(edge: Edge) -> tuple[bool, bool, bool]:
        a, b = edge.source, edge.target
        return is_delayed(edge), away[b] <= away[a], names.index(b) < names.index(a)

    links: list[topology.Link] = []
    for edge in sorted(graph.edges, key=doubts):
        if edge.source not in topology.reachable([edge.target], links):
            links.append((edge.source, edge.target))
    order = cast(tuple[str, ...], topology.topological_order(names, links))  # no link closes a cycle
    layers: dict[str, int] = {}
    for name in order:
        layers[name] = max((layers[a] + 1 for a, b in links if b == name), default=0)
    for name in reversed(order):
        layers[name] = min((layers[b] - 1 for a, b in links if a == name), default=layers[name])
    return {name: layers[name] for name in names}


def is_delayed(edge: Edge) -> bool:
    """Whether an edge has a delay, along whichever axis."""
    return any(edge.delay) if isinstance(edge.delay, tuple) else edge.delay > 0


def share_lanes(sides: Sequence[Side], spans: Sequence[Point]) -> tuple[list[int], dict[Side, int]]:
    """A lane for every edge, such that no two of a side overlap in one, and the number of lanes of every side.

    Args:
        sides: of every edge; the lanes of a side begin at 0.
        spans: from where to where it runs.
    """
    lanes = [0] * len(spans)
    taken: dict[Side, list[list[Point]]] = {}
    for index in sorted(range(len(spans)), key=lambda i: round(spans[i][1] - spans[i][0], 6)):  # equal ones as given
        low, high = spans[index]
        used = taken.setdefault(sides[index], [])
        free = (lane for lane, others in enumerate(used) if all(high < a or b < low for a, b in others))
        lanes[index] = next(free, len(used))
        if lanes[index] == len(used):
            used.append([])
        used[lanes[index]].append((low, high))
    return lanes, {side: len(used) for side, used in taken.items()}


def _side(ends: topology.Link, layers: Mapping[str, int], across: int, doubled: bool) -> Side:
    """Where an edge runs; of several with the same ends the first alone is straight."""
    (row, after), steps = (layers[name] // across for name in ends), layers[ends[1]] - layers[ends[0]]
    if ends[0] == ends[1]:
        return LOOP, ends[0]
    if row != after or steps < 0:
        return BELOW, min(row, after)
    return ABOVE if doubled or steps > 1 else STRAIGHT, row


def _place_columns(
    graph: AbstractStructure, axes: Axes, layers: Mapping[str, int], across: int, said: float
) -> tuple[dict[str, Place], float]:
    """Nodes with their x, and the gap between columns; `said` is the width of the longest text of an edge."""
    receiving = {edge.target for edge in graph.edges}
    captions = {node.name: _captions(node, axes[node.name], graph.outputs) for node in graph.nodes}
    width = max(0.55, AIR + max(_measure(name, NAME) for name in layers))
    written = max(_measure(line, SMALL) for lines in captions.values() for line in lines)
    gap = max(5 * RADIUS + 2 * AIR + said, written + AIR - width)
    most = (gap - 2.5 * RADIUS) / 2 - AIR / 4
    places: dict[str, Place] = {}
    for node in graph.nodes:
        row, column = divmod(layers[node.name], across)
        stack = [name for name in layers if layers[name] == layers[node.name]]
        places[node.name] = Place(
            row=row,
            index=stack.index(node.name),
            count=len(stack),
            error=node.state and node.name in receiving,
            pile=bool(axes[node.name]),
            captions=captions[node.name],
            x=AIR + gap / 2 + width / 2 + column * (width + gap),
            width=width,
            leave=most,
            enter=most,
        )
    return places, gap


def _place_rows(
    places: Mapping[str, Place], lanes: Mapping[Side, int]
) -> tuple[dict[str, Place], dict[Side, float], float]:
    """Nodes with their y, the y at which the lanes of every side begin, and the height of the picture."""
    placed: dict[str, Place] = {}
    starts: dict[Side, float] = {}
    y = -AIR
    for row in range(1 + max(place.row for place in places.values())):
        here = {name: place for name, place in places.items() if place.row == row}
        loops = LANE * max(lanes.get((LOOP, name), 0) for name in here)
        cell = loops + HEIGHT + LINE * max(len(place.captions) for place in here.values()) + 1.5 * AIR
        tallest = max(place.count for place in here.values())
        y -= LANE * lanes.get((ABOVE, row), 0)
        starts[ABOVE, row], starts[BELOW, row] = y, y - cell * tallest
        for name, place in here.items():
            top = y - cell * (place.index + (tallest - place.count) / 2) - loops
            placed[name] = dataclasses.replace(place, y=top - HEIGHT / 2)
            starts[LOOP, name] = top
        y = starts[BELOW, row] - LANE * lanes.get((BELOW, row), 0)
    return {name: placed[name] for name in places}, starts, -y


def _place_turns(
    places: Mapping[str, Place], edges: Sequence[Edge], ways: Sequence[Sequence[Point]]
) -> dict[str, Place]:
    """Nodes with the distances at which their edges turn, such that edges of two nodes of a column do not overlap.

    Args:
        places: of the nodes, with the most that `leave` and `enter` may be.
        edges: all of them.
        ways: their corners, of which y is right.
    """
    upright: dict[tuple[str, str], list[float]] = {}
    for edge, ((_, first), (_, second), *rest) in zip(edges, ways, strict=True):
        if rest and first == second:
            upright.setdefault(("leave", edge.source), []).extend((second, rest[0][1]))
    for edge, (*rest, (_, second), (_, last)) in zip(edges, ways, strict=True):
        if rest and second == last:
            upright.setdefault(("enter", edge.target), []).extend((rest[-1][1], second))
    sides: list[Side] = [(end, places[name].x) for end, name in upright]
    lanes, counts = share_lanes(sides, [(min(ys), max(ys)) for ys in upright.values()])
    placed = dict(places)
    for (end, name), side, lane in zip(upright, sides, lanes, strict=True):
        most = getattr(places[name], end)
        placed[name] = dataclasses.replace(placed[name], **{end: AIR + (most - AIR) * lane / counts[side]})
    return placed


def _turn_all(
    places: Mapping[str, Place], edges: Sequence[Edge], sides: Sequence[Side], levels: Sequence[float]
) -> list[tuple[Point, ...]]:
    """The corners of every edge."""
    return [_turn(edge, places, side, level) for edge, (side, _), level in zip(edges, sides, levels, strict=True)]


def _turn(edge: Edge, places: Mapping[str, Place], side: str, level: float) -> tuple[Point, ...]:
    """The corners of an edge that runs at a level; where other nodes are in the way it leaves or enters from beside."""
    source, target = places[edge.source], places[edge.target]
    start = (source.right, source.y)
    if side == STRAIGHT:
        return start, target.end(start)
    upright = -1 if side == BELOW else 1
    if side == LOOP or (side == ABOVE and source.index == 0):
        out = [(source.x + (0.2 if side == LOOP else 0.35) * source.width, source.y + HEIGHT / 2)]
    else:
        y = source.y + math.copysign(HEIGHT / 4, level - source.y)
        out = [(source.right, y), (source.right + source.leave, y)]
    outermost = target.index == (target.count - 1 if side == BELOW else 0) and source.row == target.row
    if side == LOOP or outermost:
        into = [target.land(upright, RADIUS / 2 if side == LOOP else -RADIUS / 2)]
    else:
        before = (target.entry - RADIUS - target.enter, target.y)
        into = [before, target.end(before)]
    return *out, (out[-1][0], level), (into[0][0], level), *into


def _label(corners: Sequence[Point]) -> Point:
    """Where the text of an edge stands: half-way along what is level, nearer to the source along a slope."""
    a, b = max(itertools.pairwise(corners), key=lambda ends: abs(ends[0][0] - ends[1][0]))
    share = 0.5 if a[1] == b[1] else 0.35
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


def _measure(text: str, size: float) -> float:
    """The width of a text, in inches, at so many points."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0] / 72


def _note(edge: Edge, axes: Axes) -> str:
    """The delays of an edge, and the positions that it names."""
    shifts = shifts_of(edge, axes[edge.source], axes[edge.target])
    delays = [f"{axis.name}+{delay}" for axis, delay in shifts.items() if delay]
    leaves = [f"from {name} {position}" for name, position in edge.leaves]
    enters = [f"to {name} {position}" for name, position in edge.enters]
    return ", ".join(delays + leaves + enters)


def _captions(node: Node, axes: Sequence[Axis], outputs: Sequence[At]) -> tuple[str, ...]:
    """Shape, axes, and where the cost reads."""
    shape = " × ".join(map(str, node.shape)) or "scalar"
    lengths = [f"{axis.name} {axis.length}" for axis in axes]
    read = [f"read at {axis} {at}" for place in outputs if place.node == node.name for axis, at in place.positions]
    return (shape, *lengths, *read)
