"""SCP-ECG: the rhythm data of a resting ECG, plain or coded as Huffman codes of differences.

Bimodal compression and the subtraction of a reference beat are refused, since they lose detail
outside the QRS complexes. Format: EN 1064:2005+A1:2007 (ISO 11073-91064), sections 0 to 3 and 6.
"""

from __future__ import annotations

import binascii
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.records.facts import parse_age
from src.records.formats.errors import read_whole
from src.records.leads import LEAD_OF_CODE, derive_limb_leads
from src.records.record import ECGRecord, ReadingHints, RecordError, RecordRequest
from src.utils import Float32Array, Float64Array

_MAX_BYTES = 2**26
# Sections that a record lists, and tags of its patient.
_MAX_LISTED = 1000
# Samples of all leads together, and their bytes. A lead has at most 64 KiB, which is minutes.
_MAX_SAMPLES = 2**22
_MAX_CODED = 2**21
# Bits of a prefix. All of its continuations are listed.
_MAX_PREFIX = 20
# Patient, Huffman tables, leads and rhythm.
_READ_SECTIONS = (1, 2, 3, 6)
# Bytes before the data of a section.
_HEADER = 16
# Number that stands for the Huffman table of the standard.
_DEFAULT_TABLE = 19999
# Years in the units of an age: years, months, weeks, days, hours.
_YEARS = {1: 1.0, 2: 1 / 12, 3: 1 / 52.18, 4: 1 / 365.25, 5: 1 / 8766}
_CONVERT = "convert the file with BioSig (save2gdf -f=EDF)"


@dataclass(frozen=True)
class _Code:
    """Meaning of a Huffman prefix.

    Attributes
    ----------
    value
        The number that it stands for.
    extra
        If not 0, the prefix stands for a signed number of so many bits after it instead.
    """

    value: int
    extra: int = 0


# (length of the prefix, its bits) -> meaning
Table = dict[tuple[int, int], _Code]


def _default_table() -> Table:
    """Return the Huffman table of the standard.

    One bit stands for 0. The numbers +n and -n for n from 1 to 8 have n ones, a zero and a sign.
    Two prefixes announce numbers of 8 and 16 bits.
    """
    table = {(1, 0): _Code(0), (10, 0b1111111110): _Code(0, 8), (10, 0b1111111111): _Code(0, 16)}
    for n in range(1, 9):
        # n ones and a zero.
        ones = (1 << (n + 1)) - 2
        for sign, value in ((0, n), (1, -n)):
            table[n + 2, ones << 1 | sign] = _Code(value)
    return table


def is_scp(head: bytes) -> bool:
    """Return whether a file is an SCP-ECG record, by its first bytes."""
    # The checksum and length of the record, then the header of section 0 with the standard's name.
    return head[8:10] == b"\0\0" and head[16:22] == b"SCPECG"


def read_scp(path: Path, request: RecordRequest) -> ECGRecord:
    """Read the rhythm data.

    Raises
    ------
    RecordError
        If the file is damaged, has no rhythm data, or compresses it with a loss of detail.
    """
    content = read_whole(path, _MAX_BYTES, "one recording")
    sections = _sections(path, content)
    for number, what in ((3, "leads"), (6, "rhythm data")):
        if number not in sections:
            raise RecordError(path, f"has no section {number} ({what})")
    try:
        stated = _leads(path, sections[3])
        table = _huffman_table(path, sections.get(2, b""))
        signal, fs, names = _rhythm(path, sections[6], stated, table, request.hints)
        age, sex, patient_id = _patient(sections.get(1, b""))
    except (struct.error, IndexError) as error:
        raise RecordError(path, f"ends within a section ({error})") from None
    signal, leads, derived = derive_limb_leads(signal, names)
    derived = (*(f"no_samples:{lead.name}" for lead in stated if lead.name not in names), *derived)
    flags = derived if _has_right_checksum(content) else ("checksum_mismatch", *derived)
    return ECGRecord(
        path.stem, signal, fs, leads, age=age, sex=sex, patient_id=patient_id, flags=flags
    )


