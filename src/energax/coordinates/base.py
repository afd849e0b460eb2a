"""What every system of coordinates offers a solver: a chart of one phase."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.phase import Phase
from energax.structure import States

Point = PyTree
"""Coordinates of all free states: a pytree of arrays, batch first."""


class AbstractChart(eqx.Module):
    """One phase in coordinates of its own.

    Attributes:
        phase: the phase; residuals, work and verdicts are always measured in its states.
    """

    phase: eqx.AbstractVar[Phase]

    @abc.abstractmethod
    def states(self, point: Point) -> States:
        """The free nodes' states at a point."""

    @abc.abstractmethod
    def force(self, point: Point) -> Point:
        """How the point moves: the phase's own force, or -dF/dpoint where the coordinates say so."""

    @abc.abstractmethod
    def model(self, point: Point) -> tuple[Point, Callable[[Point], Array]]:
        """`(force, curvature)` at a point, where `curvature(d)` is d^T H d of F per sample, shape `(batch,)`."""

    @abc.abstractmethod
    def dot(self, a: Point, b: Point) -> Array:
        """Inner product of two directions, per sample, shape `(batch,)`."""

    def norm(self, a: Point) -> Array:
        """Length of a direction, per sample, shape `(batch,)`."""
        return jnp.sqrt(jnp.maximum(self.dot(a, a), 0))


class AbstractCoordinates(eqx.Module):
    """Says where to move; never what an equilibrium is."""

    @abc.abstractmethod
    def chart(self, phase: Phase, start: States) -> tuple[AbstractChart, Point]:
        """The chart of a phase around `start`, and the point at which `start` lies."""


def linearised(chart: AbstractChart, point: Point) -> tuple[Point, Callable[[Point], Array]]:
    """The model of a chart whose force is the gradient of F under its inner product: one linearisation."""
    force, tangent = jax.linearize(chart.force, point)
    return force, lambda direction: -chart.dot(direction, tangent(direction))
