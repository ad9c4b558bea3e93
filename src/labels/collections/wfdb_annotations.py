"""Mapping rows with times from WFDB annotation files: spans of rhythm, and beats.

Facts about the known collections are from their pages on PhysioNet. LUDB and others whose files
mark waves, lead by lead, have no labels of this kind.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from src.labels.collections.rows import (
    Request,
    Row,
    age_text,
    build_frame,
    list_files,
    name_records,
    read_comments,
    report_missing,
    sex_text,
)
from src.labels.crosswalk import BEATS, RHYTHMS, ClassSet
from src.records.formats.wfdb import wfdb_extent
from src.records.formats.wfdb_annotations import Annotations, read_annotations
from src.records.formats.wfdb_header import parse_comments, read_header
from src.records.record import Extent, RecordError, RecordRequest
from src.utils import UsageError, printable

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


TASKS = ("own",)
OPTIONS = ("annotator", "what", "collection")
BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")
_QUALITY = "~"
# Bits of the subtype of a quality change: the upper four say of a signal that it is unreadable.
_UNREADABLE = (0x10, 0x20, 0x40, 0x80)
_UNKNOWN_RHYTHMS = frozenset({"", "U", "?", "UNKNOWN", "NAN", "NAT"})
_MAX_CODE = 40
_RHYTHM = re.compile(rf"[A-Za-z0-9?][A-Za-z0-9 ./+_-]{{0,{_MAX_CODE - 1}}}|")
UNKNOWN_RHYTHM, NO_CLASS = "U", "NONE"
"""Codes of a time without a prediction, and of one in which no class is predicted."""
_PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class Collection:
    """What is known of a collection, beside its files.

    Attributes
    ----------
    rhythms, beats
        Codes that its annotators looked for, beside those that occur.
    first_rhythm
        The rhythm before the first change, where the collection defines it.
    unknown_beats
        Symbols that mark a beat without telling its class.
    patient
        Pattern of a record's name, whose first group is the patient; empty if no patient is known.
    patient_comment
        Pattern of a comment in the header, whose first group is the patient.
    same_patient
        Record -> another record of the same patient.
    """

    rhythms: tuple[str, ...] = ()
    beats: str = ""
    first_rhythm: str = ""
    unknown_beats: str = ""
    patient: re.Pattern[str] | None = None
    patient_comment: re.Pattern[str] | None = None
    same_patient: dict[str, str] = field(default_factory=dict)


COLLECTIONS = {
    "mitdb": Collection(
        rhythms=(
            *("AB", "AFIB", "AFL", "B", "BII", "IVR", "N", "NOD"),
            *("P", "PREX", "SBR", "SVTA", "T", "VFL", "VT"),
        ),
        beats="NLRAaJSVFejE/fQ",
        patient=re.compile("(.+)"),
        same_patient={"202": "201"},
    ),
    "afdb": Collection(rhythms=("AFIB", "AFL", "J", "N"), patient=re.compile("(.+)")),
    "svdb": Collection(beats="NSVFQ"),
    "ltafdb": Collection(
        rhythms=("N", "SVTA", "VT", "AFIB", "B", "T", "IVR", "AB", "SBR"),
        beats="NAV",
        patient=re.compile("(.+)"),
    ),
    # Its subjects had no significant arrhythmias.
    "nsrdb": Collection(beats="NSVF", first_rhythm="N", patient=re.compile("(.+)")),
    "incartdb": Collection(
        beats="NVRAFnjSBQ", patient_comment=re.compile(r"patient\s+(\d{1,3})", re.IGNORECASE)
    ),
    # Only the ends of episodes are annotated; N is all that is neither fibrillation nor flutter.
    "cpsc2021": Collection(
        rhythms=("AFIB", "AFL", "N"), first_rhythm="N", patient=re.compile(r"data_(\d+)_\d+")
    ),
    "icentia11k": Collection(
        rhythms=("N", "AFIB", "AFL"),
        beats="NSV",
        unknown_beats="Q",
        patient=re.compile(r"(p\d+)_s\d+"),
    ),
}
"""Name -> settings of a known collection."""


_RHYTHM_CODES = frozenset(code for known in COLLECTIONS.values() for code in known.rhythms)
# Classes of the crosswalk that are the same rhythm under another name
_OF_CROSSWALK = {
    "NSR": "N",
    "SB": "SBR",
    "AF": "AFIB",
    "AVJR": "NOD",
    "VBig": "B",
    "VTrig": "T",
    "IR": "IVR",
    "VTach": "VT",
    "PR": "P",
    "IIAVB": "BII",
    "WPW": "PREX",
}


def name_rhythms(classes: Sequence[str]) -> dict[str, str]:
    """Return class -> code in an annotation file, which `build_annotations` reads; all differ.

    A class that is a rhythm of the known collections has its code there, any other class its name
    without the characters that no code has.
    """
    codes: dict[str, str] = {}
    used = {NO_CLASS, *_UNKNOWN_RHYTHMS}
    # A class that is called as a code has it, whatever else means the same.
    for name in sorted(classes, key=lambda name: name not in _RHYTHM_CODES):
        plain = (
            re.sub(r"[^A-Za-z0-9 ./_-]", "_", name)[: _MAX_CODE - 4].strip().lstrip(" ./_-") or "X"
        )
        known = _OF_CROSSWALK.get(name, name.upper())
        candidates = [known] if known in _RHYTHM_CODES else []
        candidates += [plain, *(f"{plain}-{number}" for number in range(2, len(classes) + 4))]
        codes[name] = next(code for code in candidates if code not in used)
        used.add(codes[name])
    return {name: codes[name] for name in classes}


def join_rhythms(codes: Sequence[str]) -> str:
    """Return the code of several classes at a time: ``AFIB+PVC``, as many as a code has room for.

    `NO_CLASS` stands for none of them.
    """
    joined = ""
    for code in codes:
        longer = f"{joined}+{code}" if joined else code
        if len(longer) > _MAX_CODE:
            break
        joined = longer
    return joined or NO_CLASS


class _Mark(NamedTuple):
    """A code of a rhythm or a beat, and its place in samples; a beat has no length."""

    start: int
    stop: int
    code: str


@dataclass
class _AnnotatedRecord:
    """A record with its marks, its rate in Hz and the comments of its header."""

    path: str
    marks: list[_Mark]
    fs: float
    comments: tuple[str, ...]


def build_annotations(request: Request) -> pd.DataFrame:
    """Build a row per span of rhythm, or per beat, from the annotation files below the root.

    Raises
    ------
    ValueError
        If there is no annotation file, or no mark in any of them.
    """
    options = request.options
    if options.what not in ("rhythm", "beats"):
        raise UsageError("what is not given: expected --what rhythm or --what beats")
    name = options.collection or request.dataset
    if options.collection and options.collection not in COLLECTIONS:
        raise UsageError(
            f"collection {options.collection!r} is unknown: expected {', '.join(COLLECTIONS)}"
        )
    collection = COLLECTIONS.get(name, Collection())
    records = _read_records(request, collection)
    codes = _list_codes(records, collection, options.what)
    if not codes:
        raise ValueError(
            f"{request.root}: the annotator {options.annotator!r} marks no {options.what} in "
            f"{len(records)} records: is it another annotator, or --what?"
        )
    return build_frame(request.dataset, list(_iter_rows(request, collection, records, codes)))


def _list_codes(
    records: Sequence[_AnnotatedRecord], collection: Collection, what: str
) -> tuple[str, ...]:
    """Return the codes that the annotators looked for; none if no record has any."""
    found = dict.fromkeys(mark.code for record in records for mark in record.marks)
    if not found:
        return ()
    known = collection.rhythms if what == "rhythm" else tuple(collection.beats)
    return tuple(dict.fromkeys((*known, *sorted(found))))


# Files --------------------------------------------------------------------------------------------


def _read_records(request: Request, collection: Collection) -> list[_AnnotatedRecord]:
    """Read all annotation files below the root; those that cannot be used are reported."""
    suffix = f".{request.options.annotator}"
    files = list_files(request.root, (suffix.lower(),))
    files = [file for file in files if file.endswith(suffix)]
    if not files:
        raise ValueError(
            f"{request.root}: no annotation file *{suffix} below it; choose another annotator with "
            f"--annotator: {_name_annotators(request.root)}"
        )
    records = []
    problems = []
    without_signal = []
    for file in files:
        path = file[: -len(suffix)]
        if not (request.root / f"{path}.hea").is_file():
            without_signal.append(path)
            continue
        try:
            records.append(_read_record(request, path, collection))
        except (OSError, ValueError) as error:
            problems.append(str(error))
    report_missing(request.dataset, without_signal, "have no header and are skipped")
    for problem in problems[:_PROBLEMS_SHOWN]:
        logger.warning("%s: a record is skipped: %s", request.dataset, problem)
    if len(problems) > _PROBLEMS_SHOWN:
        n_more = len(problems) - _PROBLEMS_SHOWN
        logger.warning("%s: %d more records are skipped", request.dataset, n_more)
    if not records:
        raise ValueError(problems[0] if problems else f"{request.root}: no record with a header")
    return records


def _name_annotators(root: Path) -> str:
    """Return the suffixes of the files beside the headers, for a message."""
    stems = {file[:-4] for file in list_files(root, (".hea",))}
    suffixes = set()
    for file in list_files(root, ("",)):
        stem, _, suffix = file.rpartition(".")
        if stem in stems and suffix not in ("hea", "dat", "mat"):
            suffixes.add(suffix)
    return printable(", ".join(sorted(suffixes)[:10])) or "there is none"


def _read_record(request: Request, path: str, collection: Collection) -> _AnnotatedRecord:
    """Read the marks of a record.

    Raises
    ------
    ValueError
        If a file is broken, or an annotation lies beyond the record's end.
    """
    header = request.root / f"{path}.hea"
    file = request.root / f"{path}.{request.options.annotator}"
    extent = wfdb_extent(header, RecordRequest())
    if extent is None:
        raise RecordError(header, "does not state its length: expected the number of samples")
    annotations = read_annotations(file)
    # Samples of the annotation file, whose clock may be another.
    fs = annotations.fs or extent.fs
    n_samples = round(extent.n_samples / extent.fs * fs)
    _check_end(file, annotations, n_samples, extent)
    if request.options.what == "beats":
        marks = _find_beats(annotations, collection)
    else:
        n_signals = len(read_header(header).signals)
        for place, note in annotations.notes.items():
            if note.startswith("(") and not _RHYTHM.fullmatch(note[1:].strip()):
                raise RecordError(
                    file,
                    f"annotation {place + 1} names the rhythm {printable(repr(note[1:]))}: "
                    "expected a code such as AFIB",
                )
        marks = _find_rhythms(annotations, n_samples, n_signals, collection)
    return _AnnotatedRecord(path, marks, fs, read_comments(header))


def _check_end(file: Path, annotations: Annotations, n_samples: int, extent: Extent) -> None:
    """Refuse annotations after the record's end, at which a last one may stand."""
    n_beyond = int((annotations.samples > n_samples).sum())
    if n_beyond:
        place = len(annotations.samples) - n_beyond
        raise RecordError(
            file,
            f"annotation {place + 1} is at sample {annotations.samples[place]}, the record ends at "
            f"{n_samples} ({extent.n_samples / extent.fs:g} s): expected annotations of this "
            "record",
        )


