"""A processed folder to batches: records and targets of a task, sampling weights, loaders."""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, WeightedRandomSampler

from src.config import STANDARD_LEADS, Config, LoaderConfig, config_paths
from src.learning.distributed import Processes, SharedBatchSampler
from src.processed.datasets import (
    AnyBatch,
    ECGDataset,
    PackedDataset,
    View,
    keep_batch,
    show_whole,
)
from src.processed.manifest import find_keys
from src.processed.mirror import local_copy
from src.processed.normalization import fit_normalization
from src.processed.packed import PackedSplit, load_packed
from src.processed.record_files import load_record_file
from src.processed.targets import (
    LabelledRecords,
    Task,
    choose_records,
    choose_task,
    encode_targets,
    load_records,
    report_known_patients,
    report_untrained_classes,
)
from src.utils import Float32Array, Float64Array, Rich, html_facts, html_table, printable_lines

if TYPE_CHECKING:
    from src.learning.predictions import Predictions

logger = logging.getLogger(__name__)


# At most so many records of a collection decide its scale: the error of a mean over a thousand is
# far below the spread.
_STATISTICS_RECORDS = 1000
# So few tell how many leads and samples the records of a collection have.
_MEASURED_RECORDS = 20


def sample_weights(targets: Float32Array) -> Float64Array:
    """Return a sampling weight per record: the inverse frequency of its rarest class.

    Parameters
    ----------
    targets
        Shape (n_records, n_classes); only entries of exactly 1 count as positive.

    Returns
    -------
    ndarray
        Shape (n_records,), with mean 1. Records without a positive class get the mean weight.
    """
    positive = targets == 1
    counts = positive.sum(axis=0)
    inverse = np.where(counts > 0, 1.0 / np.maximum(counts, 1), 0.0)
    weights = (positive * inverse).max(axis=1, initial=0.0)  # (n_records,)
    has_class = weights > 0
    weights[~has_class] = weights[has_class].mean() if has_class.any() else 1.0
    return np.asarray(weights / weights.mean(), np.float64)


def _train_targets(
    config: Config, splits: dict[str, LabelledRecords], classes: tuple[str, ...]
) -> tuple[Float32Array, tuple[str, ...]]:
    """Return the training targets: the labels, blended with the soft targets of the settings.

    Also returns the fingerprints of the recordings that soft targets were learned from.
    """
    records = splits["train"]
    targets = encode_targets(records, classes)
    path = config.train.soft_targets
    if path is None:
        return targets, ()
    from src.learning.leaks import refuse_teachers
    from src.learning.predictions import Predictions

    soft = Predictions.load(path)
    held_out = {name: split for name, split in splits.items() if name != "train"}
    refuse_teachers(soft, path, held_out)
    try:
        blend = soften_targets(targets, records.keys, classes, soft, config.train.soft_weight)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return blend, soft.train_hashes


def _sampling_weights(
    records: LabelledRecords, targets: Float32Array, balanced: bool
) -> Float64Array | None:
    """Return the sampling weight of each training record, or None where all are equal.

    Raises
    ------
    ValueError
        If the label mapping gives none of them a weight above 0.
    """
    weights = np.array(records.weights)
    if not weights.any():
        raise ValueError(
            f"{records.processed}: weight is 0 for every training record: expected some "
            "above 0 in the label mapping"
        )
    if balanced:
        weights = weights * sample_weights(targets)
    return None if (weights == weights[0]).all() else weights


def seed_worker(worker: int, rank: int = 0) -> None:
    """Seed torch, NumPy and Python in a loader process, and keep it to one thread.

    Parameters
    ----------
    worker
        Number of the loader process, as the `DataLoader` passes it. torch's seed depends on it
        already.
    rank
        Number of the training process. torch seeds the loader processes of all training processes
        alike, as their loaders share the order.
    """
    import random

    if rank:
        torch.manual_seed(torch.initial_seed() + rank * 1_000_003)
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)
    torch.set_num_threads(1)


