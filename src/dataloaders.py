"""Record files to batches: the datasets over record files and over the packed cache, the sampler, the loaders."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, WeightedRandomSampler

from src.config import Config, LoaderConfig, config_paths
from src.distributed import Processes, SharedBatchSampler
from src.leads import STANDARD_LEADS
from src.metrics import Predictions
from src.normalization import Normalization, fit_normalization
from src.packed import PackedSplit, load_packed
from src.rich import Rich, html_facts, html_table
from src.staging import local_copy
from src.store import load_record_file
from src.targets import (
    LabelledRecords,
    auxiliary_classes,
    choose_records,
    choose_task,
    encode_targets,
    load_records,
    soften_targets,
)

logger = logging.getLogger(__name__)

_LEAD_ARRAYS = ("lead_mean", "lead_std", "lead_present")
_STATISTICS_RECORDS = 1000
"""Records that decide the scale of a collection: the error of a mean over a thousand is far below the spread."""


_RECORDS_COPIED = 1024  # at a time, to another device


class Batch(NamedTuple):
    """One batch: signal (B, n_leads, n_samples); target (B, n_classes), NaN where not annotated; row (B,) in the dataset."""

    signal: torch.Tensor
    target: torch.Tensor
    row: torch.Tensor


@dataclass(frozen=True)
class View:
    """What a dataset shows of its records.

    Attributes
    ----------
    leads
        Which of the standard leads, in which order.
    normalization
        How signals are scaled.
    crop_samples
        Length of the window drawn from each record each time; 0 shows whole records.
    """

    leads: tuple[str, ...] = STANDARD_LEADS
    normalization: Normalization = Normalization()
    crop_samples: int = 0

    def lead_rows(self) -> list[int] | slice:
        """Return the rows of the leads in a record file; a slice, which copies nothing, where all are wanted."""
        return slice(None) if self.leads == STANDARD_LEADS else [STANDARD_LEADS.index(lead) for lead in self.leads]


def draw_starts(n_valid: torch.Tensor, crop_samples: int, n_samples: int) -> torch.Tensor:
    """Return where a window of each record begins, inside its valid samples as far as it has enough of them.

    Parameters
    ----------
    n_valid
        Samples before the padding, shape (B,).
    crop_samples, n_samples
        Length of the windows and of the records.
    """
    span = (n_valid - crop_samples).clamp(min=0, max=n_samples - crop_samples)
    return (torch.rand(len(span)) * (span + 1)).long()


class ECGDataset(Dataset[Batch]):
    """Record files read when they are asked for.

    Parameters
    ----------
    paths
        Record files.
    targets
        Shape (n_records, n_classes).
    view
        Leads, normalization and crop; by default the stored signals as they are.
    datasets
        The dataset of each record, for a normalization by collection.

    Notes
    -----
    Items are `Batch` tuples without the batch dimension; ``__getitems__`` gives whole batches, which spares the
    loader from stacking.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        targets: NDArray[np.float32],
        view: View | None = None,
        datasets: Sequence[str] = (),
    ) -> None:
        if len(paths) != len(targets):
            raise ValueError(f"{len(paths)} record files but {len(targets)} rows of targets: expected as many")
        self.paths = [str(path) for path in paths]
        self.targets = torch.from_numpy(np.ascontiguousarray(targets, np.float32))
        self.view = view or View()
        self.datasets = tuple(datasets) or ("",) * len(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Batch:
        batch = self.__getitems__([index])
        return Batch(batch.signal[0], batch.target[0], batch.row[0])

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return the records at `indices` as one batch."""
        signal = torch.from_numpy(np.stack([self._read(i) for i in indices]))
        return Batch(signal, self.targets[indices], torch.tensor(indices))

    def _read(self, index: int) -> NDArray[np.float32]:
        arrays = load_record_file(self.paths[index], "signal", *_LEAD_ARRAYS, "n_valid")
        signal = scale_signal(arrays, self.view.normalization, self.datasets[index])[self.view.lead_rows()]
        size = self.view.crop_samples
        if not size or size >= signal.shape[1]:
            return signal
        start = int(draw_starts(torch.tensor([int(arrays["n_valid"])]), size, signal.shape[1]))
        return signal[:, start : start + size]


def scale_signal(arrays: dict[str, NDArray[Any]], normalization: Normalization, dataset: str = "") -> NDArray[np.float32]:
    """Return the signal (12, n_samples) of a record file, or of `build_tensor`, normalized."""
    signal: NDArray[np.float32] = arrays["signal"]
    if normalization.mode == "zscore":
        return signal
    mean, std, present = (arrays[name][None] for name in _LEAD_ARRAYS)
    gain, bias = normalization.affine(mean, std, present, [dataset])
    scaled: NDArray[np.float32] = signal * gain[0][:, None] + bias[0][:, None]
    return scaled


class PackedDataset(Dataset[Batch]):
    """Records of the packed cache; a batch is one gather, and a crop reads nothing but itself.

    Parameters
    ----------
    packed
        The cache of the split.
    keys
        Records to show, in order.
    targets
        Shape (n_records, n_classes).
    view
        Leads, normalization and crop.
    datasets
        The dataset of each record, for a normalization by collection.
    device
        On another device than the CPU, the codes are copied there whole, and batches are cropped and scaled there.

    Raises
    ------
    ValueError
        If a record is not in the cache.
    """

    def __init__(
        self,
        packed: PackedSplit,
        keys: Sequence[str],
        targets: NDArray[np.float32],
        view: View | None = None,
        datasets: Sequence[str] = (),
        device: str = "cpu",
    ) -> None:
        place = {key: row for row, key in enumerate(packed.keys)}
        absent = [key for key in keys if key not in place]
        if absent:
            raise ValueError(f"{absent[0]}: not in the packed cache, nor are {len(absent) - 1} others; delete packed/ and try again")
        self.view = view or View()
        self.packed = packed
        self.rows = torch.tensor([place[key] for key in keys], dtype=torch.long)
        self.targets = torch.from_numpy(np.ascontiguousarray(targets, np.float32)).to(device)
        self.n_valid = torch.from_numpy(packed.n_valid[self.rows.numpy()].astype(np.int64))
        self.gain, self.bias = (part.to(device) for part in self._affine(tuple(datasets) or ("",) * len(keys)))
        self.codes = self._copy_codes(device) if device != "cpu" else None

    def _copy_codes(self, device: str) -> torch.Tensor:
        """Return the codes of the leads on a device, copied some at a time, so that this process holds few of them."""
        leads = self.view.lead_rows()
        codes = torch.empty((len(self.packed), self.gain.shape[1], self.packed.codes.shape[2]), dtype=torch.int16, device=device)
        for start in range(0, len(codes), _RECORDS_COPIED):
            codes[start : start + _RECORDS_COPIED] = torch.from_numpy(self.packed.codes[start : start + _RECORDS_COPIED][:, leads].copy())
        return codes

    def _affine(self, datasets: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return gain and bias (n_records, n_leads, 1) from codes to the normalized signal."""
        rows, packed = self.rows.numpy(), self.packed
        gain, bias = self.view.normalization.affine(
            packed.lead_mean[rows], packed.lead_std[rows], packed.lead_present[rows], datasets
        )
        leads = self.view.lead_rows()
        whole_gain = (packed.scale[rows] * gain)[:, leads]
        whole_bias = (packed.offset[rows] * gain + bias)[:, leads]
        return torch.from_numpy(whole_gain)[:, :, None], torch.from_numpy(whole_bias)[:, :, None]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        batch = self.__getitems__([index])
        return Batch(batch.signal[0], batch.target[0], batch.row[0])

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return the records at `indices` as one batch."""
        n_samples, size = self.packed.codes.shape[2], self.view.crop_samples
        chosen = torch.tensor(indices)
        starts = None
        if 0 < size < n_samples:
            starts = draw_starts(self.n_valid[chosen], size, n_samples)
        codes = self._gather(self.rows[chosen], starts, size)
        there = self._send(chosen)
        signal = codes.float().mul_(self.gain[there]).add_(self.bias[there])
        return Batch(signal, self.targets[there], chosen)

    def _gather(self, rows: torch.Tensor, starts: torch.Tensor | None, size: int) -> torch.Tensor:
        """Return the codes of whole records, or of a window of each, for the leads of the view."""
        if self.codes is None:
            leads = self.view.lead_rows()
            codes = self.packed.read_codes(rows.numpy(), None if starts is None else starts.tolist(), size)
            return torch.from_numpy(codes if isinstance(leads, slice) else codes[:, leads])
        codes_there = self.codes[self._send(rows)]
        if starts is None:
            return codes_there
        columns = self._send(starts)[:, None, None] + torch.arange(size, device=codes_there.device)
        return codes_there.gather(2, columns.expand(-1, codes_there.shape[1], -1))

    def _send(self, index: torch.Tensor) -> torch.Tensor:
        """Return an index where the codes are; from pinned memory, since the host would wait for the GPU otherwise."""
        if self.codes is None or self.codes.device.type == "cpu":
            return index
        return index.pin_memory().to(self.codes.device, non_blocking=True)


def show_whole(dataset: ECGDataset | PackedDataset) -> ECGDataset | PackedDataset:
    """Return the dataset without its crops; the records are not copied."""
    shown = copy.copy(dataset)
    shown.view = dataclasses.replace(dataset.view, crop_samples=0)
    return shown


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


def _train_targets(config: Config, records: LabelledRecords, classes: tuple[str, ...]) -> NDArray[np.float32]:
    """Return what the training records teach: their labels, blended with soft targets where the settings name some."""
    targets, path = encode_targets(records, classes), config.train.soft_targets
    if path is None:
        return targets
    soft = Predictions.load(path)
    try:
        return soften_targets(targets, records.keys, classes, soft, config.train.soft_weight)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _drawing_weights(records: LabelledRecords, targets: NDArray[np.float32], balanced: bool) -> NDArray[np.float64] | None:
    """Return the weight of each training record in the draw, or None where all count the same.

    Raises
    ------
    ValueError
        If the label table gives none of them a weight above 0.
    """
    given = np.array(records.weights)
    if not given.any():
        raise ValueError(f"{records.processed}: weight is 0 for every training record: expected some above 0 in the label table")
    weights = given * sample_weights(targets) if balanced else given
    return None if (weights == weights[0]).all() else weights


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
        "persistent_workers": config.loader_workers > 0,
        "worker_init_fn": seed_worker,
        "generator": generator,
    }
    if not train:
        return DataLoader(dataset, config.batch_size, **common)
    order: Sampler[int] = RandomSampler(range(n_records), generator=generator)
    if weights is not None:
        order = WeightedRandomSampler(weights.tolist(), len(weights), generator=generator)
    if processes is not None and processes.world > 1:
        return DataLoader(dataset, batch_sampler=SharedBatchSampler(order, config.batch_size, processes), **common)
    lonely = n_records > config.batch_size and n_records % config.batch_size == 1  # BatchNorm needs two
    return DataLoader(dataset, config.batch_size, sampler=order, drop_last=lonely, **common)


@dataclass(frozen=True)
class DataLoaders(Rich):
    """The loaders of a processed folder; a split without records has none.

    Training targets have a column for each of `classes` and then for each of `auxiliary`, the others for `classes`.
    `whole` has the training records without crops, where the last epochs see those.
    """

    train: DataLoader[Batch]
    val: DataLoader[Batch] | None
    test: DataLoader[Batch] | None
    records: dict[str, LabelledRecords]
    targets: dict[str, NDArray[np.float32]]
    classes: tuple[str, ...]
    single_label: bool
    view: View = View()
    auxiliary: tuple[str, ...] = ()
    whole: DataLoader[Batch] | None = None

    def __str__(self) -> str:
        kind = "one label per record" if self.single_label else "several labels per record"
        lines = [f"{len(self.classes)} classes ({', '.join(self.classes)}), {kind}"]
        for name, counts in self._class_counts().items():
            lines.append(f"{name}: {len(self.records[name])} records; " + ", ".join(f"{c} {counts[c]}" for c in self.classes))
        if self.auxiliary:
            lines.append(f"learned beside them: {', '.join(self.auxiliary)}")
        return "\n".join(lines)

    def _class_counts(self) -> dict[str, Counter[str]]:
        """Return split -> class -> how many of its records are labelled with it; soft targets are no counts."""
        return {name: Counter(label for labels in records.labels for label in labels) for name, records in self.records.items()}

    def _repr_html_(self) -> str:
        counts = self._class_counts()
        rows = [[c, *(of_split[c] for of_split in counts.values())] for c in self.classes]
        rows.append(["records", *map(len, self.records.values())])
        facts = {"target": "one label per record" if self.single_label else "several labels per record", "leads": len(self.view.leads)}
        facts |= {"normalization": self.view.normalization.mode, "crop in samples": self.view.crop_samples or ""}
        return html_facts({**facts, "records per batch": self.train.batch_size or ""}) + html_table(["class", *counts], rows)


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
        name: choose_records(split, classes, single_label=single, keep_negative=negatives) for name, split in splits.items()
    }
    if len(records["train"]) < 2:
        raise ValueError(f"{processed}: {len(records['train'])} records to train on; expected two or more with labels")
    auxiliary = auxiliary_classes(splits["train"], config.train)
    if auxiliary and not single:  # what says something of either teaches
        records["train"] = choose_records(splits["train"], (*classes, *auxiliary), single_label=False, keep_negative=negatives)
    targets = {name: encode_targets(split, classes) for name, split in records.items()}
    weights = _drawing_weights(records["train"], targets["train"], config.loader.balanced_sampling)
    targets["train"] = _train_targets(config, records["train"], (*classes, *auxiliary))
    view = build_view(config, records["train"])
    datasets = {name: _dataset(config, split, targets[name], view, name) for name, split in records.items() if len(split)}
    if config.train.whole_epochs:
        datasets["whole"] = show_whole(datasets["train"])
    pin = torch.cuda.is_available() if config.loader.pin_memory is None else config.loader.pin_memory

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
    return DataLoaders(train, loader("val"), loader("test"), records, targets, classes, single, view, auxiliary, loader("whole"))


def build_view(config: Config, train: LabelledRecords) -> View:
    """Return what the training records are shown as, with the statistics of the normalization taken from them."""
    step = -(-len(train) // _STATISTICS_RECORDS)
    needs_statistics = config.train.normalization == "global"
    paths = train.paths[::step] if needs_statistics else train.paths[:1]
    files = [load_record_file(path, *_LEAD_ARRAYS, "fs") for path in paths]
    mean, std, present = (np.stack([arrays[name] for arrays in files]) for name in _LEAD_ARRAYS)
    datasets = train.datasets[::step][: len(files)]
    normalization = fit_normalization(config.train.normalization, mean, std, present, datasets)
    return View(config.train.leads, normalization, round(config.train.crop_s * float(files[0]["fs"])))


def _dataset(
    config: Config, records: LabelledRecords, targets: NDArray[np.float32], view: View, split: str
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
