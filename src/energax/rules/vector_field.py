"""Rules for directed networks, which have a force and no energy."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.arithmetic import align_batch
from energax.checking import as_setting, require_between
from energax.dynamics.base import Start
from energax.rules.adjoint import through_force
from energax.rules.base import AbstractRule, free_phase, make_info, open_batch, phase_info, require_target, weigh_sound


class VectorFieldRule(AbstractRule):
    """g = dC/dtheta + (dforce/dtheta)^T nu, nu = (v^-beta - v^beta) / 2 beta, at the free equilibrium.

    The vector-field rule of Scellier et al. 2018 with a centred response: local, because the force on a unit reads
    its own synapses only. nu -> -J^-1 dC/dv where the exact signal is -J^-T dC/dv, so it equals the adjoint's
    gradient wherever J is symmetric. The Jacobian of a block energy's force rho(h) - v is not, even with symmetric
    weights: train those by `Contrastive`.

    Attributes:
        beta: nudge strength.
    """

    beta: Array = eqx.field(converter=as_setting("VectorFieldRule: beta"), default=0.1)

    def __check_init__(self):
        require_between("VectorFieldRule: beta", self.beta, 0, math.inf, open_least=True)

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Free phase, both nudged phases at once, and the response as signal."""
        rows = open_batch(graph, batch)
        target = require_target(rows, "VectorFieldRule")
        free, settled, report = free_phase(dynamics, graph, rows, solver)
        beta = self.beta.astype(rows.weights.dtype)
        strengths = jnp.repeat(jnp.stack([beta, -beta]), len(rows.weights))
        start, targets = jax.tree.map(lambda v: jnp.concatenate([v] * 2), (settled.states, target))
        nudged = free.prepare_again(reference=settled.states).tile(2).nudge_by(strengths, targets)
        end = solver.solve(nudged, Start(start))
        weights = weigh_sound(rows, settled, end)
        # diverged samples have no response: their states may be anything
        share = jnp.where(weights > 0, 1 / (2 * beta), 0)
        signal = {
            name: align_batch(share, v) * jnp.subtract(*reversed(jnp.split(v, 2))) for name, v in end.states.items()
        }
        gradient = through_force(free, settled.states, signal, target, weights)
        output = free.output(settled.states)
        phases = {"free": report, "nudged": phase_info(nudged, start, end, rows)}
        return gradient, carry, make_info(dynamics, rows, output, phases)
