"""The rarer WFDB storage formats and records of several samples per frame, decoded by the ``wfdb``
package.

The package trusts what a header says, so the header is checked here before the package sees it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from src.records.formats.errors import package_error
from src.records.formats.wfdb_header import Header
from src.records.record import RecordError

_FORMATS = {"8", "16", "24", "32", "61", "80", "160", "212", "310", "311", "508", "516", "524"}
_MAX_VALUES = 30_000_000  # at once; the package needs some twenty bytes for each
_FEW_VALUES = 10_000_000
_VALUES_PER_BYTE = 100  # more than any compression finds in an ECG


def decode_through_package(header: Header, start: int, stop: int) -> list[NDArray[Any]]:
    """Return the ADC values of each signal, shape (n_frames * samples_per_frame,).

    Raises
    ------
    RecordError
        If a storage format is unknown, or the samples are not what the header says.
    """
    unknown = sorted({spec.fmt for spec in header.signals} - _FORMATS)
    if unknown:
        raise RecordError(
            header.path, f"not readable as WFDB: storage format {', '.join(unknown)} is unknown"
        )
    first = (
        0 if any(spec.fmt == "8" for spec in header.signals) else start
    )  # which stores differences, so all before count
    n_values = (stop - first) * sum(spec.samples_per_frame for spec in header.signals)
    if n_values > _MAX_VALUES:
        if first < start:
            raise RecordError(
                header.path,
                "is of storage format 8, which is read from its beginning on, up to "
                f"{_MAX_VALUES} values: store it in format 16",
            )
        raise RecordError(
            header.path,
            f"is asked for {n_values} values at once, the limit is {_MAX_VALUES}: read it "
            "in windows (window_s)",
        )
    check_amount(header, n_values, {spec.file for spec in header.signals})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package's own, of pandas and of odd headers
            import wfdb

            name = str(header.path.with_suffix(""))
            record = wfdb.rdrecord(
                name, sampfrom=first, sampto=stop, physical=False, smooth_frames=False
            )
    except Exception as error:  # noqa: BLE001  the package raises whatever its parsers meet
        raise package_error(header.path, error, "WFDB") from None
    decoded: list[NDArray[Any]] = record.e_d_signal
    lengths = [(stop - first) * spec.samples_per_frame for spec in header.signals]
    if [len(values) for values in decoded] != lengths:
        raise RecordError(
            header.path,
            f"signals have {[len(values) for values in decoded][:12]} samples, the header "
            f"promises {lengths[:12]}",
        )
    return [
        values[(start - first) * spec.samples_per_frame :]
        for values, spec in zip(decoded, header.signals, strict=True)
    ]


def check_amount(header: Header, n_values: int, names: Iterable[str]) -> None:
    """Refuse far more values than the files beside the header can hold, before memory is taken for
    them.

    Raises
    ------
    RecordError
        If they are so many that most of them would be made up.
    """
    stems = {name.rpartition(".")[0].lower() or name.lower() for name in names}
    if n_values <= _FEW_VALUES:
        return
    with os.scandir(header.path.parent) as entries:
        held = sum(
            entry.stat().st_size
            for entry in entries
            if entry.name.rpartition(".")[0].lower() in stems
        )
    if n_values > _VALUES_PER_BYTE * held:
        raise RecordError(
            header.path,
            f"promises {n_values} values, its files have {held} bytes: expected the samples",
        )
