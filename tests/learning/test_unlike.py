"""How unlike the training recordings others are: by hand, and in predictions."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from settings import SMALL
from test_main import Run, run
from torch import nn

from src.classifier.classifier import Classifier
from src.commands.predict_files import predict_to_table
from src.commands.recalibrate import recalibrate
from src.commands.stress import run_stress
from src.config import STANDARD_LEADS, ModelConfig
from src.eval import evaluate
from src.learning.checkpoints import ModelCard, load_checkpoint, save_checkpoint
from src.learning.unlike import Part, Reference
from src.model import PartFeatures, build_model, describe_leads
from src.processed.targets import load_records
from src.records.reading import read_record
from src.records.sample_collections import SampleData

__all__ = ["run"]


def correlated(n: int, n_features: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, n_features)) @ rng.normal(size=(n_features, n_features)) + 3


# Distances ----------------------------------------------------------------------------------------


def test_a_distance_is_that_of_mahalanobis() -> None:
    """Of standardized features, with a hundredth of the mean variance added."""
    features = correlated(500, 4)
    part = Part.fit(features, features)
    spread = features.std(axis=0)
    z = (features - features.mean(axis=0)) / (spread + 1e-3 * spread.mean())
    covariance = np.cov(z.T)
    covariance += 0.01 * np.trace(covariance) / 4 * np.eye(4)
    logs = np.log(np.einsum("ni,ij,nj->n", z, np.linalg.inv(covariance), z))
    expected = (logs - logs.mean()) / logs.std()
    np.testing.assert_allclose(part.measure(features), expected, atol=1e-4)


def test_many_features_are_measured_along_their_components_and_across() -> None:
    """Of 200 features: a step across the 128 components that are kept counts too."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 200))
    part = Part.fit(features, features)
    assert part.basis.shape == (200, 128)
    across = features[:200].copy()
    rest = np.eye(200) - part.basis @ part.basis.T
    across += 40 * rest[np.argmax(np.diag(rest))] * part.scale
    assert part.measure(across).min() > part.measure(features).max()


def test_the_share_that_lies_closer() -> None:
    features = correlated(1000, 5)
    reference = Reference.fit(features, (2, 3))
    shares = reference.rank(features[1::2])
    assert np.quantile(shares, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.002)
    assert reference.rank(features.mean(axis=0)[None]).item() == 0
    for column in (0, 4):
        # Far off in one part alone.
        far = features[:5].copy()
        far[:, column] += 1e3
        assert reference.rank(far).tolist() == [1] * 5


def test_a_feature_that_never_changes_is_no_trouble() -> None:
    features = correlated(50, 3)
    features[:, 1] = 7
    reference = Reference.fit(features, (3,))
    assert np.isfinite(reference.rank(features)).all()
    changed = features.copy()
    changed[:, 1] = 8
    assert (reference.rank(changed) == 1).all()


def test_a_loaded_reference_measures_the_same() -> None:
    features = correlated(300, 5)
    reference = Reference.fit(features, (2, 3))
    again = Reference.from_tensors(reference.to_tensors())
    others = correlated(100, 5, seed=1)
    assert (again.rank(others) == reference.rank(others)).all() and again.n_records == 300


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("quantiles", torch.tensor([1.0, 0.0]), "quantiles in order"),
        ("0.mean", torch.zeros(7), "do not fit together"),
        ("0.scale", torch.zeros(2), "do not fit together"),
        ("0.basis", torch.tensor([[math.nan, 0], [0, 1]]), "'0.basis' is not finite"),
        ("0.basis", "text", "'0.basis' is no plain tensor"),
        ("1.mean", None, "expected quantiles, n_records and parts"),
        ("other", torch.zeros(1), "expected quantiles, n_records and parts"),
    ],
)
def test_a_damaged_reference_is_refused(
    tmp_path: Path, name: str, value: object, reason: str
) -> None:
    tensors: dict[str, object] = {**Reference.fit(correlated(50, 4), (2, 2)).to_tensors()}
    tensors[name] = value
    if value is None:
        del tensors[name]
    with pytest.raises(ValueError, match=reason):
        Reference.from_tensors(tensors)
    card = ModelCard(("A",), False, ModelConfig(base_channels=8), SMALL)
    save_checkpoint(tmp_path / "a.pth", card, build_model(card).state_dict())
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    torch.save(content | {"reference": tensors}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=rf"a\.pth: .*{reason}"):
        load_checkpoint(tmp_path / "a.pth")


def test_too_few_or_infinite_features_are_refused() -> None:
    for features in (np.zeros((3, 2)), np.full((5, 2), np.nan)):
        with pytest.raises(ValueError, match="expected 4 or more, of finite features"):
            Reference.fit(features, (2,))


# Features -----------------------------------------------------------------------------------------


