"""The notebooks run as they stand, and what they print is what their text promises."""

import re

import jax
import pytest

from notebooks import FOLDER, run_notebook


@pytest.fixture
def plain_jax():
    """Notebooks are written for users, who run JAX as it comes: float32."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


def outputs(notebook) -> str:
    """All that the cells printed."""
    every = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return "".join("".join(output["text"]) for output in every if output["output_type"] == "stream")


def percentages(text: str) -> list[float]:
    """The numbers before percent signs, in their order."""
    return [float(number) for number in re.findall(r"([0-9.]+)%", text)]


@pytest.mark.usefixtures("plain_jax")
@pytest.mark.parametrize("name", ["pc_nudge", "equilibrium_propagation", "own_energy"])
def test_a_notebook_runs_and_keeps_what_it_says(name):
    """Oracles: the orders of convergence that the text names, and an accuracy that no linear chance explains."""
    notebook, scope = run_notebook(FOLDER / f"{name}.ipynb")
    told = outputs(notebook)
    assert scope["run"].result["test_accuracy"] > 0.9
    off = percentages("\n".join(line for line in told.splitlines() if "off by" in line))
    if name == "pc_nudge":
        assert off[-1] < off[0] / 30  # a hundredth of the strength
    elif name == "equilibrium_propagation":
        one_sided, centred = off[::2], off[1::2]
        assert one_sided[-1] < one_sided[0] / 5  # a tenth of the strength: of order 1, and of order 2
        assert centred[-1] < centred[0] / 30
    else:
        assert off[1] < off[0] / 10  # at strength 1 the errors are far beyond where log cosh e is e²/2
    kinds = [output["output_type"] for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert "display_data" in kinds


def test_every_notebook_is_run_here():
    """Oracle: the folder."""
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {"pc_nudge", "equilibrium_propagation", "own_energy"}
