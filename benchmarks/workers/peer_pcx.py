"""pcx: a model of layers and vodes, the whole batch under one of its jits, T steps in one of its scans."""
# pyright: reportMissingImports=false

import itertools

import jax
import jax.numpy as jnp
import optax
import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu
from protocol import AbstractRow, Arrays, Message, layers_of, named, named_states, offered, serve_rows

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh}
STATES = pxc.VodeParam | pxc.VodeParam.Cache


def free():
    """The states that relax: a new mask each time, since `to` changes the mask that it is asked of."""
    return pxu.M_hasnot(pxc.VodeParam, frozen=True)


class Model(pxc.EnergyModule):
    """A chain with a vode after every layer; the last compares by cross-entropy and is clamped."""

    def __init__(self, sizes, activation):
        super().__init__()
        self.activation = px.static(activation)
        self.layers = [pxnn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        self.vodes = [pxc.Vode() for _ in self.layers[:-1]] + [pxc.Vode(energy_fn=pxc.ce_energy)]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y):
        """Pass x through layers and vodes; clamp the output where y is given."""
        for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
            x = vode(self.activation(layer(x)))
        self.vodes[-1](self.layers[-1](x))
        if y is not None:
            self.vodes[-1].set("h", y)
        return self.vodes[-1].get("u")


@pxf.vmap(pxu.M(STATES).to((None, 0)), in_axes=(0, 0), out_axes=0)
def forward(x, y, *, model):
    """The feed-forward pass, which sets the states."""
    return model(x, y)


@pxf.vmap(pxu.M(STATES).to((None, 0)), in_axes=(0,), out_axes=(None, 0), axis_name="batch")
def energy(x, *, model):
    """Energy of the batch, summed."""
    out = model(x, None)
    return jax.lax.psum(model.energy(), "batch"), out


def relaxation(x, *, model, states):
    """One step of gradient descent on the states."""
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        _, slope = pxf.value_and_grad(free().to([False, True]), has_aux=True)(energy)(x, model=model)
    states.step(model, slope["model"])


def scanned(_, x, *, model, states):
    """The same as the body of a scan."""
    relaxation(x, model=model, states=states)
    return (x,), None


def weight_slope(x, *, model):
    """Gradient of the energy at the states that the model holds."""
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        _, slope = pxf.value_and_grad(pxu.M(pxnn.LayerParam).to([False, True]), has_aux=True)(energy)(x, model=model)
    return slope["model"]


def settle(steps: int, unrolled: bool, x, y, *, model, states):
    """The feed-forward pass, then all steps on the states."""
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(x, y, model=model)
    states.init(free()(model))
    if unrolled:
        for _ in range(steps):
            relaxation(x, model=model, states=states)
    else:  # the first step outside the scan: it changes the structure of the model
        relaxation(x, model=model, states=states)
        pxf.scan(scanned, xs=jnp.arange(steps - 1))(x, model=model, states=states)
    states.clear()


@pxf.jit(static_argnums=(0, 1))
def train(steps: int, unrolled: bool, x, y, *, model, states, weights):
    """One batch."""
    settle(steps, unrolled, x, y, model=model, states=states)
    weights.step(model, weight_slope(x, model=model), scale_by=1 / x.shape[0])


@pxf.jit(static_argnums=(0, 1))
def judge(steps: int, unrolled: bool, x, y, *, model, states):
    """States and gradient of one batch."""
    settle(steps, unrolled, x, y, model=model, states=states)
    slope = weight_slope(x, model=model)
    found = [(layer.nn.weight.get(), layer.nn.bias.get()) for layer in slope.layers]
    return found, [vode.h.get() for vode in model.vodes[:-1]]


class Pcx(AbstractRow):
    """pcx with its relaxation scanned or unrolled."""

    def __init__(self, unrolled: bool, workload: Message, problem: Arrays):
        self.x, self.y = jnp.asarray(problem["x"]), jnp.asarray(problem["y"])
        self.steps, self.unrolled, self.workload = workload["steps"], unrolled, workload
        self.given = layers_of(problem)
        self.reset()

    def reset(self):
        """Begin again: a model with the problem's weights (stored (out, in))."""
        self.model = Model(self.workload["sizes"], ACTIVATIONS[self.workload["activation"]])
        for layer, (weight, bias) in zip(self.model.layers, self.given, strict=True):
            layer.nn.weight.set(jnp.asarray(weight.T))
            layer.nn.bias.set(jnp.asarray(bias))
        self.states = pxu.Optim(lambda: optax.sgd(self.workload["step_size"]))
        self.rate = pxu.Optim(lambda: optax.sgd(self.workload["learning_rate"]))
        self.rate.init(pxu.M(pxnn.LayerParam)(self.model))
        self.at = 0

    def run(self, steps):
        """One call per batch."""
        for index in range(self.at, self.at + steps):
            batch = self.x[index % len(self.x)], self.y[index % len(self.x)]
            train(self.steps, self.unrolled, *batch, model=self.model, states=self.states, weights=self.rate)
        self.at += steps
        jax.block_until_ready(self.model.layers[0].nn.weight.get())

    def weights(self):
        """As they are."""
        return named((layer.nn.weight.get().T, layer.nn.bias.get()) for layer in self.model.layers)

    def equilibrium(self):
        """On the first batch."""
        self.reset()
        found, states = judge(self.steps, self.unrolled, self.x[0], self.y[0], model=self.model, states=self.states)
        size = len(self.y[0])
        return named((weight.T / size, bias / size) for weight, bias in found), named_states(states)


def offer(workload: Message) -> list[Message]:
    """Chains only."""
    if workload["kind"] != "mlp":
        return []
    return [offered(f"pcx {how}", workload["steps"], same=True) for how in ("scan", "unrolled")]


def prepare(name: str, workload: Message, problem: Arrays) -> AbstractRow:
    """One row."""
    return Pcx("unrolled" in name, workload, problem)


if __name__ == "__main__":
    serve_rows(offer, prepare)
