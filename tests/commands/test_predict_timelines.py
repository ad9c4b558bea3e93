"""Timelines on disk: the same windows as a table, as a figure and as WFDB annotations."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import bad_records
import numpy as np
import pytest
from PIL import Image

from src.classifier.classifier import Classifier
from src.classifier.timeline import Timeline, list_spans
from src.commands.predict_timelines import annotation_bytes, save_timelines
from src.labels.builders import build_labels
from src.records.formats.wfdb_annotations import read_annotations
from src.records.sample_collections import write_wfdb
from src.records.synthetic import generate_ecg

wfdb = pytest.importorskip("wfdb")


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Path:
    return trained / "models" / "best.pth"


def write_long(
    folder: Path,
    name: str = "long",
    *,
    duration_s: float = 45.0,
    fs: float = 100.0,
    n_leads: int = 12,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    record = generate_ecg("AF", fs=fs, duration_s=duration_s, rng=rng, record_id=name)
    record = dataclasses.replace(
        record, signal=record.signal[:n_leads], leads=record.leads[:n_leads]
    )
    write_wfdb(record, folder)
    return folder / f"{name}.hea"


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def make_timeline(classes: tuple[str, ...], labels: list[tuple[str, ...] | None]) -> Timeline:
    n = len(labels)
    scores = np.full((n, len(classes)), 0.5)
    scores[[each is None for each in labels]] = np.nan
    starts = 10.0 * np.arange(n)
    texts = tuple(each or () for each in labels)
    return Timeline(
        "r", classes, starts, starts + 10, scores, texts, ((),) * n, 250.0, 10.0 * n + 4
    )


def test_table_figure_and_annotations_hold_the_same(checkpoint: Path, tmp_path: Path) -> None:
    path = write_long(tmp_path / "in")
    lines: list[str] = []
    saved = save_timelines(checkpoint, [path], tmp_path / "out", say=lines.append)
    assert saved == f"{tmp_path / 'out'}: 1 timeline"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "long.csv",
        "long.png",
        "long.pred",
    ]
    timeline = Classifier.load(checkpoint, device="cpu").timeline(path)
    assert lines == [str(timeline)] and lines[0].startswith("long: 4 windows of 10 s, ")

    rows = read_rows(tmp_path / "out" / "long.csv")
    assert list(rows[0]) == ["start_s", "end_s", *timeline.classes, "labels", "notes"]
    assert [row["start_s"] for row in rows] == ["0", "10", "20", "30"]
    for row, scores, labels in zip(rows, timeline.scores, timeline.labels, strict=True):
        written = [float(row[name]) for name in timeline.classes]
        np.testing.assert_allclose(written, scores, rtol=1e-5)
        assert row["labels"] == ";".join(labels)

    read = wfdb.rdann(str(tmp_path / "out" / "long"), "pred")
    spans = list_spans(timeline)
    assert read.fs == 100 and set(read.symbol) == {"+"}
    assert read.sample.tolist() == [round(span.start_s * 100) for span in spans]
    assert read.sample[-1] == 4000 and read.aux_note[-1] == "(U"
    with Image.open(tmp_path / "out" / "long.png") as image:
        assert image.width > 1000


def test_annotations_are_read_back(tmp_path: Path) -> None:
    classes = ("AF", "N", "MI (old)")
    timeline = make_timeline(classes, [("N",), ("AF",), ("AF", "MI (old)"), (), None])
    (tmp_path / "r.pred").write_bytes(annotation_bytes(timeline))
    read = wfdb.rdann(str(tmp_path / "r"), "pred")
    assert read.aux_note == ["(N", "(AFIB", "(AFIB+MI _old_", "(NONE", "(U"]
    assert read.sample.tolist() == [0, 2500, 5000, 7500, 10_000] and read.fs == 250
    own = read_annotations(tmp_path / "r.pred")
    assert own.samples.tolist() == read.sample.tolist() and own.fs == 250
    assert list(own.notes.values()) == read.aux_note


def test_labels_annotations_reads_a_timeline(checkpoint: Path, tmp_path: Path) -> None:
    write_long(tmp_path)
    save_timelines(checkpoint, [tmp_path / "long.hea"], tmp_path)
    timeline = Classifier.load(checkpoint, device="cpu").timeline(tmp_path / "long.hea")
    frame = build_labels("annotations", tmp_path, dataset="d", what="rhythm", annotator="pred")
    spans = [span for span in list_spans(timeline) if span.labels is not None]
    assert frame["start_s"].astype(float).tolist() == [span.start_s for span in spans]
    assert frame["end_s"].astype(float).tolist() == [span.end_s for span in spans]
    assert float(frame["end_s"].iloc[-1]) == 40


# Several records ----------------------------------------------------------------------------------


def test_records_of_any_rate_and_length_have_their_timelines(
    checkpoint: Path, tmp_path: Path
) -> None:
    write_long(tmp_path / "in", "fast", fs=500.0, duration_s=25.0)
    write_long(tmp_path / "in", "slow", fs=128.0, duration_s=32.0)
    write_long(tmp_path / "in", "short", duration_s=4.0)
    write_long(tmp_path / "in" / "b", "slow", duration_s=20.0)
    assert save_timelines(checkpoint, [tmp_path / "in"], tmp_path / "out").endswith("4 timelines")
    last = {}
    for name in ("fast", "slow", "short", "slow-2"):
        read = wfdb.rdann(str(tmp_path / "out" / name), "pred")
        rows = read_rows(tmp_path / "out" / f"{name}.csv")
        last[name] = (read.fs, len(rows), rows[-1]["end_s"])
    by_name = {last.pop("slow"), last.pop("slow-2")}
    assert by_name == {(128, 3, "30"), (100, 2, "20")}
    assert last == {"fast": (500, 2, "20"), "short": (100, 1, "4")}


def test_records_that_cannot_be_read_are_named_and_the_others_saved(
    checkpoint: Path, tmp_path: Path
) -> None:
    paths = [
        bad_records.promises_more(tmp_path / "in"),
        write_long(tmp_path / "in", duration_s=20.0),
        tmp_path / "nowhere.hea",
    ]
    lines: list[str] = []
    saved = save_timelines(checkpoint, paths, tmp_path / "out", say=lines.append)
    assert saved.endswith("out: 1 timeline")
    assert lines[0].startswith("promises_more: unreadable (")
    assert lines[2].startswith("nowhere: unreadable (no such record")
    assert sorted(file.stem for file in (tmp_path / "out").iterdir()) == ["long"] * 3


def test_a_record_with_one_lead_has_an_empty_timeline_and_the_command_fails(
    checkpoint: Path, tmp_path: Path
) -> None:
    path = write_long(tmp_path / "in", n_leads=1)
    with pytest.raises(
        ValueError, match=r"not one window of 1 records.*too few usable leads.*--predict-unfit"
    ):
        save_timelines(checkpoint, [path], tmp_path / "out")
    rows = read_rows(tmp_path / "out" / "long.csv")
    assert len(rows) == 4 and {row["AF"] for row in rows} == {""}
    assert all(row["notes"].startswith("unfit: too few usable leads") for row in rows)
    read = wfdb.rdann(str(tmp_path / "out" / "long"), "pred")
    assert (read.sample.tolist(), read.aux_note) == ([0], ["(U"])
    assert (tmp_path / "out" / "long.png").is_file()
    saved = save_timelines(checkpoint, [path], tmp_path / "out", predict_unfit=True)
    assert saved.endswith("out: 1 timeline")


# Files that are there already ---------------------------------------------------------------------


def test_a_recording_is_not_replaced(checkpoint: Path, tmp_path: Path) -> None:
    path = write_long(tmp_path, "r")
    signal = (tmp_path / "r.dat").read_bytes()
    # A signal file may have any name.
    (tmp_path / "r.dat").rename(tmp_path / "r.pred")
    path.write_text(path.read_text().replace("r.dat", "r.pred"))
    with pytest.raises(ValueError, match=r"r\.pred: is a recording: expected another folder"):
        save_timelines(checkpoint, [path], tmp_path)
    assert (tmp_path / "r.pred").read_bytes() == signal

    text = "II,V1\n" + "".join(f"{np.sin(i):.3f},{np.cos(i):.3f}\n" for i in range(1000))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "r.csv").write_text(text)
    with pytest.raises(ValueError, match=r"r\.csv: is a recording"):
        save_timelines(checkpoint, [path], tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["r.csv"]
    assert (tmp_path / "out" / "r.csv").read_text() == text


def test_an_earlier_timeline_is_replaced_and_a_link_followed(
    checkpoint: Path, tmp_path: Path
) -> None:
    path = write_long(tmp_path / "in")
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere.csv").write_text("old")
    (out / "long.csv").symlink_to(tmp_path / "elsewhere.csv")
    for _ in range(2):
        save_timelines(checkpoint, [path], out)
        assert (out / "long.csv").is_symlink()
        assert len(read_rows(tmp_path / "elsewhere.csv")) == 4


@pytest.mark.parametrize("name", ["long.csv", "long.png", "long.pred"])
def test_other_things_than_files_are_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    path = write_long(tmp_path / "in", duration_s=10.0)
    (tmp_path / "out" / name).mkdir(parents=True)
    with pytest.raises(ValueError, match="is a folder: expected the name of a file to write"):
        save_timelines(checkpoint, [path], tmp_path / "out")
    assert (tmp_path / "out" / name).is_dir()
