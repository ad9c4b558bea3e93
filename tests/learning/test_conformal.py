"""Limits of coverage by hand, their promise by simulation, and their way into predictions."""

from __future__ import annotations

import csv
import json
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_main import Run, run

from src.classifier.classifier import Classifier
from src.classifier.onnx_export import describe_input
from src.commands.predict_files import predict_to_table
from src.config import ModelConfig
from src.eval import EvaluationOptions, evaluate
from src.learning.calibration import Calibration
from src.learning.checkpoints import FittedOn, ModelCard, load_checkpoint, save_checkpoint
from src.learning.conformal import CoverageLimits, fit_limits, measure_coverage
from src.learning.decisions import put_into_card
from src.learning.predictions import Predictions
from src.learning.text import format_coverage
from src.model import build_model
from src.processed.targets import LabelledRecords
from src.records.sample_collections import SampleData

__all__ = ["run"]

NAN = math.nan


def predictions(y_true: object, y_score: object, *, single: bool = False) -> Predictions:
    y_true = np.asarray(y_true, float)
    keys = tuple(f"d__{i:05}" for i in range(len(y_true)))
    return Predictions(keys, y_true, y_score, tuple("ABC"[: y_true.shape[1]]), single_label=single)


# Limits -------------------------------------------------------------------------------------------


def test_limits_by_hand() -> None:
    """Of three with the class, rank floor(0.25 * 4) = 1 is 0.2; of four without it 0.8."""
    y_true = [[1], [1], [1], [0], [0], [0], [0], [NAN]]
    y_score = [[0.9], [0.2], [0.5], [0.8], [0.1], [0.3], [0.6], [0.0]]
    found = fit_limits(predictions(y_true, y_score), "abcdefgh", 0.75)
    assert found.limits == CoverageLimits(0.75, (0.2,), (0.8,))
    assert (found.n_with, found.n_without, found.undecided) == ((3,), (4,), ())


def test_with_too_few_patients_nothing_is_excluded(caplog: pytest.LogCaptureFixture) -> None:
    """Two with the class: floor(0.25 * 3) = 0, so that no probability is too low for it."""
    y_true = [[1], [1], [0], [0], [0]]
    y_score = [[0.9], [0.8], [0.1], [0.3], [0.6]]
    with caplog.at_level(logging.WARNING):
        found = fit_limits(predictions(y_true, y_score), "abcde", 0.75)
    assert found.limits == CoverageLimits(0.75, (0.0,), (0.6,)) and found.undecided == ("A",)
    assert "too few patients with (or too few without) A" in caplog.text
    assert "3 of each are needed" in caplog.text
    # Absence is never sure then, whatever the probability, while presence may be.
    unsure = found.limits.find_unsure(np.array([[0.0], [0.59], [0.61]]), np.array([[0], [1], [1]]))
    assert unsure.ravel().tolist() == [True, True, False]


def test_a_patient_counts_once() -> None:
    """Nine records with the class of one patient are one: too few at any usual coverage."""
    y_true, y_score = np.ones((9, 1)), np.linspace(0.1, 0.9, 9)[:, None]
    assert fit_limits(predictions(y_true, y_score), ["a"] * 9, 0.9).n_with == (1,)
    every = fit_limits(predictions(y_true, y_score), "abcdefghi", 0.9)
    # (1 - 0.9) * 10 is a little less than 1.
    assert every.n_with == (9,) and every.limits.present_from == (pytest.approx(0.1),)


def test_limits_do_not_depend_on_the_order_of_records() -> None:
    rng = np.random.default_rng(0)
    data = predictions(rng.integers(0, 2, (60, 2)), rng.random((60, 2)))
    patients = np.array([f"p{i // 3}" for i in range(60)])
    order = rng.permutation(60)
    turned = fit_limits(data.subset(order), patients[order].tolist(), 0.8)
    assert turned == fit_limits(data, patients.tolist(), 0.8)


def test_classes_that_exclude_each_other() -> None:
    """The predicted class and all that are plausible are not sure, if they are several."""
    limits = CoverageLimits(0.9, (0.3, 0.2, 0.0))
    y_score = np.array([[0.7, 0.2, 0.1], [0.25, 0.7, 0.05]])
    y_pred = np.array([[1, 0, 0], [0, 1, 0]])
    assert limits.find_unsure(y_score, y_pred).tolist() == [[True, True, True], [False, True, True]]
    sure = CoverageLimits(0.9, (0.3, 0.3, 0.2))
    assert not sure.find_unsure(y_score, y_pred).any()
    # Without a plausible class the prediction stands alone.
    assert not CoverageLimits(0.9, (0.9,) * 3).find_unsure(y_score, y_pred).any()


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, NAN])
def test_impossible_coverages_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        fit_limits(predictions([[1]], [[0.5]]), "a", value)
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        EvaluationOptions(coverage=value)


