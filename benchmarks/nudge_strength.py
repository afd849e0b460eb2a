"""How strong a nudge may be: cosine to the exact gradient, and the share of diverged phases, against beta.

Run: `python -m benchmarks.nudge_strength`, with `--epochs` of training before the `ep` recipe on digits is looked at
(default 3; 0 looks at its initial weights). Beside it stand random nets: a linear output whose two layers are tightly
coupled, and a Tanh one. Centred nudging on `Hopfield`, 32 samples, float64, sweeps to a residual of 1e-8; the exact
gradient is the adjoint's. Writes `nudge_strength.json`.
"""

import json

import equinox as eqx
import jax
import jax.numpy as jnp

import energax as ex
from benchmarks.gradient_quality import cast, gradient
from benchmarks.reports import options_of, write
from energax.activations import Tanh
from energax.diagnostics.regime import flat
from energax.graph.networks import mlp
from energax.recipes import make_learner
from energax.rules import centred
from energax.training.rows import make_device_split

STRENGTHS = (0.02, 0.05, 0.1, 0.2, 0.5, 0.9, 1.0)


def measure(learner, batch) -> dict:
    """Cosine and diverged share for every strength."""
    exact = flat(gradient(learner, ex.Adjoint(), learner.solver, batch)[0])
    found = {}
    for beta in STRENGTHS:
        one, info = gradient(learner, ex.Contrastive(centred(beta)), learner.solver, batch)
        length = jnp.linalg.norm(flat(one)) * jnp.linalg.norm(exact)
        found[beta] = {
            "cosine": float(jnp.vdot(flat(one), exact) / length) if length > 0 else None,
            "diverged": float(jnp.mean(info.phases["nudged"].result == ex.Verdict.DIVERGED)),
            "not_converged": float(jnp.mean(info.phases["nudged"].result != ex.Verdict.CONVERGED)),
        }
    return found


class Side(eqx.Module):
    """What `measure` reads of a learner."""

    dynamics: ex.Hopfield
    graph: ex.Graph
    solver: ex.FixedPoint


def main() -> None:
    """Measure and report."""
    jax.config.update("jax_enable_x64", True)
    options = options_of(__doc__, data="digits", epochs=3)
    solver = ex.FixedPoint(stop=ex.Stopping(1e-8, 2000))
    keys = jax.random.split(jax.random.key(0), 2)
    x, y = jax.random.normal(keys[0], (32, 8)), jax.nn.one_hot(jnp.arange(32) % 3, 3)
    report = {"data": options.data, "epochs": options.epochs}
    for name, gain, key in (("loose", 0.5, 1), ("tight", 1.0, 2)):
        graph = mlp([8, 16, 3], Tanh(), gain=gain, key=jax.random.key(key))
        report[name] = measure(Side(ex.Hopfield(), graph, solver), ex.Batch(x, y))
    data = ex.load_data(options.data)
    learner, settings = make_learner("ep", data.image_shape, data.classes)
    if options.epochs:
        learner = ex.fit(learner, data, epochs=options.epochs, batch=settings.batch or 64).learner
    batch = make_device_split(data, data.train, standardise=False).batch(jnp.arange(32))
    wide = cast(learner, jnp.float64)
    report["ep"] = measure(Side(wide.dynamics, wide.graph, solver), cast(batch, jnp.float64))
    write(options.out, "nudge_strength", report)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
