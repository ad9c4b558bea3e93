"""Predictions for files: a table of class probabilities, and saliency maps of the top class."""

from __future__ import annotations

import csv
import glob
import logging
import os
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from src.classifier.classifier import Classifier, Prediction
from src.classifier.file_predictions import (
    TRAINED_ON,
    FilePrediction,
    predict_files,
    rank_scores,
)
from src.classifier.saliency import METHODS, Saliency
from src.labels.text_tables import safe_cell
from src.learning.checkpoints import Checkpoint, load_checkpoint
from src.processed.runs.heartbeat import count_aloud
from src.processed.runs.pool import chunked
from src.processed.runs.tasks import RejectedError
from src.records.fetching import COPY_FIRST, fetched_records, holds_many
from src.records.folders import index_folder
from src.records.formats.wfdb_piece import iter_source_files
from src.records.reading import READABLE_SUFFIXES, list_records
from src.records.record import RecordError, split_part
from src.utils import as_url, atomic_path, import_extra, printable_lines, save_json, storable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

TABLE_FORMATS = ("csv", "json", "parquet")

# Classes of a prediction that its line names
_CLASSES_SAID = 5
# Records at URLs that are fetched at a time.
_N_FETCHED = 64
# Characters of the notes that a map's title has room for
_NOTES_SHOWN = 140


def find_record_files(
    paths: Iterable[str | Path], urls: dict[str, str] | None = None
) -> Iterator[Path]:
    """Yield the records that files, folders (searched recursively), globs and URLs name, each once.

    A record of a file that holds many is ``file::id``. A missing path is yielded unchanged, so that
    reading it reports the error and the other files are still predicted. Records at URLs are
    temporary copies, which exist until the next record is requested; `urls` gets their URLs.

    Raises
    ------
    ValueError
        If a folder holds no record or a glob matches nothing.
    """
    seen: set[Path] = set()
    for path in paths:
        if url := as_url(path):
            yield from _fetch(url, {} if urls is None else urls)
            continue
        for file in _expand(path):
            try:
                targets = list_records(file)
            except RecordError:
                # Reading it will report the error.
                targets = [file]
            yield from (target for target in targets if target not in seen)
            seen.update(targets)


def _fetch(url: str, of_copies: dict[str, str]) -> Iterator[Path]:
    """Yield temporary copies of the record at a URL, or of all records below it.

    `of_copies` gets the URL of each.
    """
    stem, suffix = os.path.splitext(url)
    if holds_many(url):
        raise ValueError(
            f"{url}: may hold many records, which are not read over a URL; {COPY_FIRST}"
        )
    if suffix.lower() in (*READABLE_SUFFIXES, ".dat"):
        urls = [f"{stem}.hea" if suffix.lower() == ".dat" else url]
    else:
        urls = [f"{url}/{record.relative}" for record in index_folder(url)]
    for batch in chunked(urls, _N_FETCHED):
        with fetched_records(batch) as copies:
            of_copies.update(zip(map(str, copies), batch, strict=True))
            yield from copies


def _expand(path: str | Path) -> list[Path]:
    """Return the record files that a path, a folder or a glob names."""
    if Path(path).is_dir():
        found = sorted(index_folder(path), key=lambda record: natural_key(record.relative))
        files = [Path(path) / record.relative for record in found]
        if not files:
            raise ValueError(
                f"{path}: no record in this folder; expected files of "
                f"{', '.join(READABLE_SUFFIXES)}"
            )
        return files
    if Path(path).exists() or not glob.has_magic(str(path)):
        return [Path(path)]
    matches = [
        Path(match) for match in sorted(glob.glob(str(path), recursive=True), key=natural_key)
    ]
    if not matches:
        raise ValueError(f"{path}: matches no file")
    files = []
    for match in matches:
        files += _expand(match) if match.is_dir() else [match]
    return files


def natural_key(text: str) -> list[tuple[int, str]]:
    """Return a sorting key that puts ``8`` before ``10``."""
    parts = re.split(r"([0-9]{1,18})", text)
    return [(int(part) if i % 2 else 0, part) for i, part in enumerate(parts)]


def _refuse_as_output(records: Iterable[Path], out: Path) -> Iterator[Path]:
    """Yield records; refuse one whose file, or signal file, the output would replace."""
    target = Path(os.path.realpath(out))
    for record in records:
        file = split_part(record)[0]
        is_beside = target.is_file() and file.is_file() and file.resolve().parent == target.parent
        if is_beside and str(target) in map(os.path.realpath, source_files(record)):
            raise ValueError(f"{out}: is one of the recordings: expected another file to write")
        yield record


