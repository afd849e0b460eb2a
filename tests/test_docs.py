"""The pages' own code blocks are run as they stand; the README's ten lines too."""

import re
from pathlib import Path

import jax
import pytest

from energax.training.pages import write_row

ROOT = Path(__file__).parent.parent


def blocks(page: str) -> list[str]:
    """All Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)


@pytest.fixture
def plain_jax():
    """The pages are written for users, who run JAX as it comes: float32."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


PAGES_TO_RUN = [f"docs/{name}.md" for name in ("extending", "relaxing", "graphs", "saving", "your_own_data")]


@pytest.mark.usefixtures("plain_jax")
@pytest.mark.parametrize("page", PAGES_TO_RUN)
def test_page_runs_as_it_stands(page, capsys, monkeypatch, tmp_path):
    """Oracle: the text itself; the memory page must recall every bit, as Hopfield nets below capacity do."""
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for block in blocks(page):
        exec(compile(block, page, "exec"), scope)
    printed = capsys.readouterr().out
    if page.endswith("saving.md"):
        assert "hidden1 -> output" in printed
        assert (
            scope["model"].graph.sweep(scope["x"])["output"] == scope["found"].graph.sweep(scope["x"])["output"]
        ).all()
    elif page.endswith("relaxing.md"):
        assert printed.count("0 wrong bits") == 3  # completed, and recalled from a start by either solver
        assert printed.count("CONVERGED") == 3 * 3 + 2
        assert "SAMPLED" in printed
        assert abs(float(scope["drawn"].states["z"].std()) - 1) < 0.1  # of the prior
    elif page.endswith("graphs.md"):
        assert printed.count("CONVERGED") == 3
        assert "(5, 6, 3)" in printed
    elif page.endswith("your_own_data.md"):
        assert len([line for line in blocks(page)[0].splitlines() if line.strip()]) == 10  # as its heading says
        accuracy, of_loaded = map(float, printed.splitlines()[0].split())
        assert accuracy == pytest.approx(of_loaded)
        assert accuracy > 0.85  # a constant answer is right of about .6
        assert scope["run"].result["selected_test_r2"] > 0.3
        assert len(scope["longer"].history) == len(scope["run"].history) + 2
        assert scope["states"]["h"].shape == (5, 10, 8)
        assert abs(scope["completed"] - scope["table"]).max() < 0.05  # the rows lie in the plane of two latents
    else:
        info = scope["info"]
        assert info.phases["nudged"].energy_after.shape == (8,)


def test_new_energy_takes_under_twenty_lines():
    """Oracle: the promise of the page, counted on the class that it shows (blank and docstring lines aside)."""
    block = blocks("docs/extending.md")[0]
    body = block[block.index("class ") :].splitlines()
    assert len([line for line in body if line.strip() and not line.strip().startswith('"""')]) < 20


@pytest.mark.usefixtures("plain_jax")
def test_readme_program_trains(monkeypatch, tmp_path):
    """Oracle: the README's own claim, on digits instead of MNIST so that no file is needed."""
    monkeypatch.chdir(tmp_path)
    (program,) = blocks("README.md")
    assert len([line for line in program.splitlines() if line.strip()]) <= 10
    scope: dict = {}
    exec(program.replace('"mnist"', '"digits"').replace("784", "64").replace("epochs=5", "epochs=12"), scope)
    assert scope["run"].result["test_accuracy"] > 0.9


PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
IN_CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"\b[a-z]\w*\.py\b|\b(?:[A-Z][a-z]+)+\b|\b[a-z]+_[a-z_]+\b")


def names_in_text(page: str) -> set[str]:
    """Files, classes and functions with an underscore that a page's sentences and tables set in type of code."""
    prose = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.S)
    return {name for code in IN_CODE.findall(prose) for name in NAME.findall(code)}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page):
    """Oracle: the tree, of which some word or file has that name."""
    sources = [file for folder in ("src", "tests", "benchmarks", "docs") for file in (ROOT / folder).rglob("*.py")]
    written = (file.read_text() for file in sources if not file.is_relative_to(ROOT / "tests"))
    known = {file.name for file in sources} | set(re.findall(r"\w+", "\n".join(written)))
    assert names_in_text(page) <= known


def test_commands_that_pages_name_are_there():
    """Oracle: the commands of the command line, and the modules of the benchmarks. Decisions count, old ones too."""
    decisions = [f"docs/decisions/{page.name}" for page in (ROOT / "docs" / "decisions").glob("*.md")]
    texts = [(ROOT / page).read_text() for page in (*PAGES, *decisions)]
    words = {word for text in texts for word in re.findall(r"`energax ([a-z]+)", text)}
    assert words <= {"train", "compare", "data", "recipes", "reproduce"}
    assert {"train", "reproduce"} <= words
    modules = {module for text in texts for module in re.findall(r"-m benchmarks\.([a-z_]+)", text)}
    assert modules
    assert modules <= {file.stem for file in (ROOT / "benchmarks").glob("*.py")}


def test_every_row_of_a_table_is_whole():
    """Oracle: as many cells as its heading has, on all pages: a stroke within a cell would end it."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "results").rglob("*.md")]
    broken, tables = [], 0
    for page in pages:
        cells = 0
        for number, line in enumerate(page.read_text().splitlines(), 1):
            found = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            tables += found > 0 == cells
            if found and cells and found != cells:
                broken.append(f"{page.relative_to(ROOT)}:{number}")
            cells = cells or found if found else 0
    assert tables > 100
    assert not broken


def test_a_stroke_within_a_cell_is_written_so_that_it_stays():
    """Oracle: Markdown's escape; and one line."""
    assert write_row(["|a|", "b\nc", 1, ""]) == r"| \|a\| | b c | 1 |  |"
