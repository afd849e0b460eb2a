"""Figure 7: the same training here and in PyTorch: accuracy, loss, and time per epoch."""

import dataclasses
import statistics
import time
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import energax as ex
from energax.data import normalise
from energax.papers.cells import Cells
from energax.papers.chen2025.common import PAPER
from energax.papers.experiment import Experiment, Judgement, Numbers, judge_claim
from energax.papers.pictures import QUIET, panels
from energax.papers.training import keep_rows
from energax.solvers import Unbounded
from energax.training.learner import begin, root_key, update


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the figure depends on.

    Attributes:
        data: data set, pixels normalised per channel, not augmented.
        channels: of the convolutions, each of which halves the image by its stride.
        strength: a of the skew feedback.
        step, steps: of the relaxation, plain steps as in the paper.
        rate: learning rate of Adam.
        epochs: passes over the training rows.
        rows: training rows, from the first.
        batch: rows per update.
        seed: of weights and order.
    """

    data: str = "cifar10"
    channels: tuple[int, ...] = (16, 32, 64)
    strength: float = 0.3
    step: float = 0.1
    steps: int = 20
    rate: float = 0.001
    epochs: int = 4
    rows: int = 2048
    batch: int = 128
    seed: int = 0


STRIDE = 2


def build_learner(settings: Settings, data) -> ex.Learner:
    """The training in energax."""
    key = jax.random.fold_in(root_key(settings.seed), 1)
    graph = ex.networks.convolutional(
        data.image_shape, settings.channels, data.classes, jnp.tanh, output_state=False, key=key
    )
    stop = ex.Stopping(1e-3, settings.steps, check_every=0)
    solver = ex.GradientFlow(step_size=settings.step, bound=Unbounded(), stop=stop)
    rule = ex.Contrastive(ex.rules.unit_nudge())
    return ex.Learner(graph, ex.SkewFeedback(strength=settings.strength), solver, rule, optax.adam(settings.rate))


def orders(settings: Settings) -> list[np.ndarray]:
    """The order of the rows in every epoch, the same for both."""
    draw = np.random.default_rng(settings.seed)
    return [draw.permutation(settings.rows) for _ in range(settings.epochs)]


def train_here(settings: Settings) -> list[dict]:
    """Costs and accuracies before each update, and seconds, epoch by epoch; compiled before the first."""
    data = keep_rows(ex.load_data(settings.data), settings.rows)
    images, labels = normalised(data)
    learner = build_learner(settings, data)
    targets = jax.nn.one_hot(labels, data.classes)

    @eqx.filter_jit
    def epoch(progress, order):
        dynamic, static = eqx.partition(progress, eqx.is_array)

        def one(dynamic, rows):
            progress, info = update(learner, eqx.combine(dynamic, static), ex.Batch(images[rows], targets[rows]))
            right = jnp.mean(jnp.argmax(cast(jax.Array, info.output), -1) == labels[rows])
            return eqx.filter(progress, eqx.is_array), (jnp.mean(info.cost), right)

        dynamic, told = jax.lax.scan(one, dynamic, order)
        return eqx.combine(dynamic, static), told

    progress, found = begin(learner), []
    batches = [
        order[: len(order) // settings.batch * settings.batch].reshape(-1, settings.batch) for order in orders(settings)
    ]
    jax.block_until_ready(epoch(progress, batches[0])[1])
    for order in batches:
        begun = time.perf_counter()
        progress, (costs, shares) = jax.block_until_ready(epoch(progress, order))
        seconds = time.perf_counter() - begun
        found.append({"cost": costs.tolist(), "accuracy": shares.tolist(), "seconds": seconds})
    return found


def normalised(data) -> tuple[jax.Array, jax.Array]:
    """Images and labels of the training split."""
    images = normalise(jnp.asarray(data.train.images), data.scale, data.mean, data.std)
    return images, jnp.asarray(data.train.labels)


def train_torch(settings: Settings) -> list[dict]:
    """The same from the same weights, in PyTorch."""
    from energax.papers.chen2025.torch_net import Net, train

    data = keep_rows(ex.load_data(settings.data), settings.rows)
    functions = build_learner(settings, data).graph.functions
    layers = [functions[f"layer{index}"] for index in range(1, len(settings.channels) + 1)]
    readout = functions[f"layer{len(layers) + 1}"].layers[1]
    net = Net(
        [layer.weight for layer in layers],
        [layer.bias for layer in layers],
        readout.weight,
        readout.bias,
        stride=STRIDE,
        strength=settings.strength,
        step=settings.step,
        steps=settings.steps,
    )
    images, labels = normalised(data)
    return train(net, images, labels, orders(settings), settings.batch, settings.rate)


def run(settings: Settings, cells: Cells) -> Numbers:
    """Both, one after the other."""
    return {
        "energax": cells("energax", lambda: train_here(settings)),
        "torch": cells("torch", lambda: train_torch(settings)),
    }


def curve(epochs: list[dict], name: str) -> np.ndarray:
    """A number batch by batch."""
    return np.concatenate([epoch[name] for epoch in epochs])


def draw(numbers: Numbers) -> Figure:
    """Both curves superposed, and the times."""
    figure, (accuracy, cost, seconds) = panels(3)
    for index, (name, width) in enumerate((("torch", 2.8), ("energax", 1.0))):
        style = {"color": f"C{index}", "linewidth": width, "label": name}
        accuracy.plot(100 * curve(numbers[name], "accuracy"), **style)
        cost.plot(curve(numbers[name], "cost"), **style)
        times = [epoch["seconds"] for epoch in numbers[name]]
        seconds.bar(np.arange(1, len(times) + 1) + (index - 0.5) * 0.4, times, 0.4, color=f"C{index}", label=name)
    accuracy.set(title="training accuracy, %", xlabel="batch")
    cost.set(title="training loss", xlabel="batch")
    seconds.set(title="seconds per epoch, compiling left out", xlabel="epoch")
    for axes in (accuracy, cost, seconds):
        axes.legend(**QUIET)
    return figure


def judge(numbers: Numbers) -> list[Judgement]:
    """Whether the curves are the same, and which is faster."""
    ours, theirs = (curve(numbers[name], "cost") for name in ("energax", "torch"))
    shares = [curve(numbers[name], "accuracy") for name in ("energax", "torch")]
    apart, off = np.max(np.abs(ours - theirs) / theirs), 100 * np.max(np.abs(shares[0] - shares[1]))
    seconds = {name: statistics.median(epoch["seconds"] for epoch in numbers[name]) for name in ("energax", "torch")}
    ratio = seconds["energax"] / seconds["torch"]
    return [
        judge_claim(
            "Fig. 7a",
            "the same training in PyTorch and here has the same curves (losses within 1 %, batch by batch)",
            bool(apart < 0.01),
            f"largest relative difference of a loss {apart:.2g}, of an accuracy {off:.2g} points",
            change="skew feedback in the place of Eq. 10",
        ),
        judge_claim(
            "Fig. 7b",
            "an epoch takes less time here than in PyTorch (the paper says half)",
            ratio < 1,
            f"median seconds: here {seconds['energax']:.3g}, PyTorch {seconds['torch']:.3g}, ratio {ratio:.2g}",
        ),
    ]


EXPERIMENT = Experiment(
    name="chen2025-fig7",
    paper=PAPER,
    summary="the same training here and in PyTorch: curves and time per epoch",
    small=Settings(data="digits", channels=(8, 16), rows=512, batch=64, epochs=2),
    full=Settings(),
    run=run,
    draw=draw,
    judge=judge,
    needs=("torch",),
)
