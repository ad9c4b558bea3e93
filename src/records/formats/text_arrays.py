"""Signals as text (``.csv``, ``.tsv``, ``.txt``, ``.asc``): a line per sample, a column per lead.

The lines before the numbers may name the columns and say rate, unit and lead, as the exports of
wearables do. A time column gives the rate. `find_layout` also tells recordings from the tables of
labels that lie beside them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from src.records.facts import millivolts_per_unit
from src.records.formats.arrays import (
    MAX_LEADS,
    MIN_SAMPLES,
    Rate,
    choose_rate,
    choose_scale,
    looks_like_signal,
)
from src.records.formats.errors import HEAD_BYTES, read_whole
from src.records.formats.stated_facts import choose_channels, names_or_standard
from src.records.leads import canonical_lead, has_ecg_word, is_other_lead, is_unnamed
from src.records.record import ECGRecord, RecordError, RecordRequest
from src.utils import Float32Array, Float64Array, printable

_MAX_BYTES = 2**24
_MAX_LINES = 1_500_000
_MAX_LINE = 2**22  # characters
# Fields that are parsed one by one, where some are no numbers.
_MAX_FIELDS = 1_000_000
_MAX_NAME = 80  # characters
_MAX_FACT = 200  # characters of a line that are searched for facts
_MAX_NAMED = 1000  # columns
_MAX_PREAMBLE = 200  # lines
_MAX_QUOTED = 20_000  # characters that are searched for numbers in quotes
_DELIMITERS = (";", "\t", ",", None)
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "-", "--", "inf", "-inf", "."})

_TIME = re.compile(
    r"(?:elapsed|relative|recording|unix|utc|local|system|shimmer)?[\s_]*(?:date)?[\s_]*"
    r"(?:time|timestamp|zeit|temps|tiempo|tempo|t|sec|seconds|ms)"
    r"(?:[\s_]*stamp)?(?:[\s_]*(?:in)?[\s_]*(?P<unit>s|sec|seconds?|ms|msec|milliseconds?"
    r"|us|microseconds?|ns|min|minutes?|h|hours?))?",
    re.IGNORECASE,
)
_COUNTER = re.compile(
    r"(?:sample|samples|index|idx|n|no|nr|#|row|unnamed: 0)[\s_]*(?:#|no|nr|number|index|id)?\.?",
    re.IGNORECASE,
)
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
# A date before the time of day is left off: times that go back at midnight are refused.
_CLOCK = re.compile(r"(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}[ T])?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")
# Decimals with a comma in quotes, where commas separate the columns too
_QUOTED_DECIMAL = re.compile(r'"[-+]?\d+,\d+"')
# "ECG II [mV]", "II (uV)", "ecg_mV"
_NAME_AND_UNIT = re.compile(
    r"(?P<name>.*?)\s*(?:[\[(/]\s*(?P<unit>[^\])]*?)\s*[\])]?|_(?P<tail>[munµμ]?V))", re.DOTALL
)
_ID = re.compile(r"(?:^|[\W_])(?:id|name|file|path|label|date|rate)s?$", re.IGNORECASE)
_COUNTS = re.compile(r"\s*(?:adu?|counts?|lsb|raw|digital|units?|a\.?u\.?|-)\s*", re.IGNORECASE)
_OTHER_NAMES = re.compile(r"(?:voltage|amplitude|value|data|raw|ecg|ekg)[\s_]*\d*", re.IGNORECASE)

_FACT = r"[\s_:=,;\"'\t]*(?:\(?\s*(?:hz|in|per|second|/|s)\s*\)?)?[\s_:=,;\"'\t]*"
_RATE_FACT = re.compile(
    r"(?:sampl(?:e|es|ing)?[\s_-]*(?:rate|freq(?:uency|\.)?)|\bfs\b|\bfreq(?:uency)?\b|\brate\b"
    r"|\b(?:mess|abtast)rate\b)" + _FACT + r"(?P<number>\d+(?:[.,]\d+)?)\s*(?P<kilo>k(?=hz))?",
    re.IGNORECASE,
)
_BARE_RATE = re.compile(r"\b(?P<number>\d+(?:[.,]\d+)?)\s*(?P<kilo>k)?(?:hz|hertz|sps)\b", re.I)
_UNIT_FACT = re.compile(
    r"\b(?:units?|einheit|unit[éàa]|unidad|eenheid)[\s_:=,;\"'\t]*"
    r"(?P<unit>[munµμ]?v(?:olts?)?\b|m(?:illi|icro)volts?)",
    re.IGNORECASE,
)
_GAIN_FACT = re.compile(
    r"(?:\bgain\b|\badu[\s_]*per[\s_]*mv|units?[\s_]*per[\s_]*mv|\badc[\s_]*gain)[^\d\n]{0,20}"
    r"(?P<number>\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
# Watches write in the language of their owner
_LEADS = "ableitung|d[ée]rivation|derivaci[óo]n|derivazione|deriva[çc][ãa]o|afleiding"
_LEAD_FACT = re.compile(
    rf"^\W*(?:leads?|{_LEADS})\s*[:=,;\t]\W*(?:(?:{_LEADS})\s+)?(?P<lead>.{{1,40}}?)\W*$",
    re.IGNORECASE,
)
_LINE_FACTS = (_RATE_FACT, _UNIT_FACT, _GAIN_FACT, _LEAD_FACT)


@dataclass(frozen=True)
class Layout:
    """The layout of the numbers in a text.

    Attributes
    ----------
    first
        Number of lines before the numbers.
    delimiter
        What separates the columns; None stands for white space.
    has_comma
        Whether decimals have a comma.
    n_columns
        Number of columns.
    names, units
        Of each column, empty where none is stated; no names if there is no header line.
    fs, gain_per_mv, unit, lead
        What the lines before the numbers say, or None and empty.
    n_names
        Number of names in the header line, which may be too many to be used.
    """

    first: int
    delimiter: str | None
    has_comma: bool
    n_columns: int
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    fs: float | None = None
    gain_per_mv: float | None = None
    unit: str = ""
    lead: str = ""
    n_names: int = 0


class _LineError(RecordError):
    """A line of a text that is no line of numbers; `line` is its number."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        super().__init__(path, f"line {line}{message}")
        self.line = line


