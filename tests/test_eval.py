from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from settings import QUICK
from torch import nn

from src.__main__ import build_parser
from src.classifier.file_predictions import predict_files
from src.classifier.onnx_export import compare_onnx
from src.config import LoaderConfig, PreprocessConfig
from src.dataloaders import make_loader
from src.eval import (
    EvaluationOptions,
    _report_surprises,
    compute_evaluation,
    evaluate,
    evaluate_predictions,
    predict,
)
from src.learning.checkpoints import load_checkpoint, save_checkpoint
from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.learning.text import format_evaluation
from src.model import crop_starts, load_model, predict_logits, to_scores, window_starts
from src.preprocessing import build_tensor
from src.processed.datasets import Batch, ECGDataset
from src.processed.manifest import load_manifest, save_manifest
from src.processed.record_files import record_path
from src.processed.splits import load_splits
from src.records.reading import iter_records
from src.training import run_training
from src.utils import load_json


class MeanOfLeads(nn.Module):
    """Returns the mean of each lead, which can be worked out by hand."""

    min_samples = 250

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return signal.mean(dim=2)


def best(run: Path) -> Path:
    return run / "models" / "best.pth"


def copy_with_manifest(processed: Path, to: Path, **columns: object) -> Path:
    """Return a folder with the same records and another manifest: column=function of the old
    manifest.
    """
    to.mkdir()
    (to / "records").symlink_to(processed / "records")
    for name in ("splits.json", "preprocess_config.json"):
        shutil.copy(processed / name, to / name)
    manifest = load_manifest(processed)
    save_manifest(manifest.assign(**columns), to)
    return to


def changed_checkpoint(run: Path, to: Path, **card: object) -> Path:
    loaded = load_checkpoint(best(run))
    save_checkpoint(to, dataclasses.replace(loaded.card, **card), loaded.weights)
    return to


@pytest.mark.parametrize(
    ("n_samples", "window", "starts"),
    [
        (1000, 0, [0]),
        (1000, 1000, [0]),
        (1000, 5000, [0]),
        (1000, 400, [0, 200, 400, 600]),
        (1000, 300, [0, 140, 280, 420, 560, 700]),
        (1000, 999, [0, 1]),
    ],
)
def test_windows_reach_both_ends(n_samples: int, window: int, starts: list[int]) -> None:
    assert window_starts(n_samples, window) == starts


def test_logits_are_averaged_over_windows() -> None:
    signal = torch.arange(1000.0).repeat(2, 3, 1) * torch.tensor([1.0, 10.0])[:, None, None]
    assert torch.equal(predict_logits(MeanOfLeads(), signal), signal.mean(dim=2))
    middle = np.mean([start + 199.5 for start in (0, 200, 400, 600)])
    averaged = predict_logits(MeanOfLeads(), signal, crop_samples=400)
    np.testing.assert_allclose(averaged, [[middle] * 3, [10 * middle] * 3], rtol=1e-6)


def test_prediction_keeps_the_order_whatever_the_batch(processed: Path) -> None:
    keys = load_splits(processed / "splits.json").train[:7]
    targets = np.arange(21, dtype=np.float32).reshape(7, 3)
    dataset = ECGDataset([record_path(processed, key) for key in keys], targets)
    model = nn.Sequential(nn.Conv1d(12, 3, 5), nn.BatchNorm1d(3), MeanOfLeads()).eval()
    answers = [
        predict(model, make_loader(dataset, LoaderConfig(batch_size=size))) for size in (2, 7)
    ]
    assert all(torch.equal(target, torch.from_numpy(targets)) for _, target in answers)
    torch.testing.assert_close(answers[0][0], answers[1][0])


def test_scores_are_probabilities() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])
    np.testing.assert_allclose(to_scores(logits, single_label=True), [[0.25, 0.75]], rtol=1e-6)
    np.testing.assert_allclose(to_scores(logits, single_label=False), [[0.5, 0.75]], rtol=1e-6)


