"""Folders at URLs such as ``s3://bucket/folder``: list, fetch and upload files with fsspec.

fsspec is imported, and the network used, only if a URL is given. ``file://`` URLs are local paths.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from src.utils import as_path, as_url, import_extra, printable, stable_hash

Item = TypeVar("Item")
Result = TypeVar("Result")

# Keys under which stores state the version of a file, the best first.
_STAMP_KEYS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "LastModified",
    "last_modified",
    "mtime",
    "created",
)
_THREADS = 16  # transfers at a time; each waits for the network most of the time
_MAX_NAME = 255  # bytes, of file systems


def join_root(root: str | Path, relative: str) -> str:
    """Return the path or URL of a file, from its collection's folder and its relative path.

    The relative path has forward slashes.
    """
    # Texts are joined, since a million `Path` objects would take seconds.
    prefix, separator = _prefix(root)
    return prefix + relative.replace("/", separator)


@lru_cache(maxsize=64)
def _prefix(root: str | Path) -> tuple[str, str]:
    """Return the start of all paths below a folder or URL, and the separator of their parts."""
    if url := as_url(root):
        return f"{url}/", "/"
    path = as_path(root)
    return "" if path == Path() else os.path.join(path, ""), os.sep


@dataclass(frozen=True)
class RemoteFile:
    """A file of a listing: its size in bytes, and a version stamp that changes with its content."""

    size: int
    stamp: str


@dataclass(frozen=True)
class RemoteFolder:
    """A folder at a URL; names of files are relative to it, with forward slashes."""

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
        """Return the files below the folder by name, without names that no local folder can hold.

        Raises
        ------
        OSError
            If the store cannot be reached or refuses.
        """
        fs, root = self._open()
        with one_line_errors(self.url):
            # Others write there too, so an earlier listing may be out of date.
            fs.invalidate_cache()
            listing = fs.find(root, detail=True)
            # A listing of a large store must not stay in memory.
            fs.invalidate_cache()
        files = {}
        for path, info in listing.items():
            name = path[len(root) :].lstrip("/") if path.startswith(root) else path
            if is_safe(name):
                files[name] = RemoteFile(int(info.get("size") or 0), _stamp(info))
        return files

    def list_names(self) -> list[str]:
        """Return the names of the folder's direct entries; none if it does not exist."""
        fs, root = self._open()
        try:
            with one_line_errors(self.url):
                paths = fs.ls(root, detail=False)
        except FileNotFoundError:
            return []
        return [str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths]

    def stamp(self, name: str) -> str:
        """Return a version stamp of a file; empty if the file does not exist."""
        fs, root = self._open()
        try:
            with one_line_errors(f"{self.url}/{name}"):
                fs.invalidate_cache()
                return _stamp(fs.info(f"{root}/{name}"))
        except FileNotFoundError:
            return ""

    def exists(self) -> bool:
        """Return whether anything is at the URL."""
        fs, root = self._open()
        with one_line_errors(self.url):
            fs.invalidate_cache()
            return bool(fs.exists(root))

    def fetch(self, files: Sequence[tuple[str, Path]]) -> list[str]:
        """Copy files, given by name and local path; return the names that do not exist.

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

        for folder in {path.parent for _, path in files}:
            folder.mkdir(parents=True, exist_ok=True)
        return [name for name in _map_in_threads(fetch_one, files) if name is not None]

    def fetch_heads(self, names: Sequence[str], n_bytes: int) -> dict[str, bytes]:
        """Return the first bytes of files by name; files that do not exist are left out.

        Raises
        ------
        OSError
            If the store cannot be reached or refuses.
        """
        fs, root = self._open()

        def fetch_one(name: str) -> bytes | None:
            try:
                with one_line_errors(f"{self.url}/{name}"):
                    head: bytes = fs.cat_file(f"{root}/{name}", start=0, end=n_bytes)
                    return head[:n_bytes]
            except FileNotFoundError:
                return None

        heads = dict(zip(names, _map_in_threads(fetch_one, names), strict=True))
        return {name: head for name, head in heads.items() if head is not None}

    def upload(self, files: Iterable[tuple[Path, str]]) -> None:
        """Copy local files to names in the folder; object stores show each whole or not at all.

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

        for _ in _map_in_threads(upload_one, list(files)):
            pass

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        fs, root = self._open()
        with one_line_errors(f"{self.url}/{name}"):
            if fs.exists(f"{root}/{name}"):
                fs.rm_file(f"{root}/{name}")


def _stamp(info: Mapping[str, object]) -> str:
    for key in _STAMP_KEYS:
        if info.get(key):
            return str(info[key])
    return ""


def _map_in_threads(call: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    if len(items) < 2:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(min(_THREADS, len(items))) as threads:
        yield from threads.map(call, items)


def is_safe(name: str) -> bool:
    """Return whether a name in a store is also valid below a local folder.

    It must not lead upwards, hold another separator or have too long a part.
    """
    if re.search(r"[\\\x00]", name):
        return False
    for part in name.split("/"):
        if part in ("", ".", "..") or len(part.encode(errors="replace")) > _MAX_NAME:
            return False
    return True


@contextmanager
def one_line_errors(url: str) -> Iterator[None]:
    """Turn every error of a store's library into an OSError of one line that names the URL.

    Raises
    ------
    FileNotFoundError
        If nothing is at the URL.
    OSError
        For any other error.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{url}: there is no such bucket, folder or file") from error
    # Each store has a library with errors of its own.
    except Exception as error:
        text = printable(" ".join(str(error).split())) or "no reason given"
        hint = ""
        if type(error).__name__ == "NoCredentialsError":
            hint = """; for a public bucket set FSSPEC_S3='{"anon": true}'"""
        raise OSError(f"{url}: {text} ({type(error).__name__}){hint}") from error


def cache_folder(url: str, kind: str) -> Path:
    """Return the folder for a URL in the user's cache, which may not exist yet.

    On Linux the cache is ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """
    from platformdirs import user_cache_path

    name = re.sub(r"[^\w.-]+", "-", PurePosixPath(url).name)[:60]
    return user_cache_path("ecg-tensor-pipeline") / kind / f"{name}-{stable_hash(url)}"