@dataclass(frozen=True)
class _Columns:
    """Which columns are leads, which is the time, flags, and names of columns not used."""

    leads: tuple[int, ...]
    time: int | None = None
    flags: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def is_text_signal(head: bytes) -> bool:
    """Return whether a text is a recording and no table, by its first bytes."""
    return explain_text(head) is None


def explain_text(head: bytes) -> str | None:
    """Return why a text is no recording, by its first bytes, or None if it is one.

    A recording has columns called like leads, or numbers that run as a signal does.
    """
    if head.count(b"\0") > len(head) // 2 or not head.strip():
        return "is no text of numbers: expected a column per lead"
    is_whole = len(head) < HEAD_BYTES
    text = _decode(head, is_whole=is_whole)
    if not is_whole:
        # The last line may be cut.
        text = text[: text.rfind("\n") + 1]
    layout = find_layout(text)
    if layout is None:
        return "is a text or a table: expected a column of numbers per lead"
    if _names_a_lead(layout):
        return None
    if layout.names and not any(_may_be_lead(name) for name in layout.names):
        return (
            f"is a table with the columns {printable(', '.join(layout.names[:5]), 80)}: expected "
            "a column called like a lead, such as II"
        )
    numbers = _first_numbers(text, layout)
    if numbers is None:
        return "is a table: expected a column of numbers per lead"
    with np.errstate(all="ignore"):
        if layout.names:
            numbers = numbers[:, [i for i, name in enumerate(layout.names) if _may_be_lead(name)]]
        table = numbers.T if numbers.shape[1] <= max(MAX_LEADS, numbers.shape[0]) else numbers
        if looks_like_signal(table[:MAX_LEADS]):
            return None
    if layout.names:
        return "is a table of numbers that do not run like a signal: expected a column per lead"
    return "holds numbers that do not run like a signal: expected a column per lead"


