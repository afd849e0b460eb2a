"""Steps along the force by any optax transformation, and the fixed steps of papers."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from energax.checking import require_kind, tell
from energax.exceptions import SettingError
from energax.solvers.coordinates import AbstractCoordinates, StateCoordinates
from energax.solvers.engine import AbstractIteration, AbstractSolver, Stopping
from energax.solvers.gradient_flow import GradientFlow, Unbounded

REST_STEP, REST_MOMENTUM = 1.0, 0.8  # of the bounded flow that goes on to an equilibrium, as the recipes have it


class OptaxFlow(AbstractIteration):
    """v <- v + u, where u is what an optax transformation makes of the gradient -force(v).

    Every sample has a transformation of its own (`vmap`), so that one that clips or normalises by a norm over
    everything it is given does not make a sample depend on its batch. Nothing bounds the step, and nothing is taken
    back: what the transformation does is what happens. One without a decaying rate that normalises, as Adam, does not
    come to rest; so the equilibrium that the regime report compares with is settled by a bounded `GradientFlow`.

    Attributes:
        optimiser: any optax transformation of gradient and states alone, as `optax.adam(0.1)`. It is part of the
            program: another one, or the same made anew, compiles again.
        stop: the stopping rule.
        coordinates: where the steps are taken.

    Raises:
        SettingError: no optax transformation, or one that wants more than gradient and states.
    """

    optimiser: optax.GradientTransformation = eqx.field(static=True)
    stop: Stopping = eqx.field(default_factory=Stopping)
    coordinates: AbstractCoordinates = eqx.field(default_factory=StateCoordinates)

    def __check_init__(self):
        require_kind(
            "OptaxFlow: optimiser", self.optimiser, optax.GradientTransformation, "give one of optax, as optax.sgd(0.1)"
        )

    def init(self, view, point):
        """The transformation's own state, for every sample."""
        return jax.vmap(self.optimiser.init)(point)

    def step(self, view, point, carry):
        """One update of the states."""
        gradient = jax.tree.map(jnp.negative, view.force(point))
        updates, carry = jax.vmap(self.update)(gradient, carry, point)
        return optax.apply_updates(point, updates), carry

    def update(self, gradient: Any, carry: Any, point: Any) -> tuple[Any, Any]:
        """The transformation's update of one sample; one that wants more than it is given is refused."""
        try:
            return self.optimiser.update(gradient, carry, point)
        except TypeError as error:
            raise SettingError(
                f"OptaxFlow: the optimiser's update cannot work with gradient, state and states alone ({error}): give "
                "a transformation that needs no more, as optax.sgd(0.1) or optax.adam(0.1)"
            ) from error

    def tighten(self, tol, factor) -> AbstractSolver:
        """A bounded gradient flow with momentum of `factor` times the steps: an optimiser need not come to rest."""
        stop = self.stop.tighten(tol, factor)
        return GradientFlow(step_size=REST_STEP, momentum=REST_MOMENTUM, stop=stop, coordinates=self.coordinates)


def fixed_steps(
    steps: int,
    step: float | optax.GradientTransformation,
    *,
    tol: float = 1e-2,
    coordinates: AbstractCoordinates | None = None,
) -> AbstractIteration:
    """So many steps of the states and no more, as papers have it: no bound on the step, no test on the way.

    The verdict is of where the steps end; most samples are out of steps there, as was asked for.

    Args:
        steps: T, the number of steps of every relaxation.
        step: a number for plain steps v <- v + step * force(v) (Millidge et al. 2023, Eq. 1); or any optax
            transformation, as `optax.sgd(0.1, momentum=0.9)` or `optax.adam(0.1)`.
        tol: relative residual at which a sample counts as converged.
        coordinates: where the steps are taken; left out: in the states.

    Returns:
        A `GradientFlow` for a number (another one does not compile again), else an `OptaxFlow`.

    Raises:
        SettingError: no whole number of steps, a step that is not positive, or neither a number nor a transformation.

    Examples:
        >>> import optax
        >>> from energax.solvers import fixed_steps
        >>> fixed_steps(20, 0.1).stop.max_steps
        20
        >>> type(fixed_steps(20, optax.adam(0.1))).__name__
        'OptaxFlow'
    """
    stop = Stopping(tol, steps, check_every=0)
    where = StateCoordinates() if coordinates is None else coordinates
    if isinstance(step, optax.GradientTransformation):
        return OptaxFlow(optimiser=step, stop=stop, coordinates=where)
    if isinstance(step, str | type) or callable(step):
        raise SettingError(f"fixed_steps: step={tell(step)}: give a number, or an optax transformation")
    return GradientFlow(step_size=step, stop=stop, bound=Unbounded(), coordinates=where)
