"""The step that a directed net's own losses allow."""

from energax.solvers.engine import Stopping
from energax.solvers.gradient_flow import AbstractStepBound, GradientFlow

LONG = 1e9  # the step is the bound


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


def certified_flow(stop: Stopping | None = None) -> GradientFlow:
    """Plain steps of a directed net, as long as its certificates hold for (`SafeStep`).

    Args:
        stop: the stopping rule; left out: that of `GradientFlow`.
    """
    return GradientFlow(step_size=LONG, bound=SafeStep(), stop=Stopping() if stop is None else stop)
