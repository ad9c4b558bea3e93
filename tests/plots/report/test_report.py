"""The report: what is on the page, that numbers are those of the files, and that nothing in it can
run or fetch.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from chromium import CHROMIUM, Page, start_chromium
from record_files import write_record_file

from src.config import STANDARD_LEADS
from src.eval import EvaluationOptions, evaluate, evaluate_predictions
from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.plots.curves import plot_roc_curves
from src.plots.report.content import Cell, Table, dense, join_counts, number, score, share
from src.plots.report.examples import Example, collect_examples, encode_example, shade_stretches
from src.plots.report.page import picture, render_page, script_data
from src.plots.report.run_files import SplitEvaluation, load_run
from src.plots.report.score_sections import describe_results
from src.plots.report.writer import write_report
from src.processed.manifest import MANIFEST_COLUMNS, load_manifest, save_manifest, select_rows
from src.processed.record_files import record_path
from src.utils import load_json, save_json

HOSTILE = "<script>window.hacked=1</script>"
DATASET = "a&'b"  # a manifest takes no worse name
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
    "settings",
]


class Reader(HTMLParser):
    """Collects tags, links, headings, facts, and tables as heading -> rows of (text, order)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tables: dict[str, list[dict[str, tuple[str, str | None]]]] = {}
        self.facts: list[tuple[str, str | None]] = []
        self._inside: list[str] = []
        self._heading = self._section = self._text = ""
        self._order: str | None = None
        self._cells: list[tuple[str, str | None]] = []
        self._columns: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("th", "td", "dd", "dt", "h2", "h3", "summary"):
            self._text, self._order = "", given.get("data-order")
        if tag in ("tr", "thead"):
            self._cells = []
        if tag == "section":
            self._section = str(given["id"])

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        text = " ".join(self._text.split())
        if tag in ("h3", "summary"):
            self._heading = f"{self._section}: {re.sub(r' [(][0-9]+[)]$', '', text)}"
        elif tag in ("th", "td"):
            self._cells.append((text, self._order))
        elif tag == "thead":
            self._columns = [cell[0] for cell in self._cells]
            self.tables[self._heading] = []
        elif (
            tag == "tr"
            and self._columns
            and len(self._cells) == len(self._columns)
            and self._heading in self.tables
        ):
            self.tables[self._heading].append(dict(zip(self._columns, self._cells, strict=True)))
        elif tag == "dt":
            self._name = text
        elif tag == "dd":
            self.facts.append((self._name, self._order))
        elif tag == "table":
            self._columns = []


