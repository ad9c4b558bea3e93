"""What a record must be, worked out apart from the readers."""

from __future__ import annotations

import math
import re
import unicodedata
from pathlib import Path

import numpy as np

from src.records.record import ECGRecord

_PLAIN = re.compile(r"(\S+) 16(?:\+(\d+))? (\S+) (\d+) (-?\d+) (-?\d+) (-?\d+) (\d+) ([\w-]+)")
# of other categories: fillers, selectors of variants
_UNSEEN = {"\u115f", "\u1160", "\u3164", "\uffa0", *map(chr, range(0xFE00, 0xFE10))}
_MEMORY = re.compile(r"MemoryError|unable to allocate|allocation failed", re.IGNORECASE)


class WrongError(Exception):
    """A value that a reader should not have returned, or an error that it should not have
    raised.
    """


def require(condition: object, text: str) -> None:
    if not condition:
        raise WrongError(text)


def steering_marks(text: str) -> list[str]:
    """Return the characters of a text that a terminal obeys, that turn its direction, or that are
    not seen.
    """
    return [
        mark
        for mark in text
        if unicodedata.category(mark) in ("Cc", "Cf", "Cs", "Zl", "Zp") or mark in _UNSEEN
    ]


def check_valid(record: ECGRecord) -> None:
    """Require what every consumer of a record relies on."""
    signal = record.signal
    require(
        signal.dtype == np.float32 and signal.ndim == 2, f"signal is {signal.dtype} {signal.shape}"
    )
    require(
        signal.shape[0] == len(record.leads) and min(signal.shape) > 0,
        f"{signal.shape} for leads {record.leads}",
    )
    require(not np.isinf(signal).any(), "infinite samples")
    require(math.isfinite(record.fs) and 0 < record.fs <= 1e6, f"fs {record.fs}")
    as_written = [record.record_id, *record.leads, *record.codes, record.patient_id or ""]
    for text in [*as_written, *record.flags]:
        require(isinstance(text, str) and len(text) <= 1000, f"text of {len(text)} characters")
        marks = steering_marks(text)
        if text in as_written:
            # Compared with tables, so marks of other scripts stay; messages escape them
            marks = [mark for mark in marks if unicodedata.category(mark) != "Cf"]
            marks = [mark for mark in marks if mark not in _UNSEEN]
        require(not marks, f"marks that steer in {text[:80]!a}")
    require(record.age is None or 0 <= record.age <= 120, f"age {record.age}")
    require(record.sex in (None, "female", "male"), f"sex {record.sex}")


def check_error(error: ValueError | OSError, path: Path) -> None:
    """Require that an error names the file and was no want of memory, which is luck."""
    text = str(error)
    require(not steering_marks(text.replace("\n", "")), f"marks that steer in {text[:300]!a}")
    require(path.stem in text, f"the error does not name {path.name}: {text[:200]}")
    require(not _MEMORY.search(text), f"memory was asked for: {text[:300]}")
    require(
        len(text) < 20000 and max(map(len, text.splitlines())) < 3000,
        f"an error of {len(text)} characters",
    )


def expected_remarks(header: Path) -> set[str] | None:
    """Return the integrity flags of a plain record of 16-bit samples; None where the header is not
    so plain.
    """
    lines = [line.strip() for line in header.read_bytes().decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    first = re.fullmatch(r"\S+ (\d+) \S+ ([1-9]\d*)", lines[0]) if lines else None
    specs = [_PLAIN.fullmatch(line) for line in lines[1:]]
    if first is None or not specs or int(first[1]) != len(specs) or not all(specs):
        return None
    if len({(spec[1], spec[2]) for spec in specs if spec}) != 1:
        return None
    raw = header.with_name(specs[0][1]).read_bytes()[int(specs[0][2] or 0) :]  # type: ignore[index]
    n_samples, n_leads = int(first[2]), len(specs)
    values = (
        np.frombuffer(raw[: 2 * n_samples * n_leads], "<i2").reshape(n_samples, n_leads).astype(int)
    )
    remarks = set()
    for column, spec in zip(values.T, specs, strict=True):
        initial, checksum, lead = int(spec[6]), int(spec[7]), spec[9]  # type: ignore[index]
        if checksum and (int(column.sum()) - checksum) % 65536:
            remarks.add(f"checksum_mismatch:{lead}")
        if checksum and initial != column[0]:
            remarks.add(f"initial_value_mismatch:{lead}")
    return remarks
