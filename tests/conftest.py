"""float64 everywhere, strict promotion and tiny learners for the modules that ask for them; cheap compilation."""

import functools
import gc
import os
import signal

import jax
import numpy as np
import pytest

import tiers
from energax.compilation import make_room
from energax.data import Dataset, Split, load_data
from energax.recipes import make_learner
from energax.recipes.settings import Settings
from energax.training import fit
from energax.training.callbacks import Callback
from energax.training.learner import begin

# Tests compile far longer than they compute, and XLA's fusion emitters make up half of that on the CPU. Two workers
# share two cores, so that a program compiled in several parts at once only takes longer in all. What the tests start as
# processes of their own inherits the flags.
QUICKER = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")
os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *QUICKER))
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
# A shell that runs the tests in the background has them ignore interruptions, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
gc.set_threshold(100_000, 20, 20)  # looking for dead objects among all that tracing makes takes nearly a tenth
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_traceback_in_locations_limit", 0)  # nobody reads where an operation of a program came from


def pytest_configure(config):
    """Keep what took long to compile for the other worker and for the next run; `pytest --cache-clear` forgets it."""
    if config.pluginmanager.has_plugin("cacheprovider"):
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


@pytest.fixture
def strict():
    """No implicit promotion between dtypes."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(config, items):
    """Mark the tests of the tiers."""
    tiers.mark(config, items)


@pytest.fixture(autouse=True, scope="module")
def room():
    """Forget compiled programs before there are too many for one process."""
    yield
    make_room()


ROWS = 203  # no multiple of the batch: three rows rest in every epoch
BATCH = 20


@functools.cache
def cut_digits() -> Dataset:
    """203 training rows and 60 of either other split."""
    digits = load_data("digits")

    def cut(split: Split, rows: int):
        return split.images[:rows], split.labels[:rows]

    return Dataset.from_arrays(
        "cut-digits",
        train=cut(digits.train, ROWS),
        validation=cut(digits.validation, 60),
        test=cut(digits.test, 60),
        classes=10,
        scale=16,
    )


@functools.cache
def tiny(recipe: str, **settings):
    """A recipe's learner with 16 hidden units."""
    learner, _ = make_learner(recipe, (8, 8, 1), 10, settings=Settings(**{"hidden": (16,), "batch": BATCH, **settings}))
    return learner


class Stopper(Callback):
    """A display that fails: after the first stretch of an epoch, or when it has ended."""

    def __init__(self, epoch: int, midway: bool = False):
        self.at, self.midway = epoch, midway

    def advance(self, epoch, batches, averages):
        if self.midway and epoch == self.at:
            raise InterruptedError(f"pulled the plug in epoch {epoch}")

    def epoch(self, row, learner):
        if not self.midway and row["epoch"] == self.at:
            raise InterruptedError(f"pulled the plug after epoch {row['epoch']}")


@pytest.fixture
def data() -> Dataset:
    return cut_digits()


@pytest.fixture
def learner():
    """The factory `tiny`."""
    return tiny


@pytest.fixture
def train(data):
    """`fit` on the cut digits, 20 rows per update; what is wrong with an epoch stands in the log alone.

    The regime is measured where a test asks for it: compiling that is most of a short training.
    """
    return functools.partial(fit, data=data, batch=BATCH, display=Callback(), regime=False)


@pytest.fixture
def stopper():
    return Stopper


@pytest.fixture
def same():
    """Whether two pytrees hold the same bits."""

    def compare(a, b) -> bool:
        pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
        assert pairs
        return all(np.asarray(p).tobytes() == np.asarray(q).tobytes() for p, q in pairs if hasattr(p, "dtype"))

    return compare


@pytest.fixture
def progress():
    return begin