@pytest.fixture(scope="module")
def run(trained: Path, processed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was judged on two splits, with intervals and a calibration."""
    folder = tmp_path_factory.mktemp("report") / "a run"
    shutil.copytree(trained, folder)
    best = folder / "models" / "best.pth"
    evaluate(
        best,
        processed,
        split="train",
        out=folder,
        options=EvaluationOptions(intervals=20, calibrate=True),
    )
    evaluate(best, processed, split="val", out=folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path, processed: Path) -> Path:
    return write_report(run, processed)


@pytest.fixture(scope="module")
def read(page: Path) -> Reader:
    return Reader(page.read_text(encoding="utf-8"))


# What is on the page ------------------------------------------------------------------------------


def test_every_section_is_there_and_in_the_contents(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)">', text) == SECTIONS
    assert re.findall(r'<li><a href="#(\w+)">', text) == SECTIONS
    assert "<h1>Report of a run</h1>" in text and page.name == "report.html"


@pytest.mark.parametrize("split", ["train", "val"])
def test_numbers_are_those_of_the_files(run: Path, read: Reader, split: str) -> None:
    metrics = load_json(run / f"metrics_{split}.json")
    orders = [
        float(order) for name, order in read.facts if name == "macro F1" and order is not None
    ]
    assert metrics["f1_macro"] in orders
    if split != "train":  # tables of one name: the last stays, of the split that comes last
        return
    for row in read.tables["results: Classes"]:
        name = row["class"][0]
        found, interval = metrics["per_class"][name], metrics["intervals"]["per_class"][name]["f1"]
        detail = f" {interval[0]:.3f}–{interval[1]:.3f}" if interval else ""
        assert row["F1"] == (f"{found['f1']:.3f}{detail}", str(found["f1"]))
        assert row["positive"] == (str(found["support"]), str(float(found["support"])))
        assert row["AUROC"][1] == str(found["auroc"])


def test_data_and_splits_are_those_of_the_manifest(read: Reader, processed: Path) -> None:
    manifest = load_manifest(processed)
    collections = {row["collection"][0]: row for row in read.tables["data: Collections"]}
    assert collections["all"]["records"][0] == str(len(manifest)) == "36"
    assert collections["synthetic_mat"]["rates in Hz"][0] == "257"
    splits = {row["split"][0]: int(row["records"][0]) for row in read.tables["splits: Splits"]}
    assert splits == manifest["split"].value_counts().to_dict()


def test_training_and_settings_are_those_of_the_log(run: Path, read: Reader) -> None:
    log = load_json(run / "training_log.json")
    assert [row["train loss"][1] for row in read.tables["training: Epochs"]] == [
        str(row["train_loss"]) for row in log["history"]
    ]
    settings = {row["setting"][0]: row["value"][0] for row in read.tables["settings: Settings"]}
    assert settings["epochs"] == "2" and settings["fs"] == "100" and "root" not in settings


def test_calibration_stands_before_and_after(run: Path, read: Reader) -> None:
    metrics = load_json(run / "metrics_train.json")
    measures = {row["measure"][0]: row for row in read.tables["calibration: Calibration"]}
    row = measures["expected calibration error"]
    assert row["before"][1] == str(metrics["calibration"]["reliability_before"]["ece"])
    assert row["after calibration"][1] == str(metrics["reliability"]["ece"])


def test_the_same_files_give_the_same_page(
    run: Path, processed: Path, page: Path, tmp_path: Path
) -> None:
    again = write_report(run, processed, tmp_path / "again.html")
    assert again.read_bytes() == page.read_bytes()


# What may be missing ------------------------------------------------------------------------------


def test_a_run_that_was_not_judged_yet(trained: Path, tmp_path: Path) -> None:
    text = write_report(trained, out=tmp_path / "r.html").read_text(encoding="utf-8")
    assert "was not judged yet" in text and "name it with --processed" in text
    assert re.findall(r'<section id="(\w+)">', text) == ["data", "training", "settings"]


def test_numbers_without_predictions_log_or_data(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "metrics_val.json", tmp_path / "metrics_left_out.json")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)">', text) == [
        "data",
        "results",
        "calibration",
        "subgroups",
        "settings",
    ]
    assert "records called left out" in text


def test_no_examples_and_no_saliency(run: Path, processed: Path, tmp_path: Path) -> None:
    without = write_report(run, processed, tmp_path / "r.html", n_examples=0).read_text(
        encoding="utf-8"
    )
    assert 'id="ecg-browser"' not in without
    examples = collect_examples(load_run(run, processed), 2, with_saliency=False)
    assert examples and all(example.shade is None for example in examples)
    with pytest.raises(ValueError, match="n_examples is -1"):
        write_report(run, processed, n_examples=-1)


def test_a_leak_between_splits_is_told(run: Path, processed: Path, tmp_path: Path) -> None:
    shutil.copytree(processed, tmp_path / "p")
    manifest = load_manifest(processed)
    manifest.loc[manifest["split"].isin(["train", "val"]), ["patient_id", "dataset"]] = [
        "p1",
        "synthetic_mat",
    ]
    first, second = (manifest.index[manifest["split"] == name][0] for name in ("train", "test"))
    manifest.loc[first, "signal_hash"] = "1275b" + "5" * 64
    manifest.loc[second, "signal_hash"] = "1275b" + "5" * 63 + "6"  # a copy's differs in some bits
    save_manifest(manifest, tmp_path / "p")
    shutil.copy(run / "training_log.json", tmp_path)
    text = write_report(tmp_path, tmp_path / "p").read_text(encoding="utf-8")
    assert "In more than one split: 1 patients and 1 recordings" in text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither training_log.json nor metrics_*.json"),
        ({"metrics_test.json": {"a": 1}}, "not metrics as evaluate writes them"),
    ],
)
def test_a_folder_that_is_no_run(tmp_path: Path, files: dict[str, object], message: str) -> None:
    for name, value in files.items():
        save_json(value, tmp_path / name)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_run(tmp_path)


def test_another_processed_folder_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not hold the records"):
        load_run(run, tmp_path)


# Nothing runs, nothing is fetched -----------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run in which every name and remark is an attack."""
    root = tmp_path_factory.mktemp("hostile")
    ids, labels = (
        [f'{n}"><img src=x onerror=window.hacked=1>{HOSTILE}' for n in range(4)],
        [HOSTILE, "'onload='&", HOSTILE, "'onload='&"],
    )
    keys = [f"{DATASET}__{record_id}" for record_id in ids]
    rng = np.random.default_rng(0)
    for key in keys:
        arrays = {
            "signal": rng.normal(size=(12, 500)),
            "lead_mean": np.zeros(12),
            "lead_std": np.ones(12),
            "lead_present": np.ones(12, bool),
        }
        write_record_file(record_path(root, key), {**arrays, "n_valid": 500, "fs": 100.0})
    rows = [
        dict.fromkeys(MANIFEST_COLUMNS, HOSTILE)
        | {
            "dataset": DATASET,
            "record_id": record_id,
            "labels": label,
            "fs": "100",
            "n_samples": "500",
            "status": "ok",
            "split": "test",
            "quality_flags": f"{HOSTILE}:{HOSTILE}",
        }
        for record_id, label in zip(ids, labels, strict=True)
    ]
    import pandas as pd

    manifest = pd.DataFrame(
        [*rows, rows[0] | {"record_id": "x", "status": "rejected", "reason": HOSTILE}]
    )
    save_manifest(manifest, root)
    truth = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
    predictions = Predictions(
        tuple(keys),
        truth,
        np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]]),
        (HOSTILE, "'onload='&"),
    )
    predictions.save(root / "predictions_test.npz")
    _, metrics = evaluate_predictions(
        predictions, select_rows(load_manifest(root), keys), EvaluationOptions()
    )
    save_json({"checkpoint": HOSTILE, **metrics}, root / "metrics_test.json")
    history = [{"epoch": 1, "train_loss": 1.0, HOSTILE: 2.0}]
    log = {
        "history": history,
        "best_epoch": 1,
        "best_metric_name": HOSTILE,
        "stopped": HOSTILE,
        "config": {"train": {HOSTILE: HOSTILE}},
    }
    save_json(
        {**log, "environment": {"platform": HOSTILE, "packages": {HOSTILE: HOSTILE}}},
        root / "training_log.json",
    )
    return write_report(root, root)


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


