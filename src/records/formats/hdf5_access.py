"""Safe access to HDF5 files from anywhere.

No external link or storage is followed, and a dataset that promises more values than its bytes can
hold is refused before memory is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.records.formats.errors import package_error
from src.records.record import MAX_VALUES, RecordError

if TYPE_CHECKING:
    import h5py

_MAX_CHUNK_BYTES = 2**29
# Smaller datasets are read without a look at their storage.
_SMALL_BYTES = 2**26
# No compression of an ECG gives so much. Values never written, or a zip bomb, give more.
_MAX_RATIO = 100


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading, and turn every error of h5py inside the block into a RecordError.

    Raises
    ------
    RecordError
        If it is not an HDF5 file, or damaged.
    """
    # Imported here because most collections are in other formats.
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except RecordError:
        raise
    # h5py reads lazily, so a damaged file may raise any of these long after it was opened.
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise package_error(path, error, "HDF5") from None


def members(path: Path, group: h5py.Group) -> dict[str, h5py.Dataset | h5py.Group]:
    """Return the members of a group by name.

    Parameters
    ----------
    path
        The file, for error messages.
    group
        The file's root or a group in it.

    Raises
    ------
    RecordError
        If one is a link to another file.
    """
    import h5py

    by_name = {}
    for name in group:
        # A hostile file could otherwise have any HDF5 file of this machine read.
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            raise RecordError(
                path, f"{name} is a link to another file: expected the data in the file itself"
            )
        item = group.get(name)
        # A soft link may lead nowhere.
        if item is not None:
            by_name[name] = item
    return by_name


def read_values(
    path: Path, dataset: h5py.Dataset, selection: int | slice | tuple[int | slice, ...] = ()
) -> NDArray[Any]:
    """Read a dataset or a selection of it, after checking that its bytes can hold it.

    Parameters
    ----------
    path
        The file, for error messages.
    dataset
        The dataset.
    selection
        An index as of NumPy; ``()`` reads all.

    Raises
    ------
    RecordError
        If the dataset lies outside the file, was never written, or is too large.
    """
    if dataset.is_virtual or dataset.external:
        raise RecordError(
            path, f"{dataset.name} is stored outside the file: expected the data in the file itself"
        )
    n_promised = int(dataset.size or 0) * dataset.dtype.itemsize
    n_stored = int(dataset.id.get_storage_size())
    if n_promised > _SMALL_BYTES and n_promised > n_stored * _MAX_RATIO:
        raise RecordError(
            path,
            f"{dataset.name} promises {n_promised} bytes, {n_stored} are stored: expected the "
            "samples",
        )
    # To read one value, HDF5 decodes the whole chunk that holds it.
    n_chunk = math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
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
