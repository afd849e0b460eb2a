"""How states move: a force, or an energy whose negative gradient is the force."""

import abc
import enum
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.checking import require_kind
from energax.costs import AbstractCost
from energax.exceptions import SettingError
from energax.graph.parts import Clamped, States
from energax.graph.structure import AnyGraph

if TYPE_CHECKING:
    from energax.dynamics.phase import Phase


class Prepared(eqx.Module):
    """What a dynamics computes once per phase from what is clamped: arrays, batch first.

    Samples of a phase are gathered and repeated by gathering and repeating these arrays.

    Attributes:
        sent: the clamped nodes as the graph's maps read them, with what they send.
        constants: whatever else the dynamics reads at every step, as `phase.constants`.
    """

    sent: Clamped
    constants: Any = None


class Start(eqx.Module):
    """Where a phase begins.

    Attributes:
        states: states of the free nodes.
        settled: True where these are the free equilibrium by construction, so that a free phase has nothing to relax.
            For an energy of prediction errors: where they are a feed-forward pass, and every error is 0.
    """

    states: States
    settled: bool = eqx.field(static=True, default=False)


class AbstractDynamics(eqx.Module):
    """dv/dt = force(v). The root is the force: directed networks have no energy.

    Every method reads the phase: its `graph`, the clamped values with `phase.everywhere(states)`, and what `prepare`
    computed as `phase.sent` and `phase.constants`. In a free phase there is no target, so that no label can reach it.

    Attributes:
        trainable: names of the fields whose arrays are parameters, trained beside the graph's; the others are held.
        cost: C.
    """

    trainable: ClassVar[tuple[str, ...]] = ()
    cost: eqx.AbstractVar[AbstractCost]

    def __check_init__(self):
        require_kind(f"{type(self).__name__}: cost", self.cost, AbstractCost, "give a cost, as CrossEntropy()")

    def require_fit(self, graph: AnyGraph) -> None:
        """Refuse a graph that this dynamics cannot move the states of: before anything is trained, or loaded.

        Args:
            graph: the network.

        Raises:
            SettingError: what is set for one of its nodes does not suit it.
            GraphError: its structure or its activations do not.
        """

    @abc.abstractmethod
    def prepare(self, graph: AnyGraph, clamped: Clamped, reference: Any) -> Prepared:
        """Compute what a phase holds constant: once per phase, and once more inside the parameter gradient.

        Args:
            graph: the network.
            clamped: values of the clamped nodes, batch first, and a key per sample for random layers.
            reference: what earlier phases found (states or the like), batch first; None in a free phase. At the free
                equilibrium itself the energy and its parameter gradient are the same with and without it.
        """

    def linearise(self, phase: "Phase") -> Any:
        """Linearise maps at what is held constant, as `phase.linear`: closures, made anew for other samples."""
        return None

    def anchored(self) -> Collection[str]:
        """Names of nodes that the dynamics itself holds somewhere, as by priors. None, unless said."""
        return ()

    def safe_step(self, phase: "Phase") -> Array:
        """The longest step of the states that is known to be stable, shape `()` or `(batch,)`.

        Raises:
            SettingError: none is known, unless said.
        """
        raise SettingError(f"{type(self).__name__} knows no safe step: take the step bound PerSample()")

    @abc.abstractmethod
    def start(self, phase: "Phase") -> Start:
        """Where the free phase begins."""

    def activities(self, phase: "Phase", states: States) -> States:
        """What nodes show: the cost reads it, and responses are measured in it. The states themselves, unless said."""
        return states

    @abc.abstractmethod
    def force(self, phase: "Phase", states: States) -> States:
        """dv/dt of every free node; same shapes as `states`, the states of the free nodes."""


class FreeGradient(enum.Enum):
    """What dF/dtheta is at the free equilibrium: which schemes may leave it out."""

    ZERO = "zero"
    """It vanishes: predictive coding at its feed-forward pass, where every error is 0."""
    VARIATIONAL = "variational"
    """It is part of what is learnt, as of precisions and priors: beta = 1 takes all of F, others need a contrast."""
    OWN = "own"
    """It says nothing of the cost, as of Hopfield energies: only a contrast of phases does."""


class AbstractTotalEnergy(AbstractDynamics):
    """A dynamics whose equilibria are stationary points of F = E + beta * C (Millidge et al. 2023, Eq. 9).

    The two subclasses differ in how they get there: down the gradient, or towards each block's own minimum.
    """

    @abc.abstractmethod
    def energy(self, phase: "Phase", states: States) -> Array:
        """Internal energy E of every sample, shape `(batch,)`, from the states of the free nodes."""

    def free_gradient(self, graph: AnyGraph) -> FreeGradient:
        """What dF/dtheta is at the free equilibrium. One of its own, unless said."""
        return FreeGradient.OWN


class AbstractEnergy(AbstractTotalEnergy):
    """Gradient descent on F: subclasses write E and inherit the force."""

    def force(self, phase, states):
        """-dF/dv per sample: samples are summed, never averaged, so that none depends on the others."""
        return descend(phase.energy, states)


class AbstractErrorEnergy(AbstractEnergy):
    """An energy that is a function of the prediction errors v_n - vhat_n alone: what error coordinates need."""

    @abc.abstractmethod
    def error_energy(self, errors: States) -> Array:
        """E per sample, shape `(batch,)`, from the error of every node that receives a prediction.

        Without `offset`, which no error changes.
        """

    def offset(self, graph: AnyGraph) -> Array | float:
        """What E holds beside the errors' energy: a number of the parameters alone. 0, unless said."""
        return 0.0

    @abc.abstractmethod
    def precision(self, name: str) -> Array:
        """Pi of a node: the curvature of E in its error at 0; a number, or an array that broadcasts with the node."""

    @property
    @abc.abstractmethod
    def separate(self) -> bool:
        """Whether E is 1/2 sum_n Pi_n |e_n|^2 exactly, so that every error pulls on its own node alone."""


class AbstractBlockEnergy(AbstractTotalEnergy):
    """An energy that can minimise over one block of nodes exactly, the others held fixed.

    Its force points from every node to its own minimiser: for Hopfield energies dv/dt = rho(h) - v, which is
    the gradient flow inside a box of states and keeps to the box by itself.
    """

    @abc.abstractmethod
    def block_minimiser(self, phase: "Phase", states: States, block: tuple[str, ...]) -> States:
        """New states of the nodes in `block`, which do not interact with one another.

        Args:
            phase: the phase.
            states: the states of all free nodes.
            block: names of free nodes.
        """

    def force(self, phase, states):
        """Every node's own minimiser minus its state."""
        best = self.block_minimiser(phase, states, tuple(states))
        return {name: best[name] - state for name, state in states.items()}


def descend(energy: Callable[[States], Array], states: States) -> States:
    """-dF/dv of energies per sample.

    A unit cotangent is the holomorphic derivative where states are complex, and the gradient where real.
    """
    energies, pull = jax.vjp(energy, states)
    return jax.tree.map(jnp.negative, pull(jnp.ones_like(energies))[0])