def test_data_in_a_script_cannot_end_it() -> None:
    text = script_data(["</script><!--", "&", "\u2028"])
    assert "<" not in text and "&" not in text and "\u2028" not in text


def test_a_page_without_sections_still_stands() -> None:
    assert HOSTILE not in render_page(HOSTILE, [], [])


# Parts --------------------------------------------------------------------------------------------


def test_cells_say_what_they_are_sorted_by() -> None:
    assert number(None) == number(float("nan")) == Cell("–")
    assert score(0.5, [0.25, 0.75]) == Cell("0.500", 0.5, "0.250–0.750", 0.5)
    assert [share(part, 2000).text for part in (0, 1, 2, 2000)] == [
        "0.0%",
        "<0.1%",
        "0.1%",
        "100.0%",
    ]
    assert share(0, 0) == Cell("–")
    assert join_counts({"a": 1, "b": 3, "c": 2}, limit=2).text == "b (3), c (2) and 1 more"


def test_a_dense_table_has_no_empty_column() -> None:
    table = dense(Table("t", ("a", "b"), [[number(1.0), Cell("–")], [Cell("–"), Cell("–")]]))
    assert table.columns == ["a"] and table.numeric == [True] and len(table.rows) == 2


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


def test_stretches_are_summed_smoothed_and_scaled() -> None:
    values = np.zeros((2, 100), np.float32)  # ten stretches of 0.04 s at 250 Hz
    values[0, 20:30], values[1, 90:] = 1.0, -0.5
    shade = shade_stretches(values, 250.0)
    assert shade.shape == (2, 10) and shade.max() == 1
    assert shade[0, 1:4] == pytest.approx(np.array([0.5, 1, 0.5]), rel=0.3)
    assert shade[1, 9] < shade[1, 8] < 0 == shade[1, 0]


def test_signals_come_back_from_the_page(run: Path, processed: Path) -> None:
    example = collect_examples(load_run(run, processed), 1, with_saliency=False)[0]
    signal = example.signal.copy()
    signal[3, 10] = np.nan
    coded = encode_example(Example(example.verdict, "", signal, example.fs, np.arange(12) != 5))
    codes = np.frombuffer(base64.b64decode(str(coded["data"])), "<i2").reshape(12, -1)
    step = coded["step_mv"]
    assert isinstance(step, float) and codes[3, 10] == -32768 and (codes[5] == -32768).all()
    assert coded["leads"] == list(STANDARD_LEADS)
    assert codes[0] * step == pytest.approx(signal[0], abs=0.51 * step)


