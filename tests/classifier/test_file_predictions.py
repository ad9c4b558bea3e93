from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from src.classifier.classifier import Classifier
from src.classifier.file_predictions import (
    TRAINED_ON,
    _Owner,
    _Scored,
    _summarize,
    predict_files,
    predict_sources,
)
from src.classifier.inputs import InputFacts, NoInput
from src.config import ModelConfig, PreprocessConfig
from src.learning.checkpoints import (
    Checkpoint,
    ModelCard,
    default_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from src.learning.leaks import TrainingRecordings
from src.model import build_model
from src.preprocessing import build_tensor
from src.processed.normalization import Normalization
from src.records.record import ECGRecord
from src.records.sample_collections import write_wfdb
from src.records.synthetic import generate_ecg

CARD = ModelCard(("A", "B"), False, preprocess=PreprocessConfig(fs=100.0, n_samples=1000))


def scored(first: float, second: float, unfit: str = "") -> _Scored:
    facts = InputFacts((), (), unfit, 1000, 10.0, "")
    return _Scored(torch.tensor([first, second], dtype=torch.float64), facts, is_known=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A checkpoint of random weights, of mV, that was trained on crops."""
    card = dataclasses.replace(
        CARD,
        model=ModelConfig(base_channels=4),
        normalization=Normalization("none"),
        crop_samples=250,
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("c") / "c.pth"
    save_checkpoint(path, card, build_model(card).state_dict())
    return load_checkpoint(path)


@pytest.fixture(scope="module")
def classifier(checkpoint: Checkpoint) -> Classifier:
    return Classifier(checkpoint, "cpu")


@pytest.fixture(scope="module")
def record() -> ECGRecord:
    """25 s at the rate of the network."""
    parts = [
        generate_ecg("AF", fs=100.0, rng=np.random.default_rng(seed), record_id="r")
        for seed in range(3)
    ]
    signal = np.concatenate([part.signal for part in parts], axis=1)[:, :2500]
    return dataclasses.replace(parts[0], signal=signal)


# From windows to records --------------------------------------------------------------------------


def test_a_record_that_breaks_off_is_unreadable() -> None:
    items = [NoInput("rejected", "gap"), scored(0, 0), NoInput("unreadable", "truncated")]
    row = _summarize(_Owner(0, "r", ""), items, CARD, "mean", predict_unfit=False)
    assert (row.status, row.reason, row.scores) == ("unreadable", "truncated", None)


@pytest.mark.parametrize(("long", "scores"), [("mean", (0.3, 0.5)), ("max", (0.4, 0.9))])
def test_unfit_windows_do_not_count_beside_fit_ones(long: str, scores: tuple[float, ...]) -> None:
    items = [scored(0.2, 0.1), scored(0.4, 0.9), scored(1, 1, "gain_low"), NoInput("rejected", "g")]
    row = _summarize(_Owner(0, "r", ""), items, CARD, long, predict_unfit=False)
    assert row.status == "ok" and row.scores == pytest.approx(scores)
    assert row.notes == (
        f"windows:4 ({long})",
        "unfit_windows:1 (gain_low)",
        "rejected_windows:1 (g)",
    )


def test_an_unfit_record_gets_probabilities_on_request_only() -> None:
    items = [scored(0.2, 0.4, "gain_low")]
    row = _summarize(_Owner(0, "r", ""), items, CARD, "mean", predict_unfit=False)
    assert (row.status, row.reason, row.scores) == ("unfit", "gain_low", None)
    row = _summarize(_Owner(0, "r", ""), items, CARD, "mean", predict_unfit=True)
    assert (row.status, row.reason, row.scores) == ("unfit", "gain_low", (0.2, 0.4))


def test_records_are_predicted_together_as_they_are_alone(
    classifier: Classifier, record: ECGRecord
) -> None:
    two_leads = dataclasses.replace(record, signal=record.signal[:2], leads=("I", "II"))
    short = dataclasses.replace(record, signal=record.signal[:, :700])
    nothing = dataclasses.replace(record, signal=record.signal[:1], leads=("RESP",))
    records = [record, two_leads, nothing, short, record] * 5
    together = list(classifier.predict_many(records))
    for found, each in zip(together[:5], records, strict=False):
        [expected] = classifier.predict_many([each])
        assert (found.status, found.reason, found.notes) == (
            expected.status,
            expected.reason,
            expected.notes,
        )
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    assert [each.status for each in together] == [each.status for each in together[:5]] * 5


def test_each_record_that_the_network_was_trained_on_is_marked(
    classifier: Classifier, record: ECGRecord
) -> None:
    other = dataclasses.replace(record, signal=record.signal[:, ::-1].copy())
    members, card = classifier.members, classifier.card
    known = build_tensor(record, card.preprocess).fingerprint
    rows = predict_sources(
        members, card, [other, record, other, record], trained_on=TrainingRecordings([known])
    )
    assert [row.reason for row in rows] == ["", TRAINED_ON, "", TRAINED_ON]


# What a network is given --------------------------------------------------------------------------


def test_an_offset_of_a_lead_changes_no_probability(
    classifier: Classifier, record: ECGRecord
) -> None:
    offsets = np.linspace(-5, 5, 12, dtype=np.float32)[:, None]
    moved = dataclasses.replace(record, signal=record.signal + offsets)
    plain, shifted = (classifier.predict(each) for each in (record, moved))
    np.testing.assert_allclose(plain.scores, shifted.scores, atol=1e-5)


def test_a_long_recording_is_the_mean_the_highest_or_the_first_of_its_windows(
    classifier: Classifier, record: ECGRecord
) -> None:
    windows = [
        classifier.predict(
            dataclasses.replace(record, signal=record.signal[:, start : start + 1000])
        )
        for start in (0, 750, 1500)
    ]
    scores = np.array([window.scores for window in windows])
    by = {long: classifier.predict(record, long=long) for long in ("mean", "max", "first")}
    np.testing.assert_allclose(by["mean"].scores, scores.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(by["max"].scores, scores.max(axis=0), atol=1e-6)
    np.testing.assert_allclose(by["first"].scores, scores[0], atol=1e-6)
    assert by["mean"].notes[0] == "windows:3 (mean)" and by["first"].notes[0] == "cut:10 of 25 s"
    with pytest.raises(ValueError, match="long is 'last': expected one of mean, first, max"):
        classifier.predict(record, long="last")


def test_a_short_recording_is_predicted_from_windows_inside_it(
    classifier: Classifier, record: ECGRecord
) -> None:
    short = dataclasses.replace(record, signal=record.signal[:, :400])
    assert classifier.predict(short).notes[0] == "short:4 of 10 s"
    # Only its last window is seen where the whole is no longer than a crop.
    crop = dataclasses.replace(record, signal=record.signal[:, :250])
    model_input = torch.from_numpy(crop.signal - crop.signal.mean(axis=1, keepdims=True))
    with torch.inference_mode():
        expected = classifier.members[0].model(model_input[None]).sigmoid().numpy()[0]
    np.testing.assert_allclose(classifier.predict(crop).scores, expected, atol=1e-5)


def test_flags_and_absent_leads_come_with_the_prediction(
    classifier: Classifier, record: ECGRecord
) -> None:
    ten = dataclasses.replace(record, signal=record.signal[:, :1000].copy())
    ten.signal[8] = 0.25
    eleven = dataclasses.replace(ten, signal=ten.signal[:11], leads=ten.leads[:11])
    answer = classifier.predict(eleven)
    assert answer.status == "ok" and {"absent:V6", "flat:V3"} <= set(answer.notes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda signal: signal * 1000, "gain_high"),
        (lambda signal: signal / 1000, "gain_low"),
        (lambda signal: signal * 0 + 1, "too few usable leads: 0 of 12"),
        (lambda signal: signal[:2], "too few usable leads: 6 of 12"),
    ],
)
def test_unfit_recordings_get_no_probability(
    classifier: Classifier,
    record: ECGRecord,
    change: Callable[[np.ndarray], np.ndarray],
    reason: str,
) -> None:
    signal = change(record.signal[:, :1000]).astype(np.float32)
    odd = dataclasses.replace(record, signal=signal, leads=record.leads[: len(signal)])
    answer = classifier.predict(odd, saliency="grad_cam")
    assert answer.status == "unfit" and answer.reason.startswith(reason)
    assert answer.label is None and answer.labels == () and answer.saliency is None
    assert np.isnan(answer.scores).all() and str(answer).startswith(f"r: unfit, {reason}")
    forced = classifier.predict(odd, predict_unfit=True)
    assert forced.status == "unfit" and np.isfinite(forced.scores).all()
    assert forced.label in ("A", "B") and f"{forced.label} {forced.scores.max():.3f}" in str(forced)


def test_the_pretrained_network_ignores_offsets_too(record: ECGRecord, tmp_path: Path) -> None:
    """It was trained with the offsets of PTB-XL, which are small."""
    if not default_checkpoint().exists():
        pytest.skip("artifacts/pretrained is not here")
    ten = dataclasses.replace(record, signal=record.signal[:, :1000], record_id="a")
    write_wfdb(ten, tmp_path)
    write_wfdb(dataclasses.replace(ten, signal=ten.signal + 5, record_id="b"), tmp_path)
    paths = [tmp_path / "a.hea", tmp_path / "b.hea"]
    plain, moved = predict_files(load_checkpoint(default_checkpoint()), paths)
    np.testing.assert_allclose(plain.scores, moved.scores, atol=2e-3)
