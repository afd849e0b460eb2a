"""energax itself: every line of `benchmarks.lines`, trained by compiled loops over batches as `fit` does."""

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks.lines import LINES, Line
from benchmarks.network import arrays_of, graph_of, with_arrays
from benchmarks.workers.protocol import AbstractRow, Arrays, Message, named_states, offered, serve_rows
from benchmarks.workload import Workload
from energax.dynamics.base import Start
from energax.dynamics.phase import Batch, prepare_phase
from energax.graph.parts import States
from energax.rules import Contrastive
from energax.training.learner import Learner, Progress, apply_update, begin, calibrate, strengthen_dtypes


@eqx.filter_jit
def stretch(learner: Learner, progress: Progress, batches: Batch, count) -> Progress:
    """`count` batches, one after the other, from where `progress` stands."""
    dynamic, static = eqx.partition(progress, eqx.is_array)
    total = len(jax.tree.leaves(batches)[0])

    def one(_, dynamic):
        progress = eqx.combine(dynamic, static)
        index = progress.batches % total
        batch = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False), batches)
        progress, _ = apply_update(learner, progress, batch)
        return strengthen_dtypes(eqx.filter(progress, eqx.is_array))

    return eqx.combine(jax.lax.fori_loop(0, count, one, strengthen_dtypes(dynamic)), static)


@eqx.filter_jit
def judged(learner: Learner, batch: Batch):
    """Gradient and states of one batch, the solver measured on it first."""
    solver = calibrate(learner.model, learner.solver, batch)
    carry = learner.rule.init(learner.dynamics, learner.graph, batch)
    gradient, _, _ = learner.rule(learner.dynamics, learner.graph, batch, solver, carry)
    return gradient, settled(learner, solver, batch)


def settled(learner: Learner, solver, batch: Batch) -> States:
    """The states at the end of the nudged phase: what the rule's gradient is read from."""
    graph, dynamics, clamped = learner.graph, learner.dynamics, learner.graph.clamp(batch.x)
    if not isinstance(learner.rule, Contrastive):
        return {}
    free = prepare_phase(dynamics, graph, clamped)
    start = free.start()
    begin = start if start.settled else Start(solver.solve(free, start).states)
    points, _, _ = learner.rule.scheme.at(len(jax.tree.leaves(batch)[0]), None)
    return solver.solve(prepare_phase(dynamics, graph, clamped, target=batch.y, beta=points[0]), begin).states


class Own(AbstractRow):
    """One line at one number of steps."""

    def __init__(self, line: Line, workload: Workload, steps: int, problem: Arrays):
        self.learner = line.learner(workload, with_arrays(graph_of(workload, jax.random.key(0)), problem), steps)
        self.batches = Batch(jnp.asarray(problem["x"], float), jnp.asarray(problem["y"], float))
        self.reset()

    def reset(self):
        """Begin again."""
        self.progress = begin(self.learner)

    def run(self, steps):
        """One compiled call."""
        self.progress = stretch(self.learner, self.progress, self.batches, jnp.asarray(steps))
        jax.block_until_ready(jax.tree.leaves(eqx.filter(self.progress, eqx.is_array)))

    def weights(self):
        """The graph's."""
        return arrays_of(self.progress.model.graph)

    def equilibrium(self):
        """By the rule, and by the solver."""
        batch = jax.tree.map(lambda a: a[0], self.batches)
        gradient, states = judged(self.learner, batch)
        names = [node.name for node in self.learner.graph.nodes if node.name in states]
        return arrays_of(gradient.graph), named_states(states[name] for name in names)


def rows_of(workload: Workload) -> dict[str, tuple[Line, int, Message]]:
    """Every point of every line that is for this kind of workload."""
    rows = {}
    for line in LINES:
        for steps in line.steps(workload) if workload.kind in line.kinds else ():
            role = "backprop" if line.backprop else "relaxation"
            same = line.same and (line.backprop or steps == workload.steps)
            row = offered(line.name, steps, role=role, same=same)
            rows[row["name"]] = (line, steps, row)
    return rows


def offer(workload: Message) -> list[Message]:
    """What there is for a workload."""
    return [row for _, _, row in rows_of(Workload(**workload)).values()]


def prepare(name: str, workload: Message, problem: Arrays) -> AbstractRow:
    """One row."""
    line, steps, _ = rows_of(Workload(**workload))[name]
    return Own(line, Workload(**workload), steps, problem)


if __name__ == "__main__":
    serve_rows(offer, prepare)
