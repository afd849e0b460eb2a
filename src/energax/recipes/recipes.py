"""Recipes: named combinations of the five nouns with settings that work, each setting open to change."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp

from energax import rules
from energax.activations import AbstractActivation, Tanh, hard_sigmoid, rectifier
from energax.checking import find_named
from energax.costs import CrossEntropy, SquaredError
from energax.dynamics import BalancedFeedback, Hopfield, PredictiveCoding, SkewFeedback
from energax.dynamics.base import AbstractDynamics
from energax.exceptions import SettingError
from energax.optimisers import OPTIMISERS
from energax.recipes.directed import make_additive, make_flow_network
from energax.recipes.graphs import graph_of
from energax.recipes.parts import frozen_of, make_single_steps, make_unused_solver, optimiser_of, solver_of
from energax.recipes.settings import COMMON, Chosen, Reader, Settings, require_ranges
from energax.rules import AbstractRule
from energax.solvers import AbstractSolver
from energax.training import Learner
from energax.training.learner import root_key


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


def make_predictive(
    rule: Callable[[Chosen], AbstractRule],
    solver: Callable[[Chosen], AbstractSolver] = solver_of,
    dynamics: Callable[[Chosen], AbstractDynamics] = lambda settings: PredictiveCoding(CrossEntropy()),
):
    """Predictive coding with a direct softmax output, under a rule made from the settings."""

    def build(settings: Chosen, shape, classes, key) -> Learner:
        units = {"rectifier": jax.nn.relu, "tanh": jnp.tanh, "hard-sigmoid": hard_sigmoid()}[settings.activation]
        graph = graph_of(settings, shape, classes, key, units, output_state=False)
        return Learner(
            graph,
            dynamics(settings),
            solver(settings),
            rule(settings),
            optimiser_of(settings),
            freeze=frozen_of(settings),
        )

    return build


def make_activation(settings: Chosen) -> AbstractActivation:
    """The activation of a Hopfield net by its name."""
    return {"hard-sigmoid": hard_sigmoid, "rectifier": rectifier, "tanh": Tanh}[settings.activation]()


def tanh(settings: Chosen) -> AbstractActivation:
    """An analytic one, for complex nudges."""
    return Tanh()


def make_hopfield(
    rule: Callable[[Chosen], AbstractRule],
    dynamics: Callable[[Chosen], AbstractDynamics],
    activation: Callable[[Chosen], AbstractActivation] = make_activation,
):
    """A Hopfield energy with a linear output, settled by exact alternating blocks; states in [0, 1] by default."""

    def build(settings: Chosen, shape, classes, key) -> Learner:
        graph = graph_of(settings, shape, classes, key, activation(settings), output_state=True)
        return Learner(
            graph,
            dynamics(settings),
            solver_of(settings),
            rule(settings),
            optimiser_of(settings),
            freeze=frozen_of(settings),
        )

    return build


def make_hopfield_dynamics(settings: Chosen) -> AbstractDynamics:
    """Feedback scaled by gamma; symmetric where that is left out."""
    return Hopfield(SquaredError(), settings.gamma)


SMALL = Settings(hidden=(128, 64), activation="rectifier")
BIDIRECTIONAL = dataclasses.replace(SMALL, solver="flow", feedback=0.3, relaxation_tol=1e-2, max_relaxation_steps=200)
EP = Settings(
    hidden=(512,), solver="blocks", learning_rate=0.02, gain=0.7, beta=0.2, relaxation_tol=1e-2, max_relaxation_steps=60
)
DIRECTED = Settings(
    hidden=(256, 64),
    activation="tanh",
    solver="certified-flow",
    optimiser="adam",
    learning_rate=1e-3,
    beta=0.1,
    leak=1.0,
    feedback_radius=0.9,
    feedback_gain=1.0,
    homeostasis=0.0,
    relaxation_tol=1e-2,
    max_relaxation_steps=300,
    check_every=5,
)

RECIPES: dict[str, Recipe] = {
    "backprop": Recipe(
        "backpropagation through the feed-forward pass",
        SMALL,
        make_predictive(lambda s: rules.Backprop(), make_unused_solver),
    ),
    "pc": Recipe(
        "predictive coding: gradient at the beta = 1 equilibrium",
        dataclasses.replace(SMALL, relaxation_tol=1e-3),  # near a kink of a trained net, 5e-3 left 3 % of the gradient
        make_predictive(lambda s: rules.Contrastive(rules.unit_nudge())),
    ),
    "ipc": Recipe(
        "incremental predictive coding: a parameter step after every relaxation step",
        dataclasses.replace(
            SMALL, solver="flow", max_relaxation_steps=8, step_size=0.3, state_momentum=0.0, learning_rate=0.02
        ),
        make_predictive(lambda s: rules.Incremental(s.fixed_steps or s.max_relaxation_steps), make_single_steps),
    ),
    "pc-nudge": Recipe(
        "predictive coding with a weak nudge: backprop's gradient by local learning",
        dataclasses.replace(SMALL, beta=1e-3),
        make_predictive(lambda s: rules.Contrastive(rules.nudge(s.beta))),
    ),
    "bipc": Recipe(
        "bidirectional predictive coding with skew feedback: gradient at the beta = 1 equilibrium, by local steps",
        BIDIRECTIONAL,
        make_predictive(lambda s: rules.Contrastive(rules.unit_nudge()), dynamics=lambda s: SkewFeedback(s.feedback)),
    ),
    "bipc-balanced": Recipe(
        "bidirectional predictive coding with balanced feedback",
        BIDIRECTIONAL,
        make_predictive(
            lambda s: rules.Contrastive(rules.unit_nudge()), dynamics=lambda s: BalancedFeedback(s.feedback)
        ),
    ),
    "first-step": Recipe(
        "the first relaxation step in error coordinates: exactly backprop's gradient",
        SMALL,
        make_predictive(lambda s: rules.FirstStep(), make_unused_solver),
    ),
    "ep": Recipe(
        "equilibrium propagation, centred nudging",
        EP,
        make_hopfield(lambda s: rules.Contrastive(rules.centred(s.beta)), make_hopfield_dynamics),
        epochs=10,
    ),
    "ep-one-sided": Recipe(
        "equilibrium propagation, one-sided nudging",
        EP,
        make_hopfield(lambda s: rules.Contrastive(rules.one_sided(s.beta)), make_hopfield_dynamics),
        epochs=10,
    ),
    "ep-holomorphic": Recipe(
        "equilibrium propagation, complex nudging with N points (tanh units)",
        dataclasses.replace(EP, nudge_points=4, hidden=(128,), learning_rate=0.05),
        make_hopfield(
            lambda s: rules.Contrastive(rules.holomorphic(s.beta, s.nudge_points)), make_hopfield_dynamics, tanh
        ),
    ),
    "chl": Recipe(
        "contrastive Hebbian learning with weak feedback: the output clamped",
        dataclasses.replace(EP, gamma=0.3),
        make_hopfield(lambda s: rules.ContrastiveHebbian(), make_hopfield_dynamics),
        epochs=10,
    ),
    "deep": Recipe(
        "directed EP in a leaky flow network (DEEP), certified, by the consistent local rule",
        dataclasses.replace(DIRECTED, hidden=(64,), activation=None, leak=0.5),
        make_flow_network(lambda s: rules.VectorFieldRule(s.beta)),
        epochs=10,
    ),
    "vf-ep": Recipe(
        "vector-field EP in a directed additive net, certified: what activities answer to a nudge",
        dataclasses.replace(DIRECTED, homeostasis=1.0),
        make_additive(lambda s: rules.VectorFieldRule(s.beta)),
        epochs=10,
    ),
    "asym-ep": Recipe(
        "directed EP in an additive net, certified, its nudged phase corrected to give the exact gradient",
        DIRECTED,
        make_additive(lambda s: rules.AsymEP(s.beta)),
        epochs=10,
    ),
}
"""Every recipe by name, in the order of `energax recipes`."""


FEEDING = ("batch", "standardise")
"""Settings that are read by whoever feeds the learner."""


def complete_settings(name: str, given: Settings | None = None) -> tuple[Recipe, Settings]:
    """A recipe by name, and its settings with the given ones on top.

    Raises:
        SettingError: an unknown recipe (the message lists the known ones), or a setting out of its range.
    """
    recipe = find_named("recipe", name, RECIPES)
    given = given or Settings()
    require_ranges(given)
    chosen: dict = {}
    for layer in (COMMON, recipe.defaults, given):
        chosen |= {key: value for key, value in vars(layer).items() if value is not None}
    if given.optimiser is not None and given.learning_rate is None:
        rate = OPTIMISERS[given.optimiser].rate
        if rate is not None:
            chosen["learning_rate"] = rate  # the recipe's own is one of gradient descent
    if chosen.get("fixed_steps") is not None:
        if given.solver is None:
            chosen["solver"] = "flow"
        if chosen["state_optimiser"] == "sgd" and given.state_momentum is None:
            chosen["state_momentum"] = 0.0  # the recipe's own is for steps that are bounded and tested
    return recipe, Settings(**chosen)


def build(name: str, shape: Sequence[int], classes: int, key, given: Settings | None) -> tuple[Learner, Settings]:
    """A recipe's learner, and the settings that were read to build or to feed it."""
    recipe, complete = complete_settings(name, given)
    reader = Reader(complete, already=FEEDING)
    return recipe.build(reader, shape, classes, key), reader.only_read()


