"""The generator of mutants, on sources small enough to list by hand."""

import ast

from mutations.command import draw, find_tests
from mutations.mutants import find_mutants


def bodies(source: str) -> set[str]:
    return {mutant.source.strip() for mutant in find_mutants("x.py", source)}


def test_every_kind_of_change_is_made():
    """Oracle: the mutants written out."""
    assert bodies("a = b + c") == {"a = (b - c)", "a = b", "a = c"}
    assert bodies("a = b / c") == {"a = (b * c)", "a = b"}
    assert bodies("a = b <= c") == {"a = (b < c)"}
    assert bodies("a = -b") == {"a = b"}
    assert bodies("a = .5") == {"a = 1.0"}
    assert bodies("a = f(True)") == {"a = f(False)"}
    assert bodies("a = where(b, c, d)") == {"a = where(b, d, c)"}
    assert bodies("a = jnp.max(b)") == {"a = jnp.min(b)"}
    assert bodies("a = f(b, key=c)") == {"a = f(b)"}
    assert bodies("a = b if c else d") == {"a = b if (not (c)) else d"}
    assert bodies("a = a.b") == {"pass"}
    assert bodies("def f(x):\n    return g(x)") == {"def f(x):\n    return x"}
    assert bodies("a = b and c") == {"a = (b or c)", "a = b", "a = c"}


def test_nothing_that_cannot_matter_is_changed():
    """Oracle: there is nothing else in these sources."""
    for source in (
        '"""1 + 2"""',
        "a: Annotated[int, 1 + 2]",
        "def f(a: 'b' = c) -> d[1]: ...",
        "raise ValueError(1 + 2)",
        "a = f'{b + 1}'",
        "if TYPE_CHECKING:\n    a = 1",
        "@decorate(1)\ndef f(): ...",
        "a = field(static=True)",
    ):
        assert bodies(source) == set(), source


def test_the_text_around_a_change_stays():
    """Oracle: one line differs, and columns are counted in bytes."""
    source = "# Größe: β\nβ = 'ä' * f(ü, 2)  # ö\n"
    found = bodies(source)
    assert "# Größe: β\nβ = 'ä' * f(ü, 3)  # ö" in found
    assert all(text.startswith("# Größe: β\n") and text.endswith("# ö") for text in found)


def test_mutants_of_a_room_are_drawn_by_the_seed():
    """Oracle: determinism, and the parser; a larger count begins with the smaller one."""
    few, more = draw(0, 20, "rules"), draw(0, 40, "rules")
    assert [m.name for m in more[:20]] == [m.name for m in few]
    assert [m.name for m in draw(1, 20, "rules")] != [m.name for m in few]
    assert len({m.name for m in more}) == 40
    for mutant in more:
        ast.parse(mutant.source)


def test_a_files_own_tests_come_first():
    """Oracle: the files of the room."""
    assert find_tests("src/energax/rules/adjoint.py")[0] == "tests/rules/test_adjoint.py"
    assert "tests/rules/test_slopes.py" in find_tests("src/energax/rules/adjoint.py")
    assert find_tests("src/energax/activations.py") == ["tests/test_activations.py"]
