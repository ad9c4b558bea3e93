"""The packed cache: the record files of a split as one memory-mapped array, for fast random access.

Signals are stored as int16 codes with a scale and an offset per lead, so that the error is at most
half a step, which is a 131,070th of the lead's range. File names contain a hash of the packed
records: an outdated cache is not found, and is then rebuilt.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.locks import lock_folder
from src.processed.manifest import load_manifest
from src.processed.npz import read_npz
from src.processed.record_files import (
    RR_SIDE,
    load_record_file,
    load_signal,
    record_keys,
    record_path,
)
from src.utils import Float32Array, atomic_path, remove_leftovers

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


PACK_VERSION = 2
# Columns of the manifest that identify the packed record files
_COLUMNS = ("dataset", "record_id", "config_hash", "input_hash")
# The text of all rows would take gigabytes for millions of records.
_ROWS_HASHED_AT_A_TIME = 100_000
# Times that a cache is packed before its records are said to change all the time
_ATTEMPTS = 3
# Between the lowest and the highest code
_STEPS = 65535
# Arrays beside the codes, and their types
_INDEX: dict[str, type] = {
    "scale": np.float32,
    "offset": np.float32,
    "lead_mean": np.float32,
    "lead_std": np.float32,
    "lead_present": np.bool_,
    "n_valid": np.int32,
}
# Only of windows around beats
_RR = "rr_s"
# Those copied from the record files
_COPIED = ("lead_mean", "lead_std", "lead_present", "n_valid")


@dataclass(frozen=True)
class PackedSplit:
    """Records of a split; every field but `keys` is an array whose first axis runs over them.

    Attributes
    ----------
    keys
        Record keys.
    codes
        int16 (n_records, n_leads, n_samples), memory-mapped; a code times `scale` plus `offset` is
        the z-scored signal.
    scale, offset, lead_mean, lead_std
        float32 (n_records, n_leads); mean and std in mV.
    lead_present
        bool (n_records, n_leads).
    n_valid
        Samples before the padding, int32 (n_records,).
    rr_s
        RR intervals around the beats, float32 (n_records, 2 * RR_SIDE + 1); None where the records
        are no windows around beats.
    """

    keys: tuple[str, ...]
    codes: NDArray[np.int16]
    scale: Float32Array
    offset: Float32Array
    lead_mean: Float32Array
    lead_std: Float32Array
    lead_present: NDArray[np.bool_]
    n_valid: NDArray[np.int32]
    rr_s: Float32Array | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getstate__(self) -> dict[str, object]:
        """Return the path of memory-mapped codes in their place.

        Loader processes then map the file themselves instead of receiving a copy.
        """
        path = getattr(self.codes, "filename", None)
        if path is None:
            return vars(self)
        return {**vars(self), "codes": str(path)}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Map the codes again if the state holds their path."""
        codes = state["codes"]
        if isinstance(codes, str):
            codes = np.load(codes, mmap_mode="r", allow_pickle=False)
        vars(self).update(state, codes=codes)

    def read_codes(
        self,
        rows: Sequence[int] | NDArray[np.int64],
        starts: Sequence[int] | None = None,
        n_samples: int = 0,
    ) -> NDArray[np.int16]:
        """Return the codes of whole records, or of windows that begin at `starts`.

        Parameters
        ----------
        rows
            Rows of records in the cache.
        starts
            First sample of the window of each record, or None for whole records.
        n_samples
            Length of the windows.

        Returns
        -------
        ndarray
            Shape (len(rows), n_leads, n_samples).
        """
        if starts is None:
            return np.stack([self.codes[row] for row in rows])
        out = np.empty((len(rows), self.codes.shape[1], n_samples), np.int16)
        for window, row, start in zip(out, rows, starts, strict=True):
            window[:] = self.codes[row, :, start : start + n_samples]
        return out

    def read(self, row: int) -> Float32Array:
        """Return the z-scored signal (n_leads, n_samples) of a record."""
        signal: Float32Array = self.codes[row] * self.scale[row][:, None]
        signal += self.offset[row][:, None]
        return signal


def pack_hash(processed: str | Path, split: str) -> str:
    """Return the hash of the records that a packed split must hold, from the manifest."""
    return _hash_rows(_load_rows(processed, split), split)


