"""Predictions for files: a CSV of class probabilities, and saliency maps of the top class."""

from __future__ import annotations

import csv
import glob
import logging
import os
import re
import textwrap
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from src.classifier.classifier import Classifier, Prediction
from src.classifier.file_predictions import TRAINED_ON, FilePrediction, predict_files
from src.classifier.saliency import METHODS, Saliency
from src.labels.text_tables import safe_cell
from src.learning.checkpoints import load_checkpoint
from src.processed.runs.heartbeat import count_aloud
from src.processed.runs.pool import chunked
from src.processed.runs.tasks import RejectedError
from src.records.fetching import COPY_FIRST, fetched_records, holds_many
from src.records.folders import index_folder
from src.records.formats.wfdb_piece import iter_source_files
from src.records.reading import READABLE_SUFFIXES, list_records
from src.records.record import RecordError, split_part
from src.utils import as_url, atomic_path

logger = logging.getLogger(__name__)

# Records at URLs that are fetched at a time.
_N_FETCHED = 64
# Characters of the notes that a map's title has room for
_NOTES_SHOWN = 140


def find_record_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Yield the records that files, folders (searched recursively), globs and URLs name, each once.

    A record of a file that holds many is ``file::id``. A missing path is yielded unchanged, so that
    reading it reports the error and the other files are still predicted. Records at URLs are
    temporary copies, which exist until the next record is requested.

    Raises
    ------
    ValueError
        If a folder holds no record or a glob matches nothing.
    """
    seen: set[Path] = set()
    for path in paths:
        if url := as_url(path):
            yield from _fetch(url)
            continue
        for file in _expand(path):
            try:
                targets = list_records(file)
            except RecordError:
                # Reading it will report the error.
                targets = [file]
            yield from (target for target in targets if target not in seen)
            seen.update(targets)


def _fetch(url: str) -> Iterator[Path]:
    """Yield temporary copies of the record at a URL, or of all records below it."""
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
            yield from copies


def _expand(path: str | Path) -> list[Path]:
    """Return the record files that a path, a folder or a glob names."""
    if Path(path).is_dir():
        files = [Path(path) / record.relative for record in index_folder(path)]
        if not files:
            raise ValueError(
                f"{path}: no record in this folder; expected files of "
                f"{', '.join(READABLE_SUFFIXES)}"
            )
        return files
    if Path(path).exists() or not glob.has_magic(str(path)):
        return [Path(path)]
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    if not matches:
        raise ValueError(f"{path}: matches no file")
    files = []
    for match in matches:
        files += _expand(match) if match.is_dir() else [match]
    return files


def _refuse_as_output(records: Iterable[Path], out: Path) -> Iterator[Path]:
    """Yield records; refuse one whose file, or signal file, the output would replace."""
    target = Path(os.path.realpath(out))
    for record in records:
        file = split_part(record)[0]
        if target.is_file() and file.is_file() and file.resolve().parent == target.parent:
            sources = [str(file)]
            if file.suffix.lower() == ".hea":
                sources += iter_source_files(file)
            if str(target) in map(os.path.realpath, sources):
                raise ValueError(f"{out}: is one of the recordings: expected another file to write")
        yield record


def predict_to_csv(
    checkpoint: str | Path,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    source_fs: float | None = None,
    source_gain_per_mv: float | None = None,
    leads: Sequence[str] = (),
    batch_size: int = 64,
    device: str = "cpu",
    allow_overlap: bool = False,
    long: str = "mean",
    predict_unfit: bool = False,
) -> str:
    """Write a CSV with a row per record.

    Its columns are record_id, a probability per class, status, reason and notes.

    Parameters
    ----------
    checkpoint
        A ``best.pth`` or ``latest.pth``.
    paths
        Record files, folders, URLs of these, or globs.
    out
        The CSV file. The reason is empty for a prediction, unless the model was trained on the
        recording.
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
    rows = predict_files(
        loaded,
        _refuse_as_output(find_record_files(paths), Path(out)),
        source_fs=source_fs,
        source_gain_per_mv=source_gain_per_mv,
        leads=leads,
        batch_size=batch_size,
        device=device,
        allow_overlap=allow_overlap,
        long=long,
        predict_unfit=predict_unfit,
    )
    counts: Counter[str] = Counter()
    n_predicted = 0
    n_trained_on = 0
    n_formulas = 0
    last_failure = ("", "")
    with (
        atomic_path(out) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        classes = map(safe_cell, loaded.card.classes)
        writer.writerow(["record_id", *classes, "status", "reason", "notes"])
        for row in count_aloud(rows, "predict", "reading and predicting records"):
            writer.writerow(_format_row(row, len(loaded.card.classes)))
            counts[row.status] += 1
            n_predicted += row.scores is not None
            n_trained_on += row.reason == TRAINED_ON
            n_formulas += safe_cell(row.record_id) != row.record_id
            if row.reason:
                last_failure = (row.record_id, row.reason)
    if n_trained_on:
        logger.warning(
            "%s: the model was trained on %d of the recordings; the column reason marks them",
            out,
            n_trained_on,
        )
    if n_formulas:
        logger.warning(
            "%s: %d record ids begin like a formula and are written unchanged: import that "
            "column as text",
            out,
            n_formulas,
        )
    if counts["unfit"] and n_predicted:
        logger.warning(
            "%s: %d recordings are unfit for the network; the column reason says why",
            out,
            counts["unfit"],
        )
    if not n_predicted:
        record_id, reason = last_failure
        done, advice = "read", ""
        if counts["unfit"]:
            done, advice = "predicted", "; --predict-unfit predicts for unfit ones all the same"
        raise ValueError(
            f"{out}: not one of {counts.total()} records could be {done}, the last "
            f"({record_id}) because: {reason}{advice}"
        )
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _format_row(row: FilePrediction, n_classes: int) -> list[str]:
    if row.scores is None:
        scores = [""] * n_classes
    else:
        scores = [f"{score:.6g}" for score in row.scores]
    notes = safe_cell("; ".join(row.notes))
    return [row.record_id, *scores, row.status, safe_cell(row.reason), notes]


def save_saliency(
    checkpoint: str | Path,
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
        As for `predict_to_csv`.
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
        stem = _choose_stem(prediction.record_id, used_stems)
        used_stems.add(stem.casefold())
        _save_map(prediction, prediction.saliency, Path(folder) / stem)
    return f"{folder}: {len(used_stems)} maps by {method}"


def _choose_stem(record_id: str, used_stems: Container[str]) -> str:
    """Return an unused file stem for a record id; case does not distinguish file names."""
    name = re.sub(r"[^\w.-]+", "_", record_id)
    stem = name
    for number in count(2):
        if stem.casefold() not in used_stems:
            break
        stem = f"{name}-{number}"
    return stem


def _save_map(prediction: Prediction, saliency: Saliency, stem: Path) -> None:
    from src.plots.canvas import save_figure
    from src.plots.saliency import plot_saliency

    title = str(prediction)
    if saliency.window:
        title = f"{prediction}, window {saliency.window}"
    if prediction.notes:
        notes = textwrap.shorten("; ".join(prediction.notes), _NOTES_SHOWN, placeholder=" ...")
        title = f"{title}\n{notes}"
    figure = plot_saliency(
        saliency.signal_mv,
        saliency.values,
        saliency.fs,
        saliency.leads,
        title=title,
        class_name=saliency.class_name,
        note=saliency.method.replace("_", " "),
        layout="3x4",
    )
    save_figure(figure, stem.with_name(f"{stem.name}.png"))
    arrays = {name: np.asarray(value) for name, value in vars(saliency).items()}
    with atomic_path(stem.with_name(f"{stem.name}.npz")) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