def source_files(record: Path) -> list[str]:
    """Return the file of a record, and the signal files that it names."""
    file = split_part(record)[0]
    if file.suffix.lower() != ".hea" or not file.is_file():
        return [str(file)]
    return [str(file), *iter_source_files(file)]


# Predictions --------------------------------------------------------------------------------------


class PredictionSummary(NamedTuple):
    """What `predict_to_table` did.

    Attributes
    ----------
    counts
        Status -> number of records.
    n_trained_on
        Records that the model was trained on.
    n_formulas
        Ids that a spreadsheet would read as formulas.
    last_failure
        The last record without status ok, and the reason.
    n_predicted
        Records with probabilities.
    """

    counts: Mapping[str, int]
    n_trained_on: int
    n_formulas: int
    last_failure: tuple[str, str]
    n_predicted: int

    def __str__(self) -> str:
        return ", ".join(f"{count} {status}" for status, count in self.counts.items())


def predict_to_table(
    checkpoint: str | Path | Checkpoint,
    paths: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    table_format: str | None = None,
    say: Callable[[str], object] | None = None,
    source_fs: float | None = None,
    source_gain_per_mv: float | None = None,
    leads: Sequence[str] = (),
    batch_size: int = 64,
    device: str = "cpu",
    allow_overlap: bool = False,
    long: str = "mean",
    predict_unfit: bool = False,
) -> str:
    """Predict records, and write a table with a row per record.

    Its columns are record_id, a probability per class, status, reason, labels (the predicted
    classes), not_sure (the classes whose answer is not sure, if the checkpoint has limits of
    coverage), unlike (how unlike the training recordings, if it sums them up), notes and path.

    Parameters
    ----------
    checkpoint
        A ``best.pth`` or ``latest.pth``.
    paths
        Record files, folders, URLs of these, or globs.
    out
        The table; None writes none. The reason is empty for a prediction, unless the model was
        trained on the recording.
    table_format
        One of `TABLE_FORMATS`; by default as the suffix of `out` says, else ``csv``. ``parquet``
        needs pyarrow.
    say
        Called with a line for each record as it is predicted.
    source_fs, source_gain_per_mv, leads, batch_size, device, allow_overlap, long, predict_unfit
        As for `src.classifier.file_predictions.predict_files`.

    Returns
    -------
    str
        The number of records by status.

    Raises
    ------
    ValueError
        If the checkpoint is wrong, a path names nothing, or no record got a probability; the rows
        are written even then.
    """
    loaded = load_checkpoint(checkpoint, device)
    urls: dict[str, str] = {}
    records = find_record_files(paths, urls)
    rows = predict_files(
        loaded,
        records if out is None else _refuse_as_output(records, Path(out)),
        source_fs=source_fs,
        source_gain_per_mv=source_gain_per_mv,
        leads=leads,
        batch_size=batch_size,
        device=device,
        allow_overlap=allow_overlap,
        long=long,
        predict_unfit=predict_unfit,
    )
    rows = (replace(row, path=urls.get(row.path, row.path)) for row in rows)
    rows = count_aloud(rows, "predict", "reading and predicting records")
    if say is not None:
        rows = _say_each(rows, loaded, say)
    if out is None:
        summary = _count(rows, lambda row: None)
    else:
        suffix = Path(out).suffix.lower().removeprefix(".")
        table_format = table_format or (suffix if suffix in TABLE_FORMATS else TABLE_FORMATS[0])
        with open_prediction_table(
            out, loaded.card.classes, table_format, list_optional_columns(loaded)
        ) as add:
            summary = _count(rows, add)
    _warn(summary, "predict" if out is None else str(out), has_ids=out is not None)
    return str(summary)


def _say_each(
    rows: Iterable[FilePrediction], checkpoint: Checkpoint, say: Callable[[str], object]
) -> Iterator[FilePrediction]:
    """Yield rows, and pass a line for each of them to `say`."""
    for row in rows:
        say(format_prediction(row, checkpoint.card.classes, checkpoint.path.name))
        yield row


def format_prediction(row: FilePrediction, classes: Sequence[str], network: str) -> str:
    """Return a prediction as a line: ``8: MI 0.981*, CD 0.470 (superclass.pth; flat:V3)``.

    Of many classes, the most probable and the predicted ones are named.
    """
    parts = [] if row.status == "ok" else [row.status]
    if row.scores is not None:
        ranked = rank_scores(classes, row.scores, row.labels, row.not_sure)
        said = [
            text
            for place, (name, text) in enumerate(ranked)
            if place < _CLASSES_SAID or name in row.labels
        ]
        parts += said
        if len(ranked) > len(said):
            parts.append("...")
    remarks = "; ".join(filter(None, (network, row.reason, *row.notes)))
    return printable_lines(f"{row.record_id}: {', '.join(parts)} ({remarks})")


