"""Makes a problem: a net trained for a while by energax, and batches that it has not seen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.lines import rule_of
from benchmarks.network import arrays_of, dynamics_of, graph_of
from benchmarks.workers.own import stretch
from benchmarks.workers.protocol import Message, serve, write_arrays
from benchmarks.workload import Workload
from energax.data import Dataset, load_data
from energax.dynamics.phase import Batch
from energax.exceptions import DataError
from energax.rules import Backprop
from energax.solvers import FixedPoint, Stopping
from energax.training.learner import Learner, begin

TRAINING, UNSEEN = 100, 8  # batches


def dataset(workload: Workload) -> Dataset:
    """The customary data set where it lies on this machine, else the embedded digits."""
    wanted = {"conv": "cifar10"}.get(workload.kind, "mnist" if workload.sizes[0] == 784 else "digits")
    try:
        return load_data(wanted, download=False)
    except DataError:
        return load_data("digits")


def enlarged(images: np.ndarray, workload: Workload) -> np.ndarray:
    """Images at the size and with the channels that the network takes, by repeating pixels; vectors for an mlp."""
    conv = workload.kind == "conv"
    side = workload.side if conv else round(workload.sizes[0] ** 0.5)
    index = np.arange(side) * images.shape[1] // side
    images = images[:, index][:, :, index]
    if conv:
        return np.broadcast_to(images, (*images.shape[:3], workload.sizes[0]))
    return images.reshape(len(images), -1)


def batches_of(workload: Workload) -> tuple[np.ndarray, np.ndarray, str]:
    """Batches of pixels in [0, 1] and one-hot labels, and the name of what they are."""
    data = dataset(workload)
    count = min(len(data.train) // workload.batch, TRAINING + UNSEEN)
    rows = slice(0, count * workload.batch)
    x = enlarged(data.train.images[rows], workload).astype(np.float32) / data.scale
    y = np.eye(data.classes, dtype=np.float32)[data.train.labels[rows]]
    x, y = (a.reshape(count, workload.batch, *a.shape[1:]) for a in (x, y))
    return x, y, data.name


def make(message: Message) -> Message:
    """Train by backprop (Hopfield nets by equilibrium propagation), write weights and the batches left over."""
    workload = Workload(**message["workload"])
    x, y, name = batches_of(workload)
    unseen = min(UNSEEN, max(1, len(x) // 4))
    seen = Batch(jnp.asarray(x[:-unseen]), jnp.asarray(y[:-unseen]))
    hopfield = workload.kind == "hopfield"
    rule = rule_of(workload) if hopfield else Backprop()
    graph = graph_of(workload, jax.random.key(0))
    solver = FixedPoint(stop=Stopping(1e-2, 60))
    learner = Learner(graph, dynamics_of(workload), solver, rule, optax.adam(1e-3))
    trained = stretch(learner, begin(learner), seen, jnp.asarray(message["steps"])).model.graph
    write_arrays(message["out"], {"x": x[-unseen:], "y": y[-unseen:], **arrays_of(trained)})
    return {"data": f"{name}, {message['steps']} batches of Adam"}


if __name__ == "__main__":
    serve({"make": make, "device": lambda _: {"kind": jax.devices()[0].device_kind}})
