"""The step that a directed net's own losses allow."""

from energax.solvers.gradient_flow import AbstractStepBound


class SafeStep(AbstractStepBound):
    """As long a step as the dynamics knows to be stable: certificates hold for it, and nothing is measured.

    Raises:
        SettingError: a dynamics that knows none.
    """

    def limit(self, view, point):
        """The dynamics' own."""
        return view.phase.dynamics.safe_step(view.phase)

    def calibrate(self, view, point):
        """Nothing is held."""
        return self
