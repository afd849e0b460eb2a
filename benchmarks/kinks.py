"""Max-pooling and kinks: what settles on the hierarchical net of Chen et al. 2025, and whose gradient it then has.

Run it on one core: `taskset -c 0 python -m benchmarks.kinks` with ENERGAX_DATA set. The net has a quarter of its
channels, tanh, CIFAR-10 (per channel mean 0, variance 1), cross-entropy, beta = 1, initial weights; what becomes of it
in training is measured by `benchmarks.settling`. Writes `kinks.json`:

- `quality`: pools by `maximum`, `HeldMaximum` and `SoftmaxPooling`, predictive coding by 1, 2, 4 and 8 conjugate
  gradients on the errors: relative residual (median, 95th percentile), relative error of every layer's weight gradient
  against that of the best minimiser, and its cosine to backprop's through the same pools;
- the best minimiser of the net with `maximum`: float64, the pool a log-sum-exp that is sharpened step by step, every
  time relaxed from the last one; `known_to` is what the last sharpening changed. Its gradient is that of the smooth
  pool, because on a kink the maximum's own is any of several. `residual_of_maximum` is what the maximum reads there;
- `unfinished`: of all that F falls by on the way to that minimiser, the share that is left after so many steps;
- `smallest`: the residual after 8 steps of `maximum` with the routes shared among entries that nearly tie, the best of
  all sharpenings: an upper bound on the smallest element of the subdifferential nearby;
- `tested`: verdicts to a relative residual of .01, and after how many steps;
- `bidirectional`: residual of `SkewFeedback` by conjugate gradients on the states.
"""

import platform
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import energax as ex
from benchmarks.reports import options_of, write
from energax.arithmetic import norm
from energax.data import load_data
from energax.dynamics.phase import Phase, prepare_phase
from energax.layers import HeldMaximum, Pool, SoftmaxPooling, maximum
from energax.rules.base import energy_gradient
from energax.solvers.engine import trace
from energax.training.rows import make_device_split

COUNTS = (1, 2, 4, 8)
JUDGED = 8  # images whose minimiser is sought
SHARPENINGS = 8.0 * 2.0 ** np.arange(9)
CODING, SKEW = ex.PredictiveCoding(ex.CrossEntropy()), ex.SkewFeedback(strength=0.3)
WAYS = {"maximum": maximum, "held": HeldMaximum(), "softmax": SoftmaxPooling(16.0)}


class LogSumExp(eqx.Module):
    """A smooth maximum; its sharpness is an array, so that another one does not compile again."""

    sharpness: jax.Array

    def __call__(self, windows, axes):
        """log(sum(exp(sharpness v))) / sharpness over the axes."""
        return jax.nn.logsumexp(self.sharpness * windows, axes) / self.sharpness


def with_pools(graph: Any, reduce) -> Any:
    """The same weights with other pools."""

    def change(part):
        return Pool(part.size, reduce) if isinstance(part, Pool) else part

    return jax.tree.map(change, graph, is_leaf=lambda part: isinstance(part, Pool))


def cast(tree, dtype):
    """All floating arrays in another precision."""
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, tree)


def nudged(graph: Any, batch: Any, dynamics=CODING) -> Phase:
    """The phase at beta = 1."""
    return prepare_phase(dynamics, graph, graph.clamp(batch.x), target=batch.y, beta=jnp.ones((), batch.x.dtype))


def stepping(max_steps: int, check_every: int = 0, coordinates=None) -> ex.ConjugateGradient:
    """Conjugate gradients, on the errors unless said."""
    stop = ex.Stopping(1e-2, max_steps, check_every)
    return ex.ConjugateGradient(stop, coordinates or ex.solvers.ErrorCoordinates())


@eqx.filter_jit
def follow(graph, batch, dynamics, solver, steps: int):
    """Residual, F and the states before the first step and after each."""
    phase = nudged(graph, batch, dynamics)
    start = phase.start()
    drive = phase.drive(start.states)
    return trace(solver, phase, start, steps, lambda v: (norm(phase.force(v)) / drive, phase.energy(v), v))[1]


@eqx.filter_jit
def look(graph, batch, states):
    """Residual and the mean weight gradient at some states."""
    phase = nudged(graph, batch)
    size = len(batch.x)
    gradient = energy_gradient(phase, states, jnp.full(size, 1 / size, batch.x.dtype))
    return norm(phase.force(states)) / phase.drive(phase.start().states), gradient.graph


@eqx.filter_jit
def relaxed(graph, batch, states, solver) -> ex.Equilibrium:
    """Relax from some states, or from where the dynamics begins."""
    phase = nudged(graph, batch)
    return solver.solve(phase, phase.start() if states is None else ex.Start(states))


@eqx.filter_jit
def backprop(graph, batch):
    """The gradient of the cost."""
    return ex.Backprop()(CODING, graph, batch, stepping(1), ())[0].graph


energy = eqx.filter_jit(lambda graph, batch, states: nudged(graph, batch).energy(states))


