"""Continuous Hopfield energies, which equilibrium propagation and contrastive Hebbian learning train."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.activations import AbstractActivation, Box
from energax.arithmetic import add_all, align_batch, total
from energax.checking import as_setting, require_between
from energax.costs import AbstractCost, SquaredError, as_cost
from energax.dynamics.base import AbstractBlockEnergy, Prepared, descend
from energax.dynamics.phase import Phase
from energax.exceptions import GraphError
from energax.graph.parts import States, place_positions
from energax.graph.structure import AnyGraph
from energax.graph.topology import distances


class Hopfield(AbstractBlockEnergy):
    """E = sum_n gamma^-d(n) (G_n(v_n) - <v_n, a_n>), a_n = what the edges send to n, G_n' = rho_n^-1.

    Edges are read forwards in a_n and backwards through their exact transpose in the force, so feedback along an
    edge is gamma^(d(source) - d(target)) times the forward weight, d the distance to the output (Xie & Seung 2003;
    Millidge et al. 2023, section 3.3); gamma = 1 is the symmetric net of Scellier & Bengio. Biases belong to the
    edges. A node's activation is its rho and must be an `AbstractActivation` (none: the identity). Nodes with
    `state=False` are pooling stages or an external readout: they add no term of their own.

    Blocks are minimised exactly where the edges are linear; max- and softmax-pooled edges are linearised at the
    current states, which leaves the fixed points where they are.

    Attributes:
        cost: C.
        feedback_scale: gamma in (0, 1].
    """

    cost: AbstractCost = eqx.field(converter=as_cost, default_factory=SquaredError)
    feedback_scale: Array | None = eqx.field(converter=as_setting("Hopfield: feedback_scale"), default=None)

    def __check_init__(self):
        if self.feedback_scale is not None:
            require_between("Hopfield: feedback_scale", self.feedback_scale, 0, 1, open_least=True)

    def require_fit(self, graph):
        """Activations that have a potential, and edges towards the output where feedback is weak."""
        for node in graph.nodes:
            activation_of(graph, node.name)
        self._weights(graph)

    def prepare(self, graph, clamped, reference):
        """What the clamped nodes send."""
        return Prepared(graph.precompute(clamped))

    def _weights(self, graph: AnyGraph) -> dict[str, Array | float]:
        """gamma^-d(n) of every node; 1 for symmetric feedback."""
        names = [node.name for node in graph.nodes]
        if self.feedback_scale is None:
            return dict.fromkeys(names, 1.0)
        links = [(edge.source, edge.target) for edge in graph.edges]
        reached = [distances(place.node, links) for place in graph.outputs]
        depth = {name: min((d[name] for d in reached if name in d), default=-1) for name in names}
        for name in names:
            if depth[name] < 0:
                raise GraphError(f"weak feedback is scaled by the distance to the output; node {name!r} leads to none")
        for edge in graph.edges:
            if depth[edge.source] <= depth[edge.target]:
                raise GraphError(
                    f"weak feedback needs edges that lead towards the output; {edge} goes from distance "
                    f"{depth[edge.source]} to {depth[edge.target]}; leave feedback_scale out"
                )
        return {name: self.feedback_scale ** -float(d) for name, d in depth.items()}

    def start(self, phase):
        """Silence."""
        return phase.silence()

    def energy(self, phase, states):
        """E per sample (Millidge et al. 2023, Eq. 7, with the potential G and the sign of a descended energy)."""
        graph, weights = phase.graph, self._weights(phase.graph)
        energy = -self._interaction(phase, states)
        for name, v in phase.everywhere(states).items():
            if name in graph.inputs:  # what an input holds may lie anywhere, where its activation has no potential
                if name not in states:
                    continue
                v = phase.release({name: v})[name]
            energy += weights[name] * total(activation_of(graph, name).potential(v))
        return energy

    def _interaction(self, phase: Phase, states: States) -> Array:
        """sum_n gamma^-d(n) <v_n, a_n> per sample."""
        everywhere, weights = phase.everywhere(states), self._weights(phase.graph)
        arriving, _ = phase.graph.arrivals(everywhere, phase.sent)
        return add_all(
            weights[name] * total(everywhere[name] * sent) for name, sent in arriving.items() if name in everywhere
        )

    def block_minimiser(self, phase, states, block):
        """v_n = argmin G(v) + c/2 v^2 - h v, with h all that arrives, forwards and backwards, and c the nudge's."""
        drive, curvature = self._fields(phase, states, block)
        return {name: self._minimise(phase, name, h, curvature) for name, h in drive.items()}

    def force(self, phase, states):
        """rho(h - c v*) - v, with v* the node's own minimiser: v* - v where v* is stationary, and not 0 where not.

        A verdict must not rest on the routine that it judges: a v* which misses its equation leaves a residual.
        """
        drive, curvature = self._fields(phase, states, tuple(states))
        for name, c in curvature.items():
            drive[name] = drive[name] - c * self._minimise(phase, name, drive[name], curvature)
        return {name: activation_of(phase.graph, name)(drive[name]) - v for name, v in states.items()}

    def _minimise(self, phase: Phase, name: str, drive: Array, curvature: States) -> Array:
        """A node's own minimiser, which is rho(h) unless a nudge bends its energy."""
        activation = activation_of(phase.graph, name)
        return activation.minimise(drive, curvature[name]) if name in curvature else activation(drive)

    def _fields(self, phase: Phase, states: States, block: tuple[str, ...]) -> tuple[States, States]:
        """What drives every node of a block, and the curvature that the nudge adds to nodes of it."""

        def pull(part):
            return self._interaction(phase, {**states, **part})

        value, back = jax.vjp(pull, {name: states[name] for name in block})
        weights = self._weights(phase.graph)
        drive = {name: h / weights[name] for name, h in back(jnp.ones_like(value))[0].items()}
        return (drive, {}) if phase.target is None else self._nudged(phase, states, drive, weights)

    def _nudged(self, phase: Phase, states: States, drive: States, weights: dict[str, Array | float]):
        """Add -beta dC/dv: as pull and curvature at a state output, through the readout otherwise."""
        graph, beta = phase.graph, phase.beta
        if beta is None or phase.target is None:
            return drive, {}
        pulled, curvature = dict(drive), {}
        direct = [place.node for place in graph.outputs if not graph.node(place.node).state]
        for place in graph.outputs:
            name = place.node
            if name in direct or name not in drive:
                continue
            target = phase.target[name] if isinstance(phase.target, dict) else phase.target
            at = (slice(None), *place_positions(f"output {name!r}", graph.axes(name), place.positions, -1))
            pull, bend = self.cost.of(name).quadratic(states[name][at], target)
            strength = align_batch(beta / weights[name], pull)
            pulled[name] = drive[name].at[at].add(strength * pull) if at[1:] else drive[name] + strength * pull
            curvature[name] = jnp.zeros_like(drive[name]).at[at].add(strength * bend) if at[1:] else strength * bend
        if direct:
            part = {name: states[name] for name in drive}
            force = descend(lambda part: self._direct_cost(phase, {**states, **part}, direct), part)
            pulled = {name: h + force[name] / weights[name] for name, h in pulled.items()}
        return pulled, curvature

    def _direct_cost(self, phase: Phase, states: States, direct: list[str]) -> Array:
        """Beta C per sample of the outputs that hold no state."""
        output, target, beta = phase.output(states), phase.target, jnp.asarray(phase.beta)
        if not isinstance(output, dict) or not isinstance(target, dict):
            return beta * self.cost(output, target)
        return beta * add_all(self.cost.of(name)(output[name], target[name]) for name in direct)


def activation_of(graph: AnyGraph, name: str) -> AbstractActivation:
    """The activation of a node; the identity where it has no activation."""
    node = graph.node(name)
    if node.activation is None or not node.state:
        return Box()
    activation = graph.functions[node.activation]
    if not isinstance(activation, AbstractActivation):
        raise GraphError(
            f"node {name!r}: a Hopfield energy needs an activation with a potential, and "
            f"{node.activation!r} is {activation!r}; use one of energax.activations"
        )
    return activation
