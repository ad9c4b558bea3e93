"""The annotated sample collection: wfdb reads it back, and its beats are where the signal says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.labels.builders import build_labels
from src.labels.mapping import find_problems
from src.records.reading import read_record
from src.records.sample_annotated import write_annotated_collection

wfdb = pytest.importorskip("wfdb")


def test_wfdb_reads_signals_and_annotations(tmp_path: Path) -> None:
    folder = write_annotated_collection(tmp_path, n_records=3, seed=1)
    assert sorted(path.name for path in folder.iterdir())[:3] == [
        "sa00001.atr",
        "sa00001.dat",
        "sa00001.hea",
    ]
    read = wfdb.rdrecord(str(folder / "sa00001"))
    assert (read.fs, read.sig_name, read.sig_len) == (360, ["II", "V1"], 43_200)
    marks = wfdb.rdann(str(folder / "sa00001"), "atr")
    rhythms = [note for note in marks.aux_note if note]
    assert set(rhythms) == {"(N", "(AFIB"} and len(rhythms) >= 4
    assert set(marks.symbol) == {"+", "N", "V"} and (np.diff(marks.sample) >= 0).all()


def test_beats_are_at_the_steep_parts_of_the_signal(tmp_path: Path) -> None:
    folder = write_annotated_collection(tmp_path, n_records=1)
    signal = read_record(folder / "sa00001.hea").signal[1]
    marks = wfdb.rdann(str(folder / "sa00001"), "atr")
    beats = marks.sample[np.isin(marks.symbol, ["N"])]
    steepness = np.abs(np.diff(signal))
    near = [steepness[max(0, beat - 18) : beat + 18].max() for beat in beats]
    assert np.median(near) > 5 * np.median(steepness)


def test_the_same_arguments_write_the_same_bytes_once(tmp_path: Path) -> None:
    folder = write_annotated_collection(tmp_path, n_records=2)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    write_annotated_collection(tmp_path, n_records=2)
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    assert before == after


def test_labels_of_the_collection(tmp_path: Path) -> None:
    folder = write_annotated_collection(tmp_path, n_records=2)
    frame = build_labels("annotations", folder, dataset="long", what="rhythm")
    assert find_problems(frame) == [] and set(frame["sex"]) <= {"M", "F"}
    # Spans follow each other from the first sample to the last.
    for _, rows in frame.groupby("record_id"):
        assert rows["start_s"].tolist() == ["0", *rows["end_s"].tolist()[:-1]]
        assert rows["end_s"].tolist()[-1] == "120"
