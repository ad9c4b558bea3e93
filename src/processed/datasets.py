"""Batches, and the datasets that return them: from record files or from the packed cache."""

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

# Records copied to another device at a time
_RECORDS_COPIED = 1024


class Batch(NamedTuple):
    """One batch of records."""

    signal: torch.Tensor
    """Shape (B, n_leads, n_samples)."""
    target: torch.Tensor
    """Shape (B, n_classes); NaN where not annotated."""
    row: torch.Tensor
    """Row of each record in the dataset, shape (B,)."""

    @property
    def rr(self) -> None:
        """RR intervals, which only a `BeatBatch` has."""
        return None


class BeatBatch(NamedTuple):
    """One batch of windows around beats."""

    signal: torch.Tensor
    """Shape (B, n_leads, n_samples)."""
    target: torch.Tensor
    """Shape (B, n_classes); NaN where not annotated."""
    row: torch.Tensor
    """Row of each record in the dataset, shape (B,)."""
    rr: torch.Tensor
    """RR intervals around the beats in seconds, shape (B, 2 * RR_SIDE + 1)."""


AnyBatch = Batch | BeatBatch


def _make_batch(
    signal: torch.Tensor, target: torch.Tensor, row: torch.Tensor, rr: torch.Tensor | None
) -> AnyBatch:
    return Batch(signal, target, row) if rr is None else BeatBatch(signal, target, row, rr)


@dataclass(frozen=True)
class View:
    """The part and the scale of its records that a dataset returns.

    Attributes
    ----------
    leads
        Standard leads to return, in this order.
    normalization
        Scaling of the signals.
    crop_samples
        Length of the window drawn from a record each time it is read; 0 returns whole records.
    fs
        Sampling rate of the records in Hz, which a high-pass of packed records needs.
    min_leads, min_samples
        As in `src.learning.checkpoints.ModelCard`.
    rr
        Return the RR intervals of records that are windows around beats.
    """

    leads: tuple[str, ...] = STANDARD_LEADS
    normalization: Normalization = Normalization()
    crop_samples: int = 0
    fs: float = 0.0
    min_leads: int = 0
    min_samples: int = 0
    rr: bool = False

    def lead_rows(self) -> list[int] | slice:
        """Return the rows of the leads in a record file."""
        # All leads are a slice, which copies nothing.
        if self.leads == STANDARD_LEADS:
            return slice(None)
        return [STANDARD_LEADS.index(lead) for lead in self.leads]


def draw_starts(n_valid: torch.Tensor, crop_samples: int, n_samples: int) -> torch.Tensor:
    """Draw the start of a window in each record.

    Windows lie inside the valid samples, or begin at 0 in records that have too few of them.

    Parameters
    ----------
    n_valid
        Number of samples before the padding, shape (B,).
    crop_samples, n_samples
        Length of the windows and of the records.

    Returns
    -------
    Tensor
        Starts, shape (B,).
    """
    span = (n_valid - crop_samples).clamp(min=0, max=n_samples - crop_samples)
    return (torch.rand(len(span)) * (span + 1)).long()


class _BatchDataset(Dataset[AnyBatch]):
    """A dataset that returns whole batches, which spares the loader from stacking records."""

    def __getitems__(self, indices: list[int]) -> AnyBatch:
        raise NotImplementedError

    def __getitem__(self, index: int) -> AnyBatch:
        """Return one record without the batch dimension."""
        batch = self.__getitems__([index])
        rr = None if batch.rr is None else batch.rr[0]
        return _make_batch(batch.signal[0], batch.target[0], batch.row[0], rr)


