"""The folders that a run reads from, watched while it runs."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.formats.base import split_part
from src.remote import as_path, as_url
from src.store import ManifestRow


class SourceFolders:
    """The folders of the collections, so that one that vanishes ends the run instead of each of its
    records.

    Behind a URL it is the fetching that notices.
    """

    def __init__(self, roots: Mapping[str, str]) -> None:
        self.roots = {name: str(as_path(root)) for name, root in roots.items() if not as_url(root)}
        self.places = {name: _place(root) for name, root in self.roots.items()}

    def require(self, rows: Sequence[ManifestRow]) -> None:
        """Look at the folders of the records that could not be read.

        Raises
        ------
        OSError
            If a file is gone, and its folder with it.
        """
        for row in rows:
            if row.status != "unreadable" or row.dataset not in self.roots:
                continue
            path = split_part(row.source_path)[0]
            if os.path.isfile(path):
                continue
            root = self.roots[row.dataset]
            escaped = (
                os.sep == "/" and "\\" in row.source_path
            )  # what cannot be printed was escaped, so the path leads nowhere
            if _place(root) != self.places[row.dataset] or (not escaped and _is_empty(path.parent)):
                raise OSError(
                    errno.ENOENT,
                    "the folder is gone, or is another one now; bring it back and run the "
                    "same command again",
                    root,
                )


def _place(folder: str) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_empty(folder: Path) -> bool:
    """Tell whether nothing is in a folder, as where a mount was removed, or the folder is not
    there.
    """
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True
