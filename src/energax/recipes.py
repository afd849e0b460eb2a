"""Recipes: named combinations of the five nouns with settings that work, each setting open to change."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import jax
import optax
import tyro

from energax import networks, rules
from energax.activations import AbstractActivation, Tanh, hard_sigmoid
from energax.coordinates import AbstractCoordinates, ErrorCoordinates, SpanCoordinates, StateCoordinates
from energax.costs import CrossEntropy, SquaredError
from energax.dynamics import AbstractDynamics
from energax.energies import Hopfield, PredictiveCoding
from energax.errors import SettingError
from energax.graph import Graph
from energax.layers import average, maximum
from energax.rules import AbstractRule
from energax.solvers import AbstractSolver, ConjugateGradient, FixedPoint, GradientFlow, Stopping
from energax.training import Learner
from energax.training.learner import root_key


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a recipe can be told. What is left out is the recipe's own choice; `settled` fills it in."""

    network: Annotated[Literal["mlp", "conv", "residual"] | None, tyro.conf.arg(help="kind of network")] = None
    hidden: Annotated[tuple[int, ...] | None, tyro.conf.arg(help="units of the hidden layers of an mlp")] = None
    channels: Annotated[tuple[int, ...] | None, tyro.conf.arg(help="channels of a conv or residual net")] = None
    pool: Annotated[
        Literal["stride", "average", "maximum"] | None, tyro.conf.arg(help="how a conv net halves its images")
    ] = None
    gain: Annotated[float | None, tyro.conf.arg(help="initial weights are U(+-gain / sqrt(fan_in))")] = None
    optimiser: Annotated[Literal["sgd", "adam"] | None, tyro.conf.arg(help="optimiser of the parameters")] = None
    learning_rate: Annotated[float | None, tyro.conf.arg(help="its learning rate")] = None
    momentum: Annotated[float | None, tyro.conf.arg(help="its momentum (sgd)")] = None
    beta: Annotated[float | None, tyro.conf.arg(help="nudge strength")] = None
    points: Annotated[int | None, tyro.conf.arg(help="nudge strengths of ep-holomorphic")] = None
    gamma: Annotated[float | None, tyro.conf.arg(help="feedback scale of chl")] = None
    solver: Annotated[
        Literal["errors", "flow", "blocks"] | None,
        tyro.conf.arg(
            help="errors: conjugate gradients on the prediction errors (fast); flow: gradient flow of the states, a "
            "local neural dynamics; blocks: exact minimisation block after block"
        ),
    ] = None
    tol: Annotated[float | None, tyro.conf.arg(help="relative residual at which a sample has converged")] = None
    steps: Annotated[int | None, tyro.conf.arg(help="most relaxation steps (ipc: steps per batch)")] = None
    step_size: Annotated[
        float | None, tyro.conf.arg(help="flow: nominal step of the states; the measured curvature bounds it")
    ] = None
    state_momentum: Annotated[float | None, tyro.conf.arg(help="flow: momentum of the states")] = None
    batch: Annotated[int | None, tyro.conf.arg(help="rows per update")] = None
    standardise: Annotated[
        bool | None, tyro.conf.arg(help="normalise pixels per channel instead of leaving them in [0, 1]")
    ] = None


COMMON = Settings(
    network="mlp",
    channels=(8, 16),
    pool="stride",
    gain=1.0,
    optimiser="sgd",
    learning_rate=0.05,
    momentum=0.9,
    solver="errors",
    tol=5e-3,
    steps=400,
    step_size=1.0,
    state_momentum=0.8,
    batch=64,
    standardise=False,
)


Chosen = Any
"""`Settings` after `settled`: nothing that the recipe reads is None, which their type cannot say."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A named algorithm.

    Attributes:
        summary: one line for help texts.
        defaults: its settings, where they differ from `COMMON`.
        build: `(settings, shape, classes, key) -> Learner`.
        epochs: how long it is customarily trained.
    """

    summary: str
    defaults: Settings
    build: Callable[[Chosen, Sequence[int], int, jax.Array], Learner]
    epochs: int = 5


POSITIVE = (lambda value: 0 < value < math.inf, "give a positive number")
BELOW_ONE = (lambda value: 0 <= value < 1, "give a number from 0 to below 1")
COUNT = (lambda value: value >= 1, "give a whole number of at least 1")
COUNTS = (lambda values: all(value >= 1 for value in values), "give whole numbers of at least 1")

RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "network": (("mlp", "conv", "residual").__contains__, "give mlp, conv or residual"),
    "pool": (("stride", "average", "maximum").__contains__, "give stride, average or maximum"),
    "solver": (("errors", "flow", "blocks").__contains__, "give errors, flow or blocks"),
    "optimiser": (("sgd", "adam").__contains__, "give sgd or adam"),
    "hidden": COUNTS,
    "channels": COUNTS,
    "steps": COUNT,
    "batch": COUNT,
    "gain": POSITIVE,
    "learning_rate": POSITIVE,
    "step_size": POSITIVE,
    "momentum": BELOW_ONE,
    "state_momentum": BELOW_ONE,
    "tol": (lambda value: 0 <= value < math.inf, "give a number of at least 0"),
}


def require_ranges(settings: Chosen) -> None:
    """Refuse settings out of range before anything is built from them."""
    for name, (holds, remedy) in RANGES.items():
        value = getattr(settings, name)
        if value is not None and not holds(value):
            raise SettingError(f"{name}={value}: {remedy}")


@functools.cache
def optimiser_of(name: str | None, learning_rate: float, momentum: float | None) -> optax.GradientTransformation:
    """The optax optimiser; the same object for the same settings, so that another seed does not compile again."""
    return optax.adam(learning_rate) if name == "adam" else optax.sgd(learning_rate, momentum=momentum)


def graph_of(settings: Chosen, shape: Sequence[int], classes: int, key, activation, output_state: bool) -> Graph:
    """The network."""
    options = {"output_state": output_state, "gain": settings.gain, "key": key}
    if settings.network == "conv":
        pool = {"stride": None, "average": average, "maximum": maximum}[settings.pool or "stride"]
        return networks.convolutional(shape, settings.channels or (), classes, activation, pool=pool, **options)
    if settings.network == "residual":
        return networks.residual(shape, settings.channels or (), classes, activation, **options)
    units = shape[0] * shape[1] * shape[2]
    return networks.mlp([units, *(settings.hidden or ()), classes], activation, shape=shape, **options)


def solver_of(settings: Chosen) -> AbstractSolver:
    """The solver, stopped at the settings' tolerance."""
    stop = Stopping(settings.tol, settings.steps)
    if settings.solver == "errors":
        return ConjugateGradient(Stopping(settings.tol, settings.steps, check_every=1), ErrorCoordinates())
    if settings.solver == "blocks":
        return FixedPoint(stop=stop)
    return flow(settings, SpanCoordinates())


def flow(settings: Chosen, coordinates: AbstractCoordinates) -> AbstractSolver:
    """Gradient flow with momentum, its step bounded by the measured curvature."""
    return GradientFlow(
        step_size=settings.step_size,
        momentum=settings.state_momentum or None,
        stop=Stopping(settings.tol, settings.steps),
        coordinates=coordinates,
    )


def single_steps(settings: Chosen) -> AbstractSolver:
    """Gradient flow for rules that take its steps one by one: a span would cost more than a step gains from it."""
    if settings.solver != "flow":
        raise SettingError(f"solver={settings.solver}: this recipe takes single steps of the states; give flow")
    return flow(settings, StateCoordinates())


def predictive(rule: Callable[[Chosen], AbstractRule], solver: Callable[[Chosen], AbstractSolver] = solver_of):
    """Predictive coding with a direct softmax output and ReLU units, under a rule made from the settings."""

    def build(settings: Chosen, shape, classes, key) -> Learner:
        graph = graph_of(settings, shape, classes, key, jax.nn.relu, output_state=False)
        return Learner(
            graph,
            PredictiveCoding(CrossEntropy()),
            solver(settings),
            rule(settings),
            optimiser_of(settings.optimiser, settings.learning_rate or 0.0, settings.momentum),
        )

    return build


