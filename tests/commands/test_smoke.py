from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import bad_records
import pytest
from settings import QUICK

from src.commands import smoke
from src.commands.smoke import SmokeError, run_smoke
from src.config import DataConfig
from src.records.sample_collections import SampleData
from src.training import TrainResult, run_training

STEPS = [
    "read and preprocessed 10 of 10 records",
    "10 record files are valid: (12, 1000)",
    "batches load: 4 x 12 leads x 250 samples",
    "forward pass: 4 x",
    "training runs and its loss falls: ",
    "metrics come out: macro F1 ",
]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the check makes its temporary one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def assert_passed(report: smoke.SmokeReport) -> None:
    assert len(report.steps) == len(STEPS)
    assert all(seen.startswith(wanted) for seen, wanted in zip(report.steps, STEPS, strict=True)), (
        report.steps
    )


def test_ten_generated_records_go_through_everything(temporary: Path) -> None:
    report = run_smoke(QUICK)
    assert_passed(report)
    assert str(report).endswith("smoke test passed: 6 steps") and str(report).startswith("ok  read")
    assert not list(temporary.glob("ecg-*")), "the temporary folder is removed"


def test_collections_without_a_mapping_keep_the_fallback_label(
    sample_roots: DataConfig, temporary: Path
) -> None:
    report = run_smoke(QUICK, sample_roots)
    assert_passed(report)
    assert report.steps[2].endswith("1 class (OTHER)")


def test_collections_with_their_mapping(
    sample: SampleData, sample_roots: DataConfig, temporary: Path
) -> None:
    report = run_smoke(QUICK, sample_roots, sample.mapping)
    assert_passed(report)
    assert "NORM" in report.steps[2] and "OTHER" not in report.steps[2]


def test_real_recordings_without_a_mapping(
    real_data: Callable[[str], Path], temporary: Path
) -> None:
    assert_passed(run_smoke(QUICK, DataConfig({"challenge2021": str(real_data("challenge2021"))})))


def test_unreadable_records_are_reported(tmp_path: Path) -> None:
    for write, _, _ in bad_records.BAD.values():
        write(tmp_path)
    with pytest.raises(
        SmokeError,
        match=r"smoke test failed: 0 of 10 records could be processed, expected 2 or more .*",
    ) as caught:
        run_smoke(QUICK, DataConfig({"mine": str(tmp_path)}))
    assert "header is empty" in str(caught.value)
    with pytest.raises(ValueError, match="no such folder"):
        run_smoke(QUICK, DataConfig({"mine": str(tmp_path / "none")}))


def test_a_loss_that_does_not_fall_fails(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(*arguments: object, **options: object) -> TrainResult:
        result = run_training(*arguments, **options)  # type: ignore[arg-type]
        return dataclasses.replace(
            result, history=[{**row, "train_loss": 0.7} for row in result.history]
        )

    monkeypatch.setattr(smoke, "run_training", flat)
    with pytest.raises(SmokeError, match=r"training loss does not fall: \[0\.7, "):
        run_smoke(QUICK)
    assert not list(temporary.glob("ecg-*"))
