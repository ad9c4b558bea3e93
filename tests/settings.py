"""Settings and small helpers that many tests share."""

from __future__ import annotations

from pathlib import Path

from src.config import Config, LoaderConfig, ModelConfig, PreprocessConfig, TrainConfig
from src.processed.fingerprints import compute_fingerprints
from src.utils import Float32Array

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
SMALL = PreprocessConfig(fs=100.0, n_samples=1000)
QUICK = Config(
    preprocess=SMALL,
    # Whole records and their z-scores, so that each part can be computed by hand
    train=TrainConfig(
        epochs=2,
        lr=2e-3,
        weight_decay=1e-2,
        patience=0,
        crop_s=0.0,
        normalization="zscore",
        ema_decay=0.0,
        device="cpu",
    ),
    model=ModelConfig(base_channels=8),
    loader=LoaderConfig(batch_size=8, balanced_sampling=True),
)

SMALL_NOTEBOOK = {
    "data": {"n_sample_records": 36},
    "preprocess": {"fs": 100.0, "n_samples": 1000},
    "execution": {"workers": 1},
    "model": {"base_channels": 8},
    "train": {"epochs": 2, "device": "cpu"},
}
"""Settings with which the notebook runs in seconds, for `ECG_CONFIG`."""


def compute_fingerprint(signal: Float32Array, fs: float) -> str:
    return compute_fingerprints([signal], fs)[0]
