"""The states themselves."""

from energax.arithmetic import dot
from energax.dynamics.phase import Phase
from energax.solvers.coordinates.base import AbstractCoordinates, AbstractView, linearise


class StateCoordinates(AbstractCoordinates):
    """Move the states: for gradient flow a local neural dynamics."""

    def view(self, phase, start):
        """The phase as it is."""
        return StateView(phase), start.states


class StateView(AbstractView):
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
        return linearise(self, point)

    def dot(self, a, b):
        """Euclidean."""
        return dot(a, b)