def settings_read(name: str, shape: Sequence[int], classes: int, given: Settings | None = None) -> Settings:
    """What a recipe reads for images of `shape`, with the given settings on top; the rest is None. Computes nothing."""
    return eqx.filter_eval_shape(build, name, tuple(shape), classes, jax.random.key(0), given)[1]


def count_parameter_bytes(name: str, shape: Sequence[int], classes: int, given: Settings | None = None) -> int:
    """Bytes of the parameters of a recipe's network; arguments as of `settings_read`. Computes nothing."""
    learner = eqx.filter_eval_shape(build, name, tuple(shape), classes, jax.random.key(0), given)[0]
    leaves = [leaf for leaf in jax.tree.leaves(learner.graph) if isinstance(leaf, jax.ShapeDtypeStruct)]
    return sum(leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in leaves)


def make_learner(
    name: str, shape: Sequence[int], classes: int, *, seed: int = 0, settings: Settings | None = None
) -> tuple[Learner, Settings]:
    """Build a recipe's learner for images of `shape` (height, width, channels).

    Returns:
        The learner, and all settings that it was built with; None for those that it does not read.

    Raises:
        SettingError: an unknown recipe, a setting out of its range, or one that the recipe does not read.
    """
    learner, read = build(name, shape, classes, jax.random.fold_in(root_key(seed), 2**31 - 1), settings)
    for setting, value in vars(settings or Settings()).items():
        if value is not None and getattr(read, setting) is None:
            known = ", ".join(name for name, value in vars(read).items() if value is not None)
            raise SettingError(f"{setting}={value}: {name} with these settings does not read it; it reads {known}")
    return learner, read