def make_loader(
    dataset: Dataset[AnyBatch],
    config: LoaderConfig,
    *,
    weights: Float64Array | None = None,
    train: bool = False,
    seed: int = 0,
    pin_memory: bool = False,
    processes: Processes | None = None,
) -> DataLoader[AnyBatch]:
    """Return a loader: shuffled or weighted for training, in order otherwise.

    Parameters
    ----------
    dataset
        The records.
    config
        Batch size and number of loader processes.
    weights
        Sampling weight of each record, shape (n_records,); None draws each record once.
    train
        Draw in random order, or by the weights.
    seed
        Decides the order alone, with spawned and with forked loader processes.
    pin_memory
        Put batches into page-locked memory, from which CUDA copies faster.
    processes
        The processes of a distributed run, which share each training batch. Batches of other
        loaders are not divided.
    """
    generator = torch.Generator().manual_seed(seed)
    n_records = len(dataset)  # type: ignore[arg-type]
    common: dict[str, Any] = {
        "num_workers": config.loader_workers,
        "collate_fn": keep_batch if hasattr(dataset, "__getitems__") else None,
        "pin_memory": pin_memory,
        # Persistent workers are seeded once, not once an epoch, so a resumed run would draw other
        # crops.
        "persistent_workers": config.loader_workers > 0 and not train,
        "worker_init_fn": partial(seed_worker, rank=processes.rank if processes is not None else 0),
        "generator": generator,
    }
    if not train:
        return DataLoader(dataset, config.batch_size, **common)
    order: Sampler[int]
    if weights is None:
        order = RandomSampler(range(n_records), generator=generator)
    else:
        order = WeightedRandomSampler(weights.tolist(), len(weights), generator=generator)
    if processes is not None and processes.world > 1:
        batches = SharedBatchSampler(order, config.batch_size, processes)
        return DataLoader(dataset, batch_sampler=batches, **common)
    # A last batch of one record is dropped: batch norm needs two values per channel.
    drop_last = n_records > config.batch_size and n_records % config.batch_size == 1
    return DataLoader(dataset, config.batch_size, sampler=order, drop_last=drop_last, **common)


@dataclass(frozen=True)
class DataLoaders(Rich):
    """The loaders of a processed folder, and the records and targets behind them.

    Attributes
    ----------
    train, val, test
        Batches of each split; None for a split without records.
    records
        Split name -> its records, in the order of the datasets.
    targets
        Split name -> targets. Those of train have shape (n_records, len(task.outputs)), the others
        (n_records, len(task.classes)).
    task
        Classes to predict.
    view
        Leads, normalization and crops of the training records.
    whole
        The training records without crops, for the last epochs; None where none ask for them.
    teacher_hashes
        Fingerprints of the recordings that the networks behind the soft targets were trained on.
    """

    train: DataLoader[AnyBatch]
    val: DataLoader[AnyBatch] | None
    test: DataLoader[AnyBatch] | None
    records: dict[str, LabelledRecords]
    targets: dict[str, Float32Array]
    task: Task
    view: View = View()
    whole: DataLoader[AnyBatch] | None = None
    teacher_hashes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes to predict, in the order of the targets' columns."""
        return self.task.classes

    @property
    def single_label(self) -> bool:
        """Whether each record carries exactly one class."""
        return self.task.single_label

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Auxiliary classes, whose columns in the training targets follow those of `classes`."""
        return self.task.auxiliary

    def __str__(self) -> str:
        names = ", ".join(self.classes)
        lines = [f"{len(self.classes)} classes ({names}), {self.task.description}"]
        for split, counts in self._class_counts().items():
            shown = ", ".join(f"{name} {counts[name]}" for name in self.classes)
            lines.append(f"{split}: {len(self.records[split])} records; {shown}")
        if self.auxiliary:
            lines.append(f"auxiliary classes: {', '.join(self.auxiliary)}")
        return printable_lines("\n".join(lines))

    def _class_counts(self) -> dict[str, Counter[str]]:
        """Return split -> class -> number of records with that label; soft targets do not count."""
        counts = {}
        for split, records in self.records.items():
            counts[split] = Counter(label for labels in records.labels for label in labels)
        return counts

    def _repr_html_(self) -> str:
        counts = self._class_counts()
        rows: list[list[object]] = []
        for name in self.classes:
            rows.append([name, *(of_split[name] for of_split in counts.values())])
        rows.append(["records", *map(len, self.records.values())])
        facts = {
            "target": self.task.description,
            "leads": len(self.view.leads),
            "normalization": self.view.normalization.mode,
            "crop in samples": self.view.crop_samples or "",
            "records per batch": self.train.batch_size or "",
        }
        return html_facts(facts) + html_table(["class", *counts], rows)


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
        The processes of a distributed run.

    Raises
    ------
    ValueError
        If there is nothing to train on, or a class of the settings has no training record.
    """
    processed = local_copy(processed if processed is not None else config_paths(config).processed)
    splits = splits or load_records(processed, keep_other=config.train.keep_other)
    task = choose_task(splits["train"], config.train)
    records = _choose_split_records(splits, task, processed)
    targets = {name: encode_targets(split, task.classes) for name, split in records.items()}
    weights = _sampling_weights(records["train"], targets["train"], config.loader.balanced_sampling)
    # Held out are all records of the other splits, with and without a class of this task.
    targets["train"], teacher_hashes = _train_targets(
        config, {**splits, "train": records["train"]}, task.outputs
    )
    view = build_view(config, records["train"])

    loaders: dict[str, DataLoader[AnyBatch]] = {}

    def add_loader(name: str, dataset: ECGDataset | PackedDataset) -> None:
        loaders[name] = make_loader(
            dataset,
            config.loader,
            weights=weights,
            train=name in ("train", "whole"),
            seed=config.train.seed,
            pin_memory=_pins_memory(config.loader, dataset),
            processes=processes,
        )

    for name, split in records.items():
        if not len(split):
            continue
        dataset = _build_dataset(config, split, targets[name], view, name)
        add_loader(name, dataset)
        if name == "train" and config.train.whole_epochs:
            add_loader("whole", show_whole(dataset))
    return DataLoaders(
        train=loaders["train"],
        val=loaders.get("val"),
        test=loaders.get("test"),
        records=records,
        targets=targets,
        task=task,
        view=view,
        whole=loaders.get("whole"),
        teacher_hashes=teacher_hashes,
    )


