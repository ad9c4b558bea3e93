"""Saving of figures, names, and properties of every figure: no pyplot, a picture in notebooks."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread
from PIL import Image

import src.plots
from src.plots.canvas import (
    COLUMN_MM,
    name_some,
    new_figure,
    plain_text,
    rows_page_mm,
    save_figure,
    style_axes,
    text_mm,
    wrap_text,
)
from src.utils import PROJECT_ROOT


def _figure():
    figure = new_figure(COLUMN_MM, 50)
    style_axes(figure.subplots(), grid="y").plot([0, 1], [1, 0])
    return figure


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_equal_figures_give_equal_files(tmp_path: Path, suffix: str) -> None:
    first = save_figure(_figure(), tmp_path / "deep" / f"a{suffix}")
    second = save_figure(_figure(), tmp_path / f"b{suffix}")
    assert first == tmp_path / "deep" / f"a{suffix}"
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == [
        f"a{suffix}"
    ]  # no temporary file stays


def test_png_has_the_size_of_the_page(tmp_path: Path) -> None:
    image = imread(save_figure(_figure(), str(tmp_path / "a.PNG"), dpi=254))
    assert image.shape[:2] == (500, 890)  # 254 dpi are 10 pixels per mm


@pytest.mark.parametrize(
    ("name", "dpi", "message"),
    [
        ("a.bmp", 150, r"\.bmp.*\.png, \.svg, \.pdf"),
        ("a", 150, "without suffix"),
        ("a.png", 0, "dpi is 0"),
    ],
)
def test_refuses_what_it_cannot_save(tmp_path: Path, name: str, dpi: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_figure(_figure(), tmp_path / name, dpi=dpi)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    figure = _figure()
    figure.axes[0].set_xlabel(r"$\broken{$")
    with pytest.raises(ValueError, match="broken"):
        save_figure(figure, path)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_figure_shows_itself_in_a_notebook() -> None:
    with Image.open(io.BytesIO(_figure()._repr_png_())) as image:
        assert image.format == "PNG" and image.mode == "P"


def test_names_are_shortened_and_never_read_as_mathematics() -> None:
    assert plain_text("left bundle branch block", 13) == "left b… block"
    assert len(plain_text("a" * 50, 10)) == 10
    assert plain_text("cost_$x$") == r"cost_\$x\$"


def test_text_is_wrapped_to_a_width_and_cut_after_the_last_line() -> None:
    names = "incomplete_right_bundle_block + atrial_fibrillation_rapid"
    for bold in (False, True):
        lines = wrap_text(names, 65, 9, bold=bold)
        assert " ".join(lines) == names and len(lines) == 2
        assert all(text_mm(line, 9, bold=bold) <= 65 for line in lines)
    assert "".join(wrap_text("x" * 100, 30, 9, max_lines=99)) == "x" * 100  # a word is broken
    assert wrap_text("one two three four", 12, 9, max_lines=2)[-1].endswith("…")
    assert wrap_text("$x$", 50, 9) == [r"\$x\$"] and wrap_text("", 50, 9) == []
    assert name_some(["a", "b", "c"], 2) == "a, b and 1 more"


def test_long_names_widen_a_page_of_rows() -> None:
    assert rows_page_mm(["AF", "NORM"]) == COLUMN_MM
    assert COLUMN_MM < rows_page_mm(["x" * 25]) < rows_page_mm(["x" * 36])
    assert rows_page_mm(["x" * 99]) == pytest.approx(rows_page_mm(["x" * 36]), abs=2)


def test_plots_need_neither_pyplot_nor_torch_nor_sklearn_to_import() -> None:
    heavy = ("matplotlib.pyplot", "torch", "sklearn", "pandas")
    code = f"import sys, src.plots; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_everything_promised_is_offered() -> None:
    offered = dir(src.plots)
    assert all(callable(getattr(src.plots, name)) for name in offered)
    assert {"plot_ecg", "plot_training_history", "save_figure"} < set(offered)
    with pytest.raises(AttributeError, match="no attribute 'plot_nothing'"):
        getattr(src.plots, "plot_nothing")  # noqa: B009  the checker would know that it is not there