def _hash_rows(rows: pd.DataFrame, split: str) -> str:
    digest = hashlib.blake2b(f"{PACK_VERSION}\n{split}\n".encode(), digest_size=8)
    for start in range(0, len(rows), _ROWS_HASHED_AT_A_TIME):
        part = rows.iloc[start : start + _ROWS_HASHED_AT_A_TIME]
        for name in _COLUMNS:
            digest.update("\n".join([*part[name], ""]).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _load_rows(processed: str | Path, split: str) -> pd.DataFrame:
    """Return the rows of the ok records of a split."""
    manifest = load_manifest(processed, (*_COLUMNS, "status", "split"))
    return manifest[(manifest["status"] == "ok") & (manifest["split"] == split)]


def load_packed(processed: str | Path, split: str) -> PackedSplit:
    """Open the packed records of a split; build the cache if it is missing or outdated.

    Parameters
    ----------
    processed
        The folder that preprocessing filled; the cache is in its subfolder ``packed/``.
    split
        train, val or test.

    Raises
    ------
    ValueError
        If the split has no records, or the disk has no room.
    RuntimeError
        If preprocessing changes the records again and again while they are packed.
    """
    folder = Path(processed) / "packed"
    name = f"{split}-{pack_hash(processed, split)}"
    try:
        if (folder / f"{name}.npz").exists():
            return _open(folder, name)
    except (OSError, ValueError) as error:
        logger.warning("%s: damaged (%s), so it is rebuilt", folder / name, error)
        # Another process may have found the damage too, and removed it.
        (folder / f"{name}.npz").unlink(missing_ok=True)
    # A second process waits, and then finds the cache that the first one built.
    with lock_folder(folder, "packing", wait=True):
        return _open(folder, _build_current(Path(processed), split))


def _build_current(processed: Path, split: str) -> str:
    """Build the cache of the records that the manifest lists, if it is missing; return its name.

    A preprocessing run replaces the manifest before it rewrites a record that the manifest lists as
    ok. If the manifest is the same after packing as before, no packed record was rewritten.
    """
    folder = processed / "packed"
    remove_leftovers([folder])
    for _ in range(_ATTEMPTS):
        version = _manifest_version(processed)
        rows = _load_rows(processed, split)
        name = f"{split}-{_hash_rows(rows, split)}"
        if (folder / f"{name}.npz").exists():
            return name
        try:
            index = _pack(processed, rows, name)
        except ValueError:
            # A record that is being rewritten may be missing, or of another length than the others.
            if _manifest_version(processed) == version:
                raise
            continue
        if _manifest_version(processed) == version:
            # The index comes last: a cache without one is not found.
            with atomic_path(folder / f"{name}.npz") as temporary, open(temporary, "wb") as stream:
                np.savez(stream, allow_pickle=False, **index)
            _remove_outdated(folder, split, name)
            return name
        logger.warning("%s: preprocess changed records while they were packed; again", processed)
    raise RuntimeError(
        f"{processed}: preprocess changes the records while they are packed: wait for it, and run "
        "the same command again"
    )


def _manifest_version(processed: Path) -> tuple[int, int, int]:
    """Return what tells one manifest from the next, which is written to a new file."""
    path = processed / "manifest.csv"
    if not path.exists():
        return 0, 0, 0
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _open(folder: Path, name: str) -> PackedSplit:
    """Open a cache and check that it is as `_build` writes it.

    Raises
    ------
    OSError, ValueError
        If a file is missing or damaged.
    """
    index = read_npz(folder / f"{name}.npz")
    if absent := {"keys", *_INDEX} - index.keys():
        raise ValueError(f"{', '.join(sorted(absent))} are missing")
    try:
        codes = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        keys = tuple(str(key) for key in index["keys"].tolist())
        is_expected = (codes.dtype, codes.ndim, codes.shape[0]) == (np.int16, 3, len(keys))
    # NumPy raises errors of any type on a damaged header.
    except Exception as error:  # noqa: BLE001
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if not is_expected:
        raise ValueError(
            f"codes are {codes.dtype} {codes.shape}, expected int16 ({len(keys)}, n_leads, "
            "n_samples)"
        )
    for field, kind in _INDEX.items():
        array = index[field]
        shape = codes.shape[:1] if field == "n_valid" else codes.shape[:2]
        if array.dtype != kind or array.shape != shape or not np.isfinite(array).all():
            raise ValueError(
                f"{field} is {array.dtype} {array.shape}, expected {np.dtype(kind)} {shape}, finite"
            )
    if not ((index["n_valid"] > 0) & (index["n_valid"] <= codes.shape[2])).all():
        raise ValueError(f"n_valid is not within the {codes.shape[2]} samples")
    rr = index.get(_RR)
    if rr is not None and (rr.dtype != np.float32 or rr.shape != (len(keys), 2 * RR_SIDE + 1)):
        raise ValueError(f"{_RR} is {rr.dtype} {rr.shape}, expected float32 for each record")
    split = PackedSplit(keys, codes, *(index[field] for field in _INDEX))
    return replace(split, rr_s=rr)


def packed_bytes(n_records: int, n_leads: int, n_samples: int) -> int:
    """Return the size of the codes of a packed split in bytes."""
    return 2 * n_records * n_leads * n_samples


def _pack(processed: Path, rows: pd.DataFrame, name: str) -> dict[str, NDArray[Any]]:
    """Write the codes of records in one pass, with one record in memory; return their index."""
    keys = record_keys(rows).tolist()
    if not keys:
        raise ValueError(f"{processed}: split {name.split('-')[0]} has no records to pack")
    folder = processed / "packed"
    first = record_path(processed, keys[0])
    shape = (len(keys), *load_signal(first).shape)
    _require_space(folder, packed_bytes(*shape))
    logger.info("packing the %d records of split %s", len(keys), name.split("-")[0])
    index = {"keys": np.array(keys)}
    for field, kind in _INDEX.items():
        index[field] = np.zeros(shape[:1] if field == "n_valid" else shape[:2], kind)
    copied: tuple[str, ...] = _COPIED
    if _RR in read_npz(first):
        copied = (*_COPIED, _RR)
        index[_RR] = np.zeros((len(keys), 2 * RR_SIDE + 1), np.float32)

    with atomic_path(folder / f"{name}.npy") as temporary:
        codes = np.lib.format.open_memmap(temporary, "w+", np.int16, shape)
        for row, key in enumerate(keys):
            path = record_path(processed, key)
            arrays = load_record_file(path, "signal", *copied)
            if arrays["signal"].shape != shape[1:]:
                raise ValueError(
                    f"{path}: its signal is of shape {arrays['signal'].shape}, that of {keys[0]} "
                    f"of {shape[1:]}; delete it and run preprocess again, which rewrites it"
                )
            codes[row], index["scale"][row], index["offset"][row] = quantize(arrays["signal"])
            for field in copied:
                index[field][row] = arrays[field]
        # Windows renames no file that is still mapped.
        codes.flush()
        del codes
    return index


def quantize(
    signal: Float32Array,
) -> tuple[NDArray[np.int16], Float32Array, Float32Array]:
    """Return int16 codes of a signal, with the scale and offset that restore it.

    The restored signal is codes * scale + offset.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples).

    Returns
    -------
    codes
        int16, shape (n_leads, n_samples).
    scale, offset
        float32, shape (n_leads,).
    """
    low = signal.min(axis=1).astype(np.float64)
    high = signal.max(axis=1).astype(np.float64)
    scale = (high - low) / _STEPS
    scale[scale == 0] = 1.0
    # The lowest value gets code -32768.
    offset = low + scale * (_STEPS + 1) / 2
    codes = np.rint((signal - offset[:, None]) / scale[:, None])
    # A flat lead is restored exactly.
    flat = high == low
    offset[flat] = low[flat]
    codes[flat] = 0
    codes = np.clip(codes, -32768, 32767).astype(np.int16)
    return codes, scale.astype(np.float32), offset.astype(np.float32)


def _require_space(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes * 1.05 + 1e6:
        raise ValueError(
            f"{folder}: the packed cache takes {n_bytes / 1e6:.0f} MB and "
            f"{free / 1e6:.0f} MB are free; train with --cache off"
        )


def _remove_outdated(folder: Path, split: str, name: str) -> None:
    """Delete the caches of a split other than the one called `name`."""
    for path in folder.glob(f"{split}-*.np?"):
        if path.stem != name:
            path.unlink(missing_ok=True)
