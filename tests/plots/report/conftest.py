"""Reports that several tests read: of an ordinary run, and of one whose names are attacks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from record_files import write_record_file
from report_page import DATASET, HOSTILE, Reader

from src.eval import EvaluationOptions, compute_evaluation, evaluate
from src.learning.predictions import Predictions
from src.plots.report.writer import write_report
from src.processed.manifest import MANIFEST_COLUMNS, load_manifest, save_manifest, select_rows
from src.processed.record_files import record_path
from src.utils import save_json


@pytest.fixture(scope="session")
def run(trained: Path, processed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was evaluated on two splits, with intervals and a calibration."""
    folder = tmp_path_factory.mktemp("report") / "a run"
    shutil.copytree(trained, folder)
    best = folder / "models" / "best.pth"
    evaluate(
        best,
        processed,
        split="train",
        out=folder,
        options=EvaluationOptions(intervals=20, calibrate=True),
    )
    evaluate(best, processed, split="val", out=folder)
    return folder


@pytest.fixture(scope="session")
def page(run: Path, processed: Path) -> Path:
    return write_report(run, processed)


@pytest.fixture(scope="session")
def read(page: Path) -> Reader:
    return Reader(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run in which every name and remark is an attack."""
    root = tmp_path_factory.mktemp("hostile")
    ids, labels = (
        [f'{n}"><img src=x onerror=window.hacked=1>{HOSTILE}' for n in range(4)],
        [HOSTILE, "'onload='&", HOSTILE, "'onload='&"],
    )
    keys = [f"{DATASET}__{record_id}" for record_id in ids]
    rng = np.random.default_rng(0)
    for key in keys:
        arrays = {
            "signal": rng.normal(size=(12, 500)).astype(np.float32),
            "lead_mean": np.zeros(12, np.float32),
            "lead_std": np.ones(12, np.float32),
            "lead_present": np.ones(12, bool),
        }
        facts = {"n_valid": 500, "fs": np.float32(100)}
        write_record_file(record_path(root, key), {**arrays, **facts})
    rows = [
        dict.fromkeys(MANIFEST_COLUMNS, HOSTILE)
        | {
            "dataset": DATASET,
            "record_id": record_id,
            "labels": label,
            "fs": "100",
            "n_samples": "500",
            "status": "ok",
            "split": "test",
            "label_source": "mapping",
            "age": "",
            "fold": "",
            "weight": "",
            "beat_s": "",
            "rr_before_s": "",
            "rr_after_s": "",
            "quality_flags": f"{HOSTILE}:{HOSTILE}",
        }
        for record_id, label in zip(ids, labels, strict=True)
    ]
    manifest = pd.DataFrame(
        [*rows, rows[0] | {"record_id": "x", "status": "rejected", "reason": HOSTILE}]
    )
    save_manifest(manifest, root)
    truth = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
    predictions = Predictions(
        tuple(keys),
        truth,
        np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]]),
        (HOSTILE, "'onload='&"),
    )
    predictions.save(root / "predictions_test.npz")
    _, metrics = compute_evaluation(
        predictions, select_rows(load_manifest(root), keys), EvaluationOptions()
    )
    save_json({"checkpoint": HOSTILE, **metrics}, root / "metrics_test.json")
    history = [{"epoch": 1, "train_loss": 1.0, HOSTILE: 2.0}]
    log = {
        "history": history,
        "best_epoch": 1,
        "best_metric_name": HOSTILE,
        "stopped": HOSTILE,
        "config": {"train": {HOSTILE: HOSTILE}},
    }
    save_json(
        {**log, "environment": {"platform": HOSTILE, "packages": {HOSTILE: HOSTILE}}},
        root / "training_log.json",
    )
    return write_report(root, root)
