"""Predictions for the windows of a recording: where they lie, what they say, and what they skip."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import bad_records
import numpy as np
import pytest

from src.classifier.classifier import Classifier
from src.classifier.file_predictions import TRAINED_ON
from src.classifier.timeline import Span, Timeline, list_spans
from src.learning.checkpoints import LogitScale, load_checkpoint, save_checkpoint
from src.records import reading
from src.records.reading import read_record
from src.records.record import ECGRecord, Extent, RecordError, RecordRequest
from src.records.sample_collections import SampleData, write_wfdb
from src.records.synthetic import generate_ecg
from src.records.windows import cut_windows

FS = 100.0


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Path:
    return trained / "models" / "best.pth"


@pytest.fixture(scope="module")
def whole(checkpoint: Path) -> Classifier:
    """A network of whole records of 10 s."""
    return Classifier.load(checkpoint, device="cpu")


def changed(checkpoint: Path, to: Path, **card: object) -> Classifier:
    loaded = load_checkpoint(checkpoint)
    save_checkpoint(to, dataclasses.replace(loaded.card, **card), loaded.weights)
    return Classifier.load(to, device="cpu")


def of_windows(checkpoint: Path, to: Path, window_s: float, stride_s: float) -> Classifier:
    settings = load_checkpoint(checkpoint).card.preprocess
    settings = dataclasses.replace(settings, window_s=window_s, stride_s=stride_s)
    return changed(checkpoint, to, preprocess=settings)


def ecg(duration_s: float, fs: float = FS, seed: int = 0, label: str = "NORM") -> ECGRecord:
    rng = np.random.default_rng(seed)
    return generate_ecg(label, fs=fs, duration_s=duration_s, rng=rng, record_id="long")


@pytest.mark.parametrize("fs", [100.0, 128.0, 500.0])
def test_windows_follow_each_other_and_are_predicted_as_records(
    whole: Classifier, fs: float
) -> None:
    record = ecg(34.0, fs)
    timeline = whole.timeline(record)
    assert timeline.start_s.tolist() == [0, 10, 20] and timeline.end_s.tolist() == [10, 20, 30]
    assert (timeline.record_id, timeline.fs, timeline.duration_s) == ("long", fs, 34.0)
    for window, scores, labels in zip(
        cut_windows(record, 10.0), timeline.scores, timeline.labels, strict=True
    ):
        alone = whole.predict(window)
        np.testing.assert_allclose(scores, alone.scores, atol=1e-6)
        assert labels == alone.labels


def test_a_network_of_windows_gets_its_windows(checkpoint: Path, tmp_path: Path) -> None:
    classifier = of_windows(checkpoint, tmp_path / "w.pth", 8.0, 4.0)
    record = ecg(21.0)
    timeline = classifier.timeline(record)
    assert timeline.start_s.tolist() == [0, 4, 8, 12]
    assert timeline.end_s.tolist() == [8, 12, 16, 20]
    prediction = classifier.predict(record, long="mean")
    np.testing.assert_allclose(timeline.scores.mean(axis=0), prediction.scores, atol=1e-6)


def test_a_file_is_read_window_by_window(
    whole: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ecg(64.0)
    write_wfdb(record, tmp_path)
    longest = []
    read_wfdb = reading.read_wfdb

    def spy(path: Path, request: RecordRequest) -> ECGRecord:
        part = read_wfdb(path, request)
        longest.append(part.n_samples)
        return part

    kind = dataclasses.replace(reading._FORMATS[".hea"], read=spy)
    monkeypatch.setitem(reading._FORMATS, ".hea", kind)
    timeline = whole.timeline(tmp_path / "long.hea", batch_size=4)
    # 10 s with a second around each
    assert len(longest) == 6 and max(longest) == 1200
    monkeypatch.undo()
    in_memory = whole.timeline(read_record(tmp_path / "long.hea"))
    np.testing.assert_allclose(timeline.scores, in_memory.scores, atol=1e-6)


def test_calibration_and_thresholds_count(checkpoint: Path, tmp_path: Path) -> None:
    card = load_checkpoint(checkpoint).card
    n = len(card.classes)
    record = ecg(20.0)
    raw = changed(checkpoint, tmp_path / "raw.pth", single_label=False).timeline(record)
    scale = LogitScale((0.5,) * n, (0.25,) * n)
    odds = raw.scores / (1 - raw.scores)
    calibrated = 1 / (1 + np.exp(-(0.5 * np.log(odds) + 0.25)))
    # Half of the classes get a threshold below their probability in the first window.
    factors = np.where(np.arange(n) % 2, 0.99, 1.01)
    thresholds = tuple((calibrated[0] * factors).tolist())
    classifier = changed(
        checkpoint,
        tmp_path / "c.pth",
        single_label=False,
        calibration=scale,
        thresholds=thresholds,
    )
    timeline = classifier.timeline(record)
    np.testing.assert_allclose(timeline.scores, calibrated, atol=1e-5)
    assert timeline.labels[0] == tuple(card.classes[1::2])


def test_a_record_shorter_than_a_window_is_its_only_window(whole: Classifier) -> None:
    timeline = whole.timeline(ecg(6.0))
    assert (timeline.start_s.tolist(), timeline.end_s.tolist()) == ([0], [6])
    assert "short:6 of 10 s" in timeline.notes[0]
    np.testing.assert_allclose(timeline.scores[0], whole.predict(ecg(6.0)).scores, atol=1e-6)


def test_unfit_windows_are_empty_unless_requested(whole: Classifier) -> None:
    record = ecg(20.0)
    one_lead = dataclasses.replace(record, signal=record.signal[1:2], leads=("II",))
    timeline = whole.timeline(one_lead)
    assert np.isnan(timeline.scores).all() and timeline.labels == ((), ())
    assert timeline.notes[0][0].startswith("unfit: too few usable leads: 1 of 12")
    assert timeline.excerpts == () and timeline.is_predicted == [False, False]
    assert str(timeline).startswith("long: 2 windows of 10 s, 2 without a prediction, unfit: too")
    timeline = whole.timeline(one_lead, predict_unfit=True)
    assert np.isfinite(timeline.scores).all() and timeline.notes[0][0].startswith("unfit: ")
    assert {excerpt.leads for excerpt in timeline.excerpts} == {("II",)}


def test_a_gap_leaves_its_windows_empty(whole: Classifier) -> None:
    record = ecg(40.0)
    record.signal[:, 1300:1700] = np.nan
    timeline = whole.timeline(record)
    assert timeline.is_predicted == [True, False, True, True]
    assert timeline.notes[1] == (
        "rejected: 4 s of samples are missing in one gap (leads I, II, III, aVR, aVL, aVF, V1, V2, "
        "V3, V4, V5, V6), the limit is 0.2 s",
    )
    assert [span.labels is None for span in list_spans(timeline)].count(True) == 1


def test_windows_begin_anew_after_the_gaps_of_a_file(
    whole: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wfdb(ecg(64.0), tmp_path)
    # As an EDF+D file states its continuous runs
    extent = Extent(6400, FS, ((0, 2500), (2500, 2900), (3250, 6400)))
    kind = dataclasses.replace(reading._FORMATS[".hea"], extent=lambda path, request: extent)
    monkeypatch.setitem(reading._FORMATS, ".hea", kind)
    timeline = whole.timeline(tmp_path / "long.hea")
    assert timeline.start_s.tolist() == [0, 10, 32.5, 42.5, 52.5]
    assert [(span.start_s, span.end_s) for span in list_spans(timeline) if span.labels is None] == [
        (20, 32.5),
        (62.5, 64),
    ]


def test_an_unreadable_record_raises(whole: Classifier, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"promises_more"):
        whole.timeline(bad_records.promises_more(tmp_path))


def test_windows_of_training_recordings_are_marked(whole: Classifier, sample: SampleData) -> None:
    files = sorted(sample.data["synthetic_wfdb"].glob("*.hea"))
    found = [file for file in files if whole.predict(file).reason == TRAINED_ON]
    timeline = whole.timeline(found[0])
    assert TRAINED_ON in timeline.notes[0]
    assert TRAINED_ON not in whole.timeline(found[0], allow_overlap=True).notes[0]


def test_excerpts_are_of_the_most_certain_windows(whole: Classifier) -> None:
    record = ecg(60.0)
    timeline = whole.timeline(record)
    assert [each.class_name for each in timeline.excerpts] == [
        name for name in whole.classes if any(name in labels for labels in timeline.labels)
    ]
    for excerpt in timeline.excerpts:
        column = whole.classes.index(excerpt.class_name)
        rows = [i for i, labels in enumerate(timeline.labels) if excerpt.class_name in labels]
        best = max(rows, key=lambda i: timeline.scores[i, column])
        assert excerpt.start_s == timeline.start_s[best]
        assert excerpt.score == timeline.scores[best, column]
        first = round(excerpt.start_s * FS)
        np.testing.assert_allclose(
            excerpt.signal_mv, record.signal[:, first : first + 1000], atol=1e-4
        )


# Spans --------------------------------------------------------------------------------------------


def make_timeline(
    starts: list[float], ends: list[float], labels: list[tuple[str, ...] | None], duration_s: float
) -> Timeline:
    scores = [[np.nan] if each is None else [0.5] for each in labels]
    return Timeline(
        "r",
        ("A",),
        np.array(starts),
        np.array(ends),
        np.array(scores),
        tuple(each or () for each in labels),
        ((),) * len(labels),
        100.0,
        duration_s,
    )


def test_spans_join_equal_windows_and_name_gaps() -> None:
    timeline = make_timeline(
        [0, 10, 20, 50, 60], [10, 20, 30, 60, 70], [("A",), ("A",), (), (), None], 73
    )
    assert list_spans(timeline) == [
        Span(0, 20, ("A",)),
        Span(20, 30, ()),
        Span(30, 50, None),
        Span(50, 60, ()),
        Span(60, 73, None),
    ]


def test_spans_of_overlapping_windows_end_where_the_next_begins() -> None:
    timeline = make_timeline([5, 10, 15], [15, 20, 25], [("A",), (), ("A",)], 25)
    assert list_spans(timeline) == [
        Span(0, 5, None),
        Span(5, 10, ("A",)),
        Span(10, 15, ()),
        Span(15, 25, ("A",)),
    ]
