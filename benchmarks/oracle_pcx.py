"""Record what the released package pcx computes for a small net, as an oracle for the tests.

pcx pins an older JAX, so it is no dependency: in an environment of its own, `pip install jax equinox optax tqdm`, then
`pip install --no-deps pcx==0.6.3`, then `python -m benchmarks.oracle_pcx --out tests`. Writes `oracle_pcx.json`:
parameters, data, the states after a number of gradient steps from the feed-forward start with the output clamped, and
the weight gradients there. `tests/rules/test_peers.py` compares energax with it.
"""
# pyright: reportMissingImports=false

import itertools
from importlib.metadata import version

import jax
import jax.numpy as jnp
import optax
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

from benchmarks.reports import options_of, write

SIZES, BATCH, STEPS, STEP = (4, 6, 5, 3), 3, 7, 0.1


class Model(pxc.EnergyModule):
    """A chain with tanh hidden layers and a linear, clamped output."""

    def __init__(self):
        super().__init__()
        self.layers = [pxnn.Linear(a, b) for a, b in itertools.pairwise(SIZES)]
        self.vodes = [pxc.Vode() for _ in self.layers]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y):
        """Pass x through layers and nodes; clamp the output where y is given."""
        for index, (layer, vode) in enumerate(zip(self.layers, self.vodes, strict=True)):
            x = layer(x)
            x = vode(x if index == len(self.layers) - 1 else jnp.tanh(x))
        if y is not None:
            self.vodes[-1].set("h", y)
        return self.vodes[-1].get("u")


STATES = pxc.VodeParam | pxc.VodeParam.Cache


@pxf.vmap(pxu.M(STATES).to((None, 0)), in_axes=(0, 0), out_axes=0)
def forward(x, y, *, model):
    """Set the states by the feed-forward pass."""
    return model(x, y)


@pxf.vmap(pxu.M(STATES).to((None, 0)), in_axes=(0,), out_axes=(None, 0), axis_name="batch")
def energy(x, *, model):
    """Energy of the batch, summed."""
    out = model(x, None)
    return jax.lax.psum(model.energy(), "batch"), out


def main() -> None:
    """Relax, differentiate, record."""
    options = options_of(__doc__)
    jax.config.update("jax_enable_x64", True)
    model = Model()
    for layer in model.layers:
        for parameter in (layer.nn.weight, layer.nn.bias):
            parameter.set(parameter.get().astype(float))
    keys = jax.random.split(jax.random.key(0))
    x, y = jax.random.normal(keys[0], (BATCH, SIZES[0])), jax.random.normal(keys[1], (BATCH, SIZES[-1]))
    free = pxu.M_hasnot(pxc.VodeParam, frozen=True)
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(x, y, model=model)
    optimiser = pxu.Optim(lambda: optax.sgd(STEP))
    optimiser.init(free(model))
    for _ in range(STEPS):
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            _, slope = pxf.value_and_grad(free.to([False, True]), has_aux=True)(energy)(x, model=model)
        optimiser.step(model, slope["model"])
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        (total, _), slope = pxf.value_and_grad(pxu.M(pxnn.LayerParam).to([False, True]), has_aux=True)(energy)(
            x, model=model
        )
    record = {
        "pcx": version("pcx"),
        "steps": STEPS,
        "step_size": STEP,
        "x": x.tolist(),
        "y": y.tolist(),
        "energy": float(total),
        "weights": [layer.nn.weight.get().tolist() for layer in model.layers],
        "biases": [layer.nn.bias.get().tolist() for layer in model.layers],
        "states": [vode.h.get().tolist() for vode in model.vodes[:-1]],
        "weight_gradients": [layer.nn.weight.get().tolist() for layer in slope["model"].layers],
        "bias_gradients": [layer.nn.bias.get().tolist() for layer in slope["model"].layers],
    }
    write(options.out, "oracle_pcx", record, indent=None)


if __name__ == "__main__":
    main()