# Marks --------------------------------------------------------------------------------------------


def _find_beats(annotations: Annotations, collection: Collection) -> list[_Mark]:
    """Return the beats whose class is known."""
    wanted = BEAT_SYMBOLS - set(collection.unknown_beats)
    return [
        _Mark(sample, sample, symbol)
        for sample, symbol in zip(annotations.samples.tolist(), annotations.symbols, strict=True)
        if symbol in wanted
    ]


def _find_rhythms(
    annotations: Annotations, n_samples: int, n_signals: int, collection: Collection
) -> list[_Mark]:
    """Return the spans of rhythm, from each change to the next or the end.

    Spans of unknown rhythm are left out, and so are parts in which no signal is readable.
    """
    samples = annotations.samples.tolist()
    changes = [(0, collection.first_rhythm)]
    for place, note in annotations.notes.items():
        if note.startswith("("):
            changes.append((samples[place], note[1:].strip()))
        elif note == ")":
            # Icentia11k marks the end of an episode so.
            changes.append((samples[place], ""))
    stops = [sample for sample, _ in changes[1:]] + [n_samples]
    unreadable = list(_iter_unreadable(annotations, n_samples, n_signals))
    marks: list[_Mark] = []
    for (start, code), stop in zip(changes, stops, strict=True):
        if code.upper() not in _UNKNOWN_RHYTHMS:
            marks += _cut_out(_Mark(start, stop, code), unreadable)
    return marks


