"""Single faults that a source file could have, each as a small change of its text.

Nothing that cannot matter is changed: docstrings, annotations, texts, decorators, what only builds an error, and what
only the type checker reads.
"""

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPPOSITES = {
    one: other
    for pair in [("min", "max"), ("minimum", "maximum"), ("argmin", "argmax"), ("any", "all"), ("zeros", "ones")]
    for one, other in [pair, pair[::-1]]
}
OPPOSITES |= {"zeros_like": "ones_like", "ones_like": "zeros_like"}
CHOICES = {"where", "choose", "cond"}  # f(condition, a, b)
WRAPPERS = {"stop_gradient", "abs", "sqrt", "real", "conj", "conjugate", "negative", "square", "exp", "log"}
TECHNICAL = {"static", "converter", "default_factory", "strict", "dtype", "axis", "encoding", "donate"}
CONDITIONS = (ast.If, ast.IfExp, ast.While)


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        path: the file, as given.
        line: where the change begins, from 1.
        kind: what sort of change it is.
        source: the file's text with the change.
    """

    path: str
    line: int
    kind: str
    source: str

    @property
    def name(self) -> str:
        """The same for the same fault in the same text."""
        return hashlib.sha256(f"{self.path}\n{self.kind}\n{self.source}".encode()).hexdigest()[:16]


def find_mutants(path: str, source: str) -> list[Mutant]:
    """Every mutant of one file, in the order of the text; each can be parsed, and no two are the same."""
    tree = ast.parse(source)
    content = source.encode()
    starts = [0]
    for line in content.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    original, seen, found = ast.dump(tree), set(), []
    for node, kind, replacement in _changes(tree):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        text = (content[:begin] + replacement.encode() + content[end:]).decode()
        changed = ast.dump(ast.parse(text))
        if changed != original and changed not in seen:
            seen.add(changed)
            found.append(Mutant(path, node.lineno, kind, text))
    return sorted(found, key=lambda mutant: mutant.line)


def _changes(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    """Nodes, the sort of change, and the text that takes the node's place."""
    for node, parameters in _behaviour(tree, frozenset()):
        if isinstance(node, ast.stmt):
            for kind, text in _of_statement(node, parameters):
                yield node, kind, text
        if isinstance(node, ast.expr):
            for kind, new in _of_expression(node):
                yield node, kind, _enclosed(new)
        if isinstance(node, CONDITIONS) and not _checks_types(node.test):
            yield node.test, "condition negated", f"(not ({ast.unparse(node.test)}))"


def _behaviour(node: ast.AST, parameters: frozenset[str]) -> Iterator[tuple[ast.AST, frozenset[str]]]:
    """All nodes that decide what the code does, with the parameters of the function around them."""
    yield node, parameters
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "decorator_list", "bases", "type_params"}:
            continue
        children = value if isinstance(value, list) else [value]
        inside = parameters
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            inside = frozenset(a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
        for child in children:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.JoinedStr | ast.Assert):
                continue
            if isinstance(child, ast.keyword) and child.arg in TECHNICAL:
                continue
            if isinstance(child, ast.If) and _checks_types(child.test):
                continue
            yield from _behaviour(child, inside)


def _checks_types(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _of_statement(node: ast.stmt, parameters: frozenset[str]) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.AugAssign):
        yield "assignment dropped", "pass"
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        if any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node.value)):
            yield "assignment dropped", "pass"
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
        for argument in node.value.args:
            if isinstance(argument, ast.Name) and argument.id in parameters - {"cls"}:
                yield "argument returned", f"return {argument.id}"


def _of_expression(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.BinOp(left, operator, right):
            if type(operator) in OPERATORS:
                yield "operator swapped", ast.BinOp(left, OPERATORS[type(operator)](), right)
            yield "operand dropped", left
            if isinstance(operator, ast.Mult | ast.Add | ast.BitAnd | ast.BitOr):
                yield "operand dropped", right
        case ast.BoolOp(operator, values):
            yield "operator swapped", ast.BoolOp(ast.And() if isinstance(operator, ast.Or) else ast.Or(), values)
            for at in range(len(values)):
                rest = [*values[:at], *values[at + 1 :]]
                yield "operand dropped", rest[0] if len(rest) == 1 else ast.BoolOp(operator, rest)
        case ast.UnaryOp(ast.USub() | ast.Invert() | ast.Not(), operand):
            yield "sign dropped", operand
        case ast.Compare(left, [operator], comparators) if type(operator) in COMPARISONS:
            yield "comparison changed", ast.Compare(left, [COMPARISONS[type(operator)]()], comparators)
        case ast.Constant(bool() as value):
            yield "constant changed", ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield "constant changed", ast.Constant(value * 2 if isinstance(value, float) and value else value + 1)
        case ast.Call(function, arguments, keywords):
            yield from _of_call(function, arguments, keywords)


def _of_call(function: ast.expr, arguments: list, keywords: list) -> Iterator[tuple[str, ast.expr]]:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    if name in OPPOSITES:
        if isinstance(function, ast.Attribute):
            opposite: ast.expr = ast.Attribute(function.value, OPPOSITES[name], ast.Load())
        else:
            opposite = ast.Name(OPPOSITES[name], ast.Load())
        yield "opposite called", ast.Call(opposite, arguments, keywords)
    if name in CHOICES and len(arguments) >= 3:
        first, second, third, *rest = arguments
        yield "branches swapped", ast.Call(function, [first, third, second, *rest], keywords)
    if name in WRAPPERS and len(arguments) == 1:
        yield "call dropped", arguments[0]
    for at, keyword in enumerate(keywords):
        if keyword.arg is not None and keyword.arg not in TECHNICAL:
            yield "argument dropped", ast.Call(function, arguments, [*keywords[:at], *keywords[at + 1 :]])


def _enclosed(node: ast.expr) -> str:
    """The text of an expression that stands anywhere."""
    text = ast.unparse(node)
    simple = isinstance(node, ast.Name | ast.Call | ast.Attribute | ast.Subscript)
    return text if simple or (isinstance(node, ast.Constant) and not text.startswith("-")) else f"({text})"
