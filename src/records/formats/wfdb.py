"""WFDB records: a header beside samples in .dat or .mat files, in one piece or in segments.

The common storage formats (16, 24, 32, 61, 80, 160 and 212, with a byte offset as in the PhysioNet
Challenges' ``16+24``) are decoded in `wfdb_samples`, all others by the ``wfdb`` package.
Format: WFDB Applications Guide, signal(5).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.records.facts import parse_age, parse_sex
from src.records.formats.wfdb_header import GAP, Header, Segment, read_header, with_hints
from src.records.formats.wfdb_package import check_amount
from src.records.formats.wfdb_piece import (
    Selection,
    check_limit,
    count_frames,
    find_signals,
    lacks_voltage,
    read_piece,
    select_signals,
    sibling_file,
)
from src.records.formats.wfdb_samples import MISSING
from src.records.record import ECGRecord, Extent, ReadingHints, RecordError, RecordRequest
from src.utils import Float32Array

# Signal files that are opened, and signals that are decoded, to join the segments of a record.
# Monitors write thousands of segments; a hostile header names one of them again and again.
_MAX_OPENED = 10_000
_MAX_SIGNALS = 400_000
# Files that are opened in the time that the package takes for one.
_OPENED_BY_PACKAGE = 20
# A record may be mostly gaps: up to this number, its files may be of any size.
_FEW_VALUES = 2**26
_VALUES_PER_BYTE = 4


def read_wfdb(path: Path, request: RecordRequest) -> ECGRecord:
    """Read the ECG signals of a WFDB record; `path` is its header (.hea).

    Raises
    ------
    RecordError
        If the header or a signal file is missing, damaged, shorter than promised or in an unknown
        format, or no signal is an ECG.
    """
    header = with_hints(read_header(path), request.hints)
    if header.segments:
        return _read_segments(header, request)
    selection = select_signals(header, request.hints.leads)
    start, stop = _clip(header, request, count_frames(header) * selection.per_frame)
    signal, flags = read_piece(header, selection, start, stop)
    names = tuple([header.signals[row].description for row in selection.rows])
    flags = [*flags, *selection.flags, *_assumed_gains(header, selection)]
    return _build_record(header, signal, names, selection, flags)


def wfdb_extent(path: Path, request: RecordRequest) -> Extent:
    """Return the length and rate of a record, from its header alone where it gives them."""
    header = with_hints(read_header(path), request.hints)
    if header.segments:
        _, selection = _segment_signals(header, request.hints)
        n_frames = sum(segment.n_samples for segment in header.segments)
    else:
        selection = select_signals(header, request.hints.leads)
        n_frames = count_frames(header)
    return Extent(n_frames * selection.per_frame, header.fs * selection.per_frame)


def _clip(header: Header, request: RecordRequest, total: int) -> tuple[int, int]:
    """Return the first sample to read and the one after the last, within `total` samples."""
    stop = total if request.stop is None else min(request.stop, total)
    if stop <= request.start:
        raise RecordError(header.path, "holds no samples: expected one or more")
    return request.start, stop


def _assumed_gains(header: Header, selection: Selection) -> list[str]:
    """Return a flag for each signal read whose gain the header does not give."""
    read = [header.signals[row] for row in selection.rows]
    return [f"gain_assumed:{spec.description}" for spec in read if spec.gain_assumed]


# Segments -----------------------------------------------------------------------------------------


def _read_segments(header: Header, request: RecordRequest) -> ECGRecord:
    """Join the samples asked for from the segments that hold them.

    Gaps, and leads that a segment does not have, are NaN.
    """
    n_frames = sum(segment.n_samples for segment in header.segments)
    if header.n_samples not in (None, n_frames):
        raise RecordError(
            header.path,
            f"segments have {n_frames} samples, the record line promises {header.n_samples}",
        )
    layout, selection = _segment_signals(header, request.hints)
    per_frame = selection.per_frame
    start, stop = _clip(header, request, n_frames * per_frame)
    n_values = (stop - start) * len(selection.rows)
    check_limit(header, n_values)
    if n_values > _FEW_VALUES:
        files = {segment.name for segment in header.segments}
        check_amount(header, n_values, files, _VALUES_PER_BYTE)
    signal = np.full((len(selection.rows), stop - start), np.nan, np.float32)
    # Segments repeat their flags: a dict keeps each once, in order.
    flags: dict[str, None] = dict.fromkeys(selection.flags)
    placed = list(_segments_between(header, start, stop, per_frame))
    pieces = _open_pieces(header, placed, (layout, selection), request.hints)
    for segment, first in placed:
        begin = max(first, start)
        end = min(first + segment.n_samples * per_frame, stop)
        target = signal[:, begin - start : end - start]
        found = _fill_from_segment(header, segment, pieces[segment.name], begin - first, target)
        flags |= dict.fromkeys(found)
    names = tuple(layout.signals[row].description for row in selection.rows)
    return _build_record(header, signal, names, selection, list(flags))


def _segments_between(
    header: Header, start: int, stop: int, per_frame: int
) -> Iterator[tuple[Segment, int]]:
    """Yield the segments with samples in [start, stop), each with the place of its first sample."""
    first = 0
    for segment in header.segments:
        n_samples = segment.n_samples * per_frame
        if segment.name != GAP and max(first, start) < min(first + n_samples, stop):
            yield segment, first
        first += n_samples


def _open_pieces(
    header: Header,
    placed: list[tuple[Segment, int]],
    reference: tuple[Header, Selection],
    hints: ReadingHints,
) -> dict[str, _Piece]:
    """Return the segments to read by name; a record may name one many times.

    The files that have to be opened are counted before the first sample is read.

    Raises
    ------
    RecordError
        If there are too many.
    """
    pieces: dict[str, _Piece] = {}
    n_opened = n_signals = 0
    for segment, _ in placed:
        piece = pieces.get(segment.name)
        if piece is None:
            piece = pieces[segment.name] = _open_piece(header, segment.name, reference, hints)
        n_opened += piece.n_opened
        n_signals += len(piece.header.signals)
        if n_opened > _MAX_OPENED or n_signals > _MAX_SIGNALS:
            raise RecordError(
                header.path,
                f"takes over {_MAX_OPENED} signal files or {_MAX_SIGNALS} signals at once: "
                "read it in windows (window_s)",
            )
    return pieces


def _segment_signals(header: Header, hints: ReadingHints) -> tuple[Header, Selection]:
    """Return the header that lists the signals of a record in segments, and those to read.

    It is that of the layout segment, which has no samples, or of the first segment that is not a
    gap.
    """
    segments = [segment for segment in header.segments if segment.name != GAP]
    if not segments:
        raise RecordError(header.path, "has no segment but gaps: expected samples")
    layout = _segment_header(header, segments[0].name, hints)
    with _segment_errors(header, segments[0].name):
        selection = select_signals(layout, hints.leads)
    # A layout may say one sample a frame where its segments have several.
    if not segments[0].n_samples and len(segments) > 1:
        following = find_signals(_segment_header(header, segments[1].name, hints), hints.leads)
        selection = selection._replace(per_frame=max(selection.per_frame, following.per_frame))
    return layout, selection


def _segment_header(header: Header, name: str, hints: ReadingHints) -> Header:
    path = Path(sibling_file(header, f"{name}.hea", "segment"))
    with _segment_errors(header, name):
        segment_header = with_hints(read_header(path), hints)
    if segment_header.segments:
        raise RecordError(
            header.path, f"segment {name} is made of segments itself: expected samples"
        )
    return segment_header


class _Piece(NamedTuple):
    """A segment that is read.

    Attributes
    ----------
    header, selection
        Its header, and the signals of it to read.
    rows
        Row of each of them in the record, None for one that the record does not read.
    unknown
        Name of a signal that the record does not list, empty if there is none.
    wanted
        Names of the signals that the record reads.
    n_opened
        Files that are opened for it each time; one that the package decodes counts as many.
    """

    header: Header
    selection: Selection
    rows: tuple[int | None, ...]
    unknown: str
    wanted: tuple[str, ...]
    n_opened: int


def _open_piece(
    header: Header, name: str, layout: tuple[Header, Selection], hints: ReadingHints
) -> _Piece:
    """Read the header of a segment, and find the signals of the record in it."""
    piece = _segment_header(header, name, hints)
    found = find_signals(piece, hints.leads)
    listed, selection = layout
    wanted = _numbered([listed.signals[row].description for row in selection.rows])
    row_of = {name: row for row, name in enumerate(wanted)}
    names = _numbered([piece.signals[row].description for row in found.rows])
    known = {spec.description for spec in listed.signals}
    return _Piece(
        piece,
        found._replace(per_frame=selection.per_frame),
        tuple([row_of.get(name) for name in names]),
        next((name for name, _ in names if name not in known), ""),
        tuple([name for name, _ in wanted]),
        sum(
            1 if fmt in MISSING else _OPENED_BY_PACKAGE
            for _, fmt in {(spec.file, spec.fmt) for spec in piece.signals}
        ),
    )


def _fill_from_segment(
    header: Header, segment: Segment, piece: _Piece, start: int, target: Float32Array
) -> tuple[str, ...]:
    """Fill `target` with a segment's samples from `start` on, and return the segment's flags.

    The rows of `target` are the selected signals of the layout. A lead that the segment does not
    have is left as it is.
    """
    found = piece.selection
    # A monitor writes such segments while the ECG is disconnected: that part stays NaN.
    if lacks_voltage(piece.header):
        return found.flags
    _check_segment(header, segment, piece.header)
    if not found.rows:
        return found.flags
    with _segment_errors(header, segment.name):
        signal, flags = read_piece(piece.header, found, start, start + target.shape[1])
    if piece.unknown:
        raise RecordError(
            header.path,
            f"segment {segment.name} has lead {piece.unknown!r}, the record has "
            f"{', '.join(piece.wanted)}",
        )
    for row, values in zip(piece.rows, signal, strict=True):
        if row is not None:
            target[row] = values
    return (*flags, *found.flags, *_assumed_gains(piece.header, found))


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return each name with the number of the same names before it."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        numbered.append((name, seen[name]))
        seen[name] += 1
    return numbered


def _check_segment(header: Header, segment: Segment, segment_header: Header) -> None:
    """Check that a segment has the rate and length that the record's header gives."""
    with _segment_errors(header, segment.name):
        n_samples = count_frames(segment_header)
    if segment_header.fs != header.fs or n_samples != segment.n_samples:
        raise RecordError(
            header.path,
            f"segment {segment.name} has {n_samples} samples at {segment_header.fs:g} Hz, the "
            f"record says {segment.n_samples} at {header.fs:g} Hz",
        )


@contextmanager
def _segment_errors(header: Header, name: str) -> Iterator[None]:
    """Re-raise an error of a segment's own files under the name of the requested record."""
    try:
        yield
    except RecordError as error:
        raise RecordError(header.path, f"segment {name}: {error.message}") from None


# Facts -------------------------------------------------------------------------------------------


def _build_record(
    header: Header,
    signal: Float32Array,
    leads: tuple[str, ...],
    selection: Selection,
    flags: list[str],
) -> ECGRecord:
    """Return the record with age, sex and codes from the header's comments."""
    facts = header.facts
    if header.fs_assumed:
        flags = [*flags, "fs_assumed"]
    return ECGRecord(
        record_id=header.path.stem,
        signal=signal,
        fs=header.fs * selection.per_frame,
        leads=leads,
        codes=tuple(filter(None, re.split(r"[,;\s]+", facts["dx"]))) if "dx" in facts else (),
        age=parse_age(facts.get("age")),
        sex=parse_sex(facts.get("sex")),
        flags=tuple(flags),
        unused=selection.unused,
    )
