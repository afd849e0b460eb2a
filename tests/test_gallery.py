"""Every script of the gallery, small: what it claims of itself."""

import importlib.util
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
GALLERY = ROOT / "docs" / "gallery"


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


def test_a_table_is_learnt_as_well_as_by_logistic_regression():
    """Oracle: scikit-learn's own classifier on the same 114 held-out rows."""
    found = load("tabular").main(small=True)
    assert found["energy-based network"] > 0.9
    assert found["energy-based network"] > found["logistic regression"] - 0.03


def test_a_nonlinear_target_is_learnt_better_than_by_ridge_regression():
    """Oracle: ridge regression in closed form, which can follow about .72 of the variance."""
    found = load("regression").main(small=True)
    assert 0.65 < found["ridge"][0] < 0.8
    assert found["predictive coding"][0] > found["ridge"][0] + 0.08


def test_rows_are_read_through_time():
    """Oracle: the labels. By the first step, which compiles fastest."""
    found = load("sequence_mnist").main(small=True, rule="first-step")
    assert found["test accuracy, chosen by validation"] > 0.8


def test_a_transformer_block_learns_by_pc_nudge_as_by_backprop():
    """Oracle: backprop of the same weights on the same batches; chance is 1/7."""
    found = load("attention").main(small=True)
    assert found["backprop"][0] > 0.4
    assert abs(found["pc-nudge"][0] - found["backprop"][0]) < 0.02


def test_one_sample_at_a_time_follows_a_change():
    """Oracle: the same network, which stopped learning at the change and is at chance after it."""
    found = load("online").main(small=True)
    assert min(found["goes on learning"]) > 0.75
    assert 0.35 < found["stopped at the first change"][1] < 0.65


def test_loggers_are_told_the_history(tmp_path):
    """Oracle: the run's own history, to the last digit, from a file, a function and TensorBoard's folder."""
    told = load("own_logger").main(small=True, out=tmp_path / "run.csv", tensorboard=tmp_path / "board")
    assert len(told["history"]) == 3
    assert told["file"] == told["function"] == told["history"]
    assert list((tmp_path / "board").glob("events*"))


def test_a_sweep_finds_the_best_of_its_trials():
    """Oracle: the tested accuracy is that of a trained net, and the settings lie where the sweep looked."""
    found = load("sweep").main(small=True)
    assert found["test accuracy"] > 0.6
    assert found["width"] == 16
    assert 1e-4 <= found["rate"] <= 1e-1
    assert found["pruned"] == 0


def test_memory_does_not_grow_with_a_stream():
    """Oracle: a count of the batches that exist at once, of which reading ahead keeps some groups."""
    found = load("streaming").main(small=True)
    assert found["batches"] == 100
    assert found["batches at once, at most"] < 60
    assert found["test accuracy"] > 0.6


def test_the_page_lists_every_script():
    """Oracle: the folder."""
    page = (ROOT / "docs" / "gallery.md").read_text()
    assert all(f"`{script.name}`" in page for script in GALLERY.glob("*.py"))


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
