"""Folders behind URLs such as ``s3://bucket/folder``: listed, fetched from, uploaded to, through
fsspec.

fsspec is imported, and the network touched, only where somebody gave a URL. ``file://`` URLs are
local paths.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from src.utils import as_path, as_url, import_extra, printable, stable_hash

_STAMPS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "LastModified",
    "last_modified",
    "mtime",
    "created",
)
_THREADS = 16  # transfers at a time: each waits for the network most of the time
_MAX_NAME = 255  # bytes, of file systems


def join_root(root: str | Path, relative: str) -> str:
    """Return the path or URL of a file below a collection's folder, given relative to it with
    forward slashes.
    """
    prefix, separator = _prefix(root)  # as texts, since a million paths would take seconds to make
    return prefix + relative.replace("/", separator)


@lru_cache(maxsize=64)
def _prefix(root: str | Path) -> tuple[str, str]:
    """Return what the paths of all files below a folder or URL begin with, and what stands between
    their parts.
    """
    if url := as_url(root):
        return f"{url}/", "/"
    path = as_path(root)
    return "" if path == Path() else os.path.join(path, ""), os.sep


@dataclass(frozen=True)
class RemoteFile:
    """A file of a listing: its size, and what changes when its content does."""

    size: int
    stamp: str


@dataclass(frozen=True)
class RemoteFolder:
    """A folder behind a URL; names are relative to it, with forward slashes."""

    url: str

    def _open(self) -> tuple[Any, str]:
        """Return the file system and the folder's path in it."""
        fsspec = import_extra(
            "fsspec.core", f"{self.url.split(':')[0]}:// URLs", "-r requirements-remote.txt"
        )
        try:
            fs, path = fsspec.url_to_fs(self.url)
        except ImportError as error:
            raise ValueError(
                f"{self.url}: {error}: pip install -r requirements-remote.txt has what s3:// needs"
            ) from None
        except ValueError as error:
            raise ValueError(
                f"{self.url}: {error}; expected a URL that fsspec knows, such as s3://bucket/folder"
            ) from None
        return fs, path.rstrip("/")

    def list_files(self) -> dict[str, RemoteFile]:
        """Return what lies below the folder by name, in one listing; names that a local folder
        could not hold are left out.

        Raises
        ------
        OSError
            If the store cannot be reached or refuses.
        """
        fs, root = self._open()
        with one_line_errors(self.url):
            fs.invalidate_cache()  # others write there too
            found = fs.find(root, detail=True)
            fs.invalidate_cache()  # it would stay in memory
        files = {}
        for path, info in found.items():
            name = path[len(root) :].lstrip("/") if path.startswith(root) else path
            if is_safe(name):
                files[name] = RemoteFile(int(info.get("size") or 0), _stamp(info))
        return files

    def list_names(self) -> list[str]:
        """Return the names of what lies right in the folder; none where it is not there."""
        fs, root = self._open()
        try:
            with one_line_errors(self.url):
                return [
                    str(path).rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(root, detail=False)
                ]
        except FileNotFoundError:
            return []

    def stamp(self, name: str) -> str:
        """Return what changes when a file does; empty where there is none."""
        fs, root = self._open()
        try:
            with one_line_errors(f"{self.url}/{name}"):
                fs.invalidate_cache()
                return _stamp(fs.info(f"{root}/{name}"))
        except FileNotFoundError:
            return ""

    def exists(self) -> bool:
        """Tell whether anything is there."""
        fs, root = self._open()
        with one_line_errors(self.url):
            fs.invalidate_cache()
            return bool(fs.exists(root))

    def fetch(self, wanted: Sequence[tuple[str, Path]]) -> list[str]:
        """Copy files to local paths; returns the names that are not there.

        Raises
        ------
        OSError
            If the store cannot be reached or refuses, or there is no room here.
        """
        fs, root = self._open()

        def fetch_one(item: tuple[str, Path]) -> str | None:
            name, path = item
            try:
                with one_line_errors(f"{self.url}/{name}"):
                    fs.get_file(f"{root}/{name}", str(path))
            except FileNotFoundError:
                path.unlink(missing_ok=True)
                return name
            return None

        for folder in {path.parent for _, path in wanted}:
            folder.mkdir(parents=True, exist_ok=True)
        return [name for name in _each(fetch_one, wanted) if name is not None]

    def upload(self, files: Iterable[tuple[Path, str]]) -> None:
        """Copy local files to names in the folder; an object store shows each whole or not at all.

        Raises
        ------
        OSError
            If the store cannot be reached or refuses.
        """
        fs, root = self._open()

        def upload_one(item: tuple[Path, str]) -> None:
            path, name = item
            with one_line_errors(f"{self.url}/{name}"):
                fs.put_file(str(path), f"{root}/{name}")

        list(_each(upload_one, list(files)))

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        fs, root = self._open()
        with one_line_errors(f"{self.url}/{name}"):
            if fs.exists(f"{root}/{name}"):
                fs.rm_file(f"{root}/{name}")


def _stamp(info: dict[str, Any]) -> str:
    return next((str(info[key]) for key in _STAMPS if info.get(key)), "")


def _each(call: Any, items: Sequence[Any]) -> Iterator[Any]:
    if len(items) < 2:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(min(_THREADS, len(items))) as threads:
        yield from threads.map(call, items)


def is_safe(name: str) -> bool:
    """Tell whether a name of a store can be that of a file below a local folder: no way up, no
    other separator, no overlong part.
    """
    parts = name.split("/")
    return not any(
        part in ("", ".", "..") or len(part.encode(errors="replace")) > _MAX_NAME for part in parts
    ) and not re.search(r"[\\\x00]", name)


@contextmanager
def one_line_errors(url: str) -> Iterator[None]:
    """Raise what a store's library raises as an OSError of one line that names the URL.

    Raises
    ------
    FileNotFoundError
        If what the URL names is not there.
    OSError
        For anything else.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{url}: there is no such bucket, folder or file") from error
    except Exception as error:  # each store has a library with errors of its own
        text = printable(" ".join(str(error).split())) or "no reason given"
        hint = ""
        if type(error).__name__ == "NoCredentialsError":
            hint = """; for a public bucket set FSSPEC_S3='{"anon": true}'"""
        raise OSError(f"{url}: {text} ({type(error).__name__}){hint}") from error


def cache_folder(url: str, kind: str) -> Path:
    """Return the local folder that stands for one behind a URL, below ``$XDG_CACHE_HOME`` or
    ``~/.cache``; it is not made.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = re.sub(r"[^\w.-]+", "-", PurePosixPath(url).name)[:60]
    return base / "ecg-tensor-pipeline" / kind / f"{name}-{stable_hash(url)}"
