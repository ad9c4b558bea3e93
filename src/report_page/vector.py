"""A matplotlib figure as an ``<svg>`` that stands in a page: its text is text, its colours are the
page's.
"""

from __future__ import annotations

import html
import io
import re

import matplotlib
from matplotlib.figure import Figure

from src.figures import BLACK, GREY, LIGHT_GREY, MM_PER_INCH, PALETTE, SAVE_SETTINGS
from src.report_page.content import Picture

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
