"""Features of the records of a processed folder: what a network computes before its head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from src.config import SPLIT_NAMES, LoaderConfig
from src.dataloaders import make_loader
from src.eval import check_input, predict
from src.learning.checkpoints import Checkpoint, load_checkpoint
from src.learning.features import Features
from src.model import (
    build_model,
    compute_features,
    load_model,
    predict_logits,
    shortest_input,
)
from src.processed.datasets import ECGDataset, View
from src.processed.mirror import local_copy
from src.processed.targets import LabelledRecords, load_records
from src.utils import Float32Array, output_file

FEATURE_SUFFIXES = (".npz", ".parquet")


class _FeaturesOf(nn.Module):
    """A network without its head, as one that runs on whole records and on crops alike."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.min_samples = shortest_input(networks[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([compute_features(network, x) for network in self.networks], dim=1)


def embed(
    checkpoint: str | Path | Sequence[str | Path] | Checkpoint,
    processed: str | Path,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 64,
    device: str = "cpu",
) -> Features:
    """Compute the features of every record of train, val and test.

    Over several crops their mean is taken, as of the logits.

    Parameters
    ----------
    checkpoint
        A checkpoint whose network has a method ``features``, or one that is loaded.
    processed
        The folder that preprocessing filled.
    out
        File to write, ``.npz`` or ``.parquet``; None writes none.
    seed
        Seed of the weights of the untrained network.
    batch_size, device
        Records at a time, and the torch device.

    Raises
    ------
    ValueError
        If the network has no features, the records have another shape than it was trained on, or
        `out` has another suffix.
    """
    if out is not None and output_file(out).suffix.lower() not in FEATURE_SUFFIXES:
        raise ValueError(f"{out}: expected a name that ends in {' or '.join(FEATURE_SUFFIXES)}")
    processed = local_copy(processed)
    loaded = load_checkpoint(checkpoint, device)
    model = load_model(loaded, device)
    if not callable(getattr(model, "features", None)):
        raise ValueError(
            f"{loaded.name}: its network has no method features: expected features(x) that returns "
            "(B, n_features) for signals (B, n_leads, n_samples)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = build_model(loaded.card, network=loaded.network).to(device)
    encoders = _FeaturesOf([model, untrained])
    splits = load_records(processed, keep_other=True)
    values = {
        name: _compute(encoders, loaded, records, batch_size, device)
        for name, records in splits.items()
        if len(records)
    }
    both = np.concatenate(list(values.values()))
    n_features = both.shape[1] // 2
    features = Features(
        keys=tuple(key for name in values for key in splits[name].keys),
        splits=tuple(name for name in values for _ in splits[name].keys),
        values=both[:, :n_features],
        random_values=both[:, n_features:],
        train_hashes=loaded.card.train_hashes,
    )
    if out is not None:
        features.save(out)
    return features


def _compute(
    encoders: nn.Module,
    checkpoint: Checkpoint,
    records: LabelledRecords,
    batch_size: int,
    device: str,
) -> Float32Array:
    """Return the features of some records, shape (n_records, n_features of all encoders)."""
    card = checkpoint.card
    check_input(records.paths[0], card, checkpoint.path)
    no_targets = np.zeros((len(records), 0), np.float32)
    dataset = ECGDataset(
        records.paths, no_targets, View(card.leads, card.normalization), records.datasets
    )
    loader = make_loader(dataset, LoaderConfig(batch_size=batch_size))
    encoders.eval()

    def average_crops(signal: torch.Tensor) -> torch.Tensor:
        return predict_logits(encoders, signal, card.crop_samples, card.unpadded_below)

    values, _ = predict(average_crops, loader, device=device)
    found: Float32Array = values.numpy()
    return found


def describe_features(features: Features, out: str | Path) -> str:
    """Return a line on the features in a file."""
    counts = ", ".join(f"{name} {features.splits.count(name)}" for name in SPLIT_NAMES)
    return f"{out}: {features.values.shape[1]} features of {len(features.keys)} records ({counts})"