def hopfield(
    rule: Callable[[Chosen], AbstractRule],
    dynamics: Callable[[Chosen], AbstractDynamics],
    activation: Callable[[], AbstractActivation] = hard_sigmoid,
):
    """A Hopfield energy with a linear output, settled by exact alternating blocks; states in [0, 1] by default."""

    def build(settings: Chosen, shape, classes, key) -> Learner:
        graph = graph_of(settings, shape, classes, key, activation(), output_state=True)
        return Learner(
            graph,
            dynamics(settings),
            solver_of(settings),
            rule(settings),
            optimiser_of(settings.optimiser, settings.learning_rate or 0.0, settings.momentum),
        )

    return build


def plain(settings: Chosen) -> AbstractDynamics:
    """Symmetric feedback."""
    return Hopfield(SquaredError())


def weak(settings: Chosen) -> AbstractDynamics:
    """Feedback scaled by gamma."""
    if settings.gamma is None or not 0 < settings.gamma <= 1:
        raise SettingError(f"gamma={settings.gamma}: the feedback scale must be in (0, 1]")
    return Hopfield(SquaredError(), settings.gamma)


SMALL = Settings(hidden=(128, 64))
EP = Settings(hidden=(512,), solver="blocks", learning_rate=0.02, gain=0.7, beta=0.2, tol=1e-2, steps=60)

RECIPES: dict[str, Recipe] = {
    "backprop": Recipe("backpropagation through the feed-forward pass", SMALL, predictive(lambda s: rules.Backprop())),
    "pc": Recipe(
        "predictive coding: gradient at the beta = 1 equilibrium",
        SMALL,
        predictive(lambda s: rules.Contrastive(rules.clamped())),
    ),
    "ipc": Recipe(
        "incremental predictive coding: a parameter step after every relaxation step",
        dataclasses.replace(SMALL, solver="flow", steps=8, step_size=0.3, state_momentum=0.0, learning_rate=0.02),
        predictive(lambda s: rules.Incremental(s.steps or 1), single_steps),
    ),
    "pc-nudge": Recipe(
        "predictive coding with a weak nudge: backprop's gradient by local learning",
        dataclasses.replace(SMALL, beta=1e-3),
        predictive(lambda s: rules.Contrastive(rules.nudge(s.beta))),
    ),
    "first-step": Recipe(
        "the first relaxation step in error coordinates: exactly backprop's gradient",
        SMALL,
        predictive(lambda s: rules.FirstStep()),
    ),
    "ep": Recipe(
        "equilibrium propagation, centred nudging",
        EP,
        hopfield(lambda s: rules.Contrastive(rules.centred(s.beta)), plain),
        epochs=10,
    ),
    "ep-one-sided": Recipe(
        "equilibrium propagation, one-sided nudging",
        EP,
        hopfield(lambda s: rules.Contrastive(rules.one_sided(s.beta)), plain),
        epochs=10,
    ),
    "ep-holomorphic": Recipe(
        "equilibrium propagation, complex nudging with N points (tanh units)",
        dataclasses.replace(EP, points=4, hidden=(128,), learning_rate=0.05),
        hopfield(lambda s: rules.Contrastive(rules.holomorphic(s.beta, s.points)), plain, Tanh),
    ),
    "chl": Recipe(
        "contrastive Hebbian learning with weak feedback: the output clamped",
        dataclasses.replace(EP, gamma=0.3),
        hopfield(lambda s: rules.ContrastiveHebbian(), weak),
        epochs=10,
    ),
}


def settled(name: str, given: Settings | None = None) -> tuple[Recipe, Settings]:
    """A recipe by name, and its settings with the given ones on top.

    Raises:
        SettingError: an unknown recipe (the message lists the known ones), or a setting out of its range.
    """
    if name not in RECIPES:
        raise SettingError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    chosen: dict = {}
    for layer in (COMMON, recipe.defaults, given or Settings()):
        chosen |= {key: value for key, value in vars(layer).items() if value is not None}
    complete = Settings(**chosen)
    require_ranges(complete)
    return recipe, complete


def make_learner(
    name: str, shape: Sequence[int], classes: int, *, seed: int = 0, settings: Settings | None = None
) -> tuple[Learner, Settings]:
    """Build a recipe's learner for images of `shape` (height, width, channels).

    Returns:
        The learner, and all settings that it was built with.
    """
    recipe, complete = settled(name, settings)
    key = jax.random.fold_in(root_key(seed), 2**31 - 1)
    return recipe.build(complete, shape, classes, key), complete
