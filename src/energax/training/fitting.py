"""`fit`: a learner on a data set of images and their classes, with its three splits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from energax.checking import require_count, require_kind, require_whole
from energax.costs import MANY
from energax.data import Dataset
from energax.exceptions import SettingError
from energax.metrics import ACCURACY, COST, TOP_5, Metric
from energax.training.arrays import Arrays
from energax.training.callbacks import Callback
from energax.training.learner import Learner, require_finite_parameters, root_key
from energax.training.loop import Run, train
from energax.training.rows import make_device_split
from energax.training.run_folder import RunFolder


def fit(
    learner: Learner,
    data: Dataset,
    *,
    epochs: int,
    batch: int = 64,
    seed: int = 0,
    folder: RunFolder | str | Path | None = None,
    resume: bool = False,
    standardise: bool = False,
    metrics: Sequence[Metric] | None = None,
    regime: bool = True,
    display: Callback | None = None,
    callbacks: Sequence[Callback] = (),
    config: dict[str, Any] | None = None,
) -> Run:
    """Train a learner on images and their classes: `train` with a data set's splits.

    Rows are shuffled every epoch; the rows beyond the last whole batch rest in that epoch. The validation split chooses
    the best epoch, and the test split is used once, at the end.

    Args:
        learner: what to train.
        data: the data set.
        epochs: passes over the training split, those before a resumption included.
        batch: rows per update.
        seed: fixes the order of the rows and all random layers and augmentations.
        folder: where to keep the run; None keeps nothing.
        resume: continue the run in `folder` from its last finished epoch, as if it had never stopped.
        standardise: normalise pixels per channel instead of leaving them in [0, 1].
        metrics: what is told of the outputs; left out, accuracy, top 5 of more than ten classes, and cost.
        regime: whether the regime is measured on the first rows after every epoch; that compiles for some seconds.
        display: who is told of the progress; None hears of warnings alone, as Python warnings (`TrainingWarning`).
        callbacks: who else is told, and may end the training.
        config: further settings to be recorded.

    Raises:
        SettingError: settings out of range.
        DivergenceError: parameters or cost are not finite.
        RunError: the folder cannot be used, or holds a run with other settings.
    """
    require_settings(learner, data, epochs, batch)
    root_key(seed)
    if metrics is None:
        metrics = (ACCURACY, *((TOP_5,) if data.classes > MANY else ()), COST)

    def place(split, augment: bool = False) -> Arrays:
        return Arrays.of(make_device_split(data, split, standardise=standardise, augment=augment), batch)

    given = {"data": data.name, "batch": batch, "standardise": standardise, "origin": data.origin}
    return train(
        learner,
        place(data.train, True),
        epochs=epochs,
        validation=place(data.validation),
        test=place(data.test),
        metrics=metrics,
        seed=seed,
        regime=regime,
        folder=folder,
        resume=resume,
        display=display,
        callbacks=callbacks,
        config={**given, "checksums": dict(data.checksums), **(config or {})},
    )


def require_settings(learner: Learner, data: Dataset, epochs: int, batch: int) -> None:
    """Refuse settings that cannot work, before anything is compiled or written."""
    require_kind("fit: learner", learner, Learner, "give a Learner(graph, dynamics, solver, rule, optimiser)")
    remedy = "give a Dataset, as energax.load_data('digits') or data.Dataset.from_arrays(...) makes them"
    require_kind("fit: data", data, Dataset, f"{remedy}; other arrays are for energax.train")
    require_count("epochs", epochs)
    require_whole("batch", batch, 1)
    if batch > len(data.train):
        raise SettingError(f"batch={batch}: give a size between 1 and the {len(data.train)} training rows")
    if len(learner.graph.inputs) != 1 or len(learner.graph.outputs) != 1:
        raise SettingError("fit trains on images and their classes: give the graph one input and one output")
    shape = learner.graph.node(learner.graph.inputs[0]).shape
    if shape != data.image_shape:
        raise SettingError(
            f"the graph's input has shape {shape}, and the images of {data.name} have {data.image_shape}"
        )
    outputs = learner.graph.node(learner.graph.outputs[0].node).shape
    if outputs != (data.classes,):
        raise SettingError(f"the graph's output has shape {outputs}, and {data.name} has {data.classes} classes")
    require_finite_parameters(learner.model, "before the first batch")
