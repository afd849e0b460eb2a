"""What every system of coordinates offers a solver: a chart of one phase."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.phase import Phase
from energax.structure import States

Point = PyTree
"""Coordinates of all free states: a pytree of arrays, batch first."""


class Model(NamedTuple):
    """F around a point.

    Attributes:
        energy: F per sample, shape `(batch,)`.
        force: -dF/dpoint.
        curvature: `d -> d^T H d` per sample, shape `(batch,)`, of F or of an approximation of it.
    """

    energy: Array
    force: Point
    curvature: Callable[[Point], Array]


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
    def model(self, point: Point) -> Model:
        """F and its derivatives at a point."""

    @abc.abstractmethod
    def dot(self, a: Point, b: Point) -> Array:
        """Inner product of two directions, per sample, shape `(batch,)`."""

    @abc.abstractmethod
    def probe(self, point: Point) -> tuple["AbstractChart", Point]:
        """Where the largest curvature is measured for a step bound: here, or in a chart that shows it sooner."""

    def norm(self, a: Point) -> Array:
        """Length of a direction, per sample, shape `(batch,)`."""
        return jnp.sqrt(jnp.maximum(self.dot(a, a), 0))


class AbstractCoordinates(eqx.Module):
    """Says where to move; never what an equilibrium is."""

    @abc.abstractmethod
    def chart(self, phase: Phase, start: States) -> tuple[AbstractChart, Point]:
        """The chart of a phase around `start`, and the point at which `start` lies."""


def linearised(chart: AbstractChart, point: Point) -> Model:
    """The model of a chart whose force is the gradient of F under its inner product: one linearisation."""
    force, tangent = jax.linearize(chart.force, point)
    energy = jnp.real(chart.phase.energy(chart.states(point)))
    return Model(energy, force, lambda direction: -chart.dot(direction, tangent(direction)))