def _has_right_checksum(content: bytes) -> bool:
    """Return whether the first two bytes are the CRC of the rest of the record."""
    checksum, length = struct.unpack_from("<HI", content)
    return bool(checksum == binascii.crc_hqx(content[2:length], 0xFFFF))


# Sections -----------------------------------------------------------------------------------------


def _sections(path: Path, content: bytes) -> dict[int, bytes]:
    """Return the data of each section by its number, as the pointers of section 0 give them."""
    if len(content) < 6 + _HEADER:
        raise RecordError(path, "is too short for SCP-ECG")
    number, length = struct.unpack_from("<HI", content, 8)
    if number != 0 or not _HEADER <= length <= len(content) - 6:
        raise RecordError(path, "does not start with section 0: expected SCP-ECG")
    pointers = range(6 + _HEADER, 6 + length - 9, 10)
    if len(pointers) > _MAX_LISTED:
        raise RecordError(path, f"lists {len(pointers)} sections: expected {_MAX_LISTED} at most")
    sections = {}
    for at in pointers:
        number, size, index = struct.unpack_from("<HII", content, at)
        if size <= _HEADER or number not in _READ_SECTIONS:
            continue
        # Indices count from 1.
        if not 1 <= index <= len(content) - size + 1:
            raise RecordError(
                path,
                f"section {number} is said to lie at byte {index} with {size} bytes, the file has "
                f"{len(content)}",
            )
        sections[number] = content[index - 1 + _HEADER : index - 1 + size]
    return sections


def _patient(data: bytes) -> tuple[float | None, str | None, str | None]:
    """Return age in years, sex and patient id from section 1.

    It is a list of tags: number, length and value. Tag 2 is the patient's id, 4 the age, 8 the sex,
    and 255 the end.
    """
    tags: dict[int, bytes] = {}
    at = 0
    for _ in range(_MAX_LISTED):
        if at + 3 > len(data) or data[at] == 255:
            break
        length = struct.unpack_from("<H", data, at + 1)[0]
        tags.setdefault(data[at], data[at + 3 : at + 3 + length])
        at += 3 + length
    age = None
    if len(tags.get(4, b"")) == 3:
        value, unit = struct.unpack("<HB", tags[4])
        if unit in _YEARS:
            age = parse_age(f"{value * _YEARS[unit]:.2f}")
    sex = {1: "male", 2: "female"}.get((tags.get(8) or b"\0")[0])
    # Texts end with a zero byte.
    patient_id = tags.get(2, b"").split(b"\0")[0].decode("latin-1").strip()
    return age, sex, patient_id or None


class _Lead(NamedTuple):
    """A lead as section 3 lists it: its name, the place of its first sample, and their number."""

    name: str
    start: int
    n_samples: int


def _leads(path: Path, data: bytes) -> list[_Lead]:
    """Return the leads of a record."""
    count, flags = data[0], data[1]
    if not count:
        raise RecordError(path, "has zero leads: expected one or more")
    if flags & 1:
        raise RecordError(path, f"subtracts a reference beat: {_CONVERT}")
    leads = []
    for i in range(count):
        # First sample, last sample and code.
        start, end, code = struct.unpack_from("<IIB", data, 2 + 9 * i)
        leads.append(_Lead(LEAD_OF_CODE.get(code, f"SCP {code}"), start, end - start + 1))
    return leads