def _choose_split_records(
    splits: dict[str, LabelledRecords], task: Task, processed: Path
) -> dict[str, LabelledRecords]:
    """Return the records of each split that the task trains or is evaluated on.

    Raises
    ------
    ValueError
        If fewer than two records are left to train on.
    """
    report_known_patients(splits)
    report_untrained_classes(splits)
    records = {name: choose_records(split, task, name) for name, split in splits.items()}
    n_train = len(records["train"])
    if n_train < 2:
        raise ValueError(
            f"{processed}: {n_train} records to train on; expected two or more with labels"
        )
    if task.auxiliary and not task.single_label:
        # With several labels, a record that carries auxiliary classes only trains their outputs.
        all_outputs = replace(task, classes=task.outputs)
        records["train"] = choose_records(splits["train"], all_outputs)
    return records


def _pins_memory(config: LoaderConfig, dataset: ECGDataset | PackedDataset) -> bool:
    """Return whether batches go into page-locked memory; those that are on the GPU need not."""
    if isinstance(dataset, PackedDataset) and dataset.codes is not None:
        return False
    return torch.cuda.is_available() if config.pin_memory is None else config.pin_memory


def build_view(config: Config, train: LabelledRecords) -> View:
    """Return the view of the training records, with a normalization fitted to them."""
    # Only a global normalization needs statistics; one record file tells the sampling rate.
    is_global = config.train.normalization == "global"
    rows = _spread_rows(train.datasets, _STATISTICS_RECORDS) if is_global else [0]
    chosen = train.subset(rows)
    files = [load_record_file(path, "lead_std", "lead_present", "fs") for path in chosen.paths]
    first = load_record_file(chosen.paths[0])
    n_samples = first["signal"].shape[1]
    normalization = fit_normalization(
        config.train.normalization,
        np.stack([arrays["lead_std"] for arrays in files]),  # (n_chosen, n_leads)
        np.stack([arrays["lead_present"] for arrays in files]),
        chosen.datasets,
        config.train.highpass_hz,
    )
    fs = float(files[0]["fs"])
    if config.train.highpass_hz >= fs / 2:
        raise ValueError(
            f"highpass_hz is {config.train.highpass_hz:g}: expected less than half the sampling "
            f"rate of {fs:g} Hz"
        )
    min_leads, min_samples = _measure_least(train, config.train.leads)
    crop_samples = round(config.train.crop_s * fs)
    return View(
        leads=config.train.leads,
        normalization=normalization,
        crop_samples=crop_samples if crop_samples < n_samples else 0,
        fs=fs,
        min_leads=min_leads,
        min_samples=min_samples,
        rr="rr_s" in first,
    )


