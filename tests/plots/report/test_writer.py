"""The whole report: its sections, missing files, and that nothing in it can run or fetch."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from report_page import HOSTILE, Reader

from src.plots.report.writer import write_report

SECTIONS = [
    "data",
    "quality",
    "splits",
    "training",
    "results",
    "calibration",
    "subgroups",
    "mistakes",
    "browser",
    "card",
    "settings",
]


def test_every_section_is_there_and_in_the_contents(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)">', text) == SECTIONS
    assert re.findall(r'<li><a href="#(\w+)">', text) == SECTIONS
    assert "<h1>Report of a run</h1>" in text and page.name == "report.html"


def test_the_same_files_give_the_same_page(
    run: Path, processed: Path, page: Path, tmp_path: Path
) -> None:
    again = write_report(run, processed, tmp_path / "again.html")
    assert again.read_bytes() == page.read_bytes()


def test_a_run_that_was_not_evaluated_yet(trained: Path, tmp_path: Path) -> None:
    text = write_report(trained, out=tmp_path / "r.html").read_text(encoding="utf-8")
    assert "has not been evaluated yet" in text and "give it with --processed" in text
    assert re.findall(r'<section id="(\w+)">', text) == ["data", "training", "card", "settings"]


def test_numbers_without_predictions_log_or_data(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "metrics_val.json", tmp_path / "metrics_left_out.json")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)">', text) == [
        "data",
        "results",
        "calibration",
        "subgroups",
        "card",
        "settings",
    ]
    assert "records of the left out set" in text


def test_hostile_names_stay_text(hostile: Path) -> None:
    text = hostile.read_text(encoding="utf-8")
    read = Reader(text)
    assert (
        read.tags.count("script") == 2 and "img" not in read.tags
    )  # the records and the page's own script
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert HOSTILE not in text and text.count("&lt;script&gt;window.hacked") > 20
    assert {row["class"][0] for row in read.tables["results: Classes"]} == {HOSTILE, "'onload='&"}


@pytest.mark.parametrize("which", ["page", "hostile"])
def test_nothing_is_fetched(which: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(which).read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<]*", text)) <= {
        "http://www.w3.org/2000/svg"
    }  # the name of a language
    targets = [
        value
        for name, value in Reader(text).attributes
        if name in ("href", "src", "xlink:href", "action", "data") and value
    ]
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in targets)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_the_command_writes_the_page(
    run: Path, processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from src.__main__ import build_parser

    out = tmp_path / "deep" / "r.html"
    args = build_parser().parse_args(
        [
            "report",
            "--run",
            str(run),
            "--processed",
            str(processed),
            "--out",
            str(out),
            "--examples",
            "1",
            "--no-saliency",
        ]
    )
    assert args.run_command(args) == 0
    assert (
        capsys.readouterr().out == f"{out}: open it in a browser\n" and out.stat().st_size > 100_000
    )
    with pytest.raises(SystemExit):
        build_parser().parse_args(["report", "--run", str(run), "--examples", "-1"])
