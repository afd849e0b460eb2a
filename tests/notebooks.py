"""The notebooks of `docs/notebooks`, run cell by cell in one process, without a kernel.

`PYTHONPATH=tests python tests/notebooks.py [NAME ...]` runs them and keeps what they print and draw in the files.
"""

import base64
import contextlib
import io
import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"


def run_notebook(path: Path) -> tuple[dict, dict]:
    """Run every code cell.

    Returns:
        The notebook with what the cells printed and drew, and the names that they left.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    scope: dict = {"__name__": "__main__"}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), scope)
        cell["outputs"] = [*text_output(printed.getvalue()), *figure_outputs()]
    return notebook, scope


def text_output(text: str) -> list[dict]:
    """What a cell printed."""
    return [{"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}] if text else []


def figure_outputs() -> list[dict]:
    """The open figures, which are closed."""
    outputs = []
    for number in plt.get_fignums():
        buffer = io.BytesIO()
        plt.figure(number).savefig(buffer, format="png", dpi=72, bbox_inches="tight", metadata={"Software": None})
        image = base64.b64encode(buffer.getvalue()).decode()
        outputs.append({"output_type": "display_data", "data": {"image/png": image}, "metadata": {}})
    plt.close("all")
    return outputs


def main() -> None:
    """Run the notebooks, and write them with their outputs."""
    names = sys.argv[1:] or [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
    for name in names:
        path = FOLDER / f"{name}.ipynb"
        notebook, _ = run_notebook(path)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
