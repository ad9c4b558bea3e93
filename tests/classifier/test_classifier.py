from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import bad_records
import numpy as np
import pytest

from src.classifier.classifier import Classifier, Prediction
from src.classifier.file_predictions import TRAINED_ON, predict_files
from src.classifier.saliency import METHODS
from src.config import STANDARD_LEADS, PreprocessConfig
from src.learning import checkpoints
from src.learning.checkpoints import default_checkpoint, load_checkpoint, save_checkpoint
from src.processed.manifest import load_manifest
from src.records.reading import read_record
from src.records.record import ECGRecord, RecordError
from src.records.sample_collections import SampleData
from src.utils import project_paths


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Path:
    return trained / "models" / "best.pth"


@pytest.fixture(scope="module")
def classifier(checkpoint: Path) -> Classifier:
    return Classifier.load(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def paths(sample: SampleData) -> list[Path]:
    return sorted(sample.data["synthetic_wfdb"].glob("*.hea"))


def changed(checkpoint: Path, to: Path, **card: object) -> Classifier:
    loaded = load_checkpoint(checkpoint)
    save_checkpoint(to, dataclasses.replace(loaded.card, **card), loaded.weights)
    return Classifier.load(to, device="cpu")


def test_it_tells_what_it_is(classifier: Classifier) -> None:
    assert (classifier.leads, classifier.fs, classifier.n_samples) == (STANDARD_LEADS, 100.0, 1000)
    assert repr(classifier) == (
        f"Classifier({len(classifier.classes)} classes: {', '.join(classifier.classes)}; "
        "12 leads, 100 Hz)"
    )


def test_path_record_and_samples_get_the_same_answer(
    classifier: Classifier, paths: list[Path]
) -> None:
    record = read_record(paths[0])
    answers = [
        classifier.predict(paths[0]),
        classifier.predict(str(paths[0].with_suffix(""))),
        classifier.predict(record),
        classifier.predict(record.signal, fs=record.fs, leads=record.leads),
        classifier.predict(
            record.signal[::-1].astype(np.float64), fs=record.fs, leads=record.leads[::-1]
        ),
    ]
    for answer in answers:
        np.testing.assert_allclose(answer.scores, answers[0].scores, atol=1e-6)
        assert answer.label == answers[0].label and answer.labels == (answer.label,)
    assert [answer.record_id for answer in answers] == [paths[0].stem] * 3 + ["samples"] * 2


def test_answers_are_those_of_the_command_line(
    classifier: Classifier, checkpoint: Path, paths: list[Path]
) -> None:
    rows = list(predict_files(load_checkpoint(checkpoint), paths[:5]))
    answers = list(classifier.predict_many(paths[:5], batch_size=2))
    np.testing.assert_allclose(
        [answer.scores for answer in answers], [row.scores for row in rows], atol=1e-6
    )
    first = answers[0]
    assert list(first.probabilities) == list(classifier.classes)
    assert first.probabilities[str(first.label)] == max(first.scores) and sum(
        first.scores
    ) == pytest.approx(1)
    assert str(first).startswith(f"{paths[0].stem}: {first.label} 0.")


def test_many_samples_come_as_one_array(classifier: Classifier, paths: list[Path]) -> None:
    records = [read_record(path) for path in paths[:3]]
    n = min(record.n_samples for record in records)
    assert all(record.leads == STANDARD_LEADS and record.fs == 500 for record in records)
    batch = np.stack([record.signal[:, :n] for record in records])
    many = list(classifier.predict_many(batch, fs=500))
    for answer, signal in zip(many, batch, strict=True):
        np.testing.assert_allclose(
            answer.scores, classifier.predict(signal, fs=500).scores, atol=1e-6
        )


def test_what_cannot_be_used_is_told_or_raised(
    classifier: Classifier, paths: list[Path], tmp_path: Path
) -> None:
    bad = bad_records.empty_mat(tmp_path)
    pleth = ECGRecord("pleth", np.zeros((1, 900), np.float32), 100.0, ("pleth",))
    answers = list(classifier.predict_many([bad, paths[0], pleth]))
    assert [answer.status for answer in answers] == ["unreadable", "ok", "rejected"]
    assert (
        answers[0].label is None and answers[0].labels == () and np.isnan(answers[0].scores).all()
    )
    assert "pleth: rejected, no known lead" in str(answers[2])
    with pytest.raises(RecordError, match=bad.name):
        classifier.predict(bad)
    with pytest.raises(ValueError, match="no known lead"):
        classifier.predict(pleth)


def test_samples_need_a_rate_and_fitting_leads(classifier: Classifier) -> None:
    with pytest.raises(ValueError, match="give fs in Hz"):
        classifier.predict(np.zeros((12, 1000)))
    with pytest.raises(
        ValueError, match=r"samples have shape \(1000, 12\): expected \(12, n_samples\)"
    ):
        classifier.predict(np.zeros((1000, 12)), fs=100)
    with pytest.raises(ValueError, match=r"expected \(2, n_samples\) for the leads I, II"):
        classifier.predict(np.zeros((3, 1000)), fs=100, leads=("I", "II"))


def test_several_labels_are_those_above_their_thresholds(
    checkpoint: Path, paths: list[Path], tmp_path: Path
) -> None:
    classes = load_checkpoint(checkpoint).card.classes
    classifier = changed(checkpoint, tmp_path / "a.pth", single_label=False)
    answer = classifier.predict(paths[0])
    assert answer.labels == tuple(name for name, p in answer.probabilities.items() if p >= 0.5)
    cautious = changed(
        checkpoint,
        tmp_path / "b.pth",
        single_label=False,
        thresholds=(0.0,) + (1.0,) * (len(classes) - 1),
    )
    assert cautious.predict(paths[0]).labels == (classes[0],)


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_comes_with_a_map_on_request(
    classifier: Classifier, paths: list[Path], method: str
) -> None:
    answer = classifier.predict(paths[0], saliency=method)
    assert answer.saliency is not None and answer.saliency.values.shape == (12, 1000)
    assert (answer.saliency.class_name, answer.saliency.method) == (answer.label, method)
    assert classifier.predict(paths[0]).saliency is None


def test_the_map_of_a_long_record_is_that_of_its_most_telling_window(
    checkpoint: Path, paths: list[Path], tmp_path: Path
) -> None:
    windows = PreprocessConfig(fs=100.0, n_samples=300, window_s=3.0)
    classifier = changed(checkpoint, tmp_path / "w.pth", preprocess=windows)
    record, name = read_record(paths[0]), classifier.classes[1]
    answer = classifier.predict(record, saliency="grad_cam", class_name=name)
    size = round(3 * record.fs)
    short = changed(
        checkpoint, tmp_path / "s.pth", preprocess=PreprocessConfig(fs=100.0, n_samples=300)
    )
    parts = [
        record.signal[:, start : start + size]
        for start in range(0, record.n_samples - size + 1, size)
    ]
    each = [
        short.predict(part, fs=record.fs, leads=record.leads).probabilities[name] for part in parts
    ]
    assert answer.saliency is not None and answer.saliency.window == int(np.argmax(each))
    # A window is resampled with the samples around it, a record of its own without.
    assert answer.probabilities[name] == pytest.approx(np.mean(each), abs=1e-5)


def test_the_default_is_the_pretrained_model_where_it_is(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "project_paths", lambda: project_paths(tmp_path))
    assert default_checkpoint() == tmp_path / "artifacts" / "models" / "best.pth"
    with pytest.raises(ValueError, match="no such checkpoint"):
        Classifier.load()
    pretrained = tmp_path / "artifacts" / "pretrained" / "superclass.pth"
    pretrained.parent.mkdir(parents=True)
    pretrained.write_bytes(checkpoint.read_bytes())
    assert Classifier.load(device="cpu").classes == load_checkpoint(checkpoint).card.classes


def test_recordings_that_it_learned_from_are_marked(
    classifier: Classifier, processed: Path
) -> None:
    manifest = load_manifest(processed)
    source = {split: rows["source_path"].iloc[0] for split, rows in manifest.groupby("split")}
    reasons = [
        answer.reason for answer in classifier.predict_many([source["train"], source["test"]])
    ]
    assert reasons == [TRAINED_ON, ""]


def test_real_recordings(classifier: Classifier, real_data: Callable[[str], Path]) -> None:
    headers = sorted(real_data("challenge2021").rglob("*.hea"))[:4]
    answers = list(classifier.predict_many(headers))
    assert all(isinstance(answer, Prediction) and answer.status == "ok" for answer in answers)
