"""`manifest.csv`: a row for each attempted record, and the journal of a running preprocessing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from src.config import PreprocessConfig, load_dataclass
from src.labels.text_tables import is_plain_name, map_cells, plain_cell, save_frame, zip_cells
from src.processed.record_files import record_keys
from src.utils import printable

if TYPE_CHECKING:
    import pandas as pd


CONFIG_FILE = "preprocess_config.json"
INTERRUPTED = "was being made anew when the run was interrupted: run preprocess again"
"""The reason of a row whose record file may be an older one, until preprocessing has run to its
end.
"""
COPY_REASON = "the same recording as "
"""Begins the reason of a row that was rejected as a copy."""
_LATER_COLUMNS = ("weight",)
"""What manifests of earlier versions do not have; it is empty then."""


def load_preprocess_config(processed: str | Path) -> PreprocessConfig:
    """Return the settings that a processed folder was made with.

    Raises
    ------
    ValueError
        If the folder was not made by preprocessing.
    """
    path = Path(processed) / CONFIG_FILE
    if not path.exists():
        raise ValueError(
            f"{processed}: no processed records here; run preprocess with --out {processed} first"
        )
    return load_dataclass(PreprocessConfig, path)


def patients_of(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the patient of each row of a manifest, named with its dataset; a record without one is
    its own patient.
    """
    cells = zip_cells(record_keys(rows), rows["dataset"], rows["patient_id"])
    return tuple(f"{dataset}/{patient}" if patient else key for key, dataset, patient in cells)


class ManifestRow(NamedTuple):
    """What became of one attempted record; lists are joined with ``;``."""

    dataset: str
    record_id: str
    patient_id: str = ""
    source_path: str = ""
    fs: float | str = ""
    n_samples: int | str = ""
    labels: str = ""
    annotated: str = ""
    label_source: str = ""
    fold: int | str = ""
    split: str = ""
    status: str = ""
    reason: str = ""
    quality_flags: str = ""
    signal_hash: str = ""
    age: float | str = ""
    sex: str = ""
    weight: float | str = ""
    config_hash: str = ""
    input_hash: str = ""


MANIFEST_COLUMNS = ManifestRow._fields


class Journal:
    """Rows appended as they come, a JSON list a line, so that a killed run can go on; deleted once
    the manifest holds them.
    """

    def __init__(self, processed: Path) -> None:
        self.path = processed / "manifest.partial.jsonl"

    def append(self, rows: Iterable[ManifestRow]) -> None:
        """Add rows and bring them to the disk; a line that an earlier run left torn keeps to
        itself.
        """
        text = "".join(json.dumps(list(map(str, row))) + "\n" for row in rows)
        with open(self.path, "ab+") as stream:
            if (
                stream.seek(0, os.SEEK_END)
                and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n"
            ):
                text = "\n" + text
            stream.write(text.encode("ascii"))
            stream.flush()
            os.fsync(stream.fileno())

    def load(self) -> pd.DataFrame:
        """Return the rows that are whole."""
        import pandas as pd

        rows = []
        if self.path.exists():
            with open(self.path, "rb") as stream:
                rows = [row for line in stream if (row := _journal_row(line)) is not None]
        return pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS), dtype=str)

    def remove(self) -> None:
        """Delete the journal."""
        self.path.unlink(missing_ok=True)


def _journal_row(line: bytes) -> list[str] | None:
    """Return the cells of a line, or None where it is torn or damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = (
        isinstance(row, list)
        and len(row) == len(MANIFEST_COLUMNS)
        and all(isinstance(cell, str) for cell in row)
    )
    return row if whole else None


def load_manifest(processed: str | Path, columns: Sequence[str] = MANIFEST_COLUMNS) -> pd.DataFrame:
    """Read ``manifest.csv`` as strings, empty cells as empty strings; a folder without one gives no
    rows.

    Parameters
    ----------
    processed
        The folder that preprocessing filled.
    columns
        Those wanted, the dataset among them; the fewer, the less time and memory it takes.

    Raises
    ------
    ValueError
        If the file is not a manifest.
    """
    import pandas as pd

    path = Path(processed) / "manifest.csv"
    if not path.exists():
        return pd.DataFrame(columns=list(columns), dtype=str)
    wanted = (
        None if columns is MANIFEST_COLUMNS else lambda name: name in columns
    )  # all are checked for rows that are too long
    try:
        _check_header(path)
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False, usecols=wanted)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not a manifest ({error}); delete it and run preprocess again"
        ) from None
    missing = [name for name in columns if name not in frame.columns and name not in _LATER_COLUMNS]
    if missing:
        raise ValueError(
            f"{path}: columns {', '.join(missing)} are missing; delete it and run preprocess again"
        )
    frame = map_cells(frame.reindex(columns=list(columns), fill_value=""), plain_cell)
    strange = [name for name in frame["dataset"].unique() if not is_plain_name(name)]
    if strange:
        raise ValueError(
            f"{path}: {printable(repr(strange[0]))} is no dataset name; delete it and run "
            "preprocess again"
        )
    return frame


def _check_header(path: Path) -> None:
    """Refuse a first line far wider than a manifest's: pandas takes seconds over many thousand
    columns.

    Raises
    ------
    ValueError
        With the number of columns.
    """
    with open(path, "rb") as stream:
        n_columns = stream.readline(2**20).count(b",") + 1
    if n_columns > 10 * len(MANIFEST_COLUMNS):
        raise ValueError(
            f"{path}: not a manifest (it has {n_columns} columns); delete it and run "
            "preprocess again"
        )


def save_manifest(frame: pd.DataFrame, processed: str | Path) -> None:
    """Write ``manifest.csv`` atomically; its texts are safe to open in a spreadsheet."""
    path = Path(processed) / "manifest.csv"
    save_frame(frame[list(MANIFEST_COLUMNS)], path, errors="backslashreplace")


def select_rows(manifest: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the manifest's rows for record keys, in their order.

    Raises
    ------
    ValueError
        If a record is not in the manifest.
    """
    rows = manifest.set_axis(record_keys(manifest).tolist())
    absent = [key for key in keys if key not in rows.index]
    if absent:
        raise ValueError(
            f"{len(absent)} records are not in the manifest, such as {absent[0]}: give "
            "that of their folder"
        )
    return rows[~rows.index.duplicated()].loc[list(keys)]


def is_rejected_copy(manifest: pd.DataFrame) -> pd.Series[bool]:
    """Return a mask of the rows rejected as copies of another recording."""
    return (manifest["status"] == "rejected") & manifest["reason"].str.startswith(COPY_REASON)
