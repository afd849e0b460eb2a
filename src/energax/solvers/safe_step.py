"""The step that a directed net's own losses allow."""

from energax.solvers.gradient_flow import AbstractStepBound


class SafeStep(AbstractStepBound):
    """As long a step as the dynamics knows to be stable; nothing is measured.

    Certificates hold for it, but for C4 on a flow network, which needs a shorter one (`Certificate.step`, to be given
    to `LeakyFlow`).

    Raises:
        SettingError: a dynamics that knows none.
    """

    def limit(self, view, point):
        """The dynamics' own."""
        return view.phase.dynamics.safe_step(view.phase)

    def calibrate(self, view, point):
        """Nothing is held."""
        return self
