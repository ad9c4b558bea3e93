"""SCP-ECG: the rhythm data of a resting ECG, uncompressed or coded by Huffman tables and
differences.

Format: EN 1064:2005+A1:2007 (ISO 11073-91064), sections 0 to 3 and 6. Bimodal compression and the
subtraction of a reference beat, which lose detail outside the QRS complexes, are refused.
"""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.records.facts import parse_age
from src.records.formats.errors import read_whole
from src.records.leads import derive_limb_leads
from src.records.record import ECGRecord, RecordError, RecordRequest
from src.utils import Float32Array

_MAX_BYTES = 2**26
_HEADER = 16  # bytes before the data of a section
_DEFAULT_TABLE = 19999
_LEADS = {
    1: "I",
    2: "II",
    **{i: f"V{i - 2}" for i in range(3, 9)},
    61: "III",
    62: "aVR",
    63: "aVL",
    64: "aVF",
}
_YEARS = {
    1: 1.0,
    2: 1 / 12,
    3: 1 / 52.18,
    4: 1 / 365.25,
    5: 1 / 8766,
}  # units of an age: years, months, weeks, days, hours
_CONVERT = "convert the file with BioSig (save2gdf -f=EDF)"


@dataclass(frozen=True)
class _Code:
    """What a Huffman prefix stands for: a value, or with `extra` bits a signed number that
    follows.
    """

    value: int
    extra: int = 0


Table = dict[tuple[int, int], _Code]  # (length of the prefix, its bits) -> meaning


def _default_table() -> Table:
    """Return the table of the standard: 0, then +n and -n behind n + 1 bits and a sign, then 8 and
    16-bit numbers.
    """
    table = {(1, 0): _Code(0), (10, 0b1111111110): _Code(0, 8), (10, 0b1111111111): _Code(0, 16)}
    for n in range(1, 9):
        ones = (1 << (n + 1)) - 2  # n ones and a zero
        for sign, value in ((0, n), (1, -n)):
            table[n + 2, ones << 1 | sign] = _Code(value)
    return table


def read_scp(path: Path, request: RecordRequest) -> ECGRecord:
    """Read the rhythm data.

    Raises
    ------
    RecordError
        If the file is broken, has no rhythm data, or compresses it in a way that loses detail.
    """
    content = read_whole(path, _MAX_BYTES, "one recording")
    sections = _sections(path, content)
    for number, what in ((3, "leads"), (6, "rhythm data")):
        if number not in sections:
            raise RecordError(path, f"has no section {number} ({what})")
    try:
        names, n_samples = _leads(path, sections[3])
        signal, fs = _rhythm(
            path, sections[6], len(names), n_samples, _tables(path, sections.get(2, b""))
        )
        age, sex, patient_id = _patient(sections.get(1, b""))
    except (struct.error, IndexError) as error:
        raise RecordError(path, f"ends within a section ({error})") from None
    signal, leads, derived = derive_limb_leads(signal, names)
    checksum = struct.unpack_from("<H", content)[0]
    wrong = checksum != binascii.crc_hqx(
        content[2 : struct.unpack_from("<I", content, 2)[0]], 0xFFFF
    )
    flags = (*(("checksum_mismatch",) if wrong else ()), *derived)
    return ECGRecord(
        path.stem, signal, fs, leads, age=age, sex=sex, patient_id=patient_id, flags=flags
    )


# Sections -----------------------------------------------------------------------------------------


def _sections(path: Path, content: bytes) -> dict[int, bytes]:
    """Return the data of each section that is there, by the pointers of section 0."""
    if len(content) < 6 + _HEADER:
        raise RecordError(path, "is too short for SCP-ECG")
    number, length = struct.unpack_from("<HI", content, 8)
    if number != 0 or not _HEADER <= length <= len(content) - 6:
        raise RecordError(path, "does not start with section 0: expected SCP-ECG")
    sections = {}
    for at in range(6 + _HEADER, 6 + length - 9, 10):
        number, size, index = struct.unpack_from("<HII", content, at)
        if size <= _HEADER or number == 0:
            continue
        if not 1 <= index <= len(content) - size + 1:
            raise RecordError(
                path,
                f"section {number} is said to lie at byte {index} with {size} bytes, the "
                f"file has {len(content)}",
            )
        sections[number] = content[index - 1 + _HEADER : index - 1 + size]
    return sections