# In a browser -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with start_chromium(tmp_path_factory.mktemp("chromium")) as window:
        yield window


@pytest.mark.parametrize("which", ["page", "hostile"])
@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (390, True)])
def test_it_opens_without_a_complaint_and_fits(
    chromium: Page, request: pytest.FixtureRequest, which: str, width: int, mobile: bool
) -> None:
    chromium.open(request.getfixturevalue(which), width, 844, mobile=mobile)
    assert chromium.problems == []
    assert all(url.startswith(("file:", "data:")) for url in chromium.requests)
    assert chromium.run(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    assert chromium.run("window.hacked === undefined")
    assert chromium.run("!document.getElementById('ecg-browser').hidden")


def test_tables_sort(chromium: Page, page: Path) -> None:
    chromium.open(page)
    table = "[...document.querySelectorAll('#training table')].at(-1)"
    cells = f"[...{table}.tBodies[0].rows].map(row => Number(row.cells[0].dataset.order))"
    click = f"{table}.tHead.rows[0].cells[0].querySelector('button').click()"
    assert chromium.run(cells) == [1, 2]
    chromium.run(click)
    assert (
        chromium.run(cells) == [2, 1]
        and chromium.run(f"{table}.tHead.rows[0].cells[0].ariaSort") == "descending"
    )
    chromium.run(click)
    assert chromium.run(cells) == [1, 2]


def test_what_is_missing_sorts_last(chromium: Page, page: Path) -> None:
    chromium.open(page)
    code = """(() => {
        const table = document.querySelector('#results table');
        const header = table.tHead.rows[0].cells[2];
        delete table.tBodies[0].rows[1].cells[2].dataset.order;
        const name = table.tBodies[0].rows[1].cells[0].textContent;
        const last = () => [...table.tBodies[0].rows].at(-1).cells[0].textContent;
        const found = [];
        for (let i = 0; i < 2; i += 1) {
            header.querySelector('button').click();
            found.push(last() === name);
        }
        return found;
    })()"""
    assert chromium.run(code) == [True, True]


def state(chromium: Page) -> tuple[float, float]:
    start, span = chromium.run(
        "(({start, span}) => [start, span])(document.getElementById('ecg-browser').dataset)"
    )
    return float(start), float(span)


def test_the_browser_zooms_and_moves(chromium: Page, page: Path) -> None:
    chromium.open(page)
    assert state(chromium) == (0, 10)
    chromium.run("document.querySelector('[data-tool=closer]').click()")
    start, span = state(chromium)
    assert span == pytest.approx(10 / 1.5, abs=0.01) and start == pytest.approx(
        (10 - span) / 2, abs=0.01
    )
    chromium.run("document.querySelector('#ecg-browser svg').focus()")
    for key in ("Home", "ArrowRight"):
        chromium.send("Input.dispatchKeyEvent", type="keyDown", key=key)
    assert state(chromium)[0] == pytest.approx(span / 5, abs=0.01)
    chromium.run("document.querySelector('[data-tool=whole]').click()")
    assert state(chromium) == (0, 10)


def test_wheel_and_pointer(chromium: Page, page: Path) -> None:
    chromium.open(page)
    chromium.run(
        "document.querySelector('#ecg-browser svg').scrollIntoView({behavior: 'instant', "
        "block: 'center'})"
    )
    left, top, width = chromium.run(
        "(box => [box.left, box.top, box.width])(document.querySelector('#ecg-browser "
        "svg').getBoundingClientRect())"
    )
    at = {"x": left + width / 2, "y": top + 100}
    chromium.send(
        "Input.dispatchMouseEvent", type="mouseWheel", deltaX=0, deltaY=-100, modifiers=2, **at
    )
    span = state(chromium)[1]
    assert span < 7
    before = state(chromium)[0]
    for kind, x in (
        ("mousePressed", at["x"]),
        ("mouseMoved", at["x"] - width / 10),
        ("mouseReleased", at["x"] - width / 10),
    ):
        chromium.send(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=at["y"],
            button="left",
            buttons=1,
            clickCount=1,
        )
    assert state(chromium)[0] == pytest.approx(before + span / 10, abs=0.02)
    chromium.send("Input.dispatchMouseEvent", type="mouseMoved", x=at["x"], y=at["y"])
    assert re.fullmatch(
        r"\w+ at [\d.]+ s: -?[\d.]+ mV",
        chromium.run("document.querySelector('.readout').textContent.trim()"),
    )
    for kind, x in (
        ("mousePressed", at["x"]),
        ("mouseMoved", at["x"] + width / 10),
        ("mouseReleased", at["x"] + width / 10),
    ):
        chromium.send(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=at["y"],
            button="left",
            buttons=1,
            clickCount=1,
            modifiers=8,
        )
    measured = chromium.run("document.querySelector('.readout').textContent.trim()")
    assert abs(int(measured.split(" ms")[0]) - span * 100) <= 2 and chromium.problems == []


def test_two_fingers_zoom_on_a_phone(chromium: Page, page: Path) -> None:
    chromium.open(page, 390, 844, mobile=True)
    chromium.run(
        "document.querySelector('#ecg-browser svg').scrollIntoView({behavior: 'instant', "
        "block: 'center'})"
    )
    for kind, apart in (("touchStart", 40), ("touchMove", 80), ("touchMove", 120), ("touchEnd", 0)):
        points = [{"x": 195 - apart, "y": 400, "id": 0}, {"x": 195 + apart, "y": 400, "id": 1}]
        chromium.send("Input.dispatchTouchEvent", type=kind, touchPoints=points if apart else [])
    assert state(chromium)[1] == pytest.approx(10 / 3, rel=0.1)


def test_a_mistake_opens_in_the_browser(chromium: Page, page: Path) -> None:
    chromium.open(page)
    wanted = chromium.run(
        "(b => { b.click(); return b.closest('article').querySelector('code').textContent "
        "})([...document.querySelectorAll('[data-open]')].at(-1))"
    )
    assert chromium.run("document.getElementById('ecg-browser').dataset.key") == wanted
    chromium.run(
        "(s => { s.value = 'V2'; s.dispatchEvent(new Event('change')) "
        "})(document.querySelector('[data-tool=leads]'))"
    )
    assert chromium.run("document.querySelectorAll('#ecg-browser .trace').length") == 1


def test_printing_opens_what_is_folded(chromium: Page, page: Path, tmp_path: Path) -> None:
    chromium.open(page)
    assert chromium.run("document.querySelectorAll('details:not([open])').length") > 0
    assert (
        chromium.run(
            "(dispatchEvent(new Event('beforeprint')), "
            "document.querySelectorAll('details:not([open])').length)"
        )
        == 0
    )
    assert (
        chromium.run(
            "(dispatchEvent(new Event('afterprint')), "
            "document.querySelectorAll('details[open]').length)"
        )
        == 0
    )
    assert chromium.print(tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")


def test_dark_pages_have_dark_figures(chromium: Page, page: Path) -> None:
    ink = "getComputedStyle(document.querySelector('#results figure:not(.plain) text')).fill"
    chromium.open(page)
    light = chromium.run(ink)
    chromium.open(page, dark=True)
    assert chromium.run(ink) != light


# As a command -------------------------------------------------------------------------------------


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


def test_averages_of_both_protocols_and_of_frequent_classes_stand_side_by_side() -> None:
    rng = np.random.default_rng(0)
    y_true = np.stack([np.arange(40) % 2, np.arange(40) % 20 == 0], axis=1).astype(
        float
    )  # 20 positives and 2
    keys = tuple(f"d__{i}" for i in range(40))
    everyone = Predictions(
        keys, y_true, np.clip(y_true * 0.5 + rng.random((40, 2)) * 0.5, 0, 1), ("A", "B")
    )
    metrics = compute_metrics(everyone.subset(np.flatnonzero(y_true.any(axis=1))))
    protocols = {"labelled": metrics, "all": compute_metrics(everyone)}
    table = next(
        block
        for block in describe_results(
            SplitEvaluation("val", {**metrics, "protocols": protocols}, None), {}
        )
        if getattr(block, "caption", "") == "Averages"
    )
    assert [[cell.text for cell in row[:3]] for row in table.rows] == [
        ["that carry a class", "22", "2"],
        ["that carry a class", "22", "1"],
        ["that were looked at for one", "40", "2"],
        ["that were looked at for one", "40", "1"],
    ]
    assert table.note == "Fewer classes: those with 10 positives or more."
    plain = describe_results(
        SplitEvaluation("val", compute_metrics(everyone.subset(range(4))), None), {}
    )
    assert not [block for block in plain if getattr(block, "caption", "") == "Averages"]