def _count(
    rows: Iterable[FilePrediction], add: Callable[[FilePrediction], object]
) -> PredictionSummary:
    """Add each row to the table, and count them."""
    counts: Counter[str] = Counter()
    n_predicted = n_trained_on = n_formulas = 0
    last_failure = ("", "")
    for row in rows:
        add(row)
        counts[row.status] += 1
        n_predicted += row.scores is not None
        n_trained_on += row.reason == TRAINED_ON
        n_formulas += safe_cell(row.record_id) != row.record_id
        if row.reason:
            last_failure = (row.record_id, row.reason)
    return PredictionSummary(counts, n_trained_on, n_formulas, last_failure, n_predicted)


def _warn(summary: PredictionSummary, name: str, *, has_ids: bool) -> None:
    """Log what a reader of the table should know; raise if nothing was predicted."""
    if summary.n_trained_on:
        logger.warning(
            "%s: the model was trained on %d of the recordings; the column reason marks them",
            name,
            summary.n_trained_on,
        )
    if summary.n_formulas and has_ids:
        logger.warning(
            "%s: %d record ids begin like a formula and are written unchanged: import that "
            "column as text",
            name,
            summary.n_formulas,
        )
    n_unfit = summary.counts.get("unfit", 0)
    if n_unfit and summary.n_predicted:
        logger.warning(
            "%s: %d recordings are unfit for the network; the column reason says why",
            name,
            n_unfit,
        )
    if not summary.n_predicted:
        record_id, reason = summary.last_failure
        done, advice = "read", ""
        if n_unfit:
            done, advice = "predicted", "; --predict-unfit predicts for unfit ones all the same"
        raise ValueError(
            f"{name}: not one of {sum(summary.counts.values())} records could be {done}, the last "
            f"({record_id}) because: {reason}{advice}"
        )


# Tables -------------------------------------------------------------------------------------------


def list_optional_columns(checkpoint: Checkpoint) -> list[str]:
    """Return the columns that only some checkpoints give.

    Without limits of coverage there is no column ``not_sure``: an empty one would say that all
    answers are sure.
    """
    has = {
        "not_sure": checkpoint.card.coverage is not None,
        "unlike": checkpoint.reference is not None,
    }
    return [name for name, is_given in has.items() if is_given]


@contextmanager
def open_prediction_table(
    out: str | Path, classes: Sequence[str], table_format: str, optional: Collection[str] = ()
) -> Iterator[Callable[[FilePrediction], object]]:
    """Open a table of predictions, and give a function that adds a row; it is written at the end.

    `optional` are those of the columns ``not_sure`` and ``unlike`` that it has.

    Raises
    ------
    ValueError
        If the format is unknown.
    """
    if table_format not in TABLE_FORMATS:
        raise ValueError(
            f"table_format is {table_format!r}: expected one of {', '.join(TABLE_FORMATS)}"
        )
    if table_format == "csv":
        with (
            atomic_path(out) as temporary,
            open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
        ):
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(
                [
                    "record_id",
                    *map(safe_cell, classes),
                    "status",
                    "reason",
                    "labels",
                    *optional,
                    "notes",
                    "path",
                ]
            )
            yield lambda row: writer.writerow(_csv_row(row, len(classes), optional))
        return
    rows: list[dict[str, object]] = []
    if table_format == "parquet":
        install = "-r requirements-datasets.txt"
        pyarrow = import_extra("pyarrow", "--format parquet", install)
        parquet = import_extra("pyarrow.parquet", "--format parquet", install)
    yield lambda row: rows.append(_plain_row(row, classes, optional))
    if table_format == "json":
        save_json(rows, out)
        return
    with atomic_path(out) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(rows), str(temporary))


def _csv_row(row: FilePrediction, n_classes: int, optional: Collection[str]) -> list[str]:
    scores = [""] * n_classes
    if row.scores is not None:
        scores = [f"{score:.6g}" for score in row.scores]
    texts = [row.status, row.reason, ";".join(row.labels)]
    if "not_sure" in optional:
        texts.append(";".join(row.not_sure))
    if "unlike" in optional:
        texts.append("" if row.unlike is None else f"{row.unlike:.3f}")
    texts += ["; ".join(row.notes), row.path]
    return [row.record_id, *scores, *map(safe_cell, texts)]


