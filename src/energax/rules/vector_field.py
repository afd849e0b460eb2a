"""Rules for directed networks, which have a force and no energy: what the states answer to a nudge is the signal."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import align_batch
from energax.checking import as_setting, require_between
from energax.dynamics.base import Start
from energax.dynamics.model import Model
from energax.dynamics.phase import Phase
from energax.graph.parts import Output, States
from energax.rules.adjoint import through_force
from energax.rules.base import AbstractRule, free_phase, make_info, open_batch, phase_info, require_target, weigh_sound


class AbstractResponse(AbstractRule):
    """A free phase, two nudged ones at once, and the parameters' gradient from what states answer to the nudge.

    Attributes:
        beta: nudge strength; the phases are nudged by beta and -beta.
    """

    beta: eqx.AbstractVar[Array]

    def __check_init__(self):
        require_between(f"{type(self).__name__}: beta", self.beta, 0, math.inf, open_least=True)

    @abc.abstractmethod
    def nudge(self, free: Phase, settled: States) -> Phase:
        """The phase that is nudged: the free one, or one whose answer is another."""

    def begin(self, settled: States) -> States:
        """Where the nudged phases begin: at the free equilibrium, unless said."""
        return settled

    def measure(self, nudged: Phase, states: States) -> States:
        """What is compared of the two nudged phases: what nodes show, unless said."""
        return nudged.activities(states)

    @abc.abstractmethod
    def learn(self, free: Phase, settled: States, signal: States, target: Output, weights: Array) -> Model:
        """The gradient, from the answer of every free unit; arguments as of `through_force`."""

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Settle, nudge, and learn from the answer."""
        rows = open_batch(graph, batch)
        target = require_target(rows, type(self).__name__)
        free, settled, report = free_phase(dynamics, graph, rows, solver)
        beta = self.beta.astype(rows.weights.dtype)
        strengths = jnp.repeat(jnp.stack([beta, -beta]), len(rows.weights))
        begun = (self.begin(settled.states), target)
        start, targets = jax.tree.map(lambda v: jnp.concatenate([v] * 2), begun)
        nudged = self.nudge(free, settled.states).tile(2).nudge_by(strengths, targets)
        end = solver.solve(nudged, Start(start))
        weights = weigh_sound(rows, settled, end)
        # diverged samples have no response: their states may be anything
        share = jnp.where(weights > 0, 1 / (2 * beta), 0)
        shown = self.measure(nudged, end.states)
        signal = {name: align_batch(share, v) * jnp.subtract(*reversed(jnp.split(v, 2))) for name, v in shown.items()}
        gradient = self.learn(free, settled.states, signal, target, weights)
        output = free.output(settled.states)
        phases = {"free": report, "nudged": phase_info(nudged, start, end, rows)}
        return gradient, carry, make_info(dynamics, rows, output, phases)


class VectorFieldRule(AbstractResponse):
    """g = dC/dtheta + (dforce/dtheta)^T nu, nu = (r^-beta - r^beta) / 2 beta, at the free equilibrium.

    The vector-field rule of Scellier et al. 2018 with a centred response of what nodes show (their activities, where
    these are not the states): local, because the force on a unit reads its own synapses only. On `LeakyFlow` it is the
    consistent rule R1 of docs/directed.md, dW_ij ~ s_i (nu_i - nu_j) under signed outflow.

    nu -> -J^-1 dC/dr where the exact signal is -J^-T dC/dr, so it equals the adjoint's gradient wherever J (in the
    coordinates of r) is symmetric. The Jacobian of a block energy's force rho(h) - v is not, even with symmetric
    weights: train those by `Contrastive`.

    Attributes:
        beta: nudge strength.
    """

    beta: Array = eqx.field(converter=as_setting("VectorFieldRule: beta"), default=0.1)

    def nudge(self, free, settled):
        """The free phase itself."""
        return free.prepare_again(reference=settled)

    def learn(self, free, settled, signal, target, weights):
        """All that a parameter does to the force."""
        return through_force(free, settled, signal, target, weights)