def test_leads_by_hand() -> None:
    """II is minus twice I, and III flat: correlations -1, 0, 0, then logarithms of the sizes."""
    first = torch.tensor([1.0, -1.0] * 50)
    found = describe_leads(torch.stack([first, -2 * first + 5, torch.zeros(100)])[None])
    expected = [-1, 0, 0, 0, math.log(2), math.log(1e-3)]
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


class Plain(nn.Module):
    """A network without features."""

    min_samples = 10

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=2)


class WithFeatures(Plain):
    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x.amax(dim=2)


def test_parts_are_what_a_network_offers() -> None:
    card = ModelCard(("A",), False, ModelConfig(base_channels=8), SMALL)
    x = torch.randn(2, 12, 300, generator=torch.Generator().manual_seed(0))
    for network, sizes in (
        (Plain(), (78,)),
        (WithFeatures(), (78, 12)),
        (build_model(card).eval(), (78, 12, 24)),
    ):
        parts = PartFeatures(network)
        with torch.inference_mode():
            assert parts(x).shape == (2, sum(sizes))
        assert parts.sizes == sizes


# In a checkpoint ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, processed: Path) -> Path:
    """Return an untrained network that knows the training recordings, saved by the command."""
    folder = tmp_path_factory.mktemp("unlike")
    card = ModelCard(("NORM", "AF"), False, ModelConfig(base_channels=8), SMALL)
    save_checkpoint(folder / "plain.pth", card, build_model(card).state_dict())
    evaluate(folder / "plain.pth", processed, save=folder / "unlike.pth", unlike=True)
    return folder / "unlike.pth"


def test_evaluate_saves_the_training_recordings_in_short(checkpoint: Path, processed: Path) -> None:
    reference = load_checkpoint(checkpoint).reference
    assert reference is not None
    assert reference.n_records == len(load_records(processed, keep_other=True)["train"])
    assert load_checkpoint(checkpoint.with_name("plain.pth")).reference is None


def test_unlike_recordings_are_noted_everywhere(
    checkpoint: Path, sample: SampleData, tmp_path: Path
) -> None:
    """The arms of a recording swapped and its chest leads gone; probabilities stay to the bit."""
    source = sorted(sample.data["synthetic_wfdb"].glob("*.hea"))[0]
    classifier = Classifier.load(checkpoint, device="cpu")
    record = read_record(source)
    usual = classifier.predict(record)
    assert usual.unlike is not None and 0 <= usual.unlike <= 1
    plain = Classifier.load(checkpoint.with_name("plain.pth"), device="cpu").predict(record)
    assert plain.unlike is None and (plain.scores == usual.scores).all()

    noise = np.random.default_rng(0).normal(size=(12, 1000))
    odd = classifier.predict(noise, fs=100.0, predict_unfit=True)
    assert odd.unlike == 1.0 and odd.notes[-1] == "unlike:1.000"
    long = classifier.predict(np.tile(noise, 3), fs=100.0, leads=STANDARD_LEADS, predict_unfit=True)
    assert long.unlike == 1.0

    predict_to_table(checkpoint, [source], tmp_path / "p.csv")
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as stream:
        [row] = csv.DictReader(stream)
    assert list(row)[-3:] == ["unlike", "notes", "path"]
    assert float(row["unlike"]) == pytest.approx(usual.unlike, abs=1e-3)


def test_what_is_saved_stays_through_further_commands(
    run: Run, checkpoint: Path, processed: Path, tmp_path: Path
) -> None:
    recalibrate(checkpoint, processed, tmp_path / "mine.pth")
    assert load_checkpoint(tmp_path / "mine.pth").reference is not None
    options = ["--checkpoint", checkpoint, "--processed", processed, "--out", tmp_path]
    nothing = run("evaluate", *options, "--unlike")
    assert nothing.code == 1 and "expected --save FILE" in nothing.error
    known = load_records(processed)["val"].signal_hashes
    card = ModelCard(("NORM",), False, ModelConfig(base_channels=8), SMALL, train_hashes=known)
    save_checkpoint(tmp_path / "other.pth", card, build_model(card).state_dict())
    with pytest.raises(ValueError, match="holds 0 recordings of split train that the model was"):
        evaluate(tmp_path / "other.pth", processed, save=tmp_path / "o.pth", unlike=True)


def test_stress_tells_how_well_disturbed_recordings_are_told(
    checkpoint: Path, processed: Path
) -> None:
    table = run_stress(checkpoint, processed, split="test", kinds=["leads"])
    clean, *others = table["rows"]
    assert clean["unlike"] is None
    found = [row["unlike"] for row in others]
    assert all(value is not None and 0 <= value <= 1 for value in found)
    assert max(value or 0 for value in found) > 0.7
    plain = run_stress(
        checkpoint.with_name("plain.pth"), processed, split="test", kinds=["leads"], max_records=2
    )
    assert plain["rows"][1]["unlike"] is None
