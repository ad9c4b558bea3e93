"""Several checkpoints used as one, and calibrations kept in checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from settings import QUICK
from test_main import Run, run

from src.classifier.classifier import Classifier
from src.classifier.onnx_export import export_onnx
from src.config import TrainConfig
from src.eval import evaluate, predict_records, split_records
from src.learning.checkpoints import LogitScale, load_checkpoint, save_checkpoint
from src.learning.predictions import Predictions
from src.model import load_members
from src.records.sample_collections import SampleData
from src.training import run_training

__all__ = ["run"]


@pytest.fixture(scope="module")
def two(processed: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two networks of another seed, width, crop length and normalization."""
    paths = []
    for seed, crop_s, normalization in ((0, 4.0, "global"), (1, 0.0, "zscore")):
        train = dataclasses.replace(
            QUICK.train, epochs=1, seed=seed, crop_s=crop_s, normalization=normalization
        )
        out = tmp_path_factory.mktemp(f"run{seed}")
        config = dataclasses.replace(QUICK, train=train)
        paths.append(run_training(config, processed, out).best_path)
    return paths


def logits_of(predictions: Predictions) -> np.ndarray:  # type: ignore[type-arg]
    """Return logits up to a constant for each record, which a softmax forgets."""
    logits = np.log(predictions.y_score)
    return logits - logits.mean(axis=1, keepdims=True)  # type: ignore[no-any-return]


def test_the_mean_of_logits_counts(two: list[Path], processed: Path) -> None:
    each = [evaluate(path, processed).predictions for path in two]
    both = evaluate(two, processed)
    expected = np.mean([logits_of(predictions) for predictions in each], axis=0)
    np.testing.assert_allclose(logits_of(both.predictions), expected, atol=1e-5)
    hashes = [set(load_checkpoint(path).card.train_hashes) for path in two]
    assert set(both.predictions.train_hashes) == hashes[0] | hashes[1]


def test_files_are_predicted_and_explained_by_the_mean(two: list[Path], sample: SampleData) -> None:
    path = sorted(sample.data["synthetic_wfdb"].glob("*.hea"))[0]
    one, other, both = (Classifier.load(paths, device="cpu") for paths in (*two, two))
    scores = [np.log(each.predict(path).scores) for each in (one, other)]
    mean = np.exp(np.mean(scores, axis=0))
    name = one.classes[0]
    explained = [
        each.predict(path, saliency="occlusion", class_name=name) for each in (one, other, both)
    ]
    np.testing.assert_allclose(explained[2].scores, mean / mean.sum(), rtol=1e-4)
    maps = [prediction.saliency.values for prediction in explained]  # type: ignore[union-attr]
    np.testing.assert_allclose(maps[2], (maps[0] + maps[1]) / 2, atol=1e-6)
    assert repr(both).startswith("Classifier(2 networks, ")


def test_the_command_line_takes_several(
    run: Run, two: list[Path], processed: Path, sample: SampleData, tmp_path: Path
) -> None:
    options = ["--checkpoint", two[0], "--checkpoint", two[1], "--device", "cpu"]
    judged = run("evaluate", *options, "--processed", processed, "--out", tmp_path)
    assert judged.code == 0 and " + " in (tmp_path / "metrics_test.json").read_text()
    path = sorted(sample.data["synthetic_wfdb"].glob("*.hea"))[0]
    assert run("predict", *options, path).code == 0
    exported = run("export", *options[:4], "--out", tmp_path / "both.onnx")
    assert exported.code == 1 and "expected one checkpoint" in exported.error


def test_checkpoints_of_other_classes_are_refused(
    two: list[Path], trained: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(two[1])
    card = dataclasses.replace(checkpoint.card, leads=checkpoint.card.leads[::-1])
    save_checkpoint(tmp_path / "other.pth", card, checkpoint.weights)
    with pytest.raises(ValueError, match=r"other\.pth: cannot be used together with .*other leads"):
        load_checkpoint([two[0], tmp_path / "other.pth"])
    with pytest.raises(ValueError, match="no checkpoint is given"):
        load_checkpoint([])


@pytest.mark.parametrize("target", ["multi", pytest.param("single", marks=pytest.mark.slow)])
def test_a_calibration_in_the_checkpoint_is_applied_everywhere(
    target: str, processed: Path, sample: SampleData, tmp_path: Path
) -> None:
    train: TrainConfig = dataclasses.replace(QUICK.train, epochs=1, target=target)
    result = run_training(dataclasses.replace(QUICK, train=train), processed, tmp_path)
    checkpoint = load_checkpoint(result.best_path)
    n_classes = len(checkpoint.card.classes)
    slope = (0.5,) * n_classes
    intercept = tuple(np.linspace(-1, 1, n_classes)) if target == "multi" else (0.0,) * n_classes
    card = dataclasses.replace(checkpoint.card, calibration=LogitScale(slope, intercept))
    path = tmp_path / "calibrated.pth"
    save_checkpoint(path, card, checkpoint.weights)
    calibrated = load_checkpoint(path)
    assert calibrated.card.calibration == LogitScale(slope, intercept)

    records = split_records(checkpoint, processed, "test")
    before, after = (
        predict_records(each, records, batch_size=8, device="cpu").y_score
        for each in (checkpoint, calibrated)
    )
    if target == "multi":
        expected = 1 / (1 + np.exp(-(0.5 * np.log(before / (1 - before)) + np.array(intercept))))
    else:
        expected = before**0.5 / (before**0.5).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after, expected, rtol=1e-4)
    file = sorted(sample.data["synthetic_wfdb"].glob("*.hea"))[0]
    of_file = Classifier.load(path, device="cpu").predict(file, predict_unfit=True).scores
    plain = Classifier.load(result.best_path, device="cpu").predict(file, predict_unfit=True).scores
    assert not np.allclose(of_file, plain)
    signal = torch.randn(2, 12, 1000)
    [member] = load_members(calibrated)
    [uncalibrated] = load_members(checkpoint)
    with torch.inference_mode():
        expected_logits = uncalibrated.predict(signal) * 0.5 + torch.tensor(intercept).float()
        torch.testing.assert_close(member.predict(signal), expected_logits)
    pytest.importorskip("onnxruntime")
    from src.classifier.onnx_export import score_onnx

    exported, *_ = export_onnx(calibrated, tmp_path / "c.onnx")
    probabilities = torch.from_numpy(score_onnx(exported, signal.numpy()))
    expected_probabilities = (
        expected_logits.sigmoid() if target == "multi" else expected_logits.softmax(dim=1)
    )
    torch.testing.assert_close(probabilities, expected_probabilities, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("slope", "intercept", "message"),
    [((0.0,), (0.0,), "positive slopes"), ((1.0,), (0.0, 1.0), "1 slopes and 2 intercepts")],
)
def test_impossible_calibrations_are_refused(
    slope: tuple[float, ...], intercept: tuple[float, ...], message: str
) -> None:
    from src.learning.checkpoints import ModelCard

    with pytest.raises(ValueError, match=message):
        ModelCard(("A",), False, calibration=LogitScale(slope, intercept))
