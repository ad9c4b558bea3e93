"""The pictures of README and docs/report.md, from the demo that ``make notebook`` left in
``build/notebook``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from chromium import CHROMIUM, start_chromium  # noqa: E402

from src.plots.report.writer import write_report  # noqa: E402

DEMO, IMAGES = ROOT / "build" / "notebook", ROOT / "docs" / "images"
REPORT_WIDTH, REPORT_HEIGHT = 640, 1026
COLUMNS = (
    "header.top, #results",
    "#mistakes, #browser",
)  # what each column of the report's picture shows
KEEP = """
document.querySelectorAll('header.top, nav, section').forEach(part => {{
    part.style.display = part.matches('{shown}') ? '' : 'none';
}});
document.querySelectorAll('article:nth-of-type(n+2)').forEach(record => {{
    record.style.display = 'none';
}});
scrollTo(0, 0)
"""


def main() -> None:
    """Write the three pictures; the report's needs Chromium and is left as it is without."""
    save(
        Image.open(DEMO / "figures" / "test_ecg_example.png").convert("RGB"),
        IMAGES / "ecg_on_paper.png",
    )
    save(join_figures(), IMAGES / "training_and_test.png")
    if CHROMIUM:
        save(picture_report(), IMAGES / "report.png")


def join_figures() -> Image.Image:
    """Return the history, with F1 scores and confusion matrix to its right."""
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
    """Return parts of the demo's report in two columns, as a browser shows them."""
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
