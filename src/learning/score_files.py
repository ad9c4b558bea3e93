"""Files of probabilities that any program wrote: our own predictions, NumPy, CSV and Parquet.

A file is recognized by its first bytes. It names the records and has a column for each class.
"""

from __future__ import annotations

import dataclasses
import logging
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.labels.text_tables import open_table, plain_cell
from src.learning.predictions import MAX_TEXT_BYTES, Predictions
from src.learning.score_tables import ScoreTable, show_names
from src.processed.export import EXTRA
from src.processed.npz import list_arrays, read_npz
from src.processed.record_files import record_key
from src.utils import Float64Array, import_extra, open_regular, printable, read_regular

logger = logging.getLogger(__name__)

KEY_COLUMNS = ("key", "keys", "record_key", "record_id")
"""Columns that may name the records; the first that there is does."""

_OWN_ARRAYS = {"keys", "y_true", "y_score", "classes", "single_label"}
# Cells of a Parquet file, and what it inflates to: the most for each byte of it, and for any.
_MAX_CELLS_PER_BYTE = 4
_MANY_CELLS = 10**6
_MAX_RATIO = 100
_PLAUSIBLE_BYTES = 2**29


def load_scores(path: str | Path, labels: Sequence[str]) -> ScoreTable:
    """Read probabilities that any program wrote, or our own predictions.

    Parameters
    ----------
    path
        A ``.npz``, Parquet or CSV file. Columns or arrays: a name of `KEY_COLUMNS`, ``dataset``
        beside ``record_id`` where this alone is not unique, and one for each class; a ``.npz`` may
        have ``y_score`` (n_records, n_classes) and ``classes`` instead of these.
    labels
        Labels of the processed folder. Columns of other names are no classes; they are logged.
        Our own predictions keep all their classes.

    Raises
    ------
    ValueError
        If the file is missing, of another kind or damaged, has no column of records or of a label,
        or a value is no probability; the message names the file.
    """
    path = Path(path)
    shown = printable(str(path), 1000)
    try:
        with open_regular(path) as stream:
            head = stream.read(4)
    except OSError as error:
        raise ValueError(
            f"{shown}: cannot be read ({error.strerror or error}): expected predictions as .npz, "
            "CSV or Parquet"
        ) from None
    if head == b"PAR1":
        return _load_parquet(path, labels, shown)
    if head == b"PK\x03\x04":
        try:
            names = list_arrays(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{shown}: cannot be read ({printable(str(error))})") from None
        # A workbook is a zip archive too, which the reader of tables names
        if names:
            return _load_npz(path, names, labels, shown)
    return _load_text(path, labels, shown)


@dataclass(frozen=True)
class _Columns:
    """The columns of a file that are read: those that name the records, and the classes."""

    key: str
    dataset: str | None
    classes: tuple[str, ...]

    @classmethod
    def choose(cls, names: Sequence[str], labels: Sequence[str], shown: str) -> _Columns:
        key = _choose_key(names, shown)
        dataset = "dataset" if key == "record_id" and "dataset" in names else None
        classes = tuple(name for name in names if name in set(labels))
        _report_ignored([n for n in names if n not in {key, dataset, *classes}], shown)
        if not classes:
            raise ValueError(
                f"{shown}: no column is named as a label of the processed folder "
                f"({show_names(labels)}): found {show_names(names)}"
            )
        return cls(key, dataset, classes)


def _choose_key(names: Collection[str], shown: str) -> str:
    key = next((name for name in KEY_COLUMNS if name in names), None)
    if key is None:
        raise ValueError(
            f"{shown}: no column names the records: expected key (dataset__record_id, as in "
            f"splits.json), or record_id, with dataset where it is not unique; found "
            f"{show_names(sorted(names))}"
        )
    return key


def _report_ignored(names: Sequence[str], shown: str) -> None:
    if names:
        logger.info(
            "%s: columns that are no labels of the processed folder are not evaluated: %s",
            shown,
            show_names(names),
        )


def _join_keys(ids: Sequence[str], datasets: Sequence[str] | None, shown: str) -> tuple[str, ...]:
    """Return record keys of ids and their datasets, or the ids alone; none may be blank."""
    if not all(ids):
        raise ValueError(f"{shown}: record {ids.index('') + 1} has no name: expected its key or id")
    if datasets is None:
        return tuple(ids)
    return tuple(record_key(name, item) for name, item in zip(datasets, ids, strict=True))


# Text ---------------------------------------------------------------------------------------------


def _load_text(path: Path, labels: Sequence[str], shown: str) -> ScoreTable:
    table = open_table(path)
    # Keys are found in any case, but labels are told apart by it
    names = [
        header if header in (*KEY_COLUMNS, "dataset") else plain_cell(name)
        for header, name in zip(table.header, table.names, strict=True)
    ]
    columns = _Columns.choose(names, labels, shown)
    place = {name: names.index(name) for name in names}
    class_places = [place[name] for name in columns.classes]
    ids: list[str] = []
    datasets: list[str] = []
    values = array("d")
    for number, line in table.lines:
        cells = line + [""] * (len(names) - len(line))
        ids.append(plain_cell(cells[place[columns.key]]))
        if columns.dataset:
            datasets.append(plain_cell(cells[place[columns.dataset]]))
        try:
            values.extend([float(cells[i] or "nan") for i in class_places])
        except ValueError:
            raise ValueError(_describe_cell(number, cells, class_places, names, shown)) from None
    scores = np.array(values).reshape(len(ids), len(columns.classes))
    keys = _join_keys(ids, datasets if columns.dataset else None, shown)
    return ScoreTable(keys, scores, columns.classes, shown)


def _describe_cell(
    number: int, cells: Sequence[str], places: Sequence[int], names: Sequence[str], shown: str
) -> str:
    """Say which cell of a row is no number."""
    for i in places:
        try:
            float(cells[i] or "nan")
        except ValueError:
            break
    return (
        f"{shown}: row {number}, column {printable(names[i])} is {printable(repr(cells[i]), 60)}: "
        "expected a probability from 0 to 1, with a decimal point"
    )


# Parquet ------------------------------------------------------------------------------------------


def _load_parquet(path: Path, labels: Sequence[str], shown: str) -> ScoreTable:
    pyarrow = import_extra("pyarrow", "reading Parquet", EXTRA)
    parquet = import_extra("pyarrow.parquet", "reading Parquet", EXTRA)
    content = read_regular(path)
    with _naming(shown):
        file = parquet.ParquetFile(pyarrow.BufferReader(content))
        names = file.schema_arrow.names
    columns = _Columns.choose(names, labels, shown)
    named = [name for name in (columns.key, columns.dataset) if name]
    _check_parquet(file, [*named, *columns.classes], len(content), shown)
    with _naming(shown):
        table = file.read([*named, *columns.classes], use_threads=False)
        texts = [table.column(name).cast("string").to_pylist() for name in named]
        scores = [table.column(name).cast("double").to_numpy() for name in columns.classes]
    ids, *datasets = [[(cell or "").strip() for cell in cells] for cells in texts]
    keys = _join_keys(ids, datasets[0] if datasets else None, shown)
    return ScoreTable(keys, np.stack(scores, axis=1), columns.classes, shown)


@contextmanager
def _naming(shown: str) -> Iterator[None]:
    """Turn the errors of pyarrow, which are of any type on a damaged file, into one of the file."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        raise ValueError(f"{shown}: cannot be read ({printable(str(error))})") from None


def _check_parquet(file: Any, names: Sequence[str], n_bytes: int, shown: str) -> None:
    """Refuse columns of other kinds, and a file that claims more than its size can hold."""
    n_rows, n_cells = file.metadata.num_rows, file.metadata.num_rows * len(names)
    claimed = sum(
        file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)
    )
    if n_cells > max(_MANY_CELLS, _MAX_CELLS_PER_BYTE * n_bytes) or claimed > max(
        _PLAUSIBLE_BYTES, _MAX_RATIO * n_bytes
    ):
        raise ValueError(
            f"{shown}: has {n_bytes} bytes and claims {n_rows} rows of {claimed} bytes in all: "
            "expected rows that fit in the file"
        )
    schema = file.schema_arrow
    for name in names:
        kind = schema.field(name).type
        if getattr(kind, "num_fields", 0):
            raise ValueError(
                f"{shown}: column {printable(name)} is of {printable(str(kind))}: expected a "
                "text or a number for each record"
            )
    if repeated := [name for name in names if schema.names.count(name) > 1]:
        raise ValueError(
            f"{shown}: columns {show_names(repeated)} are repeated: expected each once"
        )


# NumPy --------------------------------------------------------------------------------------------


def _load_npz(path: Path, names: Collection[str], labels: Sequence[str], shown: str) -> ScoreTable:
    if set(names) >= _OWN_ARRAYS:
        own = ScoreTable.of(Predictions.load(path), shown)
        if not set(own.classes).intersection(labels):
            raise ValueError(_no_label(own.classes, labels, shown))
        return own
    key = _choose_key(names, shown)
    is_matrix = "y_score" in names and "classes" in names
    chosen = ["y_score", "classes"] if is_matrix else [n for n in names if n in set(labels)]
    dataset = ["dataset"] if key == "record_id" and "dataset" in names else []
    _report_ignored([name for name in names if name not in {key, *chosen, *dataset}], shown)
    if not chosen:
        raise ValueError(_no_label(tuple(names), labels, shown))
    try:
        arrays = read_npz(path, key, *dataset, *chosen)
        ids = _to_texts(arrays[key], key)
        datasets = _to_texts(arrays["dataset"], "dataset", len(ids)) if dataset else None
        if is_matrix:
            classes = tuple(_to_texts(arrays["classes"], "classes"))
            scores = _to_numbers(arrays["y_score"], "y_score", (len(ids), len(classes)))
        else:
            classes = tuple(chosen)
            columns = [_to_numbers(arrays[name], name, (len(ids),)) for name in classes]
            scores = np.stack(columns, axis=1)
    except (OSError, ValueError) as error:
        raise ValueError(f"{shown}: cannot be read ({printable(str(error), 1000)})") from None
    table = ScoreTable(_join_keys(ids, datasets, shown), scores, classes, shown)
    return _keep_labels(table, labels) if is_matrix else table


def _no_label(names: Sequence[str], labels: Sequence[str], shown: str) -> str:
    return (
        f"{shown}: none of its classes is a label of the processed folder ({show_names(labels)}): "
        f"found {show_names(names)}"
    )


def _keep_labels(table: ScoreTable, labels: Sequence[str]) -> ScoreTable:
    """Return the columns of a table that are labels."""
    kept = [i for i, name in enumerate(table.classes) if name in set(labels)]
    if not kept:
        raise ValueError(_no_label(table.classes, labels, table.source))
    classes = tuple(table.classes[i] for i in kept)
    _report_ignored([name for name in table.classes if name not in classes], table.source)
    return dataclasses.replace(table, classes=classes, y_score=table.y_score[:, kept])


def _to_texts(values: NDArray[Any], name: str, n: int | None = None) -> list[str]:
    if values.dtype.kind not in "USiu" or values.ndim != 1 or n not in (None, len(values)):
        raise ValueError(
            f"{name} is {values.dtype} of shape {values.shape}: expected a list of texts, one for "
            "each record or class"
        )
    if values.dtype.itemsize > MAX_TEXT_BYTES:
        raise ValueError(
            f"{name} has texts of {values.dtype.itemsize} bytes: expected {MAX_TEXT_BYTES}"
        )
    if values.dtype.kind == "S":
        return [text.decode("utf-8", "replace").strip() for text in values.tolist()]
    return [str(text).strip() for text in values.tolist()]


def _to_numbers(values: NDArray[Any], name: str, shape: tuple[int, ...]) -> Float64Array:
    if values.dtype.kind not in "fiub" or values.shape != shape:
        raise ValueError(
            f"{name} is {values.dtype} of shape {values.shape}: expected numbers of shape {shape}, "
            "a row for each record"
        )
    return values.astype(np.float64)
