"""Our own files on disk: record files (.npz), the manifest and its journal.

A record file is an ordinary deflated .npz that plain ``np.load`` opens. It is written here rather than with
``np.savez_compressed`` because zlib takes most of a preprocessing run; ISA-L's deflate gives about the same size in a
tenth of the time. The bytes depend only on the arrays.
"""

from __future__ import annotations

import csv
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from src.utils import atomic_path, stable_hash

if TYPE_CHECKING:
    import pandas as pd

FORMAT_VERSION = 1
"""Part of every config hash: raised when the content of a record file changes meaning."""

LIST_SEPARATOR = ";"
_DEFLATE_LEVEL = 1
_ZIP64_LIMIT = 2**31


# Names ---------------------------------------------------------------------------------------------------------------


def record_key(dataset: str, record_id: str) -> str:
    """Return the key that names a record in splits, predictions and files: ``<dataset>__<record_id>``."""
    return f"{dataset}__{record_id}"


def record_path(processed: str | Path, key: str) -> Path:
    """Return the record file of a key below the folder `processed`."""
    return Path(processed) / "records" / f"{_file_name(key)}.npz"


@lru_cache(maxsize=65536)
def _file_name(key: str) -> str:
    """Escape what a file system may refuse; plain keys stay as they are, overlong ones end in a hash."""
    name = re.sub(r'[\x00-\x1f<>:"/\\|?*%]', lambda match: f"%{ord(match[0]):02X}", key)
    return name if len(name.encode()) <= 240 else f"{name.encode()[:200].decode(errors='ignore')}~{stable_hash(key)}"


# Record files --------------------------------------------------------------------------------------------------------


def save_record_file(path: Path, arrays: Mapping[str, Any], *, sync: bool = False) -> None:
    """Write arrays as a deflated .npz under a temporary name, then rename it."""
    with atomic_path(path, sync=sync) as temporary:
        values = {name: np.asarray(value) for name, value in arrays.items()}
        if sum(value.nbytes for value in values.values()) > _ZIP64_LIMIT:
            np.savez_compressed(temporary, allow_pickle=False, **values)
        else:
            temporary.write_bytes(encode_npz(values))


def encode_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of an .npz (zip, deflate) holding `arrays`; at most 2 GiB.

    Layout after PKWARE's APPNOTE 6.3: local headers with data, central directory, end record. Time stamps are fixed,
    so that equal arrays give equal bytes.
    """
    parts: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        content = _npy_header(array.dtype.str, array.shape) + np.ascontiguousarray(array).tobytes()
        packed = isal_zlib.compress(content, _DEFLATE_LEVEL, -15)
        file_name = f"{name}.npy".encode()
        # version 2.0, flags 0, deflate, 1980-01-01 00:00, CRC, sizes, name length, no extra field
        common = struct.pack(
            "<HHHHHIIIHH", 20, 0, 8, 0, 33, isal_zlib.crc32(content), len(packed), len(content), len(file_name), 0
        )
        parts += [b"PK\x03\x04", common, file_name, packed]
        directory += [b"PK\x01\x02\x14\x00", common, struct.pack("<HHHII", 0, 0, 0, 0o600 << 16, offset), file_name]
        offset += 4 + len(common) + len(file_name) + len(packed)
    tail = b"".join(directory)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, len(arrays), len(arrays), len(tail), offset, 0)
    return b"".join([*parts, tail, end])


@lru_cache(maxsize=1024)
def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def load_record_file(path: str | Path, *names: str) -> dict[str, NDArray[Any]]:
    """Read the named arrays of a record file, or all of them.

    Raises
    ------
    ValueError
        If the file is missing or no record file; the message names it.
    """
    return _read_arrays(path, *names)


def load_signal(path: str | Path) -> NDArray[np.float32]:
    """Read only the signal of a record file, shape (n_leads, n_samples)."""
    return _read_arrays(path, "signal")["signal"]


def _read_arrays(path: str | Path, *names: str) -> dict[str, NDArray[Any]]:
    """Read the named arrays of a record file, or all of them."""
    try:
        # np.load leaves the file open when it is no zip, so the file is opened here
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in names or archive.files}
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a record file ({error}); run preprocess again to make it anew") from None


def to_millivolts(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the voltages of a record file in mV, shape (n_leads, n_valid): z-score times std plus mean."""
    n_valid = int(arrays["n_valid"])
    signal: NDArray[np.float32] = arrays["signal"][:, :n_valid]
    voltages: NDArray[np.float32] = signal * arrays["lead_std"][:, None] + arrays["lead_mean"][:, None]
    return voltages


# Manifest ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ManifestRow:
    """What became of one attempted record; lists are joined with ``;``."""

    dataset: str
    record_id: str
    patient_id: str = ""
    source_path: str = ""
    fs: float | str = ""
    n_samples: int | str = ""
    labels: str = ""
    annotated: str = ""
    label_source: str = ""
    fold: int | str = ""
    split: str = ""
    status: str = ""
    reason: str = ""
    quality_flags: str = ""
    signal_hash: str = ""
    age: float | str = ""
    sex: str = ""
    config_hash: str = ""
    input_hash: str = ""


MANIFEST_COLUMNS = tuple(field.name for field in fields(ManifestRow))


def join_list(values: Iterable[str]) -> str:
    """Join labels or flags for a CSV cell."""
    return LIST_SEPARATOR.join(values)


def split_list(cell: str) -> tuple[str, ...]:
    """Split a CSV cell of labels or flags; blanks and repeats are dropped."""
    return tuple(dict.fromkeys(part for part in (item.strip() for item in cell.split(LIST_SEPARATOR)) if part))


class Journal:
    """Rows appended as they come, so that a killed run can go on; deleted once the manifest holds them."""

    def __init__(self, processed: Path) -> None:
        self.path = processed / "manifest.partial.csv"

    def append(self, rows: Iterable[ManifestRow]) -> None:
        """Add rows in one write, so that a kill tears the last lines at most."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([astuple(row) for row in rows])
        with open(self.path, "a", encoding="utf-8", newline="") as stream:
            stream.write(text.getvalue())

    def load(self) -> pd.DataFrame:
        """Return the rows, without a torn last line."""
        import pandas as pd

        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        rows = [row for row in csv.reader(io.StringIO(whole)) if len(row) == len(MANIFEST_COLUMNS)]
        return pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS), dtype=str)

    def remove(self) -> None:
        """Delete the journal."""
        self.path.unlink(missing_ok=True)


def load_manifest(processed: str | Path) -> pd.DataFrame:
    """Read ``manifest.csv`` as strings, empty cells as empty strings; a folder without one gives no rows.

    Raises
    ------
    ValueError
        If the file is not a manifest.
    """
    import pandas as pd

    path = Path(processed) / "manifest.csv"
    if not path.exists():
        return pd.DataFrame(columns=list(MANIFEST_COLUMNS), dtype=str)
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a manifest ({error}); delete it and run preprocess again") from None
    missing = [name for name in MANIFEST_COLUMNS if name not in frame.columns]
    if missing:
        raise ValueError(f"{path}: columns {', '.join(missing)} are missing; delete it and run preprocess again")
    return frame[list(MANIFEST_COLUMNS)]


def save_manifest(frame: pd.DataFrame, processed: str | Path) -> None:
    """Write ``manifest.csv`` atomically."""
    with atomic_path(Path(processed) / "manifest.csv") as temporary:
        frame.to_csv(temporary, index=False, columns=list(MANIFEST_COLUMNS), lineterminator="\n")
