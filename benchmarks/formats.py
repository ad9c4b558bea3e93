"""Reading speed of each format: ``python -m benchmarks.formats``; prints records/s on one core.

A record has 12 leads of 10 s at 500 Hz. Files of many hold 64 of them. The fastest of several turns
counts, in processor time, as other work on the machine only slows reading down.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import scipy.io

from benchmarks.records import source_records
from src.config import STANDARD_LEADS
from src.processed.signals import order_leads
from src.records.reading import list_records, read_record
from src.records.sample_collections import write_wfdb
from src.utils import Float32Array
from tests.fuzz import seeds

_FS = 500
_N = 5000
_MANY = 64
# uV of a count
_STEP = 5.0

Write = Callable[[Path], None]


def _bdf(counts: np.ndarray) -> bytes:
    """Return a BDF file of one data record of counts, shape (12, n_samples)."""
    n_leads, n = counts.shape
    main = [("", 7), ("P1", 80), ("R", 80), ("02.03.02", 8), ("10.11.12", 8)]
    main += [(256 * (n_leads + 1), 8), ("24BIT", 44), (1, 8), (10, 8), (n_leads, 4)]
    limit = 2**23 - 1
    rows = [
        (lead, "", "mV", -limit * _STEP / 1000, limit * _STEP / 1000, -limit, limit, "", n, "")
        for lead in STANDARD_LEADS
    ]
    widths = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
    head = b"\xffBIOSEMI" + b"".join(str(text).encode().ljust(width) for text, width in main[1:])
    head += b"".join(
        f"{row[i]:.6g}".encode().ljust(width)
        if isinstance(row[i], float)
        else str(row[i]).encode().ljust(width)
        for i, width in enumerate(widths)
        for row in rows
    )
    wide = counts.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :3]
    return head + wide.tobytes()


def _philips(counts: np.ndarray) -> bytes:
    names = " ".join(STANDARD_LEADS)
    # Limb leads are stored as differences to what I and II predict, which are 0 here.
    stored = counts.astype(np.int64)
    stored[2:6] = 0
    packed = base64.b64encode(b"".join(map(seeds.pack_xli, stored))).decode()
    attributes = (
        f'dataencoding="Base64" compression="XLI" numberofleads="12" leadlabels="{names}" '
        f'samplespersecond="{_FS}" resolution="5" durationperchannel="{1000 * _N // _FS}"'
    )
    return seeds.philips_xml(attributes, packed).encode()


def _csv(signal: Float32Array) -> bytes:
    stream = io.StringIO()
    head = ",".join(f"{lead} [mV]" for lead in STANDARD_LEADS)
    np.savetxt(stream, signal.T, "%.3f", delimiter=",", header=head, comments="")
    return f"# sampling rate: {_FS} Hz\n{stream.getvalue()}".encode()


def _parquet(signals: Sequence[Float32Array]) -> bytes:
    columns = {
        "record_id": [f"r{i}" for i in range(len(signals))],
        "fs": [float(_FS)] * len(signals),
        "signal": [signal.tolist() for signal in signals],
    }
    stated = {"leads": str(list(STANDARD_LEADS)).replace("'", '"'), "unit": "mV"}
    return seeds.parquet_bytes(columns, stated, compression="zstd", row_group_size=_MANY)


def _mat(signals: Sequence[Float32Array]) -> bytes:
    cells = np.empty(len(signals), object)
    cells[:] = list(signals)
    stream = io.BytesIO()
    variables = {"X": cells, "fs": _FS, "unit": "mV", "leads": np.array(STANDARD_LEADS, object)}
    scipy.io.savemat(stream, variables)
    return stream.getvalue()


def _npy(signal: Float32Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, signal)
    return stream.getvalue()


def iter_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write a file of each format, and yield the format's name and the file."""
    record = source_records(None, 1)[0]
    ordered = np.nan_to_num(order_leads(record.signal, record.leads).signal)[:, :_N]
    counts = np.rint(1000 * ordered / _STEP).astype(np.int16)
    signal = (counts * (_STEP / 1000)).astype(np.float32)
    many = [signal * np.float32(1 + i / 100) for i in range(_MANY)]
    nanovolts = (round(1000 * _STEP),) * 12
    holter = seeds.ishne(12, _N, _FS, nanovolts, names=range(5, 17))
    files = {
        "Philips Sierra XML (XLI)": ("p.xml", lambda: _philips(counts)),
        "CardioSoft XML": (
            "c.xml",
            lambda: seeds.cardiosoft_xml(seeds.cardiosoft_strip(counts, STANDARD_LEADS)).encode(
                "latin-1"
            ),
        ),
        "Mortara ELI XML": ("m.xml", lambda: seeds.mortara_xml(counts).encode()),
        "BDF": ("b.bdf", lambda: _bdf(counts)),
        "ISHNE": ("i.ecg", lambda: holter + counts.T.astype("<i2").tobytes()),
        ".npy": ("n.npy", lambda: _npy(signal)),
        "CSV": ("t.csv", lambda: _csv(signal)),
        "Parquet, of many": ("q.parquet", lambda: _parquet(many)),
        "MATLAB, of many (cells)": ("x.mat", lambda: _mat(many)),
    }
    write_wfdb(record, folder)
    yield "WFDB (format 16)", next(folder.glob("*.hea"))
    for name, (file, write) in files.items():
        (folder / file).write_bytes(write())
        yield name, folder / file


def measure_formats(seconds: float, turns: int = 5) -> dict[str, float]:
    """Return the records read per second for each format.

    Parameters
    ----------
    seconds
        Time for each format.
    turns
        Turns, of which the fastest counts.
    """
    speeds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, file in iter_files(Path(folder)):
            records = list_records(file)
            read_record(records[0])
            best = 0.0
            for _ in range(turns):
                start, n_read = time.process_time(), 0
                while time.process_time() - start < seconds / turns:
                    for path in records:
                        read_record(path)
                    n_read += len(records)
                best = max(best, n_read / (time.process_time() - start))
            speeds[name] = best
    return speeds


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of the speeds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formats", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="for each format (default: %(default)s)"
    )
    speeds = measure_formats(parser.parse_args(argv).seconds)
    print("| format | records/s |\n|---|---|")  # noqa: T201
    for name, speed in speeds.items():
        print(f"| {name} | {speed:.0f} |")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
