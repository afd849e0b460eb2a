"""float64 everywhere; strict promotion for the modules that ask for it; cheap compilation, since nets are small."""

from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def strict():
    """No implicit promotion between dtypes."""
    with jax.numpy_dtype_promotion("strict"):
        yield


MAPS = Path("/proc/self/maps")
MANY = 30_000  # of the 65,530 memory maps that Linux allows a process; beyond them the compiler crashes


@pytest.fixture(autouse=True, scope="module")
def room():
    """Forget compiled programs before there are too many for one process; each takes several memory maps."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MANY:
        jax.clear_caches()
