"""Export of a processed folder to Parquet files, which Hugging Face datasets opens.

It needs the packages of requirements-datasets.txt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS
from src.processed.manifest import load_manifest, select_rows
from src.processed.mirror import local_copy
from src.processed.record_files import load_record_file, to_millivolts
from src.processed.targets import LabelledRecords, find_classes, load_records
from src.utils import Float32Array, atomic_path, import_extra

if TYPE_CHECKING:
    import pandas as pd


FORMATS = ("parquet",)
EXTRA = "-r requirements-datasets.txt"

# Records in memory at a time, and per row group
_ROWS_AT_A_TIME = 64


@dataclass(frozen=True)
class ExportSummary:
    """The number of records that were written for each split, and where."""

    out: Path
    n_records: dict[str, int]
    classes: tuple[str, ...]

    def __str__(self) -> str:
        counts = ", ".join([f"{name} {count}" for name, count in self.n_records.items()])
        return f"{self.out}: {counts} records; classes {', '.join(self.classes)}"


def export_dataset(
    processed: str | Path, out: str | Path, *, kind: str = "parquet", keep_other: bool = False
) -> ExportSummary:
    """Write the records of a processed folder, in mV, to a file per split.

    Parameters
    ----------
    processed
        The folder that preprocessing filled, or its URL.
    out
        Folder for ``train.parquet``, ``val.parquet`` and ``test.parquet``.
    kind
        One of `FORMATS`.
    keep_other
        Write records that have only the fallback label, too.

    Raises
    ------
    ValueError
        If the format is unknown, its library is missing, or there is no record.
    """
    if kind not in FORMATS:
        raise ValueError(f"format is {kind!r}: expected one of {', '.join(FORMATS)}")
    processed = local_copy(processed)
    splits: dict[str, LabelledRecords] = {}
    for name, records in load_records(processed, keep_other=keep_other).items():
        if len(records):
            splits[name] = records
    if not splits:
        raise ValueError(
            f"{processed}: no record has a label of its own; write those with the fallback label "
            "with --keep-other"
        )
    _write_parquet(splits, Path(out), load_manifest(processed))

    classes: dict[str, None] = {}
    for records in splits.values():
        classes |= dict.fromkeys(find_classes(records))
    n_records = {name: len(records) for name, records in splits.items()}
    return ExportSummary(Path(out), n_records, tuple(classes))


class _ExportedRecord(NamedTuple):
    """One row of a Parquet file; the fields are its columns.

    Attributes
    ----------
    signal
        Shape (12, n_samples), float32, in mV; zeros for absent leads and after `n_valid` samples.
    """

    key: str
    dataset: str
    record_id: str
    patient_id: str | None
    labels: list[str]
    annotated: list[str]
    age: float | None
    sex: str | None
    fs: float
    n_valid: int
    lead_present: NDArray[np.bool_]
    signal: Float32Array


def _iter_records(records: LabelledRecords, manifest: pd.DataFrame) -> Iterator[_ExportedRecord]:
    """Yield the records of a split, each read from its record file when it is asked for."""
    rows = select_rows(manifest, records.keys).itertuples(index=False)
    for key, path, labels, annotated, row in zip(
        records.keys, records.paths, records.labels, records.annotated, rows, strict=True
    ):
        arrays = load_record_file(path)
        yield _ExportedRecord(
            key=key,
            dataset=str(row.dataset),
            record_id=str(row.record_id),
            patient_id=str(row.patient_id) or None,
            labels=list(labels),
            annotated=list(annotated),
            age=float(str(row.age)) if row.age else None,
            sex=str(row.sex) or None,
            fs=float(arrays["fs"]),
            n_valid=int(arrays["n_valid"]),
            lead_present=arrays["lead_present"],
            signal=_padded_millivolts(arrays),
        )


def _padded_millivolts(arrays: Mapping[str, NDArray[Any]]) -> Float32Array:
    """Return the voltages of a record file at the length of its tensor, (12, n_samples)."""
    millivolts = np.zeros_like(arrays["signal"])
    millivolts[:, : int(arrays["n_valid"])] = to_millivolts(arrays)
    return millivolts


# Parquet ------------------------------------------------------------------------------------------


def _write_parquet(
    splits: Mapping[str, LabelledRecords], out: Path, manifest: pd.DataFrame
) -> None:
    pyarrow = import_extra("pyarrow", "writing Parquet", EXTRA)
    parquet = import_extra("pyarrow.parquet", "writing Parquet", EXTRA)
    first_path = next(iter(splits.values())).paths[0]
    n_samples = load_record_file(first_path, "signal")["signal"].shape[1]
    schema = _parquet_schema(pyarrow, n_samples)

    for name, records in splits.items():
        with (
            atomic_path(out / f"{name}.parquet") as temporary,
            parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            waiting: list[_ExportedRecord] = []
            for number, record in enumerate(_iter_records(records, manifest), 1):
                waiting.append(record)
                if number % _ROWS_AT_A_TIME == 0 or number == len(records):
                    writer.write_table(_to_table(pyarrow, schema, waiting))
                    waiting = []


def _parquet_schema(pyarrow: Any, n_samples: int) -> Any:
    """Return the columns of a Parquet file, in the order of the fields of `_ExportedRecord`."""
    text = pyarrow.string()
    # With fixed lengths, readers return the signal as one array (12, n_samples).
    lead = pyarrow.list_(pyarrow.float32(), n_samples)
    columns = {
        "key": text,
        "dataset": text,
        "record_id": text,
        "patient_id": text,
        "labels": pyarrow.list_(text),
        "annotated": pyarrow.list_(text),
        "age": pyarrow.float32(),
        "sex": text,
        "fs": pyarrow.float32(),
        "n_valid": pyarrow.int32(),
        "lead_present": pyarrow.list_(pyarrow.bool_(), len(STANDARD_LEADS)),
        "signal": pyarrow.list_(lead, len(STANDARD_LEADS)),
    }
    return pyarrow.schema(columns, metadata={"leads": json.dumps(STANDARD_LEADS), "unit": "mV"})


def _to_table(pyarrow: Any, schema: Any, records: list[_ExportedRecord]) -> Any:
    """Return a pyarrow table of some records."""
    columns = []
    for field in schema:
        if field.name == "signal":
            # Converted as one array: a Python object for each sample would take minutes.
            samples = pyarrow.array(np.concatenate([record.signal.ravel() for record in records]))
            leads = pyarrow.FixedSizeListArray.from_arrays(samples, type=field.type.value_type)
            columns.append(pyarrow.FixedSizeListArray.from_arrays(leads, type=field.type))
        else:
            values = [getattr(record, field.name) for record in records]
            columns.append(pyarrow.array(values, type=field.type))
    return pyarrow.Table.from_arrays(columns, schema=schema)
