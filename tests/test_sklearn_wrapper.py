from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import (
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
)

from src.sklearn_wrapper import ECGClassifier

SMALL = {"epochs": 8, "lr": 1e-2, "batch_size": 16, "base_channels": 4, "device": "cpu"}


def make_data(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two leads of noise; the class is the frequency that sounds in the second."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % 3)
    wave = np.sin(
        2 * np.pi * np.arange(300) * np.array([0.01, 0.04, 0.15])[label][:, None]
        + rng.uniform(0, 6, (n, 1))
    )
    signals = rng.normal(0, 0.3, (n, 2, 300))
    signals[:, 1] += wave
    return signals, np.array(["slow", "middle", "fast"])[label]


def test_it_is_an_estimator_by_the_rules() -> None:
    check_no_attributes_set_in_init("ECGClassifier", ECGClassifier())
    check_parameters_default_constructible("ECGClassifier", ECGClassifier())
    estimator = ECGClassifier(**SMALL)
    copy = clone(estimator.set_params(lr=0.5))
    assert copy is not estimator and copy.get_params() == {
        **ECGClassifier().get_params(),
        **SMALL,
        "lr": 0.5,
    }
    assert is_classifier(estimator) and not hasattr(estimator, "classes_")
    with pytest.raises(NotFittedError):
        estimator.predict(make_data(4)[0])


def test_cross_validation_search_and_pipeline() -> None:
    signals, labels = make_data()
    scores = cross_val_score(ECGClassifier(**SMALL), signals, labels, cv=3)
    assert scores.mean() > 0.9
    search = GridSearchCV(
        make_pipeline(FunctionTransformer(np.copy), ECGClassifier(**SMALL)),
        {"ecgclassifier__epochs": [1, 6]},
        cv=2,
    )
    search.fit(signals, labels)
    assert search.best_params_ == {"ecgclassifier__epochs": 6}
    assert (
        cross_val_score(ECGClassifier(**SMALL), signals, labels, cv=2, scoring="roc_auc_ovr").mean()
        > 0.9
    )


def test_probabilities_are_in_the_order_of_the_classes() -> None:
    signals, labels = make_data()
    estimator = ECGClassifier(**SMALL).fit(signals, labels)
    assert estimator.classes_.tolist() == ["fast", "middle", "slow"] and len(estimator.losses_) == 8
    scores = estimator.predict_proba(signals)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (estimator.classes_[scores.argmax(axis=1)] == estimator.predict(signals)).all()
    assert estimator.score(*make_data(30, seed=1)) > 0.9
    scaled = 5 * signals + 1
    np.testing.assert_allclose(estimator.predict_proba(scaled), scores, atol=1e-4)


def test_several_labels_may_be_unknown() -> None:
    signals, labels = make_data()
    targets = np.stack([labels == "slow", labels != "fast"], axis=1).astype(float)
    targets[::7, 0] = np.nan
    estimator = ECGClassifier(**{**SMALL, "epochs": 12}).fit(signals, targets)
    called = estimator.predict(signals)
    known = ~np.isnan(targets)
    assert estimator.classes_.tolist() == [0, 1] and called.shape == targets.shape
    assert (called[known] == targets[known]).mean() > 0.9
    assert (
        cross_val_score(
            ECGClassifier(**SMALL), signals, np.nan_to_num(targets).astype(int), cv=2
        ).mean()
        > 0.5
    )


def test_the_same_seed_gives_the_same_network_and_leaves_torch_alone() -> None:
    signals, labels = make_data(20)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    one, two, other = (
        ECGClassifier(**{**SMALL, "epochs": 1}, random_state=seed)
        .fit(signals, labels)
        .predict_proba(signals)
        for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)


def test_crops_balance_and_pickles() -> None:
    signals, labels = make_data(40)
    estimator = ECGClassifier(
        **{**SMALL, "epochs": 2}, crop_samples=260, balanced_sampling=True, mixup=0.2
    ).fit(signals, labels)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.predict(signals), estimator.predict(signals))
    whole = clone(estimator).set_params(crop_samples=0)
    whole.__dict__.update(
        {name: value for name, value in vars(estimator).items() if name.endswith("_")}
    )
    assert not np.allclose(
        whole.predict_proba(signals), estimator.predict_proba(signals), atol=1e-6
    )


@pytest.mark.parametrize(
    ("signals", "labels", "message"),
    [
        (
            np.zeros((4, 600)),
            [0, 1, 0, 1],
            r"X has shape \(4, 600\): expected \(n_records, n_leads, 250",
        ),
        (np.zeros((4, 2, 100)), [0, 1, 0, 1], "250 samples or more"),
        (np.full((4, 2, 300), np.nan), [0, 1, 0, 1], "not finite"),
        (np.zeros((4, 2, 300)), [0, 1, 0], r"y has shape \(3,\): expected \(4,\)"),
        (np.zeros((4, 2, 300)), [1, 1, 1, 1], "y holds one class, .*1.*: expected two or more"),
        (np.zeros((4, 2, 300)), [0.5, 1, 0, 1], "Unknown label type"),
        (np.zeros((4, 2, 300)), [[0, 2]] * 4, "other values than 0, 1 and NaN"),
        (np.zeros((1, 2, 300)), [[0, 1]], "one record"),
        (np.zeros((4, 2, 300)), [[]] * 4, "y has no column"),
        (np.zeros((4, 2, 300)), [0, np.inf, 1, 0], "Unknown label type"),
        (np.zeros((4, 2, 300)), ["a", None, "b", "a"], "labels of several types"),
    ],
)
def test_what_does_not_fit_is_refused(
    signals: np.ndarray, labels: list[object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ECGClassifier(**SMALL).fit(signals, labels)


def test_other_leads_than_in_training_are_refused() -> None:
    signals, labels = make_data(12)
    estimator = ECGClassifier(**{**SMALL, "epochs": 1}).fit(signals, labels)
    with pytest.raises(ValueError, match="X has 3 leads: expected 2, as in fit"):
        estimator.predict(np.zeros((1, 3, 300)))
    with pytest.raises(ValueError, match="crop_samples is 100"):
        ECGClassifier(crop_samples=100).fit(signals, labels)
