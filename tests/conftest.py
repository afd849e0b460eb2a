"""float64 everywhere; strict promotion for the modules that ask for it; cheap compilation, since nets are small."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def strict():
    """No implicit promotion between dtypes."""
    with jax.numpy_dtype_promotion("strict"):
        yield
