"""What mkdocs cannot read from `docs/`: reference, notebooks, scripts, `results/`, the README's ten lines.

The reference is made anew from the sources with every build (see `public_names.py`), and `results/` is shown where it
lies, so that nothing is kept twice. In the navigation, an entry that ends in `/` stands for every page of that folder.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page as SitePage
from notebook_pages import notebook_page
from public_names import Entry, Page, UndocumentedError, reference_pages

ROOT = Path(__file__).parents[2]
PACKAGE = "energax"
TEN_LINES = "<!-- the README's ten lines -->"
ALL_PAGES = "<!-- every page of this folder -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the made pages and those of `results/`, and let the navigation list them."""
    try:
        pages = reference_pages(ROOT / "src", PACKAGE)
    except UndocumentedError as error:
        raise PluginError(str(error)) from error
    shown = {page.path for page in pages}
    for page in pages:
        files.append(File.generated(config, f"reference/{page.name}.md", content=module_page(page, shown)))
    files.append(File.generated(config, "reference/index.md", content=index_page(pages)))
    for path in sorted((ROOT / "results").rglob("*")):
        if path.suffix in {".md", ".png", ".svg"}:
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        page, pictures = notebook_page(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    for path in sorted((ROOT / "docs" / "gallery").glob("*.py")):
        files.append(File.generated(config, f"gallery/{path.stem}.md", content=script_page(path)))
    if config.nav is not None:
        config.nav = expand(config.nav, [file.src_uri for file in files.documentation_pages()])
    return files


def on_page_markdown(markdown: str, page: SitePage, config: MkDocsConfig, files: Files) -> str:
    """Fill in what a page leaves to the build.

    In the repository `docs/` and `results/` lie side by side; on the site `results/` lies within. So that a link is
    right in both, the pages write `../results/...`, and the step out of `docs/` is taken away here. Likewise links to
    the gallery's scripts become links to their pages.
    """
    uri = page.file.src_uri
    up = "../" * uri.count("/")
    markdown = re.sub(rf"(\]\(|\]: ){re.escape(up)}\.\./results/", rf"\1{up}results/", markdown)
    markdown = re.sub(r"(\]\()gallery/(\w+)\.py\)", r"\1gallery/\2.md)", markdown)
    if TEN_LINES in markdown:
        blocks = re.findall(r"```python\n.*?```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
        if not blocks:
            raise PluginError(f"{uri} shows the README's ten lines, but README.md has no block of Python")
        markdown = markdown.replace(TEN_LINES, blocks[0])
    if ALL_PAGES in markdown:
        folder = posixpath.dirname(uri)
        others = [file for file in files.documentation_pages() if posixpath.dirname(file.src_uri) == folder]
        lines = [f"- [{title_of(file)}]({posixpath.basename(file.src_uri)})" for file in others if file.src_uri != uri]
        markdown = markdown.replace(ALL_PAGES, "\n".join(sorted(lines)))
    return complete_result(markdown, uri, files) if uri.startswith("results/") else markdown


def script_page(path: Path) -> str:
    """The page of a script: its name, and its text."""
    return f"# {path.name}\n\n```python\n{path.read_text(encoding='utf-8')}```\n"


def complete_result(markdown: str, uri: str, files: Files) -> str:
    """A page of `results/` with a heading, and with those pictures of its folder that it does not show itself."""
    folder = posixpath.dirname(uri)
    if not markdown.startswith("# "):
        markdown = f"# {folder.removeprefix('results/')}\n\n{markdown}"
    for file in files.media_files():
        name = posixpath.basename(file.src_uri)
        if posixpath.dirname(file.src_uri) == folder and f"]({name})" not in markdown:
            markdown += f"\n![{folder}/{name}]({name})\n"
    return markdown


def title_of(file: File) -> str:
    """The first heading of a page's source."""
    found = re.search(r"^# (.+)$", file.content_string, re.MULTILINE)
    if found is None:
        raise PluginError(f"{file.src_uri} has no heading of the first level")
    return found.group(1)


def expand(nav: list, uris: list[str]) -> list:
    """The navigation with every entry `folder/` replaced by the folder's pages: its index first, then by path."""
    items = []
    for item in nav:
        ((title, value),) = item.items() if isinstance(item, dict) else [(None, item)]
        if isinstance(value, list):
            value = expand(value, uris)
        elif value.endswith("/"):
            index = f"{value}index.md"
            overview = [{"Overview": index}] if index in uris else []
            value = overview + sorted(uri for uri in uris if uri.startswith(value) and uri != index)
        if title is None and isinstance(value, list):
            items += value  # a folder among other entries
        else:
            items.append({title: value} if title else value)
    return items


def index_page(pages: list[Page]) -> str:
    """The front page of the reference: its pages, one line each."""
    lines = [f"- [`{page.path}`]({page.name}.md): {page.summary}" for page in pages]
    return "\n".join(["# Reference", "", "Every public name, one page for each part of the package.", "", *lines, ""])


def module_page(page: Page, shown: set[str]) -> str:
    """A page of the reference: what the module is, its names, and each name's documentation.

    Args:
        page: The module and its names.
        shown: The modules that have pages, and where the names on earlier pages are defined; those of this page are
            added. What is already shown is listed with a link to its place.
    """
    listed, blocks = [], []
    for entry in page.entries:
        place = f"({entry.origin.partition('.')[2]}.md)" if entry.is_module else f"[{entry.origin}]"
        listed.append(f"- [`{entry.name}`]{place}: {entry.summary}")
        if entry.origin not in shown:
            blocks.append(block(entry))
            shown.add(entry.origin)
    whole = f"::: {page.path}\n    options: {{members: false, show_root_heading: false, show_root_toc_entry: false}}"
    return "\n".join([f"# {page.path}", "", whole, "", *listed, "", *blocks])


def block(entry: Entry) -> str:
    """What mkdocstrings replaces by the documentation of one name, found where it is defined.

    A module may have the path by which the name is imported, as in `from energax.graph.mupc import mupc`.
    """
    return f"::: {entry.origin}\n    options: {{heading_level: 2}}\n"
