"""The one guarded way to anything inside a DICOM file: its elements, items and values.

pydicom takes 10 us for an element and 30 us for an item, and a file may claim millions of them in a
few bytes each. So every read of the parser is counted. Sequences are parsed here, as pydicom would
parse those of a stated length out of sight. Values are held against a length before they are
converted, since a text of numbers becomes a list.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.records.formats.errors import missing_extra, read_whole
from src.records.record import RecordError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MAX_BYTES = 2**30
# UID of the transfer syntax Deflated Explicit VR Little Endian.
_DEFLATED = "1.2.840.10008.1.2.1.99"
# A 12-lead ECG takes a thousand reads, and one with all measurements of a cart some thousands.
_MAX_READS = 60_000
# Bytes of a value that is no waveform; numbers and names have at most 64.
_MAX_VALUE = 1024


class Budget:
    """Counts the reads of a parser of one file, and refuses the file if there are too many.

    Parameters
    ----------
    path
        The file, for error messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_left = _MAX_READS

    def take(self) -> None:
        """Count one read."""
        self.n_left -= 1
        if self.n_left < 0:
            raise RecordError(
                self.path, f"takes over {_MAX_READS} reads to parse: expected one recording"
            )


class _Counted(io.BytesIO):
    """Bytes that count how often they are read."""

    def __init__(self, content: bytes, budget: Budget) -> None:
        super().__init__(content)
        self._budget = budget

    def read(self, size: int | None = -1, /) -> bytes:
        self._budget.take()
        return super().read(size)


def open_dicom(
    path: Path, begins_with_elements: Callable[[bytes], bool], budget: Budget
) -> Dataset:
    """Parse a file from memory, without what is in its sequences of a stated length.

    pydicom allocates the length that an element of a file on disk claims, even if it is not there.

    Parameters
    ----------
    path
        The file.
    begins_with_elements
        Tells a file without preamble by its first bytes.
    budget
        Counts the reads.

    Raises
    ------
    RecordError
        If pydicom is not installed, or the file is no DICOM, or deflated or big-endian.
    """
    try:
        import pydicom
    except ImportError:
        raise missing_extra(path, "pydicom", "DICOM") from None
    raw = read_whole(path, _MAX_BYTES, "one recording")
    has_no_preamble = raw[128:132] != b"DICM"
    if has_no_preamble and not begins_with_elements(raw[:4096]):
        raise RecordError(path, "is no DICOM file: expected a preamble and DICM, or elements")
    content = _Counted(raw, budget)
    # The encoding is in the first elements. Others are not parsed before it is known to be safe:
    # deflated content may inflate to any size.
    meta = pydicom.filereader.read_partial(
        content, stop_when=lambda tag, vr, length: tag.group > 2, force=has_no_preamble
    ).file_meta
    syntax = value_of(path, meta, "TransferSyntaxUID")
    if syntax is not None and (str(syntax) == _DEFLATED or not syntax.is_little_endian):
        raise RecordError(
            path, f"is encoded as {syntax.name}: expected little endian, not deflated"
        )
    content.seek(0)
    return pydicom.dcmread(content, force=has_no_preamble)


def value_of(path: Path, item: Dataset, name: str, max_bytes: int = _MAX_VALUE) -> Any:
    """Return the value of an element, or None if there is none.

    Parameters
    ----------
    path
        The file, for error messages.
    item
        The file or an item of a sequence.
    name
        Keyword of the element; no sequence.
    max_bytes
        Largest length of the value.

    Raises
    ------
    RecordError
        If the value is longer.
    """
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(name)
    if tag is None or tag not in item:
        return None
    held = item.get_item(tag).value
    if isinstance(held, (bytes, str)) and len(held) > max_bytes:
        raise RecordError(path, f"{name} has {len(held)} bytes: expected {max_bytes} at most")
    return item.get(name)


def items_of(path: Path, item: Dataset, name: str, budget: Budget) -> list[Dataset]:
    """Return the items of a sequence, none if there is no such sequence.

    They take the place of the bytes in `item`, so that pydicom does not parse them again.

    Raises
    ------
    RecordError
        If parsing takes too many reads.
    """
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.filereader import read_sequence

    tag = tag_for_keyword(name)
    if tag is None or tag not in item:
        return []
    held = item.get_item(tag)
    if isinstance(held, RawDataElement) and isinstance(held.value, bytes):
        stream = _Counted(held.value, budget)
        encoding = item.original_character_set or "iso8859"
        try:
            parsed = read_sequence(
                stream, held.is_implicit_VR, held.is_little_endian, len(held.value), encoding
            )
        except OSError as error:
            # The package hides the error of the budget behind one of its own.
            raise error.__context__ or error from None
        item[tag] = DataElement(tag, "SQ", parsed)
    return list(item.get(name) or [])
