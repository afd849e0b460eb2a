"""Models in files: damaged ones, and ones with the right checksum that say what no `save` wrote."""

import json
import warnings
from math import prod
from pathlib import Path
from random import Random
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import energax as ex
from tests.sealing import change_tree, find_places, put_together, take_apart

from ..target import Mutation, Target, register

FILE = "model"
SMALL = 2**16  # numbers per sample, and steps, of what is computed here: larger ones take the time they are asked for
HUGE = (10**4, 10**6, 10**9, 10**12, 2**31 - 1, 2**31, 2**62, 2**63, 2**64, 10**30, -1, -(2**31), -(10**30))


def make_flat(folder: Path) -> None:
    """An mlp, settled in its errors."""
    graph = ex.networks.mlp([4, 3, 2], jnp.tanh, key=jax.random.key(0))
    ex.save(folder / FILE, ex.Predictor(graph, ex.PredictiveCoding(ex.CrossEntropy()), ex.ConjugateGradient()))


def make_deep(folder: Path) -> None:
    """Steps of time, a delay, a convolution, pooling, another one from equinox, and a flow of the states."""
    keys = jax.random.split(jax.random.key(1), 4)
    nodes = [ex.Node("x", (4, 4, 1)), ex.Node("h", (4, 4, 2), "act"), ex.Node("p", (2, 2, 2), state=False)]
    edges = [ex.Edge("x", "h", "conv"), ex.Edge("h", "h", "back", delay=1), ex.Edge("h", "p", "pool")]
    functions = {
        "conv": ex.layers.Conv2d(1, 2, 3, padding=1, key=keys[0]),
        "back": ex.layers.Conv2d(2, 2, 1, key=keys[1]),
        "pool": ex.layers.Pool(2, ex.layers.maximum),
        "act": jnp.tanh,
        "read": eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(8, 2, key=keys[2])]),
    }
    graph = ex.Graph(
        nodes=[*nodes, ex.Node("y", (2,))],
        edges=[*edges, ex.Edge("p", "y", "read")],
        functions=functions,
        input="x",
        output="y",
        length=3,
    )
    solver = ex.GradientFlow(0.3, stop=ex.Stopping(1e-2, 20))
    ex.save(folder / FILE, ex.Predictor(graph, ex.PredictiveCoding(ex.SquaredError()), solver))


