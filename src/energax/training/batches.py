"""What a training reads: arrays on the device, or any iterable of batches."""

import abc
import base64
import dataclasses
import itertools
import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from energax.checking import require_whole, tell
from energax.dynamics.phase import Batch
from energax.exceptions import DataError, RunError, SettingError
from energax.graph.structure import AnyGraph, shape_outputs
from energax.training.epoch import Cut, Programs
from energax.training.learner import Progress
from energax.training.metrics import Sums
from energax.training.rows import AbstractRows, ArrayRows, find_mask, make_array_rows, require_finite_numbers

STRETCHES = 10  # compiled calls per epoch of rows: often enough for a bar, seldom enough to cost nothing
PAUSE = 0.5  # seconds between looks at the averages of a stream: each waits for the device
GROUP = 16  # batches of a stream in one compiled call, which costs milliseconds
AT_ONCE = 64_000_000  # bytes of such a group
PROBED = 64  # rows on which the regime is measured

Pass = Iterator["Stretch"]


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


class AbstractBatches(abc.ABC):
    """Where the batches of a training, or of a test, come from.

    Attributes:
        per_epoch: number of batches in an epoch; None where that is not known beforehand.
    """

    per_epoch: int | None = None

    def bind(self, graph: AnyGraph) -> None:
        """Learn which graph the batches are for, to look at what only it can tell. Nothing to do, unless said.

        Raises:
            DataError: targets that are no classes of its outputs.
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

    def bind(self, graph):
        """Look at all targets."""
        if isinstance(self.rows, ArrayRows):
            require_classes("y", self.rows.y, shape_outputs(graph))

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


class Stream(AbstractBatches):
    """Any iterable of batches: a generator, a list, a `DataLoader` of torch, a loader of grain.

    Each batch is `(x, y)`, x alone, a `Batch`, or a mapping: with the key `x` it holds a `Batch`'s fields by name,
    without it the values of clamped nodes. A thread reads ahead, checks the numbers and puts them on the device. A
    batch with fewer rows than the one before it is filled up with rows of weight 0, so that nothing is compiled anew.

    Args:
        batches: the iterable; a function without arguments that returns one is called at the beginning of every epoch.
        per_epoch: batches in an epoch, as for a stream without an end: the next epoch goes on where the last one
            stopped, and begins anew where the iterable ends. Left out: an epoch is a pass over the iterable.
        prefetch: batches that are read ahead.

    A run can be resumed exactly where the iterable is a sequence, or its iterator has `get_state` and `set_state`
    (grain), or `state_dict` and `load_state_dict` (torchdata); others are refused when they should be.

    Raises:
        SettingError: no iterable, or numbers below 1.
    """

    def __init__(self, batches: Any, *, per_epoch: int | None = None, prefetch: int = 2):
        if per_epoch is not None:
            require_whole("Stream: per_epoch", per_epoch, 1)
        require_whole("Stream: prefetch", prefetch, 1)
        if not (callable(batches) or isinstance(batches, Iterable)) or isinstance(batches, (str, bytes, Mapping)):
            raise SettingError(
                f"batches={tell(batches)}: give Arrays(x, y, batch=64), or an iterable of batches (x, y), such as a "
                "list or a DataLoader"
            )
        self.given, self.prefetch, self.limit = batches, prefetch, per_epoch
        self.per_epoch = per_epoch if per_epoch is not None else count(batches)
        self._iterator: Any = None
        self._ahead: list[Any] = []  # what `probe` has read of an iterator that cannot begin anew
        self._size, self._at, self._shapes = 0, 0, None

    def bind(self, graph):
        """Look at the targets of every batch that comes."""
        self._shapes = shape_outputs(graph)

    def probe(self):
        """The first rows of the first batch, which is not lost."""
        iterator = self._begin()
        try:
            first = next(iterator)
        except StopIteration:
            raise DataError(f"{tell(self.given)} holds no batches: give at least one") from None
        if iterator is self.given or (callable(self.given) and not isinstance(self.given, Iterable)):
            self._ahead, self._iterator = [first], iterator
        batch = jax.tree.map(jnp.asarray, check_batch(first, 1))
        return jax.tree.map(lambda a: a[:PROBED], batch)

    def train(self, programs, progress, key, *, alone):
        """Batch after batch; the averages are looked at now and then."""
        sums, first, last, told = Sums.zero(programs.metrics), 0, 0, time.perf_counter()
        for group, size in self._read(self.limit, GROUP):
            begun, done = last, 0
            if alone and not last:
                progress, sums = programs.group(progress, sums, group, key, begun, 0, 1)
                first, last, done = 1, 1, 1
                yield Stretch(progress, sums, 0, 1)
            if done < size:
                progress, sums = programs.group(progress, sums, group, key, begun, done, size)
            last = begun + size
            if time.perf_counter() - told > PAUSE:
                yield Stretch(progress, sums, first, last)
                first, told = last, time.perf_counter()
        if not last:
            raise DataError(
                f"{tell(self.given)} is used up and gave no batch: give an iterable that can begin anew, such as a "
                "list, a DataLoader, or a function that returns a new generator"
            )
        if last > first:
            yield Stretch(progress, sums, first, last)

    def test(self, size):
        """Batch after batch."""
        for group, _ in self._read(None, 1):
            yield jax.tree.map(lambda a: a[0], group), group.weights.shape[1]

    def save(self):
        """The state of the iterator, or its place."""
        if self.limit is None:
            return None  # every epoch is a pass of its own
        return {"at": self._at, "state": read_state(self._iterator)}

    def restore(self, state):
        """Begin where the iterator stood."""
        given = self.given
        exact = isinstance(given, Sequence) or has_state(self._iterator) or has_state(iterator_of(given))
        if not exact:
            raise RunError(
                f"a run on {tell(given)} cannot be resumed exactly: it has neither a state (get_state and set_state, "
                "as in grain; state_dict and load_state_dict, as in torchdata) nor can it skip (a sequence). Train "
                "without resume, or give such an iterable"
            )
        self._ahead = []
        if self.limit is None or state is None:
            self._iterator = None
            return
        self._at, self._iterator = state["at"], iterator_of(given)
        if state["state"] is not None:
            write_state(self._iterator, state["state"])
        else:
            next(itertools.islice(self._iterator, self._at, self._at), None)

    def _begin(self) -> Iterator[Any]:
        """A new pass, or the same iterator where there is only one."""
        self._at = 0
        return iterator_of(self.given)

    def _raw(self, limit: int | None) -> Iterator[Any]:
        """So many batches as they come; one pass where there is no limit."""
        if self._iterator is None or (limit is None and not self._ahead):
            self._iterator = self._begin()
        found, empty = 0, False
        while limit is None or found < limit:
            batch = self._ahead.pop() if self._ahead else next(self._iterator, END)
            if batch is END:
                if limit is None or empty or self._iterator is self.given:
                    return
                self._iterator, empty = self._begin(), True
                continue
            found, empty, self._at = found + 1, False, self._at + 1
            yield batch

    def _read(self, limit: int | None, most: int) -> Iterator[tuple[Any, int]]:
        """Batches on the device, read ahead by a thread: stacked groups of at most so many, and how many they are."""
        ready: queue.Queue = queue.Queue(self.prefetch)
        stop = threading.Event()

        def checked() -> Iterator[Batch]:
            for number, raw in enumerate(self._raw(limit), 1):
                batch = check_batch(raw, number)
                if self._shapes is not None:
                    require_classes(f"batch {number}, y", batch.y, self._shapes)
                batch, self._size = fill_up(batch, self._size)
                yield batch

        def read() -> None:
            try:
                for group in gather_groups(checked(), most):
                    if not offer(ready, jax.device_put(group), stop):
                        return
                offer(ready, END, stop)
            except BaseException as problem:  # raised again where the batches are used
                offer(ready, problem, stop)

        thread = threading.Thread(target=read, name="batches", daemon=True)
        thread.start()
        try:
            while True:
                batch = ready.get()
                if isinstance(batch, BaseException):
                    raise batch
                if batch is END:
                    return
                yield batch
        finally:
            stop.set()
            thread.join()


END = object()
"""Behind the last batch."""


def gather_groups(batches: Iterator[Batch], most: int) -> Iterator[tuple[Batch, int]]:
    """Batches of one shape, stacked, and how many they are; the last group of a shape is filled up to the others' size.

    Args:
        batches: the batches.
        most: batches in a group; fewer where they are large.
    """
    group: list[Batch] = []
    size = most

    def stack() -> tuple[Batch, int]:
        filled = [group[min(index, len(group) - 1)] for index in range(size)]
        return jax.tree.map(lambda *parts: np.stack(parts), *filled), len(group)

    for batch in batches:
        if group and shapes_of(batch) != shapes_of(group[0]):
            yield stack()
            group = []
        if not group:
            whole = sum(leaf.nbytes for leaf in jax.tree.leaves(batch))
            size = max(1, min(most, AT_ONCE // max(whole, 1)))
        group.append(batch)
        if len(group) == size:
            yield stack()
            group = []
    if group:
        yield stack()


def shapes_of(batch: Batch) -> Any:
    """What must be the same of batches that are stacked."""
    return jax.tree.structure(batch), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch)]


def offer(ready: queue.Queue, item: Any, stop: threading.Event) -> bool:
    """Wait for a place in the queue; False where nobody reads it any more."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def as_batches(place: str, given: Any, batch: int = 64) -> AbstractBatches:
    """What was given as batches: these, a pair `(x, y)` of arrays, rows on the device, or an iterable."""
    if isinstance(given, AbstractBatches):
        return given
    if isinstance(given, AbstractRows):
        return Arrays.of(given, batch)
    if isinstance(given, tuple) and len(given) == 2 and all(is_array(one) for one in given):
        return Arrays(*given, batch=batch)
    if is_array(given) and not isinstance(given, (list, tuple)):
        return Arrays(given, batch=batch)
    try:
        return Stream(given)
    except SettingError as error:
        raise SettingError(f"{place}: {error}") from None


