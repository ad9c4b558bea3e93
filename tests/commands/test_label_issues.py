"""Suspicious labels of a processed folder: planted ones are found, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from settings import SMALL

from experiments.planted_labels import plant, score
from src.__main__ import main
from src.commands.cross_fit import join_predictions
from src.commands.label_issues import run_label_issues
from src.config import DataConfig, ExecutionConfig, LoaderConfig
from src.dataloaders import make_loader
from src.eval import predict
from src.labels.decisions import apply_decisions
from src.labels.mapping import load_mapping
from src.labels.text_tables import read_table
from src.learning.checkpoints import load_checkpoint
from src.learning.predictions import Predictions
from src.model import compute_features, load_model
from src.preprocessing import run_preprocessing
from src.processed.datasets import ECGDataset, View
from src.processed.targets import encode_targets, find_classes, join_records, load_records
from src.records.sample_collections import write_sample_collections
from src.utils import PROJECT_ROOT

N_PLANTED = 9


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a collection, its mapping with 5 % wrong labels, and it processed."""
    folder = tmp_path_factory.mktemp("wrong")
    sample = write_sample_collections(folder / "sample", n_records=180, seed=1)
    mapping = folder / "mapping.csv"
    assert plant(sample.mapping, mapping, folder / "planted.csv") == N_PLANTED
    roots = DataConfig({name: str(root) for name, root in sample.data.items()})
    execution = ExecutionConfig(workers=1)
    run_preprocessing(
        roots, folder / "processed", mapping=mapping, config=SMALL, execution=execution
    )
    return folder


