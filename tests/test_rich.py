"""What a notebook shows of our objects: HTML with every text escaped, and plain text beside it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from settings import QUICK

from src.commands.dry_run import CheckReport, DatasetCheck
from src.dataloaders import build_dataloaders
from src.eval import Evaluation, EvaluationOptions, compute_evaluation
from src.learning.checkpoints import load_checkpoint
from src.learning.predictions import Predictions
from src.model import load_model
from src.preprocessing import RunSummary
from src.processed.manifest import load_manifest, select_rows
from src.processed.targets import load_records
from src.records.reading import read_record
from src.records.record import ECGRecord
from src.records.sample_collections import SampleData
from src.training import TrainResult
from src.utils import format_cell, html_facts, html_table, load_json

HOSTILE = "<script>alert('&')</script>"


class Reader(HTMLParser):
    """Collects the cells of tables and the tags, and fails on a tag that is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def shown(value: object) -> Reader:
    """Return the HTML that a notebook gets, once its plain text is known to be str()."""
    bundle, _ = DisplayFormatter().format(value)
    assert bundle["text/plain"] == str(value)
    reader = Reader(bundle["text/html"])
    assert "script" not in reader.tags
    return reader


def test_cells_are_escaped_and_numbers_formatted() -> None:
    assert [format_cell(value) for value in (None, 12345, 0.12345, "x")] == [
        "–",
        "12,345",
        "0.123",
        "x",
    ]
    text = html_table([HOSTILE], [[HOSTILE, 1234]], caption=HOSTILE) + html_facts(
        {HOSTILE: HOSTILE, "empty": None}
    )
    assert (
        Reader(text).rows == [[HOSTILE], [HOSTILE, "1,234"]]
        and "<script>" not in text
        and "empty" not in text
    )


def test_a_record_shows_its_leads(sample: SampleData) -> None:
    record = read_record(next(sample.data["synthetic_wfdb"].glob("*.hea")))
    reader = shown(record)
    assert (
        reader.tags.count("svg") == 1 and reader.tags.count("text") == 13
    )  # twelve leads and the strip of lead II
    hostile = dataclasses.replace(
        record, record_id=HOSTILE, codes=(HOSTILE,), leads=(HOSTILE, *record.leads[1:])
    )
    assert "svg" in shown(hostile).tags
    assert "svg" not in shown(ECGRecord("empty", np.zeros((1, 0), np.float32), 500.0, ("I",))).tags


def test_loaders_show_records_by_class_and_split(processed: Path) -> None:
    loaders = build_dataloaders(QUICK, processed)
    rows = {row[0]: row[1:] for row in shown(loaders).rows}
    assert rows["class"] == ["train", "val", "test"]
    assert rows["records"] == [str(len(records)) for records in loaders.records.values()]
    assert sum(int(rows[name][0]) for name in loaders.classes) == len(loaders.records["train"])


def test_an_evaluation_shows_numbers_with_intervals(processed: Path) -> None:
    keys = load_records(processed)["train"].keys[:4]
    truth = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
    predictions = Predictions(
        keys, truth, np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]]), ("N", HOSTILE)
    )
    _, metrics = compute_evaluation(
        predictions, select_rows(load_manifest(processed), keys), EvaluationOptions(intervals=20)
    )
    rows = {row[0]: row[1:] for row in shown(Evaluation("train", predictions, metrics)).rows}
    low, high = metrics["intervals"]["per_class"]["N"]["f1"]
    assert rows["N"][:2] == ["2", f"0.667 ({low:.3f} to {high:.3f})"] and HOSTILE in rows


def test_runs_and_checks(tmp_path: Path) -> None:
    summary = RunSummary(
        5, 2, {"ok": 4, "rejected": 1}, {HOSTILE: 1}, {"train": 4}, n_copied=0, processed=tmp_path
    )
    assert shown(summary).rows[1:] == [
        ["status", "ok", "4"],
        ["status", "rejected", "1"],
        ["split", "train", "4"],
        ["reason", HOSTILE, "1"],
    ]
    check = DatasetCheck(HOSTILE, "folder", 10, 9, 2, Counter({".hea": 10}), Counter({"500 Hz": 2}))
    report = CheckReport((check,), ("a/b: no file",), ("a/c",), Counter({"N": 9}), 1)
    assert shown(report).rows[1:] == [
        [HOSTILE, "10", "9", ".hea (10)", "500 Hz (2)"],
        ["rows without a file"],
        ["a/b: no file"],
        ["records without a row"],
        ["a/c"],
    ]


def test_a_training_shows_its_epochs(trained: Path) -> None:
    log = load_json(trained / "training_log.json")
    checkpoint = load_checkpoint(trained / "models" / "best.pth")
    result = TrainResult(
        load_model(checkpoint),
        checkpoint.card,
        log["history"],
        log["best_epoch"],
        log["best_metric"],
        log["best_metric_name"],
        checkpoint.path,
    )
    rows = shown(result).rows
    assert [row[0] for row in rows] == ["epoch", "1", "2"]
    assert float(rows[1][1]) == pytest.approx(log["history"][0]["train_loss"], abs=5e-4)
