"""Timelines of long recordings: a table, a figure and an annotation file for each."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.classifier.classifier import Classifier
from src.classifier.timeline import Timeline, list_spans
from src.commands.predict_files import choose_stem, find_record_files, source_files
from src.labels.collections.wfdb_annotations import UNKNOWN_RHYTHM, join_rhythms, name_rhythms
from src.labels.text_tables import safe_cell
from src.learning.checkpoints import Checkpoint, load_checkpoint
from src.processed.runs.heartbeat import Heartbeat
from src.records.reading import may_be_record, read_head, record_name
from src.records.record import RecordError
from src.utils import atomic_path, make_folder, printable_lines, temporary_folder

logger = logging.getLogger(__name__)

ANNOTATOR = "pred"
"""Suffix of the annotation files."""

_TIMES = ("start_s", "end_s")


def save_timelines(
    checkpoint: str | Path | Checkpoint,
    paths: Sequence[str | Path],
    folder: str | Path,
    *,
    say: Callable[[str], object] = logger.info,
    source_fs: float | None = None,
    source_gain_per_mv: float | None = None,
    leads: Sequence[str] = (),
    batch_size: int = 64,
    device: str = "cpu",
    allow_overlap: bool = False,
    predict_unfit: bool = False,
) -> str:
    """Predict the windows of long recordings, and save each recording's timeline.

    The files are named by the record id: ``.csv`` with a row per window, ``.png`` with the figure,
    ``.pred`` with the same as WFDB annotations. A second record with the same id gets ``-2``. A
    record that cannot be read to its end has none.

    Parameters
    ----------
    checkpoint, paths, source_fs, source_gain_per_mv, leads, device, predict_unfit
        As for `src.commands.predict_files.predict_to_table`.
    folder
        Gets the files.
    say
        Called with a line for each record.
    batch_size
        Windows per batch.
    allow_overlap
        Do not mark windows that the model was trained on.

    Returns
    -------
    str
        The number of timelines.

    Raises
    ------
    ValueError
        If the checkpoint is wrong, a path names nothing, a file to write is a recording, or no
        window of any record could be predicted; the files are written even then.
    """
    classifier = Classifier(load_checkpoint(checkpoint), device)
    folder = make_folder(folder)
    used_stems: set[str] = set()
    n_records = n_predicted = 0
    failure = ""
    for path in find_record_files(paths):
        n_records += 1
        stem = choose_stem(record_name(path), used_stems)
        files = _Files.of(folder, stem)
        # Before hours of a recording are predicted in vain
        _refuse_recordings(files, path)
        try:
            with Heartbeat("predict", f"predicting the windows of {record_name(path)}"):
                timeline = classifier.timeline(
                    path,
                    fs=source_fs,
                    gain_per_mv=source_gain_per_mv,
                    leads=leads or None,
                    batch_size=batch_size,
                    allow_overlap=allow_overlap,
                    predict_unfit=predict_unfit,
                )
        except RecordError as error:
            failure = printable_lines(f"{record_name(path)}: unreadable ({error.message})")
            say(failure)
            continue
        used_stems.add(stem.casefold())
        _save(timeline, files)
        say(str(timeline))
        if any(timeline.is_predicted):
            n_predicted += 1
        else:
            failure = str(timeline)
    if not n_predicted:
        advice = "; --predict-unfit predicts for unfit windows all the same"
        raise ValueError(
            f"{folder}: not one window of {n_records} records could be predicted, the last: "
            f"{failure}{advice if 'unfit' in failure else ''}"
        )
    n_saved = len(used_stems)
    return f"{folder}: {n_saved} {'timeline' if n_saved == 1 else 'timelines'}"


class _Files(NamedTuple):
    """The files of a timeline."""

    table: Path
    figure: Path
    annotations: Path

    @classmethod
    def of(cls, folder: Path, stem: str) -> _Files:
        """Return the files of a record by their stem."""
        return cls(*(folder / f"{stem}{suffix}" for suffix in (".csv", ".png", f".{ANNOTATOR}")))


def _save(timeline: Timeline, files: _Files) -> None:
    save_timeline_table(timeline, files.table)
    save_timeline_figure(timeline, files.figure)
    with atomic_path(files.annotations) as temporary:
        temporary.write_bytes(annotation_bytes(timeline))


def _refuse_recordings(files: _Files, path: Path) -> None:
    """Refuse to replace a recording, or a file of the one that was read."""
    sources = set(map(os.path.realpath, source_files(path)))
    for file in files:
        if not file.is_file() or _is_timeline(file):
            continue
        if os.path.realpath(file) in sources or may_be_record(file):
            raise ValueError(f"{file}: is a recording: expected another folder for the timelines")


def _is_timeline(file: Path) -> bool:
    """Return whether a file is the table of an earlier timeline, which may look like a signal."""
    return read_head(file).startswith(",".join(_TIMES).encode())


def save_timeline_table(timeline: Timeline, path: str | Path) -> None:
    """Write a row per window: start_s, end_s, a probability per class, labels and notes.

    A window without a prediction has no probabilities, and its note says why.
    """
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*_TIMES, *map(safe_cell, timeline.classes), "labels", "notes"])
        writer.writerows(_iter_rows(timeline))


def _iter_rows(timeline: Timeline) -> Iterator[list[str]]:
    times = np.stack([timeline.start_s, timeline.end_s], axis=1).tolist()
    columns = times, timeline.scores.tolist(), timeline.labels, timeline.notes
    for seconds, scores, labels, notes in zip(*columns, strict=True):
        texts = [f"{score:.6g}" if score == score else "" for score in scores]
        ends = [safe_cell(";".join(labels)), safe_cell("; ".join(notes))]
        yield [*map(_seconds, seconds), *texts, *ends]


def _seconds(value: float) -> str:
    """Return a time to the microsecond, which tells the samples of any ECG apart."""
    text = f"{value:.6f}"
    return text.rstrip("0").rstrip(".")


def save_timeline_figure(timeline: Timeline, path: str | Path) -> None:
    """Draw a timeline and save it as .png, .svg or .pdf."""
    from src.plots.canvas import save_figure
    from src.plots.timeline import TimelineStrip, plot_timeline

    # The classes of the longest time have strips.
    counts = {name: sum(name in labels for labels in timeline.labels) for name in timeline.classes}
    strips = [
        TimelineStrip(
            f"{each.class_name} {each.score:.3f}", each.start_s, each.signal_mv, each.fs, each.leads
        )
        for each in sorted(timeline.excerpts, key=lambda each: -counts[each.class_name])
    ]
    figure = plot_timeline(
        timeline.start_s,
        timeline.end_s,
        timeline.scores,
        timeline.classes,
        predicted=timeline.labels,
        strips=strips,
        title=str(timeline),
    )
    save_figure(figure, path)


def annotation_bytes(timeline: Timeline) -> bytes:
    """Return the predicted classes as a WFDB annotation file.

    It has a rhythm annotation (``+``) where the predicted classes change, in samples of the
    recording: ``(AFIB`` for a rhythm that `src.labels.collections.wfdb_annotations` knows, else
    ``(`` and the name of the class; ``(U`` where nothing is predicted.
    """
    import wfdb

    codes = name_rhythms(timeline.classes)
    samples, notes = [], []
    for span in list_spans(timeline):
        code = UNKNOWN_RHYTHM
        if span.labels is not None:
            code = join_rhythms([codes[label] for label in span.labels])
        samples.append(round(span.start_s * timeline.fs))
        notes.append(f"({code}")
    with temporary_folder() as folder:
        # The package takes few characters in a name.
        wfdb.wrann(
            "timeline",
            ANNOTATOR,
            np.array(samples, np.int64),
            symbol=["+"] * len(samples),
            aux_note=notes,
            fs=timeline.fs,
            write_dir=str(folder),
        )
        return (folder / f"timeline.{ANNOTATOR}").read_bytes()