def _measure_least(train: LabelledRecords, leads: Sequence[str]) -> tuple[int, int]:
    """Return how many leads and valid samples the least collection has, by medians of a sample.

    Both are at least 1, which differs from the 0 of a checkpoint that does not know.
    """
    columns = [STANDARD_LEADS.index(lead) for lead in leads]
    n_present: dict[str, list[int]] = defaultdict(list)
    n_valid: dict[str, list[int]] = defaultdict(list)
    for row in _spread_rows(train.datasets, _MEASURED_RECORDS):
        arrays = load_record_file(train.paths[row], "lead_present", "n_valid")
        n_present[train.datasets[row]].append(int(arrays["lead_present"][columns].sum()))
        n_valid[train.datasets[row]].append(int(arrays["n_valid"]))
    least_leads = min(median_low(counts) for counts in n_present.values())
    least_samples = min(median_low(counts) for counts in n_valid.values())
    return max(1, least_leads), max(1, least_samples)


def _spread_rows(datasets: Sequence[str], n_records: int) -> list[int]:
    """Return the rows of at most `n_records` of each collection, spread over it."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(datasets):
        rows_of[name].append(row)
    chosen: list[int] = []
    for rows in rows_of.values():
        step = math.ceil(len(rows) / n_records)
        chosen += rows[::step]
    return sorted(chosen)


def _build_dataset(
    config: Config, records: LabelledRecords, targets: Float32Array, view: View, split: str
) -> ECGDataset | PackedDataset:
    """Return the dataset of a split; only training records are cropped."""
    if split != "train":
        view = replace(view, crop_samples=0)
    if config.loader.cache == "packed":
        try:
            packed = load_packed(records.processed, split)
        except OSError as error:
            logger.warning("no packed cache (%s): reading record files instead", error)
        else:
            device = _resident_device(config, packed)
            return PackedDataset(packed, records.keys, targets, view, records.datasets, device)
    return ECGDataset(records.paths, targets, view, records.datasets)


def _resident_device(config: Config, packed: PackedSplit) -> str:
    """Return the GPU if it has room for the whole split, else the CPU."""
    from src.utils import device_info

    device = device_info(config.train.device).device
    # A loader process cannot share the GPU's memory with this one.
    if not device.startswith("cuda") or config.loader.loader_workers:
        return "cpu"
    free, _ = torch.cuda.mem_get_info(device)
    # Half of the free memory is left to training.
    return device if packed.codes.nbytes < free / 2 else "cpu"


def soften_targets(
    targets: Float32Array,
    keys: Sequence[str],
    classes: Sequence[str],
    soft: Predictions,
    share: float,
) -> Float32Array:
    """Blend targets with probabilities predicted by other networks (Hinton et al., 2015).

    Parameters
    ----------
    targets
        Shape (n_records, n_classes). NaN, where the source did not look for a class, stays NaN.
    keys, classes
        Names of the rows and columns.
    soft
        Predicted probabilities. Records and classes that are not in it keep their targets.
    share
        Weight of the probabilities in the blend, 0 to 1.

    Returns
    -------
    ndarray
        Shape (n_records, n_classes).

    Raises
    ------
    ValueError
        If `soft` shares no record or no class with the targets.
    """
    rows, soft_rows = _match(keys, find_keys(soft.keys, keys))
    columns, soft_columns = _match(classes, soft.classes)
    if not rows or not columns:
        raise ValueError(
            f"soft targets hold {len(rows)} of the {len(keys)} training records and "
            f"{len(columns)} of the {len(classes)} classes: "
            "expected predictions for the records of the training split"
        )
    cells = np.ix_(rows, columns)
    blend = targets.copy()
    difference = soft.y_score[np.ix_(soft_rows, soft_columns)] - targets[cells]
    blend[cells] += share * difference.astype(np.float32)
    return blend


def _match(names: Sequence[str], others: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the positions of common names in `names`, and their positions in `others`."""
    position_of = {name: position for position, name in enumerate(others)}
    common = [position for position, name in enumerate(names) if name in position_of]
    return common, [position_of[names[position]] for position in common]