def open_model(folder: Path) -> None:
    predictor = ex.load(folder / FILE)
    graph: Any = predictor.graph
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(eqx.filter(graph, eqx.is_inexact_array)))
    numbers = max(prod(graph.full_shape(node.name)) for node in graph.nodes)
    stop = getattr(predictor.solver, "stop", None)
    if numbers > SMALL or max(getattr(stop, "max_steps", 0), getattr(stop, "check_every", 0)) > SMALL:
        return
    x = {name: np.full((1, *graph.full_shape(name)), 0.5, np.float32) for name in graph.inputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = predictor.predict(x)
    assert all(len(value) == 1 for value in jax.tree.leaves(output))


def containers(folder: Path) -> list[Path]:
    """Those files of a folder that are still whole."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name.startswith((FILE, "last", "best")):
            try:
                take_apart(path)
            except Exception:  # another mutation was here before, and any error says so
                continue
            found.append(path)
    return found


def reseal(change: Any) -> Mutation:
    """A mutation of what a file says, `change(rng, content, tensors)`, with the checksum put right."""

    def mutate(rng: Random, folder: Path) -> str:
        paths = containers(folder)
        if not paths:
            return "nothing is left to be changed"
        path = rng.choice(paths)
        content, tensors = take_apart(path)
        facts = json.loads(content["facts"]) if isinstance(content.get("facts"), str) else None
        tree = {**content, **({} if facts is None else {"facts": facts})}
        told = change(rng, tree, tensors)
        try:
            if facts is not None and "facts" in tree and not isinstance(tree["facts"], str):
                tree["facts"] = json.dumps(tree["facts"])
            put_together(path, tree, tensors)
        except (ValueError, OverflowError, RecursionError) as error:  # what no file can hold
            return f"{told} of {path.name}, which cannot be written: {type(error).__name__}"
        return f"{told} of {path.name}"

    return mutate


def change_places(rng: Random, tree: dict, tensors: dict) -> str:
    """One to three places of the tree."""
    part = rng.choice([tree, tree, tree.get("structure"), tree.get("facts"), tree.get("arrays")])
    for _ in range(rng.choice([1, 1, 3])):
        change_tree(part if isinstance(part, (dict, list)) else tree, rng)
    return "another tree"


def enlarge(rng: Random, tree: dict, tensors: dict) -> str:
    """A number that is huge, or of another kind."""
    places = find_places(tree, (int, float))
    if not places:
        return "no number"
    for _ in range(rng.choice([1, 1, 2])):
        at, key = rng.choice(places)
        at[key] = rng.choice([*HUGE, *HUGE, 1e300, float("nan"), float("inf"), "1", True, None, [1], 0])
    return f"{key}={str(at[key])[:40]}"


def enlarge_shapes(rng: Random, tree: dict, tensors: dict) -> str:
    """The same larger number wherever one stands: shapes that fit each other, and are enormous."""
    numbers = sorted({at[key] for at, key in find_places(tree.get("structure"), (int,)) if type(at[key]) is int})
    if not numbers:
        return "no number"
    old, new = rng.choice(numbers), rng.choice(HUGE)
    for at, key in find_places(tree["structure"], (int,)):
        if at[key] == old:
            at[key] = new
    return f"{old} is {new} everywhere"


def exchange_classes(rng: Random, tree: dict, tensors: dict) -> str:
    """The name of another class or function."""
    places = [(at, key) for at, key in find_places(tree, (str,)) if key in ("class", "known", "enum", "member")]
    if not places:
        return "no class"
    at, key = rng.choice(places)
    other, place = rng.choice(places)
    odd = [
        *("energax.layers.Linear", "energax.graph.Graph", "energax.solvers.GradientFlow", "energax.rules.Backprop"),
        *("jax.numpy.sin", "equinox.nn.Linear", "equinox.nn.MLP", "optimistix.BFGS", "energax.Predictor", "os.system"),
        *(
            "builtins.int",
            "energax.inference.Predictor",
            "energax.graph.Node",
            "energax.costs.SquaredError",
            "a" * 10**5,
        ),
    ]
    at[key] = rng.choice([*odd, other[place]])
    return f"{key} {at[key][:60]}"


def nest(rng: Random, tree: dict, tensors: dict) -> str:
    """Brackets in brackets."""
    places = find_places(tree)
    if not places:
        return "no place"
    at, key = rng.choice(places)
    kept, depth = at[key], rng.choice([40, 150, 190, 500])
    for _ in range(depth):
        kept = rng.choice([[kept], {"tuple": [kept]}, {"dict": [["a", kept]]}])
    at[key] = kept
    return f"{depth} brackets"


def change_tensor(rng: Random, tree: dict, tensors: dict) -> str:
    """Other numbers, another shape, another dtype, another name, or more of them."""
    if not tensors:
        return "no tensor"
    name = rng.choice(sorted(tensors))
    kind, tensor = rng.randrange(8), tensors[name]
    if kind == 0:
        tensors[name] = np.full_like(tensor, rng.choice([np.nan, np.inf, 3e38]) if tensor.dtype.kind == "f" else 2**30)
    elif kind == 1:
        tensors[name] = np.zeros(rng.choice([(), (1,), (0,), (3, 0, 5), (1,) * 30, (*tensor.shape, 1)]), tensor.dtype)
    elif kind == 2:
        tensors[name] = tensor.astype(rng.choice([np.int8, np.float16, np.float64, np.uint64, bool]))
    elif kind == 3:
        del tensors[name]
    elif kind == 4:
        tensors[name + rng.choice(["x", "\0", "é", "'", "x" * 10**5])] = tensors.pop(name)
    elif kind == 5:
        tensors[name] = np.zeros((1_000_000,), tensor.dtype)
    elif kind == 6:
        tensors |= {f"{name}{index}": np.zeros(()) for index in range(5_000)}
    else:
        tensors[name] = tensor.T.copy()
    return f"tensor {name[:60]}, {kind}"


SEALED = tuple(
    map(reseal, (change_places, change_places, enlarge, enlarge_shapes, exchange_classes, nest, change_tensor))
)
OWN = SEALED * 2

register(Target("model.flat", "models", make_flat, open_model, OWN))
register(Target("model.deep", "models", make_deep, open_model, OWN))
