"""The states themselves."""

from energax.dynamics.base import Start
from energax.dynamics.phase import Phase, dot
from energax.solvers.coordinates.base import AbstractChart, AbstractCoordinates, linearised


class StateCoordinates(AbstractCoordinates):
    """Move the states: for gradient flow a local neural dynamics."""

    def chart(self, phase, start):
        """The phase as it is."""
        return StateChart(phase), Start.at(start).states


class StateChart(AbstractChart):
    """A phase in its own states."""

    phase: Phase

    def states(self, point):
        """Return the point."""
        return point

    def force(self, point):
        """The phase's force."""
        return self.phase.force(point)

    def model(self, point):
        """By linearising the force."""
        return linearised(self, point)

    def dot(self, a, b):
        """Euclidean."""
        return dot(a, b)
