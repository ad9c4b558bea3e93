"""A reader of the report's HTML, and names that attack it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

HOSTILE = "<script>window.hacked=1</script>"
DATASET = "a&'b"  # a manifest takes no worse name


class Reader(HTMLParser):
    """Collects tags, links, headings, facts, and tables as heading -> rows of (text, order)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tables: dict[str, list[dict[str, tuple[str, str | None]]]] = {}
        self.facts: list[tuple[str, str | None]] = []
        self._inside: list[str] = []
        self._heading = self._section = self._text = ""
        self._order: str | None = None
        self._cells: list[tuple[str, str | None]] = []
        self._columns: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("th", "td", "dd", "dt", "h2", "h3", "summary"):
            self._text, self._order = "", given.get("data-order")
        if tag in ("tr", "thead"):
            self._cells = []
        if tag == "section":
            self._section = str(given["id"])

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        text = " ".join(self._text.split())
        if tag in ("h3", "summary"):
            self._heading = f"{self._section}: {re.sub(r' [(][0-9]+[)]$', '', text)}"
        elif tag in ("th", "td"):
            self._cells.append((text, self._order))
        elif tag == "thead":
            self._columns = [cell[0] for cell in self._cells]
            self.tables[self._heading] = []
        elif (
            tag == "tr"
            and self._columns
            and len(self._cells) == len(self._columns)
            and self._heading in self.tables
        ):
            self.tables[self._heading].append(dict(zip(self._columns, self._cells, strict=True)))
        elif tag == "dt":
            self._name = text
        elif tag == "dd":
            self.facts.append((self._name, self._order))
        elif tag == "table":
            self._columns = []
