"""Optimisers by name: optax's, and those that trust a layer as far as its parameters are large.

Any optax transformation serves a `Learner`; these are the ones that recipes and the command line know by name.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from energax.checking import find_named
from energax.exceptions import SettingError
from energax.graph.groups import group_norms, scale_groups


def scale_by_group_trust_ratio(trust_coefficient: float = 1.0, eps: float = 0.0) -> optax.GradientTransformation:
    """U <- u * c |theta| / (|u| + eps), with one ratio per function of the graph and position of a `Stacked` one.

    optax's takes one ratio per array; here weights and biases of a layer share one. A group whose parameters or
    updates are all 0 is left as it is. Reference: You et al. 2017, Eq. 6.

    Args:
        trust_coefficient: c.
        eps: added to the norm of the updates.
    """

    def update(updates, state, params=None):
        if params is None:
            raise SettingError("a trust ratio needs the parameters: give them to update as its third argument")
        sizes, moves = group_norms(params), group_norms(updates)
        ratios = {
            name: jnp.where((sizes[name] == 0) | (move == 0), 1.0, trust_coefficient * sizes[name] / (move + eps))
            for name, move in moves.items()
        }
        return scale_groups(updates, ratios), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def lalr_factors(updates: PyTree, floors: dict[str, Array] | None = None) -> dict[str, Array]:
    """Name of a group -> H / |d|, H the harmonic mean of the norms |d| of all groups (Chen et al. 2025, Eq. 16).

    A group without a direction would make H, and so every step, 0: it is left out of the mean, and so is one whose
    norm is not above its floor, or no number. Their factor is 0, which is how to find them.

    Args:
        updates: a gradient or an optimiser's direction, with the structure of the graph or the model.
        floors: norms from which a group counts; 0 where left out.

    Returns:
        A factor per group, of the shapes of `group_norms`: one for every position of a `Stacked` function.
    """
    norms, floors = group_norms(updates), floors or {}
    counted, inverses = {}, {}
    for name, size in norms.items():
        floor = jnp.maximum(floors.get(name, 0), jnp.finfo(size.dtype).tiny)
        counted[name] = (size > floor) & jnp.isfinite(size)
        inverses[name] = jnp.where(counted[name], 1 / jnp.where(counted[name], size, 1), 0)
    # relative to the largest of them, so that no sum overflows
    largest = functools.reduce(jnp.maximum, (jnp.max(inverse) for inverse in inverses.values()))
    shares = {name: inverse / jnp.where(largest > 0, largest, 1) for name, inverse in inverses.items()}
    count = sum(jnp.sum(which) for which in counted.values())
    whole = sum(jnp.sum(share) for share in shares.values())
    return {name: count * share / jnp.where(whole > 0, whole, 1) for name, share in shares.items()}


def scale_by_lalr(
    direction: optax.GradientTransformation | None = None, floor: float = 0.0
) -> optax.GradientTransformation:
    """Layer-adaptive learning rates: u <- d H / |d|, every layer's step as long as every other's.

    H is the harmonic mean of the norms |d| of all groups: one per function of the graph, and one per position of a
    `Stacked` one. Without a direction the gradient itself is d, and there is no state; Adam's direction is what works
    at the paper's rate of .01. A layer without a gradient stands still, and leaves the others' steps alone:
    a training warns of it, and `lalr_factors` tells of any layer that is left out.

    Args:
        direction: what turns the gradient into d, as `optax.scale_by_adam()`.
        floor: groups whose gradient is below `floor` times the rounding of their parameters, eps |theta|, stand still.
            A gradient of prediction errors, differences of numbers of order 1, is lost in rounding there, while an
            optimiser that normalises would make a full step of it; backprop's has no such floor. 0: no floor.

    Reference: Chen et al. 2025, Eqs. 13 to 16.
    """
    inner = optax.identity() if direction is None else direction

    def update(updates, state, params=None):
        if floor and params is None:
            raise SettingError("a floor is relative to the parameters: give them to update as its third argument")
        turned, state = inner.update(updates, state, params)
        floors = {}
        if floor:
            sizes, moves = group_norms(params), group_norms(updates)
            lost = {name: move <= floor * jnp.finfo(move.dtype).eps * sizes[name] for name, move in moves.items()}
            floors = {name: jnp.where(is_lost, jnp.inf, 0) for name, is_lost in lost.items()}
        return scale_groups(turned, lalr_factors(turned, floors)), state

    return optax.GradientTransformation(inner.init, update)


Rate = float | optax.Schedule


def _decay(weight_decay: float) -> list[optax.GradientTransformation]:
    """weight_decay * theta added to what is there; nothing where it is 0."""
    return [optax.add_decayed_weights(weight_decay)] if weight_decay else []


def make_sgd(rate: Rate, momentum: float, weight_decay: float) -> list[optax.GradientTransformation]:
    """Gradient descent with momentum; the decay is part of the gradient."""
    return [*_decay(weight_decay), optax.sgd(rate, momentum=momentum)]


def make_nesterov(rate: Rate, momentum: float, weight_decay: float) -> list[optax.GradientTransformation]:
    """Gradient descent with Nesterov's momentum (Sutskever et al. 2013); the decay is part of the gradient."""
    return [*_decay(weight_decay), optax.sgd(rate, momentum=momentum, nesterov=True)]


