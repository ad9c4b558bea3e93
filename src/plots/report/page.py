"""Sections to one HTML file that holds everything it needs: style, scripts, figures and records."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from src.plots.canvas import BLACK, GREY, LIGHT_GREY, MM_PER_INCH, PALETTE, SAVE_SETTINGS
from src.plots.report.content import Block, Picture, Section

_HERE = Path(__file__).parent
_STYLE, _SCRIPTS = "page.css", ("tables.js", "browser.js")

_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_COLORS = {
    BLACK: "--ink",
    "#ffffff": "--paper",
    GREY: "--muted",
    LIGHT_GREY: "--rule",
    "#b0b0b0": "--pale",
} | {color.lower(): f"--c{number}" for number, color in enumerate(PALETTE, start=1)}
_COLOR = re.compile("|".join(_COLORS))
_TAG = re.compile(r"<[^>]+>")
_REFERENCE = re.compile(r'(\bid="|\bhref="#|url\(#)')
_ALONE = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>|(?<=>)\s+(?=<)", re.DOTALL)


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


def picture(figure: Figure, ident: str, caption: str, *, plain: bool = False) -> Picture:
    """Return a figure for the page.

    Parameters
    ----------
    figure
        Any matplotlib figure; it escapes the texts in it.
    ident
        Stands before the ids within, which must differ from those of the page's other figures.
    caption
        What it shows, for all readers.
    plain
        Keep its colours: for coloured cells with text on them, which go together.
    """
    width, _ = figure.get_size_inches()
    stream = io.StringIO()
    with matplotlib.rc_context(
        {**SAVE_SETTINGS[".svg"], "svg.fonttype": "none"}
    ):  # text stays text
        figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    svg = _adopt(stream.getvalue(), ident, caption, plain)
    return Picture(svg, caption, float(width) * MM_PER_INCH, plain)


def _adopt(svg: str, ident: str, caption: str, plain: bool) -> str:
    """Return the element without what only a file of its own needs, and with ids and colours of the
    page.
    """
    body = svg[svg.index("<svg") :].replace("xlink:href", "href")
    body = _ALONE.sub("", body)
    head, rest = body.split(">", 1)
    size = re.search(r'viewBox="[^"]*"', head)
    rest = _TAG.sub(lambda match: _restyle(match[0], ident, plain), rest)
    return f'<svg {size[0] if size else ""} role="img" aria-label="{html.escape(caption)}">{rest}'


def _restyle(tag: str, ident: str, plain: bool) -> str:
    """Return a tag with its own ids; texts between tags stay as they are."""
    tag = _REFERENCE.sub(rf"\1{ident}-", tag)
    return tag if plain else _COLOR.sub(lambda match: f"var({_COLORS[match[0]]})", tag)
