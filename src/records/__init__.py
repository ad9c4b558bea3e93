"""Recordings: files of any format are read as an `ECGRecord` in mV.

`reading` picks the reader of a file; `formats` has one module for each format. `folders` finds the
records below a folder, `remote` and `fetching` those at a URL. `windows` cuts long recordings.
`in_memory` makes records of arrays and writes collections of them. `synthetic` generates
recordings, and `sample_collections` and `sample_annotated` write collections of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.utils import lazy_exports

if TYPE_CHECKING:
    from src.records.in_memory import (
        from_array as from_array,
    )
    from src.records.in_memory import (
        write_collection as write_collection,
    )
    from src.records.reading import (
        iter_records as iter_records,
    )
    from src.records.reading import (
        read_record as read_record,
    )
    from src.records.record import (
        ECGRecord as ECGRecord,
    )
    from src.records.record import (
        RecordError as RecordError,
    )

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "in_memory": ("from_array", "write_collection"),
        "reading": ("iter_records", "read_record"),
        "record": ("ECGRecord", "RecordError"),
    },
)