@pytest.fixture(scope="module")
def out_of_fold(wrong: Path) -> Predictions:
    """Probabilities of a logistic regression on features, out of fold by patient."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    processed = wrong / "processed"
    records = join_records(list(load_records(processed).values()))
    classes = find_classes(records)
    y_true = encode_targets(records, classes)
    checkpoint = load_checkpoint(PROJECT_ROOT / "artifacts/pretrained/statements.pth")
    view = View(checkpoint.card.leads, checkpoint.card.normalization)
    dataset = ECGDataset(records.paths, y_true, view, records.datasets)
    loader = make_loader(dataset, LoaderConfig(batch_size=45))
    features, _ = predict(partial(compute_features, load_model(checkpoint)), loader)
    y_score = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        features.numpy(),
        y_true.argmax(axis=1),
        groups=list(records.patients),
        cv=GroupKFold(5),
        method="predict_proba",
    )
    hashes = records.signal_hashes
    return Predictions(
        records.keys, y_true, y_score, classes, train_hashes=hashes, out_of_fold=True
    )


def test_planted_labels_come_first(wrong: Path, out_of_fold: Predictions, tmp_path: Path) -> None:
    out_of_fold.save(tmp_path / "p.npz")
    issues = tmp_path / "issues.csv"
    run_label_issues(tmp_path / "p.npz", wrong / "processed", issues)
    n_found, n_rows, n_planted = score(issues, wrong / "planted.csv", first=100)
    assert n_planted == N_PLANTED
    # Found are those more certain than most records of the class, so half of them.
    assert n_found >= N_PLANTED // 3 and n_found >= 0.7 * n_rows


def test_the_table_and_the_summary_say_what_to_change(
    wrong: Path, out_of_fold: Predictions, tmp_path: Path
) -> None:
    report = run_label_issues(out_of_fold, wrong / "processed", tmp_path / "issues.csv")
    rows = read_table(tmp_path / "issues.csv").rows
    assert [row["rank"] for row in rows] == [str(i + 1) for i in range(len(report.issues))]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    first = rows[0]
    key = f"{first['dataset']}__{first['record_id']}"
    place = out_of_fold.keys.index(key)
    assert (
        first["given"] == first["class"] == out_of_fold.classes[out_of_fold.y_true[place].argmax()]
    )
    column = out_of_fold.classes.index(first["class"])
    assert float(first["probability"]) == pytest.approx(
        out_of_fold.y_score[place, column], abs=1e-4
    )
    assert first["suggestion"].startswith("change to ")
    assert first["patient"].startswith(first["dataset"] + "/")
    assert sum(n for _, n, _, _ in report.count_classes()) == len(out_of_fold.keys)
    assert sum(drops for _, _, drops, _ in report.count_classes()) == len(report.issues)
    assert "patients with most suspicious records" in str(report)


def test_predictions_of_networks_that_trained_on_the_records_are_refused(
    wrong: Path,
    out_of_fold: Predictions,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    replace(out_of_fold, out_of_fold=False).save(tmp_path / "p.npz")
    command = ["label-issues", "--predictions", str(tmp_path / "p.npz")]
    command += ["--processed", str(wrong / "processed"), "--out", str(tmp_path / "issues.csv")]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "was trained on 180 of the 180 records" in error and "cross-validate" in error
    assert not (tmp_path / "issues.csv").exists()


def test_files_of_other_programs_are_used_with_a_warning(
    wrong: Path,
    out_of_fold: Predictions,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [",".join(["key", *out_of_fold.classes])]
    for key, row in zip(out_of_fold.keys, out_of_fold.y_score.tolist(), strict=True):
        lines.append(",".join([key, *map(repr, row)]))
    (tmp_path / "p.csv").write_text("\n".join(lines))
    command = ["label-issues", "--predictions", str(tmp_path / "p.csv")]
    command += ["--processed", str(wrong / "processed"), "--out", str(tmp_path / "theirs.csv")]
    assert main(command) == 0
    assert "does not say which recordings its model was trained on" in capsys.readouterr().err
    run_label_issues(out_of_fold, wrong / "processed", tmp_path / "ours.csv")
    assert (tmp_path / "theirs.csv").read_bytes() == (tmp_path / "ours.csv").read_bytes()


def test_predictions_joined_from_networks_say_that_they_are_out_of_fold(
    out_of_fold: Predictions, tmp_path: Path
) -> None:
    single = replace(out_of_fold, out_of_fold=False)
    single.save(tmp_path / "one.npz")
    join_predictions([single]).save(tmp_path / "joined.npz")
    assert not Predictions.load(tmp_path / "one.npz").out_of_fold
    assert Predictions.load(tmp_path / "joined.npz").out_of_fold


def test_predictions_of_other_records_are_refused(wrong: Path) -> None:
    others = Predictions(
        ("x__1", "x__2"), np.eye(2), np.eye(2), ("AF", "NORM"), train_hashes=("a",)
    )
    with pytest.raises(ValueError, match="predicts no record of the processed folder"):
        run_label_issues(others, wrong / "processed")


def choices_of(page: Path) -> list[dict[str, str]]:
    found = re.search(r'id="ecg-choices">(.*?)</script>', page.read_text())
    assert found
    choices: list[dict[str, str]] = json.loads(found[1])
    return choices


def test_the_page_leads_to_a_mapping_with_the_right_labels(
    wrong: Path, out_of_fold: Predictions, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    run_label_issues(out_of_fold, wrong / "processed", page=page, n_examples=4)
    choices = choices_of(page)
    assert len(choices) == 4
    lines = ["dataset,record_id,mapped_label,decision,given,path"]
    for choice, kind in zip(choices, ("change", "keep", "drop", "change"), strict=True):
        cells = [choice["dataset"], choice["record_id"], choice["suggested"]]
        lines.append(",".join([*cells, kind, choice["given"], choice["path"]]))
    (tmp_path / "decisions.csv").write_text("\n".join(lines) + "\n")
    before = load_mapping(wrong / "mapping.csv")
    counts = apply_decisions(
        wrong / "mapping.csv", tmp_path / "decisions.csv", tmp_path / "new.csv"
    )
    assert dict(counts) == {"change": 2, "keep": 1, "drop": 1}
    after = load_mapping(tmp_path / "new.csv")
    assert len(after) == len(before) - 1
    labels = dict(zip(after["dataset"] + after["record_id"], after["mapped_label"], strict=True))
    for choice, now in zip(choices, ("suggested", "given", "", "suggested"), strict=True):
        name = choice["dataset"] + choice["record_id"]
        assert labels.get(name, "") == (choice[now] if now else "")
