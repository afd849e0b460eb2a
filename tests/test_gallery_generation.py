"""The gallery's generative net and its memory, small: what they claim of themselves."""

import importlib.util
from pathlib import Path

import jax
import pytest

GALLERY = Path(__file__).parent.parent / "docs" / "gallery"


def load(name: str):
    """A script of the gallery as a module."""
    spec = importlib.util.spec_from_file_location(name, GALLERY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def plain_jax():
    """Scripts are written for users, who run JAX as it comes: float32."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


def test_half_an_image_is_completed_better_than_by_pca_and_by_the_mean(tmp_path):
    """Oracle: PCA-16 and the mean image, on held-out rows. The small net reconstructs better than the mean alone."""
    errors = load("generate_digits").main(small=True, picture=tmp_path / "digits.png")
    assert errors["completion"] < errors["completion, mean"] < errors["completion, PCA-16"]
    assert errors["reconstruction"] < errors["reconstruction, mean"]
    assert (tmp_path / "digits.png").stat().st_size > 10_000


def test_a_memory_recalls_what_it_stored():
    """Oracle: the stored patterns; a load below capacity leaves no wrong bit, and every recall has converged."""
    found = load("associative_memory").main(small=True)
    assert len(found) == 3
    assert all(recall == (0, "CONVERGED") for recall in found.values())
