"""What an installed package says about itself."""

import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import energax

ROOT = Path(__file__).parent.parent


def test_versions_agree():
    """Oracle: pyproject.toml, where the version is set."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert energax.__version__ == version
    assert re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE) == [version]


def test_type_information_is_declared():
    """Oracle: PEP 561, which wants a file of this name in the package."""
    assert files("energax").joinpath("py.typed").is_file()


def test_importing_the_library_does_not_wait_for_matplotlib():
    """Oracle: the modules that a fresh interpreter has loaded."""
    show = "import energax, sys; print(energax.plot.__name__, 'matplotlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["energax.plot", "False"]


def test_float32_is_multiplied_as_float32_on_every_device(monkeypatch):
    """Oracle: JAX's setting in a fresh interpreter; its own default rounds to ten bits on a GPU. A choice stays."""
    show = "import energax, jax; print(jax.config.jax_default_matmul_precision)"

    def find() -> str:
        return subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout.strip()

    monkeypatch.delenv("JAX_DEFAULT_MATMUL_PRECISION", raising=False)
    assert find() == "float32"
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "tensorfloat32")
    assert find() == "tensorfloat32"
