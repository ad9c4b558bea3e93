"""A processed folder for other libraries: Parquet files, which Hugging Face datasets opens, or a
braindecode dataset.

What they need comes with requirements-datasets.txt.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS
from src.processed.manifest import load_manifest, select_rows
from src.processed.mirror import local_copy
from src.processed.record_files import load_record_file, to_millivolts
from src.processed.targets import (
    LabelledRecords,
    encode_targets,
    find_classes,
    is_single_label,
    load_records,
)
from src.utils import Float32Array, atomic_path, import_extra, save_json

if TYPE_CHECKING:
    import pandas as pd


FORMATS = ("parquet", "braindecode")
EXTRA = "-r requirements-datasets.txt"

_AT_A_TIME = 64  # records in memory, and of a row group


@dataclass(frozen=True)
class ExportSummary:
    """How many records of each split were written, and where."""

    out: Path
    n_records: dict[str, int]
    classes: tuple[str, ...]

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.n_records.items())
        return f"{self.out}: {counts} records; classes {', '.join(self.classes)}"


def export_dataset(
    processed: str | Path, out: str | Path, *, kind: str = "parquet", keep_other: bool = False
) -> ExportSummary:
    """Write the records of a processed folder, in mV, split by split, for another library.

    Parameters
    ----------
    processed
        The folder that preprocessing filled.
    out
        Gets ``train.parquet``, ``val.parquet``, ``test.parquet``; or for braindecode a folder for
        each, with a folder for each record as `BaseConcatDataset.save` makes them, and
        ``classes.json``.
    kind
        One of `FORMATS`.
    keep_other
        Write records whose label is the fallback too.

    Raises
    ------
    ValueError
        If the kind is unknown, its library missing, there is no record, or a braindecode dataset
        stands there already.
    """
    if kind not in FORMATS:
        raise ValueError(f"format is {kind!r}: expected one of {', '.join(FORMATS)}")
    processed = local_copy(processed)
    splits = {
        name: records
        for name, records in load_records(processed, keep_other=keep_other).items()
        if len(records)
    }
    if not splits:
        raise ValueError(
            f"{processed}: no record has a label of its own; write those with the "
            "fallback with --keep-other"
        )
    classes = tuple(
        dict.fromkeys(name for records in splits.values() for name in find_classes(records))
    )
    if kind == "parquet":
        _write_parquet(splits, Path(out), load_manifest(processed))
    else:
        _write_braindecode(splits, Path(out), load_manifest(processed), classes)
    return ExportSummary(
        Path(out), {name: len(records) for name, records in splits.items()}, classes
    )


def _iter_rows(
    records: LabelledRecords, manifest: pd.DataFrame
) -> Iterator[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
    """Yield what is known of each record, and the arrays of its record file."""
    rows = select_rows(manifest, records.keys)
    facts = zip(
        records.keys,
        records.paths,
        records.labels,
        records.annotated,
        rows.itertuples(index=False),
        strict=True,
    )
    for key, path, labels, annotated, row in facts:
        known = {
            "key": key,
            "dataset": row.dataset,
            "record_id": row.record_id,
            "patient_id": row.patient_id or None,
            "labels": list(labels),
            "annotated": list(annotated),
            "age": float(str(row.age)) if row.age else None,
            "sex": row.sex or None,
        }
        yield known, load_record_file(path)


# Parquet ------------------------------------------------------------------------------------------


def _write_parquet(splits: dict[str, LabelledRecords], out: Path, manifest: pd.DataFrame) -> None:
    pyarrow = import_extra("pyarrow", "writing Parquet", EXTRA)
    parquet = import_extra("pyarrow.parquet", "writing Parquet", EXTRA)
    n_samples = load_record_file(next(iter(splits.values())).paths[0], "signal")["signal"].shape[1]
    schema = _parquet_schema(pyarrow, n_samples)
    for name, records in splits.items():
        with (
            atomic_path(out / f"{name}.parquet") as temporary,
            parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            columns: dict[str, list[Any]] = {field: [] for field in schema.names}
            for number, (known, arrays) in enumerate(_iter_rows(records, manifest), 1):
                for field, value in (known | _signal_cells(arrays)).items():
                    columns[field].append(value)
                if number % _AT_A_TIME == 0 or number == len(records):
                    writer.write_table(_to_table(pyarrow, schema, columns))
                    columns = {field: [] for field in schema.names}


def _parquet_schema(pyarrow: Any, n_samples: int) -> Any:
    """Return the columns; fixed lengths make readers give the signal as one array (12,
    n_samples).
    """
    text = pyarrow.string()
    signal = pyarrow.list_(pyarrow.list_(pyarrow.float32(), n_samples), len(STANDARD_LEADS))
    columns = {
        **dict.fromkeys(("key", "dataset", "record_id", "patient_id"), text),
        **dict.fromkeys(("labels", "annotated"), pyarrow.list_(text)),
        "age": pyarrow.float32(),
        "sex": text,
        "fs": pyarrow.float32(),
        "n_valid": pyarrow.int32(),
        "lead_present": pyarrow.list_(pyarrow.bool_(), len(STANDARD_LEADS)),
        "signal": signal,
    }
    return pyarrow.schema(columns, metadata={"leads": json.dumps(STANDARD_LEADS), "unit": "mV"})


def _signal_cells(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    millivolts = np.zeros_like(arrays["signal"])  # absent leads, and what follows the end
    n_valid = int(arrays["n_valid"])
    millivolts[:, :n_valid] = to_millivolts(arrays)
    return {
        "fs": float(arrays["fs"]),
        "n_valid": n_valid,
        "lead_present": arrays["lead_present"],
        "signal": millivolts,
    }


def _to_table(pyarrow: Any, schema: Any, columns: dict[str, list[Any]]) -> Any:
    """Return a table; the signals go in without a Python object for each sample."""
    arrays = []
    for field in schema:
        values = columns[field.name]
        if field.name == "signal":
            flat = pyarrow.array(np.concatenate([value.ravel() for value in values]))
            inner = pyarrow.FixedSizeListArray.from_arrays(flat, type=field.type.value_type)
            arrays.append(pyarrow.FixedSizeListArray.from_arrays(inner, type=field.type))
        else:
            arrays.append(pyarrow.array(values, type=field.type))
    return pyarrow.Table.from_arrays(arrays, schema=schema)


# Braindecode --------------------------------------------------------------------------------------


def _write_braindecode(
    splits: dict[str, LabelledRecords], out: Path, manifest: pd.DataFrame, classes: tuple[str, ...]
) -> None:
    there = [str(out / name) for name in splits if (out / name).exists()]
    if there:
        raise ValueError(f"{there[0]}: exists already; choose another --out, or delete it")
    single = all(is_single_label(records) for records in splits.values())
    names = ["target"] if single else list(classes)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter(
            "ignore"
        )  # of what it imports, and that our file names are not those of MNE
        datasets, mne = (
            import_extra(name, "writing a braindecode dataset", EXTRA)
            for name in ("braindecode.datasets", "mne")
        )
        stack.enter_context(mne.use_log_level("error"))
        record_dataset = (
            getattr(datasets, "RawDataset", None) or datasets.BaseDataset
        )  # what earlier versions call it
        for name, records in splits.items():
            made = (
                record_dataset(
                    _to_mne(mne, arrays),
                    _describe(known, classes, target, single),
                    target_name=names,
                )
                for (known, arrays), target in zip(
                    _iter_rows(records, manifest), encode_targets(records, classes), strict=True
                )
            )
            for start in range(0, len(records), _AT_A_TIME):
                (out / name).mkdir(parents=True, exist_ok=True)
                datasets.BaseConcatDataset(list(islice(made, _AT_A_TIME))).save(
                    str(out / name), offset=start
                )
    save_json({"classes": classes, "single_label": single}, out / "classes.json")


def _to_mne(mne: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """Return a recording in volts, as MNE has them, with absent leads marked as bad."""
    info = mne.create_info(list(STANDARD_LEADS), float(arrays["fs"]), ch_types="ecg")
    raw = mne.io.RawArray(to_millivolts(arrays).astype(np.float64) / 1000, info)
    raw.info["bads"] = [
        lead
        for lead, present in zip(STANDARD_LEADS, arrays["lead_present"], strict=True)
        if not present
    ]
    return raw


def _describe(
    known: dict[str, Any], classes: tuple[str, ...], target: Float32Array, single: bool
) -> dict[str, Any]:
    """Return what is known, and as the outcome a class number, or with several labels a 1, 0 or
    nothing for each class.
    """
    if not single and (taken := sorted(set(classes) & known.keys())):
        raise ValueError(
            f"classes {', '.join(taken)} are named like what is known of a record: rename "
            "them in the label table to export them side by side"
        )
    facts = {
        name: ";".join(value) if isinstance(value, list) else value for name, value in known.items()
    }
    if single:
        return facts | {"target": int(np.nanargmax(target))}
    outcomes = zip(classes, target.tolist(), strict=True)
    return facts | {name: None if np.isnan(value) else int(value) for name, value in outcomes}
