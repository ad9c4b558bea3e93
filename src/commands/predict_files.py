"""From paths that a user types to a CSV of class probabilities, and to pages that show what they
rest on.
"""

from __future__ import annotations

import csv
import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path

import numpy as np

from src.classifier.classifier import Classifier, Prediction
from src.classifier.file_predictions import TRAINED_ON, FilePrediction, predict_files
from src.classifier.saliency import METHODS, Saliency
from src.labels.text_tables import safe_cell
from src.learning.checkpoints import load_checkpoint
from src.processed.runs.pool import chunked
from src.processed.runs.tasks import RejectedError
from src.records.fetching import COPY_FIRST, fetched_records, holds_many
from src.records.folders import index_folder
from src.records.reading import READABLE_SUFFIXES, list_records
from src.records.record import RecordError
from src.utils import as_url, atomic_path

logger = logging.getLogger(__name__)


_BATCH = 64  # records fetched at a time


def find_record_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Yield the records that paths, folders (searched through) and globs name, each once;
    ``file::id`` for one of many.

    A path where nothing is comes out as it is: reading it says so, and the other files get their
    answers. What lies behind a URL comes as temporary copies, each there until the next is asked
    for.

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
                targets = [file]  # reading it will say what is wrong
            yield from (target for target in targets if target not in seen)
            seen.update(targets)


def _fetch(url: str) -> Iterator[Path]:
    """Yield copies of the record that a URL names, or of all below it, some at a time."""
    stem, suffix = os.path.splitext(url)
    if holds_many(url):
        raise ValueError(
            f"{url}: may hold many records, which are not read over a URL; {COPY_FIRST}"
        )
    if suffix.lower() in (*READABLE_SUFFIXES, ".dat"):
        urls = [f"{stem}.hea" if suffix.lower() == ".dat" else url]
    else:
        urls = [f"{url}/{record.relative}" for record in index_folder(url)]
    for batch in chunked(urls, _BATCH):
        with fetched_records(batch) as copies:
            yield from copies


def _expand(path: str | Path) -> list[Path]:
    if Path(path).is_dir():
        found = [Path(path) / record.relative for record in index_folder(path)]
        if not found:
            raise ValueError(
                f"{path}: no record in this folder; expected files of "
                f"{', '.join(READABLE_SUFFIXES)}"
            )
        return found
    if Path(path).exists() or not glob.has_magic(str(path)):
        return [Path(path)]
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    if not matches:
        raise ValueError(f"{path}: matches no file")
    return [file for match in matches for file in (_expand(match) if match.is_dir() else [match])]


def predict_to_csv(
    checkpoint: str | Path,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    source_fs: float | None = None,
    source_gain_per_mv: float | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    allow_overlap: bool = False,
) -> str:
    """Write one row per record: record_id, a probability per class, status, reason; returns a
    summary by status.

    Parameters
    ----------
    checkpoint
        A ``best.pth`` or ``latest.pth``.
    paths
        Record files, folders, URLs of these, or globs.
    out
        The CSV. The reason of an answer is empty, or says that the model was trained on the
        recording.
    source_fs, source_gain_per_mv, batch_size, device, allow_overlap
        As for `src.eval.predict_files`.

    Raises
    ------
    ValueError
        If the checkpoint is wrong, a path names nothing, or not one record could be read; the rows
        are written then too.
    """
    loaded = load_checkpoint(checkpoint, device)
    rows = predict_files(
        loaded,
        find_record_files(paths),
        source_fs=source_fs,
        source_gain_per_mv=source_gain_per_mv,
        batch_size=batch_size,
        device=device,
        allow_overlap=allow_overlap,
    )
    counts: Counter[str] = Counter()
    n_learned, n_risky, last, last_id = 0, 0, "", ""
    with (
        atomic_path(out) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["record_id", *map(safe_cell, loaded.card.classes), "status", "reason"])
        for row in rows:
            writer.writerow(_cells(row, len(loaded.card.classes)))
            n_risky += safe_cell(row.record_id) != row.record_id
            counts[row.status] += 1
            n_learned += row.reason == TRAINED_ON
            last, last_id = (row.reason, row.record_id) if row.reason else (last, last_id)
    if n_learned:
        logger.warning(
            "%s: the model was trained on %d of the recordings; the column reason marks them",
            out,
            n_learned,
        )
    if n_risky:
        logger.warning(
            "%s: %d record ids begin as a formula does and stand there unaltered: import "
            "that column as text",
            out,
            n_risky,
        )
    if not counts["ok"]:
        raise ValueError(
            f"{out}: not one of {counts.total()} records could be read, the last "
            f"({last_id}) because: {last}"
        )
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _cells(row: FilePrediction, n_classes: int) -> list[str]:
    scores = (
        [f"{score:.6g}" for score in row.scores] if row.scores is not None else [""] * n_classes
    )
    return [row.record_id, *scores, row.status, safe_cell(row.reason)]


def save_saliency(
    checkpoint: str | Path,
    paths: Sequence[str | Path],
    folder: str | Path,
    *,
    method: str = METHODS[0],
    source_fs: float | None = None,
    source_gain_per_mv: float | None = None,
    device: str = "cpu",
) -> str:
    """Save what the most probable class of each record rests on: a page (.png) and its numbers
    (.npz); returns a summary.

    The files go by the record's id; a second record of the same id gets ``-2``. Records that give
    no answer are left out.

    Parameters
    ----------
    checkpoint, paths, source_fs, source_gain_per_mv, device
        As for `predict_to_csv`.
    folder
        Gets the files.
    method
        One of `src.saliency.METHODS`.

    Raises
    ------
    ValueError
        If the checkpoint or the method is wrong, or a path names nothing.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: expected one of {', '.join(METHODS)}")
    classifier = Classifier(load_checkpoint(checkpoint), device)
    used: set[str] = set()
    for path in find_record_files(paths):
        try:
            answer = classifier.predict(
                path, fs=source_fs, gain_per_mv=source_gain_per_mv, saliency=method
            )
        except (RecordError, RejectedError) as error:
            logger.info("no map: %s", error)
            continue
        name = re.sub(r"[^\w.-]+", "_", answer.record_id)
        stem = next(
            stem
            for stem in chain([name], (f"{name}-{number}" for number in count(2)))
            if stem.casefold() not in used
        )
        used.add(stem.casefold())
        if answer.saliency is not None:
            _save_page(answer, answer.saliency, Path(folder) / stem)
    return f"{folder}: {len(used)} maps by {method}"


def _save_page(answer: Prediction, found: Saliency, stem: Path) -> None:
    from src.plots.canvas import save_figure
    from src.plots.saliency import plot_saliency

    note = f"orange for {found.class_name}, blue against it ({found.method})"
    title = str(answer) if not found.window else f"{answer}, window {found.window}"
    page = plot_saliency(
        found.signal_mv, found.values, found.fs, found.leads, title=title, note=note, layout="3x4"
    )
    save_figure(page, stem.with_name(f"{stem.name}.png"))
    arrays = {name: np.asarray(value) for name, value in vars(found).items()}
    with atomic_path(stem.with_name(f"{stem.name}.npz")) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
