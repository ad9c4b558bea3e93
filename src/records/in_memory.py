"""Recordings that are arrays in memory: as an `ECGRecord`, and as a collection on the disk."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from src.records.facts import millivolts_per_unit
from src.records.record import MAX_FS, MIN_FS, ECGRecord, checked_record
from src.utils import Float32Array, atomic_path, make_folder

MAX_LEADS = 64
_MISSING = -(2**15)
_MAX_NAME = 200
_COLUMNS = ("dataset", "record_id", "mapped_label", "patient_id", "age", "sex")


def from_array(
    signal: ArrayLike,
    fs: float,
    leads: Sequence[str],
    unit: str = "mV",
    *,
    record_id: str = "array",
    patient_id: str | None = None,
    age: float | None = None,
    sex: str | None = None,
) -> ECGRecord:
    """Return an array as a record, of which nothing is assumed.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples) or (n_samples, n_leads); a square array is taken as the former.
        One dimension is one lead. NaN, infinities and -32768 of int16 are missing samples.
    fs
        Sampling rate in Hz.
    leads
        Name of each lead, such as ``("I", "II", "V1")``; empty for one that is unknown.
    unit
        ``mV``, ``uV``, ``V``, or a multiple such as ``4.88 uV`` of ADC units.
    record_id, patient_id, age, sex
        Facts of the record; sex is ``female``, ``male`` or None.

    Raises
    ------
    ValueError
        If the shape does not fit the leads, or an argument is not what it should be.
    """
    names = (leads,) if isinstance(leads, str) else tuple(map(str, leads))
    per_unit = millivolts_per_unit(unit)
    if per_unit is None or not unit.strip():
        raise ValueError(f"unit is {unit[:40]!r}: expected a voltage such as 'mV', 'uV' or 'V'")
    if not MIN_FS <= fs <= MAX_FS:
        raise ValueError(f"fs is {fs}: expected a rate of {MIN_FS:g} to {MAX_FS:g} Hz")
    if sex not in ("female", "male", None):
        raise ValueError(f"sex is {sex!r}: expected 'female', 'male' or None")
    values = _by_lead(np.asarray(signal), len(names))
    record = ECGRecord(
        record_id=record_id,
        signal=_as_floats(values, per_unit),
        fs=float(fs),
        leads=names,
        age=age,
        sex=sex,
        patient_id=patient_id,
    )
    return checked_record(record_id, record)


def _by_lead(values: np.ndarray, n_leads: int) -> np.ndarray:
    """Return numbers with a row for each lead."""
    if values.dtype.kind not in "iuf":
        raise ValueError(f"signal holds values of type {values.dtype}: expected numbers")
    if values.ndim == 1:
        values = values[None]
    if not 0 < n_leads <= MAX_LEADS:
        raise ValueError(f"leads has {n_leads} names: expected 1 to {MAX_LEADS}")
    if values.ndim == 2 and values.shape[0] != n_leads and values.shape[1] == n_leads:
        values = values.T
    if values.ndim != 2 or values.shape[0] != n_leads or not values.size:
        raise ValueError(
            f"signal has shape {values.shape} for {n_leads} leads: expected (n_leads, n_samples); "
            "make a record of each row of an array of many"
        )
    return values


def _as_floats(values: np.ndarray, per_unit: float) -> Float32Array:
    floats = np.array(values, np.float64, order="C") * per_unit
    floats[~np.isfinite(floats)] = np.nan
    if values.dtype == np.int16:
        floats[values == _MISSING] = np.nan
    return floats.astype(np.float32)


def write_collection(
    records: Iterable[ECGRecord],
    folder: str | Path,
    *,
    dataset: str = "mine",
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write records as a collection that the commands read: an HDF5 file each, and a label mapping.

    Samples are kept as they are, in mV. Records are written one at a time.

    Parameters
    ----------
    records
        Records with names of their own.
    folder
        Made if it does not exist.
    dataset
        Name of the collection in the label mapping.
    labels
        Labels of each record by its id; else the labels are its codes.

    Returns
    -------
    Path
        The label mapping, ``label_mapping.csv`` in the folder.

    Raises
    ------
    ValueError
        If two records have one id, an id cannot name a file, or a label names no record.
    """
    folder = Path(folder)
    make_folder(folder)
    rows: dict[str, dict[str, str]] = {}
    for record in records:
        name = record.record_id
        if not _can_name_file(name):
            raise ValueError(f"record id {name[:80]!r} cannot name a file: give another one")
        if name.lower() in rows:
            raise ValueError(f"record id {name!r} stands twice: expected one record of each id")
        _write_hdf5(record, folder / f"{name}.h5")
        found = record.codes if labels is None else labels.get(name, ())
        given = (found,) if isinstance(found, str) else tuple(found)
        rows[name.lower()] = _mapping_row(dataset, record, given)
    strangers = set(labels or ()) - {row["record_id"] for row in rows.values()}
    if strangers:
        raise ValueError(f"labels name {sorted(strangers)[0]!r}: there is no such record")
    path = folder / "label_mapping.csv"
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
    return path


def _can_name_file(name: str) -> bool:
    is_plain = name.isprintable() and not set(name) & set('/\\:*?"<>|')
    return is_plain and 0 < len(name) <= _MAX_NAME and not name.startswith(".")


def _write_hdf5(record: ECGRecord, path: Path) -> None:
    """Write a record as HDF5 that states its rate, unit and leads."""
    # Loaded here as it takes a while, and few write a collection.
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        signal = file.create_dataset("ecg", data=record.signal)
        signal.attrs["fs"], signal.attrs["units"] = record.fs, "mV"
        if any(record.leads):
            signal.attrs["leads"] = list(record.leads)


def _mapping_row(dataset: str, record: ECGRecord, labels: Sequence[str]) -> dict[str, str]:
    if any(";" in label for label in labels):
        raise ValueError(f"labels of {record.record_id!r} hold a ';', which separates labels")
    return {
        "dataset": dataset,
        "record_id": record.record_id,
        "mapped_label": ";".join(labels),
        "patient_id": record.patient_id or "",
        "age": "" if record.age is None else f"{record.age:g}",
        "sex": (record.sex or "")[:1].upper(),
    }
