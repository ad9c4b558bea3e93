"""The pictures of the documentation, in docs/images.

The rooms of `src` are drawn from the guide's table. The others come from the demo that ``make
notebook`` left in ``build/notebook``; those of the gallery by the calls of its page.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from chromium import CHROMIUM, start_chromium  # noqa: E402

from src.commands.predict_files import save_saliency  # noqa: E402
from src.learning.checkpoints import default_checkpoint  # noqa: E402
from src.plots.report.writer import write_report  # noqa: E402
from src.records.sample_collections import write_sample_collections  # noqa: E402

DEMO, IMAGES = ROOT / "build" / "notebook", ROOT / "docs" / "images"
REPORT_WIDTH, REPORT_HEIGHT = 640, 1026
COLUMNS = ("header.top, #results", "#mistakes, #browser")
"""The parts of the page in each column of the report's picture, as CSS selectors."""

SHOWN = "sw00003"
"""The generated recording that the README predicts."""

GALLERY_DPI = 100

BADGES = {
    "python": ("python", "3.11 or newer"),
    "torch": ("PyTorch", "2.13"),
    "licence": ("licence", "MIT"),
}

KEEP = """
document.querySelectorAll('header.top, nav, section').forEach(part => {{
    part.style.display = part.matches('{shown}') ? '' : 'none';
}});
document.querySelectorAll('article:nth-of-type(n+2)').forEach(record => {{
    record.style.display = 'none';
}});
scrollTo(0, 0)
"""


SPINE, PACKAGE, INK = "#dce9f5", "#fbe8d3", "#22303c"
ROOM_HEIGHT, ROOM_STEP, SHEET_WIDTH = 0.8, 1.0, 11.0


def main() -> None:
    """Write the pictures; those of the demo if it is there, the report's if Chromium is."""
    draw_rooms().savefig(IMAGES / "rooms.png", dpi=110)
    save(Image.open(IMAGES / "rooms.png").convert("RGB"), IMAGES / "rooms.png")
    for name, (label, value) in BADGES.items():
        badge = draw_badge(label, value)
        (IMAGES / f"badge_{name}.svg").write_text(badge, encoding="utf-8")
    save(picture_saliency(), IMAGES / "saliency.png")
    if not DEMO.exists():
        return
    save(
        Image.open(DEMO / "figures" / "test_ecg_example.png").convert("RGB"),
        IMAGES / "ecg_on_paper.png",
    )
    save(join_figures(), IMAGES / "training_and_test.png")
    (IMAGES / "gallery").mkdir(exist_ok=True)
    for name, figure in draw_gallery():
        path = IMAGES / "gallery" / f"{name}.png"
        figure.savefig(path, dpi=GALLERY_DPI)
        save(Image.open(path).convert("RGB"), path)
    if CHROMIUM:
        save(picture_report(), IMAGES / "report.png")


def draw_gallery() -> Iterator[tuple[str, Figure]]:
    """Yield the figure of each call in docs/gallery.md, run in the demo, by its picture's name."""
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    calls = re.findall(r"\(images/gallery/(\w+)\.png\)\s+```python\n(.*?)```", page, re.DOTALL)
    with contextlib.chdir(DEMO):
        for name, code in calls:
            names: dict[str, Any] = {}
            exec(code, names)
            yield name, names["figure"]


def draw_badge(label: str, value: str) -> str:
    """Return a label in grey and its value in blue as SVG, in the size of common badges."""
    left, right = (14 + 6.5 * len(text) for text in (label, value))
    style = 'y="14" fill="#fff" text-anchor="middle" font-family="sans-serif" font-size="11"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right:g}" height="20" role="img" '
        f'aria-label="{label} {value}">'
        f'<rect width="{left:g}" height="20" fill="#555"/>'
        f'<rect x="{left:g}" width="{right:g}" height="20" fill="#0072b2"/>'
        f'<text x="{left / 2:g}" {style}>{label}</text>'
        f'<text x="{left + right / 2:g}" {style}>{value}</text></svg>\n'
    )


def picture_saliency() -> Image.Image:
    """Return the map of the recording that the README predicts, as `--saliency` draws it."""
    with tempfile.TemporaryDirectory() as folder:
        write_sample_collections(Path(folder), n_records=36)
        record = Path(folder) / "synthetic_wfdb" / f"{SHOWN}.hea"
        save_saliency(default_checkpoint(), [record], folder)
        return Image.open(Path(folder) / f"{SHOWN}.png").convert("RGB")


