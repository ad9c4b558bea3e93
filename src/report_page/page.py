"""Sections to one HTML file that holds everything it needs: style, scripts, figures and records."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from src.report_page.content import Block, Section

_HERE = Path(__file__).parent
_STYLE, _SCRIPTS = "page.css", ("tables.js", "browser.js")


def render_page(title: str, summary: Sequence[Block], sections: Sequence[Section]) -> str:
    """Return the page; every text in it is escaped, and sections without blocks are left out.

    A content security policy lets nothing run but the page's own script, known by its hash, and
    nothing be fetched.

    Parameters
    ----------
    title
        Of the page.
    summary
        What stands above the first section.
    sections
        In their order.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["script_data"] = script_data
    script = "\n".join(_read(name) for name in _SCRIPTS)
    return environment.get_template("page.html").render(
        title=title,
        summary=summary,
        sections=[section for section in sections if section.blocks],
        style=Markup(_read(_STYLE)),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def script_data(value: object) -> Markup:
    """Return a value as JSON that may stand in a ``<script>``: it holds no ``<``, ``>`` or
    ``&``.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
