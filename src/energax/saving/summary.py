"""What a model is made of, as a table of plain text."""

import functools
from collections.abc import Sequence
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from energax.checking import tell
from energax.dynamics.model import find_parameters
from energax.exceptions import SettingError
from energax.graph.structure import AbstractStructure
from energax.inference.predictor import Predictor


def summary(model: Predictor | AbstractStructure) -> str:
    """Nodes, edges, functions, parameters and memory of a model: `print(energax.summary(model))`.

    A node's memory is that of one sample's state at all its positions, in the widest dtype of the parameters. What a
    solver, a rule or a derivative holds besides is some multiple of it, which depends on them.

    Args:
        model: a predictor or a learner, or its graph alone.

    Returns:
        The text; numbers of bytes are exact.

    Raises:
        SettingError: something else.
    """
    graph: Any = model.graph if isinstance(model, Predictor) else model
    if isinstance(model, type) or not isinstance(graph, AbstractStructure):
        raise SettingError(f"summary: model={tell(model)}: give a Predictor, a Learner or a Graph")
    dtype = state_dtype(graph)
    parts = [node_table(graph, dtype)]
    if graph.edges:
        parts.append(edge_table(graph))
    parts.append(function_table(graph))
    parts.append("\n".join(totals(model, graph, dtype)))
    return "\n\n".join(parts)


def state_dtype(graph: AbstractStructure) -> jnp.dtype:
    """The widest floating-point dtype of the parameters; JAX's own where there are none."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(eqx.filter(graph, eqx.is_inexact_array))]
    return functools.reduce(jnp.promote_types, dtypes) if dtypes else jnp.result_type(float)


def node_table(graph: AbstractStructure, dtype: jnp.dtype) -> str:
    """One line for each node."""
    rows = []
    for node in graph.nodes:
        axes = " x ".join(f"{axis.name} {axis.length}" for axis in graph.axes(node.name))
        size = prod(graph.full_shape(node.name)) * dtype.itemsize if node.state else 0
        rows.append((node.name, shape_text(node.shape), axes, node.activation or "", role_of(graph, node), f"{size:,}"))
    return table(("node", "shape", "axes", "activation", "role", "bytes/sample"), rows, "lllllr")


def role_of(graph: AbstractStructure, node: Any) -> str:
    """Whether a node is clamped, read by the cost, holds a state or none."""
    roles = ["input (clamped)"] if node.name in graph.inputs else []
    roles += ["output"] if node.name in [place.node for place in graph.outputs] else []
    roles += [] if node.name in graph.inputs else ["state" if node.state else "direct"]
    return ", ".join(roles)


def edge_table(graph: AbstractStructure) -> str:
    """One line for each edge."""
    rows = []
    for edge in graph.edges:
        ends = (place_text(edge.source, edge.leaves), place_text(edge.target, edge.enters))
        rows.append((" -> ".join(ends), edge.function, str(edge.delay) if edge.delay else ""))
    return table(("edge", "function", "delay"), rows, "llr")


def function_table(graph: AbstractStructure) -> str:
    """One line for each function."""
    functions = graph.functions if isinstance(graph.functions, dict) else {"functions": graph.functions}
    rows = []
    for name, function in functions.items():
        count, size = count_parameters(function)
        rows.append((name, describe(function), f"{count:,}", f"{size:,}"))
    return table(("function", "what", "parameters", "bytes"), rows, "llrr")


def totals(model: Predictor | AbstractStructure, graph: AbstractStructure, dtype: jnp.dtype) -> list[str]:
    """The lines below the tables."""
    lines = []
    if isinstance(model, Predictor):
        lines += [f"dynamics: {type(model.dynamics).__name__}", f"solver: {type(model.solver).__name__}"]
        trained = eqx.filter(model.model, find_parameters(model.model))
        count, size = count_parameters(trained)
        own = count - count_parameters(graph)[0]
        note = f", {own:,} of them of the dynamics" if own else ""
    else:
        (count, size), note = count_parameters(graph), ""
    lines.append(f"parameters: {count:,} ({size:,} bytes{note})")
    sizes = {node.name: prod(graph.full_shape(node.name)) for node in graph.nodes if node.state}
    clamped = sum(sizes[name] for name in graph.inputs)
    free = sum(sizes.values()) - clamped
    lines.append(
        f"states: {free:,} numbers per sample, and {clamped:,} clamped; {(free + clamped) * dtype.itemsize:,} bytes "
        f"per sample in {dtype.name} (states and clamped values; no gradients, no solver's vectors)"
    )
    return lines


def count_parameters(tree: PyTree) -> tuple[int, int]:
    """Numbers, and their bytes."""
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return sum(leaf.size for leaf in leaves), sum(leaf.nbytes for leaf in leaves)


def describe(function: Any) -> str:
    """The class of a layer, those within it, or the name of a plain function."""
    if isinstance(function, eqx.Module):
        inner = [value for value in vars(function).values() if isinstance(value, (eqx.Module, tuple)) and value]
        flat = [part for value in inner for part in (value if isinstance(value, tuple) else (value,))]
        names = ", ".join(describe(part) for part in flat if isinstance(part, eqx.Module) or callable(part))
        return f"{type(function).__name__}({names})" if names else type(function).__name__
    return str(getattr(function, "__name__", type(function).__name__))


def shape_text(shape: Sequence[int]) -> str:
    """A shape as 28 x 28 x 1."""
    return " x ".join(map(str, shape)) or "one number"


def place_text(name: str, positions: Sequence[tuple[str, int | str]]) -> str:
    """A node, and where along its axes."""
    return name + (f"[{', '.join(f'{axis}={position}' for axis, position in positions)}]" if positions else "")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], sides: str) -> str:
    """Columns of text below their heads, each ranged left (`l`) or right (`r`)."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = ["-" * width for width in widths]

    def write(line: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, sides, strict=True)
        )
        return "  ".join(cells).rstrip()

    return "\n".join(map(write, [head, rule, *rows]))