def _iter_unreadable(
    annotations: Annotations, n_samples: int, n_signals: int
) -> Iterator[tuple[int, int]]:
    """Yield the parts in which all signals are marked as unreadable."""
    bits = sum(_UNREADABLE[: n_signals or len(_UNREADABLE)])
    begin: int | None = None
    symbols, subtypes = annotations.symbols, annotations.subtypes.tolist()
    for sample, symbol, subtype in zip(
        annotations.samples.tolist(), symbols, subtypes, strict=True
    ):
        if symbol != _QUALITY:
            continue
        is_lost = (subtype & bits) == bits
        if is_lost and begin is None:
            begin = sample
        elif not is_lost and begin is not None:
            yield begin, sample
            begin = None
    if begin is not None:
        yield begin, n_samples


def _cut_out(mark: _Mark, parts: Sequence[tuple[int, int]]) -> Iterator[_Mark]:
    """Yield what is left of a span without some parts, which are in order."""
    start = mark.start
    for first, last in parts:
        if last <= start or first >= mark.stop:
            continue
        if first > start:
            yield mark._replace(start=start, stop=first)
        start = last
    if start < mark.stop:
        yield mark._replace(start=start)


# Rows ---------------------------------------------------------------------------------------------


def _iter_rows(
    request: Request,
    collection: Collection,
    records: Sequence[_AnnotatedRecord],
    codes: tuple[str, ...],
) -> Iterator[Row]:
    """Yield a row per mark."""
    vocabulary = RHYTHMS if request.options.what == "rhythm" else BEATS
    labels = {code: _translate(code, vocabulary, request.classes) for code in codes}
    annotated = codes
    if request.classes is not None:
        annotated = request.classes.annotated(vocabulary, codes)
    ids = name_records([record.path for record in records])
    for record in records:
        facts = parse_comments(record.comments)
        patient = _find_patient(ids[record.path], record.comments, collection)
        path = record.path if "/" in record.path else ""
        age, sex = age_text(facts.get("age")), sex_text(facts.get("sex"))
        for mark in record.marks:
            yield Row(
                record_id=ids[record.path],
                labels=labels[mark.code],
                annotated=annotated,
                patient_id=patient,
                path=path,
                age=age,
                sex=sex,
                start_s=_seconds(mark.start, record.fs),
                end_s=_seconds(mark.stop, record.fs),
            )


def _translate(code: str, vocabulary: str, classes: ClassSet | None) -> tuple[str, ...]:
    """Return the labels of a code: itself, or its classes in a set, of which there may be none."""
    if classes is None:
        return (code,)
    meaning = classes.meanings.get((vocabulary, code))
    return meaning.labels if meaning is not None else ()


def _find_patient(record_id: str, comments: Sequence[str], collection: Collection) -> str:
    name = record_id.rsplit("/", 1)[-1]
    if collection.patient_comment:
        for comment in comments:
            if match := collection.patient_comment.search(comment):
                return match[1]
    name = collection.same_patient.get(name, name)
    match = collection.patient.fullmatch(name) if collection.patient else None
    return match[1] if match else ""


def _seconds(sample: int, fs: float) -> str:
    """Return a time to the microsecond, which tells the samples of any ECG apart."""
    return f"{sample / fs:.6f}".rstrip("0").rstrip(".")