def draw(rng: np.random.Generator, n_patients: int) -> tuple[Predictions, list[str]]:
    """Return patients with 1 to 4 records, of whom those with more look more alike."""
    n_records = rng.integers(1, 5, n_patients)
    patients = np.repeat(np.arange(n_patients), n_records)
    has = np.repeat(rng.random((n_patients, 2)) < [0.5, 0.2], n_records, axis=0)
    shift = np.repeat(rng.normal(0, 1, n_patients) * (n_records > 2), n_records)
    noise = rng.normal(0, 0.7, (len(patients), 2))
    logits = 2.0 * has - 1 + shift[:, None] + noise
    return predictions(has, 1 / (1 + np.exp(-logits))), [f"p{p}" for p in patients]


def test_coverage_is_kept_on_new_patients() -> None:
    """Over many draws, 90 % of one record of each new patient, with and without each class."""
    rng = np.random.default_rng(1)
    covered: list[list[float]] = []
    for _ in range(200):
        validation, patients = draw(rng, 60)
        limits = fit_limits(validation, patients, 0.9).limits
        new, of_new = draw(rng, 60)
        one_each = new.subset(np.unique(of_new, return_index=True)[1])
        rows = measure_coverage(one_each, limits, {})["per_class"]
        covered += [[row["covered_with"], row["covered_without"]] for row in rows.values()]  # type: ignore[list-item]
    means = np.nanmean(np.array(covered, float), axis=0)
    assert (means > 0.89).all() and (means < 0.97).all()


# Measured -----------------------------------------------------------------------------------------


def test_measures_by_hand() -> None:
    """Limits 0.4 and 0.6 at thresholds of 0.5: sure below 0.4 and above 0.6."""
    data = predictions([[1], [1], [1], [0], [0], [NAN]], [[0.9], [0.5], [0.1], [0.1], [0.7], [0.5]])
    limits = CoverageLimits(0.9, (0.4,), (0.6,))
    first = np.array([True, True, False, False, False, False])
    found = measure_coverage(data, limits, {"sex": {"female": first}})
    assert found["per_class"]["A"] == found["all"]
    assert found["all"] == {
        "n_with": 3,
        "n_without": 2,
        "covered_with": pytest.approx(2 / 3),
        "covered_without": 0.5,
        "answered": pytest.approx(4 / 5),
    }
    female = found["subgroups"]["sex"]["female"]
    assert (female["n_records"], female["all"]["covered_with"]) == (2, 1.0)
    assert female["all"]["covered_without"] is None and female["all"]["answered"] == 0.5


def test_measures_of_exclusive_classes_count_records_with_the_class() -> None:
    data = predictions(np.eye(2)[[0, 0, 1]], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], single=True)
    found = measure_coverage(data, CoverageLimits(0.9, (0.3, 0.5)), {})
    assert found["per_class"]["A"] == {
        "n_with": 2,
        "n_without": 0,
        "covered_with": 1.0,
        "covered_without": None,
        "answered": 0.5,
    }
    assert found["per_class"]["B"]["answered"] == 1.0


# In a checkpoint ----------------------------------------------------------------------------------


def two_records() -> LabelledRecords:
    texts = ("d__0", "d__1")
    return LabelledRecords(
        Path(), texts, ((),) * 2, ((),) * 2, texts, ("d", "d"), ("",) * 2, (1.0,) * 2
    )