def _plain_row(
    row: FilePrediction, classes: Sequence[str], optional: Collection[str]
) -> dict[str, object]:
    """Return a row with the columns of the CSV; labels, not_sure and notes are lists.

    Without probabilities these are None, and so are labels and not_sure.
    """
    further = {
        "not_sure": None if row.scores is None else list(row.not_sure),
        "unlike": row.unlike,
    }
    scores = row.scores or [None] * len(classes)
    return {
        "record_id": storable(row.record_id),
        **dict(zip(classes, scores, strict=True)),
        "status": row.status,
        "reason": row.reason,
        "labels": None if row.scores is None else list(row.labels),
        **{name: further[name] for name in optional},
        "notes": list(row.notes),
        "path": storable(row.path),
    }


# Saliency maps ------------------------------------------------------------------------------------


def save_saliency(
    checkpoint: str | Path | Checkpoint,
    paths: Sequence[str | Path],
    folder: str | Path,
    *,
    method: str = METHODS[0],
    source_fs: float | None = None,
    source_gain_per_mv: float | None = None,
    leads: Sequence[str] = (),
    device: str = "cpu",
    long: str = "mean",
    predict_unfit: bool = False,
) -> str:
    """Save a saliency map of the most probable class of each record: a figure and its arrays.

    The files are named by the record id, ``.png`` and ``.npz``; a second record with the same id
    gets ``-2``. Records that cannot be predicted, and unfit ones without a prediction, are skipped.

    Parameters
    ----------
    checkpoint, paths, source_fs, source_gain_per_mv, leads, device, long, predict_unfit
        As for `predict_to_table`.
    folder
        Gets the files.
    method
        One of `src.classifier.saliency.METHODS`.

    Returns
    -------
    str
        The number of maps.

    Raises
    ------
    ValueError
        If the checkpoint or the method is wrong, or a path names nothing.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: expected one of {', '.join(METHODS)}")
    classifier = Classifier(load_checkpoint(checkpoint), device)
    used_stems: set[str] = set()
    for path in count_aloud(find_record_files(paths), "predict", "drawing saliency maps"):
        try:
            prediction = classifier.predict(
                path,
                fs=source_fs,
                gain_per_mv=source_gain_per_mv,
                leads=leads or None,
                saliency=method,
                long=long,
                predict_unfit=predict_unfit,
            )
        except (RecordError, RejectedError) as error:
            logger.info("no map: %s", error)
            continue
        if prediction.saliency is None:
            logger.info("no map: %s", prediction)
            continue
        stem = choose_stem(prediction.record_id, used_stems)
        used_stems.add(stem.casefold())
        _save_map(prediction, prediction.saliency, Path(folder) / stem)
    n_maps = len(used_stems)
    return f"{folder}: {n_maps} {'map' if n_maps == 1 else 'maps'} by {method}"


def choose_stem(record_id: str, used_stems: Container[str]) -> str:
    """Return an unused file stem for a record id; case does not distinguish file names."""
    name = re.sub(r"[^\w.-]+", "_", record_id)
    stem = name
    for number in count(2):
        if stem.casefold() not in used_stems:
            break
        stem = f"{name}-{number}"
    return stem


def plot_prediction(prediction: Prediction, remark: str = "") -> Figure:
    """Draw a prediction with its saliency map, under its probabilities, notes and a remark.

    Raises
    ------
    ValueError
        If the prediction has no map.
    """
    from src.plots.saliency import plot_saliency

    saliency = prediction.saliency
    if saliency is None:
        raise ValueError(f"{prediction}: has no saliency map: predict with saliency={METHODS[0]!r}")
    title = str(prediction)
    if saliency.window:
        title = f"{prediction}, window {saliency.window}"
    if prediction.notes:
        notes = textwrap.shorten("; ".join(prediction.notes), _NOTES_SHOWN, placeholder=" ...")
        title = f"{title}\n{notes}"
    return plot_saliency(
        saliency.signal_mv,
        saliency.values,
        saliency.fs,
        saliency.leads,
        title=f"{title}; {remark}" if remark else title,
        class_name=saliency.class_name,
        note=saliency.method.replace("_", " "),
        layout="3x4",
    )


def _save_map(prediction: Prediction, saliency: Saliency, stem: Path) -> None:
    from src.plots.canvas import save_figure

    save_figure(plot_prediction(prediction), stem.with_name(f"{stem.name}.png"))
    arrays = {name: np.asarray(value) for name, value in vars(saliency).items()}
    with atomic_path(stem.with_name(f"{stem.name}.npz")) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
