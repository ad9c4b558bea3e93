"""Rendering of the page: data in scripts, and figures in the colours of the page."""

from __future__ import annotations

import re

import numpy as np
import pytest
from report_page import HOSTILE

from src.plots.canvas import name_some, new_figure, plain_text, style_axes, wrap_text
from src.plots.curves import plot_roc_curves
from src.plots.report.content import Cell, Facts, Note, Section
from src.plots.report.page import picture, render_page, script_data
from src.records.svg import draw_ecg_svg
from src.utils import html_facts, html_table


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


def test_marks_that_steer_are_escaped_in_figures_and_pages() -> None:
    marks = "\x1b\u202e\u200b\u2066\U000e0041"
    name = f"AF{marks}"
    targets, scores = [[1, 0], [0, 1], [1, 0]], [[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]]
    figure = plot_roc_curves(targets, scores, [name, "B"])
    section = Section("s", name, [Note(name), Facts([(name, Cell(name))])])
    texts = [
        picture(figure, "one", name).svg,
        render_page(name, [Note(name)], [section]),
        str(script_data({name: [name]})),
        draw_ecg_svg(np.zeros((1, 500), np.float32), 100, [name], label=name),
        html_table([name], [[name]], name),
        html_facts({name: name}),
        plain_text(name),
        " ".join(wrap_text(name, 100, 9)),
        name_some([name]),
        style_axes(new_figure(89, 50).subplots(), title=name).get_title(loc="left"),
    ]
    for text in texts:
        assert not set(marks) & set(text)
        assert "AF\\x1b\\u202e" in text.replace("\\\\", "\\")
