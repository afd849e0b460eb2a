"""A regulariser that makes a directed net more symmetric, added to any rule."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from energax.arithmetic import add_all, total
from energax.checking import as_setting, require_kind, require_whole
from energax.graph.graph import Graph
from energax.graph.synapses import push
from energax.rules.base import AbstractRule, differentiate


class Homeostasis(AbstractRule):
    """Another rule's gradient plus strength times that of L = 2 |A|^2 / n, with A = (W - W^T) / 2 of all free units.

    L is estimated without W: E[|W e|^2 - e^T W W e] / n over Gaussian e, the same ones for every batch without a key.
    Activations are left out, so that L is one of the weights alone. It needs the synapses of other units; the rest of
    the rule stays as local as it was.

    Attributes:
        rule: the other rule.
        strength: of the regulariser.
        samples: how many e an estimate takes.

    Reference: Laborieux & Zenke 2024 (Jacobian homeostasis), on the synapses in the place of the Jacobian.
    """

    rule: AbstractRule
    strength: Array = eqx.field(converter=as_setting("Homeostasis: strength"), default=1.0)
    samples: int = eqx.field(static=True, default=5)

    def __check_init__(self):
        require_kind("Homeostasis: rule", self.rule, AbstractRule, "give a rule, as VectorFieldRule()")
        require_whole("Homeostasis: samples", self.samples, 1)

    @property
    def updates_per_batch(self):
        """The other rule's."""
        return self.rule.updates_per_batch

    def init(self, dynamics, graph, batch):
        """The other rule's."""
        return self.rule.init(dynamics, graph, batch)

    def reference(self):
        """The other rule's."""
        return self.rule.reference()

    def __call__(self, dynamics, graph, batch, solver, carry):
        """The other rule's gradient, and the regulariser's."""
        gradient, carry, info = self.rule(dynamics, graph, batch, solver, carry)
        key = jax.random.key(0) if batch.key is None else jax.random.fold_in(batch.key, 1)

        def objective(model):
            return self.strength.astype(info.cost.dtype) * estimate_asymmetry(model.graph, key, self.samples)

        model = eqx.tree_at(lambda g: (g.graph, g.dynamics), gradient, (graph, dynamics))
        return jax.tree.map(jnp.add, gradient, differentiate(model, objective)), carry, info


def estimate_asymmetry(graph: Graph, key: PRNGKeyArray, samples: int) -> Array:
    """An estimate of 2 |A|^2 / n, A the skew part of the synapses among the n free units, shape `()`.

    Args:
        graph: the network; its edges must be linear.
        key: PRNG key.
        samples: how many random vectors.
    """
    arrays = [leaf for leaf in jax.tree.leaves(graph.functions) if eqx.is_inexact_array(leaf)]
    zeros = graph.zeros(graph.free(graph.inputs), jnp.zeros(samples, jnp.result_type(*arrays)))
    keys = jax.random.split(key, len(zeros))
    noise = {
        name: jax.random.normal(one, zero.shape, zero.dtype)
        for one, (name, zero) in zip(keys, zeros.items(), strict=True)
    }

    def deliver(states):
        return push(graph, lambda weight: weight, states)

    once = deliver(noise)
    twice = deliver(once)
    units = sum(zero[0].size for zero in zeros.values())
    parts = (total(once[name] ** 2) - total(noise[name] * twice[name]) for name in zeros)
    return jnp.mean(add_all(parts)) / units