def read_rooms() -> list[tuple[str, int, str]]:
    """Return entry, level and content of each row of the guide's table of `src`, top first."""
    guide = (ROOT / "IMPLEMENTATION_GUIDE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) \| (.+) \|$", guide, re.MULTILINE)
    return [(name, int(level), text.replace("`", "")) for name, level, text in rows]


def draw_rooms() -> Figure:
    """Draw files and packages of `src` as boxes, a row for each level, the command line on top."""
    rooms = read_rooms()
    height = max(level for _, level, _ in rooms) * ROOM_STEP
    figure = Figure(figsize=(SHEET_WIDTH, height * 0.78))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, SHEET_WIDTH), ylim=(0, height + 0.1))
    axes.axis("off")

    # Rooms of one level share its row; none of them imports another
    for level in sorted({level for _, level, _ in rooms}):
        row = [(name, text) for name, own, text in rooms if own == level]
        width = (SHEET_WIDTH - 1.2) / len(row)
        for place, (name, text) in enumerate(row):
            box = (1.0 + place * width, (level - 1) * ROOM_STEP + 0.1, width - 0.15)
            draw_room(axes, box, name, text)

    axes.annotate("", (0.62, 0.2), (0.62, height - 0.2), arrowprops={"arrowstyle": "->", "lw": 1.4})
    axes.text(0.35, height / 2, "imports from", rotation=90, va="center", ha="center", color=INK)
    return figure


def draw_room(axes: Axes, box: tuple[float, float, float], name: str, text: str) -> None:
    """Draw one entry of `src`: its name and content in a box given by left, bottom and width."""
    left, bottom, width = box
    colour = SPINE if name.endswith(".py") else PACKAGE
    shape = FancyBboxPatch(
        (left, bottom),
        width,
        ROOM_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=colour,
        edgecolor=INK,
        linewidth=0.8,
    )
    axes.add_patch(shape)
    lines = textwrap.fill(text, round(width * 13))
    axes.text(left + 0.14, bottom + 0.62, name, weight="bold", va="center", color=INK, size=11)
    axes.text(left + 0.14, bottom + 0.27, lines, va="center", color=INK, size=8.5, linespacing=1.1)


def join_figures() -> Image.Image:
    """Return the training history with F1 scores and confusion matrix to its right."""
    history, scores, confusion = (
        Image.open(DEMO / "figures" / f"{name}.png").convert("RGB")
        for name in ("training_history", "test_f1_scores", "test_confusion_matrix")
    )
    confusion = confusion.resize(
        (scores.width, round(confusion.height * scores.width / confusion.width)),
        Image.Resampling.LANCZOS,
    )
    height = max(history.height, scores.height + confusion.height)
    sheet = Image.new("RGB", (history.width + 20 + scores.width, height), "white")
    sheet.paste(history, (0, 0))
    sheet.paste(scores, (history.width + 20, 0))
    sheet.paste(confusion, (history.width + 20, height - confusion.height))
    return sheet


def picture_report() -> Image.Image:
    """Return two columns of screenshots from the report of the demo."""
    sheet = Image.new("RGB", (2 * REPORT_WIDTH + 20, REPORT_HEIGHT), "white")
    with tempfile.TemporaryDirectory() as folder, start_chromium(Path(folder) / "profile") as page:
        page.send("Emulation.setScrollbarsHidden", hidden=True)
        page.open(
            write_report(
                DEMO / "artifacts", DEMO / "artifacts" / "processed", Path(folder) / "report.html"
            ),
            REPORT_WIDTH,
            900,
        )
        for number, shown in enumerate(COLUMNS):
            page.run(KEEP.format(shown=shown))
            column = Image.open(page.picture(Path(folder) / f"{number}.png")).convert("RGB")
            sheet.paste(
                column.crop((0, 0, REPORT_WIDTH, REPORT_HEIGHT)), (number * (REPORT_WIDTH + 20), 0)
            )
    return sheet


def save(picture: Image.Image, path: Path) -> None:
    """Save a picture of few colours as a small file."""
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