def make_adam(rate: Rate, adam_eps: float, weight_decay: float) -> list[optax.GradientTransformation]:
    """Adam (Kingma & Ba 2015); the decay is part of the gradient."""
    return [*_decay(weight_decay), optax.adam(rate, eps=adam_eps)]


def make_adamw(rate: Rate, adam_eps: float, weight_decay: float) -> list[optax.GradientTransformation]:
    """Adam with the decay apart from the gradient (Loshchilov & Hutter 2019)."""
    return [optax.adamw(rate, eps=adam_eps, weight_decay=weight_decay)]


def make_lars(rate: Rate, momentum: float, weight_decay: float) -> list[optax.GradientTransformation]:
    """Gradient descent, each layer scaled by its trust ratio with the coefficient .001 (You et al. 2017)."""
    scale = [scale_by_group_trust_ratio(0.001), optax.scale_by_learning_rate(rate)]
    return [*_decay(weight_decay), *scale, optax.trace(momentum)]


def make_lamb(rate: Rate, adam_eps: float, weight_decay: float) -> list[optax.GradientTransformation]:
    """Adam, each layer scaled by its trust ratio, the decay apart from the gradient (You et al. 2020)."""
    ratio = scale_by_group_trust_ratio()
    return [optax.scale_by_adam(eps=adam_eps), *_decay(weight_decay), ratio, optax.scale_by_learning_rate(rate)]


def make_lalr(rate: Rate, adam_eps: float, weight_decay: float) -> list[optax.GradientTransformation]:
    """Adam's direction, every layer's step of one length (Chen et al. 2025); the decay is part of the gradient."""
    scale = scale_by_lalr(optax.scale_by_adam(eps=adam_eps))
    return [*_decay(weight_decay), scale, optax.scale_by_learning_rate(rate)]


@dataclasses.dataclass(frozen=True)
class OptimiserKind:
    """A row of the table.

    Attributes:
        make: from the learning rate and the settings that it reads to transformations, chained in this order.
        reads: names of these settings.
        rate: a customary learning rate; None where that is the rate of gradient descent, and so a matter of the task.
        of_layers: whether it takes norms of whole layers, which parameters have and states have not.
    """

    make: Callable[..., list[optax.GradientTransformation]]
    reads: tuple[str, ...]
    rate: float | None = None
    of_layers: bool = False


OPTIMISERS: dict[str, OptimiserKind] = {
    "sgd": OptimiserKind(make_sgd, ("momentum", "weight_decay")),
    "nesterov": OptimiserKind(make_nesterov, ("momentum", "weight_decay")),
    "adam": OptimiserKind(make_adam, ("adam_eps", "weight_decay"), 0.001),
    "adamw": OptimiserKind(make_adamw, ("adam_eps", "weight_decay"), 0.001),
    "lars": OptimiserKind(make_lars, ("momentum", "weight_decay"), of_layers=True),
    "lamb": OptimiserKind(make_lamb, ("adam_eps", "weight_decay"), 0.001, of_layers=True),
    "lalr": OptimiserKind(make_lalr, ("adam_eps", "weight_decay"), 0.003, of_layers=True),
}
"""Every optimiser by name."""

STATE_OPTIMISERS = tuple(name for name, kind in OPTIMISERS.items() if not kind.of_layers)
"""Those that can move the states of a relaxation too."""

DEFAULTS = {"momentum": 0.9, "weight_decay": 0.0, "adam_eps": 1e-8}
"""Settings of optimisers, where they are not given."""


@functools.cache
def make_optimiser(
    name: str, learning_rate: float, *, decay_steps: int | None = None, clip: float | None = None, **settings: float
) -> optax.GradientTransformation:
    """An optimiser by its name; the same object for the same settings, so that another seed does not compile again.

    Args:
        name: one of `OPTIMISERS`.
        learning_rate: of the first update.
        decay_steps: updates over which it falls to 0 along a half cosine; None: it stays.
        clip: largest 2-norm of the whole gradient, which is scaled down to it before anything else; None: any.
        settings: those that the optimiser reads, `DEFAULTS` where left out.

    Raises:
        SettingError: an unknown name (the message lists the known ones), or a setting that it does not read.
    """
    kind = find_named("optimiser", name, OPTIMISERS)
    for setting, value in settings.items():
        if setting not in kind.reads:
            raise SettingError(f"{setting}={value}: {name} does not read it; it reads {', '.join(kind.reads)}")
    rate = learning_rate if decay_steps is None else optax.cosine_decay_schedule(learning_rate, decay_steps)
    steps = kind.make(rate, **{setting: settings.get(setting, DEFAULTS[setting]) for setting in kind.reads})
    if clip is not None:
        steps = [optax.clip_by_global_norm(clip), *steps]
    return steps[0] if len(steps) == 1 else optax.chain(*steps)
