"""Learning without targets: the gradient of the free energy at the equilibrium of what is clamped."""

from energax.dynamics.base import AbstractErrorEnergy, AbstractTotalEnergy, FreeGradient
from energax.dynamics.phase import Phase
from energax.exceptions import SettingError
from energax.graph.parts import Output, States, list_names
from energax.rules.base import (
    AbstractRule,
    Rows,
    energy_gradient,
    free_phase,
    make_info,
    open_batch,
    require_energy,
    weigh_sound,
)


class FreeEnergy(AbstractRule):
    """g = dE/dtheta at the free equilibrium of what is clamped: no target is needed, and none is used.

    *Variational*: an image is clamped at the bottom of a predictive-coding net whose latents, above it, have a prior.
    The states settle at the latents' most likely value, and E falls in the parameters (Rao & Ballard 1999; Friston
    2005; Bogacz 2017). Nothing in E bounds the size of the weights, because smaller latents cost less under their
    prior: give the optimiser a weight decay. With `Langevin(temperature=1)` as the solver the gradient is that of a
    sample of exp(-E), and on average that of -log p(x) (Oliviers et al. 2024, Monte Carlo predictive coding).

    *Hebbian*: on an energy whose free phase has a gradient of its own, such as `Hopfield`, E of the data can be lowered
    without end while states are free to follow. There everything must be clamped: dE/dtheta is then Hebb's rule.

    A targeted `Batch` may be used as well; its targets only give the cost that is reported.

    `Info.output` is what the graph names its output: for a node that is clamped or partly known, and predicted, its
    prediction, so that the reconstruction of an image can be compared with it.

    Raises:
        SettingError: a dynamics without an energy; a graph of which nothing that is held is predicted, so that every
            error is 0; free nodes where only Hebb's rule is one.
    """

    def reference(self):
        """The same gradient at a careful equilibrium: there is no cost whose gradient it could be compared with."""
        return self

    def __call__(self, dynamics, graph, batch, solver, carry):
        """Settle the free phase, or draw it, and differentiate E."""
        energy = require_energy(dynamics, "FreeEnergy")
        rows = open_batch(graph, batch)
        require_something_to_learn(energy, graph, rows)
        phase, settled, report = free_phase(dynamics, graph, rows, solver, samples=True)
        gradient = energy_gradient(phase, settled.states, weigh_sound(rows, settled))
        output = read_reconstruction(phase, settled.states)
        return gradient, carry, make_info(dynamics, rows, output, {"free": report})


def require_something_to_learn(dynamics: AbstractTotalEnergy, graph, rows: Rows) -> None:
    """Refuse what would follow a gradient of nothing, or one that says nothing of the data."""
    free = graph.free(rows.clamped.values)
    kind = dynamics.free_gradient(graph)
    if kind is FreeGradient.OWN and free:
        raise SettingError(
            f"FreeEnergy lowers E where the states settle, and with {type(dynamics).__name__} they follow without end "
            f"while some are free ({list_names(free)}): clamp every node in Batch.x (Hebb's rule), use a contrast, as "
            "Contrastive(rules.centred(0.2)), or say by free_gradient that the energy is variational"
        )
    held = rows.clamped.held
    if isinstance(dynamics, AbstractErrorEnergy) and not any(edge.target in held for edge in graph.edges):
        raise SettingError(
            f"FreeEnergy has nothing to learn from: no edge enters what is clamped ({list_names(held)}), so that "
            "every prediction error settles to 0; clamp the data at a node that others predict, and leave the latents "
            "above it free"
        )


def read_reconstruction(phase: Phase, states: States) -> Output:
    """The graph's output, with the predictions of outputs that are held."""
    held = phase.clamped.held
    names = [place.node for place in phase.graph.outputs if place.node in held]
    if not (names and isinstance(phase.dynamics, AbstractErrorEnergy)):
        return phase.output(states)
    everywhere = phase.everywhere(states)
    predicted = phase.graph.predict(everywhere, phase.sent)
    shown = {**everywhere, **{name: predicted[name] for name in names if name in predicted}}
    return phase.graph.output_value(shown, phase.sent)