def test_evaluation_leaves_predictions_and_metrics(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    evaluation = evaluate(best(trained), processed, out=tmp_path)
    assert set(evaluation.predictions.keys) == set(load_splits(processed / "splits.json").test)
    saved = Predictions.load(tmp_path / "predictions_test.npz")
    np.testing.assert_array_equal(saved.y_score, evaluation.predictions.y_score)
    np.testing.assert_allclose(saved.y_score.sum(axis=1), 1)
    metrics = load_json(tmp_path / "metrics_test.json")
    assert metrics["split"] == "test" and metrics["checkpoint"] == str(best(trained))
    assert metrics["f1_macro"] == pytest.approx(compute_metrics(saved)["f1_macro"])
    assert list(metrics["per_class"]) == list(load_checkpoint(best(trained)).card.classes)
    assert str(evaluation).startswith("test: ")


def test_evaluation_tells_sources_and_intervals(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    evaluation = evaluate(
        best(trained),
        processed,
        out=tmp_path,
        options=EvaluationOptions(intervals=20, calibrate=True),
    )
    metrics = load_json(tmp_path / "metrics_test.json")
    groups = metrics["subgroups"]["dataset"]
    assert sum(row["n_records"] for row in groups.values()) == metrics["n_records"]
    assert (
        metrics["intervals"]["n_resamples"] == 20 and metrics["calibration"]["learned_on"] == "val"
    )
    assert metrics["calibration"]["n_records"] == len(load_splits(processed / "splits.json").val)
    assert f"dataset {next(iter(groups))}" in str(evaluation)


def test_a_model_validated_on_records_without_a_class_is_evaluated_on_them(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    test = load_splits(processed / "splits.json").test

    def one_left_blank(rows: pd.DataFrame) -> pd.Series[str]:
        return rows["labels"].where(rows["dataset"] + "__" + rows["record_id"] != test[0], "ASTHMA")

    folder = copy_with_manifest(processed, tmp_path / "p", labels=one_left_blank)
    for keep, n_records in ((True, len(test)), (False, len(test) - 1)):
        config = {"train": {"keep_negative": keep}}
        checkpoint = changed_checkpoint(
            trained, tmp_path / "c.pth", single_label=False, config=config
        )
        evaluation = evaluate(checkpoint, folder)
        assert evaluation.metrics["n_records"] == n_records
        protocols = evaluation.metrics["protocols"]
        assert (protocols["labelled"]["n_records"], protocols["all"]["n_records"]) == (
            len(test) - 1,
            len(test),
        )
        assert (
            protocols["all" if keep else "labelled"]["auroc_macro"]
            == evaluation.metrics["auroc_macro"]
        )
        assert f"{len(test)} records with and without one: macro F1" in str(evaluation)


def test_nothing_is_chosen_on_the_split_that_is_evaluated(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match="split is 'val', and the calibration would be chosen on it"
    ):
        evaluate(
            best(trained),
            processed,
            split="val",
            out=tmp_path,
            options=EvaluationOptions(calibrate=True),
        )
    assert not list(tmp_path.iterdir())


def test_scores_do_not_depend_on_the_batch(processed: Path, trained: Path) -> None:
    one, many = (
        evaluate(best(trained), processed, split="train", batch_size=size).predictions
        for size in (1, 64)
    )
    np.testing.assert_allclose(one.y_score, many.y_score, atol=1e-5)


def test_files_get_the_scores_of_their_record_files(processed: Path, trained: Path) -> None:
    """A new file gets the prediction that the evaluation gave its beginning."""
    predictions = evaluate(best(trained), processed, split="val").predictions
    manifest = load_manifest(processed)
    source = dict(
        zip(
            manifest["dataset"] + "__" + manifest["record_id"], manifest["source_path"], strict=True
        )
    )
    rows = predict_files(
        load_checkpoint(best(trained)),
        [source[key] for key in predictions.keys],
        batch_size=2,
        long="first",
    )
    np.testing.assert_allclose([row.scores for row in rows], predictions.y_score, atol=1e-5)


def test_a_model_of_windows_averages_those_of_a_file(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    source = next(path for path in load_manifest(processed)["source_path"] if path.endswith(".hea"))
    halves = PreprocessConfig(fs=100.0, n_samples=500, window_s=5.0)
    checkpoint = load_checkpoint(changed_checkpoint(trained, tmp_path / "c.pth", preprocess=halves))
    model = load_model(checkpoint, "cpu")
    windows = [
        build_tensor(window, halves).arrays["signal"] for window in iter_records(source, window_s=5)
    ]
    with torch.inference_mode():
        logits = predict_logits(model, torch.from_numpy(np.stack(windows)))
    [row] = predict_files(checkpoint, [source], batch_size=1)
    assert len(windows) == 2 and row.record_id == Path(source).stem
    np.testing.assert_allclose(
        row.scores, to_scores(logits, checkpoint.card.single_label).mean(axis=0), atol=1e-5
    )


def test_a_model_of_crops_is_evaluated_on_windows(processed: Path, tmp_path: Path) -> None:
    train = dataclasses.replace(QUICK.train, epochs=1, crop_s=4.0)
    run_training(dataclasses.replace(QUICK, train=train), processed, tmp_path)
    assert load_checkpoint(best(tmp_path)).card.crop_samples == 400
    windows = evaluate(best(tmp_path), processed).predictions
    whole = evaluate(
        changed_checkpoint(tmp_path, tmp_path / "whole.pth", crop_samples=0), processed
    ).predictions
    assert windows.keys == whole.keys and not np.allclose(windows.y_score, whole.y_score, atol=1e-6)


def test_an_unknown_split_names_the_known(processed: Path, trained: Path) -> None:
    with pytest.raises(ValueError, match="split is 'dev': expected one of train, val, test"):
        evaluate(best(trained), processed, split="dev")


def test_an_empty_split_names_those_that_exist(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    no_test = copy_with_manifest(
        processed, tmp_path / "p", split=lambda rows: rows["split"].replace("test", "train")
    )
    with pytest.raises(
        ValueError,
        match=r"split test has no records; splits with records: train \(\d+\), val \(\d+\)$",
    ):
        evaluate(best(trained), no_test)


def test_records_of_other_classes_are_one_clear_error(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    other = copy_with_manifest(processed, tmp_path / "p", labels="ASTHMA")
    with pytest.raises(
        ValueError,
        match=r"carries a class of the checkpoint \(AF, .*was it trained on other labels",
    ):
        evaluate(best(trained), other)


def test_records_of_another_shape_are_one_clear_error(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    longer = changed_checkpoint(
        trained, tmp_path / "c.pth", preprocess=PreprocessConfig(fs=500.0, n_samples=5000)
    )
    with pytest.raises(
        ValueError,
        match=r"trained on 5000 samples at 500 Hz, the records are 1000 samples at 100 Hz; "
        r"preprocess with",
    ):
        evaluate(longer, processed)


def test_records_of_another_rate_are_one_clear_error(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    faster = changed_checkpoint(
        trained, tmp_path / "c.pth", preprocess=PreprocessConfig(fs=250.0, n_samples=1000)
    )
    with pytest.raises(
        ValueError,
        match="trained on 1000 samples at 250 Hz, the records are 1000 samples at 100 Hz",
    ):
        evaluate(faster, processed)


def test_nothing_is_written_when_evaluation_fails(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="no such checkpoint"):
        evaluate(tmp_path / "none.pth", processed, out=out)
    with pytest.raises(ValueError, match="no processed records here"):
        evaluate(best(trained), tmp_path, out=out)
    assert not out.exists()


# Recordings that the model was trained on ---------------------------------------------------------


def test_a_split_with_training_recordings_is_refused_unless_allowed(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    where = load_splits(processed / "splits.json")
    learned = load_checkpoint(best(trained)).card.train_hashes[0]
    key = where.test[0]

    def leak(manifest: pd.DataFrame) -> pd.Series:
        return manifest["signal_hash"].mask(
            manifest["dataset"] + "__" + manifest["record_id"] == key, learned
        )

    leaky = copy_with_manifest(processed, tmp_path / "leaky", signal_hash=leak)
    with pytest.raises(
        ValueError,
        match=rf"1 of \d+ records of split test .* was trained on: {key}; .*--allow-overlap",
    ):
        evaluate(best(trained), leaky)
    allowed = evaluate(best(trained), leaky, allow_overlap=True)
    assert key in allowed.predictions.keys and allowed.metrics["n_trained_on"] == 1
    assert "1 of these records are recordings that the model was trained on" in str(allowed)
    with pytest.raises(ValueError, match=r"1 of \d+ records of split test .*--allow-overlap"):
        compare_onnx(load_checkpoint(best(trained)), "none.onnx", leaky, split="test")
    assert evaluate(best(trained), processed).split == "test"


def test_training_recordings_are_marked_among_new_files(processed: Path, trained: Path) -> None:
    manifest = load_manifest(processed)
    rows = [
        manifest[(manifest["split"] == split) & (manifest["label_source"] == "mapping")].iloc[0]
        for split in ("train", "test")
    ]
    paths = [row["source_path"] for row in rows]
    loaded = load_checkpoint(best(trained))
    reasons = [
        row.reason
        for row in predict_files(loaded, paths, source_fs=250.0, source_gain_per_mv=1000.0)
    ]
    assert reasons == ["the model was trained on this recording", ""]
    allowed = predict_files(
        loaded, paths, source_fs=250.0, source_gain_per_mv=1000.0, allow_overlap=True
    )
    assert [(row.status, row.reason) for row in allowed] == [("ok", "")] * 2


def test_crops_lie_before_the_padding() -> None:
    signal = torch.zeros(4, 2, 1000)
    signal[0], signal[1, 0, :300], signal[2, :, :100] = 1.0, 1.0, 1.0
    starts = crop_starts(signal, 250)
    whole = [0, 125, 250, 375, 500, 625, 750]
    assert starts.tolist() == [whole, [0, 8, 17, 25, 33, 42, 50], [0] * 7, whole]
    assert window_starts(1000, 250) == whole


def test_a_record_answers_alike_with_and_without_padding_behind_it() -> None:
    ramp = torch.arange(1.0, 601).repeat(1, 2, 1)
    padded = torch.nn.functional.pad(ramp, (0, 400))
    model = MeanOfLeads()
    np.testing.assert_allclose(predict_logits(model, padded, 200), ramp.mean(2), rtol=1e-3)


def test_short_whole_records_are_predicted_without_padding() -> None:
    signal = torch.zeros(4, 2, 1000)
    for row, n_valid in enumerate((600, 1000, 100, 900)):
        signal[row, :, :n_valid] = 1.0
    whole, unpadded = (predict_logits(MeanOfLeads(), signal, 0, below) for below in (0, 800))
    np.testing.assert_allclose(whole[:, 0], [0.6, 1, 0.1, 0.9], rtol=1e-6)
    # The network takes no fewer than 250 samples.
    np.testing.assert_allclose(unpadded[:, 0], [1, 1, 0.4, 0.9], rtol=1e-6)


def test_windows_of_padding_alone_say_nothing() -> None:
    signal = torch.zeros(3, 12, 1000)
    signal[0, :, :500], signal[1] = torch.randn(12, 500), torch.randn(12, 1000)
    averaged = predict_logits(lambda windows: windows.ne(0).any(2).float(), signal, 250)
    assert averaged[0].tolist() == averaged[1].tolist() == [1.0] * 12
    assert averaged[2].tolist() == [0.0] * 12  # nothing but padding is still answered for


def test_targets_that_lie_on_another_device_come_back_with_the_logits() -> None:
    class Elsewhere:
        def cpu(self) -> torch.Tensor:
            return torch.ones(2, 12)

    batch = Batch(torch.zeros(2, 12, 500), Elsewhere(), torch.arange(2))  # type: ignore[arg-type]
    logits, targets = predict(MeanOfLeads(), [batch])  # type: ignore[arg-type]
    assert logits.shape == (2, 12) and torch.equal(targets, torch.ones(2, 12))


def test_a_calibration_is_not_fitted_on_training_recordings(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    hashes = tuple(
        load_manifest(processed)["signal_hash"][load_manifest(processed)["split"] == "val"]
    )
    learned = changed_checkpoint(trained, tmp_path / "m.pth", train_hashes=hashes)
    with pytest.raises(
        ValueError, match="of split val are recordings that the model was trained on"
    ):
        evaluate(learned, processed, options=EvaluationOptions(calibrate=True))
    evaluate(learned, processed)
    evaluate(learned, processed, options=EvaluationOptions(calibrate=True), allow_overlap=True)


# Predictions to metrics ---------------------------------------------------------------------------


def random_predictions(name: str, single: bool, n: int = 120, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    y_true = np.eye(2)[rng.integers(0, 2, n)]
    scores = np.clip(0.3 * rng.random((n, 2)) + 0.2 * y_true, 0.01, 0.99)
    return Predictions(
        tuple(f"d__{name}{i}" for i in range(n)), y_true, scores, ("NSR", "AF"), single_label=single
    )


def rows_of(predictions: Predictions) -> pd.DataFrame:
    n = len(predictions.keys)
    labels = ["NSR" if row[0] else "AF" for row in predictions.y_true]
    cells = {
        "dataset": "d",
        "record_id": [key[3:] for key in predictions.keys],
        "labels": labels,
        "age": "50",
        "sex": "F",
    }
    return pd.DataFrame(
        {**cells, "patient_id": [str(i // 2) for i in range(n)]}, index=list(predictions.keys)
    )


def test_without_options_nothing_is_fitted() -> None:
    test = random_predictions("t", single=True)
    predictions, metrics = compute_evaluation(test, rows_of(test), EvaluationOptions())
    assert predictions is test and metrics | compute_metrics(test) == metrics
    assert (
        metrics["subgroups"]["sex"]["female"]["n_records"] == 120
        and metrics["reliability"]["ece"] > 0
    )
    assert not {"thresholds", "calibration", "intervals", "challenge"} & metrics.keys()
    assert format_evaluation(metrics).startswith("class")


def test_everything_at_once(tmp_path: Path) -> None:
    weights = tmp_path / "weights.csv"
    weights.write_text(",426783006,164889003\n426783006,1,0.5\n164889003,0.5,1\n")
    test, validation = (
        random_predictions("t", single=False),
        random_predictions("v", single=False, seed=1),
    )
    options = EvaluationOptions(50, "sensitivity=0.9", True, weights)
    predictions, metrics = compute_evaluation(test, rows_of(test), options, validation)
    assert metrics["thresholds"]["learned_on"] == metrics["calibration"]["learned_on"] == "val"
    assert metrics["thresholds"]["values"] == dict(
        zip(test.classes, predictions.thresholds, strict=True)
    )
    assert metrics["per_class"]["AF"]["threshold"] == metrics["thresholds"]["values"]["AF"] != 0.5
    assert (
        metrics["per_class"]["AF"]["recall"]
        > 0.75
        > compute_metrics(test)["per_class"]["AF"]["recall"]
    )
    assert metrics["reliability"]["ece"] < metrics["calibration"]["reliability_before"]["ece"]
    assert metrics["intervals"]["n_patients"] == 60 and metrics["challenge"]["challenge_score"] > 0
    json.dumps(metrics, allow_nan=False)
    text = format_evaluation(metrics)
    assert "95% intervals over 60 patients" in text and "Challenge: challenge_score" in text


def test_nothing_is_fitted_on_the_evaluated_records() -> None:
    """Other outcomes of the test records leave thresholds and calibration as they were."""
    test, validation = (
        random_predictions("t", single=False),
        random_predictions("v", single=False, seed=1),
    )
    turned = Predictions(test.keys, 1 - test.y_true, test.y_score, test.classes, single_label=False)
    options = EvaluationOptions(thresholds="f1", calibrate=True)
    found = [compute_evaluation(p, rows_of(p), options, validation) for p in (test, turned)]
    assert found[0][1]["thresholds"] == found[1][1]["thresholds"]
    np.testing.assert_array_equal(found[0][0].y_score, found[1][0].y_score)


def test_records_without_a_class_are_evaluated_beside_the_others() -> None:
    """Two of five records carry no class and score high for one; a sixth was not looked at for
    any.
    """
    y_true = [[1, 0], [1, 0], [0, 1], [0, 0], [0, 0], [np.nan, np.nan]]
    y_score = [[0.8, 0.1], [0.6, 0.2], [0.3, 0.7], [0.7, 0.1], [0.1, 0.1], [0.9, 0.9]]
    everyone = Predictions(
        tuple(f"d__r{i}" for i in range(6)), y_true, y_score, ("NSR", "AF"), single_label=False
    )
    labelled = everyone.subset(np.arange(3))
    rows, validation = rows_of(labelled), random_predictions("v", single=False, seed=1)
    _, metrics = compute_evaluation(labelled, rows, EvaluationOptions(), None, everyone)
    found = metrics["protocols"]
    assert (found["labelled"]["n_records"], found["all"]["n_records"]) == (3, 5)
    assert found["labelled"]["auroc_macro"] == metrics["auroc_macro"] == 1
    assert found["all"]["auroc_macro"] == pytest.approx(
        (5 / 6 + 1) / 2
    )  # 0.7 outranks one positive of two, among three negatives
    assert found["all"]["frequent"] == {"min_positives": 10, "n_classes": 0} | dict.fromkeys(
        list(found["all"]["frequent"])[2:]
    )
    assert "5 records with and without one: macro F1" in format_evaluation(metrics)
    _, learned = compute_evaluation(
        labelled, rows, EvaluationOptions(thresholds="sensitivity=1"), validation, everyone
    )
    assert (
        learned["protocols"]["labelled"]["f1_macro"] == learned["f1_macro"] != metrics["f1_macro"]
    )
    assert "protocols" not in compute_evaluation(labelled, rows, EvaluationOptions())[1]
    assert "with and without" not in format_evaluation(
        compute_evaluation(labelled, rows, EvaluationOptions(), None, labelled)[1]
    )


@pytest.mark.parametrize(
    "options", [EvaluationOptions(thresholds="f1"), EvaluationOptions(calibrate=True)]
)
def test_fitting_on_the_evaluated_split_is_refused(options: EvaluationOptions) -> None:
    test = random_predictions("t", single=False)
    with pytest.raises(ValueError, match="would be chosen on it"):
        options.check("val", single_label=False)
    options.check("test", single_label=False)
    EvaluationOptions(intervals=10).check("val", single_label=False)
    with pytest.raises(ValueError, match="120 evaluated records are validation records too"):
        compute_evaluation(test, rows_of(test), options, test)
    with pytest.raises(ValueError, match="no validation records"):
        compute_evaluation(test, rows_of(test), options)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="intervals is -1"):
        EvaluationOptions(intervals=-1)
    with pytest.raises(ValueError, match="thresholds is 'best'"):
        EvaluationOptions(thresholds="best")
    with pytest.raises(ValueError, match="predicts one label per record"):
        EvaluationOptions(thresholds="f1").check("test", single_label=True)
    with pytest.raises(ValueError, match=r"absent\.csv: cannot be read"):
        EvaluationOptions(challenge_weights="absent.csv").check("test", single_label=True)


def test_the_command_line_refuses_an_unknown_rule(capsys: pytest.CaptureFixture[str]) -> None:
    required = ["--checkpoint", "c", "--processed", "p", "--out", "o"]
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(["evaluate", *required, "--thresholds", "best"])
    assert "expected f1, none, or sensitivity=X" in capsys.readouterr().err.replace("\n", " ")


def test_what_an_evaluation_cannot_say_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    predictions = Predictions(
        keys=("a__1", "a__2"),
        y_true=np.array([[1, 0], [0, 1]], np.float32),
        y_score=np.array([[0.9, 0.3], [0.2, 0.45]], np.float32),
        classes=("AF", "PVC"),
        single_label=False,
    )
    columns = ["dataset", "record_id", "split", "label_source"]
    cells = [("a", "1", "test"), ("a", "2", "test"), ("a", "3", "train"), ("b", "1", "train")]
    manifest = pd.DataFrame([(*row, "mapping") for row in cells], columns=columns)
    _report_surprises(predictions, manifest[:2], manifest, "test")
    assert "split test has no record of b, which train has: the numbers are of a only" in (
        caplog.text
    )
    assert "never predicted (highest probability): PVC (0.45)" in caplog.text
    caplog.clear()
    _report_surprises(predictions.subset([0, 1]), manifest[:2], manifest[:3], "test")
    assert "which train has" not in caplog.text


# Predictions of other programs --------------------------------------------------------------------


def write_scores(
    processed: Path, path: Path, splits: tuple[str, ...], seed: int = 0
) -> pd.DataFrame:
    """Write a table of record ids and probabilities that know half of the label."""
    manifest = load_manifest(processed)
    rows = manifest[manifest["split"].isin(splits) & (manifest["label_source"] == "mapping")]
    classes = sorted(set(manifest["labels"]) - {"OTHER"})
    scores = np.random.default_rng(seed).random((len(rows), len(classes)))
    scores += 0.5 * (rows["labels"].to_numpy()[:, None] == np.array(classes))
    table = pd.DataFrame(scores / scores.sum(axis=1, keepdims=True), columns=classes)
    table.insert(0, "record_id", rows["record_id"].tolist())
    table.to_csv(path, index=False)
    return table


def test_our_own_predictions_give_the_numbers_of_the_checkpoint(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    options = EvaluationOptions(intervals=20)
    of_checkpoint = evaluate(best(trained), processed, out=tmp_path / "a", options=options)
    file = tmp_path / "a" / "predictions_test.npz"
    of_file = evaluate_predictions(file, processed, out=tmp_path / "b", options=options)
    assert of_file.metrics == of_checkpoint.metrics and "trained_on" not in of_file.metrics
    assert of_file.predictions.keys == of_checkpoint.predictions.keys
    saved = load_json(tmp_path / "b" / "metrics_test.json")
    assert saved["predictions"] == str(file) and "checkpoint" not in saved
    given = evaluate_predictions(of_checkpoint.predictions, processed, options=options)
    assert given.metrics == of_checkpoint.metrics
    with pytest.raises(ValueError, match=r"predictions_test\.npz: is read by this evaluation"):
        evaluate_predictions(file, processed, out=tmp_path / "a")


def test_our_own_predictions_go_through_the_gate(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    found = evaluate(best(trained), processed).predictions
    learned = dataclasses.replace(found, train_hashes=found.signal_hashes[:1])
    with pytest.raises(ValueError, match=r"1 of \d+ records of split test are recordings that the"):
        evaluate_predictions(learned, processed)
    allowed = evaluate_predictions(learned, processed, allow_overlap=True)
    assert allowed.metrics["n_trained_on"] == 1 and "trained_on" not in allowed.metrics


def test_a_table_of_another_program_is_evaluated(
    processed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = write_scores(processed, tmp_path / "p.csv", ("val", "test"))
    options = EvaluationOptions(intervals=20, calibrate=True)
    evaluation = evaluate_predictions(tmp_path / "p.csv", processed, options=options)
    n_test = len(load_splits(processed / "splits.json").test)
    metrics = evaluation.metrics
    assert metrics["n_records"] == n_test < len(table) and metrics["single_label"]
    assert metrics["calibration"]["n_records"] == len(table) - n_test
    assert metrics["trained_on"] == "unknown" and metrics["subgroups"]["dataset"]
    assert metrics["intervals"]["n_resamples"] == 20
    assert "p.csv does not say which recordings the model was trained on" in caplog.text
    assert "Which recordings the model was trained on is unknown" in str(evaluation)
    assert "training recordings" in evaluation._repr_html_()
    labels = load_manifest(processed).set_index("record_id")["labels"]
    for key, row in zip(evaluation.predictions.keys, evaluation.predictions.y_true, strict=True):
        assert evaluation.predictions.classes[row.argmax()] == labels[key.split("__")[1]]


def test_thresholds_are_chosen_on_the_validation_records_of_the_table(
    processed: Path, tmp_path: Path
) -> None:
    options = EvaluationOptions(thresholds="f1")
    table = write_scores(processed, tmp_path / "p.csv", ("val", "test"))
    found = evaluate_predictions(tmp_path / "p.csv", processed, target="multi", options=options)
    test_ids = {key.split("__")[1] for key in load_splits(processed / "splits.json").test}
    is_test = table["record_id"].isin(test_ids)
    table.loc[is_test, table.columns[1:]] = 0.5
    table.to_csv(tmp_path / "q.csv", index=False)
    other = evaluate_predictions(tmp_path / "q.csv", processed, target="multi", options=options)
    assert found.metrics["thresholds"] == other.metrics["thresholds"]
    table[is_test].to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ValueError, match=r"t\.csv: holds none of the \d+ records of split val"):
        evaluate_predictions(tmp_path / "t.csv", processed, target="multi", options=options)
    with pytest.raises(ValueError, match="predicts one label per record"):
        evaluate_predictions(tmp_path / "p.csv", processed, options=options)


def test_one_class_of_another_program_is_told_from_its_absence(
    processed: Path, tmp_path: Path
) -> None:
    table = write_scores(processed, tmp_path / "p.csv", ("test",))
    name = table.columns[1]
    table[["record_id", name]].to_csv(tmp_path / "one.csv", index=False)
    metrics = evaluate_predictions(tmp_path / "one.csv", processed).metrics
    assert metrics["n_records"] == len(table) and list(metrics["per_class"]) == [name]


def test_missing_records_are_counted_where_they_are_allowed(
    processed: Path, tmp_path: Path
) -> None:
    table = write_scores(processed, tmp_path / "p.csv", ("test",))
    table[2:].to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(ValueError, match=r"few\.csv: lacks 2 of the .* give --allow-missing"):
        evaluate_predictions(tmp_path / "few.csv", processed)
    found = evaluate_predictions(tmp_path / "few.csv", processed, allow_missing=True)
    assert found.metrics["n_missing"] == 2 and found.metrics["n_records"] == len(table) - 2
    assert "2 records of the split have no prediction: left out" in str(found)
    with pytest.raises(ValueError, match="split is 'dev': expected one of train, val, test"):
        evaluate_predictions(tmp_path / "p.csv", processed, split="dev")
