"""The linear probe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.commands.probe import fit_each, fit_exclusive, run_probe
from src.eval import EvaluationOptions, evaluate_predictions
from src.learning.features import Features
from src.processed.manifest import load_manifest
from src.processed.record_files import record_keys
from src.utils import load_json

NAN = float("nan")


@pytest.fixture
def features(processed: Path, tmp_path: Path) -> Path:
    """Features that tell the label of each record, beside random ones that tell nothing."""
    rows = load_manifest(processed)
    names = sorted(set(rows["labels"]))
    rng = np.random.default_rng(0)
    values = 3 * (rows["labels"].to_numpy()[:, None] == np.array(names)) + rng.normal(
        size=(len(rows), len(names))
    )
    noise = rng.normal(size=values.shape)
    path = tmp_path / "f.npz"
    keys, splits = tuple(record_keys(rows)), tuple(rows["split"])
    Features(keys, splits, values.astype(np.float32), noise.astype(np.float32)).save(path)
    return path


def test_a_probe_stands_beside_that_of_an_untrained_network(
    features: Path, processed: Path, tmp_path: Path
) -> None:
    found = run_probe(
        features, processed, tmp_path / "run", options=EvaluationOptions(intervals=20)
    )
    good, chance = found.features.metrics, found.random.metrics
    assert good["auroc_macro"] > 0.9 > chance["auroc_macro"]
    assert "trained_on" not in good and "trained_on" not in chance
    saved = load_json(tmp_path / "run" / "random" / "metrics_test.json")
    assert saved["auroc_macro"] == chance["auroc_macro"]
    assert "the same, untrained" in str(found) and "[" in str(found)
    file = tmp_path / "run" / "predictions_probe.npz"
    of_val = evaluate_predictions(file, processed, split="val")
    assert of_val.metrics["n_records"] > 0
    with pytest.raises(ValueError, match=r"holds none of the .* records of split train"):
        evaluate_predictions(file, processed, split="train")


def test_several_labels_are_probed_one_by_one(
    features: Path, processed: Path, tmp_path: Path
) -> None:
    found = run_probe(features, processed, tmp_path / "run", target="multi", split="val")
    assert found.features.split == "val" and not found.features.metrics["single_label"]
    assert (found.features.predictions.y_score.sum(axis=1) != 1).any()


def test_features_of_other_records_are_refused(
    features: Path, processed: Path, tmp_path: Path
) -> None:
    few = Features.load(features)
    Features(few.keys[:2], few.splits[:2], few.values[:2], few.random_values[:2]).save(features)
    with pytest.raises(ValueError, match=r"f\.npz: has no features of \d+ records, such as"):
        run_probe(features, processed, tmp_path / "run")
    with pytest.raises(ValueError, match="split is 'train': expected val or test"):
        run_probe(features, processed, tmp_path / "run", split="train")
    with pytest.raises(ValueError, match="strength is 0: expected a number above 0"):
        run_probe(features, processed, tmp_path / "run", strength=0)


def test_fits_are_those_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(60, 3)), rng.normal(size=(5, 3))
    target = (x[:, 0] + rng.normal(size=60) > 0).astype(float)
    target[:10] = NAN
    targets = np.stack([target, np.zeros(60), np.ones(60)], axis=1)
    scores = fit_each(x, targets, new, 0.5)
    model = LogisticRegression(C=0.5).fit(x[10:], target[10:] == 1)
    np.testing.assert_allclose(scores[:, 0], model.predict_proba(new)[:, 1], rtol=1e-6)
    assert (scores[:, 1:] == [0, 1]).all()
    classes = rng.integers(0, 2, 60) * 2  # the second of three never occurs
    scores = fit_exclusive(x, np.eye(3)[classes], new, 0.5)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores[:, 1] == 0).all()