def _first_numbers(text: str, layout: Layout) -> Float64Array | None:
    """Return the numbers at the beginning of a text, up to the first line of something else."""
    try:
        return _parse_table(Path("text"), text, layout)
    except _LineError as error:
        if error.line - layout.first < MIN_SAMPLES:
            return None
        # Reading it will name the line.
        before = "\n".join(text.split("\n", error.line)[: error.line - 1])
    except RecordError:
        return None
    try:
        return _parse_table(Path("text"), before, layout)
    except RecordError:
        return None


def read_text(path: Path, request: RecordRequest) -> ECGRecord:
    """Read all samples of a text.

    Raises
    ------
    RecordError
        If it is no matrix of numbers, or its rate or unit is neither stated nor given nor can be
        assumed.
    """
    text = _decode(read_whole(path, _MAX_BYTES, "the text of one recording"), is_whole=True)
    # Lines are tried up to three times, the last time one by one.
    n_lines = text.count("\n")
    if n_lines > _MAX_LINES:
        raise RecordError(path, f"has {n_lines} lines: expected {_MAX_LINES} samples at most")
    layout = find_layout(text)
    if layout is None:
        raise RecordError(path, "is no matrix of numbers: expected a line per sample")
    if layout.n_names > _MAX_NAMED:
        raise RecordError(
            path, f"names {layout.n_names} columns: expected at most {MAX_LEADS} leads"
        )
    table = _parse_table(path, text, layout)
    columns = _find_columns(path, layout, table, request.hints.leads)
    values = table[:, columns.leads].T
    if not layout.names and values.shape[0] > values.shape[1]:
        values = values.T
    if values.shape[0] > MAX_LEADS:
        shape = f"{len(table)} lines of {table.shape[1]} numbers"
        raise RecordError(path, f"has {shape}: expected at most {MAX_LEADS} leads")
    values = np.ascontiguousarray(values)
    values[~np.isfinite(values)] = np.nan
    rate = _rate(path, layout, columns, table, request.hints.fs)
    signal, unit_flags = _to_millivolts(path, layout, columns, values, request.hints.gain_per_mv)
    names, lead_flags = _lead_names(layout, columns, len(signal))
    return ECGRecord(
        record_id=path.stem,
        signal=signal,
        fs=rate.fs,
        leads=names,
        flags=(*columns.flags, *rate.flags, *unit_flags, *lead_flags),
        unused=columns.unused,
    )


# Layout -------------------------------------------------------------------------------------------


def _decode(content: bytes, is_whole: bool) -> str:
    """Return a text with ``\\n`` at the end of its lines; a cut one without its last character."""
    encoding = "utf-8-sig"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    try:
        text = content.decode(encoding, "strict" if is_whole else "ignore")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    if _QUOTED_DECIMAL.search(text, 0, _MAX_QUOTED):
        text = text.replace('","', ";").replace('",', ";").replace(',"', ";").replace('"', "")
    return text


def find_layout(text: str) -> Layout | None:
    """Return the layout of the numbers in a text, or None if there are none.

    It is that of the first line from which two lines have the same number of numeric fields.
    """
    start = text.split("\n", _MAX_PREAMBLE + 20)[: _MAX_PREAMBLE + 20]
    if max(map(len, start)) > _MAX_LINE:
        return None
    facts = _Facts()
    for at, line in enumerate(start[:_MAX_PREAMBLE]):
        facts = facts.with_line(start[at - 1]) if at else facts
        follows = next((later for later in start[at + 1 :] if later.strip()), "")
        if not _may_be_numbers(line) or not follows:
            continue
        for delimiter in _DELIMITERS:
            if delimiter is not None and delimiter not in line:
                continue
            if (layout := _layout_at(start, at, follows, delimiter, facts)) is not None:
                return layout
    return None


def _may_be_numbers(line: str) -> bool:
    return any(character.isdigit() for character in line) and not line.lstrip().startswith("#")


