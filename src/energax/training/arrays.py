"""Batches of rows that lie on the device as a whole."""

import functools
import hashlib
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energax.checking import require_whole, tell
from energax.exceptions import RunError
from energax.graph.structure import shape_outputs
from energax.rules.base import open_batch
from energax.training.batches import PROBED, AbstractBatches, Stretch
from energax.training.epoch import Cut
from energax.training.incoming import require_targets
from energax.training.metrics import Sums
from energax.training.rows import AbstractRows, ArrayRows, make_array_rows

STRETCHES = 10  # compiled calls per epoch: often enough for a bar, seldom enough to cost nothing


class Arrays(AbstractBatches):
    """Rows that lie on the device as a whole, of any shape. Rows beyond the last whole batch rest in that epoch.

    Args:
        x: inputs, shape `(rows, *shape)`, or a mapping from clamped nodes to such arrays.
        y: targets as the cost takes them, shape `(rows, ...)`: numbers, or whole numbers for classes and tokens; or a
            mapping from outputs; None where there are none.
        batch: rows per update; fewer where there are fewer rows.
        weights: of every row in its batch's average, shape `(rows,)`; None weighs all alike.
        known: node -> which of its units are held, boolean, of the shape of its values, for missing ones: the others
            relax, and may be anything in x, NaN as well. None holds all.
        shuffle: whether every epoch has an order of its own.

    Raises:
        DataError: no rows, different numbers of them, or NaN and infinite values.
        SettingError: no number of rows per batch.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        batch: int = 64,
        weights: Any = None,
        known: Any = None,
        shuffle: bool = True,
    ):
        self._take(make_array_rows(x, y, weights, known), batch, shuffle)

    def _take(self, rows: AbstractRows, batch: int, shuffle: bool) -> None:
        require_whole("batch", batch, 1)
        self.rows, self.batch, self.shuffle = rows, min(batch, len(rows)), shuffle
        self.per_epoch = len(rows) // self.batch

    @classmethod
    def of(cls, rows: AbstractRows, batch: int) -> "Arrays":
        """Batches of rows that are on the device already."""
        made = cls.__new__(cls)
        made._take(rows, batch, True)
        return made

    def bind(self, graph, cost):
        """Look at the shapes, and at all targets."""
        jax.eval_shape(lambda batch: open_batch(graph, batch), self.probe())
        if isinstance(self.rows, ArrayRows):
            require_targets("y", self.rows.y, shape_outputs(graph), cost)

    def probe(self):
        """The first rows."""
        return self.rows.batch(jnp.arange(min(PROBED, len(self.rows))))

    def train(self, programs, progress, key, *, alone):
        """Ten stretches, each one compiled call."""
        total, whole = Sums.zero(programs.metrics), self.per_epoch or 0
        cut = Cut(self.batch, self.shuffle, programs.metrics)
        edges = {whole * part // STRETCHES for part in range(STRETCHES + 1)} | ({1} if alone else set())
        for first, last in itertools.pairwise(sorted(edges)):
            progress, sums = programs.stretch(progress, self.rows, cut, key, first, last)
            total = total.merge(sums)
            yield Stretch(progress, total, first, last)

    def test(self, size):
        """All rows in one call."""
        yield self.rows, min(size, len(self.rows))

    def save(self):
        """What the rows are, and how they are cut: every epoch's order follows from that and the seed."""
        return {"rows": len(self.rows), "batch": self.batch, "shuffle": self.shuffle, "checksum": self.checksum}

    @functools.cached_property
    def checksum(self) -> str:
        """Of all arrays, on the host."""
        summed = hashlib.sha256()
        for path, array in jax.tree_util.tree_leaves_with_path(eqx.filter(self.rows, eqx.is_array)):
            found = np.asarray(array)
            summed.update(f"{jax.tree_util.keystr(path)} {found.dtype} {found.shape} ".encode())
            summed.update(np.ascontiguousarray(found).tobytes())
        return summed.hexdigest()[:16]

    def restore(self, state):
        """Refuse other rows than the run was trained on, or another way to cut them."""
        for name, now in self.save().items():
            if state[name] != now:
                what = "rows of the checksum " if name == "checksum" else f"batches with {name}="
                raise RunError(
                    f"the run was trained on {what}{tell(state[name])}, and now it is {tell(now)}: give the batches "
                    "of before, or start a new run from its model (energax.load)"
                )
