"""Rules for directed networks, which have a force and no energy: what the states answer to a nudge is the signal."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import add_all, align_batch
from energax.dynamics.base import Start
from energax.dynamics.model import Model
from energax.dynamics.phase import Phase
from energax.exceptions import SettingError
from energax.graph.parts import Output, States
from energax.rules.adjoint import through_force
from energax.rules.base import AbstractRule, free_phase, make_info, open_batch, phase_info, require_target, weigh_sound
from energax.rules.nudging import AbstractNudgingScheme, NudgingScheme, centred


def as_scheme(given: AbstractNudgingScheme | float) -> AbstractNudgingScheme:
    """A scheme; of a number, the centred one."""
    return given if isinstance(given, AbstractNudgingScheme) else centred(given)


class AbstractResponse(AbstractRule):
    """A free phase, nudged ones all at once, and the parameters' gradient from what states answer to the nudge.

    Attributes:
        scheme: nudge strengths, and the weights of what is answered to them; a number is that of the centred scheme.
            A negative nudge may leave what a certificate covers (`Certificate.least_beta`), a positive one never.
    """

    scheme: eqx.AbstractVar[AbstractNudgingScheme]

    def __check_init__(self):
        name, scheme = type(self).__name__, self.scheme
        if not scheme.balanced:
            raise SettingError(
                f"{name}: an answer is a difference of equilibria: give centred(beta) or one_sided(beta)"
            )
        if isinstance(scheme, NudgingScheme) and jnp.iscomplexobj(scheme.points):
            raise SettingError(f"{name}: the states of directed nets are real: give centred(beta) or one_sided(beta)")

    @abc.abstractmethod
    def nudge(self, free: Phase, settled: States) -> Phase:
        """The phase that is nudged: the free one, or one whose answer is another."""

    def begin(self, settled: States) -> States:
        """Where the nudged phases begin: at the free equilibrium, unless said."""
        return settled

    def measure(self, nudged: Phase, states: States) -> States:
        """What is compared of the phases: what nodes show, unless said."""
        return nudged.activities(states)

    def learn(self, free: Phase, settled: States, signal: States, target: Output, weights: Array) -> Model:
        """The gradient, from the answer of every free unit: by all that a parameter does to the force, unless said."""
        return through_force(free, settled, signal, target, weights)

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Settle, nudge, and learn from the answer."""
        rows = open_batch(graph, batch)
        target = require_target(rows, type(self).__name__)
        free, settled, report = free_phase(dynamics, graph, rows, solver)
        points, weights, free_weight = self.scheme.at(len(rows.weights), batch.key)
        points, weights = (a.astype(rows.weights.dtype) for a in (points, weights))
        base, begun = self.nudge(free, settled.states), self.begin(settled.states)
        start, targets = jax.tree.map(lambda v: jnp.concatenate([v] * len(points)), (begun, target))
        nudged = base.tile(len(points)).nudge_by(points.reshape(-1), targets)
        end = solver.solve(nudged, Start(start))
        shares = weigh_sound(rows, settled, end)
        # diverged samples have no response: their states may be anything
        sound = (shares > 0).astype(shares.dtype)

        def answer(ends, rest):
            """-sum_k w_k r_k - w_0 r_0."""
            parts = zip(weights, jnp.split(ends, len(points)), strict=True)
            total = add_all(align_batch(sound * weight, part) * part for weight, part in parts)
            if free_weight is not None:
                total = total + align_batch(sound * free_weight.astype(sound.dtype), rest) * rest
            return -total

        signal = jax.tree.map(answer, self.measure(nudged, end.states), self.measure(base, begun))
        gradient = self.learn(free, settled.states, signal, target, shares)
        output = free.output(settled.states)
        phases = {"free": report, "nudged": phase_info(nudged, start, end, rows)}
        return gradient, carry, make_info(dynamics, rows, output, phases)


class VectorFieldRule(AbstractResponse):
    """g = dC/dtheta + (dforce/dtheta)^T nu, nu = (r^-beta - r^beta) / 2 beta or the like, at the free equilibrium.

    The vector-field rule of Scellier et al. 2018 with a centred response of what nodes show (their activities, where
    these are not the states): local, because the force on a unit reads its own synapses only. On `LeakyFlow` it is the
    consistent rule R1 of docs/directed.md, dW_ij ~ s_i (nu_i - nu_j) under signed outflow.

    nu -> -J^-1 dC/dr where the exact signal is -J^-T dC/dr, so it equals the adjoint's gradient wherever J (in the
    coordinates of r) is symmetric. The Jacobian of a block energy's force rho(h) - v is not, even with symmetric
    weights: train those by `Contrastive`.

    Attributes:
        scheme: as of `AbstractResponse`.
    """

    scheme: AbstractNudgingScheme = eqx.field(converter=as_scheme, default_factory=lambda: centred(0.1))

    def nudge(self, free, settled):
        """The free phase itself."""
        return free.prepare_again(reference=settled)
