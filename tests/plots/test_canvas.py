"""Saving of figures, names, and properties of every figure: no pyplot, a picture in notebooks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

import src.plots
from src.plots.canvas import COLUMN_MM, new_figure, plain_text, save_figure, style_axes
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
    assert _figure()._repr_png_().startswith(b"\x89PNG")


def test_names_are_shortened_and_never_read_as_mathematics() -> None:
    assert plain_text("a" * 50, 10) == "a" * 9 + "…"
    assert plain_text("cost_$x$") == r"cost_\$x\$"


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
