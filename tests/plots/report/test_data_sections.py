"""The sections on the data, against the manifest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
from report_page import Reader

from src.plots.report.content import Cell
from src.plots.report.data_sections import describe_ages
from src.plots.report.writer import write_report
from src.processed.manifest import load_manifest, save_manifest


def test_data_and_splits_are_those_of_the_manifest(read: Reader, processed: Path) -> None:
    manifest = load_manifest(processed)
    collections = {row["collection"][0]: row for row in read.tables["data: Collections"]}
    assert collections["all"]["records"][0] == str(len(manifest)) == "36"
    assert collections["synthetic_mat"]["rates in Hz"][0] == "257"
    splits = {row["split"][0]: int(row["records"][0]) for row in read.tables["splits: Splits"]}
    assert splits == manifest["split"].value_counts().to_dict()


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


def test_ages_are_a_median_with_quartiles() -> None:
    rows = pd.DataFrame({"age": ["40", "50", "60", "", "70", "80"]})
    assert describe_ages(rows) == Cell("60", 60.0, "50–70")
    assert describe_ages(rows[rows["age"] == ""]) == Cell("–")