def is_array(value: Any) -> bool:
    """Whether a value is an array, or a mapping of such."""
    if isinstance(value, Mapping):
        return all(is_array(one) for one in value.values())
    return hasattr(value, "shape") and hasattr(value, "dtype")


def check_batch(given: Any, number: int) -> Batch:
    """A batch of a stream, in numpy's arrays.

    Args:
        given: as `Stream` takes it.
        number: its number in the epoch, for messages.

    Raises:
        DataError: something else, no rows, or numbers that are none.
    """
    fields: dict[str, Any]
    if isinstance(given, Batch):
        fields = {"x": given.x, "y": given.y, "weights": given.weights, "known": given.known}
    elif isinstance(given, Mapping):
        fields = dict(given) if "x" in given else {"x": given}
    elif isinstance(given, (tuple, list)) and len(given) in (2, 3):
        fields = dict(zip(("x", "y", "weights"), given, strict=False))
    elif is_array(given):
        fields = {"x": given}
    else:
        raise DataError(
            f"batch {number} is {tell(given)}: give (x, y), (x, y, weights), a Batch, or a mapping with the keys "
            "x and y"
        )
    unknown = set(fields) - {"x", "y", "weights", "known"}
    if unknown:
        raise DataError(f"batch {number} has the keys {', '.join(map(repr, sorted(unknown)))}: give x, y and weights")
    masks = fields.get("known")
    plain = {name: as_numbers(f"batch {number}, {name}", value, name, masks) for name, value in fields.items()}
    sizes = {len(a) if a.ndim else -1 for a in jax.tree.leaves(plain)}
    if len(sizes) != 1 or min(sizes) < 1:
        raise DataError(f"batch {number} has arrays of {sorted(sizes)} rows: give every array one row for every sample")
    return Batch(plain["x"], plain.get("y"), None, plain.get("weights"), plain.get("known"))


