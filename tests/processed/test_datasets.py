from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from src.config import STANDARD_LEADS
from src.processed.datasets import (
    AnyBatch,
    Batch,
    ECGDataset,
    PackedDataset,
    View,
    draw_starts,
    keep_batch,
    scale_signal,
    show_whole,
)
from src.processed.normalization import Normalization
from src.processed.packed import load_packed
from src.processed.targets import load_records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A record file of 12 leads of 300 samples, whose last 50 are padding."""
    signal = np.arange(12 * 300, dtype=np.float32).reshape(12, 300)
    path = tmp_path / "d__0.npz"
    np.savez(
        path,
        signal=signal,
        lead_mean=np.full(12, 0.5, np.float32),
        lead_std=np.full(12, 2.0, np.float32),
        lead_present=np.ones(12, bool),
        n_valid=np.array(250),
    )
    return path


def test_a_view_names_the_rows_of_its_leads() -> None:
    assert View().lead_rows() == slice(None)
    assert View(("V1", "I")).lead_rows() == [6, 0]


def test_crops_begin_inside_the_valid_samples() -> None:
    starts = draw_starts(torch.tensor([5, 100, 1000] * 50), 100, 1000).reshape(50, 3)
    assert (
        (starts[:, :2] == 0).all() and starts[:, 2].min() >= 0 and 800 < starts[:, 2].max() <= 900
    )


def test_a_batch_has_the_leads_of_the_view_in_its_order(path: Path) -> None:
    dataset = ECGDataset([path], np.array([[1, np.nan]], np.float32), View(("V1", "I")))
    batch = dataset.__getitems__([0, 0])
    assert batch.signal.shape == (2, 2, 300) and batch.row.tolist() == [0, 0]
    assert batch.signal[0, :, 0].tolist() == [6 * 300, 0]
    np.testing.assert_array_equal(batch.target[1], [1, np.nan])
    assert keep_batch(batch) is batch and torch.equal(dataset[0].signal, batch.signal[0])


def test_crops_are_consecutive_valid_samples_and_whole_records_come_back(path: Path) -> None:
    dataset = ECGDataset([path], np.ones((1, 1), np.float32), View(crop_samples=100))
    starts = set()
    for _ in range(20):
        lead = dataset[0].signal[0]
        assert torch.equal(lead, torch.arange(100) + lead[0]) and lead[-1] < 250
        starts.add(int(lead[0]))
    assert len(starts) > 5
    whole = show_whole(dataset)
    assert whole[0].signal.shape == (12, 300) and dataset[0].signal.shape == (12, 100)


def test_without_normalization_signals_are_in_mv_without_their_offsets() -> None:
    arrays = {
        "signal": np.array([[-1.0, 1.0]] * 11 + [[0.0, 0.0]], np.float32),
        "lead_mean": np.array([0.5] * 11 + [0.0], np.float32),
        "lead_std": np.array([2.0] * 11 + [0.0], np.float32),
        "lead_present": np.array([True] * 11 + [False]),
    }
    assert scale_signal(arrays, Normalization()) is arrays["signal"]
    millivolts = scale_signal(arrays, Normalization("none"))
    np.testing.assert_allclose(millivolts[0], [-2, 2])
    np.testing.assert_array_equal(millivolts[11], [0, 0])


@pytest.mark.parametrize(
    "normalization",
    [Normalization("global", {"": 0.2}), Normalization("none"), Normalization("none", {}, 0.5)],
)
def test_an_offset_of_a_lead_changes_nothing(path: Path, normalization: Normalization) -> None:
    with np.load(path) as stored:
        arrays = dict(stored) | {"fs": np.array(100.0, np.float32)}
    arrays["signal"] = np.random.default_rng(0).normal(size=(12, 300)).astype(np.float32)
    moved = {**arrays, "lead_mean": arrays["lead_mean"] + 5}
    first, second = (scale_signal(each, normalization) for each in (arrays, moved))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("highpass_hz", [0.0, 0.5])
@pytest.mark.parametrize("mode", ["zscore", "none"])
def test_packed_signals_are_scaled_and_filtered_as_those_of_files(
    processed: Path, mode: str, highpass_hz: float
) -> None:
    split = load_records(processed)["val"]
    targets = np.eye(len(split), dtype=np.float32)
    view = View(("V2", "I"), Normalization(mode, {}, highpass_hz), fs=100.0)
    packed = PackedDataset(load_packed(processed, "val"), split.keys, targets, view)
    file = ECGDataset(split.paths, targets, view)
    torch.testing.assert_close(packed[0].signal, file[0].signal, atol=3e-3, rtol=0)
    if highpass_hz:
        cropped = PackedDataset(
            packed.packed, split.keys, targets, replace(view, crop_samples=250)
        )[0].signal
        assert cropped.shape == (2, 250)
        rows = packed[0].signal.unfold(1, 250, 1)  # (2, n_starts, 250)
        assert (rows == cropped[:, None]).all(dim=2).all(dim=0).any()
        with pytest.raises(ValueError, match="give its fs"):
            PackedDataset(packed.packed, split.keys, targets, replace(view, fs=0.0))


def test_an_ordinary_loader_stacks_records_of_three_values(processed: Path) -> None:
    """Loops of others unpack them, with the loader of torch."""

    class Records(Dataset[AnyBatch]):
        def __getitem__(self, index: int) -> AnyBatch:
            return dataset[index]

        def __len__(self) -> int:
            return len(dataset)

    split = load_records(processed)["val"]
    dataset = ECGDataset(split.paths, np.eye(len(split), dtype=np.float32))
    loader: DataLoader[AnyBatch] = DataLoader(Records(), batch_size=2)
    for signal, target, row in loader:
        assert len(signal) == len(target) == len(row) <= 2


def test_packed_records_are_those_of_the_files(processed: Path) -> None:
    split = load_records(processed)["val"]
    targets = np.eye(len(split), dtype=np.float32)
    view = View(STANDARD_LEADS[::-1])
    packed = PackedDataset(load_packed(processed, "val"), split.keys, targets, view)
    one, other = (
        dataset.__getitems__([1, 0]) for dataset in (packed, ECGDataset(split.paths, targets, view))
    )
    assert isinstance(one, Batch) and len(packed) == len(split)
    torch.testing.assert_close(one.signal, other.signal, atol=2e-3, rtol=0)
    assert torch.equal(one.target, other.target)
    with pytest.raises(ValueError, match="x__1: not in the packed cache, nor are 1 others"):
        PackedDataset(packed.packed, ["x__1", split.keys[0], "x__2"], targets[:3])


@pytest.mark.parametrize("crop_samples", [0, 250, 900])
def test_padding_from_the_cache_is_zero(processed: Path, crop_samples: int) -> None:
    """Networks tell by exact zeros what is padding."""
    split = load_records(processed)["train"]
    cache = load_packed(processed, "train")
    targets = np.zeros((len(split), 1), np.float32)
    view = View(crop_samples=crop_samples)
    packed = PackedDataset(cache, split.keys, targets, view)
    n_valid = dict(zip(cache.keys, cache.n_valid.tolist(), strict=True))
    short = [row for row, key in enumerate(split.keys) if n_valid[key] < 1000]
    assert short
    for row in (*short, 0):
        signal = packed[row].signal
        n_kept = min(n_valid[split.keys[row]], signal.shape[1])
        assert (signal[:, :n_kept] != 0).any(dim=0).all()
        assert (signal[:, n_kept:] == 0).all()
