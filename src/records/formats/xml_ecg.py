"""XML recordings: GE MUSE and HL7 aECG, told apart by their root element."""

from __future__ import annotations

from pathlib import Path

from src.records.formats.aecg import read_aecg
from src.records.formats.muse import read_muse
from src.records.formats.safe_xml import parse_xml, root_name
from src.records.record import ECGRecord, RecordError, RecordRequest

_READERS = {"RestingECG": read_muse, "AnnotatedECG": read_aecg}


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
    return reader(path, root, request.hints)


def is_ecg_xml(head: bytes) -> bool:
    """Return whether a file is an XML recording, by its first bytes."""
    return root_name(head) in _READERS
