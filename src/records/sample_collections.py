"""Sample collections: generated recordings on disk in several formats, rates and lead orders."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import logging
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.locks import lock_file
from src.records.record import ECGRecord
from src.records.synthetic import (
    CLASSES,
    SNOMED_CODES,
    compatible_labels,
    generate_ecg,
    generate_patient,
)
from src.utils import UsageError, atomic_path, make_folder, read_regular

logger = logging.getLogger(__name__)


GAIN_PER_MV = 1000  # ADC units; an int16 then spans 32.7 mV on either side
_MAX_ADU = 2**15 - 1
_MAT4_TYPE = 30  # little-endian, int16, full matrix


@dataclass(frozen=True)
class SampleData:
    """Where the sample collections are: the label mapping, and dataset name -> folder."""

    mapping: Path
    data: dict[str, Path]


def write_sample_collections(
    dest: str | Path, *, n_records: int = 120, seed: int = 0, multi_label: bool = False
) -> SampleData:
    """Write three small collections of different format, rate and lead order, with their mapping.

    They are ``synthetic_wfdb`` (WFDB format 16, 500 Hz, 8 to 12 s), ``synthetic_challenge``
    (PhysioNet Challenge .mat and .hea, 1000 Hz, leads in other orders) and ``synthetic_mat`` (.mat
    without header, 257 Hz). The same arguments write the same bytes, and files that already hold
    them are not touched. Earlier sample records are replaced; other files, and other datasets' rows
    of the mapping, stay.

    Parameters
    ----------
    dest
        Folder, created if it does not exist.
    n_records
        Recordings in all, 3 or more, spread evenly over the classes.
    seed
        Seed of the generator, 0 or more.
    multi_label
        Give a small share of the records a second label.

    Raises
    ------
    ValueError
        If a number is out of range, or an existing mapping has no column ``dataset``.
    """
    dest = Path(dest)
    folders = {name: dest / name for name in _COLLECTIONS}
    result = SampleData(dest / "unified_label_mapping.csv", folders)
    # Wrong arguments and a wrong mapping raise here, before anything is written.
    records = iter_sample_records(n_records, seed, multi_label=multi_label)
    _read_other_rows(result.mapping)
    for folder in folders.values():
        make_folder(folder)
    rows: list[dict[str, str]] = []
    written_ids: dict[str, set[str]] = {name: set() for name in folders}
    for name, record in records:
        _COLLECTIONS[name].write(record, folders[name])
        written_ids[name].add(record.record_id)
        rows.append(_mapping_row(name, record))
    for name, folder in folders.items():
        _remove_earlier(folder, _COLLECTIONS[name].prefix, written_ids[name])
    # Another command may add rows at this moment.
    with lock_file(result.mapping, "sample-data"):
        _write_mapping(result.mapping, [*_read_other_rows(result.mapping), *rows])
    logger.info("wrote %d sample recordings in %d collections to %s", n_records, len(folders), dest)
    return result


def iter_sample_records(
    n_records: int = 120, seed: int = 0, *, multi_label: bool = False
) -> Iterator[tuple[str, ECGRecord]]:
    """Yield dataset and record, for all that `write_sample_collections` would write."""
    n_sets = len(_COLLECTIONS)
    if n_records < n_sets or seed < 0:
        raise UsageError(
            f"n_records is {n_records} and seed {seed}: expected at least {n_sets} and 0"
        )
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(CLASSES).tolist()
    labels = [shuffled[i % len(shuffled)] for i in range(n_records)]
    if multi_label:
        labels = [_with_second_label(label, rng) for label in labels]
    parts = np.array_split(np.arange(n_records), n_sets)
    return itertools.chain.from_iterable(
        _iter_collection(name, labels[part[0] : part[-1] + 1], int(part[0]), rng)
        for name, part in zip(_COLLECTIONS, parts, strict=True)
    )


def _iter_collection(
    name: str, labels: list[str], n_before: int, rng: np.random.Generator
) -> Iterator[tuple[str, ECGRecord]]:
    """Yield the records of one collection as its files hold them.

    Half of the records belong to patients with two. Patients are numbered across collections:
    `n_before` records are in earlier ones.
    """
    collection = _COLLECTIONS[name]
    n_pairs = round(len(labels) / 4)
    n_patients = len(labels) - n_pairs
    owners = rng.permutation([*range(n_pairs), *range(n_patients)])
    patients = [generate_patient(rng, f"p{n_before + i + 1:04d}") for i in range(n_patients)]
    for k, label in enumerate(labels):
        record = generate_ecg(
            label,
            fs=collection.fs,
            duration_s=collection.durations_s[k % len(collection.durations_s)],
            rng=rng,
            patient=patients[owners[k]],
            record_id=f"{collection.prefix}{k + 1:05d}",
        )
        if collection.shuffled:
            record = _with_shuffled_leads(record, rng)
        yield name, record


def _with_second_label(label: str, rng: np.random.Generator) -> str:
    """Add a second label to a fifth of the labels that can have one."""
    others = compatible_labels(label)
    if others and rng.random() < 0.2:
        return f"{label};{rng.choice(others)}"
    return label


def _with_shuffled_leads(record: ECGRecord, rng: np.random.Generator) -> ECGRecord:
    """Put the chest leads first or all leads in random order, half of them with names in capitals.

    Names in capitals are those such as AVR for aVR.
    """
    if rng.random() < 0.5:
        order = np.roll(np.arange(record.n_leads), 6)
    else:
        order = rng.permutation(record.n_leads)
    leads = tuple(record.leads[i] for i in order)
    if rng.random() < 0.5:
        leads = tuple(lead.upper() for lead in leads)
    return dataclasses.replace(record, signal=record.signal[order], leads=leads)


# Formats ------------------------------------------------------------------------------------------


def write_wfdb(record: ECGRecord, folder: Path, comments: str = "") -> None:
    """Write a WFDB record of format 16, <record_id>.dat and .hea, with comment lines at its end."""
    adu = _to_adu(record)
    put_file(folder / f"{record.record_id}.dat", adu.T.tobytes())
    header = _wfdb_header(record, adu, ".dat", "16") + comments
    put_file(folder / f"{record.record_id}.hea", header.encode())


def write_challenge(record: ECGRecord, folder: Path) -> None:
    """Write a record as in the PhysioNet Challenges: a MAT 4 matrix, format 16 from byte 24 on."""
    adu = _to_adu(record)
    mat4 = struct.pack("<5i4s", _MAT4_TYPE, *adu.shape, 0, 4, b"val\0")
    put_file(folder / f"{record.record_id}.mat", mat4 + adu.T.tobytes())
    codes = ",".join(SNOMED_CODES[label] for label in record.codes)
    comments = f"#Age: {record.age:.0f}\n#Sex: {str(record.sex).capitalize()}\n#Dx: {codes}\n"
    header = _wfdb_header(record, adu, ".mat", "16+24") + comments
    put_file(folder / f"{record.record_id}.hea", header.encode())


def write_mat(record: ECGRecord, folder: Path) -> None:
    """Write a MAT 5 file: int16 ``val`` (n_leads, n), ``fs`` in Hz, ``gain`` in units per mV."""
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, {"val": _to_adu(record), "fs": record.fs, "gain": float(GAIN_PER_MV)})
    # SciPy's own header text holds the time, so that the bytes would differ each time.
    stream.seek(0)
    stream.write(b"MATLAB 5.0 MAT-file, synthetic ECG".ljust(116))
    put_file(folder / f"{record.record_id}.mat", stream.getvalue())


def put_file(path: Path, content: bytes) -> None:
    """Write a file unless it holds these bytes already: files derived from it then stay valid."""
    if not (path.exists() and path.read_bytes() == content):
        path.write_bytes(content)


def _to_adu(record: ECGRecord) -> NDArray[np.int16]:
    """Return ADC units, shape (n_leads, n), without the lowest int16: it marks a missing sample."""
    return np.clip(np.rint(record.signal * GAIN_PER_MV), -_MAX_ADU, _MAX_ADU).astype("<i2")


def _wfdb_header(record: ECGRecord, adu: NDArray[np.int16], suffix: str, storage: str) -> str:
    """Return the text of a header, with initial values and checksums (signed 16-bit sums)."""
    lines = [f"{record.record_id} {record.n_leads} {record.fs:g} {record.n_samples}"]
    checksums = (adu.sum(axis=1, dtype=np.int64) + 2**15) % 2**16 - 2**15
    for lead, first, checksum in zip(record.leads, adu[:, 0], checksums, strict=True):
        file = f"{record.record_id}{suffix}"
        lines.append(f"{file} {storage} {GAIN_PER_MV}/mV 16 0 {first} {checksum} 0 {lead}")
    return "\n".join(lines) + "\n"


# Collections --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Collection:
    """A sample collection: the prefix of its record ids, its rate, its lengths and its format."""

    prefix: str
    fs: float
    durations_s: tuple[float, ...]
    write: Callable[[ECGRecord, Path], None]
    shuffled: bool = False


_COLLECTIONS = {
    "synthetic_wfdb": _Collection(
        "sw", 500.0, (10.0, 12.0, 10.0, 8.0, 10.0, 10.0, 10.0), write_wfdb
    ),
    "synthetic_challenge": _Collection("sc", 1000.0, (10.0,), write_challenge, shuffled=True),
    "synthetic_mat": _Collection("sm", 257.0, (10.0,), write_mat),
}


def _remove_earlier(folder: Path, prefix: str, written: set[str]) -> None:
    """Remove the records of an earlier run that were not written again."""
    sample_file = re.compile(rf"{prefix}\d{{5}}\.(hea|dat|mat)")
    for path in folder.iterdir():
        if sample_file.fullmatch(path.name) and path.stem not in written:
            path.unlink()


# Mapping ------------------------------------------------------------------------------------------


def _mapping_row(dataset: str, record: ECGRecord) -> dict[str, str]:
    return {
        "dataset": dataset,
        "record_id": record.record_id,
        "mapped_label": ";".join(record.codes),
        "patient_id": record.patient_id or "",
        "age": f"{record.age:.0f}",
        "sex": str(record.sex)[0].upper(),
    }


def _read_other_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of other datasets, if there is a mapping already."""
    if not path.exists():
        return []
    text = read_regular(path).decode("utf-8-sig")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    names = list(reader.fieldnames or ())
    if "dataset" not in names or len(set(names)) < len(names):
        raise ValueError(
            f"{path}: expected a column 'dataset', and each column once; choose another folder or "
            "move this file"
        )
    return [row for row in reader if row["dataset"] not in _COLLECTIONS]


def _write_mapping(path: Path, rows: list[dict[str, str]]) -> None:
    # Our columns, then further ones of the rows that were there.
    columns = list(dict.fromkeys([*rows[-1], *rows[0]]))
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
