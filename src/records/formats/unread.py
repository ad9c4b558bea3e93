"""What a file that no reader takes is, by its first bytes, and what to do with it.

Files of recordings are told from tables, documents and archives, so that a folder's index can say
which recordings it leaves out, and why.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from src.records.formats.safe_xml import root_name
from src.records.formats.xml_ecg import EXPECTED_ROOTS
from src.utils import printable

_CONVERT = "convert it to EDF, WFDB or HL7 aECG"

# Root element of an XML file -> its format.
_XML_RECORDINGS = {
    "sapphire": "GE Sapphire XML",
    "ZOLLECG": "Zoll XML",
    "CardioSoft": "CardioSoft XML",
    "MeasurementRecord": "Schiller XML",
    "SEMA": "Schiller SEMA XML",
    "StressTest": "GE stress test XML",
}
# First bytes of a file -> its format; recordings in formats that are not read.
_RECORDINGS = {
    b"GDF ": "GDF",
    b"Brain Vision Data Exchange": "BrainVision",
    b"@  MFER ": "MFER",
    b"\x89HDF\r\n\x1a\n": "HDF5 under another suffix; name it .h5",
    b"BIOPAC": "BIOPAC",
}
# First bytes of files that may hold recordings, packed.
_ARCHIVES = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"(\xb5/\xfd": "a Zstandard archive",
}
_SUFFIX_RECORDINGS = {
    ".mwf": "MFER",
    ".vhdr": "BrainVision",
    ".gdf": "GDF",
    ".acq": "BIOPAC",
    ".rri": "a list of beat intervals",
}

# Files that belong to a collection and are no recordings, by name or by suffix.
_SIDE_NAMES = re.compile(
    r"(readme|licen[cs]e|copying|changelog|changes|records|annotators|notes|index|dicomdir"
    r"|(md5|sha1|sha256|sha512)sums?|checksums?|thumbs|desktop|subjects?|files|references?)\b.*",
    re.IGNORECASE,
)
_SIDE_SUFFIXES = frozenset(
    (
        ".md",
        ".rst",
        ".html",
        ".htm",
        ".pdf",
        ".png",
        ".jpg",
        ".jpeg",
        ".gif",
        ".svg",
        ".bmp",
        ".tif",
        ".tiff",
        ".py",
        ".pyc",
        ".ipynb",
        ".m",
        ".r",
        ".c",
        ".h",
        ".cpp",
        ".sh",
        ".bat",
        ".log",
        ".json",
        ".jsonl",
        ".yaml",
        ".yml",
        ".toml",
        ".ini",
        ".cfg",
        ".xls",
        ".xlsx",
        ".ods",
        ".doc",
        ".docx",
        ".odt",
        ".ppt",
        ".pptx",
        ".bib",
        ".tex",
        ".css",
        ".js",
        ".dtd",
        ".xsd",
        ".xsl",
        ".rtf",
        ".lnk",
        ".url",
        ".db",
        ".sqlite",
        ".part",
        ".tmp",
        ".bak",
        ".md5",
        ".sha256",
        ".pth",
        ".pt",
        ".onnx",
        ".pkl",
        ".pickle",
    )
)


@dataclass(frozen=True)
class Unread:
    """A file that no reader takes.

    Attributes
    ----------
    reason
        What it is, and what to do; reads on from the file's name.
    is_recording
        Whether it holds a recording. A run then lists it as unreadable.
    is_side_file
        Whether it is a table, document or picture that belongs to a collection.
    """

    reason: str
    is_recording: bool = False
    is_side_file: bool = False


# A file that belongs to a collection and is no recording.
SIDE_FILE = Unread("is a document, table or picture: expected a recording", is_side_file=True)


def is_side_name(name: str) -> bool:
    """Return whether a file is no recording by its name, such as README.txt or figure.png."""
    stem, suffix = os.path.splitext(name)
    return suffix.lower() in _SIDE_SUFFIXES or _SIDE_NAMES.fullmatch(stem) is not None


def describe_unread(name: str, head: bytes) -> Unread:
    """Describe a file that no reader takes.

    Parameters
    ----------
    name
        Its name.
    head
        Its first bytes.
    """
    known = describe_known(name, head)
    if known is not None:
        return known
    return Unread(f"its format is unknown (it starts with {head[:8]!r}): expected a recording")


def describe_known(name: str, head: bytes) -> Unread | None:
    """Describe a file of a kind that is known and not read; None for other files."""
    suffix = os.path.splitext(name)[1].lower()
    if not head:
        # Such as an empty list of labels
        is_text = suffix in (".csv", ".tsv", ".txt", ".asc")
        return Unread("is empty: expected a recording", is_side_file=is_text or is_side_name(name))
    if suffix == ".dat":
        header = f"{os.path.splitext(name)[0]}.hea"
        # Many headers name sample files of other names, so such a file is not missed by itself.
        return Unread(f"its header {header} is not in the folder", is_side_file=True)
    if root := root_name(head):
        if root in _XML_RECORDINGS:
            return _recording(f"{_XML_RECORDINGS[root]} (root element {root})")
        return Unread(f"its root element is {printable(root[:80])}: {EXPECTED_ROOTS}")
    known = _by_beginning(_RECORDINGS, head) or _SUFFIX_RECORDINGS.get(suffix)
    if known:
        return _recording(known)
    if archive := _by_beginning(_ARCHIVES, head):
        return Unread(f"is {archive}: unpack it")
    if head.startswith(b"PK\x03\x04"):
        return _describe_zip(suffix)
    if head.startswith(b"\x93NUMPY"):
        return Unread("is an array of numbers that do not run like a signal")
    if head.startswith(b"PAR1"):
        return Unread("is a Parquet table without a column of signals", is_side_file=True)
    if is_side_name(name):
        return SIDE_FILE
    return None


def _recording(kind: str) -> Unread:
    return Unread(f"is {kind}, which is not read: {_CONVERT}", is_recording=True)


def _describe_zip(suffix: str) -> Unread:
    if suffix == ".npz":
        return Unread("is a NumPy archive whose arrays do not run like a signal")
    if suffix in _SIDE_SUFFIXES:
        return SIDE_FILE
    return Unread("is a zip archive: unpack it")


def _by_beginning(kinds: dict[bytes, str], head: bytes) -> str | None:
    return next((kind for start, kind in kinds.items() if head.startswith(start)), None)
