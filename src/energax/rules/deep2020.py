"""The rule of directed equilibrium propagation as its authors implemented it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import add_all, total
from energax.checking import as_setting
from energax.rules.base import differentiate
from energax.rules.vector_field import AbstractResponse


class Deep2020(AbstractResponse):
    """dW_ij ~ s_i nu_j, with nu what unit j answers to the nudge: what a synapse does at its target alone.

    On a flow network it is no gradient, not even with symmetric weights, because it leaves out what a synapse takes
    from its source. Take `VectorFieldRule` for that. The authors nudge once, in one direction; here the response is
    centred, as in all rules.

    Attributes:
        beta: nudge strength.

    Reference: Farinha, Pequito, Santos & Figueiredo 2020, arXiv 2006.08798, with beta_0 = 0 and beta_1 = 1.
    """

    beta: Array = eqx.field(converter=as_setting("Deep2020: beta"), default=1.0)

    def nudge(self, free, settled):
        """The free phase itself."""
        return free.prepare_again(reference=settled)

    def learn(self, free, settled, signal, target, weights):
        """What a parameter does to what arrives, not to what is lost."""

        def objective(model):
            again = free.prepare_again(model)
            shown = again.activities(again.everywhere(settled))
            arriving, _ = again.graph.arrivals(shown, again.sent)
            pulled = add_all(total(arriving[name] * s) for name, s in signal.items() if name in arriving)
            return jnp.sum(weights * (pulled + again.cost(settled, target)))

        return differentiate(free.model, objective)
