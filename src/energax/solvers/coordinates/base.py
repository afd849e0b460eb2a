"""What every system of coordinates offers a solver: a view of one phase."""

import abc
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from energax.dynamics.base import Start
from energax.dynamics.phase import Phase
from energax.graph.parts import States
from energax.solvers.plane import minimise_quadratic

Point = PyTree
"""Coordinates of all free states: a pytree of arrays, batch first."""


class LocalModel(NamedTuple):
    """F around a point, with a linear map whose image of a step tells how F would change.

    Attributes:
        energy: F per sample, shape `(batch,)`.
        force: -dF/dpoint.
        image: what the map sends the point to: a pytree of arrays, batch first.
        push: direction -> how the image moves along it. The images of two points tell it of the step between them.
        least: `(directions, pushed) -> (z, gain)`: the step `sum_i z_i directions_i` that minimises the model, and the
            slope of F down it, shapes `(directions, batch)` and `(batch,)`.
    """

    energy: Array
    force: Point
    image: PyTree
    push: Callable[[Point], PyTree]
    least: Callable[[Sequence[Point], Sequence[PyTree]], tuple[Array, Array]]


class AbstractView(eqx.Module):
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
    def model(self, point: Point) -> LocalModel:
        """F and its derivatives at a point."""

    @abc.abstractmethod
    def dot(self, a: Point, b: Point) -> Array:
        """Inner product of two directions, per sample, shape `(batch,)`."""

    def energy(self, point: Point) -> Array:
        """F per sample, shape `(batch,)`; NaN for a dynamics without an energy."""
        return jnp.real(self.phase.energy(self.states(point)))

    def norm(self, a: Point) -> Array:
        """Length of a direction, per sample, shape `(batch,)`."""
        return jnp.sqrt(jnp.maximum(self.dot(a, a), 0))


class AbstractCoordinates(eqx.Module):
    """Says where to move; never what an equilibrium is."""

    @abc.abstractmethod
    def view(self, phase: Phase, start: Start) -> tuple[AbstractView, Point]:
        """The view of a phase around `start`, and the point at which `start` lies."""


def linearise(view: AbstractView, point: Point) -> LocalModel:
    """The quadratic model of a view whose force is -dF/dpoint under its inner product; the image is the force."""
    force, tangent = jax.linearize(view.force, point)

    def least(directions, pushed):
        slope = jnp.stack([-view.dot(force, direction) for direction in directions])
        z = minimise_quadratic(slope, -gram(view.dot, directions, pushed))
        return z, -jnp.sum(z * slope, axis=0)

    return LocalModel(view.energy(point), force, force, tangent, least)


def gram(product: Callable[[PyTree, PyTree], Array], left: Sequence[PyTree], right: Sequence[PyTree]) -> Array:
    """The symmetric matrix of inner products `<left_i, right_j>`, i >= j, shape `(directions, directions, batch)`."""
    entries = {(i, j): product(left[i], right[j]) for i in range(len(left)) for j in range(i + 1)}
    return jnp.stack([jnp.stack([entries[max(i, j), min(i, j)] for j in range(len(left))]) for i in range(len(left))])
