from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from src.processed.manifest import (
    MANIFEST_COLUMNS,
    Journal,
    ManifestRow,
    is_rejected_copy,
    load_manifest,
    load_preprocess_config,
    patients_of,
    save_manifest,
    select_rows,
    summarize_quality,
)


def frame(*rows: ManifestRow) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(MANIFEST_COLUMNS), dtype=str)


def test_a_manifest_survives_the_disk_and_hides_formulas(tmp_path: Path) -> None:
    rows = frame(
        ManifestRow("d", "r1", status="ok", labels="AF;LBBB"),
        ManifestRow("d", "=1+1", status="missing", reason="a, b"),
    )
    save_manifest(rows, tmp_path)
    pd.testing.assert_frame_equal(load_manifest(tmp_path), rows)
    assert "\nd,=1+1" not in (tmp_path / "manifest.csv").read_text()


def test_rows_come_in_the_order_of_the_keys() -> None:
    rows = frame(ManifestRow("d", "a"), ManifestRow("d", "b"), ManifestRow("e", "a"))
    assert select_rows(rows, ["e__a", "d__b"])["dataset"].tolist() == ["e", "d"]
    with pytest.raises(ValueError, match="1 records are not in the manifest, such as d__c"):
        select_rows(rows, ["d__a", "d__c"])


def test_keys_in_another_form_or_of_an_earlier_version_are_found() -> None:
    rows = frame(ManifestRow("d", "r\u00e9c"), ManifestRow("a_", "b"), ManifestRow("a", "_c"))
    keys = ["d__re\u0301c\u200b", "a___b", "a___c"]
    assert select_rows(rows, keys)["record_id"].tolist() == ["r\u00e9c", "b", "_c"]


def test_patients_are_named_with_their_dataset() -> None:
    rows = frame(ManifestRow("d", "a", patient_id="7"), ManifestRow("e", "a", patient_id="7"))
    assert patients_of(rows) == ("d/7", "e/7")
    assert patients_of(frame(ManifestRow("d", "a"))) == ("d__a",)


def test_only_rejected_copies_are_copies() -> None:
    reason = "the same recording as d__a"
    rows = frame(
        ManifestRow("d", "b", status="rejected", reason=reason),
        ManifestRow("d", "c", status="rejected", reason="quality: noise"),
        ManifestRow("d", "d", status="ok", reason=reason),
    )
    assert is_rejected_copy(rows).tolist() == [True, False, False]


def test_a_folder_that_preprocessing_did_not_make_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no processed records here; run preprocess with --out"):
        load_preprocess_config(tmp_path)


def test_the_journal_forgets_a_torn_last_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(
        [
            ManifestRow("d", "r1", status="ok", reason='has "quotes", commas\nand lines'),
            ManifestRow("d", "r2", status="ok"),
        ]
    )
    with open(journal.path, "a") as stream:
        stream.write("d,r3,,half a li")
    rows = journal.load()
    assert rows["record_id"].tolist() == ["r1", "r2"] and rows["reason"][0].endswith("lines")
    journal.remove()
    assert journal.load().empty


def test_a_manifest_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It has no weights, no cover of labels and no beats."""
    row = ManifestRow("d", "r", status="ok", split="val")._asdict()
    for name in ("weight", "label_cover", "beat_s", "rr_before_s", "rr_after_s"):
        del row[name]
    (tmp_path / "manifest.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    frame = load_manifest(tmp_path)
    assert (
        list(frame) == list(MANIFEST_COLUMNS)
        and frame["weight"].tolist() == [""]
        and frame["split"].tolist() == ["val"]
    )
    assert load_manifest(tmp_path, ("dataset", "weight")).to_numpy().tolist() == [["d", ""]]


@pytest.mark.parametrize(("n_absent", "cover"), [(3, "N 1"), (4, "")])
def test_the_journal_of_an_earlier_version_is_resumed(
    n_absent: int, cover: str, tmp_path: Path
) -> None:
    """Its rows have no beats, or no cover of labels either."""
    journal = Journal(tmp_path)
    journal.append([ManifestRow("d", "r", input_hash="ab", label_cover="N 1")])
    row = json.loads(journal.path.read_text())
    journal.path.write_text(json.dumps(row[:-n_absent]) + "\n")
    loaded = journal.load().iloc[0]
    assert (loaded["record_id"], loaded["input_hash"], loaded["label_cover"]) == ("r", "ab", cover)


def test_a_file_that_is_no_manifest_is_named(tmp_path: Path) -> None:
    assert load_manifest(tmp_path).empty
    (tmp_path / "manifest.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"manifest\.csv: columns dataset, record_id"):
        load_manifest(tmp_path)


def test_quality_is_summarized_by_dataset() -> None:
    flags = ["noise:I;noise:II;wander:I"] + ["noise:V1"] * 9 + [""] * 90
    rows = [("a", cell) for cell in flags] + [("b", "")]
    frame = pd.DataFrame(rows, columns=["dataset", "quality_flags"])
    assert summarize_quality(frame) == {"a": "noise 10%"}


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(",".join([*MANIFEST_COLUMNS, "labels"]) + "\n")
    with pytest.raises(ValueError, match="columns labels are repeated"):
        load_manifest(tmp_path)


def test_patients_have_one_name_and_words_for_nobody_none() -> None:
    rows = pd.DataFrame(
        [("d", "a", "3.0"), ("d", "b", "3"), ("d", "c", "unknown"), ("d", "e", "")],
        columns=["dataset", "record_id", "patient_id"],
    )
    assert patients_of(rows) == ("d/3", "d/3", "d/c", "d__e")


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        ("fold", "x", "a whole number"),
        ("fold", "9" * 30, "a whole number"),
        ("fs", "abc", "a rate in Hz"),
        ("fs", "nan", "a rate in Hz"),
        ("n_samples", "1.5", "a whole number"),
        ("age", "old", "years"),
        ("weight", "-1", "a number of 0 or more"),
        ("split", "tset", "one of train, val, test"),
        ("status", "fine", "one of ok"),
        ("label_source", "guess", "one of mapping, fallback"),
    ],
)
def test_a_wrong_cell_is_named_by_file_row_and_column(
    processed: Path, tmp_path: Path, column: str, cell: str, expected: str
) -> None:
    manifest = load_manifest(processed)
    manifest.loc[3, column] = cell
    save_manifest(manifest, tmp_path)
    with pytest.raises(ValueError, match=rf"manifest.csv: row 5, column {column}, .*{expected}"):
        load_manifest(tmp_path)


def test_a_journalled_row_with_a_wrong_cell_is_processed_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    right = ManifestRow("d", "a", fs=500.0, fold=3, status="ok")
    journal.append([right, right._replace(record_id="b", fold="x"), right._replace(fs="-")])
    assert journal.load()["record_id"].tolist() == ["a"]
