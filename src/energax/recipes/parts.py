"""What recipes are put together from: the optimiser, the frozen functions and the solver that settings stand for."""

from collections.abc import Callable

import optax

from energax.exceptions import SettingError
from energax.optimisers import OPTIMISERS, make_optimiser
from energax.recipes.settings import Chosen
from energax.solvers import (
    AbstractSolver,
    ConjugateGradient,
    FixedPoint,
    GradientFlow,
    Stopping,
    certified_flow,
    fixed_steps,
)
from energax.solvers.coordinates import ErrorCoordinates


def optimiser_of(settings: Chosen) -> optax.GradientTransformation:
    """The optimiser by its name, made of the settings that it reads."""
    own = {name: getattr(settings, name) for name in OPTIMISERS[settings.optimiser].reads}
    return make_optimiser(
        settings.optimiser,
        settings.learning_rate,
        decay_steps=settings.lr_decay_steps,
        clip=settings.clip,
        **own,
    )


def frozen_of(settings: Chosen) -> tuple[str, ...]:
    """The functions that stay as they are."""
    names = settings.freeze or ""
    return tuple(name.strip() for name in names.split(",") if name.strip())


def make_cg_errors(settings: Chosen) -> AbstractSolver:
    """Conjugate gradients on the prediction errors, tested after every step."""
    return ConjugateGradient(
        Stopping(settings.relaxation_tol, settings.max_relaxation_steps, check_every=1), ErrorCoordinates()
    )


def make_cg_states(settings: Chosen) -> AbstractSolver:
    """Conjugate gradients on the states, tested after every step."""
    return ConjugateGradient(Stopping(settings.relaxation_tol, settings.max_relaxation_steps, check_every=1))


def make_blocks(settings: Chosen) -> AbstractSolver:
    """Exact minimisation block after block."""
    return FixedPoint(stop=Stopping(settings.relaxation_tol, settings.max_relaxation_steps, settings.check_every))


def make_flow(settings: Chosen) -> AbstractSolver:
    """Gradient flow of the states with momentum, its step bounded by the measured curvature; or papers' fixed steps."""
    if settings.fixed_steps is not None:
        return fixed_steps(settings.fixed_steps, make_state_step(settings), tol=settings.relaxation_tol)
    return GradientFlow(
        step_size=settings.step_size,
        momentum=settings.state_momentum or None,
        stop=Stopping(settings.relaxation_tol, settings.max_relaxation_steps),
    )


def make_state_step(settings: Chosen) -> float | optax.GradientTransformation:
    """What one of the fixed steps does: a number for plain steps, else a transformation."""
    name, size = settings.state_optimiser, settings.step_size
    if "momentum" not in OPTIMISERS[name].reads:
        return make_optimiser(name, size)
    momentum = settings.state_momentum
    return make_optimiser(name, size, momentum=momentum) if momentum > 0 else size


def make_certified_flow(settings: Chosen) -> AbstractSolver:
    """Plain steps of directed nets, as long as certificates hold for; tested now and then."""
    stop = Stopping(settings.relaxation_tol, settings.max_relaxation_steps, settings.check_every)
    return certified_flow(stop)


SOLVERS: dict[str, Callable[[Chosen], AbstractSolver]] = {
    "cg-errors": make_cg_errors,
    "cg-states": make_cg_states,
    "flow": make_flow,
    "blocks": make_blocks,
    "certified-flow": make_certified_flow,
}
"""Name of a setting -> the solver that it stands for."""


def solver_of(settings: Chosen) -> AbstractSolver:
    """The solver by its name, stopped at the settings' tolerance."""
    if settings.fixed_steps is not None and settings.solver != "flow":
        raise SettingError(
            f"solver={settings.solver}: fixed_steps are steps of gradient flow; leave the solver out, or give flow"
        )
    return SOLVERS[settings.solver](settings)


def make_unused_solver(settings: Chosen) -> AbstractSolver:
    """For rules that settle nothing: any solver, of which no setting is read."""
    return ConjugateGradient(coordinates=ErrorCoordinates())


def make_single_steps(settings: Chosen) -> AbstractSolver:
    """Gradient flow, for rules that take its steps one by one."""
    if settings.solver != "flow":
        raise SettingError(f"solver={settings.solver}: this recipe takes single steps of the states; give flow")
    return make_flow(settings)
