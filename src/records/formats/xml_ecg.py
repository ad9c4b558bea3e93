"""XML recordings: told apart by their root element."""

from __future__ import annotations

import re
from pathlib import Path

from src.records.formats.aecg import read_aecg
from src.records.formats.muse import read_muse
from src.records.formats.safe_xml import parse_xml
from src.records.record import ECGRecord, RecordError, RecordRequest

_READERS = {"RestingECG": read_muse, "AnnotatedECG": read_aecg}
_ROOT = re.compile(rb"<(?:\w+:)?(" + "|".join(_READERS).encode() + rb")[\s>]")


def read_xml(path: Path, request: RecordRequest) -> ECGRecord:
    """Read a GE MUSE or HL7 aECG file.

    Raises
    ------
    RecordError
        If it is neither, or broken.
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
    """Tell by its beginning whether an XML file may hold a recording, so that others are passed
    over.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(8192)
    except OSError:
        return True  # reading it will say what is wrong
    return _ROOT.search(head.replace(b"\0", b"")) is not None  # without the zeros of UTF-16
