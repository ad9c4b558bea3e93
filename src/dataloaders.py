"""Record files to batches: which records a split holds, their targets, the dataset, the sampler, the loaders."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from src.config import FALLBACK_LABEL, Config, LoaderConfig, TrainConfig
from src.splits import SPLIT_NAMES
from src.store import load_manifest, load_signal, record_key, record_path, split_list

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """One batch: signal (B, n_leads, n_samples); target (B, n_classes), NaN where not annotated; row (B,) in the dataset."""

    signal: torch.Tensor
    target: torch.Tensor
    row: torch.Tensor


@dataclass(frozen=True)
class LabelledRecords:
    """The records of a split with what the manifest says of them; all fields run in parallel."""

    processed: Path
    keys: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    annotated: tuple[tuple[str, ...], ...]
    patients: tuple[str, ...]
    datasets: tuple[str, ...]
    signal_hashes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def subset(self, keep: Iterable[int]) -> LabelledRecords:
        """Return the records at the positions `keep`."""
        keep = list(keep)
        fields = ("keys", "labels", "annotated", "patients", "datasets", "signal_hashes")
        return LabelledRecords(self.processed, *(tuple(getattr(self, f)[i] for i in keep) for f in fields))

    @property
    def paths(self) -> list[Path]:
        """The record files."""
        return [record_path(self.processed, key) for key in self.keys]


def load_records(processed: str | Path, *, keep_other: bool = False) -> dict[str, LabelledRecords]:
    """Return split name -> its records, from the manifest.

    Parameters
    ----------
    processed
        The folder that preprocessing filled.
    keep_other
        Keep records whose label is the fallback ``OTHER``; an ``OTHER`` that the mapping gave is a class like any other.

    Raises
    ------
    ValueError
        If the folder has no manifest or no record that is ok.
    """
    processed = Path(processed)
    manifest = load_manifest(processed)
    rows = manifest[manifest["status"] == "ok"]
    if not len(rows):
        raise ValueError(f"{processed}: no processed records here; run preprocess with --out {processed} first")
    if not keep_other:
        fallback = rows["label_source"] == "fallback"
        if fallback.any():
            logger.info("%d records without a label of their own are left out (keep them with --keep-other)", fallback.sum())
        rows = rows[~fallback]
    return {name: _records_of(processed, rows[rows["split"] == name]) for name in SPLIT_NAMES}


def _records_of(processed: Path, rows: Any) -> LabelledRecords:
    keys = tuple(record_key(d, r) for d, r in zip(rows["dataset"], rows["record_id"], strict=True))
    patients = tuple(
        f"{dataset}/{patient}" if patient else key
        for dataset, patient, key in zip(rows["dataset"], rows["patient_id"], keys, strict=True)
    )
    return LabelledRecords(
        processed=processed,
        keys=keys,
        labels=tuple(split_list(cell) for cell in rows["labels"]),
        annotated=tuple(split_list(cell) for cell in rows["annotated"]),
        patients=patients,
        datasets=tuple(rows["dataset"]),
        signal_hashes=tuple(rows["signal_hash"]),
    )


def find_classes(records: LabelledRecords) -> tuple[str, ...]:
    """Return the classes of the records in alphabetical order, the fallback last."""
    names = {label for labels in records.labels for label in labels}
    return tuple(sorted(names, key=lambda name: (name == FALLBACK_LABEL, name)))


def is_single_label(records: LabelledRecords) -> bool:
    """Tell whether every record carries exactly one label."""
    return all(len(labels) == 1 for labels in records.labels)


def encode_targets(records: LabelledRecords, classes: Sequence[str]) -> NDArray[np.float32]:
    """Return targets (n_records, n_classes): 1 present, 0 absent, NaN where the source did not look for the class."""
    column = {name: i for i, name in enumerate(classes)}
    targets = np.zeros((len(records), len(classes)), np.float32)
    for row, (labels, annotated) in enumerate(zip(records.labels, records.annotated, strict=True)):
        if annotated:
            looked_for = set(annotated)
            targets[row] = [0.0 if name in looked_for else np.nan for name in classes]
        for label in labels:
            if label in column:
                targets[row, column[label]] = 1.0
    return targets


def choose_records(records: LabelledRecords, classes: Sequence[str], *, single_label: bool) -> LabelledRecords:
    """Keep the records that can train or be judged: exactly one label of `classes`, or for several labels one at least."""
    wanted = set(classes)
    counts = [len(wanted.intersection(labels)) for labels in records.labels]
    keep = [i for i, n in enumerate(counts) if n == 1 or (n > 1 and not single_label)]
    if len(keep) < len(records):
        what = "exactly one label" if single_label else "a label"
        logger.info("%d of %d records are left out: they do not carry %s of the classes", len(records) - len(keep), len(records), what)  # fmt: skip
    return records.subset(keep)


class ECGDataset(Dataset[Batch]):
    """Record files read when they are asked for.

    Parameters
    ----------
    paths
        Record files.
    targets
        Shape (n_records, n_classes).

    Notes
    -----
    Items are `Batch` tuples without the batch dimension; ``__getitems__`` gives whole batches, which spares the
    loader from stacking.
    """

    def __init__(self, paths: Sequence[str | Path], targets: NDArray[np.float32]) -> None:
        if len(paths) != len(targets):
            raise ValueError(f"{len(paths)} record files but {len(targets)} rows of targets: expected as many")
        self.paths = [str(path) for path in paths]
        self.targets = torch.from_numpy(np.ascontiguousarray(targets, np.float32))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Batch:
        signal = torch.from_numpy(load_signal(self.paths[index]))
        return Batch(signal, self.targets[index], torch.tensor(index))

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return the records at `indices` as one batch."""
        signal = torch.from_numpy(np.stack([load_signal(self.paths[i]) for i in indices]))
        return Batch(signal, self.targets[indices], torch.tensor(indices))


