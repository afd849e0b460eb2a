"""What a training step of every recipe gives, in float64: made once, and compared with after every change of structure.

`PYTHONPATH=tests python tests/golden.py` writes the fixture anew; only a change that is meant to alter numbers does so.
"""

from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from energax import Batch
from energax.recipes import make_learner
from energax.recipes.settings import Settings
from energax.training.learner import begin, update

HERE = Path(__file__).parent / "fixtures" / "golden.npz"

NETS = {"conv": {"channels": (3, 4)}, "residual": {"channels": (4, 4)}, "mlp": {"hidden": (12, 8)}}

CASES: dict[str, tuple[str, str, dict]] = {
    "backprop": ("backprop", "mlp", {}),
    "backprop-conv": ("backprop", "conv", {}),
    "backprop-residual": ("backprop", "residual", {}),
    "pc": ("pc", "mlp", {}),
    "pc-flow": ("pc", "mlp", {"solver": "flow"}),
    "ipc": ("ipc", "mlp", {}),
    "pc-nudge": ("pc-nudge", "mlp", {}),
    "pc-nudge-conv": ("pc-nudge", "conv", {}),
    "pc-nudge-residual": ("pc-nudge", "residual", {}),
    "pc-nudge-flow": ("pc-nudge", "mlp", {"solver": "flow"}),
    "first-step": ("first-step", "mlp", {}),
    "ep": ("ep", "mlp", {}),
    "ep-conv": ("ep", "conv", {}),
    "ep-one-sided": ("ep-one-sided", "mlp", {}),
    "ep-holomorphic": ("ep-holomorphic", "mlp", {}),
    "chl": ("chl", "mlp", {}),
}


def measure(name: str) -> dict[str, np.ndarray]:
    """Verdicts, steps and residuals of the second update of a case, and the parameters after it."""
    recipe, network, settings = CASES[name]
    given = Settings(network=network, **NETS[network], **settings)  # type: ignore[arg-type]
    learner, _ = make_learner(recipe, (8, 8, 1), 10, seed=3, settings=given)
    keys = jax.random.split(jax.random.key(5), 2)
    x = jax.random.uniform(keys[0], (20, 8, 8, 1))
    y = jax.nn.one_hot(jax.random.randint(keys[1], (20,), 0, 10), 10, dtype=x.dtype)
    step = eqx.filter_jit(update)
    progress = begin(learner)
    for key in jax.random.split(jax.random.key(7), 2):
        progress, info = step(learner, progress, Batch(x, y, key))
    found = {f"phase/{phase}/{field}": getattr(one, field) for phase, one in info.phases.items() for field in FIELDS}
    found["cost"] = info.cost
    leaves = jax.tree.leaves(eqx.filter(progress.model.graph, eqx.is_inexact_array))
    found["parameters"] = jax.numpy.concatenate([leaf.reshape(-1) for leaf in leaves])
    return {key: np.asarray(value) for key, value in found.items()}


FIELDS = ("energy_before", "energy_after", "steps", "residual", "result")


def main() -> None:
    """Write the fixture."""
    jax.config.update("jax_enable_x64", True)
    arrays = {f"{name}/{key}": value for name in CASES for key, value in measure(name).items()}
    HERE.parent.mkdir(exist_ok=True)
    np.savez_compressed(HERE, **arrays)


if __name__ == "__main__":
    main()
