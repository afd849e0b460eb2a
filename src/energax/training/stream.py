"""Batches of any iterable, read ahead by a thread; and how such an iterable tells and takes its state."""

import base64
import itertools
import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from energax.checking import require_whole, tell
from energax.dynamics.phase import Batch
from energax.exceptions import DataError, RunError, SettingError
from energax.graph.structure import shape_outputs
from energax.training.arrays import Arrays
from energax.training.batches import PROBED, AbstractBatches, Stretch
from energax.training.incoming import check_batch, fill_up, gather_groups, is_array, require_targets, split_fields
from energax.training.metrics import Sums
from energax.training.rows import AbstractRows

GROUP = 16  # batches in one compiled call, which costs milliseconds
PAUSE = 0.5  # seconds between looks at the averages: each waits for the device


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
        self._size, self._at, self._outputs = 0, 0, None

    def bind(self, graph, cost):
        """Look at the targets of every batch that comes."""
        self._outputs = shape_outputs(graph), cost

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
        exact = isinstance(given, Sequence) or any(
            find_state_methods(one) for one in (self._iterator, iterator_of(given))
        )
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
                if self._outputs is not None:
                    require_targets(f"batch {number}, y", batch.y, *self._outputs)
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


def offer(ready: queue.Queue, item: Any, stop: threading.Event) -> bool:
    """Wait for a place in the queue; False where nobody reads it any more."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


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


def as_batches(place: str, given: Any, batch: int = 64) -> AbstractBatches:
    """What was given as batches: these, arrays `(x, y)` or `(x, y, weights)` by name too, rows, or an iterable."""
    if isinstance(given, AbstractBatches):
        return given
    if isinstance(given, AbstractRows):
        return Arrays.of(given, batch)
    if isinstance(given, tuple) and len(given) in (2, 3) and all(is_array(one) for one in given):
        x, y, *weights = given
        return Arrays(x, y, batch=batch, weights=weights[0] if weights else None)
    if isinstance(given, Mapping) and is_array(given):
        return Arrays(**split_fields(place, given), batch=batch)
    if is_array(given) and not isinstance(given, (list, tuple)):
        return Arrays(given, batch=batch)
    try:
        return Stream(given)
    except SettingError as error:
        raise SettingError(f"{place}: {error}") from None
