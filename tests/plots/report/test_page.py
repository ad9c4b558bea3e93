"""Rendering of the page: data in scripts, and figures in the colours of the page."""

from __future__ import annotations

import re

import pytest
from report_page import HOSTILE

from src.plots.curves import plot_roc_curves
from src.plots.report.page import picture, render_page, script_data


def test_data_in_a_script_cannot_end_it() -> None:
    text = script_data(["</script><!--", "&", "\u2028"])
    assert "<" not in text and "&" not in text and "\u2028" not in text


def test_a_page_without_sections_still_stands() -> None:
    assert HOSTILE not in render_page(HOSTILE, [], [])


def test_a_figure_takes_the_colours_of_the_page() -> None:
    figure = plot_roc_curves(
        [[1, 0], [0, 1], [1, 0]], [[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]], ["#000000", 'id="x']
    )
    themed, plain = picture(figure, "one", "caption"), picture(figure, "two", "caption", plain=True)
    assert "var(--ink)" in themed.svg and "var(--c1)" in themed.svg and "var(" not in plain.svg
    assert (
        ">#000000" in themed.svg and 'id="x' in themed.svg
    )  # a text that looks like a colour or an id is left alone
    assert all(name.startswith("one-") for name in re.findall(r'<[^>]*\bid="([^"]*)"', themed.svg))
    assert set(re.findall(r"url\(#([\w-]+)\)", plain.svg)) <= set(
        re.findall(r'<[^>]*\bid="([^"]*)"', plain.svg)
    )
    assert (
        "<style" not in themed.svg
        and "<metadata" not in themed.svg
        and themed.width_mm == pytest.approx(89)
    )
