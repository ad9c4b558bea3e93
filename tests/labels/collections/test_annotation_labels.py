"""Rhythms and beats from annotation files: hand-worked rows, and real windows computed anew."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from settings import ROOT

from src.commands.arguments import COLLECTIONS as NAMES
from src.config import DataConfig, ExecutionConfig, PreprocessConfig
from src.labels.builders import build_labels
from src.labels.collections.wfdb_annotations import (
    BEAT_SYMBOLS,
    COLLECTIONS,
    join_rhythms,
    name_rhythms,
)
from src.labels.crosswalk import load_class_set
from src.labels.mapping import find_problems, save_mapping
from src.preprocessing import run_preprocessing
from src.processed.manifest import load_manifest
from src.processed.runs.chunks import WindowLabeller
from src.processed.runs.plan import plan_run
from src.records.reading import find_windows

wfdb = pytest.importorskip("wfdb")

REAL = ROOT / "data/real"
SHOWN = ["record_id", "mapped_label", "start_s", "end_s"]


def write_record(
    folder: Path,
    name: str,
    marks: list[tuple[int, str, str, int]],
    n_samples: int = 1000,
    comments: str = "",
    annotator: str = "atr",
) -> None:
    """Write a record of one lead at 100 Hz with marks (sample, symbol, text, subtype)."""
    folder.mkdir(parents=True, exist_ok=True)
    np.zeros(n_samples, "<i2").tofile(folder / f"{name}.dat")
    (folder / f"{name}.hea").write_text(
        f"{name} 1 100 {n_samples}\n{name}.dat 16 100/mV 16 0 0 0 0 II\n{comments}"
    )
    samples, symbols, notes, subtypes = zip(*marks, strict=True)
    wfdb.wrann(
        name,
        annotator,
        np.array(samples),
        symbol=list(symbols),
        aux_note=list(notes),
        subtype=np.array(subtypes),
        write_dir=str(folder),
    )


RHYTHM = [
    (50, "+", "(N", 0),
    (60, "N", "", 0),
    (200, "~", "", -1),
    (250, "~", "", 1),
    (300, "+", "(AFIB", 0),
    (400, "V", "", 0),
    (500, "+", "(U", 0),
    (600, "+", "(SVTA\0", 0),
    (700, "A", "", 0),
]


def rows_of(frame: pd.DataFrame) -> list[list[str]]:
    assert find_problems(frame) == []
    return frame[SHOWN].to_numpy().tolist()


def test_rhythm_lasts_to_the_next_change_or_the_end(tmp_path: Path) -> None:
    write_record(tmp_path, "r", RHYTHM, comments="# 69 M 1085 1629 x1\n")
    frame = build_labels("annotations", tmp_path, dataset="d", what="rhythm")
    # Neither what comes before the first change, nor the lost signal, nor (U.
    assert rows_of(frame) == [
        ["r", "N", "0.5", "2"],
        ["r", "N", "2.5", "3"],
        ["r", "AFIB", "3", "5"],
        ["r", "SVTA", "6", "10"],
    ]
    assert set(frame["annotated"]) == {"AFIB;N;SVTA"}
    assert set(frame["age"]) == {"69"} and set(frame["sex"]) == {"M"}


def test_beats_are_points_with_symbols_or_aami_classes(tmp_path: Path) -> None:
    write_record(tmp_path, "r", RHYTHM)
    frame = build_labels("annotations", tmp_path, dataset="d", what="beats")
    expected = [["r", "N", "0.6", "0.6"], ["r", "V", "4", "4"], ["r", "A", "7", "7"]]
    assert rows_of(frame) == expected
    frame = build_labels("annotations", tmp_path, dataset="mitdb", what="beats", classes="aami")
    assert [row[1] for row in rows_of(frame)] == ["N", "V", "S"]
    assert set(frame["annotated"]) == {"N;S;V;F;Q"} and set(frame["patient_id"]) == {"r"}


def test_aami_classes_hold_every_beat_once() -> None:
    aami = load_class_set("aami")
    assert aami.classes == ("N", "S", "V", "F", "Q")
    codes = [code for vocabulary, code in aami.meanings if vocabulary == "beat"]
    assert Counter(codes) == Counter(BEAT_SYMBOLS)
    # de Chazal et al. 2004, table I
    expected = {"N": "NLRej", "S": "AaJS", "V": "VE", "F": "F", "Q": "/fQ"}
    for label, symbols in expected.items():
        assert {aami.meanings["beat", symbol].labels for symbol in symbols} == {(label,)}


def test_classes_of_ones_own_for_rhythms(tmp_path: Path) -> None:
    write_record(tmp_path, "r", RHYTHM)
    (tmp_path / "c.csv").write_text("class,codes\nAF,rhythm:AFIB;rhythm:AFL\nSR,rhythm:N\n")
    frame = build_labels(
        "annotations", tmp_path, dataset="d", what="rhythm", classes=tmp_path / "c.csv"
    )
    # SVTA is neither, and stays as a part in which both are absent.
    assert [row[1] for row in rows_of(frame)] == ["SR", "SR", "AF", ""]
    assert set(frame["annotated"]) == {"AF;SR"}


def test_settings_of_known_collections(tmp_path: Path) -> None:
    assert tuple(COLLECTIONS) == NAMES
    write_record(tmp_path / "c", "data_12_3", [(300, "+", "(AFIB", 0), (1000, "+", "(N", 0)])
    frame = build_labels("annotations", tmp_path / "c", dataset="cpsc2021", what="rhythm")
    assert rows_of(frame) == [["data_12_3", "N", "0", "3"], ["data_12_3", "AFIB", "3", "10"]]
    assert set(frame["patient_id"]) == {"12"}
    write_record(
        tmp_path / "i/p00",
        "p00001_s04",
        [(0, "N", "(AFL", 0), (100, "Q", "", 0), (200, "S", ")", 0)],
    )
    frame = build_labels(
        "annotations", tmp_path / "i", dataset="x", what="rhythm", collection="icentia11k"
    )
    assert rows_of(frame) == [["p00001_s04", "AFL", "0", "2"]]
    assert frame.iloc[0][["patient_id", "path"]].tolist() == ["p00001", "p00/p00001_s04"]
    frame = build_labels("annotations", tmp_path / "i", dataset="icentia11k", what="beats")
    assert [row[1] for row in rows_of(frame)] == ["N", "S"]
    write_record(tmp_path / "p", "I01", [(5, "N", "", 0)], comments="# patient 7\n")
    frame = build_labels("annotations", tmp_path / "p", dataset="incartdb", what="beats")
    assert frame["patient_id"].tolist() == ["7"]
    write_record(tmp_path / "m", "202", [(5, "N", "", 0)])
    frame = build_labels("annotations", tmp_path / "m", dataset="mitdb", what="beats")
    assert frame["patient_id"].tolist() == ["201"]


def test_records_that_cannot_be_used_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_record(tmp_path, "good", [(5, "N", "", 0)])
    write_record(tmp_path, "long", [(5, "N", "", 0), (1001, "N", "", 0)])
    write_record(tmp_path, "lone", [(5, "N", "", 0)])
    (tmp_path / "lone.hea").unlink()
    write_record(tmp_path, "pipe", [(5, "N", "", 0)])
    (tmp_path / "pipe.atr").unlink()
    os.mkfifo(tmp_path / "pipe.atr")
    with caplog.at_level(logging.WARNING):
        frame = build_labels("annotations", tmp_path, dataset="d", what="beats")
    assert frame["record_id"].tolist() == ["good"]
    assert (
        "long.atr: annotation 2 is at sample 1001, the record ends at 1000 (10 s): expected "
        "annotations of this record" in caplog.text
    )
    assert "1 records have no header and are skipped (lone)" in caplog.text
    assert "pipe.atr" in caplog.text


@pytest.mark.parametrize("name", ["(N;AFIB", "(A\x04", "(=1+1", "([N]"])
def test_what_is_no_rhythm_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    write_record(tmp_path, "r", [(5, "+", "(N", 0), (50, "+", name, 0)])
    with pytest.raises(ValueError, match=r"r\.atr: annotation 2 names the rhythm .*such as AFIB"):
        build_labels("annotations", tmp_path, dataset="d", what="rhythm")


def test_wrong_requests_say_what_is_there(tmp_path: Path) -> None:
    write_record(tmp_path, "r", [(5, "N", "", 0)], annotator="qrs")
    with pytest.raises(ValueError, match=r"no annotation file \*\.atr below it.*qrs"):
        build_labels("annotations", tmp_path, dataset="d", what="beats")
    with pytest.raises(ValueError, match="what is not given: expected --what rhythm or --what"):
        build_labels("annotations", tmp_path, dataset="d", annotator="qrs")
    with pytest.raises(ValueError, match="annotator 'qrs' marks no rhythm in 1 records"):
        build_labels("annotations", tmp_path, dataset="d", annotator="qrs", what="rhythm")
    with pytest.raises(ValueError, match="collection 'x' is unknown: expected mitdb"):
        build_labels("annotations", tmp_path, annotator="qrs", what="beats", collection="x")


# Real recordings ----------------------------------------------------------------------------------


def rhythm_of_each_sample(path: Path, n_samples: int, first: str) -> np.ndarray:
    """Paint the rhythm of each sample, without the code under test."""
    read = wfdb.rdann(str(path), "atr")
    painted = np.full(n_samples, first, dtype="U8")
    for sample, note in zip(read.sample, read.aux_note, strict=True):
        if note.startswith("("):
            painted[sample:] = note[1:].strip("\0")
    lost = False
    events = list(zip(read.sample, read.symbol, read.subtype, strict=True))
    for (sample, symbol, subtype), (stop, _, _) in zip(
        events, [*events[1:], (n_samples, "", 0)], strict=True
    ):
        if symbol == "~":
            # Two signals, of which the bits 16 and 32 say that they are unreadable
            lost = subtype & 0x30 == 0x30
        if lost:
            painted[sample:stop] = ""
    return painted


def majority(painted: np.ndarray) -> str:
    names, counts = np.unique(painted[painted != ""], return_counts=True)
    if not len(names) or counts.max() < 0.5 * len(painted) or (counts == counts.max()).sum() > 1:
        return "-"
    return str(names[counts.argmax()])


@pytest.mark.parametrize(
    ("folder", "dataset", "first"),
    [("mitdb_ds1", "mitdb", ""), ("cpsc2021_sample", "cpsc2021", "N")],
)
def test_windows_of_real_rhythms_equal_an_independent_computation(
    folder: str, dataset: str, first: str
) -> None:
    root = REAL / folder
    if not root.is_dir():
        pytest.skip("the real recordings are not there")
    frame = build_labels("annotations", root, dataset=dataset, what="rhythm")
    config = PreprocessConfig(fs=100.0, n_samples=1000, window_s=10.0)
    plan = plan_run(DataConfig({dataset: str(root)}), frame, config)
    counts: Counter[str] = Counter()
    for task in plan.tasks:
        assert task.row is not None
        extent, windows = find_windows(task.file, task.hints, 10.0, 10.0)
        path = Path(task.file).with_suffix("")
        painted = rhythm_of_each_sample(path, extent.n_samples, first)
        labeller = WindowLabeller(task.row, config)
        for start, stop in windows:
            found = labeller.label(extent.fs, extent.n_samples, start, stop)
            label = found.labels[0] if found.is_annotated else "-"
            assert label == majority(painted[start:stop]), (task.record_id, start)
            counts[label] += 1
    assert sum(counts.values()) == {"mitdb": 3960, "cpsc2021": 213}[dataset]


@pytest.mark.parametrize("rule", ["any", "count>=3"])
def test_windows_of_real_beats_equal_an_independent_computation(rule: str) -> None:
    root = REAL / "mitdb_ds1"
    if not root.is_dir():
        pytest.skip("the real recordings are not there")
    least = 1 if rule == "any" else 3
    frame = build_labels("annotations", root, dataset="mitdb", what="beats", classes="aami")
    config = PreprocessConfig(fs=100.0, n_samples=1000, window_s=10.0, window_labels=rule)
    plan = plan_run(DataConfig({"mitdb": str(root)}), frame, config)
    group = {"N": "NLRej", "S": "AaJS", "V": "VE", "F": "F", "Q": "/fQ"}
    for task in plan.tasks:
        assert task.row is not None
        read = wfdb.rdann(str(Path(task.file).with_suffix("")), "atr")
        symbols = np.array(read.symbol)
        labeller = WindowLabeller(task.row, config)
        for first in range(0, 650_000 - 3600 + 1, 3600):
            inside = symbols[(read.sample >= first) & (read.sample < first + 3600)]
            counts = {label: np.isin(inside, list(text)).sum() for label, text in group.items()}
            found = labeller.label(360.0, 650_000, first, first + 3600)
            assert set(found.labels) == {name for name, n in counts.items() if n >= least}
            assert found.is_annotated == bool(sum(counts.values()))


def test_a_real_collection_becomes_windows(tmp_path: Path) -> None:
    root = REAL / "cpsc2021_sample"
    if not root.is_dir():
        pytest.skip("the real recordings are not there")
    frame = build_labels("annotations", root, dataset="cpsc2021", what="rhythm")
    save_mapping(frame, tmp_path / "m.csv")
    run_preprocessing(
        DataConfig({"cpsc2021": str(root)}),
        tmp_path / "out",
        mapping=tmp_path / "m.csv",
        config=PreprocessConfig(fs=100.0, n_samples=1000, window_s=10.0),
        execution=ExecutionConfig(workers=1),
    )
    rows = load_manifest(tmp_path / "out")
    for record_id, label in zip(rows["record_id"], rows["labels"], strict=True):
        name, _, index = record_id.rpartition("__w")
        n_samples = wfdb.rdheader(str(root / name)).sig_len
        painted = rhythm_of_each_sample(root / name, n_samples, "N")
        expected = majority(painted[int(index) * 2000 : int(index) * 2000 + 2000])
        assert label == expected.replace("-", "OTHER")


def test_classes_have_codes_that_differ_and_are_read() -> None:
    named = name_rhythms(
        ["AFIB", "AF", "afib", "SB", "U", "NONE", "ST (2)", "ST {2}", "\u00e9", ""]
    )
    assert named == {
        "AFIB": "AFIB",
        "AF": "AF",
        "afib": "afib",
        "SB": "SBR",
        "U": "U-2",
        "NONE": "NONE-2",
        "ST (2)": "ST _2_",
        "ST {2}": "ST _2_-2",
        "\u00e9": "X",
        "": "X-2",
    }
    assert name_rhythms(["AF", "N"]) == {"AF": "AFIB", "N": "N"}
    assert join_rhythms([]) == "NONE" and join_rhythms(["AFIB", "PVC"]) == "AFIB+PVC"
    assert join_rhythms(["A" * 36, "B", "C"]) == "A" * 36 + "+B+C"
    assert join_rhythms(["A" * 36, "B", "CD", "E"]) == "A" * 36 + "+B"
