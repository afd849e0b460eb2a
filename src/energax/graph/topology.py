"""Facts of a graph's wiring: orders, distances and colourings, all computed once from static names."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from energax.exceptions import GraphError

Link = tuple[str, str]
Name = TypeVar("Name", bound=Hashable)


def topological_order(names: Sequence[Name], links: Iterable[tuple[Name, Name]]) -> tuple[Name, ...] | None:
    """Order `names` so that every link points forward.

    Returns:
        The order, stable with respect to `names`, or None where the links form a cycle.
    """
    links = tuple(links)
    sources = {name: {a for a, b in links if b == name} for name in names}
    order: list[Name] = []
    placed: set[Name] = set()
    while len(order) < len(names):
        ready = [name for name in names if name not in placed and sources[name] <= placed]
        if not ready:
            return None
        order += ready
        placed |= set(ready)
    return tuple(order)


def reachable(starts: Iterable[str], links: Iterable[Link]) -> set[str]:
    """All names that can be reached from `starts` along the links, `starts` included."""
    links = tuple(links)
    found = set(starts)
    frontier = set(found)
    while frontier:
        frontier = {b for a, b in links if a in frontier} - found
        found |= frontier
    return found


def distances(target: str, links: Iterable[Link]) -> Mapping[str, int]:
    """Number of links on the shortest path from each name to `target`; names without a path are left out."""
    links = tuple(links)
    found = {target: 0}
    frontier = {target}
    while frontier:
        nearer = {a for a, b in links if b in frontier} - set(found)
        found |= {a: 1 + min(found[b] for s, b in links if s == a and b in frontier) for a in nearer}
        frontier = nearer
    return found


def colouring(names: Sequence[str], links: Iterable[Link]) -> tuple[tuple[str, ...], ...]:
    """Group `names` so that no two linked names share a group (greedy, in the given order).

    A chain gives two groups (even and odd); a skip connection makes a triangle and needs three.

    Raises:
        GraphError: a name is linked to itself, so that no colouring exists.
    """
    links = tuple(links)
    groups: list[list[str]] = []
    for name in names:
        near = {b for a, b in links if a == name} | {a for a, b in links if b == name}
        if name in near:
            raise GraphError(f"node {name!r} has an edge to itself: it cannot be updated as a block of its own")
        free = next((group for group in groups if not near & set(group)), None)
        if free is None:
            groups.append([name])
        else:
            free.append(name)
    return tuple(tuple(group) for group in groups)
