"""Tables in HTML for what a notebook shows; every text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence


class Rich:
    """Shows itself in a notebook as HTML, and as ``str(self)`` where a front end shows text
    only.
    """

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


def format_cell(value: object) -> str:
    """Return a number or text as it stands in a table: thousands apart, three digits after the
    point, a dash for None.
    """
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def html_table(header: Sequence[str], rows: Iterable[Iterable[object]], caption: str = "") -> str:
    """Return a table; numbers stand to the right, the first column and texts to the left."""
    head = "".join(f'<th style="text-align:left">{html.escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    title = (
        f'<caption style="text-align:left;font-weight:600">{html.escape(caption)}</caption>'
        if caption
        else ""
    )
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    side = "left" if isinstance(value, str) else "right"
    return f'<td style="text-align:{side}">{html.escape(format_cell(value))}</td>'


def html_facts(facts: Mapping[str, object]) -> str:
    """Return names and values side by side, without those that are empty."""
    items = (
        '<span style="white-space:nowrap;margin-right:1.5em"><span '
        f'style="opacity:.65">{html.escape(name)}</span> '
        f"<b>{html.escape(format_cell(value))}</b></span> "
        for name, value in facts.items()
        if value not in (None, "")
    )
    return f"<p>{''.join(items)}</p>"
