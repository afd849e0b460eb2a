"""A table of an experiment, for a page in Markdown and for one in HTML."""

import dataclasses
import html
from collections.abc import Sequence

from energax.training.pages import write_row

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1c1c1c}"
    "div{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left;white-space:nowrap}"
    "th{position:sticky;top:0;background:#fff}"
)


@dataclasses.dataclass(frozen=True)
class Table:
    """Headings, and rows of texts.

    Attributes:
        title: one line above it.
        headings: one per column.
        rows: as many texts each.
        notes: sentences below it.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """For a page of Markdown."""
        lines = [self.headings, ["---"] * len(self.headings), *self.rows]
        body = "\n".join(map(write_row, lines))
        return "\n\n".join([self.title, body, *self.notes]) + "\n"

    def html(self) -> str:
        """A page of its own."""

        def line(kind: str, texts: Sequence[str]) -> str:
            return "<tr>" + "".join(f"<{kind}>{html.escape(text)}</{kind}>" for text in texts) + "</tr>"

        rows = "\n".join(line("td", row) for row in self.rows)
        title, notes = html.escape(self.title), "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1><div><table>"
            f"<thead>{line('th', self.headings)}</thead><tbody>\n{rows}\n</tbody></table></div>{notes}</body></html>\n"
        )
