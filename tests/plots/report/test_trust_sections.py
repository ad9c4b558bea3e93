"""The sections on coverage, disturbances, suspicious labels and the card of the model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from settings import SMALL

from src.config import ModelConfig
from src.learning.checkpoints import FittedOn, LogitScale, ModelCard, save_checkpoint
from src.learning.conformal import CoverageLimits, measure_coverage
from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.learning.results import StressRow
from src.model import build_model
from src.plots.report.run_files import load_run
from src.plots.report.writer import write_report
from src.utils import save_json

ROW: StressRow = {
    "kind": "none",
    "strength": "",
    "n_records": 30,
    "n_unfit": 0,
    "n_rejected": 0,
    "auroc_macro": 0.9,
    "auroc_frequent": 0.9,
    "change": 0.0,
    "unlike": None,
    "auroc": {"A": 0.9, "B": 0.9},
}
ISSUES = """rank,dataset,record_id,class,given,probability,score,patient,suggestion
1,d,r7,A,A;B,0.0123,0.9877,d/secret,drop A
2,d,r9,B,,0.9500,0.9500,d/concealed,add B
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with a checkpoint, coverage, a stress table and suspicious labels."""
    y_true = [[1, 0], [0, 1], [1, 1], [0, 0]]
    y_score = [[0.9, 0.2], [0.3, 0.7], [0.4, 0.9], [0.1, 0.5]]
    predictions = Predictions(tuple("abcd"), y_true, y_score, ("A", "B"), single_label=False)
    limits = CoverageLimits(0.9, (0.2, 0.0), (0.6, 0.8))
    is_female = predictions.y_true[:, 0] == 1
    groups = {"sex": {"female": is_female, "male": ~is_female}}
    coverage = {
        "level": 0.9,
        "learned_on": "val",
        "n_fitted_on": 1234,
        "undecided": ["B"],
        "limits": {},
        **measure_coverage(predictions, limits, groups),
    }
    card = ModelCard(
        ("A", "B"),
        False,
        ModelConfig(base_channels=8),
        SMALL,
        thresholds=(0.3, 0.4),
        thresholds_on=FittedOn("f1", "val", 1234, ("d",)),
        calibration=LogitScale((1.5, 1.0), (-0.25, 0.0)),
        coverage=limits,
        coverage_on=FittedOn("coverage 0.9", "val", 1234, ("d",), ("B",)),
    )
    save_checkpoint(tmp_path / "models" / "best.pth", card, build_model(card).state_dict())
    metrics = {**compute_metrics(predictions), "coverage": coverage}
    save_json({**metrics, "split": "test"}, tmp_path / "metrics_test.json")
    disturbed = {**ROW, "kind": "leads", "strength": "II", "change": -0.123, "unlike": 0.987}
    stress = {"split": "val", "checkpoint": "x", "seed": 0, "rows": [ROW, disturbed]}
    save_json(stress, tmp_path / "stress_val.json")
    (tmp_path / "label_issues.csv").write_text(ISSUES)
    return tmp_path


def sections(folder: Path) -> dict[str, str]:
    text = write_report(folder).read_text(encoding="utf-8")
    parts = re.split(r'<section id="(\w+)">', text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_what_to_doubt_is_in_the_report(folder: Path) -> None:
    found = sections(folder)
    order = ["coverage", "disturbances", "suspicious", "card", "settings"]
    assert [name for name in found if name in order] == order
    coverage = found["coverage"]
    assert "Coverage by class" in coverage and "Coverage by sex" in coverage
    assert "at most 10% are to get a sure and wrong answer" in coverage
    assert "1,234 records" in coverage and "exclude an answer: B" in coverage
    assert "leads II" in found["disturbances"] and "-0.123" in found["disturbances"]
    assert "0.987" in found["disturbances"] and "<svg" in found["disturbances"]
    assert "2 labels of 2 records" in found["suspicious"] and "drop A" in found["suspicious"]
    card = found["card"]
    assert "0.300" in card and "1.500" in card and "coverage 0.9, chosen on 1234" in card


def test_patients_stay_out_of_the_report(folder: Path) -> None:
    text = write_report(folder).read_text(encoding="utf-8")
    assert "secret" not in text and "concealed" not in text


def test_an_edited_stress_table_is_refused_by_name(folder: Path) -> None:
    rows = [{**ROW, "n_records": "many"}]
    save_json(
        {"split": "val", "checkpoint": "", "seed": 0, "rows": rows}, folder / "stress_val.json"
    )
    with pytest.raises(ValueError, match=r"stress_val\.json: rows\[0\]\.n_records is 'many'"):
        load_run(folder)


def test_a_table_that_is_no_list_of_issues_is_refused_by_name(folder: Path) -> None:
    (folder / "label_issues.csv").write_text("record,class\n1,A\n")
    with pytest.raises(ValueError, match=r"label_issues\.csv"):
        load_run(folder)


def test_a_broken_checkpoint_costs_the_card_alone(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "models" / "best.pth").write_bytes(b"no checkpoint")
    assert "card" not in sections(folder)
    assert "no model card" in caplog.text


def test_a_run_without_these_files_has_none_of_the_sections(folder: Path) -> None:
    files = load_run(folder)
    assert len(files.stress) == 1 and len(files.issues) == 2
    assert replace(files, stress=(), issues=()).stress == ()
    for name in ("stress_val.json", "label_issues.csv"):
        (folder / name).unlink()
    assert not {"disturbances", "suspicious"} & sections(folder).keys()
