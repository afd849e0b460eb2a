"""FabricPC: its own training step (`make_train_step`) on a chain of `Linear` nodes."""
# pyright: reportMissingImports=false

import itertools

import jax
import jax.numpy as jnp
import optax
from fabricpc.core.activations import ReLUActivation, SoftmaxActivation, TanhActivation
from fabricpc.core.energy import CrossEntropyEnergy
from fabricpc.core.inference import InferenceSGD
from fabricpc.core.topology import Edge
from fabricpc.graph_assembly import TaskMap, graph
from fabricpc.graph_initialization import initialize_params
from fabricpc.nodes import IdentityNode, Linear
from fabricpc.training import make_train_step
from protocol import AbstractRow, Arrays, Message, layers_of, named, named_states, offered, serve_rows

ACTIVATIONS = {"relu": ReLUActivation, "tanh": TanhActivation}


def chain(workload: Message):
    """The network, its nodes called `n0`, `n1`, ...."""
    activation, sizes = ACTIVATIONS[workload["activation"]], workload["sizes"]
    nodes = [IdentityNode(shape=(sizes[0],), name="n0")]
    nodes += [Linear((size,), f"n{i}", activation=activation()) for i, size in enumerate(sizes[1:-1], start=1)]
    nodes.append(Linear((sizes[-1],), f"n{len(nodes)}", activation=SoftmaxActivation(), energy=CrossEntropyEnergy()))
    return graph(
        nodes=nodes,
        edges=[Edge(source=a, target=b.slot("in")) for a, b in itertools.pairwise(nodes)],
        task_map=TaskMap(x=nodes[0], y=nodes[-1]),
        inference=InferenceSGD(eta_infer=workload["step_size"], infer_steps=workload["steps"]),
    )


class FabricPC(AbstractRow):
    """One training rule of FabricPC."""

    def __init__(self, algorithm: str, workload: Message, problem: Arrays):
        self.structure = chain(workload)
        self.x, self.y = jnp.asarray(problem["x"]), jnp.asarray(problem["y"])
        self.batches = [{"x": x, "y": y} for x, y in zip(self.x, self.y, strict=True)]
        self.key = jax.random.key(0)
        fresh = initialize_params(self.structure, self.key)
        self.count = len(workload["sizes"]) - 1
        self.given = self.filled(fresh, layers_of(problem))
        self.optimiser = optax.sgd(workload["learning_rate"])
        self.step = make_train_step(self.structure, self.optimiser, algorithm=algorithm)
        self.whole = make_train_step(self.structure, optax.sgd(1.0), algorithm=algorithm)
        self.reset()

    def filled(self, parameters, layers):
        """Parameters with the problem's weights."""
        nodes = dict(parameters.nodes)
        for index, (weight, bias) in enumerate(layers, start=1):
            node = nodes[f"n{index}"]
            (edge,) = node.weights
            biases = {"b": jnp.asarray(bias).reshape(node.biases["b"].shape)}
            nodes[f"n{index}"] = node._replace(weights={edge: jnp.asarray(weight)}, biases=biases)
        return parameters._replace(nodes=nodes)

    def reset(self):
        """Begin again."""
        self.now, self.at = (self.given, self.optimiser.init(self.given)), 0

    def run(self, steps):
        """One call per batch."""
        parameters, state = self.now
        for index in range(self.at, self.at + steps):
            parameters, state, _, _ = self.step(parameters, state, self.batches[index % len(self.batches)], self.key)
        self.now, self.at = (parameters, state), self.at + steps
        jax.block_until_ready(parameters)

    def layers(self, parameters):
        """Weights and biases in order."""
        nodes = [parameters.nodes[f"n{i}"] for i in range(1, self.count + 1)]
        return [(next(iter(node.weights.values())), node.biases["b"].reshape(-1)) for node in nodes]

    def weights(self):
        """As they are."""
        return named(self.layers(self.now[0]))

    def equilibrium(self):
        """The gradient is what a step of plain gradient descent at rate 1 takes away."""
        state = optax.sgd(1.0).init(self.given)
        after, _, _, settled = self.whole(self.given, state, self.batches[0], self.key)
        gradient = jax.tree.map(jnp.subtract, self.layers(self.given), self.layers(after))
        return named(gradient), named_states(settled.nodes[f"n{i}"].z_latent for i in range(1, self.count))


def offer(workload: Message) -> list[Message]:
    """Chains only."""
    if workload["kind"] != "mlp":
        return []
    relaxation = offered("FabricPC", workload["steps"], same=True)
    return [offered("FabricPC backprop", role="backprop", same=True), relaxation]


def prepare(name: str, workload: Message, problem: Arrays) -> AbstractRow:
    """One row."""
    return FabricPC("backprop" if "backprop" in name else "pc", workload, problem)


if __name__ == "__main__":
    serve_rows(offer, prepare)