def _rhythm(
    path: Path, data: bytes, leads: Sequence[_Lead], table: Table | None, hints: ReadingHints
) -> tuple[Float32Array, float, tuple[str, ...]]:
    """Return the signal in mV, shape (n_leads, n_samples), the rate in Hz and the leads' names.

    A lead without samples is absent. Leads that begin at other samples are put in their places.

    Parameters
    ----------
    path
        The file, for error messages.
    data
        Section 6.
    leads
        The leads.
    table
        Huffman table, or None if samples are 16-bit numbers.
    hints
        Rate and gain where section 6 has zeros.
    """
    nanovolts, microseconds, order, bimodal = struct.unpack_from("<HHBB", data)
    nanovolts = nanovolts or 1e6 / (hints.gain_per_mv or math.inf)
    microseconds = microseconds or 1e6 / (hints.fs or math.inf)
    if bimodal:
        raise RecordError(path, f"is compressed bimodally: {_CONVERT}")
    if not nanovolts or not microseconds or order > 2:
        raise RecordError(
            path,
            f"has {nanovolts} nV per unit, {microseconds} us per sample and differences of order "
            f"{order}: expected positive numbers and an order of 0, 1 or 2",
        )
    lengths = struct.unpack_from(f"<{len(leads)}H", data, 6)
    at = 6 + 2 * len(leads)
    codes = _Codes.of(table) if table else None
    n_samples = n_bytes = 0
    present: list[_Lead] = []
    rows: list[NDArray[np.int64]] = []
    for lead, length in zip(leads, lengths, strict=True):
        coded = data[at : at + length]
        at += length
        if not length and any(lengths):
            continue
        # A Huffman code has at least one bit.
        n_most = len(coded) * 8 if codes else len(coded) // 2
        if len(coded) < length or not 0 < lead.n_samples <= n_most:
            raise RecordError(
                path,
                f"promises {lead.n_samples} samples in {length} bytes, {len(coded)} are there",
            )
        n_samples += lead.n_samples
        n_bytes += length
        if n_samples > _MAX_SAMPLES or n_bytes > _MAX_CODED:
            raise RecordError(
                path,
                f"promises over {_MAX_SAMPLES} samples or {_MAX_CODED} bytes of them: expected a "
                "resting ECG",
            )
        if codes:
            values = codes.decode(path, coded, lead.n_samples)
        else:
            values = np.frombuffer(coded, "<i2", lead.n_samples).astype(np.int64)
        present.append(lead)
        rows.append(_undo_differences(values, order))
    counts = _in_place(path, present, rows)
    signal = (counts * (nanovolts * 1e-6)).astype(np.float32)
    return signal, 1e6 / microseconds, tuple(lead.name for lead in present)


def _in_place(
    path: Path, leads: Sequence[_Lead], rows: Sequence[NDArray[np.int64]]
) -> Float64Array:
    """Return the rows side by side in time, shape (n_leads, n_samples), NaN where one has none."""
    first = min(lead.start for lead in leads)
    n_samples = max(lead.start + lead.n_samples for lead in leads) - first
    # Leads that are recorded one after the other take that much, and others less.
    if n_samples > sum(lead.n_samples for lead in leads):
        spans = sorted({(lead.start, lead.start + lead.n_samples - 1) for lead in leads})
        raise RecordError(
            path, f"leads start and end at {spans[:5]}: expected them to follow each other"
        )
    # Twelve leads one after the other take twelve times their samples.
    if len(leads) * n_samples > 12 * _MAX_SAMPLES:
        raise RecordError(
            path, f"{len(leads)} leads take {n_samples} samples each: expected a resting ECG"
        )
    counts = np.full((len(leads), n_samples), np.nan)
    for row, lead, values in zip(counts, leads, rows, strict=True):
        row[lead.start - first : lead.start - first + lead.n_samples] = values
    return counts


def _undo_differences(values: NDArray[np.int64], order: int) -> NDArray[np.int64]:
    """Return the samples, shape (n_samples,), from their differences of order 0, 1 or 2.

    The first sample is stored as it is, and so is the second one for differences of order 2.
    """
    if order == 0:
        return values
    if order == 2 and len(values) > 1:
        # The first difference follows from the first two samples, the others from its changes.
        steps = np.concatenate([values[:1], values[1:2] - values[:1], values[2:]])
        steps[1:] = np.cumsum(steps[1:])
        return np.cumsum(steps)
    return np.cumsum(values)


# Huffman codes ------------------------------------------------------------------------------------


