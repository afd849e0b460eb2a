"""Optimisers by name: optax's, and those that trust a layer as far as its parameters are large.

Any optax transformation serves a `Learner`; these are the ones that recipes and the command line know by name.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp
import optax

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


Rate = float | optax.Schedule


def _decay(weight_decay: float) -> list[optax.GradientTransformation]:
    """weight_decay * theta added to what is there; nothing where it is 0."""
    return [optax.add_decayed_weights(weight_decay)] if weight_decay else []


def make_sgd(rate: Rate, momentum: float, weight_decay: float) -> list[optax.GradientTransformation]:
    """Gradient descent with momentum; the decay is part of the gradient."""
    return [*_decay(weight_decay), optax.sgd(rate, momentum=momentum)]


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


@dataclasses.dataclass(frozen=True)
class OptimiserKind:
    """A row of the table.

    Attributes:
        make: from the learning rate and the settings that it reads to transformations, chained in this order.
        reads: names of these settings.
    """

    make: Callable[..., list[optax.GradientTransformation]]
    reads: tuple[str, ...]


OPTIMISERS: dict[str, OptimiserKind] = {
    "sgd": OptimiserKind(make_sgd, ("momentum", "weight_decay")),
    "adam": OptimiserKind(make_adam, ("adam_eps", "weight_decay")),
    "adamw": OptimiserKind(make_adamw, ("adam_eps", "weight_decay")),
    "lars": OptimiserKind(make_lars, ("momentum", "weight_decay")),
    "lamb": OptimiserKind(make_lamb, ("adam_eps", "weight_decay")),
}
"""Every optimiser by name."""

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
    if name not in OPTIMISERS:
        raise SettingError(f"unknown optimiser {name!r}; known: {', '.join(OPTIMISERS)}")
    kind = OPTIMISERS[name]
    for setting, value in settings.items():
        if setting not in kind.reads:
            raise SettingError(f"{setting}={value}: {name} does not read it; it reads {', '.join(kind.reads)}")
    rate = learning_rate if decay_steps is None else optax.cosine_decay_schedule(learning_rate, decay_steps)
    steps = kind.make(rate, **{setting: settings.get(setting, DEFAULTS[setting]) for setting in kind.reads})
    if clip is not None:
        steps = [optax.clip_by_global_norm(clip), *steps]
    return steps[0] if len(steps) == 1 else optax.chain(*steps)
