"""Lines and colours of the pictures of networks."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from energax.graph.parts import Node
from energax.graph.structure import AbstractStructure
from energax.plot.layout import HEIGHT, LINE, NAME, RADIUS, SMALL, Layout, Place, Point, Route, is_delayed, lay_out

Style = dict[str, Any]

INK, QUIET = "#263238", "#607d8b"
NODE: Style = {"facecolor": "#e3f2fd", "edgecolor": "#1565c0", "linewidth": 1.2}
STATE, CLAMPED, DIRECT, READ = "state", "clamped by the data", "no state of its own", "read by the cost"
KINDS: dict[str, Style] = {
    STATE: NODE,
    CLAMPED: {**NODE, "facecolor": "#cfd8dc"},
    DIRECT: {**NODE, "facecolor": "white", "linestyle": (0, (3, 2))},
    READ: {"edgecolor": "#e65100", "linewidth": 2.0},
}
ERROR: Style = {"facecolor": "#ffebee", "edgecolor": "#c62828", "linewidth": 1.0}
EDGE: Style = {"color": QUIET, "linewidth": 1.0}
DELAYED: Style = {**EDGE, "linestyle": (0, (4, 2))}

TURN = 0.14  # radius at which an edge turns
SHEETS = (0.08, 0.04, 0.0)  # how far those of a pile are shifted, the one in front last
ENTRY, ROW = 1.5, 0.17  # width and height of an entry of the legend


def draw_graph(graph: AbstractStructure, columns: int) -> Figure:
    """The figure of `plot.graph`. Its unit is the inch, so text has one size however large the network is."""
    layout = lay_out(graph, columns)
    kinds = {node.name: _kinds(graph, node) for node in graph.nodes}
    marks = _marks({kind for one in kinds.values() for kind in one}, layout)
    width = max(layout.size[0], 2 * ENTRY)
    across = min(len(marks), int(width / ENTRY))
    height = layout.size[1] + ROW * (math.ceil(len(marks) / across) + 0.5)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(-height, 0))
    axes.set_axis_off()
    for route in layout.routes:
        _draw_edge(axes, route)
    for name, place in layout.places.items():
        style = {key: value for kind in kinds[name] for key, value in KINDS[kind].items()}
        _draw_node(axes, name, place, style)
    axes.legend(handles=marks, loc="lower center", ncols=across, frameon=False, fontsize=6.5, borderpad=0.2)
    return figure


def _kinds(graph: AbstractStructure, node: Node) -> list[str]:
    """What a node is, in the words of the legend."""
    first = CLAMPED if node.name in graph.inputs else STATE if node.state else DIRECT
    return [first, READ] if node.name in [place.node for place in graph.outputs] else [first]


def _draw_node(axes: Axes, name: str, place: Place, style: Style) -> None:
    left, bottom = place.right - place.width, place.y - HEIGHT / 2
    for shift in SHEETS if place.pile else SHEETS[-1:]:
        corner = (left + shift, bottom + shift)
        sheet = FancyBboxPatch(corner, place.width, HEIGHT, "round,pad=0,rounding_size=0.06", zorder=2, **style)
        sheet.set_label(name if shift == 0 else "")
        axes.add_patch(sheet)
    _write(axes, (place.x, place.y), name, fontsize=NAME, va="center_baseline", color=INK)
    for line, text in enumerate(place.captions):
        _write(axes, (place.x, bottom - 0.04 - LINE * line), text, va="top", color=QUIET)
    if place.error:
        at, red = (place.entry, place.y), ERROR["edgecolor"]
        axes.plot([place.entry, left], [place.y, place.y], color=red, linewidth=1.0, zorder=1)
        axes.add_patch(Circle(at, RADIUS, label=f"error of {name}", zorder=2, **ERROR))
        _write(axes, at, "e", va="center_baseline", style="italic", color=red)


def _draw_edge(axes: Axes, route: Route) -> None:
    head = "-|>,head_width=2,head_length=4"
    style = DELAYED if is_delayed(route.edge) else EDGE
    path = _round_off(route.corners)
    axes.add_patch(
        FancyArrowPatch(path=path, arrowstyle=head, mutation_scale=1, label=str(route.edge), zorder=1, **style)
    )
    (x, y), angle = route.label, math.radians(route.angle)
    for text, away, va, color in ((route.edge.function, 0.025, "bottom", INK), (route.note, -0.025, "top", QUIET)):
        at = (x - away * math.sin(angle), y + away * math.cos(angle))
        written = _write(axes, at, text, va=va, color=color, rotation=route.angle, rotation_mode="anchor")
        written.set_path_effects([withStroke(linewidth=2, foreground="white")])  # other edges may pass below it


def _write(axes: Axes, at: Point, text: str, *, fontsize: float = SMALL, **style: Any) -> Text:
    """Text, centred. A name with dollar signs is no formula."""
    return axes.text(*at, text, ha="center", fontsize=fontsize, parse_math=False, zorder=3, **style)


def _round_off(corners: Sequence[Point]) -> Path:
    """A line that turns on arcs, as wide as there is room."""
    points, codes = [corners[0]], [Path.MOVETO]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        points += [_approach(corner, before), corner, _approach(corner, after)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*points, corners[-1]], [*codes, Path.LINETO])


def _approach(corner: Point, end: Point) -> Point:
    """Where the arc at a corner meets the straight piece that leads to an end, half-way at most."""
    share = min(0.5, TURN / max(math.dist(corner, end), TURN))
    return corner[0] + share * (end[0] - corner[0]), corner[1] + share * (end[1] - corner[1])


def _marks(kinds: set[str], layout: Layout) -> list[Patch | Line2D]:
    """The entries of the legend: what is drawn, in words."""
    marks: list[Patch | Line2D] = [
        Patch(label=kind, **{"facecolor": "white", **style}) for kind, style in KINDS.items() if kind in kinds
    ]
    if any(place.error for place in layout.places.values()):
        colours = {"markerfacecolor": ERROR["facecolor"], "markeredgecolor": ERROR["edgecolor"]}
        marks.append(Line2D([], [], linestyle="none", marker="o", label="prediction error", **colours))
    if any(is_delayed(route.edge) for route in layout.routes):
        marks.append(Line2D([], [], label="delay", **DELAYED))
    return marks
