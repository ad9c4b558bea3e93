"""Features of the records of a processed folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from src.commands import embed as module
from src.commands.embed import embed
from src.learning.checkpoints import load_checkpoint
from src.learning.features import Features
from src.model import ResNet1d, load_model, predict_logits
from src.processed.datasets import ECGDataset, View
from src.processed.record_files import record_path
from src.processed.splits import load_splits


def test_features_are_those_before_the_head() -> None:
    torch.manual_seed(0)
    model = ResNet1d(n_leads=12, n_classes=3, base_channels=8).eval()
    x = torch.randn(2, 12, 400)
    found = model.features(x)
    assert found.shape == (2, 72)
    torch.testing.assert_close(model.head(found), model(x), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"input has shape \(2, 12, 100\)"):
        model.features(x[..., :100])


def test_every_record_of_each_split_has_its_features(
    processed: Path, trained: Path, tmp_path: Path
) -> None:
    best = trained / "models" / "best.pth"
    found = embed(best, processed, out=tmp_path / "f.npz", batch_size=5)
    splits = load_splits(processed / "splits.json")
    for name in ("train", "val", "test"):
        of_split = {key for key, of in zip(found.keys, found.splits, strict=True) if of == name}
        assert of_split == set(getattr(splits, name))
    loaded = load_checkpoint(best)
    assert found.train_hashes == loaded.card.train_hashes
    # Their mean over crops, which the classifier turns into the mean of the logits
    model = load_model(loaded).eval()
    key = found.keys[3]
    view = View(loaded.card.leads, loaded.card.normalization)
    signal = ECGDataset([record_path(processed, key)], np.zeros((1, 0)), view)[0].signal[None]
    with torch.inference_mode():
        logits = predict_logits(model, signal, loaded.card.crop_samples, loaded.card.unpadded_below)
        of_features = model.head(torch.from_numpy(found.values[3:4]))
    torch.testing.assert_close(of_features, logits, rtol=1e-4, atol=1e-4)
    assert found.random_values.shape == found.values.shape
    assert not np.allclose(found.random_values, found.values)
    again = embed(best, processed)
    np.testing.assert_allclose(again.random_values, found.random_values, rtol=1e-4, atol=1e-5)
    assert Features.load(tmp_path / "f.npz").keys == found.keys


def test_what_cannot_be_embedded_is_refused(
    processed: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = trained / "models" / "best.pth"
    with pytest.raises(ValueError, match=r"f\.csv: expected a name that ends in \.npz or \.parq"):
        embed(best, processed, out=tmp_path / "f.csv")
    monkeypatch.setattr(module, "load_model", lambda *_: nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"best\.pth: its network has no method features: expect"):
        embed(best, processed)
