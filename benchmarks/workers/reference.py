"""The equilibrium in float64, and how far others are from it.

Predictive coding is minimised over its errors (v = vhat + e: the same minima, better conditioned) by SciPy's L-BFGS.
Kinks (ReLU, max-pooling), on which minima like to sit, are rounded off at a scale that shrinks to nothing. A ReLU net
has several minima: there gradient flow goes first, so that the reference is the one that it leads to. Hopfield nets are
swept until nothing moves.
"""

from functools import partial

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.optimize import minimize

from benchmarks.network import arrays_of, dynamics_of, graph_of, with_arrays
from benchmarks.workers.protocol import Arrays, Message, named_states, read_arrays, serve, write_arrays
from benchmarks.workload import Workload
from energax.dynamics.phase import Phase, norm, prepare_phase
from energax.graph.parts import States
from energax.layers import Chain, Pool, maximum
from energax.rules.base import energy_gradient
from energax.solvers import FixedPoint, Stopping

jax.config.update("jax_enable_x64", True)

SCALES = (1e-3, 1e-4, 1e-5)
FLOW = 2000  # steps of gradient flow that choose the minimum of a ReLU net


class RoundRelu(eqx.Module):
    """(h + sqrt(h^2 + s^2)) / 2."""

    scale: Array

    def __call__(self, h: Array) -> Array:
        """Elementwise."""
        return (h + jnp.sqrt(h**2 + self.scale**2)) / 2


class RoundMaximum(eqx.Module):
    """Maximum over some axes, pair by pair with rounded kinks."""

    scale: Array

    def __call__(self, windows: Array, axes: tuple[int, ...]) -> Array:
        """Shape of `windows` without `axes`."""
        last = jnp.moveaxis(windows, axes, range(-len(axes), 0))
        flat = last.reshape(*last.shape[: -len(axes)], -1)
        best = flat[..., 0]
        for index in range(1, flat.shape[-1]):
            other = flat[..., index]
            best = (best + other + jnp.sqrt((best - other) ** 2 + self.scale**2)) / 2
        return best


def rounded(graph, scale: Array):
    """The graph with its kinks rounded off, and whether it has any."""

    def smooth(fn):
        if isinstance(fn, Chain):
            return Chain(tuple(smooth(part) for part in fn.layers))
        if isinstance(fn, Pool) and fn.reduce is maximum:
            return Pool(fn.size, RoundMaximum(scale))
        return RoundRelu(scale) if fn is jax.nn.relu else fn

    functions = {name: smooth(fn) for name, fn in graph.functions.items()}
    return eqx.tree_at(lambda g: g.functions, graph, functions)


def has_kinks(workload: Workload) -> bool:
    """Whether rounding changes anything."""
    return workload.activation == "relu" or workload.kind == "conv"


@eqx.filter_jit
def objective(flat: Array, phase: Phase, like: States, scale: Array):
    """F of all samples as a function of the errors, and its gradient."""
    graph = rounded(phase.graph, scale)
    again = prepare_phase(phase.dynamics, graph, phase.clamped.values, target=phase.target, beta=phase.beta)

    def total(flat):
        errors = jax.flatten_util.ravel_pytree(like)[1](flat)
        states = graph.sweep(phase.clamped.values, errors)
        return jnp.sum(again.energy({name: states[name] for name in like}))

    return jax.value_and_grad(total)(flat)


@eqx.filter_jit
def states_at(flat: Array, phase: Phase, like: States, scale: Array) -> States:
    """The states that belong to errors."""
    errors = jax.flatten_util.ravel_pytree(like)[1](flat)
    states = rounded(phase.graph, scale).sweep(phase.clamped.values, errors)
    return {name: states[name] for name in like}


@eqx.filter_jit
def errors_after_flow(phase: Phase, start: States, steps: int) -> Array:
    """The errors, as a vector, where gradient flow stands after some steps."""
    step = partial(jax.tree.map, lambda v, force: v + 0.05 * force)
    states = jax.lax.fori_loop(0, steps, lambda _, states: step(states, phase.force(states)), start)
    predictions = phase.graph.predict(phase.everywhere(states), phase.sent)
    return jax.flatten_util.ravel_pytree({name: v - predictions[name] for name, v in states.items()})[0]