def _layout_at(
    lines: Sequence[str], at: int, follows: str, delimiter: str | None, facts: _Facts
) -> Layout | None:
    """Return the layout of numbers that begin at a line, if `delimiter` separates them."""
    header, units = _header_before(lines, at, delimiter)
    fields, later = _split(lines[at], delimiter), _split(follows, delimiter)
    if len(header) == len(fields) - 1:
        # Lines may end in their delimiter. The exports of R have no name above row numbers.
        ends = not fields[-1] and not later[-1]
        header = (*header, "") if ends else ("", *header) if header else ()
    has_comma = delimiter != "," or (len(fields) == 2 and bool(facts.lead) and not header)
    if has_comma and delimiter == ",":
        delimiter, fields, later = None, [lines[at].strip()], [follows.strip()]
    if len(fields) != len(later):
        return None
    # "1, 2" is separated by commas, which the delimiter before this one has tried.
    if delimiter is None and len(fields) > 1 and any(field.endswith(",") for field in fields):
        return None
    wanted: Sequence[int] = range(len(fields))
    if len(fields) == 1 and len(header) > 1:
        # White space separates no columns here.
        header = (" ".join(header),)
    n_names = len(header) if len(header) == len(fields) else 0
    if 0 < n_names <= _MAX_NAMED:
        named = [i for i, name in enumerate(header) if _may_be_lead(_name_and_unit(name)[0])]
        wanted = named or wanted
    elif not n_names:
        header, units = (), ()
    if not all(
        _is_number(row[i], has_comma) for row in (fields, later) for i in wanted[:_MAX_NAMED]
    ):
        return None
    used = header if n_names <= _MAX_NAMED else ()
    names = tuple(_name_and_unit(name)[0] for name in used)
    stated = tuple(_name_and_unit(name)[1] for name in used)
    if units and used:
        stated = units
    return Layout(
        at,
        delimiter,
        has_comma,
        len(fields),
        names,
        stated,
        facts.fs,
        facts.gain_per_mv,
        facts.unit,
        facts.lead,
        0 if all(_is_number(name, has_comma) for name in header) else n_names,
    )


