"""Rendering of sections as one HTML file with its style, scripts, figures and records."""

from __future__ import annotations

import base64
import hashlib
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
from src.utils import html_text, printable_lines, to_jsonable

_HERE = Path(__file__).parent
_STYLE, _SCRIPTS = "page.css", ("tables.js", "browser.js", "decide.js")

_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))

# Colour of the figures -> variable of the page's style, which differs in dark pages
_COLORS = {
    BLACK: "--ink",
    "#ffffff": "--paper",
    GREY: "--muted",
    LIGHT_GREY: "--rule",
    "#b0b0b0": "--pale",
} | {color.lower(): f"--c{number}" for number, color in enumerate(PALETTE, start=1)}
_COLOR = re.compile("|".join(_COLORS))
_TAG = re.compile(r"<[^<>]+>")
_REFERENCE = re.compile(r'(\bid="|\bhref="#|url\(#)')
# Only a file of its own needs them
_METADATA_OR_SPACE = re.compile(
    r"<metadata>.*?</metadata>|<style.*?</style>|(?<=>)\s+(?=<)", re.DOTALL
)


def render_page(title: str, summary: Sequence[Block], sections: Sequence[Section]) -> str:
    """Return the page as HTML; every text in it is escaped, and empty sections are left out.

    A content security policy allows only the page's own script, identified by its hash, and no
    download.

    Parameters
    ----------
    title
        Of the page.
    summary
        Blocks above the first section.
    sections
        In the order of the page.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_show,
    )
    environment.filters["script_data"] = script_data
    # One script, since the policy of the page names a single hash
    script = "\n".join(_read(name) for name in _SCRIPTS)
    return environment.get_template("page.html").render(
        title=title,
        summary=summary,
        sections=[section for section in sections if section.blocks],
        style=Markup(_read(_STYLE)),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _show(value: object) -> object:
    """Return a value of the page without marks that steer; drawings and scripts are our own."""
    return printable_lines(value) if type(value) is str else value


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def script_data(value: object) -> Markup:
    """Return a value as JSON that is safe in a ``<script>``: without ``<``, ``>`` or ``&``."""
    text = json.dumps(_show_all(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _show_all(value: object) -> object:
    """Return plain JSON with the texts in it, names of fields too, as the page shows them."""
    value = to_jsonable(value)
    if isinstance(value, dict):
        return {printable_lines(name): _show_all(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_show_all(item) for item in value]
    return _show(value)


def picture(figure: Figure, ident: str, caption: str, *, plain: bool = False) -> Picture:
    """Return a figure for the page.

    Parameters
    ----------
    figure
        Any matplotlib figure; it escapes the texts in it.
    ident
        Prefix of the ids within the figure; it must be unique on the page.
    caption
        Shown below the figure, and read by screen readers.
    plain
        Keep the colours in dark pages: for coloured cells, which must fit the text on them.
    """
    width, _ = figure.get_size_inches()
    stream = io.StringIO()
    # Text stays text, so that it can be searched and copied
    with matplotlib.rc_context({**SAVE_SETTINGS[".svg"], "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    svg = _embed(stream.getvalue(), ident, caption, plain)
    return Picture(svg, caption, float(width) * MM_PER_INCH, plain)


def _embed(svg: str, ident: str, caption: str, plain: bool) -> str:
    """Return the ``<svg>`` element of a file, with the ids and colours of the page."""
    body = svg[svg.index("<svg") :].replace("xlink:href", "href")
    body = _METADATA_OR_SPACE.sub("", body)
    head, rest = body.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    rest = _TAG.sub(lambda match: _restyle(match[0], ident, plain), rest)
    attributes = f'role="img" aria-label="{html_text(caption)}"'
    return f"<svg {view_box[0] if view_box else ''} {attributes}>{rest}"


def _restyle(tag: str, ident: str, plain: bool) -> str:
    """Return a tag with prefixed ids and, unless `plain`, with the page's colours."""
    tag = _REFERENCE.sub(rf"\1{ident}-", tag)
    if plain:
        return tag
    return _COLOR.sub(lambda match: f"var({_COLORS[match[0]]})", tag)