def weights_of(gradient: Any) -> dict[str, np.ndarray]:
    """Every layer's weights, without biases, lowest first."""
    found = {}
    for edge in gradient.edges:
        leaves = jax.tree.leaves(eqx.filter(gradient.functions[edge.function], eqx.is_inexact_array))
        found[edge.function] = np.asarray(max(leaves, key=lambda a: a.ndim), float).ravel()
    return found


def distances(found: dict, exact: dict) -> list[float]:
    """Relative error per layer."""
    return [short(np.linalg.norm(found[k] - exact[k]) / np.linalg.norm(exact[k])) for k in exact]


def cosines(found: dict, exact: dict) -> list[float]:
    """Cosine per layer."""
    sizes = {k: np.linalg.norm(found[k]) * np.linalg.norm(exact[k]) for k in exact}
    return [short(found[k] @ exact[k] / sizes[k]) for k in exact]


def short(value) -> float:
    """Three digits."""
    return float(f"{float(value):.3g}")


def centre(values) -> dict:
    """Median and 95th percentile."""
    return {"median": short(np.median(values)), "p95": short(np.percentile(values, 95))}


def minimise(graph: Any, batch: Any) -> dict:
    """The best minimiser of a net with `maximum`, its energy, and the gradient of its smooth pools."""
    with jax.enable_x64(True):
        graph, batch = cast((graph, batch), jnp.float64)
        states, gradients = None, []
        for sharpness in SHARPENINGS:
            smooth = with_pools(graph, LogSumExp(jnp.asarray(sharpness)))
            states = relaxed(smooth, batch, states, stepping(200)).states
            gradients.append(weights_of(look(smooth, batch, states)[1]))
            print(f"sharpness {sharpness:g}: F {np.asarray(energy(graph, batch, states))}", flush=True)
        residual, _ = look(graph, batch, states)
        found = np.asarray(energy(graph, batch, states))
    known = distances(gradients[-2], gradients[-1])
    return {"gradient": gradients[-1], "energy": found, "known_to": known, "residual": centre(residual)}


def measure_quality(graph: Any, batch: Any) -> dict:
    """All ways on one net."""
    few: Any = ex.Batch(batch.x[:JUDGED], batch.y[:JUDGED])
    best = minimise(graph, few)
    report: dict = {"known_to": best["known_to"], "residual_of_maximum": best["residual"]}
    report["backprop"] = {"error": distances(weights_of(backprop(graph, few)), best["gradient"])}
    for name, reduce in WAYS.items():
        net = with_pools(graph, reduce)
        residuals, energies, states = follow(net, batch, CODING, stepping(1), max(COUNTS))
        exact = weights_of(backprop(net, few))
        report[name] = {"steps": {}}
        for count in COUNTS:
            at = {key: value[count, :JUDGED] for key, value in states.items()}
            found = weights_of(look(net, few, at)[1])
            errors, angles = distances(found, best["gradient"]), cosines(found, exact)
            report[name]["steps"][count] = {"residual": centre(residuals[count]), "error": errors, "cosine": angles}
        end = relaxed(net, batch, None, stepping(40, 1))
        verdicts = {verdict.name: short(end.share(verdict)) for verdict in ex.Verdict}
        report[name]["tested"] = {"verdicts": verdicts, "steps": centre(end.steps)}
        if name == "maximum":
            first, last = energies[0, :JUDGED], best["energy"]
            left = {count: np.median((energies[count, :JUDGED] - last) / (first - last)) for count in COUNTS}
            report[name]["unfinished"] = {count: short(value) for count, value in left.items()}
            at = {key: value[max(COUNTS), :JUDGED] for key, value in states.items()}
            shared = [look(with_pools(graph, LogSumExp(jnp.asarray(s, few.x.dtype))), few, at)[0] for s in SHARPENINGS]
            report[name]["smallest"] = centre(np.min(np.asarray(shared), axis=0))
        print(name, report[name], flush=True)
    return report


def measure_bidirectional(graph: Any, batch: Any) -> dict:
    """Residuals of skew feedback."""
    solver, report = stepping(1, coordinates=ex.solvers.StateCoordinates()), {}
    for name in ("maximum", "held"):
        residuals, _, _ = follow(with_pools(graph, WAYS[name]), batch, SKEW, solver, max(COUNTS))
        report[name] = {count: centre(residuals[count]) for count in COUNTS}
        print("skew feedback", name, report[name], flush=True)
    return report


def main() -> None:
    """Measure, report, print."""
    options = options_of(__doc__, width=0.25, images=32)
    data = load_data("cifar10")
    graph = ex.networks.hierarchical(
        data.image_shape, 10, jnp.tanh, width=options.width, pool=maximum, key=jax.random.key(0)
    )
    batch = make_device_split(data, data.validation, standardise=True).batch(jnp.arange(options.images))
    report = {
        "width": options.width,
        "images": options.images,
        **measure_quality(graph, batch),
        "bidirectional": measure_bidirectional(graph, batch),
        "machine": platform.machine(),
        "jax": jax.__version__,
        "device": jax.default_backend(),
    }
    write(options.out, "kinks", report)


if __name__ == "__main__":
    main()
