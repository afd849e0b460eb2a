"""Projections that keep what a circuit is known by: the sign of every synapse, and the symmetry of gap junctions."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from energax.certificates.projection import NONE, AbstractProjection, change_functions
from energax.checking import as_array, require_kind
from energax.dynamics.model import Model
from energax.exceptions import SettingError
from energax.graph.graph import Graph
from energax.layers import Sparse, change_weights


def as_signs(given: Any) -> dict[str, Array]:
    """Function -> signs, as arrays."""
    require_kind("KeepSigns: signs", given, Mapping, "give function -> signs, as {'synapses': signs}")
    return {name: as_array(f"KeepSigns: signs[{name!r}]", one, SettingError) for name, one in given.items()}


def require_weights(place: str, model: Model, name: str, shape: tuple[int, ...]) -> None:
    """Refuse a function that the graph has not, or has with weights of another shape."""
    known = model.graph.functions
    if name not in known:
        raise SettingError(f"{place}: {name!r}: the graph's functions are {', '.join(map(repr, known))}")
    seen = []
    change_weights(known[name], lambda weight: (seen.append(weight.shape), weight)[1])
    if seen != [shape]:
        raise SettingError(f"{place}: {name!r}: values of shape {shape} for weights of shape {seen[0]}: give one each")


class KeepSigns(AbstractProjection):
    """Weights keep their signs: one that would change it becomes 0 (Dale's principle, where all of a unit's agree).

    Attributes:
        signs: function -> above 0, below 0, or 0 for a weight that is free; shaped like the function's weights.
    """

    signs: dict[str, Array] = eqx.field(converter=as_signs)

    def __call__(self, model, frozen=NONE):
        """Weights of the wrong sign become 0."""
        for name, signs in self.signs.items():
            require_weights("KeepSigns", model, name, signs.shape)

            def clip(weight, signs=signs):
                return jnp.where(signs * weight < 0, 0, weight)

            model = change_functions(model, {name} - frozen, clip)
        return model


def mean(one: Array, other: Array) -> Array:
    """Half their sum."""
    return (one + other) / 2


def weaker(one: Array, other: Array) -> Array:
    """The one nearer to 0; the larger where both are as near."""
    near = jnp.abs(one) < jnp.abs(other)
    return jnp.where(jnp.abs(one) == jnp.abs(other), jnp.maximum(one, other), jnp.where(near, one, other))


class KeepSymmetric(AbstractProjection):
    """Synapses of one function stay as strong as those the other way, as gap junctions are.

    Attributes:
        function: its name; a `Sparse` layer.
        partner: index of the synapse the other way, shape `(synapses,)`; its own for those that have none.
        agree: what both become, of the two weights; `weaker` after a cap, which a mean would exceed again.
    """

    function: str = eqx.field(static=True)
    partner: Array
    agree: Callable[[Array, Array], Array] = eqx.field(static=True, default=mean)

    @classmethod
    def of(
        cls, graph: Graph, function: str, among: np.ndarray | None = None, agree: Callable = mean
    ) -> "KeepSymmetric":
        """Find the pairs.

        Args:
            graph: the network.
            function: a `Sparse` layer of it.
            among: mask of the synapses that are symmetric, shape `(synapses,)`; left out: all.
            agree: what the two of a pair become.

        Raises:
            SettingError: a synapse without one the other way.
        """
        layer: Any = graph.functions[function]
        require_kind(f"KeepSymmetric: {function}", layer, Sparse, "give a function that is a Sparse layer")
        ends = np.stack([np.asarray(layer.sources), np.asarray(layer.targets)]).astype(np.int64)
        chosen = np.arange(ends.shape[1]) if among is None else np.flatnonzero(among)
        there, back = (a * layer.in_features + b for a, b in (ends[:, chosen], ends[::-1, chosen]))
        order = np.argsort(there)
        at = np.minimum(np.searchsorted(there[order], back), len(order) - 1)
        found = there[order][at] == back
        if not found.all():
            one = chosen[np.flatnonzero(~found)[0]]
            raise SettingError(
                f"{function}: the synapse from unit {ends[0, one]} to {ends[1, one]} has none the other way: give it "
                "one, or leave it out of `among`"
            )
        partner = np.arange(ends.shape[1])
        partner[chosen] = chosen[order[at]]
        return cls(function, jnp.asarray(partner), agree)

    def __call__(self, model, frozen=NONE):
        """Pairs agree."""
        return change_functions(
            model, {self.function} - frozen, lambda weight: self.agree(weight, weight[self.partner])
        )
