"""What a training reads: the kinds of it have one face."""

import abc
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxtyping import PRNGKeyArray

from energax.checking import tell
from energax.costs import AbstractCost
from energax.dynamics.phase import Batch
from energax.exceptions import RunError
from energax.graph.structure import AnyGraph
from energax.training.epoch import Programs
from energax.training.learner import Progress
from energax.training.metrics import Sums
from energax.training.rows import AbstractRows

PROBED = 64  # rows on which the regime is measured


class Stretch(NamedTuple):
    """What has been trained of an epoch.

    Attributes:
        progress: where the training stands.
        sums: what was seen since the epoch began.
        first, last: the batches since the last stretch.
    """

    progress: Progress
    sums: Sums
    first: int
    last: int


Pass = Iterator[Stretch]


class AbstractBatches(abc.ABC):
    """Where the batches of a training, or of a test, come from.

    Attributes:
        per_epoch: number of batches in an epoch; None where that is not known beforehand.
    """

    per_epoch: int | None = None

    def bind(self, graph: AnyGraph, cost: AbstractCost) -> None:
        """Learn what the batches are for, to look at what only that can tell. Nothing to do, unless said.

        Args:
            graph: the network.
            cost: of its outputs.

        Raises:
            DataError: targets that are no classes of its outputs, or that the cost has no meaning for.
        """
        return

    @abc.abstractmethod
    def probe(self) -> Batch:
        """The first rows, at most `PROBED`, on which the regime is measured; not augmented."""

    @abc.abstractmethod
    def train(self, programs: Programs, progress: Progress, key: PRNGKeyArray, *, alone: bool) -> Pass:
        """Train on one epoch, stretch by stretch.

        Args:
            programs: the compiled calls.
            progress: where the training stands; it is used up.
            key: the epoch's key.
            alone: whether the first batch is a stretch of its own, so that its cost is that of the network as it was.
        """

    @abc.abstractmethod
    def test(self, size: int) -> Iterator[tuple[AbstractRows | Batch, int]]:
        """The batches of a test, with the number of rows at a time, or whole rows to be cut."""

    def save(self) -> Any:
        """Where the source stands after an epoch, as JSON. Nothing, unless said: it begins anew with every epoch."""
        return None

    def restore(self, state: Any) -> None:
        """Go on where the source stood after an epoch, as if it had never been left. Nothing to do, unless said.

        Args:
            state: what `save` returned then.

        Raises:
            RunError: it cannot go on.
        """
        return


def save_source(batches: AbstractBatches) -> dict[str, Any]:
    """Of which kind the batches are, and where they stand."""
    return {"of": type(batches).__name__, "state": batches.save()}


def restore_source(batches: AbstractBatches, saved: dict[str, Any]) -> None:
    """Go on where batches of this kind stood.

    Raises:
        RunError: they are of another kind, or cannot go on.
    """
    if saved["of"] != type(batches).__name__:
        raise RunError(
            f"the run's batches were of {tell(saved['of'])}, and now they are of {type(batches).__name__!r}: give the "
            "batches of before, or start a new run from its model (energax.load)"
        )
    batches.restore(saved["state"])
