"""Continuous Hopfield energies, which equilibrium propagation and contrastive Hebbian learning train."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from energax.activations import AbstractActivation, Box
from energax.arithmetic import add_all, total
from energax.costs import AbstractCost, SquaredError
from energax.dynamics.base import AbstractBlockEnergy, Context, Start
from energax.exceptions import GraphError
from energax.graph.graph import Graph
from energax.graph.structure import AbstractStructure
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

    cost: AbstractCost = eqx.field(default_factory=SquaredError)
    feedback_scale: Array | None = eqx.field(converter=lambda g: None if g is None else jnp.asarray(g), default=None)

    def prepare(self, graph, clamped, key):
        """What the clamped nodes send; with weak feedback, the weight of every node."""
        for node in graph.nodes:
            activation_of(graph, node.name)
        return Context(clamped, graph.constant(clamped), shared=self._weights(graph))

    def _weights(self, graph: Graph) -> dict[str, Array]:
        """gamma^-d(n); empty for symmetric feedback."""
        if self.feedback_scale is None:
            return {}
        depth = distances(graph.output, [(edge.source, edge.target) for edge in graph.edges])
        for edge in graph.edges:
            if depth[edge.source] <= depth[edge.target]:
                raise GraphError(
                    f"weak feedback needs edges that lead towards the output; {edge} goes from distance "
                    f"{depth[edge.source]} to {depth[edge.target]}; leave feedback_scale out"
                )
        return {name: self.feedback_scale ** -float(d) for name, d in depth.items()}

    def start(self, graph, context):
        """Silence."""
        return Start(graph.zeros(graph.free(context.clamped), next(iter(context.clamped.values()))))

    def energy(self, graph, states, context):
        """E per sample (Millidge et al. 2023, Eq. 7, with the potential G and the sign of a descended energy)."""
        everywhere = context.everywhere(states)
        stored = add_all(
            context.shared.get(name, 1) * total(activation_of(graph, name).potential(v))
            for name, v in everywhere.items()
            if name != graph.input or name in states
        )
        return stored - self._interaction(graph, states, context)

    def _interaction(self, graph: Graph, states, context: Context) -> Array:
        """sum_n gamma^-d(n) <v_n, a_n> per sample."""
        everywhere = context.everywhere(states)
        arriving, _ = graph.arrivals(everywhere, context.constant)
        return add_all(
            context.shared.get(name, 1) * total(everywhere[name] * sent)
            for name, sent in arriving.items()
            if name in everywhere
        )

    def block_minimiser(self, graph, states, context, target, beta, block):
        """v_n = argmin G(v) + c/2 v^2 - h v, with h all that arrives, forwards and backwards, and c the nudge's."""

        def pull(part):
            return self._interaction(graph, {**states, **part}, context)

        value, back = jax.vjp(pull, {name: states[name] for name in block})
        drive = back(jnp.ones_like(value))[0]
        weight = {name: context.shared.get(name, 1) for name in block}
        drive = {name: h / weight[name] for name, h in drive.items()}
        curvature = dict.fromkeys(block, 0.0)
        if target is not None:
            drive, curvature = self._nudged(graph, states, context, target, beta, drive, weight)
        return {name: activation_of(graph, name).minimise(h, curvature.get(name, 0.0)) for name, h in drive.items()}

    def _nudged(self, graph, states, context, target, beta, drive, weight):
        """Add -beta dC/dv: as pull and curvature at a state output, through the readout otherwise."""
        if graph.node(graph.output).state:
            if graph.output not in drive:
                return drive, {}
            strength = beta / weight[graph.output]
            strength = strength.reshape(strength.shape + (1,) * (drive[graph.output].ndim - 1) * (strength.ndim > 0))
            pull, curvature = self.cost.quadratic(states[graph.output], target)
            pulled = drive[graph.output] + strength * pull
            return {**drive, graph.output: pulled}, {graph.output: strength * curvature}

        def cost(part):
            everywhere = context.everywhere({**states, **part})
            return beta * self.cost(graph.output_value(everywhere, context.constant), target)

        value, back = jax.vjp(cost, {name: states[name] for name in drive})
        force = back(jnp.ones_like(value))[0]
        return {name: h - force[name] / weight[name] for name, h in drive.items()}, {}


def activation_of(graph: AbstractStructure, name: str) -> AbstractActivation:
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
