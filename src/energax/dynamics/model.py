"""A network and how its states move: the one tree of parameters."""

from collections.abc import Collection

import equinox as eqx
import jax
from jaxtyping import PyTree

from energax.dynamics.base import AbstractDynamics
from energax.graph.groups import map_groups
from energax.graph.structure import AnyGraph


class Model(eqx.Module):
    """What is trained. Gradients have its structure, with None at what is no parameter.

    Attributes:
        graph: the network; every array of floating-point numbers in it is a parameter.
        dynamics: how states move; its parameters are the arrays of the fields that it declares `trainable`.
    """

    graph: AnyGraph
    dynamics: AbstractDynamics


def split_parameters(model: Model) -> tuple[Model, Model]:
    """The parameters, and everything else; `eqx.combine` puts them together again."""
    return eqx.partition(model, find_parameters(model))


def select_parameters(model: Model, frozen: Collection[str] = ()) -> Model:
    """The parameters of a model, or a gradient like it, None elsewhere and in the groups named in `frozen`."""
    parameters, _ = split_parameters(model)
    return map_groups(lambda name, leaf: None if name in frozen else leaf, parameters)


def find_parameters(model: Model) -> PyTree[bool]:
    """True at every array that is trained, with the structure of the model."""
    trainable = jax.tree.map(lambda _: False, model.dynamics)
    for name in model.dynamics.trainable:
        chosen = jax.tree.map(eqx.is_inexact_array, getattr(model.dynamics, name))
        trainable = eqx.tree_at(lambda d, name=name: getattr(d, name), trainable, chosen)
    return Model(jax.tree.map(eqx.is_inexact_array, model.graph), trainable)


def name_parts(model: Model) -> dict[str, PyTree]:
    """Name -> part of a model or of a gradient: the graph's functions, and what the dynamics trains."""
    functions = model.graph.functions
    named = functions if isinstance(functions, dict) else {"functions": functions}
    return {**named, **{name: getattr(model.dynamics, name) for name in model.dynamics.trainable}}