def minimum(phase: Phase, start: States, scales, evaluations: int, flow: int) -> list[States]:
    """Equilibria of the nets rounded at each scale, one after the other."""
    flat = np.asarray(errors_after_flow(phase, start, flow))
    options = {"maxiter": evaluations, "maxfun": evaluations, "maxcor": 20, "ftol": 0.0, "gtol": 1e-7}
    found = []
    for scale in scales:
        at = jnp.asarray(scale)

        def evaluate(flat, at=at):
            value, slope = objective(jnp.asarray(flat), phase, start, at)
            return float(value), np.asarray(slope)

        flat = minimize(evaluate, flat, jac=True, method="L-BFGS-B", options=options).x
        found.append(states_at(jnp.asarray(flat), phase, start, at))
    return found


class Reference:
    """The equilibrium of one problem's first batch.

    Args:
        workload: its network.
        problem: its arrays.
        evaluations: most evaluations of F per scale of rounding.
    """

    def __init__(self, workload: Workload, problem: Arrays, evaluations: int):
        graph = with_arrays(graph_of(workload, jax.random.key(0)), problem)
        dynamics = dynamics_of(workload)
        x, y = (jnp.asarray(problem[name][0], float) for name in ("x", "y"))
        self.clamped = graph.clamp(x)
        self.phase = prepare_phase(dynamics, graph, self.clamped, target=y, beta=jnp.asarray(workload.beta))
        self.start = self.phase.start().states
        if workload.kind == "hopfield":
            solver = FixedPoint(stop=Stopping(1e-13, 20_000))
            self.states = solver.solve(self.phase, self.phase.start()).states
            free = prepare_phase(dynamics, graph, self.clamped)
            gradient = self.gradient(self.states)
            rest = energy_gradient(free, solver.solve(free, free.start()).states, jnp.ones(len(y)) / len(y))
            self.first = (gradient - arrays_of(rest.graph)["W1"]) / workload.beta
            self.uncertainty = 0.0
        else:
            scales = SCALES if has_kinks(workload) else (0.0,)
            flow = FLOW if workload.activation == "relu" else 0
            found = minimum(self.phase, self.start, scales, evaluations, flow)
            self.states, self.first = found[-1], self.gradient(found[-1])
            self.uncertainty = relative(self.gradient(found[-2]), self.first) if len(found) > 1 else 0.0

    def gradient(self, states: States) -> np.ndarray:
        """First-layer gradient of the total energy at states."""
        weights = jnp.ones(len(self.phase.target))  # type: ignore[arg-type]
        return arrays_of(energy_gradient(self.phase, states, weights / len(weights)).graph)["W1"]

    def residual(self) -> float:
        """Largest force that is left, relative to the force at the start."""
        drive = norm(self.phase.force(self.start))
        return float(jnp.max(norm(self.phase.force(self.states)) / drive))

    def energy(self, states: States) -> float:
        """F of the batch."""
        return float(jnp.sum(self.phase.energy(states)))


def relative(found: np.ndarray, exact: np.ndarray) -> float:
    """Relative difference of two arrays."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def answers():
    """The verbs, around the reference that was asked for last."""
    at: dict[str, Reference] = {}

    def solve(message: Message) -> Message:
        problem = read_arrays(message["problem"])
        found = Reference(Workload(**message["workload"]), problem, message["evaluations"])
        at["now"] = found
        write_arrays(message["out"], {"W1": found.first, **named_states(found.states[n] for n in order(found))})
        return {"residual": found.residual(), "uncertainty": found.uncertainty}

    def judge(message: Message) -> Message:
        reference, arrays = at["now"], read_arrays(message["arrays"])
        answer: Message = {"error": None, "gap": None}
        if "W1" in arrays:
            answer["error"] = relative(arrays["W1"].astype(float), reference.first)
        if "v1" in arrays:
            found = {name: jnp.asarray(arrays[f"v{i}"], float) for i, name in enumerate(order(reference), start=1)}
            start, end = reference.energy(reference.start), reference.energy(reference.states)
            answer["gap"] = (reference.energy(found) - end) / (start - end)
        return answer

    return {"solve": solve, "judge": judge}


def order(reference: Reference) -> list[str]:
    """Names of the free nodes from input to output."""
    return [node.name for node in reference.phase.graph.nodes if node.name in reference.states]


if __name__ == "__main__":
    serve(answers())
