"""Record files to batches: which records are drawn how often, the loaders, and what training sees
of a processed folder.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, WeightedRandomSampler

from src.config import Config, LoaderConfig, config_paths
from src.learning.distributed import Processes, SharedBatchSampler
from src.processed.datasets import (
    LEAD_ARRAYS,
    Batch,
    ECGDataset,
    PackedDataset,
    View,
    keep_batch,
    show_whole,
)
from src.processed.mirror import local_copy
from src.processed.normalization import fit_normalization
from src.processed.packed import PackedSplit, load_packed
from src.processed.record_files import load_record_file
from src.processed.targets import (
    LabelledRecords,
    auxiliary_classes,
    choose_records,
    choose_task,
    encode_targets,
    load_records,
)
from src.utils import Float32Array, Float64Array, Rich, html_facts, html_table

if TYPE_CHECKING:
    from src.learning.predictions import Predictions

logger = logging.getLogger(__name__)


_STATISTICS_RECORDS = 1000
"""Records that decide the scale of a collection, at most: the error of a mean over a thousand is
far below the spread.
"""


def sample_weights(targets: Float32Array) -> Float64Array:
    """Return a drawing weight per record: the inverse frequency of its rarest class, mean 1.

    Records without any positive class get the mean weight.
    """
    positive = targets == 1
    counts = positive.sum(axis=0)
    inverse = np.where(counts > 0, 1.0 / np.maximum(counts, 1), 0.0)
    weights = (positive * inverse).max(axis=1, initial=0.0)
    weights[weights == 0] = weights[weights > 0].mean() if (weights > 0).any() else 1.0
    return np.asarray(weights / weights.mean(), np.float64)


def _train_targets(
    config: Config, records: LabelledRecords, classes: tuple[str, ...]
) -> Float32Array:
    """Return what the training records teach: their labels, blended with soft targets where the
    settings name some.
    """
    targets, path = encode_targets(records, classes), config.train.soft_targets
    if path is None:
        return targets
    from src.learning.predictions import Predictions

    soft = Predictions.load(path)
    try:
        return soften_targets(targets, records.keys, classes, soft, config.train.soft_weight)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _drawing_weights(
    records: LabelledRecords, targets: Float32Array, balanced: bool
) -> Float64Array | None:
    """Return the weight of each training record in the draw, or None where all count the same.

    Raises
    ------
    ValueError
        If the label table gives none of them a weight above 0.
    """
    given = np.array(records.weights)
    if not given.any():
        raise ValueError(
            f"{records.processed}: weight is 0 for every training record: expected some "
            "above 0 in the label table"
        )
    weights = given * sample_weights(targets) if balanced else given
    return None if (weights == weights[0]).all() else weights


def seed_worker(worker: int, rank: int = 0) -> None:
    """Seed a loader process of the training process `rank`, NumPy and Python too, and keep it to
    one thread.

    torch seeds the loader processes of all training processes alike, as their loaders share the
    order.
    """
    import random

    if rank:
        torch.manual_seed(torch.initial_seed() + rank * 1_000_003)
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)
    torch.set_num_threads(1)


def make_loader(
    dataset: Dataset[Batch],
    config: LoaderConfig,
    *,
    weights: Float64Array | None = None,
    train: bool = False,
    seed: int = 0,
    pin_memory: bool = False,
    processes: Processes | None = None,
) -> DataLoader[Batch]:
    """Return a loader: shuffled or weighted for training, in order otherwise.

    Parameters
    ----------
    dataset, config
        The records, and batch size, loader processes and sampling.
    weights
        How often each record is drawn, relative to the others; None draws each once.
    train
        Draw in random order, or by the weights.
    seed
        Alone decides the order, under spawn as well as fork.
    pin_memory
        Put batches where CUDA copies them from fast.
    processes
        Training batches are dealt out to them; other batches go whole to whoever asks.
    """
    generator = torch.Generator().manual_seed(seed)
    n_records = len(dataset)  # type: ignore[arg-type]
    common: dict[str, Any] = {
        "num_workers": config.loader_workers,
        "collate_fn": keep_batch if hasattr(dataset, "__getitems__") else None,
        "pin_memory": pin_memory,
        # Workers that stay are not seeded anew for an epoch, so a run that is resumed would draw
        # other crops and another order
        "persistent_workers": config.loader_workers > 0 and not train,
        "worker_init_fn": partial(seed_worker, rank=processes.rank if processes is not None else 0),
        "generator": generator,
    }
    if not train:
        return DataLoader(dataset, config.batch_size, **common)
    order: Sampler[int] = RandomSampler(range(n_records), generator=generator)
    if weights is not None:
        order = WeightedRandomSampler(weights.tolist(), len(weights), generator=generator)
    if processes is not None and processes.world > 1:
        return DataLoader(
            dataset, batch_sampler=SharedBatchSampler(order, config.batch_size, processes), **common
        )
    lonely = (
        n_records > config.batch_size and n_records % config.batch_size == 1
    )  # BatchNorm needs two
    return DataLoader(dataset, config.batch_size, sampler=order, drop_last=lonely, **common)


@dataclass(frozen=True)
class DataLoaders(Rich):
    """The loaders of a processed folder; a split without records has none.

    Training targets have a column for each of `classes` and then for each of `auxiliary`, the
    others for `classes`. `whole` has the training records without crops, where the last epochs see
    those.
    """

    train: DataLoader[Batch]
    val: DataLoader[Batch] | None
    test: DataLoader[Batch] | None
    records: dict[str, LabelledRecords]
    targets: dict[str, Float32Array]
    classes: tuple[str, ...]
    single_label: bool
    view: View = View()
    auxiliary: tuple[str, ...] = ()
    whole: DataLoader[Batch] | None = None

    def __str__(self) -> str:
        kind = "one label per record" if self.single_label else "several labels per record"
        lines = [f"{len(self.classes)} classes ({', '.join(self.classes)}), {kind}"]
        for name, counts in self._class_counts().items():
            lines.append(
                f"{name}: {len(self.records[name])} records; "
                + ", ".join(f"{c} {counts[c]}" for c in self.classes)
            )
        if self.auxiliary:
            lines.append(f"learned beside them: {', '.join(self.auxiliary)}")
        return "\n".join(lines)

    def _class_counts(self) -> dict[str, Counter[str]]:
        """Return split -> class -> how many of its records are labelled with it; soft targets are
        no counts.
        """
        return {
            name: Counter(label for labels in records.labels for label in labels)
            for name, records in self.records.items()
        }

    def _repr_html_(self) -> str:
        counts = self._class_counts()
        rows = [[c, *(of_split[c] for of_split in counts.values())] for c in self.classes]
        rows.append(["records", *map(len, self.records.values())])
        facts = {
            "target": "one label per record" if self.single_label else "several labels per record",
            "leads": len(self.view.leads),
        }
        facts |= {
            "normalization": self.view.normalization.mode,
            "crop in samples": self.view.crop_samples or "",
        }
        return html_facts({**facts, "records per batch": self.train.batch_size or ""}) + html_table(
            ["class", *counts], rows
        )


def build_dataloaders(
    config: Config,
    processed: str | Path | None = None,
    *,
    splits: dict[str, LabelledRecords] | None = None,
    processes: Processes | None = None,
) -> DataLoaders:
    """Build the loaders for training from a processed folder.

    Parameters
    ----------
    config
        `config.loader` and `config.train` decide batches, classes, target and view.
    processed
        Defaults to ``artifacts/processed`` below `config.root`.
    splits
        The records of train, val and test; by default those of the processed folder.
    processes
        Those that train together, where there are several.

    Raises
    ------
    ValueError
        If there is nothing to train on, or a class asked for is not there.
    """
    processed = local_copy(processed if processed is not None else config_paths(config).processed)
    splits = splits or load_records(processed, keep_other=config.train.keep_other)
    classes, single = choose_task(splits["train"], config.train)
    negatives = config.train.keep_negative and not single
    records = {
        name: choose_records(split, classes, single_label=single, keep_negative=negatives)
        for name, split in splits.items()
    }
    if len(records["train"]) < 2:
        raise ValueError(
            f"{processed}: {len(records['train'])} records to train on; expected two or "
            "more with labels"
        )
    auxiliary = auxiliary_classes(splits["train"], config.train)
    if auxiliary and not single:  # what says something of either teaches
        records["train"] = choose_records(
            splits["train"], (*classes, *auxiliary), single_label=False, keep_negative=negatives
        )
    targets = {name: encode_targets(split, classes) for name, split in records.items()}
    weights = _drawing_weights(records["train"], targets["train"], config.loader.balanced_sampling)
    targets["train"] = _train_targets(config, records["train"], (*classes, *auxiliary))
    view = build_view(config, records["train"])
    datasets = {
        name: _dataset(config, split, targets[name], view, name)
        for name, split in records.items()
        if len(split)
    }
    if config.train.whole_epochs:
        datasets["whole"] = show_whole(datasets["train"])
    pin = (
        torch.cuda.is_available() if config.loader.pin_memory is None else config.loader.pin_memory
    )

    def loader(name: str) -> DataLoader[Batch] | None:
        if name not in datasets:
            return None
        train, dataset = name in ("train", "whole"), datasets[name]
        resident = isinstance(dataset, PackedDataset) and dataset.codes is not None
        return make_loader(
            dataset,
            config.loader,
            weights=weights,
            train=train,
            seed=config.train.seed,
            pin_memory=pin and not resident,
            processes=processes,
        )

    train = loader("train")
    assert train is not None  # two records or more, checked above
    return DataLoaders(
        train,
        loader("val"),
        loader("test"),
        records,
        targets,
        classes,
        single,
        view,
        auxiliary,
        loader("whole"),
    )


def build_view(config: Config, train: LabelledRecords) -> View:
    """Return what the training records are shown as, with the statistics of the normalization taken
    from them.
    """
    chosen = train.subset(
        _statistics_rows(train.datasets) if config.train.normalization == "global" else [0]
    )
    files = [load_record_file(path, *LEAD_ARRAYS, "fs") for path in chosen.paths]
    mean, std, present = (np.stack([arrays[name] for arrays in files]) for name in LEAD_ARRAYS)
    normalization = fit_normalization(
        config.train.normalization, mean, std, present, chosen.datasets
    )
    return View(
        config.train.leads, normalization, round(config.train.crop_s * float(files[0]["fs"]))
    )


def _statistics_rows(datasets: Sequence[str]) -> list[int]:
    """Return the records that decide the scale, spread over each collection."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(datasets):
        rows[name].append(row)
    return sorted(
        row for mine in rows.values() for row in mine[:: -(-len(mine) // _STATISTICS_RECORDS)]
    )


def _dataset(
    config: Config, records: LabelledRecords, targets: Float32Array, view: View, split: str
) -> ECGDataset | PackedDataset:
    """Return the dataset of a split; only training records are cropped."""
    if split != "train":
        view = View(view.leads, view.normalization)
    if config.loader.cache == "packed":
        try:
            packed = load_packed(records.processed, split)
        except OSError as error:
            logger.warning("no packed cache (%s): reading the record files", error)
        else:
            device = _resident_device(config, packed)
            return PackedDataset(packed, records.keys, targets, view, records.datasets, device)
    return ECGDataset(records.paths, targets, view, records.datasets)


def _resident_device(config: Config, packed: PackedSplit) -> str:
    """Return the GPU where it has room for the whole split, else the CPU."""
    from src.utils import device_info

    device = device_info(config.train.device).device
    if not device.startswith("cuda") or config.loader.loader_workers:
        return "cpu"
    free, _ = torch.cuda.mem_get_info(device)
    return device if packed.codes.nbytes < free / 2 else "cpu"


def soften_targets(
    targets: Float32Array,
    keys: Sequence[str],
    classes: Sequence[str],
    soft: Predictions,
    share: float,
) -> Float32Array:
    """Blend targets with probabilities that other networks gave the same records (Hinton et al.,
    2015).

    Parameters
    ----------
    targets
        Shape (n_records, n_classes); what was not annotated stays unknown.
    keys, classes
        Of the rows and columns.
    soft
        Probabilities; records and classes that it lacks keep their targets.
    share
        Of the probabilities in the blend, 0 to 1.

    Raises
    ------
    ValueError
        If `soft` shares no record or no class with the targets.
    """
    row_of = {key: row for row, key in enumerate(soft.keys)}
    column_of = {name: column for column, name in enumerate(soft.classes)}
    pairs = [(row, row_of[key]) for row, key in enumerate(keys) if key in row_of]
    columns = [
        (column, column_of[name]) for column, name in enumerate(classes) if name in column_of
    ]
    if not pairs or not columns:
        raise ValueError(
            f"soft targets hold {len(pairs)} of the {len(keys)} training records and "
            f"{len(columns)} of the {len(classes)} classes: "
            "expected predictions for the records of the training split"
        )
    rows, theirs = (np.array(part) for part in zip(*pairs, strict=True))
    mine, other = (np.array(part) for part in zip(*columns, strict=True))
    blend = targets.copy()
    blend[np.ix_(rows, mine)] += share * (
        soft.y_score[np.ix_(theirs, other)] - targets[np.ix_(rows, mine)]
    ).astype(np.float32)
    return blend
