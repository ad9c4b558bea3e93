"""One piece of a WFDB record: which signals are read, at which rate, and their samples in mV.

A record is one piece, or several segments that are a piece each.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.records.channels import MIN_LEAD_FS, Channel, at_rate, find_ecg
from src.records.facts import millivolts_per_unit
from src.records.formats.errors import check_written
from src.records.formats.mat import load_counts
from src.records.formats.wfdb_header import Header, SignalSpec, named_files, read_header
from src.records.formats.wfdb_package import decode_through_package
from src.records.formats.wfdb_samples import (
    MISSING,
    MISSING_IN_PACKAGE,
    count_values,
    decode_values,
    integrity_flags,
    to_millivolts,
)
from src.records.record import MAX_VALUES, RecordError
from src.utils import Float32Array

# MAT files of versions 5 and 7.3 begin with this word, those of version 4 do not.
_MATLAB = b"MATLAB "
# Bytes of a header that are looked through for the names of its files
_MAX_SCANNED = 65_536
# Folders in which git-annex and DVC keep the contents of a collection.
_STORES = ("/.git/annex/objects/", "/annex/objects/", "/.dvc/cache/")


class Selection(NamedTuple):
    """The signals of a header to read, and how.

    Attributes
    ----------
    rows
        Indices of the signals.
    per_frame
        Samples of the record per frame.
    flags
        Remarks about signals that are left out or brought to another rate.
    unused
        Names of the signals that are left out.
    """

    rows: tuple[int, ...]
    per_frame: int
    flags: tuple[str, ...]
    unused: tuple[str, ...]


def select_signals(header: Header, named: tuple[str, ...]) -> Selection:
    """Return which signals of a header are its ECG; see `src.records.channels.find_ecg`.

    The rate is the highest of the ECG signals. `named` are the leads that the user named.

    Raises
    ------
    RecordError
        If there is none, or none with a scale.
    """
    selection = find_signals(header, named)
    if selection.rows:
        return selection
    if lacks_voltage(header):
        units = ", ".join(sorted({spec.units for spec in header.signals}))
        raise RecordError(
            header.path, f"no lead is a voltage: units are {units}, expected mV, uV or V"
        )
    for spec in header.signals:
        if spec.problem:
            raise RecordError(header.path, spec.problem)
    names = ", ".join(f"{spec.description!r} ({spec.units})" for spec in header.signals[:20])
    raise RecordError(
        header.path,
        f"no ECG signal: signals are {names}, expected a name such as ECG or II; name others with "
        "--leads NAME=SIGNAL:LEAD",
    )


def find_signals(header: Header, named: tuple[str, ...]) -> Selection:
    """Return the ECG signals of a header as `select_signals` does, or none."""
    return _find_signals(
        tuple(
            [
                (spec.description, spec.units, spec.samples_per_frame, not spec.problem)
                for spec in header.signals
            ]
        ),
        header.fs,
        named,
    )


# Records of a collection share their signals.
@lru_cache(maxsize=256)
def _find_signals(
    signals: tuple[tuple[str, str, int, bool], ...], fs: float, named: tuple[str, ...]
) -> Selection:
    names = [signal[0] for signal in signals]
    per_frame = [signal[2] for signal in signals]
    channels = tuple(Channel(name, "", unit, fs * n) for name, unit, n, _ in signals)
    flags = [
        f"not_a_voltage:{channel.name}"
        for channel in channels
        if millivolts_per_unit(channel.unit) is None
    ]
    usable = [row for row in find_ecg(channels, named).rows if signals[row][3]]
    highest = max((per_frame[row] for row in usable), default=1)
    rows = []
    for row in find_ecg(channels, named).rows:
        if row not in usable:
            flags.append(f"broken_scale:{names[row]}")
        elif per_frame[row] == highest:
            rows.append(row)
        elif channels[row].fs >= MIN_LEAD_FS:
            rows.append(row)
            flags.append(f"upsampled:{names[row]}")
        else:
            flags.append(f"other_rate:{names[row]}")
    unused = tuple(name for row, name in enumerate(names) if row not in rows)
    return Selection(tuple(rows), highest, tuple(flags), unused)


def lacks_voltage(header: Header) -> bool:
    """Return whether a header lists signals and none of them is a voltage."""
    return bool(header.signals) and all(
        millivolts_per_unit(spec.units) is None for spec in header.signals
    )


# Samples ------------------------------------------------------------------------------------------


def read_piece(
    header: Header, selection: Selection, start: int, stop: int
) -> tuple[Float32Array, list[str]]:
    """Return samples `start` to `stop` of the selected signals, and integrity flags.

    The signal is in mV, of shape (n_leads, n_samples), at ``selection.per_frame`` samples a frame.
    """
    # Checksums and initial values are those of the whole record.
    is_whole = start == 0 and stop == count_frames(header) * selection.per_frame
    if selection.per_frame == 1 and all(map(_is_plain, header.signals)):
        signal, flags = _read_plain(header, start, stop, is_whole)
        if len(selection.rows) < len(signal):
            signal = signal[list(selection.rows)]
        return signal, flags
    return _read_framed(header, selection, start, stop, is_whole)


def _is_plain(spec: SignalSpec) -> bool:
    """Return whether a signal has one sample a frame, not shifted, in a format decoded here."""
    return spec.fmt in MISSING and spec.samples_per_frame == 1 and not spec.skew


def _read_plain(
    header: Header, start: int, stop: int, is_whole: bool
) -> tuple[Float32Array, list[str]]:
    """Read all signals of a record whose frames hold one sample of each."""
    parts: list[Float32Array] = []
    flags: list[str] = []
    for group in _file_groups(header):
        # Transposed now and not as float32, since fewer bytes move.
        adc = np.ascontiguousarray(_read_frames(header, group, start, stop).T)
        if is_whole:
            flags += integrity_flags(adc, group)
        parts.append(to_millivolts(adc, group, MISSING[group[0].fmt]))
    # Nearly all records have one signal file, and need no copy.
    signal = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return signal, flags


def _read_framed(
    header: Header, selection: Selection, start: int, stop: int, is_whole: bool
) -> tuple[Float32Array, list[str]]:
    """Read signals that have several samples a frame, a skew, or a rare storage format.

    Each signal is read at its own rate, and brought to that of the record if it is lower. A skew is
    the number of samples of the signal before its nominal first one.
    """
    per_frame = selection.per_frame
    chosen = [header.signals[row] for row in selection.rows]
    first = start // per_frame
    # One frame more, as samples between two frames lie on a line between them.
    n_ahead = max(-(-spec.skew // spec.samples_per_frame) for spec in chosen) + 1
    last = min(-(-stop // per_frame) + n_ahead, count_frames(header))
    decoded = _decode_frames(header, first, max(last, first))
    flags: list[str] = []
    if is_whole:
        for spec, counts in zip(header.signals, decoded, strict=True):
            flags += integrity_flags(counts[None], [spec])
    signal = np.empty((len(chosen), stop - start), np.float32)
    for i, (row, spec) in enumerate(zip(selection.rows, chosen, strict=True)):
        values = to_millivolts(decoded[row][None], [spec], MISSING_IN_PACKAGE.get(spec.fmt))[0]
        step = spec.samples_per_frame / per_frame
        position = start * step + spec.skew - first * spec.samples_per_frame
        signal[i] = at_rate(values, position, step, stop - start)
    return signal, flags


def _decode_frames(header: Header, first: int, last: int) -> list[NDArray[Any]]:
    """Return the ADC values of each signal in frames `first` to `last`."""
    if any(spec.fmt not in MISSING for spec in header.signals):
        return decode_through_package(_with_found_files(header), first, last)
    decoded: list[NDArray[Any]] = []
    for group in _file_groups(header):
        frames = _read_frames(header, group, first, last)
        column = 0
        for spec in group:
            values = frames[:, column : column + spec.samples_per_frame]
            decoded.append(np.ascontiguousarray(values).reshape(-1))
            column += spec.samples_per_frame
    return decoded


def _with_found_files(header: Header) -> Header:
    """Return a header whose signal files are named as they are on disk, each of them checked.

    The package opens them by their names, and would follow any link.
    """
    found = {
        name: os.path.basename(sibling_file(header, name, "signal file"))  # noqa: PTH119
        for name in dict.fromkeys(spec.file for spec in header.signals)
    }
    signals = tuple([spec._replace(file=found[spec.file]) for spec in header.signals])
    return header._replace(signals=signals)


def count_frames(header: Header) -> int:
    """Return the number of frames in the header, or else computed from the first file's size."""
    if header.n_samples is not None:
        return header.n_samples
    group = _file_groups(header)[0]
    path = sibling_file(header, group[0].file, "signal file")
    if group[0].fmt not in MISSING:
        raise RecordError(
            header.path,
            f"does not give its number of samples, which storage format {group[0].fmt} needs",
        )
    n_bytes = os.stat(path).st_size - group[0].byte_offset
    return max(0, count_values(n_bytes, group[0].fmt) // _width(group))


def check_limit(header: Header, n_values: int) -> None:
    """Refuse to read more values than memory is meant for."""
    if n_values > MAX_VALUES:
        raise RecordError(
            header.path,
            f"is asked for {n_values} values at once, the limit is {MAX_VALUES}: read it in "
            "windows (window_s)",
        )


def _width(group: list[SignalSpec]) -> int:
    """Return the samples per frame in a file."""
    return sum(spec.samples_per_frame for spec in group)


def _file_groups(header: Header) -> list[list[SignalSpec]]:
    """Group the signals that are interleaved in one file.

    The byte offset of a group is that of its first signal, as in the WFDB library.

    Raises
    ------
    RecordError
        If the signals of a file are not listed side by side, as the format demands, or are of
        several formats.
    """
    groups = [list(group) for _, group in groupby(header.signals, key=lambda spec: spec.file)]
    n_files = len({group[0].file for group in groups})
    has_mixed_formats = any(len({spec.fmt for spec in group}) > 1 for group in groups)
    if n_files < len(groups) or has_mixed_formats:
        raise RecordError(
            header.path,
            "lists the signals of a file apart or in several formats: expected them side by side "
            "in one format",
        )
    return groups


def _read_frames(header: Header, group: list[SignalSpec], start: int, stop: int) -> NDArray[Any]:
    """Return ADC values, shape (n_frames, samples_per_frame), of the signals that share a file."""
    spec = group[0]
    width = _width(group)
    path = sibling_file(header, spec.file, "signal file")
    # Unbuffered: the samples are read in one call, straight into their array.
    with open(path, "rb", buffering=0) as stream:
        if stream.read(len(_MATLAB)) == _MATLAB:
            return _read_resaved_mat(path, header, width)[start:stop]
        check_written(path, os.fstat(stream.fileno()).st_size)
        n_stored = count_values(stream.seek(0, 2) - spec.byte_offset, spec.fmt) // width
        # A truncated file is refused even if the requested part of it is there.
        n_promised = max(stop, header.n_samples or 0)
        if n_stored < n_promised:
            raise RecordError(
                path,
                f"holds {max(n_stored, 0)} samples of {len(group)} leads, the header promises "
                f"{n_promised}",
            )
        n_values = sum(signal.samples_per_frame for signal in header.signals)
        check_limit(header, (stop - start) * n_values)
        values = decode_values(stream, spec, start * width, (stop - start) * width)
    return values.reshape(stop - start, width)


def _read_resaved_mat(path: str, header: Header, width: int) -> NDArray[Any]:
    """Return the ADC values, shape (n_samples, n_leads), of a MAT file of version 5 or 7.3.

    Headers of the Challenges point behind the 24 bytes that begin a MAT file of version 4. If
    somebody saved the file again in another version, as SciPy does by default, no sample is there.
    """
    counts = load_counts(Path(path))
    if counts.shape[1] != width or len(counts) < (header.n_samples or 0):
        raise RecordError(
            path,
            f"holds {counts.shape[0]} samples of {counts.shape[1]} leads, the header promises "
            f"{header.n_samples} of {width}",
        )
    return counts


def sibling_file(header: Header, name: str, what: str) -> str:
    """Find a file in the header's folder, also under a name in other case.

    File systems disagree about case, so headers that were copied may name their files wrongly.

    Parameters
    ----------
    header
        The header.
    name
        The name that it gives.
    what
        The kind of file, for error messages.

    Raises
    ------
    RecordError
        If there is no such file, or it is a link to a folder that is neither the header's own nor
        the one that the header is linked to. A downloaded header could otherwise have any file of
        this machine read.
    """
    # Building a Path takes as long as finding the file.
    folder = os.path.dirname(header.path)  # noqa: PTH120
    path = os.path.join(folder, name)
    if _is_regular(path):
        return path
    if not os.path.isfile(path):
        listed = folder or os.curdir
        names = _names_by_lower_case(listed, os.stat(listed).st_mtime_ns)
        path = os.path.join(folder, names.get(name.lower(), name))
    if not os.path.isfile(path):
        raise RecordError(header.path, f"{what} {name} is not in the folder")
    if Path(path).is_symlink():
        _check_link(header, path, f"{what} {name}")
    return path


def _check_link(header: Header, path: str, what: str) -> None:
    """Refuse a link to a folder that is neither the header's own nor the one that it is linked to.

    Whole collections are linked file by file, header included: these links may lead elsewhere, and
    all to one place. A header that came with a download leads to no folder but those of the
    download.
    """
    home = os.path.realpath(os.path.dirname(header.path))  # noqa: PTH120
    target = os.path.realpath(path)
    origin = os.path.realpath(header.path)
    allowed = {home, os.path.dirname(origin)}  # noqa: PTH120
    if os.path.dirname(target) in allowed:  # noqa: PTH120
        return
    store = _store_of(target)
    if not store or store != _store_of(origin):
        raise RecordError(
            header.path,
            f"{what} is a link to another folder: link it to the folder that the header is linked "
            "to, or copy the file",
        )


def _store_of(path: str) -> str:
    """Return the content store that a file lies in, or nothing.

    git-annex and DVC keep each file in a folder of its own there, named by a checksum.
    """
    for mark in _STORES:
        before, found, _ = path.replace(os.sep, "/").partition(mark)
        if found:
            return before + mark
    return ""


def iter_source_files(path: Path) -> Iterator[str]:
    """Yield the files that a WFDB record is read from, besides its header `path`.

    They are its signal files, and the headers of its segments with their signal files, under the
    names that they have on the disk. Files that are missing or refused are left out.
    """
    if (sole := _find_sole_file(path)) is not None:
        yield sole
        return
    for name, found in _find_named(path):
        yield found
        if name.endswith(".hea"):
            yield from [file for _, file in _find_named(Path(found))]


def _find_sole_file(path: Path) -> str | None:
    """Return the signal file of a header whose signals are all in the file of its own name.

    Nearly all headers are such, and parsing one takes ten times as long. None for all others.
    """
    with suppress(OSError), open(path, "rb", buffering=0) as stream:
        raw = stream.read(_MAX_SCANNED)
        lines = [line for line in raw.replace(b"\r", b"\n").split(b"\n") if line[:1] not in b"#"]
        if len(raw) == _MAX_SCANNED or len(lines) < 2 or b"/" in lines[0].split(b" ")[0]:
            return None
        for suffix in (".dat", ".mat"):
            found = os.path.splitext(path)[0] + suffix
            start = os.fsencode(os.path.basename(found)) + b" "  # noqa: PTH119
            if all(line.startswith(start) for line in lines[1:]):
                return found if _is_regular(found) else None
    return None


def _find_named(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each file that a header names: the name there, and the path on the disk."""
    with suppress(RecordError):
        header = read_header(path)
        for name in named_files(path):
            with suppress(RecordError, OSError, ValueError):
                yield name, sibling_file(header, name, "signal file")


def _is_regular(path: str) -> bool:
    """Return whether there is a file of this name that is not a link."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


# Cached because many headers of a folder may name their files in other case.
@lru_cache(maxsize=4)
def _names_by_lower_case(folder: str, mtime_ns: int) -> dict[str, str]:
    """Return the names in a folder, by their lower-case form."""
    return {name.lower(): name for name in os.listdir(folder)}
