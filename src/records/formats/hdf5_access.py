"""The one guarded way to anything inside an HDF5 file: members, attributes, facts and samples.

No link out of the file is followed, also not one behind a soft link. Storage outside the file and
virtual datasets are refused before HDF5 is asked for their shape, for which it would open other
files and wait for pipes. Claimed sizes are held against a limit and against the bytes that are
stored before memory is taken.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.records.formats.errors import open_error, package_error
from src.records.record import MAX_VALUES, RecordError

if TYPE_CHECKING:
    import h5py

_MAX_CHUNK_BYTES = 2**28
# Smaller datasets are read without a look at their storage.
_SMALL_BYTES = 2**26
# ECGs are compressed by 2 to 15, and a collection that pads its records with zeros by more. Values
# never written, or a zip bomb, give more still.
_MAX_RATIO = 100
_MAX_RATIO_AT_ONCE = 20

# Names, rates, units, ids and the like: bytes of a dataset, and values of an attribute.
_MAX_FACT_BYTES = 2**26
_FEW_FACT_BYTES = 2**20
_MAX_FACT_CHUNK = 2**24
_MAX_ATTRIBUTE_VALUES = 2**16
# Texts of any length are stored apart from the dataset, and each of its values may name the same
# long one. Their sizes are known only when they are read, so they are read a few at a time.
_MAX_TEXT_BYTES = 2**26
_MAX_TEXTS_AT_ONCE = 512
_MAX_TEXT_BYTES_AT_ONCE = 2**28

_MAX_MEMBERS = 10_000
_MAX_ATTRIBUTES = 1000
# Soft links and groups on the way to an object.
_MAX_STEPS = 16
# Kinds of NumPy types that facts may have: booleans, numbers and texts.
_PLAIN_KINDS = "biufSU"


@contextmanager
def open_hdf5(path: Path, kind: str = "HDF5") -> Iterator[h5py.File]:
    """Open a file for reading, and turn every error of h5py inside the block into a RecordError.

    Parameters
    ----------
    path
        The file.
    kind
        The format, for error messages.

    Raises
    ------
    RecordError
        If it is not of the format, or damaged.
    """
    # Imported here because most collections are in other formats.
    import h5py

    try:
        # A pipe would be waited for, and a device has no end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise RecordError(path, f"is no regular file: expected {kind}")
    except OSError as error:
        raise open_error(path, error) from None
    try:
        # Chunks of ids and rates are then decoded once, though they are read in pieces.
        with h5py.File(path, "r", rdcc_nbytes=_MAX_FACT_CHUNK) as file:
            yield file
    except RecordError:
        raise
    # h5py reads lazily, so a damaged file may raise any of these long after it was opened.
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        raise package_error(path, error, kind) from None


# Members ------------------------------------------------------------------------------------------


def member_names(path: Path, group: h5py.Group) -> list[str]:
    """Return the names in a group, without looking at what they name.

    Parameters
    ----------
    path
        The file, for error messages.
    group
        The file's root or a group in it.

    Raises
    ------
    RecordError
        If there are more than a recording has.
    """
    if len(group) > _MAX_MEMBERS:
        raise RecordError(
            path,
            f"{group.name} holds {len(group)} members, the limit is {_MAX_MEMBERS}: expected the "
            "signals and what describes them",
        )
    return list(group)


def member(path: Path, group: h5py.Group, name: str) -> h5py.Dataset | h5py.Group | None:
    """Return a member of a group, or None if there is none or a link leads nowhere.

    Parameters
    ----------
    path
        The file, for error messages.
    group
        The file's root or a group in it.
    name
        A name, or several with slashes between them.

    Raises
    ------
    RecordError
        If it is a link to another file, or is stored outside the file.
    """
    return _walk(path, group, name, name, iter(range(_MAX_STEPS)))


def _walk(
    path: Path, start: h5py.Group, route: str, wanted: str, steps: Iterator[int]
) -> h5py.Dataset | h5py.Group | None:
    """Return what a route of names leads to, one step at a time."""
    import h5py

    item: h5py.Dataset | h5py.Group | None = start.file if route.startswith("/") else start
    for name in filter(None, route.split("/")):
        if not isinstance(item, h5py.Group):
            return None
        if name != ".":
            item = _step(path, item, name, wanted, steps)
    if isinstance(item, h5py.Dataset):
        _check_storage_inside(path, item, wanted)
    return item


def _step(
    path: Path, group: h5py.Group, name: str, wanted: str, steps: Iterator[int]
) -> h5py.Dataset | h5py.Group | None:
    """Return what one link of a group leads to."""
    import h5py

    if name.encode("utf-8", "surrogateescape") not in group.id:
        return None
    if next(steps, None) is None:
        raise RecordError(path, f"{wanted} is behind over {_MAX_STEPS} links: expected the data")
    # h5py raises a TypeError for a kind of link that is made up.
    link = group.get(name, getlink=True)
    # A hostile file could otherwise have any HDF5 file of this machine read.
    if isinstance(link, h5py.ExternalLink):
        raise RecordError(
            path, f"{wanted} is a link to another file: expected the data in the file itself"
        )
    # HDF5 itself would follow a link to another file that is behind this one.
    if isinstance(link, h5py.SoftLink):
        return _walk(path, group, link.path, wanted, steps)
    item = group[name]
    return item if isinstance(item, (h5py.Dataset, h5py.Group)) else None


def dereference(
    path: Path, file: h5py.File, reference: h5py.Reference
) -> h5py.Dataset | h5py.Group | None:
    """Return the object that a reference names, or None for an empty reference.

    Raises
    ------
    RecordError
        If it is a dataset that is stored outside the file.
    """
    import h5py

    if not reference:
        return None
    item = file[reference]
    if isinstance(item, h5py.Dataset):
        _check_storage_inside(path, item, "an element")
        return item
    return item if isinstance(item, h5py.Group) else None


def _check_storage_inside(path: Path, dataset: h5py.Dataset, name: str) -> None:
    """Refuse a dataset whose values are in other files. Its shape must not be asked for before."""
    if dataset.is_virtual or dataset.external:
        raise RecordError(
            path, f"{name} is stored outside the file: expected the data in the file itself"
        )


# Facts --------------------------------------------------------------------------------------------


def attribute_names(item: h5py.Dataset | h5py.Group) -> list[str]:
    """Return the names of the attributes of an object; none if there are absurdly many."""
    return list(item.attrs) if len(item.attrs) <= _MAX_ATTRIBUTES else []


def read_attribute(item: h5py.Dataset | h5py.Group, name: str) -> object:
    """Return an attribute, or None if there is none or it is no number, text or list of these.

    Parameters
    ----------
    item
        A dataset, a group or the file.
    name
        Name of the attribute.
    """
    if name not in item.attrs:
        return None
    held = item.attrs.get_id(name)
    shape, kind = held.shape, _text_or_kind(held.dtype)
    if shape is None or not kind:
        return None
    n_values = math.prod(shape)
    size = _stored_apart(item.file) if kind == "text" else held.dtype.itemsize
    if n_values > _MAX_ATTRIBUTE_VALUES or (n_values > 1 and n_values * size > _MAX_FACT_BYTES):
        return None
    return item.attrs[name]


def read_fact(
    path: Path, dataset: h5py.Dataset, max_values: int = MAX_VALUES
) -> NDArray[Any] | None:
    """Return a dataset of numbers or texts that describes signals, or None if it holds neither.

    Parameters
    ----------
    path
        The file, for error messages.
    dataset
        As `member` returned it.
    max_values
        Largest number of values; more give None.

    Raises
    ------
    RecordError
        If it claims far more bytes than such a dataset takes.
    """
    kind = _text_or_kind(dataset.dtype)
    if not kind or dataset.shape is None or int(dataset.size) > max_values:
        return None
    n_bytes = int(dataset.size) * dataset.dtype.itemsize
    n_chunk = math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
    if n_bytes > _MAX_FACT_BYTES or n_chunk > _MAX_FACT_CHUNK:
        raise RecordError(
            path,
            f"{dataset.name} has {n_bytes} bytes in chunks of {n_chunk}, the limits are "
            f"{_MAX_FACT_BYTES} and {_MAX_FACT_CHUNK}: expected numbers or short texts",
        )
    if kind == "text":
        return _read_texts(path, dataset)
    n_stored = int(dataset.id.get_storage_size())
    if n_bytes > max(_FEW_FACT_BYTES, _MAX_RATIO * n_stored):
        raise RecordError(
            path, f"{dataset.name} promises {n_bytes} bytes, {n_stored} are stored: expected facts"
        )
    return np.asarray(dataset[()])


def _text_or_kind(dtype: np.dtype[Any]) -> str:
    """Return ``text`` for texts of any length, the kind of a plain type, and nothing for others."""
    import h5py

    if h5py.check_string_dtype(dtype) is not None and dtype.kind == "O":
        return "text"
    return dtype.kind if dtype.kind in _PLAIN_KINDS and dtype.subdtype is None else ""


def _read_texts(path: Path, dataset: h5py.Dataset) -> NDArray[Any]:
    """Read texts of any length, a few at a time, up to a limit for all of them."""
    if dataset.ndim == 0:
        return np.array(dataset[()], object)
    row_size = max(1, math.prod(dataset.shape[1:]))
    longest = _stored_apart(dataset.file)
    n_rows = max(1, min(_MAX_TEXTS_AT_ONCE, _MAX_TEXT_BYTES_AT_ONCE // longest) // row_size)
    parts = []
    n_bytes = 0
    for start in range(0, dataset.shape[0], n_rows):
        part = np.asarray(dataset[start : start + n_rows], object)
        n_bytes += sum(map(len, part.ravel().tolist()))
        if n_bytes > _MAX_TEXT_BYTES:
            raise RecordError(
                path,
                f"the texts of {dataset.name} have over {_MAX_TEXT_BYTES} bytes: expected names",
            )
        parts.append(part)
    return np.concatenate(parts) if parts else np.empty(dataset.shape, object)


def _stored_apart(file: h5py.File) -> int:
    """Return how long a text stored apart can be: the file's bytes, but for those of datasets."""
    import h5py

    n_bytes = int(file.id.get_filesize())
    for name in list(file)[:_MAX_MEMBERS] if len(file) <= _MAX_MEMBERS else []:
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            item = file[name]
            if isinstance(item, h5py.Dataset) and not item.is_virtual:
                n_bytes -= int(item.id.get_storage_size())
    return max(n_bytes, 1)


