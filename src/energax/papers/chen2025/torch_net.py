"""The training of figure 7 written in PyTorch: skew feedback on a chain of convolutions, relaxed by plain steps.

An independent implementation with autograd, from the formulas of docs/bipc.md; only figure 7 imports it.
"""
# pyright: reportMissingImports=false

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional


def to_torch(array) -> torch.Tensor:
    """A parameter of the graph: kernels (h, w, in, out) become (out, in, h, w)."""
    values = np.array(array)
    return torch.tensor(values.transpose(3, 2, 0, 1) if values.ndim == 4 else values, requires_grad=True)


class Net:
    """Convolutions with tanh units, then a linear readout of the flattened last image.

    Args:
        kernels, biases: of the convolutions, in energax's layout.
        weight, bias: of the readout.
        stride: of all convolutions.
        strength: a.
        step, steps: of the relaxation.
    """

    def __init__(self, kernels, biases, weight, bias, *, stride: int, strength: float, step: float, steps: int):
        self.kernels, self.biases = [to_torch(k) for k in kernels], [to_torch(b) for b in biases]
        self.weight, self.bias = to_torch(weight), to_torch(bias)
        self.stride, self.strength, self.step, self.steps = stride, strength, step, steps

    @property
    def parameters(self) -> list[torch.Tensor]:
        """All that is trained."""
        return [*self.kernels, *self.biases, self.weight, self.bias]

    def predict(self, layer: int, below: torch.Tensor) -> torch.Tensor:
        """The prediction of a layer from the state below it."""
        kernel = self.kernels[layer]
        drive = functional.conv2d(below, kernel, self.biases[layer], self.stride, kernel.shape[-1] // 2)
        return torch.tanh(drive)

    def read(self, last: torch.Tensor) -> torch.Tensor:
        """The output, from the image flattened channels last."""
        return last.permute(0, 2, 3, 1).flatten(1) @ self.weight + self.bias

    def sweep(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The feed-forward pass."""
        states = [x]
        for layer in range(len(self.kernels)):
            states.append(self.predict(layer, states[-1]))
        return states[1:]

    def feedback(self, layer: int, vbar: Sequence[torch.Tensor], moved: torch.Tensor) -> torch.Tensor:
        """J(vbar)^T of the prediction of a layer, its parameters held: what its change says to the layer below."""
        kernel, below = self.kernels[layer].detach(), vbar[layer - 1]
        slope = moved * (1 - vbar[layer] ** 2)
        missing = below.shape[-1] - (
            (slope.shape[-1] - 1) * self.stride - 2 * (kernel.shape[-1] // 2) + kernel.shape[-1]
        )
        return functional.conv_transpose2d(slope, kernel, None, self.stride, kernel.shape[-1] // 2, missing)

    def energy(self, x, states, vbar, labels) -> torch.Tensor:
        """F = 1/2 sum |v - vhat + a k|^2 + C, summed over the batch."""
        total = functional.cross_entropy(self.read(states[-1]), labels, reduction="sum")
        for layer, state in enumerate(states):
            residue = state - self.predict(layer, states[layer - 1] if layer else x)
            if layer + 1 < len(states):
                heard = self.feedback(layer + 1, vbar, states[layer + 1] - vbar[layer + 1])
                residue = residue + self.strength * heard
            total = total + (residue**2).sum() / 2
        return total

    def gradient(self, x: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
        """Relax, and leave the mean gradient at the parameters; cost and right answers of the feed-forward pass."""
        with torch.no_grad():
            vbar = self.sweep(x)
            output = self.read(vbar[-1])
            cost = functional.cross_entropy(output, labels).item()
            right = int((output.argmax(1) == labels).sum())
        states = [v.clone().requires_grad_() for v in vbar]
        for _ in range(self.steps):
            forces = torch.autograd.grad(self.energy(x, states, vbar, labels), states)
            states = [(v - self.step * f).detach().requires_grad_() for v, f in zip(states, forces, strict=True)]
        held = [v.detach() for v in states]
        (self.energy(x, held, vbar, labels) / len(x)).backward()
        return cost, right


def train(net: Net, images, labels, orders: Sequence[np.ndarray], batch: int, rate: float) -> list[dict]:
    """Train by Adam, epoch by epoch in the given orders.

    Args:
        net: what to train.
        images: normalised, channels last, shape `(rows, height, width, channels)`.
        labels: shape `(rows,)`.
        orders: of the rows, one per epoch.
        batch: rows per update.
        rate: learning rate.

    Returns:
        Per epoch the costs and shares of right answers before each update, and the seconds.
    """
    x = torch.tensor(np.ascontiguousarray(np.asarray(images).transpose(0, 3, 1, 2)))
    y = torch.tensor(np.asarray(labels), dtype=torch.long)
    optimiser, epochs = torch.optim.Adam(net.parameters, lr=rate), []
    for order in orders:
        begun, costs, shares = time.perf_counter(), [], []
        for first in range(0, len(order) - batch + 1, batch):
            rows = torch.tensor(order[first : first + batch].copy())
            optimiser.zero_grad()
            cost, right = net.gradient(x[rows], y[rows])
            optimiser.step()
            costs.append(cost)
            shares.append(right / batch)
        epochs.append({"cost": costs, "accuracy": shares, "seconds": time.perf_counter() - begun})
    return epochs
