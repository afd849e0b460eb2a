"""PyTorch: backprop, the usual script (energies by autograd), and hand-written local gradients, compiled too."""
# pyright: reportMissingImports=false

from functools import partial

import torch
import torch.nn.functional as F
from protocol import AbstractRow, Arrays, Message, layers_of, named, named_states, offered, on_gpu, serve_rows

torch.set_num_threads(1)
torch.backends.cudnn.allow_tf32 = False  # float32 means float32; for matrix products that is so already
DEVICE = "cuda" if on_gpu() else "cpu"

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "hard_sigmoid": lambda v: v.clamp(0, 1)}
SLOPES = {"relu": lambda f: (f > 0).to(f.dtype), "tanh": lambda f: 1 - f * f}


def apply(workload, weights, index, h):
    """What arrives after one layer: a matrix; or a convolution, channels first, that 2 x 2 max-pooling may follow."""
    weight, bias = weights[index]
    if weight.ndim == 4:
        side, pooled = workload["convolutions"][index]
        h = F.conv2d(h, weight, bias, padding=side // 2)
        return F.max_pool2d(h, 2) if pooled else h
    h = h.permute(0, 2, 3, 1).flatten(1) if h.ndim == 4 else h
    return torch.addmm(bias, h, weight)


def predict(workload, weights, index, h):
    """Its activation."""
    return ACTIVATIONS[workload["activation"]](apply(workload, weights, index, h))


def sweep(workload, weights, x):
    """The states of the feed-forward pass."""
    states = []
    for index in range(len(weights) - 1):
        x = predict(workload, weights, index, x)
        states.append(x)
    return states


def cross_entropy(output, y):
    """Summed over the batch."""
    return -(y * F.log_softmax(output, -1)).sum()


def squared_error(output, y):
    """Half the squared distance, summed over the batch."""
    return ((output - y) ** 2).sum() / 2


def output_cost(workload, weights, x, y):
    """The cost of the feed-forward pass, that of the other rows, averaged over the batch."""
    price = squared_error if workload["kind"] == "hopfield" else cross_entropy
    states = sweep(workload, weights, x)
    return price(apply(workload, weights, len(states), states[-1]), y) / len(y)


def backprop(workload, weights, x, y, output_cost=output_cost):
    """The gradient through the feed-forward pass."""
    cost = output_cost(workload, weights, x, y)
    return torch.autograd.grad(cost, [p for layer in weights for p in layer]), ()


def energy(workload, weights, x, y, states):
    """F of the batch."""
    below = sweep_once(workload, weights, x, states)
    errors = sum(((v - p) ** 2).sum() / 2 for v, p in zip(states, below, strict=True))
    return errors + cross_entropy(apply(workload, weights, len(states), states[-1]), y)


def sweep_once(workload, weights, x, states):
    """The prediction of every state from the one below."""
    return [predict(workload, weights, index, v) for index, v in enumerate([x, *states[:-1]])]


def autograd(workload, weights, x, y, energy=energy):
    """T times: energy, backward, step; then backward to the weights."""
    with torch.no_grad():
        states = sweep(workload, weights, x)
    states = [v.detach().requires_grad_() for v in states]
    frozen = [[p.detach() for p in layer] for layer in weights]
    for _ in range(workload["steps"]):
        slopes = torch.autograd.grad(energy(workload, frozen, x, y, states), states)
        with torch.no_grad():
            for v, slope in zip(states, slopes, strict=True):
                v -= workload["step_size"] * slope
    states = [v.detach() for v in states]
    cost = energy(workload, weights, x, y, states) / len(y)
    return torch.autograd.grad(cost, [p for layer in weights for p in layer]), states


def descend(workload, weights, first, y, states, count):
    """Some steps of gradient descent on the states, in place."""
    slope, step = SLOPES[workload["activation"]], workload["step_size"]
    for _ in range(count):
        predictions = [first, *(predict(workload, weights, i, v) for i, v in enumerate(states[:-1], start=1))]
        errors = [v - p for v, p in zip(states, predictions, strict=True)]
        pulls = [e * slope(p) for e, p in zip(errors[1:], predictions[1:], strict=True)]
        pulls.append(y - torch.softmax(apply(workload, weights, len(states), states[-1]), -1))
        for v, e, pull, (weight, _) in zip(states, errors, pulls, weights[1:], strict=True):
            v.add_(e, alpha=-step).addmm_(pull, weight.T, alpha=step)


STRETCH = 25  # steps that are compiled together: of more, the compiler takes minutes


@torch.no_grad()
def local(workload, weights, x, y, descend=descend):
    """The same with the gradients written out and the first layer's map computed once; matrices only."""
    slope = SLOPES[workload["activation"]]
    states = sweep(workload, weights, x)
    first = states[0].clone()
    for taken in range(0, workload["steps"], STRETCH):
        descend(workload, weights, first, y, states, min(STRETCH, workload["steps"] - taken))
    predictions = sweep_once(workload, weights, x, states)
    pulls = [(v - p) * slope(p) for v, p in zip(states, predictions, strict=True)]
    pulls.append(y - torch.softmax(apply(workload, weights, len(states), states[-1]), -1))
    below = [x, *states]
    gradient = [g for v, pull in zip(below, pulls, strict=True) for g in (-v.T @ pull / len(y), -pull.sum(0) / len(y))]
    return gradient, states


def hopfield_energy(weights, x, y, beta, hidden, output):
    """Internal energy and nudge; its gradient gives the synchronous update v <- clip(v - dF/dv)."""
    (w1, b1), (w2, b2) = weights
    stored = (hidden**2).sum() / 2 + (output**2).sum() / 2
    interaction = (hidden * torch.addmm(b1, x, w1)).sum() + (output * torch.addmm(b2, hidden, w2)).sum()
    return stored - interaction + beta * squared_error(output, y)


def settled(workload, weights, x, y, beta, states, steps):
    """Sweeps by autograd of the energy."""
    for _ in range(steps):
        states = [v.detach().requires_grad_() for v in states]
        slopes = torch.autograd.grad(hopfield_energy(weights, x, y, beta, *states), states)
        hidden, output = (v - slope for v, slope in zip(states, slopes, strict=True))
        states = [hidden.clamp(0, 1), states[1] + (output - states[1]) / (1 + beta)]
    return [v.detach() for v in states]


def hopfield_autograd(workload, weights, x, y):
    """One-sided equilibrium propagation in the usual way."""
    frozen, beta = [[p.detach() for p in layer] for layer in weights], workload["beta"]
    silent = [torch.zeros(len(x), len(frozen[0][1])), torch.zeros_like(y)]
    free = settled(workload, frozen, x, y, 0.0, silent, workload["steps"])
    nudged = settled(workload, frozen, x, y, beta, free, workload["nudged"])
    contrast = hopfield_energy(weights, x, y, beta, *nudged) - hopfield_energy(weights, x, y, 0.0, *free)
    return torch.autograd.grad(contrast / (beta * len(x)), [p for layer in weights for p in layer]), nudged


@torch.no_grad()
def hopfield_local(workload, weights, x, y):
    """The same with the updates written out."""
    ((w1, b1), (w2, b2)), beta = weights, workload["beta"]
    drive, silent = torch.addmm(b1, x, w1), (torch.zeros(len(x), len(b1)), torch.zeros_like(y))

    def relaxed(beta, states, steps):
        hidden, output = states
        for _ in range(steps):
            upper = torch.addmm(b2, hidden, w2)
            hidden = torch.addmm(drive, output, w2.T).clamp_(0, 1)
            output = upper.add_(y, alpha=beta).div_(1 + beta) if beta else upper
        return hidden, output

    h, o = relaxed(0.0, silent, workload["steps"])
    k, p = relaxed(beta, (h, o), workload["nudged"])
    scale = beta * len(x)
    gradient = [x.T @ (h - k), (h - k).sum(0), torch.addmm(h.T @ o, k.T, p, alpha=-1), (o - p).sum(0)]
    return [g / scale for g in gradient], (k, p)


FUNCTIONS = {  # functions are compiled on their first call
    "torch backprop": backprop,
    "torch autograd energies": autograd,
    "torch by hand": local,
    "torch autograd EP": hopfield_autograd,
    "torch EP by hand": hopfield_local,
    "torch backprop, compiled": partial(backprop, output_cost=torch.compile(output_cost)),
    "torch autograd energies, compiled": partial(autograd, energy=torch.compile(energy)),
    "torch by hand, compiled": partial(local, descend=torch.compile(descend)),
    "torch EP by hand, compiled": torch.compile(hopfield_local),
}


class Torch(AbstractRow):
    """A gradient function with plain gradient descent."""

    def __init__(self, function, workload: Message, problem: Arrays):
        self.function, self.workload = function, workload
        x = torch.tensor(problem["x"], device=DEVICE)
        self.x = x.permute(0, 1, 4, 2, 3).contiguous() if x.ndim == 5 else x
        self.y = torch.tensor(problem["y"], device=DEVICE)
        self.given = [tuple(torch.tensor(part, device=DEVICE) for part in layer) for layer in layers_of(problem)]
        self.reset()

    def reset(self):
        """Begin again."""
        flip = [(w.permute(3, 2, 0, 1) if w.ndim == 4 else w, b) for w, b in self.given]
        self.now = [tuple(p.clone().contiguous().requires_grad_() for p in layer) for layer in flip]
        self.at = 0

    def run(self, steps):
        """One batch after the other."""
        for step in range(self.at, self.at + steps):
            index = step % len(self.x)
            gradient, _ = self.function(self.workload, self.now, self.x[index], self.y[index])
            with torch.no_grad():
                for p, g in zip([p for layer in self.now for p in layer], gradient, strict=True):
                    p.sub_(g, alpha=self.workload["learning_rate"])
        self.at += steps
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    def weights(self):
        """As they are, kernels in the problem's order."""
        return by_name([p for layer in self.now for p in layer])

    def equilibrium(self):
        """On the first batch."""
        self.reset()
        gradient, states = self.function(self.workload, self.now, self.x[0], self.y[0])
        last = [v.permute(0, 2, 3, 1) if v.ndim == 4 else v for v in states]
        return by_name(gradient), named_states(v.cpu().numpy() for v in last)


def by_name(flat) -> Arrays:
    """Weights and biases in turn, as arrays by name."""
    arrays = [p.detach().cpu() for p in flat]
    arrays = [p.permute(2, 3, 1, 0).numpy() if p.ndim == 4 else p.numpy() for p in arrays]
    return named(zip(arrays[::2], arrays[1::2], strict=True))


def offer(workload: Message) -> list[Message]:
    """What there is for a kind of network; on a processor only the best is compiled, which takes a while."""
    names = {
        "hopfield": ["torch autograd EP", "torch EP by hand"],
        "conv": ["torch autograd energies"],
        "mlp": ["torch autograd energies", "torch by hand"],
    }[workload["kind"]]
    compiled = [name for name in names if f"{name}, compiled" in FUNCTIONS]
    names += [f"{name}, compiled" for name in compiled if DEVICE == "cuda" or "by hand" in name]
    backprops = ["torch backprop", *(["torch backprop, compiled"] if DEVICE == "cuda" else [])]
    return [
        *(offered(name, role="backprop", same=True) for name in backprops),
        *(offered(name, workload["steps"], same=True) for name in names),
    ]


def prepare(name: str, workload: Message, problem: Arrays) -> AbstractRow:
    """One row."""
    return Torch(FUNCTIONS[name.rpartition(" x")[0] or name], workload, problem)


if __name__ == "__main__":
    serve_rows(offer, prepare)
