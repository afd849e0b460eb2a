"""Contrastive Hebbian and coupled learning: the output state is clamped instead of nudged."""

import equinox as eqx
from jaxtyping import Array

from energax.arithmetic import add_trees
from energax.checking import as_setting, require_between
from energax.dynamics.base import Start
from energax.dynamics.phase import prepare_phase
from energax.exceptions import SettingError
from energax.graph.parts import Clamped, list_names
from energax.rules.base import (
    AbstractRule,
    energy_gradient,
    free_phase,
    make_info,
    open_batch,
    phase_info,
    require_energy,
    require_target,
    weigh_sound,
)


class ContrastiveHebbian(AbstractRule):
    """g = (dE/dtheta(v^clamped) - dE/dtheta(v^free)) / s, the output clamped at v_free + s (y - v_free).

    s = 1 is contrastive Hebbian learning (Movellan 1991; Millidge et al. 2023, Eqs. 5 and 6); s < 1 is coupled
    learning (Stern et al. 2021). With `Hopfield(feedback_scale=gamma)` it approaches backprop as gamma -> 0
    (Xie & Seung 2003).

    Attributes:
        strength: s in (0, 1].
    """

    strength: Array = eqx.field(converter=as_setting("ContrastiveHebbian: strength"), default=1.0)

    def __check_init__(self):
        require_between("ContrastiveHebbian: strength", self.strength, 0, 1, open_least=True)

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Settle both phases and take their difference."""
        require_energy(dynamics, "ContrastiveHebbian")
        rows = open_batch(graph, batch)
        require_state(graph)
        target = require_target(rows, "ContrastiveHebbian")
        free, settled, report = free_phase(dynamics, graph, rows, solver)
        output = free.output(settled.states)
        names = [place.node for place in graph.outputs]
        values, goals = (one if isinstance(one, dict) else {names[0]: one} for one in (output, target))
        pulled = {n: v + self.strength.astype(v.dtype) * (goals[n] - v) for n, v in values.items()}
        # units of an output that are known stay where they are
        kept = {name: one for name, one in rows.clamped.known.items() if name not in names}
        values = {**rows.clamped.values, **free.pin(pulled)}
        both = Clamped(values, keys=rows.clamped.keys, known=kept)
        phase = prepare_phase(dynamics, graph, both, reference=settled.states)
        start = {name: v for name, v in settled.states.items() if name not in names}
        end = solver.solve(phase, Start(start))

        weights = weigh_sound(rows, settled, end) / self.strength
        gradient = add_trees(
            energy_gradient(phase, end.states, weights), energy_gradient(free, settled.states, -weights)
        )
        phases = {"free": report, "clamped": phase_info(phase, start, end, rows)}
        return gradient, carry, make_info(dynamics, rows, output, phases)


def require_state(graph) -> None:
    """Only a state can be clamped."""
    for place in graph.outputs:
        if not graph.node(place.node).state:
            raise SettingError(
                f"the output {place.node!r} holds no state (state=False), so it cannot be clamped; give it "
                "one, or nudge it with Contrastive"
            )
        if graph.axes(place.node):
            raise SettingError(
                f"the output {place.node!r} repeats along {list_names(axis.name for axis in graph.axes(place.node))}, "
                "and a part of a node cannot be clamped; nudge it with Contrastive"
            )