def _huffman_table(path: Path, data: bytes) -> Table | None:
    """Return the Huffman table of section 2, or None where samples are 16-bit numbers."""
    if not data:
        return None
    count = struct.unpack_from("<H", data)[0]
    if count == _DEFAULT_TABLE:
        return _default_table()
    if count != 1:
        raise RecordError(path, f"switches between {count} Huffman tables: {_CONVERT}")
    table: Table = {}
    for i in range(struct.unpack_from("<H", data, 2)[0]):
        *lengths, stays, value, code = struct.unpack_from("<BBBhI", data, 4 + 9 * i)
        # Writers disagree about which of the two comes first.
        prefix, total = sorted(lengths)
        if not (0 < prefix <= _MAX_PREFIX and prefix <= total <= 48 and stays):
            raise RecordError(
                path,
                f"Huffman code {i + 1} has {prefix} of {total} bits or leads to another table: "
                f"{_CONVERT}",
            )
        # A prefix is stored with the bit that is read first as the lowest.
        bits = int(f"{code:032b}"[::-1][:prefix], 2)
        table[prefix, bits] = _Code(value, total - prefix)
    return table


class _Codes(NamedTuple):
    """A Huffman table by the next bits of a stream, so that it is decoded in linear time.

    Attributes
    ----------
    n_bits
        Bits of the longest prefix. The arrays have an entry for each number of so many bits.
    prefix, extra
        Bits of the prefix that a number begins with, 0 if it begins with none, and of the number
        behind it.
    value
        What the prefix stands for.
    """

    n_bits: int
    prefix: NDArray[np.uint8]
    extra: NDArray[np.uint8]
    value: NDArray[np.int16]

    @classmethod
    def of(cls, table: Table) -> _Codes:
        """List the continuations of each prefix of a table."""
        longest = max(length for length, _ in table)
        codes = cls(
            longest,
            np.zeros(1 << longest, np.uint8),
            np.zeros(1 << longest, np.uint8),
            np.zeros(1 << longest, np.int16),
        )
        # Of two prefixes, the shorter one is read first.
        for (length, bits), meaning in sorted(table.items(), reverse=True):
            shift = longest - length
            continued = slice(bits << shift, (bits + 1) << shift)
            codes.prefix[continued] = length
            codes.extra[continued] = meaning.extra
            codes.value[continued] = meaning.value
        return codes

    def decode(self, path: Path, coded: bytes, n_samples: int) -> NDArray[np.int64]:
        """Decode `n_samples` numbers, shape (n_samples,); the highest bit of a byte comes first."""
        bits = np.unpackbits(np.frombuffer(coded, np.uint8))
        padded = np.concatenate([bits, np.zeros(self.n_bits, np.uint8)]).astype(np.int32)
        # The next bits at each place, as a number.
        following = np.zeros(len(bits), np.int32)
        for i in range(self.n_bits):
            following = following << 1 | padded[i : i + len(bits)]
        prefix, extra = self.prefix[following], self.extra[following]
        steps = (prefix.astype(np.int32) + extra).tolist()
        starts = _walk(path, steps, n_samples)
        last = starts[-1]
        if last + steps[last] > len(bits):
            raise RecordError(path, f"ends within sample {n_samples - 1} of {n_samples}")
        values = self.value[following[starts]].astype(np.int64)
        for n_extra in np.unique(extra[starts]).tolist():
            if n_extra:
                chosen = extra[starts] == n_extra
                behind = starts[chosen] + prefix[starts[chosen]]
                values[chosen] = _signed(bits, behind, n_extra)
        return values


def _walk(path: Path, steps: list[int], n_samples: int) -> NDArray[np.int64]:
    """Return the place of the first bit of each number, shape (n_samples,)."""
    starts = []
    at = 0
    for i in range(n_samples):
        if at >= len(steps) or not steps[at]:
            raise RecordError(path, f"sample {i} of {n_samples} is no Huffman code of the table")
        starts.append(at)
        at += steps[at]
    return np.array(starts, np.int64)


def _signed(bits: NDArray[np.uint8], starts: NDArray[np.int64], n_bits: int) -> NDArray[np.int64]:
    """Return the numbers that bits stand for in two's complement, shape of `starts`."""
    values = -bits[starts].astype(np.int64)
    for i in range(1, n_bits):
        values = values << 1 | bits[starts + i]
    return values