def keep_batch(batch: Batch) -> Batch:
    """Collate for datasets whose ``__getitems__`` returns a whole batch."""
    return batch


def sample_weights(targets: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a drawing weight per record: the inverse frequency of its rarest class, mean 1.

    Records without any positive class get the mean weight.
    """
    positive = targets == 1
    counts = positive.sum(axis=0)
    inverse = np.where(counts > 0, 1.0 / np.maximum(counts, 1), 0.0)
    weights = (positive * inverse).max(axis=1, initial=0.0)
    weights[weights == 0] = weights[weights > 0].mean() if (weights > 0).any() else 1.0
    return np.asarray(weights / weights.mean(), np.float64)


def seed_worker(worker: int) -> None:
    """Seed NumPy and Python in a loader process from torch's seed for it, and keep it to one thread."""
    import random

    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)
    torch.set_num_threads(1)


def make_loader(
    dataset: Dataset[Batch],
    config: LoaderConfig,
    *,
    weights: NDArray[np.float64] | None = None,
    train: bool = False,
    seed: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Return a loader: shuffled or weighted for training, in order otherwise.

    The drawing order depends on `seed` alone, and works under spawn as well as fork.
    """
    generator = torch.Generator().manual_seed(seed)
    sampler = None
    if train and weights is not None:
        sampler = WeightedRandomSampler(weights.tolist(), len(weights), generator=generator)
    n_records = len(dataset)  # type: ignore[arg-type]
    return DataLoader(
        dataset,
        batch_size=config.batch_size,
        shuffle=train and sampler is None,
        sampler=sampler,
        num_workers=config.loader_workers,
        collate_fn=keep_batch if hasattr(dataset, "__getitems__") else None,  # type: ignore[arg-type]
        pin_memory=pin_memory,
        persistent_workers=config.loader_workers > 0,
        worker_init_fn=seed_worker,
        generator=generator,
        drop_last=train and n_records > config.batch_size and n_records % config.batch_size == 1,  # BatchNorm needs two
    )


@dataclass(frozen=True)
class DataLoaders:
    """The loaders of a processed folder; a split without records has none."""

    train: DataLoader[Batch]
    val: DataLoader[Batch] | None
    test: DataLoader[Batch] | None
    records: dict[str, LabelledRecords]
    targets: dict[str, NDArray[np.float32]]
    classes: tuple[str, ...]
    single_label: bool

    def __str__(self) -> str:
        kind = "one label per record" if self.single_label else "several labels per record"
        lines = [f"{len(self.classes)} classes ({', '.join(self.classes)}), {kind}"]
        for name, targets in self.targets.items():
            counts = Counter({c: int(n) for c, n in zip(self.classes, np.nansum(targets, axis=0), strict=True)})
            lines.append(f"{name}: {len(targets)} records; " + ", ".join(f"{c} {n}" for c, n in counts.items()))
        return "\n".join(lines)


def build_dataloaders(config: Config, processed: str | Path | None = None) -> DataLoaders:
    """Build the loaders for training from a processed folder.

    Parameters
    ----------
    config
        `config.loader` and `config.train` decide batches, classes and target.
    processed
        Defaults to ``artifacts/processed`` below `config.root`.

    Raises
    ------
    ValueError
        If there is nothing to train on, or a class asked for is not there.
    """
    from src.config import config_paths

    processed = Path(processed) if processed is not None else config_paths(config).processed
    splits = load_records(processed, keep_other=config.train.keep_other)
    classes, single = choose_task(splits["train"], config.train)
    records = {name: choose_records(split, classes, single_label=single) for name, split in splits.items()}
    if len(records["train"]) < 2:
        raise ValueError(f"{processed}: {len(records['train'])} records to train on; expected two or more with labels")
    targets = {name: encode_targets(split, classes) for name, split in records.items()}
    weights = sample_weights(targets["train"]) if config.loader.balanced_sampling else None
    pin = torch.cuda.is_available() if config.loader.pin_memory is None else config.loader.pin_memory

    def loader(name: str) -> DataLoader[Batch] | None:
        if not len(records[name]):
            return None
        dataset = ECGDataset(records[name].paths, targets[name])
        train = name == "train"
        return make_loader(dataset, config.loader, weights=weights, train=train, seed=config.train.seed, pin_memory=pin)

    train = loader("train")
    assert train is not None  # two records or more, checked above
    return DataLoaders(train, loader("val"), loader("test"), records, targets, classes, single)


def choose_task(train: LabelledRecords, config: TrainConfig) -> tuple[tuple[str, ...], bool]:
    """Return the classes and whether each record carries one label, from the settings or else from the records."""
    there = find_classes(train)
    classes = config.classes or there
    unknown = [name for name in classes if name not in there]
    if unknown:
        raise ValueError(f"classes {', '.join(unknown)} have no training record: there are {', '.join(there) or 'none'}")
    if len(classes) < 2 and config.target != "multi":
        raise ValueError(f"only class {', '.join(classes) or 'none'} has training records: expected two or more classes")
    single = config.target == "single" or (config.target == "auto" and is_single_label(train))
    return classes, single