def test_limits_move_with_a_calibration() -> None:
    """What is never excluded stays so; a temperature makes limits meaningless."""
    card = ModelCard(("A", "B"), False, coverage=CoverageLimits(0.9, (0.0, 0.3), (0.7, 1.0)))
    second = Calibration("platt", ("A", "B"), np.array([2.0, 1.0]), np.array([0.0, 0.0]))
    moved = put_into_card(card, (second,), two_records(), "val").coverage
    assert moved is not None
    assert moved.present_from == (0.0, 0.3) and moved.absent_to[1] == 1.0
    assert moved.absent_to[0] == pytest.approx(1 / (1 + (0.3 / 0.7) ** 2))
    single = ModelCard(("A", "B"), True, coverage=CoverageLimits(0.9, (0.1, 0.3)))
    warm = Calibration("temperature", ("A", "B"), np.array([2.0, 2.0]), np.zeros(2))
    assert put_into_card(single, (warm,), two_records(), "val").coverage is None


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (CoverageLimits(0.9, (0.1,), (0.2,)), "coverage has 1 limits of presence and 1 of absence"),
        (CoverageLimits(0.9, (0.1, 0.2)), "coverage has 2 limits of presence and 0 of absence"),
    ],
)
def test_limits_of_other_classes_are_refused(limits: CoverageLimits, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ModelCard(("A", "B"), False, coverage=limits)
    with pytest.raises(ValueError, match="expected limits from 0 to 1"):
        CoverageLimits(0.9, (2.0,))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return an untrained network with limits between which most probabilities lie."""
    from settings import SMALL

    card = ModelCard(("NORM", "AF"), False, ModelConfig(base_channels=8), SMALL)
    card = replace(
        card,
        coverage=CoverageLimits(0.9, (0.0, 1.0), (1.0, 0.0)),
        coverage_on=FittedOn("coverage 0.9", "val", 7, ("d",), ("NORM",)),
    )
    save_checkpoint(tmp_path / "limits.pth", card, build_model(card).state_dict())
    return tmp_path / "limits.pth"


def test_predictions_say_what_is_not_sure(
    checkpoint: Path, sample: SampleData, tmp_path: Path
) -> None:
    """In each table, the printed line, the classifier and the description of an export."""
    files = sorted(sample.data["synthetic_wfdb"].glob("*.hea"))[:2]
    lines: list[str] = []
    predict_to_table(checkpoint, files, tmp_path / "p.csv", say=lines.append)
    predict_to_table(checkpoint, files, tmp_path / "p.json")
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[-4:] == ["labels", "not_sure", "notes", "path"]
    assert [row["not_sure"] for row in rows] == ["NORM"] * 2
    values = json.loads((tmp_path / "p.json").read_text())
    assert [row["not_sure"] for row in values] == [["NORM"]] * 2
    prediction = Classifier.load(checkpoint, device="cpu").predict(files[0])
    assert prediction.not_sure == ("NORM",)
    for line in (lines[0], str(prediction)):
        assert line.count("?") == 1 and "?" in line.split("NORM")[1].split(",")[0]
    description = describe_input(load_checkpoint(checkpoint).card, 250)["coverage"]
    assert description["present_from"] == (0.0, 1.0)  # type: ignore[index]
    assert description["chosen_on"]["n_records"] == 7  # type: ignore[index]


def test_without_limits_there_is_no_such_column(
    checkpoint: Path, sample: SampleData, tmp_path: Path
) -> None:
    loaded = load_checkpoint(checkpoint)
    plain = replace(loaded.card, coverage=None, coverage_on=None)
    save_checkpoint(tmp_path / "plain.pth", plain, loaded.weights)
    files = sorted(sample.data["synthetic_wfdb"].glob("*.hea"))[:1]
    predict_to_table(tmp_path / "plain.pth", files, tmp_path / "p.csv")
    assert "not_sure" not in (tmp_path / "p.csv").read_text()


def test_evaluate_fits_saves_and_measures(
    run: Run, checkpoint: Path, processed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = ["--checkpoint", checkpoint, "--processed", processed, "--out", out]
    done = run("evaluate", *options, "--coverage", "0.6", "--save", tmp_path / "new.pth")
    assert done.code == 0 and "coverage 0.6, limits from" in done.out, done.error
    metrics = json.loads((out / "metrics_test.json").read_text())["coverage"]
    assert metrics["level"] == 0.6 and metrics["learned_on"] == "val"
    assert set(metrics["per_class"]) == {"NORM", "AF"} and "dataset" in metrics["subgroups"]
    card = load_checkpoint(tmp_path / "new.pth").card
    assert card.coverage is not None and card.coverage_on is not None
    assert card.coverage.present_from[0] == metrics["limits"]["NORM"]["present_from"]
    assert card.coverage_on.method == "coverage 0.6"
    # The checkpoint alone gives the same table, and says where its limits come from.
    again = evaluate(tmp_path / "new.pth", processed).metrics["coverage"]
    assert again["per_class"] == metrics["per_class"]
    assert again["datasets"] == list(card.coverage_on.datasets)
    assert "answered" in format_coverage(again)


def test_limits_are_not_fitted_on_what_is_evaluated(
    run: Run, checkpoint: Path, processed: Path, tmp_path: Path
) -> None:
    options = ["--checkpoint", checkpoint, "--processed", processed, "--out", tmp_path / "run"]
    refused = run("evaluate", *options, "--split", "val", "--coverage", "0.9")
    assert refused.code == 1 and "limits of coverage would be chosen on it" in refused.error
    wrong = run("evaluate", *options, "--coverage", "90")
    assert wrong.code == 2 and "expected a share between 0 and 1, such as 0.9" in wrong.error


def test_recalibrate_fits_limits_anew(
    run: Run, checkpoint: Path, processed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine.pth"
    options = ["--checkpoint", checkpoint, "--processed", processed, "--out", out]
    assert run("recalibrate", *options).code == 0
    card = load_checkpoint(out).card
    assert card.coverage is not None and card.coverage.coverage == 0.9
    assert card.coverage_on is not None and card.coverage_on.n_records != 7
    done = run("recalibrate", *options[:-1], tmp_path / "half.pth", "--coverage", "0.5")
    assert "limits: coverage 0.5, chosen on" in done.out
