"""XML recordings, told apart by their root element."""

from __future__ import annotations

from pathlib import Path

from src.records.formats.aecg import read_aecg
from src.records.formats.cardiosoft import read_cardiosoft
from src.records.formats.mortara import read_mortara
from src.records.formats.muse import read_muse
from src.records.formats.philips import read_philips
from src.records.formats.safe_xml import parse_xml, root_name
from src.records.record import ECGRecord, RecordError, RecordRequest

_READERS = {
    "RestingECG": read_muse,
    "AnnotatedECG": read_aecg,
    "restingecgdata": read_philips,
    "CardiologyXML": read_cardiosoft,
    "ECG": read_mortara,
}
EXPECTED_ROOTS = (
    "expected RestingECG (GE MUSE), AnnotatedECG (HL7 aECG), restingecgdata (Philips), "
    "CardiologyXML (CardioSoft) or ECG (Mortara)"
)
"""End of the message for XML of another kind."""


def read_xml(path: Path, request: RecordRequest) -> ECGRecord:
    """Read an XML recording of any kind.

    Raises
    ------
    RecordError
        If it is of no kind that is read, or damaged.
    """
    root = parse_xml(path)
    reader = _READERS.get(root.tag)
    if reader is None:
        raise RecordError(path, f"its root element is {root.tag[:80]}: {EXPECTED_ROOTS}")
    return reader(path, root, request.hints)


def is_ecg_xml(head: bytes) -> bool:
    """Return whether a file is an XML recording, by its first bytes."""
    return root_name(head) in _READERS
