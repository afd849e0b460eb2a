"""A notebook as a page of Markdown and its pictures, from what the file holds: nothing is run."""

import base64
import json
from pathlib import Path


def notebook_page(file: Path) -> tuple[str, dict[str, bytes]]:
    """The page of one notebook.

    Args:
        file: A notebook of format 4 whose outputs are texts and PNG pictures.

    Returns:
        Markdown, and the pictures that it shows, by name.

    Raises:
        ValueError: An output is of another kind.
    """
    notebook = json.loads(file.read_text(encoding="utf-8"))
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            elif "image/png" in output.get("data", {}):
                name = f"{file.stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(output["data"]["image/png"]))
                parts.append(f"![What the code above draws]({name})")
            else:
                raise ValueError(f"{file}: an output that is neither text nor a picture; run tests/notebooks.py")
    parts.append(f"[This notebook as a file]({file.name})")
    return "\n\n".join(parts) + "\n", pictures
