"""The rule of directed equilibrium propagation as its authors implemented it."""

import equinox as eqx
import jax.numpy as jnp

from energax.arithmetic import add_all, total
from energax.rules.base import differentiate
from energax.rules.nudging import AbstractNudgingScheme, centred
from energax.rules.vector_field import AbstractResponse, as_scheme


class Deep2020(AbstractResponse):
    """dW_ij ~ s_i nu_j, with nu what unit j answers to the nudge: what a synapse does at its target alone.

    On a flow network it is no gradient, not even with symmetric weights, because it leaves out what a synapse takes
    from its source. Take `VectorFieldRule` for that. The authors nudge in one direction: `one_sided(beta)`.

    Attributes:
        scheme: as of `AbstractResponse`.

    Reference: Farinha, Pequito, Santos & Figueiredo 2020, arXiv 2006.08798, with beta_0 = 0 and beta_1 = 1.
    """

    scheme: AbstractNudgingScheme = eqx.field(converter=as_scheme, default_factory=lambda: centred(1.0))

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
