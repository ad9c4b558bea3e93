"""What a batch is, and the datasets that give it: over record files, and over the packed cache."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from src.config import STANDARD_LEADS
from src.processed.normalization import Normalization
from src.processed.packed import PackedSplit
from src.processed.record_files import load_record_file
from src.utils import Float32Array

LEAD_ARRAYS = ("lead_mean", "lead_std", "lead_present")
"""The arrays of a record file that a normalization needs."""

_RECORDS_COPIED = 1024  # at a time, to another device


class Batch(NamedTuple):
    """One batch: signal (B, n_leads, n_samples); target (B, n_classes), NaN where not annotated;
    row (B,) in the dataset.
    """

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
        """Return the rows of the leads in a record file; a slice, which copies nothing, where all
        are wanted.
        """
        return (
            slice(None)
            if self.leads == STANDARD_LEADS
            else [STANDARD_LEADS.index(lead) for lead in self.leads]
        )


def draw_starts(n_valid: torch.Tensor, crop_samples: int, n_samples: int) -> torch.Tensor:
    """Return where a window of each record begins, inside its valid samples as far as it has enough
    of them.

    Parameters
    ----------
    n_valid
        Samples before the padding, shape (B,).
    crop_samples, n_samples
        Length of the windows and of the records.
    """
    span = (n_valid - crop_samples).clamp(min=0, max=n_samples - crop_samples)
    return (torch.rand(len(span)) * (span + 1)).long()


class _BatchDataset(Dataset[Batch]):
    """Gives whole batches, and a single record as a batch of one without its first dimension."""

    def __getitems__(self, indices: list[int]) -> Batch:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Batch:
        batch = self.__getitems__([index])
        return Batch(batch.signal[0], batch.target[0], batch.row[0])


class ECGDataset(_BatchDataset):
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
    Items are `Batch` tuples without the batch dimension; ``__getitems__`` gives whole batches,
    which spares the loader from stacking.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        targets: Float32Array,
        view: View | None = None,
        datasets: Sequence[str] = (),
    ) -> None:
        if len(paths) != len(targets):
            raise ValueError(
                f"{len(paths)} record files but {len(targets)} rows of targets: expected as many"
            )
        self.paths = [str(path) for path in paths]
        self.targets = torch.from_numpy(np.ascontiguousarray(targets, np.float32))
        self.view = view or View()
        self.datasets = tuple(datasets) or ("",) * len(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return the records at `indices` as one batch."""
        signal = torch.from_numpy(np.stack([self._read(i) for i in indices]))
        return Batch(signal, self.targets[indices], torch.tensor(indices))

    def _read(self, index: int) -> Float32Array:
        arrays = load_record_file(self.paths[index], "signal", *LEAD_ARRAYS, "n_valid")
        signal = scale_signal(arrays, self.view.normalization, self.datasets[index])[
            self.view.lead_rows()
        ]
        size = self.view.crop_samples
        if not size or size >= signal.shape[1]:
            return signal
        start = int(draw_starts(torch.tensor([int(arrays["n_valid"])]), size, signal.shape[1]))
        return signal[:, start : start + size]


def scale_signal(
    arrays: dict[str, NDArray[Any]], normalization: Normalization, dataset: str = ""
) -> Float32Array:
    """Return the signal (12, n_samples) of a record file, or of `build_tensor`, normalized."""
    signal: Float32Array = arrays["signal"]
    if normalization.mode == "zscore":
        return signal
    mean, std, present = (arrays[name][None] for name in LEAD_ARRAYS)
    gain, bias = normalization.affine(mean, std, present, [dataset])
    scaled: Float32Array = signal * gain[0][:, None] + bias[0][:, None]
    return scaled


class PackedDataset(_BatchDataset):
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
        On another device than the CPU, the codes are copied there whole, and batches are cropped
        and scaled there.

    Raises
    ------
    ValueError
        If a record is not in the cache.
    """

    def __init__(
        self,
        packed: PackedSplit,
        keys: Sequence[str],
        targets: Float32Array,
        view: View | None = None,
        datasets: Sequence[str] = (),
        device: str = "cpu",
    ) -> None:
        place = {key: row for row, key in enumerate(packed.keys)}
        absent = [key for key in keys if key not in place]
        if absent:
            raise ValueError(
                f"{absent[0]}: not in the packed cache, nor are {len(absent) - 1} others; "
                "delete packed/ and try again"
            )
        self.view = view or View()
        self.packed = packed
        self.rows = torch.tensor([place[key] for key in keys], dtype=torch.long)
        self.targets = torch.from_numpy(np.ascontiguousarray(targets, np.float32)).to(device)
        self.n_valid = torch.from_numpy(packed.n_valid[self.rows.numpy()].astype(np.int64))
        self.gain, self.bias = (
            part.to(device) for part in self._affine(tuple(datasets) or ("",) * len(keys))
        )
        self.codes = self._copy_codes(device) if device != "cpu" else None

    def _copy_codes(self, device: str) -> torch.Tensor:
        """Return the codes of the leads on a device, copied some at a time, so that this process
        holds few of them.
        """
        leads = self.view.lead_rows()
        codes = torch.empty(
            (len(self.packed), self.gain.shape[1], self.packed.codes.shape[2]),
            dtype=torch.int16,
            device=device,
        )
        for start in range(0, len(codes), _RECORDS_COPIED):
            codes[start : start + _RECORDS_COPIED] = torch.from_numpy(
                self.packed.codes[start : start + _RECORDS_COPIED][:, leads].copy()
            )
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
            codes = self.packed.read_codes(
                rows.numpy(), None if starts is None else starts.tolist(), size
            )
            return torch.from_numpy(codes if isinstance(leads, slice) else codes[:, leads])
        codes_there = self.codes[self._send(rows)]
        if starts is None:
            return codes_there
        columns = self._send(starts)[:, None, None] + torch.arange(size, device=codes_there.device)
        return codes_there.gather(2, columns.expand(-1, codes_there.shape[1], -1))

    def _send(self, index: torch.Tensor) -> torch.Tensor:
        """Return an index where the codes are; from pinned memory, since the host would wait for
        the GPU otherwise.
        """
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