def _patient(data: bytes) -> tuple[float | None, str | None, str | None]:
    """Return age in years, sex and patient id from the tags of section 1."""
    tags: dict[int, bytes] = {}
    at = 0
    while at + 3 <= len(data) and data[at] != 255:
        length = struct.unpack_from("<H", data, at + 1)[0]
        tags.setdefault(data[at], data[at + 3 : at + 3 + length])
        at += 3 + length
    age = None
    if len(tags.get(4, b"")) == 3:
        value, unit = struct.unpack("<HB", tags[4])
        age = parse_age(f"{value * _YEARS[unit]:.2f}") if unit in _YEARS else None
    sex = {1: "male", 2: "female"}.get((tags.get(8) or b"\0")[0])
    return age, sex, tags.get(2, b"").split(b"\0")[0].decode("latin-1").strip() or None


def _leads(path: Path, data: bytes) -> tuple[tuple[str, ...], int]:
    """Return the names of the leads and the number of samples that each has."""
    count, flags = data[0], data[1]
    if not count:
        raise RecordError(path, "has zero leads: expected one or more")
    if flags & 1:
        raise RecordError(path, f"subtracts a reference beat: {_CONVERT}")
    found = [struct.unpack_from("<IIB", data, 2 + 9 * i) for i in range(count)]
    spans = {(start, end) for start, end, _ in found}
    if len(spans) != 1:
        raise RecordError(
            path, f"leads start and end at {sorted(spans)}: expected all at the same samples"
        )
    start, end = spans.pop()
    return tuple(_LEADS.get(number, f"SCP {number}") for *_, number in found), end - start + 1


def _rhythm(
    path: Path, data: bytes, n_leads: int, n_samples: int, table: Table | None
) -> tuple[Float32Array, float]:
    """Return the signal in mV, shape (n_leads, n_samples), and the rate in Hz."""
    nanovolts, microseconds, differences, bimodal = struct.unpack_from("<HHBB", data)
    if bimodal:
        raise RecordError(path, f"is compressed bimodally: {_CONVERT}")
    if not nanovolts or not microseconds or differences > 2:
        raise RecordError(
            path,
            f"has {nanovolts} nV per unit, {microseconds} us per sample and {differences} "
            "differences",
        )
    lengths = struct.unpack_from(f"<{n_leads}H", data, 6)
    at = 6 + 2 * n_leads
    rows = []
    for length in lengths:
        coded = data[at : at + length]
        at += length
        held = len(coded) * 8 if table else len(coded) // 2
        if len(coded) < length or not 0 < n_samples <= held:  # a sample takes a bit at least
            raise RecordError(
                path, f"promises {n_samples} samples in {length} bytes, {len(coded)} are there"
            )
        values = (
            _decode(path, coded, n_samples, table)
            if table
            else np.frombuffer(coded, "<i2", n_samples).astype(np.int64)
        )
        rows.append(_undo_differences(values, differences))
    return (np.stack(rows) * (nanovolts * 1e-6)).astype(np.float32), 1e6 / microseconds


def _undo_differences(values: NDArray[np.int64], order: int) -> NDArray[np.int64]:
    """Sum differences up; the first sample, or the first two of second differences, stand as they
    are.
    """
    if order == 2 and len(values) > 1:
        steps = np.concatenate([values[:1], values[1:2] - values[:1], values[2:]])
        steps[1:] = np.cumsum(steps[1:])
        return np.cumsum(steps)
    return np.cumsum(values) if order else values


# Huffman codes ------------------------------------------------------------------------------------


def _tables(path: Path, data: bytes) -> Table | None:
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
        prefix, total = sorted(lengths)  # writers disagree about which of the two comes first
        if not (0 < prefix <= total <= 48 and stays):
            raise RecordError(
                path,
                f"Huffman code {i + 1} has {prefix} of {total} bits or leads to another "
                f"table: {_CONVERT}",
            )
        bits = int(f"{code:032b}"[::-1][:prefix], 2)  # the bit that is read first is the lowest
        table[prefix, bits] = _Code(value, total - prefix)
    return table


def _decode(path: Path, coded: bytes, n_samples: int, table: Table) -> NDArray[np.int64]:
    """Decode `n_samples` numbers, the highest bit of each byte first."""
    bits = "".join(f"{byte:08b}" for byte in coded)
    longest = max(length for length, _ in table)
    prefixes = {f"{code:0{length}b}": meaning for (length, code), meaning in table.items()}
    values = np.empty(n_samples, np.int64)
    at = 0
    for i in range(n_samples):
        end = at + 1
        while (code := prefixes.get(bits[at:end])) is None:
            end += 1
            if end - at > longest or end > len(bits):
                raise RecordError(
                    path, f"sample {i} of {n_samples} is no Huffman code of the table"
                )
        at = end + code.extra
        if at > len(bits):
            raise RecordError(path, f"ends within sample {i} of {n_samples}")
        values[i] = _signed(bits[end:at]) if code.extra else code.value
    return values


def _signed(bits: str) -> int:
    value = int(bits, 2)
    return value - (1 << len(bits)) if bits[0] == "1" else value
