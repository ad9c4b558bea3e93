"""What is learned on validation is written into checkpoints, and used from there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from settings import SMALL
from test_main import Run, run

from src.classifier.classifier import Classifier
from src.classifier.onnx_export import describe_input
from src.commands.predict_files import format_prediction, predict_to_table
from src.commands.recalibrate import describe_decisions, recalibrate
from src.config import ModelConfig
from src.eval import EvaluationOptions, evaluate
from src.learning.checkpoints import ModelCard, load_checkpoint, save_checkpoint
from src.model import build_model
from src.processed.targets import load_records
from src.records.sample_collections import SampleData

__all__ = ["run"]

CLASSES = ("NORM", "AF", "LBBB", "PACED")  # no record of the sample is PACED
BOTH = EvaluationOptions(thresholds="f1", calibrate=True)


def make_network(folder: Path, *, single_label: bool, **values: object) -> Path:
    """Write the checkpoint of an untrained network, whose probabilities differ a little."""
    torch.manual_seed(0)
    classes = CLASSES[:3] if single_label else CLASSES
    card = ModelCard(classes, single_label, ModelConfig(base_channels=8), SMALL)
    model = build_model(card)
    with torch.no_grad():
        model.head[1].weight *= 30  # type: ignore[index,operator,union-attr]
    card = dataclasses.replace(card, **values)  # type: ignore[arg-type]
    path = folder / "network.pth"
    save_checkpoint(path, card, model.state_dict(), {"epoch": 3})
    return path


@pytest.fixture
def several(tmp_path: Path) -> Path:
    return make_network(tmp_path, single_label=False)


@pytest.fixture
def single(tmp_path: Path) -> Path:
    return make_network(tmp_path, single_label=True)


def test_what_evaluate_saves_is_what_it_evaluated(
    several: Path, processed: Path, tmp_path: Path
) -> None:
    """The saved checkpoint gives the same predictions without any option."""
    saved = tmp_path / "saved.pth"
    before = several.read_bytes()
    fitted = evaluate(several, processed, options=BOTH, save=saved)
    again = evaluate(saved, processed, out=tmp_path)
    np.testing.assert_allclose(again.predictions.y_score, fitted.predictions.y_score, atol=1e-6)
    assert (again.predictions.y_pred == fitted.predictions.y_pred).all()
    assert several.read_bytes() == before
    card = load_checkpoint(saved).card
    n_records = fitted.metrics["thresholds"]["n_records"]
    assert card.thresholds_on is not None and card.thresholds_on.n_records == n_records
    assert set(card.thresholds_on.datasets) <= set(load_records(processed)["val"].datasets)
    assert "PACED" in card.thresholds_on.unchanged
    assert load_checkpoint(saved).state == {"epoch": 3}
    # Metrics say where the thresholds come from.
    metrics = json.loads((tmp_path / "metrics_test.json").read_text())
    assert metrics["thresholds"]["values"] == fitted.metrics["thresholds"]["values"]
    assert metrics["thresholds"]["datasets"] == list(card.thresholds_on.datasets)
    assert metrics["calibration"]["method"] == "platt"
    assert "reliability_before" not in metrics["calibration"]


def test_a_checkpoint_may_be_replaced_by_itself(
    run: Run, several: Path, processed: Path, tmp_path: Path
) -> None:
    options = ["--checkpoint", several, "--processed", processed, "--out", tmp_path / "run"]
    fitting = ["--thresholds", "f1", "--calibrate", "--device", "cpu"]
    done = run("evaluate", *options, *fitting, "--save", several)
    assert done.code == 0 and f"{several}: predicts with what" in done.out
    assert load_checkpoint(several).card.calibration is not None
    # A second calibration on top of the first leaves probabilities as they are.
    first = load_checkpoint(several).card
    assert run("evaluate", *options, *fitting, "--save", several).code == 0
    second = load_checkpoint(several).card
    np.testing.assert_allclose(second.thresholds, first.thresholds, atol=0.05)


def test_saving_is_refused_where_it_would_mislead(
    run: Run, several: Path, processed: Path, tmp_path: Path
) -> None:
    options = ["--processed", processed, "--out", tmp_path / "run", "--save", tmp_path / "s.pth"]
    nothing = run("evaluate", "--checkpoint", several, *options)
    assert nothing.code == 1 and "nothing is fitted" in nothing.error
    two = ["--checkpoint", several, "--checkpoint", several]
    many = run("evaluate", *two, *options, "--calibrate")
    assert many.code == 1 and "2 checkpoints are used as one" in many.error
    table = run("evaluate", "--predictions", tmp_path / "p.csv", *options, "--calibrate")
    assert table.code == 2 and "--save and --unlike go with --checkpoint" in table.error
    hashes = load_records(processed)["val"].signal_hashes
    known = make_network(tmp_path / "known", single_label=False, train_hashes=hashes)
    with pytest.raises(ValueError, match="of which it is too sure"):
        evaluate(known, processed, options=BOTH, save=tmp_path / "s.pth", allow_overlap=True)
    assert not (tmp_path / "s.pth").exists()


def test_records_of_ones_own_choose_thresholds(
    run: Run, several: Path, processed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine.pth"
    done = run(
        *("recalibrate", "--checkpoint", several, "--processed", processed, "--split", "train"),
        *("--out", out, "--device", "cpu"),
    )
    assert done.code == 0, done.error
    card = load_checkpoint(out).card
    assert card.thresholds_on is not None and card.calibration_on is not None
    assert (card.thresholds_on.method, card.thresholds_on.split) == ("f1", "train")
    assert card.calibration_on.method == "platt"
    assert "as before: PACED" in done.out and "AF" in done.out
    place = CLASSES.index("PACED")
    assert card.thresholds[place] == 0.5 and card.calibration is not None
    assert card.calibration.slope[place] == 1
    # The mean probability becomes the share of the records.
    found = evaluate(out, processed, split="train")
    shares = np.nanmean(found.predictions.y_true, axis=0)[:3]
    np.testing.assert_allclose(found.predictions.y_score.mean(axis=0)[:3], shares, atol=0.06)
    assert load_checkpoint(several).card.calibration is None


def test_one_label_per_record_gets_a_temperature(
    single: Path, processed: Path, tmp_path: Path
) -> None:
    card = recalibrate(single, processed, tmp_path / "mine.pth", split="train")
    assert card.calibration is not None and card.calibration_on is not None
    assert len(set(card.calibration.slope)) == 1 and set(card.calibration.intercept) == {0.0}
    assert card.calibration_on.method == "temperature" and card.thresholds == ()
    assert "threshold" not in describe_decisions(card)
    with pytest.raises(ValueError, match="thresholds are for several labels"):
        recalibrate(single, processed, tmp_path / "a.pth", split="train", thresholds="f1")


def test_the_test_split_and_known_recordings_are_refused(
    run: Run, several: Path, processed: Path, tmp_path: Path
) -> None:
    options = ["--processed", processed, "--out", tmp_path / "mine.pth"]
    on_test = run("recalibrate", "--checkpoint", several, *options, "--split", "test")
    assert on_test.code == 1 and "expected val or train" in on_test.error
    two = run("recalibrate", "--checkpoint", several, "--checkpoint", several, *options)
    assert two.code == 1 and "2 checkpoints are used as one" in two.error
    itself = run("recalibrate", "--checkpoint", several, *options[:2], "--out", several)
    assert itself.code == 2 and "expected another file for --out" in itself.error
    hashes = load_records(processed)["train"].signal_hashes
    known = make_network(tmp_path / "known", single_label=False, train_hashes=hashes)
    with pytest.raises(ValueError, match=r"6 of 6 records of split train are recordings"):
        recalibrate(known, processed, tmp_path / "mine.pth", split="train")
    assert not (tmp_path / "mine.pth").exists()


def test_nothing_is_fitted_to_records_of_one_kind(processed: Path, tmp_path: Path) -> None:
    splits = load_records(processed)["train"].labels
    name = next(iter({label for labels in splits for label in labels}))
    card = ModelCard((name,), False, ModelConfig(base_channels=8), SMALL)
    save_checkpoint(tmp_path / "one.pth", card, build_model(card).state_dict())
    with pytest.raises(ValueError, match="nothing can be fitted"):
        recalibrate(tmp_path / "one.pth", processed, tmp_path / "mine.pth", split="train")


def test_predicted_labels_are_shown_everywhere(
    several: Path, processed: Path, sample: SampleData, tmp_path: Path
) -> None:
    """In every table, the printed line, the classifier and the description of an export."""
    out = tmp_path / "mine.pth"
    card = recalibrate(several, processed, out, split="train", thresholds="sensitivity=1")
    files = sorted(sample.data["synthetic_wfdb"].glob("*.hea"))[:4]
    classifier = Classifier.load(out, device="cpu")
    expected = {path.stem: classifier.predict(path) for path in files}
    for prediction in expected.values():
        reached = [
            name
            for name, t in zip(CLASSES, card.thresholds, strict=True)
            if prediction.probabilities[name] >= t
        ]
        assert list(prediction.labels) == reached
        assert all(
            f"{name} {prediction.probabilities[name]:.3f}*" in str(prediction) for name in reached
        )
    assert any(len(prediction.labels) > 1 for prediction in expected.values())

    lines: list[str] = []
    predict_to_table(out, files, tmp_path / "p.csv", say=lines.append)
    predict_to_table(out, files, tmp_path / "p.json")
    header, *rows = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()]
    assert header == ["record_id", *CLASSES, "status", "reason", "labels", "notes", "path"]
    for row, values, line in zip(
        rows, json.loads((tmp_path / "p.json").read_text()), lines, strict=True
    ):
        labels = list(expected[row[0]].labels)
        assert row[header.index("labels")].split(";") == (labels or [""])
        assert values["labels"] == labels
        assert line.count("*") == len(labels)
    description = describe_input(card, 250)
    assert description["thresholds"] == card.thresholds
    assert description["thresholds_chosen_on"]["method"] == "sensitivity=1"  # type: ignore[index]
    assert description["calibration"]["inside_the_graph"] is True  # type: ignore[index]


def test_a_line_names_every_predicted_class() -> None:
    from src.classifier.file_predictions import FilePrediction

    classes = tuple("ABCDEFG")
    scores = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
    row = FilePrediction("r", scores, "ok", labels=("A", "G"))
    assert format_prediction(row, classes, "n.pth") == (
        "r: A 0.900*, B 0.800, C 0.700, D 0.600, E 0.500, G 0.300*, ... (n.pth)"
    )
