"""An associative memory: patterns are stored by Hebb's rule, and recalled from a corrupted or an incomplete one.

    python docs/gallery/associative_memory.py
    python docs/gallery/associative_memory.py --small

One node of units that are all joined to each other. `FreeEnergy` with every unit clamped to a pattern is Hebb's rule.
Nothing is clamped in recall from a start: the network settles from a corrupted pattern to the nearest stored one.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp

import energax as ex
from energax.activations import Tanh

GAIN = 4.0  # how steep units are: below 1 nothing would be recalled


def make_memory(units: int) -> ex.Graph:
    """One node, joined to itself by weights that are 0."""
    synapses = ex.layers.Linear(units, units, use_bias=False, key=jax.random.key(0))
    synapses = eqx.tree_at(lambda layer: layer.weight, synapses, jnp.zeros((units, units)))
    return ex.Graph(
        [ex.Node("memory", (units,), "tanh")],
        [ex.Edge("memory", "memory", "synapses")],
        {"synapses": synapses, "tanh": Tanh()},
        input="memory",
        output="memory",
    )


def store(graph: ex.Graph, patterns: jax.Array) -> ex.Graph:
    """One step of Hebb's rule, without synapses of a unit with itself."""
    gradient, _, _ = ex.FreeEnergy()(ex.Hopfield(), graph, ex.Batch(patterns), ex.FixedPoint(), ())
    hebbian = -gradient.graph.functions["synapses"].weight  # the patterns' mean of v v^T
    count, units = patterns.shape
    # an edge of a node to itself is read forwards and backwards: a unit receives (W + W^T) v
    weight = GAIN * count / (2 * units) * (hebbian - jnp.diag(jnp.diag(hebbian)))
    return eqx.tree_at(lambda g: g.functions["synapses"].weight, graph, weight)


def main(small: bool = False) -> dict[str, tuple[int, str]]:
    """Store and recall; print, and return by name, how many bits are wrong and the verdicts."""
    units, count = (60, 3) if small else (400, 20)
    key, flips, hidden = jax.random.split(jax.random.key(1), 3)
    patterns = jnp.sign(jax.random.normal(key, (count, units)))
    graph = store(make_memory(units), patterns)
    corrupted = patterns * jnp.where(jax.random.bernoulli(flips, 0.15, patterns.shape), -1, 1)
    known = {"memory": jax.random.bernoulli(hidden, 0.5, patterns.shape)}
    # all units are joined, so that they are updated together; an update of half the way cannot swing to and fro
    sweeps, flow = ex.FixedPoint(ex.solvers.Synchronous()), ex.GradientFlow(0.5, stop=ex.Stopping(max_steps=500))
    start, clamp = {"memory": corrupted}, {"memory": jnp.where(known["memory"], patterns, jnp.nan)}
    recalls = {
        "15 % of the bits wrong, by sweeps": ex.relax(ex.Hopfield(), graph, sweeps, clamp={}, start=start),
        "15 % of the bits wrong, by flow": ex.relax(ex.Hopfield(), graph, flow, clamp={}, start=start),
        "half of the bits known": ex.relax(ex.Hopfield(), graph, sweeps, clamp=clamp, known=known),
    }
    found = {}
    for name, recalled in recalls.items():
        wrong = int(jnp.sum(jnp.sign(recalled.states["memory"]) != patterns))
        verdicts = {ex.Verdict(int(one)).name for one in recalled.result}
        found[name] = (wrong, ", ".join(sorted(verdicts)))
        print(f"{name}: {wrong} of {patterns.size} bits wrong after recall; {found[name][1]}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small memory")
    main(parser.parse_args().small)
