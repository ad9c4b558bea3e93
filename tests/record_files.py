"""Record files for tests, written as preprocessing writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.processed.files import FileBatch
from src.processed.record_files import save_record_files


def write_record_file(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write one record file, in a folder that is made where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileBatch() as batch:
        save_record_files([(path, arrays)], batch)
        batch.commit()