def _header_before(
    lines: Sequence[str], at: int, delimiter: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the columns and their units, from the lines before the numbers."""
    before = [line.lstrip("#% ") for line in lines[:at] if line.strip()]
    # "Unit,mV" is no name of two columns.
    if not before or any(fact.search(before[-1][:_MAX_FACT]) for fact in _LINE_FACTS):
        return (), ()
    last = tuple(_split(before[-1], delimiter))
    if len(before) > 1 and all(_is_unit(text) for text in last):
        rows = [tuple(_split(line, delimiter)) for line in before[-2:-4:-1]]
        for names in rows:
            # Some write a line of "CAL" or "RAW" between names and units.
            if len(names) == len(last) and len(set(names)) == len(names):
                return names, last
    return last, ()


def _is_unit(text: str) -> bool:
    known = text.lower() in ("s", "ms", "sec", "seconds", "sample number", "hh:mm:ss.mmm", "")
    return known or millivolts_per_unit(text) is not None


def _split(line: str, delimiter: str | None) -> list[str]:
    """Return the fields of a line without quotes and white space around them."""
    if delimiter is None:
        # A unit in brackets belongs to the name before it.
        fields = re.split(r"\s+(?![\[(])", line.strip())
    elif '"' in line and len(line) < csv.field_size_limit():
        fields = next(csv.reader([line], delimiter=delimiter), [])
    else:
        fields = line.split(delimiter)
    return [text.strip().strip("\"'").strip() for text in fields]


def _is_number(text: str, has_comma: bool) -> bool:
    return text.lower() in _MISSING or _number(text, has_comma) is not None


def _number(text: str, has_comma: bool) -> float | None:
    """Return the number that a field states, a time of day in seconds, or None."""
    if has_comma:
        text = text.replace(",", ".")
    try:
        # Python takes 1_000 for a number, which is no sample.
        return float(text) if "_" not in text else None
    except ValueError:
        return _clock(text)


def _clock(text: str) -> float | None:
    """Return the seconds of a time such as 0:00.004 or 2020-01-31T10:00:00.004."""
    if len(text) > _MAX_NAME:
        return None
    if match := _CLOCK.fullmatch(text.strip("[]")):
        return int(match[1] or 0) * 3600 + int(match[2]) * 60 + float(match[3])
    if len(text) < 10 or text[4:5] != "-":
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _name_and_unit(text: str) -> tuple[str, str]:
    """Return the name and the unit of a column such as ``II [mV]``; the unit may be empty."""
    text = text[:_MAX_NAME]
    match = _NAME_AND_UNIT.fullmatch(text)
    if match is None or not match["name"]:
        return text, ""
    unit = match["unit"] or match["tail"] or ""
    return match["name"], unit


def _may_be_lead(name: str) -> bool:
    """Return whether a column may hold an ECG, by its name."""
    is_other = _TIME.fullmatch(name) or _COUNTER.fullmatch(name) or _ID.search(name)
    if not name or is_other:
        return False
    # Not a date or a version in a line of facts
    is_named = is_unnamed(name) and any(character.isalpha() for character in name)
    return (
        canonical_lead(name) is not None
        or is_named
        or (is_other_lead(name) and not name.isdigit())
        or has_ecg_word(name)
        or _OTHER_NAMES.fullmatch(name) is not None
    )


def _names_a_lead(layout: Layout) -> bool:
    return bool(layout.lead) or any(canonical_lead(name) for name in layout.names)


@dataclass(frozen=True)
class _Facts:
    """Facts of the lines before the numbers; the first line that states one counts."""

    fs: float | None = None
    gain_per_mv: float | None = None
    unit: str = ""
    lead: str = ""

    def with_line(self, line: str) -> _Facts:
        """Return these facts with those of the next line: of rate, gain, unit and lead."""
        line = line[:_MAX_FACT]
        fs, gain, unit, lead = self.fs, self.gain_per_mv, self.unit, self.lead
        match = _RATE_FACT.search(line) or _BARE_RATE.search(line)
        if match and fs is None:
            fs = float(match["number"].replace(",", ".")) * (1000 if match["kilo"] else 1) or None
        if (match := _GAIN_FACT.search(line)) and gain is None:
            gain = float(match["number"]) or None
        if (match := _UNIT_FACT.search(line)) and not unit:
            unit = match["unit"]
        match = _LEAD_FACT.match(line)
        if match and (canonical_lead(match["lead"]) or is_unnamed(match["lead"])):
            lead = match["lead"].strip()
        return _Facts(fs, gain, unit, lead)


# Numbers ------------------------------------------------------------------------------------------


def _parse_table(path: Path, text: str, layout: Layout) -> Float64Array:
    """Return the numbers of a text, shape (n_lines, n_columns), NaN where one is missing."""
    rest = text.split("\n", layout.first)[-1]
    if layout.has_comma:
        rest = rest.replace(",", ".")
    # Lines are read one by one, as a list of them would take several times the text.
    table = _parse_lines(io.StringIO(rest), layout)
    if table is None and layout.delimiter is not None:
        table = _parse_lines(_with_missing(io.StringIO(rest), layout.delimiter), layout)
    if table is None:
        table = _parse_slowly(path, rest, layout)
    if not table.size:
        raise RecordError(path, "holds no numbers: expected a line per sample")
    return table


def _parse_lines(rows: Iterable[str], layout: Layout) -> Float64Array | None:
    """Return the numbers of lines if all fields are numbers, else None."""
    try:
        table: Float64Array = np.loadtxt(
            rows, np.float64, delimiter=layout.delimiter, ndmin=2, comments=None
        )
    # Missing values, times, text, or a delimiter at the end of lines.
    except (ValueError, IndexError):
        return None
    return table if table.shape[1] == layout.n_columns else None


def _with_missing(rows: Iterable[str], delimiter: str) -> Iterator[str]:
    """Yield lines with ``nan`` in their empty fields, without empty lines."""
    empty = re.compile(rf"(?<={delimiter})[ \t]*(?={delimiter}|$)|^(?={delimiter})")
    twice = delimiter * 2
    for line in rows:
        row = line.rstrip("\n")
        if twice in row or row.startswith(delimiter) or row.endswith(delimiter):
            yield empty.sub("nan", row)
        elif row:
            yield row


def _parse_slowly(path: Path, text: str, layout: Layout) -> Float64Array:
    """Return the numbers of lines, field by field; text beside the leads and the time is NaN."""
    n_lines = text.count("\n") + 1
    if n_lines * layout.n_columns > _MAX_FIELDS:
        raise RecordError(
            path, f"has fields that are no numbers in {n_lines} lines: expected numbers alone"
        )
    rows = text.split("\n")
    wanted = set(range(layout.n_columns))
    if layout.names:
        leads = {i for i, name in enumerate(layout.names) if _may_be_lead(name)}
        wanted = leads or wanted
    table = np.full((len(rows), layout.n_columns), np.nan)
    n_rows = 0
    for number, row in enumerate(rows, layout.first + 1):
        if not row.strip():
            continue
        fields = [row.strip()] if layout.n_columns == 1 else _split(row, layout.delimiter)
        for i, text in enumerate(fields[: layout.n_columns]):
            value = _number(text, layout.has_comma)
            if value is None and text.lower() not in _MISSING and i in wanted:
                raise _LineError(
                    path, number, f", column {i + 1} is {text[:40]!r}: expected a number"
                )
            table[n_rows, i] = np.nan if value is None else value
        if len(fields) < layout.n_columns or any(fields[layout.n_columns :]):
            raise _LineError(
                path, number, f" has {len(fields)} columns: expected {layout.n_columns} as before"
            )
        n_rows += 1
    return table[:n_rows]


# Meaning of the columns ---------------------------------------------------------------------------


def _find_columns(
    path: Path, layout: Layout, table: Float64Array, named: tuple[str, ...]
) -> _Columns:
    """Return the columns that are leads, and the column of times."""
    if not layout.names:
        if not np.isfinite(table[:, -1]).any() and table.shape[1] > 1:
            # Lines end in their delimiter.
            table = table[:, :-1]
        has_time = layout.n_columns > 1 and len(table) > layout.n_columns and _is_even(table[:, 0])
        leads = tuple(range(int(has_time), table.shape[1]))
        return _Columns(leads, 0 if has_time else None)
    times = [i for i, name in enumerate(layout.names) if _TIME.fullmatch(name)]
    signals = [
        i
        for i, name in enumerate(layout.names)
        if name and i not in times and not _COUNTER.fullmatch(name)
    ]
    units = [layout.units[i] if layout.units else "" for i in signals]
    names = tuple(layout.names[i] for i in signals)
    choice = choose_channels(path, names, tuple(map(_unit_of_signal, units)), named)
    return _Columns(
        tuple(signals[row] for row in choice.kept),
        times[0] if times else None,
        choice.flags,
        choice.unused,
    )


def _unit_of_signal(unit: str) -> str:
    """Return the unit of a column, empty for one that only says that samples are counts."""
    return "" if _COUNTS.fullmatch(unit) else unit


def _is_even(values: Float64Array) -> bool:
    """Return whether numbers rise by the same step, as times or counts do."""
    steps = np.diff(values)
    if not len(steps) or not np.isfinite(steps).all() or not (steps > 0).all():
        return False
    return bool(np.ptp(steps) <= 0.5 * steps.mean())


def _rate(
    path: Path, layout: Layout, columns: _Columns, table: Float64Array, given: float | None
) -> Rate:
    """Return the rate that the text states, its times give, the user gives or 10 s assumes."""
    if layout.fs:
        return Rate(layout.fs)
    n_samples = max(table.shape) if not layout.names else len(table)
    if columns.time is None:
        return choose_rate(path, n_samples, given)
    times = table[:, columns.time]
    step = _mean_step(path, times)
    name = layout.names[columns.time] if layout.names else ""
    match = _TIME.fullmatch(name)
    stated = (match["unit"] if match else "") or (
        layout.units[columns.time] if layout.units else ""
    )
    seconds = 1.0 if ":" in stated else _SECONDS.get(_short_unit(stated))
    if seconds is None and _is_unit_name(name):
        seconds = _SECONDS.get(_short_unit(name))
    if seconds is None and stated and not given:
        raise RecordError(
            path,
            f"has times in {stated[:40]!r}: expected s, ms, min or a time of day; give --source-fs "
            "NAME=HZ (source_fs=)",
        )
    if seconds is not None:
        return Rate(_rounded(1 / (step * seconds), len(times)))
    # Without a unit, a count of samples and a time in ms look the same.
    if given:
        return Rate(given)
    if step <= 0.1:
        return Rate(_rounded(1 / step, len(times)), ("time_unit_assumed:s",))
    if match and 0.5 <= step <= 50:
        return Rate(_rounded(1000 / step, len(times)), ("time_unit_assumed:ms",))
    return choose_rate(path, n_samples, None)


def _is_unit_name(name: str) -> bool:
    return name.lower() in ("sec", "seconds", "ms")


def _short_unit(unit: str) -> str:
    """Return a unit of time as `_SECONDS` has it."""
    text = unit.strip().lower()
    known = (("milli", "ms"), ("msec", "ms"), ("micro", "us"), ("sec", "s"), ("min", "min"))
    for long, short in (*known, ("hour", "h")):
        if text.startswith(long):
            return short
    return text


def _mean_step(path: Path, times: Float64Array) -> float:
    """Return the time from one sample to the next, which must be about the same everywhere."""
    if len(times) < 2 or not np.isfinite(times).all():
        missing = int(np.argmin(np.isfinite(times)))
        raise RecordError(
            path,
            f"has no time at sample {missing}: expected one in each line, as a number, 0:00.004 or "
            "2020-01-31T10:00:00.004",
        )
    step = float(times[-1] - times[0]) / (len(times) - 1)
    if step <= 0:
        raise RecordError(path, "has times that do not rise: expected samples in order")
    expected = times[0] + step * np.arange(len(times))
    worst = int(np.abs(times - expected).argmax())
    # Wearables note the time of a packet of samples; a gap is longer.
    if abs(times[worst] - expected[worst]) > max(10 * step, 0.002 * (times[-1] - times[0])):
        raise RecordError(
            path,
            f"has uneven times, {times[worst]:g} at sample {worst} where {expected[worst]:.6g} was "
            "expected: fill gaps with NaN, or split the recording",
        )
    return step


def _rounded(fs: float, n_times: int) -> float:
    """Return a rate without the noise of times that were rounded."""
    nearest = round(fs)
    return float(nearest) if abs(fs - nearest) <= 0.2 * fs / n_times else round(fs, 6)


def _to_millivolts(
    path: Path, layout: Layout, columns: _Columns, values: Float64Array, given: float | None
) -> tuple[Float32Array, tuple[str, ...]]:
    """Return the signal in mV, and flags."""
    signal = values.astype(np.float32)
    stated = [layout.units[i] if layout.units else "" for i in columns.leads]
    units = [unit or layout.unit for unit in stated] if layout.names else [layout.unit]
    factors = [millivolts_per_unit(unit) if unit else None for unit in units]
    if len(factors) == 1:
        factors *= len(signal)
    if all(factor is None for factor in factors):
        gain = layout.gain_per_mv or given
        scale = choose_scale(path, signal, gain)
        return signal * np.float32(scale.mv_per_unit), scale.flags
    usual = next(factor for factor in factors if factor is not None)
    known = [usual if factor is None else factor for factor in factors]
    return signal * np.array(known, np.float32)[:, None], ()


def _lead_names(
    layout: Layout, columns: _Columns, n_leads: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the leads, and flags."""
    if layout.names:
        return tuple(layout.names[i] for i in columns.leads), ()
    if layout.lead and n_leads == 1:
        return (layout.lead,), ()
    return names_or_standard((), n_leads)