class ECGDataset(_BatchDataset):
    """A dataset that reads record files on access.

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

    Raises
    ------
    ValueError
        If there are more or fewer targets than record files.
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
                f"{len(paths)} record files but {len(targets)} rows of targets: expected one "
                "row for each file"
            )
        self.paths = [str(path) for path in paths]
        self.targets = torch.from_numpy(np.ascontiguousarray(targets, np.float32))
        self.view = view or View()
        self.datasets = tuple(datasets) or ("",) * len(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, indices: list[int]) -> AnyBatch:
        """Return the records at `indices` as one batch."""
        names = ["signal", "lead_std", "n_valid"]
        if self.view.normalization.highpass_hz:
            names.append("fs")
        if self.view.rr:
            names.append("rr_s")
        files = [load_record_file(self.paths[i], *names) for i in indices]
        signals = [self._show(arrays, i) for arrays, i in zip(files, indices, strict=True)]
        rr = None
        if self.view.rr:
            rr = torch.from_numpy(np.stack([arrays["rr_s"] for arrays in files]))
        signal = torch.from_numpy(np.stack(signals))
        return _make_batch(signal, self.targets[indices], torch.tensor(indices), rr)

    def _show(self, arrays: dict[str, NDArray[Any]], index: int) -> Float32Array:
        """Return the signal (n_leads, n_samples) of a record, cropped if the view crops."""
        scaled = scale_signal(arrays, self.view.normalization, self.datasets[index])
        signal = scaled[self.view.lead_rows()]
        size = self.view.crop_samples
        if not size or size >= signal.shape[1]:
            return signal
        start = int(draw_starts(torch.tensor([int(arrays["n_valid"])]), size, signal.shape[1]))
        return signal[:, start : start + size]


def scale_signal(
    arrays: dict[str, NDArray[Any]], normalization: Normalization, dataset: str = ""
) -> Float32Array:
    """Return the signal (12, n_samples) of a record, normalized.

    Parameters
    ----------
    arrays
        The arrays of a record file, or those of `src.preprocessing.build_tensor`.
    normalization
        Scaling; its mode ``zscore`` without a high-pass returns the stored signal.
    dataset
        The dataset of the record, for a normalization by collection.
    """
    signal: Float32Array = arrays["signal"]
    if normalization.mode != "zscore":
        gains = normalization.gains(arrays["lead_std"][None], [dataset])  # (1, 12)
        signal = signal * gains[0][:, None]
    if normalization.highpass_hz:
        signal = normalization.remove_wander(signal, int(arrays["n_valid"]), float(arrays["fs"]))
    return signal


class PackedDataset(_BatchDataset):
    """A dataset over the packed cache: a batch is one gather, and a crop reads only its samples.

    Parameters
    ----------
    packed
        The cache of the split.
    keys
        Records to return, in order.
    targets
        Shape (n_records, n_classes).
    view
        Leads, normalization and crop.
    datasets
        The dataset of each record, for a normalization by collection.
    device
        Where batches are made. If it is not the CPU, all codes are copied there. A high-pass runs
        on the CPU, whatever the device.

    Raises
    ------
    ValueError
        If a record is not in the cache, or the view has a high-pass but no sampling rate.
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
        row_of = {key: row for row, key in enumerate(packed.keys)}
        absent = [key for key in keys if key not in row_of]
        if absent:
            raise ValueError(
                f"{absent[0]}: not in the packed cache, nor are {len(absent) - 1} others; "
                "delete packed/ and try again"
            )
        self.view = view or View()
        if self.view.normalization.highpass_hz:
            device = "cpu"
            if not self.view.fs:
                raise ValueError("the view has a high-pass: give its fs, the sampling rate in Hz")
        self.packed = packed
        self.rows = torch.tensor([row_of[key] for key in keys], dtype=torch.long)
        self.targets = torch.from_numpy(np.ascontiguousarray(targets, np.float32)).to(device)
        self.n_valid = torch.from_numpy(packed.n_valid[self.rows.numpy()].astype(np.int64))
        gain, bias = self._affine(tuple(datasets) or ("",) * len(keys))
        self.gain = gain.to(device)
        self.bias = bias.to(device)
        self.codes = self._copy_codes(device) if device != "cpu" else None
        self.rr: torch.Tensor | None = None
        if self.view.rr and packed.rr_s is not None:
            self.rr = torch.from_numpy(packed.rr_s[self.rows.numpy()]).to(device)

    def _copy_codes(self, device: str) -> torch.Tensor:
        """Return the codes (n_packed, n_leads, n_samples) of the view's leads on a device."""
        leads = self.view.lead_rows()
        codes = torch.empty(
            (len(self.packed), self.gain.shape[1], self.packed.codes.shape[2]),
            dtype=torch.int16,
            device=device,
        )
        # Some records at a time, so that this process holds few of them.
        for start in range(0, len(codes), _RECORDS_COPIED):
            chunk = slice(start, start + _RECORDS_COPIED)
            codes[chunk] = torch.from_numpy(self.packed.codes[chunk][:, leads].copy())
        return codes

    def _affine(self, datasets: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return gain and bias (n_records, n_leads, 1) from codes to the normalized signal."""
        packed = self.packed
        rows = self.rows.numpy()
        gain = self.view.normalization.gains(packed.lead_std[rows], datasets)
        leads = self.view.lead_rows()
        # From codes to the stored signal, and on to the normalized one, in one step
        whole_gain = (packed.scale[rows] * gain)[:, leads]
        whole_bias = (packed.offset[rows] * gain)[:, leads]
        return torch.from_numpy(whole_gain)[:, :, None], torch.from_numpy(whole_bias)[:, :, None]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> AnyBatch:
        """Return the records at `indices` as one batch."""
        n_samples = self.packed.codes.shape[2]
        size = self.view.crop_samples
        chosen = torch.tensor(indices)
        starts = None
        if 0 < size < n_samples:
            starts = draw_starts(self.n_valid[chosen], size, n_samples)
        on_device = self._send(chosen)
        if self.view.normalization.highpass_hz:
            signal = self._read_filtered(chosen, starts, size)
        else:
            codes = self._gather(self.rows[chosen], starts, size)  # (B, n_leads, T)
            signal = codes.float().mul_(self.gain[on_device]).add_(self.bias[on_device])
            signal = self._clear_padding(signal, chosen, starts)
        rr = None if self.rr is None else self.rr[on_device]
        return _make_batch(signal, self.targets[on_device], chosen, rr)

    def _clear_padding(
        self, signal: torch.Tensor, chosen: torch.Tensor, starts: torch.Tensor | None
    ) -> torch.Tensor:
        """Return signals (B, n_leads, T) with exact zeros after the end of each record.

        Codes restore zeros within rounding, and networks tell padding by its zeros.
        """
        n_left = self.n_valid[chosen]
        if starts is not None:
            n_left = n_left - starts
        n_samples = signal.shape[2]
        if bool((n_left >= n_samples).all()):
            return signal
        position = torch.arange(n_samples, device=signal.device)
        is_padding = position >= self._send(n_left)[:, None]  # (B, T)
        return signal.masked_fill(is_padding[:, None], 0.0)

    def _read_filtered(
        self, chosen: torch.Tensor, starts: torch.Tensor | None, size: int
    ) -> torch.Tensor:
        """Return signals (B, n_leads, T) after the high-pass, which needs whole records."""
        codes = self._gather(self.rows[chosen], None, 0)
        scaled = codes.float().mul_(self.gain[chosen]).add_(self.bias[chosen]).numpy()
        normalization, fs = self.view.normalization, self.view.fs
        filtered = []
        for i, n_valid in enumerate(self.n_valid[chosen].tolist()):
            start = 0 if starts is None else int(starts[i])
            stop = start + size if starts is not None else None
            filtered.append(normalization.remove_wander(scaled[i], n_valid, fs)[:, start:stop])
        return torch.from_numpy(np.stack(filtered))

    def _gather(self, rows: torch.Tensor, starts: torch.Tensor | None, size: int) -> torch.Tensor:
        """Return the codes (B, n_leads, T) of whole records or of a window of each."""
        if self.codes is None:
            leads = self.view.lead_rows()
            windows = None if starts is None else starts.tolist()
            read = self.packed.read_codes(rows.numpy(), windows, size)
            return torch.from_numpy(read if isinstance(leads, slice) else read[:, leads])
        codes = self.codes[self._send(rows)]  # (B, n_leads, n_samples)
        if starts is None:
            return codes
        # (B, 1, size)
        columns = self._send(starts)[:, None, None] + torch.arange(size, device=codes.device)
        return codes.gather(2, columns.expand(-1, codes.shape[1], -1))

    def _send(self, index: torch.Tensor) -> torch.Tensor:
        """Return an index on the device of the codes."""
        # Copied from pageable memory, it would make the host wait for the GPU.
        if self.codes is None or self.codes.device.type == "cpu":
            return index
        return index.pin_memory().to(self.codes.device, non_blocking=True)


def show_whole(dataset: ECGDataset | PackedDataset) -> ECGDataset | PackedDataset:
    """Return the dataset without crops; the records are not copied."""
    whole = copy.copy(dataset)
    whole.view = dataclasses.replace(dataset.view, crop_samples=0)
    return whole


def keep_batch(batch: AnyBatch) -> AnyBatch:
    """Collate for datasets whose ``__getitems__`` returns a whole batch."""
    return batch
