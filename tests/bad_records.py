"""Files that no reader can take, by what is wrong with them; each function writes one record and
returns its file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io

from src.records.sample_collections import write_wfdb
from src.records.synthetic import generate_ecg

N_SAMPLES = 1000


def _write(folder: Path, name: str, header: str, samples: bytes = b"") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.hea"
    path.write_text(header)
    if samples:
        path.with_suffix(".dat").write_bytes(samples)
    return path


def _header(name: str, n_samples: int = N_SAMPLES, storage: str = "16") -> str:
    lines = [
        f"{name} 2 100 {n_samples}",
        *(f"{name}.dat {storage} 1000/mV 16 0 0 0 0 {lead}" for lead in ("I", "II")),
    ]
    return "\n".join(lines) + "\n"


def good(folder: Path, name: str = "good", n_samples: int = N_SAMPLES) -> Path:
    """Write a record of leads I and II at 100 Hz that nothing is wrong with."""
    adc = np.random.default_rng(0).normal(0, 300, (n_samples, 2)).astype("<i2")
    return _write(folder, name, _header(name, n_samples), adc.tobytes())


def ecg(folder: Path, name: str = "ecg") -> Path:
    """Write ten seconds of a generated ECG of twelve leads at 100 Hz."""
    folder.mkdir(parents=True, exist_ok=True)
    record = generate_ecg("NORM", fs=100.0, rng=np.random.default_rng(0), record_id=name)
    write_wfdb(record, folder)
    return folder / f"{name}.hea"


def empty_header(folder: Path, name: str = "empty_header") -> Path:
    """A header without a byte."""
    return _write(folder, name, "", b"\0" * 400)


def empty_samples(folder: Path, name: str = "empty_samples") -> Path:
    """A sample file without a byte."""
    path = _write(folder, name, _header(name))
    path.with_suffix(".dat").touch()
    return path


def empty_mat(folder: Path, name: str = "empty_mat") -> Path:
    """A .mat file without a byte."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.mat"
    path.touch()
    return path


def truncated_mat(folder: Path, name: str = "truncated_mat") -> Path:
    """A .mat file that a download broke off."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.mat"
    scipy.io.savemat(path, {"val": np.ones((12, 5000), np.int16), "fs": 500.0, "gain": 1000.0})
    path.write_bytes(path.read_bytes()[:9000])
    return path


def promises_more(folder: Path, name: str = "promises_more") -> Path:
    """A header that promises more samples than the file holds."""
    return _write(folder, name, _header(name), b"\1\0" * (N_SAMPLES + 7))


def no_samples(folder: Path, name: str = "no_samples") -> Path:
    """A header whose sample file is not there."""
    return _write(folder, name, _header(name))


def unknown_storage(folder: Path, name: str = "unknown_storage") -> Path:
    """A storage format that does not exist."""
    return _write(folder, name, _header(name, storage="999"), b"\1\0" * 2 * N_SAMPLES)


def zero_leads(folder: Path, name: str = "zero_leads") -> Path:
    """A header of zero leads."""
    return _write(folder, name, f"{name} 0 100 {N_SAMPLES}\n")


def all_missing(folder: Path, name: str = "all_missing") -> Path:
    """A record in which every sample is marked as missing, NaN in mV."""
    return _write(folder, name, _header(name), np.full((N_SAMPLES, 2), -(2**15), "<i2").tobytes())


def all_nan(folder: Path, name: str = "all_nan") -> Path:
    """A .mat file of NaN."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.mat"
    scipy.io.savemat(path, {"val": np.full((12, 5000), np.nan), "fs": 500.0, "gain": 1.0})
    return path


BAD: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    # name: how to write it, the status it gets, what its reason says
    "empty_header": (empty_header, "unreadable", "header is empty"),
    "empty_samples": (
        empty_samples,
        "unreadable",
        "holds 0 samples of 2 leads, the header promises 1000",
    ),
    "empty_mat": (empty_mat, "unreadable", "file is empty"),
    "truncated_mat": (truncated_mat, "unreadable", "not readable as a MAT file"),
    "promises_more": (
        promises_more,
        "unreadable",
        "holds 503 samples of 2 leads, the header promises 1000",
    ),
    "no_samples": (no_samples, "unreadable", "no_samples.dat is not in the folder"),
    "unknown_storage": (unknown_storage, "unreadable", "not readable as WFDB"),
    "zero_leads": (zero_leads, "unreadable", "zero leads"),
    "all_missing": (all_missing, "rejected", "samples are missing"),
    "all_nan": (all_nan, "rejected", "samples are missing"),
}
