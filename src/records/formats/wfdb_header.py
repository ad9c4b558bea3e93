"""The header of a WFDB record: its rate, signals, segments and patient facts.

Parsed here because the parser of the ``wfdb`` package takes longer than the rest of the pipeline,
and refuses headers of the Challenges. Format: WFDB Applications Guide, header(5).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from src.records.facts import millivolts_per_unit
from src.records.formats.errors import open_error
from src.records.record import ReadingHints, RecordError

# header(5): used if the record line gives no rate.
DEFAULT_FS = 250.0
# header(5): assumed if a gain is absent or 0, which marks the signal as uncalibrated.
DEFAULT_GAIN = 200.0
# header(5): name of a segment without samples.
GAP = "~"

_MAX_HEADER_BYTES = 4_000_000
_SMALL_HEADER_BYTES = 65_536
# Characters. The patterns below take long to refuse a line of millions.
_MAX_LINE = 2000
_MAX_LEADS = 1000
_MAX_SAMPLES = 2**53
_MAX_BASELINE = 2**40
# Windows opens a device, not a file, by each of these names.
_DEVICES = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{i}" for port in ("COM", "LPT") for i in range(10)),
}

# A part that is followed by none of its own characters is possessive (++): there is one way to
# match it, so that a line takes time in proportion to its length.
_NUMBER = r"[-+]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d++)?"
# name[/segments] n_leads [fs[/counter frequency] [n_samples [time [date]]]]
_RECORD_LINE = re.compile(
    r"^(?P<name>\S+?)(?:/(?P<segments>\d++))?\s++(?P<n_leads>\d++)"
    rf"(?:\s++(?P<fs>{_NUMBER}|nan|inf)(?:/\S++)?(?:\s++(?P<n>\d++)(?:\s.*+)?)?)?\s*+$",
    re.IGNORECASE,
)
# file format[x frame][:skew][+offset] [gain[(baseline)][/units] [adc_res [adc_zero [initial
# [checksum [block [description]]]]]]]
_SIGNAL_LINE = re.compile(
    rf"""^(?P<file>.+?)(?<!\s)\s++(?P<fmt>\d++)
    (?:x(?P<frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?
    (?:\s+(?P<gain>{_NUMBER}|[-+]?nan|[-+]?inf)(?:\((?P<baseline>-?\d+)\))?(?:/(?P<units>\S*))?
    (?:\s+(?P<adc_res>-?\d+)(?:\s+(?P<adc_zero>-?\d+)
    (?:\s+(?P<initial>-?\d+)(?:\s+(?P<checksum>-?\d+)
    (?:\s+(?P<block>\d+)(?:\s+(?P<description>.*))?)?)?)?)?)?)?\s*$""",
    re.VERBOSE | re.IGNORECASE,
)
_SEGMENT_LINE = re.compile(r"^(?P<name>\S++)\s++(?P<n>\d++)\s*+$")
# Several integers in ASCII digits, separated by a space each.
_INTEGERS = re.compile(r"-?[0-9]+(?: -?[0-9]+)*")


class SignalSpec(NamedTuple):
    """One signal line of a header.

    The fields that differ between records of a collection come first (see `_parse_complete_lines`).

    Attributes
    ----------
    file
        Name of the signal file, in the header's folder.
    initial
        ADC value of the first sample, or None.
    checksum
        The 16 low bits of the sum of all ADC values, signed or not, or None.
    fmt
        Storage format, such as ``16`` or ``212``.
    samples_per_frame
        Samples of this signal in each frame.
    skew
        Samples of the signal before its nominal first sample.
    byte_offset
        Bytes of the file before the first sample.
    gain
        ADC values per physical unit.
    gain_assumed
        Whether the header gives no gain.
    baseline
        ADC value of 0 physical units.
    units
        Physical unit; empty means mV.
    description
        Name of the lead.
    problem
        A scale that cannot be right, in words; empty if there is none.
    """

    file: str
    initial: int | None
    checksum: int | None
    fmt: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    gain_assumed: bool
    baseline: int
    units: str
    description: str
    problem: str = ""


@dataclass(frozen=True)
class Segment:
    """One segment line of a header; the name `GAP` marks a gap."""

    name: str
    n_samples: int


class Header(NamedTuple):
    """A parsed header.

    Attributes
    ----------
    path
        The header file.
    fs
        Frames per second, the sampling rate in Hz.
    n_samples
        Samples per lead, or None if the header does not give them.
    signals
        The signals of a record in one piece.
    segments
        The segments of a record in several.
    facts
        Facts about the patient from its comments, as `parse_comments` returns them.
    fs_assumed
        Whether the header gives no rate.
    """

    path: Path
    fs: float
    n_samples: int | None
    signals: tuple[SignalSpec, ...]
    segments: tuple[Segment, ...]
    facts: dict[str, str]
    fs_assumed: bool = False


def read_header(path: Path) -> Header:
    """Read a .hea file, or return it from the cache if it has not changed.

    Raises
    ------
    RecordError
        If the file is missing, empty or not a WFDB header.
    """
    try:
        status = os.stat(path)
        read = _small_header if status.st_size <= _SMALL_HEADER_BYTES else _large_header
        return read(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise open_error(path, error) from None


def _read_file(path: Path, mtime_ns: int, size: int) -> Header:
    if size > _MAX_HEADER_BYTES:
        raise RecordError(
            path, f"header is over {_MAX_HEADER_BYTES} bytes: expected a short text file"
        )
    with open(path, "rb", buffering=0) as stream:
        # Not up to the end: a file that the system generates may have none. Nor the largest size
        # allowed: Python would allocate a buffer of that size.
        raw = stream.read(size)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return parse_header(text, path)


# A record is asked for its length first, and then read window by window, so headers are kept: as
# many small ones as are read at a time, and few large ones.
_small_header = lru_cache(maxsize=64)(_read_file)
_large_header = lru_cache(maxsize=4)(_read_file)


def lone_headers(names: Sequence[str]) -> list[str]:
    """Return the headers among a folder's files that have no signal file of the same name.

    Headers of records in segments are such.
    """
    with_samples = {
        os.path.splitext(name)[0] for name in names if name.lower().endswith((".dat", ".mat"))
    }
    return [
        name
        for name in names
        if name.lower().endswith(".hea") and os.path.splitext(name)[0] not in with_samples
    ]


def named_files(path: Path) -> Iterator[str]:
    """Yield the signal files and segment headers that a header names; none if it is unreadable."""
    try:
        header = read_header(path)
    except RecordError:
        return
    yield from dict.fromkeys(spec.file for spec in header.signals)
    yield from dict.fromkeys(
        f"{segment.name}.hea" for segment in header.segments if segment.name != GAP
    )


def segment_names(path: Path) -> set[str]:
    """Return the names of a record's segments; none if it has none or is unreadable."""
    try:
        return {segment.name for segment in read_header(path).segments} - {path.stem}
    except RecordError:
        return set()


def parse_header(text: str, path: Path) -> Header:
    """Parse the text of a header.

    Parameters
    ----------
    text
        The content of the file.
    path
        The file, for error messages and the result.

    Raises
    ------
    RecordError
        If it is empty or not a WFDB header.
    """
    stripped = [line.strip() for line in text.lstrip("\ufeff").replace("\r", "\n").split("\n")]
    lines = [line for line in stripped if line and not line.startswith("#")]
    facts = parse_comments(tuple(line[1:].strip() for line in stripped if line.startswith("#")))
    if not lines:
        raise RecordError(
            path, "header is empty: expected a record line 'name n_leads fs n_samples'"
        )
    match = _RECORD_LINE.match(lines[0]) if len(lines[0]) <= _MAX_LINE else None
    if match is None:
        raise RecordError(path, f"record line {lines[0][:80]!r} is not 'name n_leads fs n_samples'")
    n_leads = int(match["n_leads"])
    fs = float(match["fs"] or DEFAULT_FS)
    if n_leads == 0:
        raise RecordError(path, "header promises zero leads: expected one or more")
    if not (math.isfinite(fs) and 0 < fs <= 1e6):
        raise RecordError(
            path, f"sampling rate is {match['fs']}: expected Hz above 0 and up to 1e6"
        )
    # header(5): 0 samples means that the number is not known.
    n_samples = _count(match["n"], _MAX_SAMPLES, "samples", path) or None
    if match["segments"]:
        segments = _parse_segments(lines[1:], int(match["segments"]), path)
        return Header(path, fs, n_samples, (), segments, facts, not match["fs"])
    signals = _parse_signals(lines[1:], n_leads, path)
    return Header(path, fs, n_samples, signals, (), facts, not match["fs"])


def with_hints(header: Header, hints: ReadingHints) -> Header:
    """Return a header with the rate and the gain that a user gives where it is silent."""
    if header.fs_assumed and hints.fs:
        header = header._replace(fs=hints.fs, fs_assumed=False)
    if not hints.gain_per_mv or not any(spec.gain_assumed for spec in header.signals):
        return header
    signals = [
        spec._replace(gain=hints.gain_per_mv, gain_assumed=False, units=_unit_of_hint(spec))
        if spec.gain_assumed
        else spec
        for spec in header.signals
    ]
    return header._replace(signals=tuple(signals))


def _unit_of_hint(spec: SignalSpec) -> str:
    """Return the unit of a signal whose gain is given per mV; other signals keep their unit."""
    return "mV" if millivolts_per_unit(spec.units) is not None else spec.units


def _count(text: str | None, largest: int, what: str, path: Path) -> int:
    """Return a count of the header, 0 where it is absent."""
    value = int(text or 0)
    if value > largest:
        raise RecordError(path, f"header promises {value} {what}: expected {largest} at most")
    return value


def _parse_segments(lines: list[str], n_segments: int, path: Path) -> tuple[Segment, ...]:
    # header(5) asks for at least as many lines as promised.
    if len(lines) < n_segments or not n_segments:
        raise RecordError(
            path, f"record line promises {n_segments} segments, {len(lines)} segment lines follow"
        )
    segments = []
    for line in lines[:n_segments]:
        match = _SEGMENT_LINE.match(line) if len(line) <= _MAX_LINE else None
        if match is None:
            raise RecordError(path, f"segment line {line[:80]!r} is not 'name n_samples'")
        n_samples = _count(match["n"], _MAX_SAMPLES, "samples", path)
        segments.append(Segment(plain_name(match["name"], "segment", path), n_samples))
    return tuple(segments)


def _parse_signals(lines: list[str], n_leads: int, path: Path) -> tuple[SignalSpec, ...]:
    # header(5) asks for at least as many lines as promised.
    if len(lines) < n_leads:
        raise RecordError(
            path, f"record line promises {n_leads} leads, {len(lines)} signal lines follow"
        )
    if n_leads > _MAX_LEADS:
        raise RecordError(path, f"header promises {n_leads} leads: expected {_MAX_LEADS} at most")
    lines = lines[:n_leads]
    return _parse_complete_lines(lines, path) or tuple(_parse_line(line, path) for line in lines)


def _parse_complete_lines(lines: list[str], path: Path) -> tuple[SignalSpec, ...]:
    """Parse signal lines that have all nine fields, as those of most collections.

    Format, gain and lead name recur from record to record. They are parsed once and cached, so a
    record costs little more than its initial values and checksums.

    Returns nothing if a line is not of this kind.
    """
    rows = [line.split(None, 8) for line in lines] if max(map(len, lines)) <= _MAX_LINE else []
    if set(map(len, rows)) != {9}:
        return ()
    files, formats, gains, resolutions, zeros, initial, checksums, blocks, descriptions = zip(
        *rows, strict=True
    )
    common = list(map(_parse_common, formats, gains, resolutions, zeros, blocks, descriptions))
    # `int` also takes digits of other scripts and underscores, which the pattern of a line refuses.
    if None in common or not _INTEGERS.fullmatch(" ".join(initial + checksums)):
        return ()
    for name in dict.fromkeys(files):
        plain_name(name, "signal file", path)
    common_columns = zip(*common, strict=True)
    fields = zip(files, map(int, initial), map(int, checksums), *common_columns, strict=True)
    return tuple(map(SignalSpec._make, fields))


@lru_cache(maxsize=256)
def _parse_common(
    fmt: str, gain: str, adc_res: str, adc_zero: str, block: str, description: str
) -> tuple[object, ...] | None:
    """Parse the fields of a line that records share.

    Returns the fields of its `SignalSpec` after the checksum. Returns None if the line is not plain
    or is wrong, since the error message needs the whole line.
    """
    try:
        spec = _parse_line(f"f {fmt} {gain} {adc_res} {adc_zero} 0 0 {block} {description}", Path())
    except RecordError:
        return None
    # A word that holds a space of another script, or ends like a field, is split otherwise.
    if spec.file != "f" or spec.checksum != 0 or spec.description != description:
        return None
    return spec[3:]


def _parse_line(line: str, path: Path) -> SignalSpec:
    match = _SIGNAL_LINE.match(line) if len(line) <= _MAX_LINE else None
    if match is None:
        raise RecordError(path, f"signal line {line[:80]!r} is not 'file format gain/units ...'")
    gain = float(match["gain"] or 0)
    adc_zero = int(match["adc_zero"] or 0)
    baseline = int(match["baseline"]) if match["baseline"] else adc_zero
    # Reported only where an ECG is scaled by them.
    problem = ""
    if not math.isfinite(gain) or (gain and not 1e-12 < abs(gain) < 1e12):
        problem = f"gain {match['gain']} is implausible: expected ADC units per physical unit"
    elif abs(baseline) > _MAX_BASELINE:
        problem = f"baseline {baseline} is implausible: expected an ADC value"
    return SignalSpec(
        file=plain_name(match["file"], "signal file", path),
        initial=int(match["initial"]) if match["initial"] else None,
        checksum=int(match["checksum"]) if match["checksum"] else None,
        fmt=match["fmt"],
        samples_per_frame=_count(match["frame"], 10_000, "samples per frame", path) or 1,
        skew=_count(match["skew"], 1_000_000, "samples of skew", path),
        byte_offset=_count(match["offset"], _MAX_SAMPLES, "bytes before the samples", path),
        gain=1.0 if problem else gain or DEFAULT_GAIN,
        gain_assumed=not gain,
        baseline=0 if problem else baseline,
        units=match["units"] or "",
        description=(match["description"] or "").strip(),
        problem=problem,
    )


def plain_name(name: str, what: str, path: Path) -> str:
    """Return a file name of a header after checking that it is one in the header's folder.

    A hostile header may name files of other folders, devices, or URLs that a library follows.

    Parameters
    ----------
    name
        The name.
    what
        The kind of file, for error messages.
    path
        The header.

    Raises
    ------
    RecordError
        If it is not a plain file name.
    """
    if not _is_plain(name):
        raise RecordError(path, f"{what} {name!r} is not a plain file name in the header's folder")
    return name


# The leads of a record name the same file.
@lru_cache(maxsize=16)
def _is_plain(name: str) -> bool:
    # Windows takes "con.dat" and "con .dat" for the device as well.
    stem = name.split(".")[0].rstrip(" ").upper()
    points_elsewhere = re.search(r"[/\\\0]|::|^[A-Za-z]:", name) or name in {".", ".."}
    return not points_elsewhere and stem not in _DEVICES


def parse_comments(comments: tuple[str, ...]) -> dict[str, str]:
    """Return the ``key: value`` facts of a header's comments, with lower-case keys.

    Age and sex are also read from the styles ``69 M 1085 1629 x1`` (MIT-BIH) and
    ``<age>: 69 <sex>: M``.

    Parameters
    ----------
    comments
        The comment lines, without ``#``.
    """
    facts: dict[str, str] = {}
    for comment in comments:
        if match := re.match(r"^(\d+|-1)\s+([MF?])\b", comment):
            facts.setdefault("age", match[1])
            facts.setdefault("sex", match[2])
        elif tagged := re.findall(r"<(\w+)>:?\s*([^<]*)", comment):
            facts.update({key.lower(): value.strip() for key, value in tagged})
        elif ":" in comment:
            key, value = comment.split(":", 1)
            facts.setdefault(key.strip().lower(), value.strip())
    return facts
