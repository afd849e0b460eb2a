"""Sparse connections: a list of synapses instead of a matrix."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from energax.exceptions import SettingError
from energax.layers.batched import takes_batch


class Sparse(eqx.Module):
    """y_r = sum of w_k x_s over the synapses k from s to r, plus b_r: gradients exist at existing synapses only.

    Memory and time of a product grow with synapses times samples. Takes a whole batch, so that a synapse is read once.

    Attributes:
        weight: of every synapse, shape `(synapses,)`.
        bias: shape `(out_features,)`, or None.
        sources: index of the unit that every synapse reads, shape `(synapses,)`; not trained.
        targets: index of the unit that it reaches, shape `(synapses,)`.
        in_features: number of units that are read.
        out_features: number of units that are reached.
    """

    weight: Array
    bias: Array | None
    sources: Int[Array, " synapses"]
    targets: Int[Array, " synapses"]
    in_features: int = eqx.field(static=True)
    out_features: int = eqx.field(static=True)

    def __init__(
        self,
        sources: Array | np.ndarray,
        targets: Array | np.ndarray,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        gain: float = 1.0,
        key: PRNGKeyArray,
    ):
        """Draw weights and bias from U(+-gain / sqrt(mean number of synapses per target)).

        Args:
            sources: whole numbers below `in_features`.
            targets: whole numbers below `out_features`, as many.
            in_features: number of units that are read.
            out_features: number of units that are reached.
            use_bias: whether there is a b.
            gain: scale of the initial values; 1 is the usual default.
            key: PRNG key.

        Raises:
            SettingError: lists of different lengths, of other than whole numbers, or that name no unit.
        """
        self.sources, self.targets = (
            _check_units(name, units, features)
            for name, units, features in (("sources", sources, in_features), ("targets", targets, out_features))
        )
        if self.sources.shape != self.targets.shape:
            raise SettingError(
                f"{len(self.sources)} sources and {len(self.targets)} targets: give one pair per synapse"
            )
        self.in_features, self.out_features = in_features, out_features
        limit = gain / max(len(self.sources) / out_features, 1) ** 0.5
        weight_key, bias_key = jax.random.split(key)
        self.weight = jax.random.uniform(weight_key, self.sources.shape, minval=-limit, maxval=limit)
        self.bias = jax.random.uniform(bias_key, (out_features,), minval=-limit, maxval=limit) if use_bias else None

    def __call__(self, x: Array) -> Array:
        """Shape `(samples, in_features)` to `(samples, out_features)`."""
        if x.ndim != 2 or x.shape[1] != self.in_features:
            raise ValueError(f"expected samples of {self.in_features} numbers, got shape {x.shape}")
        sent = self.weight[:, None] * x.T[self.sources]
        out = jax.ops.segment_sum(sent, self.targets, self.out_features).T
        return out if self.bias is None else out + self.bias


def _check_units(name: str, given: Array | np.ndarray, features: int) -> Array:
    """Indices of units as an array, refused where they name none."""
    units = np.asarray(given)  # wiring is known before anything is traced
    if units.ndim != 1 or not jnp.issubdtype(units.dtype, jnp.integer):
        raise SettingError(f"{name} of shape {units.shape} and dtype {units.dtype}: give a list of whole numbers")
    if units.size and not (int(units.min()) >= 0 and int(units.max()) < features):
        raise SettingError(f"{name} from {units.min()} to {units.max()}: there are units 0 to {features - 1}")
    return jnp.asarray(units)


@takes_batch.register
def _(layer: Sparse) -> bool:
    return True
