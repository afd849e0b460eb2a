"""Recipes of directed nets, which stay certified while they train, but for what is frozen: that is not projected."""

from collections.abc import Callable, Sequence
from math import inf, prod

import jax.numpy as jnp
import optax

from energax import networks
from energax.activations import hard_sigmoid, rectifier
from energax.certificates import AbstractProjection, CapFeedback, KeepPositive, move_inside, project
from energax.dynamics import AbstractDynamics, LeakyDirected, LeakyFlow
from energax.graph.graph import Graph
from energax.recipes.parts import frozen_of, optimiser_of, solver_of
from energax.recipes.settings import Chosen
from energax.rules import AbstractRule, Homeostasis
from energax.training import Learner

MakeRule = Callable[[Chosen], AbstractRule]


def make_additive(rule: MakeRule):
    """Layers of leaky units with forward and feedback synapses of their own; feedback is capped."""

    def build(settings: Chosen, shape: Sequence[int], classes: int, key) -> Learner:
        units = {"rectifier": rectifier(), "tanh": jnp.tanh, "hard-sigmoid": hard_sigmoid()}[settings.activation]
        graph = make_layers(settings, shape, classes, units, key)
        capped = () if settings.feedback_radius == inf else (CapFeedback(settings.feedback_radius),)
        return assemble(settings, graph, LeakyDirected(leak=settings.leak), rule, capped)

    return build


def make_flow_network(rule: MakeRule):
    """A leaky flow network in layers; what flows among free units is never negative."""

    def build(settings: Chosen, shape: Sequence[int], classes: int, key) -> Learner:
        graph = make_layers(settings, shape, classes, None, key)
        return assemble(settings, graph, LeakyFlow(leak=settings.leak), rule, (KeepPositive(),))

    return build


def make_layers(settings: Chosen, shape: Sequence[int], classes: int, activation: Callable | None, key) -> Graph:
    """Forward and feedback weights of their own."""
    return networks.directed_mlp(
        [prod(shape), *settings.hidden, classes],
        activation,
        shape=shape,
        gain=settings.gain,
        feedback_gain=settings.feedback_gain,
        key=key,
    )


def assemble(
    settings: Chosen,
    graph: Graph,
    dynamics: AbstractDynamics,
    rule: MakeRule,
    projections: Sequence[AbstractProjection],
) -> Learner:
    """The learner, its net certified from the beginning where there are projections."""
    chosen, optimiser = rule(settings), optimiser_of(settings)
    if settings.homeostasis > 0:
        chosen = Homeostasis(chosen, settings.homeostasis)
    graph = move_inside(projections, dynamics, graph)
    if projections:
        optimiser = optax.chain(optimiser, project(projections, dynamics, graph))
    return Learner(graph, dynamics, solver_of(settings), chosen, optimiser, freeze=frozen_of(settings))