# Samples ------------------------------------------------------------------------------------------


def read_values(
    path: Path, dataset: h5py.Dataset, selection: int | slice | tuple[int | slice, ...] = ()
) -> NDArray[Any]:
    """Read a dataset of samples or a selection of it, after checking that its bytes can hold it.

    Parameters
    ----------
    path
        The file, for error messages.
    dataset
        As `member` returned it.
    selection
        An index as of NumPy; ``()`` reads all.

    Raises
    ------
    RecordError
        If the dataset was never written or is too large.
    """
    n_stored = int(dataset.id.get_storage_size())
    item_bytes = dataset.dtype.itemsize
    # To read one value, HDF5 decodes the whole chunk that holds it.
    n_chunk = math.prod(dataset.chunks or (0,)) * item_bytes
    n_at_once = max(_count_selected(dataset.shape, selection) * item_bytes, n_chunk)
    n_promised = max(int(dataset.size or 0) * item_bytes, n_chunk)
    if (n_promised > _SMALL_BYTES and n_promised > n_stored * _MAX_RATIO) or (
        n_at_once > _SMALL_BYTES and n_at_once > n_stored * _MAX_RATIO_AT_ONCE
    ):
        raise RecordError(
            path,
            f"{dataset.name} promises {n_promised} bytes, {n_stored} are stored: expected the "
            "samples",
        )
    if n_chunk > _MAX_CHUNK_BYTES:
        raise RecordError(
            path,
            f"{dataset.name} is stored in chunks of {n_chunk} bytes, the limit is "
            f"{_MAX_CHUNK_BYTES}",
        )
    if selection == () and int(dataset.size or 0) > MAX_VALUES:
        raise RecordError(
            path, f"{dataset.name} of shape {dataset.shape} is over {MAX_VALUES} values"
        )
    return np.asarray(dataset[selection])


def _count_selected(
    shape: tuple[int, ...], selection: int | slice | tuple[int | slice, ...]
) -> int:
    """Return how many values of an array a selection takes."""
    axes = selection if isinstance(selection, tuple) else (selection,)
    counts = [
        len(range(*axis.indices(n))) if isinstance(axis, slice) else 1
        for axis, n in zip(axes, shape, strict=False)
    ]
    return math.prod((*counts, *shape[len(axes) :]))
