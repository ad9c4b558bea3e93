"""XML recordings: GE MUSE and HL7 aECG, told apart by their root element."""

from __future__ import annotations

import re
from pathlib import Path

from src.records.formats.aecg import read_aecg
from src.records.formats.muse import read_muse
from src.records.formats.safe_xml import parse_xml
from src.records.record import ECGRecord, RecordError, RecordRequest

_READERS = {"RestingECG": read_muse, "AnnotatedECG": read_aecg}
# The start tag of a root element, with or without a namespace prefix.
_ROOT = re.compile(rb"<(?:\w+:)?(" + "|".join(_READERS).encode() + rb")[\s>]")


def read_xml(path: Path, request: RecordRequest) -> ECGRecord:
    """Read a GE MUSE or HL7 aECG file.

    Raises
    ------
    RecordError
        If it is neither, or damaged.
    """
    root = parse_xml(path)
    reader = _READERS.get(root.tag)
    if reader is None:
        raise RecordError(
            path,
            f"its root element is {root.tag[:80]}: expected RestingECG (GE MUSE) or "
            "AnnotatedECG (HL7 aECG)",
        )
    return reader(path, root)


def is_ecg_xml(path: Path) -> bool:
    """Return whether an XML file may be a recording, by its first 8 kB."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(8192)
    except OSError:
        # Reading it will report the problem.
        return True
    # Without its zero bytes, ASCII text in UTF-16 is ASCII.
    return _ROOT.search(head.replace(b"\0", b"")) is not None
