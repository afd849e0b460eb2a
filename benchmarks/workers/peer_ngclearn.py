"""ngclearn: rate cells, error cells and Hebbian synapses wired by hand, T steps in its scan.

Its cells predict W f(z) + b and its output is compared by the squared error, so its energy is another one: times only.
"""
# pyright: reportMissingImports=false, reportUnusedExpression=false

import itertools

import jax
import jax.numpy as jnp
from ngclearn import Context, MethodProcess
from ngclearn.components import GaussianErrorCell, HebbianSynapse, RateCell, StaticSynapse
from ngclearn.utils.distribution_generator import DistributionGenerator
from ngcsimlib.global_state import stateManager
from protocol import AbstractRow, Arrays, Message, layers_of, named, offered, serve_rows

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh}


class NgcLearn(AbstractRow):
    """A circuit in the customary wiring (Whittington & Bogacz 2017)."""

    def __init__(self, workload: Message, problem: Arrays):
        self.workload, self.given = workload, layers_of(problem)
        self.x, self.y = jnp.asarray(problem["x"]), jnp.asarray(problem["y"])
        self.activation = ACTIVATIONS[workload["activation"]]
        with Context("circuit"):
            self.wire()
            self.processes()
        rows = self.advance.pack_rows(workload["steps"], dt=1.0)
        self.rows = jnp.asarray(rows)
        self.reset()

    def wire(self):
        """Cells, synapses and cables."""
        sizes, batch = self.workload["sizes"], self.workload["batch"]
        kind, start = self.workload["activation"], DistributionGenerator.constant(0.0)
        tau = 1 / self.workload["step_size"]
        self.cells = [RateCell("z0", n_units=sizes[0], tau_m=0.0, batch_size=batch)]
        for index, size in enumerate(sizes[1:-1], start=1):
            self.cells.append(RateCell(f"z{index}", n_units=size, tau_m=tau, act_fx=kind, batch_size=batch))
        self.errors = [GaussianErrorCell(f"e{i}", n_units=n, batch_size=batch) for i, n in enumerate(sizes[1:], 1)]
        options = {"weight_init": start, "bias_init": start, "w_bound": 0.0, "sign_value": -1.0, "batch_size": batch}
        rate = self.workload["learning_rate"] / batch
        pairs = list(enumerate(itertools.pairwise(sizes), 1))
        self.forward = [HebbianSynapse(f"W{i}", shape=pair, eta=rate, **options) for i, pair in pairs]
        self.back = [
            StaticSynapse(f"E{i}", shape=(b, a), weight_init=start, batch_size=batch) for i, (a, b) in pairs[1:]
        ]
        for cell, synapse, error in zip(self.cells, self.forward, self.errors, strict=True):
            cell.zF >> synapse.inputs
            synapse.outputs >> error.mu
            cell.zF >> synapse.pre
            error.dmu >> synapse.post
        for cell, below, above, synapse in zip(
            self.cells[1:], self.errors[:-1], self.errors[1:], self.back, strict=True
        ):
            cell.z >> below.target
            above.dmu >> synapse.inputs
            synapse.outputs >> cell.j
            below.dtarget >> cell.j_td

    def processes(self):
        """One relaxation step, and one weight update."""
        self.observe, self.advance = MethodProcess("observe"), MethodProcess("advance")
        self.evolve = MethodProcess("evolve")
        for part in (*self.forward, *self.errors):
            self.observe.then(part.advance_state)
        for part in (*self.back, *self.cells, *self.forward, *self.errors):
            self.advance.then(part.advance_state)
        for synapse in self.forward:
            self.evolve.then(synapse.evolve)

    def reset(self):
        """Begin again."""
        self.at = 0
        for synapse, (weight, bias) in zip(self.forward, self.given, strict=True):
            synapse.weights.set(jnp.asarray(weight))
            synapse.biases.set(jnp.asarray(bias)[None])
        self.tie()

    def tie(self):
        """Feedback is the transpose of forward."""
        for back, synapse in zip(self.back, self.forward[1:], strict=True):
            back.weights.set(synapse.weights.get().T)

    def begin(self, x, y):
        """The feed-forward pass, and the output clamped."""
        self.cells[0].j.set(x)
        self.cells[0].zF.set(x)
        signal = x
        for cell, synapse in zip(self.cells[1:], self.forward, strict=False):
            state = signal @ synapse.weights.get() + synapse.biases.get()
            signal = self.activation(state)
            cell.z.set(state)
            cell.zF.set(signal)
        self.errors[-1].target.set(y)
        self.observe.run(dt=1.0)

    def run(self, steps):
        """One batch after the other."""
        for index in range(self.at, self.at + steps):
            self.begin(self.x[index % len(self.x)], self.y[index % len(self.x)])
            state, _ = self.advance.scan(self.rows)
            stateManager.set_state(state)
            self.evolve.run(dt=1.0)
            self.tie()
        self.at += steps
        jax.block_until_ready(self.forward[0].weights.get())

    def weights(self):
        """As they are."""
        return named((synapse.weights.get(), synapse.biases.get()[0]) for synapse in self.forward)

    def equilibrium(self):
        """Of another energy."""
        return {}, {}


def offer(workload: Message) -> list[Message]:
    """Chains only."""
    note = "another energy: predicts W f(z), squared error"
    return [offered("ngclearn scan", workload["steps"], note=note)] if workload["kind"] == "mlp" else []


def prepare(name: str, workload: Message, problem: Arrays) -> AbstractRow:
    """One row."""
    return NgcLearn(workload, problem)


if __name__ == "__main__":
    serve_rows(offer, prepare)