def require_classes(place: str, targets: Any, shapes: Any) -> None:
    """Refuse whole numbers that are no class of an output, naming the first.

    Args:
        place: what to call the targets.
        targets: as a cost takes them.
        shapes: of the outputs, as `shape_outputs` tells them.
    """
    if isinstance(targets, Mapping):
        for name, one in targets.items():
            require_classes(f"{place}[{name!r}]", one, shapes.get(name) if isinstance(shapes, dict) else shapes)
        return
    if targets is None or not isinstance(shapes, tuple) or not shapes:
        return
    values = np.asarray(targets)
    if values.dtype.kind not in "iu" or values.shape[1:] != shapes[:-1]:
        return
    bad = np.argwhere((values < 0) | (values >= shapes[-1]))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise DataError(
            f"{place} is {values[where]} at index {where}, and the output has {shapes[-1]} classes: give numbers from "
            f"0 to {shapes[-1] - 1}"
        )


def as_numbers(place: str, value: Any, field: str, known: Any, node: str | None = None) -> Any:
    """A value of a field, or a mapping of values, in finite numbers; where x is not known it may be anything."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {name: as_numbers(f"{place}[{name!r}]", one, field, known, name) for name, one in value.items()}
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise DataError(f"{place}: {tell(value)} is no array of numbers ({problem}): give one") from problem
    if array.dtype.kind not in "fciub" and not np.issubdtype(array.dtype, np.number):
        raise DataError(f"{place} has dtype {array.dtype}: give numbers")
    require_finite_numbers(place, array, find_mask(known, field, "x" if node is None else f"x[{node!r}]"))
    return array


def fill_up(batch: Batch, size: int) -> tuple[Batch, int]:
    """A batch with as many rows as the largest so far, those that were added with a weight of 0; and that number."""
    rows = len(jax.tree.leaves(batch.x)[0])
    weights: Any = np.ones(rows, jnp.result_type(float)) if batch.weights is None else batch.weights
    if rows >= size:
        return dataclasses.replace(batch, weights=weights), rows
    chosen = np.minimum(np.arange(size), rows - 1)
    filled = jax.tree.map(lambda a: a[chosen], dataclasses.replace(batch, weights=weights))
    weights = np.where(np.arange(size) < rows, filled.weights, 0).astype(filled.weights.dtype)
    return dataclasses.replace(filled, weights=weights), size


def count(batches: Any) -> int | None:
    """Number of batches, where the iterable knows it."""
    try:
        return len(batches)
    except TypeError:
        return None


def iterator_of(given: Any) -> Iterator[Any]:
    """A new iterator; the same one where the iterable is an iterator itself."""
    made: Any = given() if callable(given) and not isinstance(given, Iterable) else given
    return iter(made)


STATES: tuple[tuple[str, str], ...] = (("get_state", "set_state"), ("state_dict", "load_state_dict"))
"""Names of the methods by which iterators tell and take their state."""


def has_state(iterator: Any) -> bool:
    """Whether an iterator can tell and take its state."""
    return any(hasattr(iterator, get) and hasattr(iterator, put) for get, put in STATES)


def find_state_methods(iterator: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]] | None:
    """The two methods, where there are some."""
    for get, put in STATES:
        if hasattr(iterator, get) and hasattr(iterator, put):
            return getattr(iterator, get), getattr(iterator, put)
    return None


def read_state(iterator: Any) -> Any:
    """The state of an iterator as JSON; None where it has none, or one that is no JSON."""
    methods = find_state_methods(iterator)
    if methods is None:
        return None
    state = methods[0]()
    if isinstance(state, bytes):
        return {"bytes": base64.b64encode(state).decode()}
    try:
        return {"json": json.loads(json.dumps(state))}
    except (TypeError, ValueError) as problem:
        raise RunError(
            f"the state of {tell(iterator)} cannot be kept as JSON ({problem}): train without a folder"
        ) from problem


def write_state(iterator: Any, state: Any) -> None:
    """Put an iterator where `read_state` found it."""
    methods = find_state_methods(iterator)
    if methods is None:
        raise RunError(f"{tell(iterator)} has no state any more: give the iterable that the run was started with")
    methods[1](base64.b64decode(state["bytes"]) if "bytes" in state else state["json"])
