"""A day of a Holter recorder: ``python -m benchmarks.holter [--hours 1,24] [--data DIR]``.

Three leads at 128 Hz in an ISHNE file become windows of 10 s, and a timeline. The command lines are
those of a user; time, processor time and peak memory of each are printed.
"""

from __future__ import annotations

import argparse
import binascii
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.measures import Usage, run_command
from src.records.synthetic import generate_ecg
from src.utils import setup_logging

FS = 128
LEADS = {"II": 6, "V1": 11, "V5": 15}
"""Lead -> its code in ISHNE files."""
NANOVOLTS = 2500
REPEATED_S = 600
"""Seconds that are generated; they follow each other until the file is full."""
WINDOW_S = 10


def write_holter(path: Path, hours: float) -> Path:
    """Write a recording of three leads, and return its path."""
    record = generate_ecg("NORM", fs=FS, duration_s=REPEATED_S, rng=np.random.default_rng(0))
    rows = [record.leads.index(lead) for lead in LEADS]
    counts = np.round(record.signal[rows] * 1e6 / NANOVOLTS).astype("<i2").T.tobytes()
    n_bytes = round(hours * 3600 * FS) * 2 * len(LEADS)
    with open(path, "wb") as stream:
        stream.write(ishne_header(n_bytes // (2 * len(LEADS))))
        for start in range(0, n_bytes, len(counts)):
            stream.write(counts[: n_bytes - start])
    return path


def ishne_header(n_samples: int) -> bytes:
    """Return magic, checksum and header of a recording."""
    nothing = 12 - len(LEADS)
    block = struct.pack("<iiiih", 0, n_samples, 522, 522, 1) + bytes(40 + 40 + 20)
    # Sex, race, the dates of birth, recording and file, and the time
    block += struct.pack("<hh12h", 0, 0, *(0, 0, 0), *(1, 1, 2026), *(1, 1, 2026), *(0, 0, 0))
    block += struct.pack("<h12h", len(LEADS), *LEADS.values(), *[-9] * nothing)
    block += struct.pack("<12h", *[1] * len(LEADS), *[-9] * nothing)
    block += struct.pack("<12h", *[NANOVOLTS] * len(LEADS), *[-9] * nothing)
    block += struct.pack("<h40sh", 0, b"digital", FS) + bytes(80 + 80 + 88)
    return b"ISHNE1.0" + struct.pack("<H", binascii.crc_hqx(block, 0xFFFF)) + block


def measure_windows(folder: Path, hours: float) -> Usage:
    """Cut a recording into windows of 10 s at 100 Hz."""
    source = folder / "source"
    source.mkdir(parents=True)
    write_holter(source / "holter.ecg", hours)
    options = f"--fs 100 --n-samples 1000 --window-s {WINDOW_S} --workers 1 --out {folder / 'out'}"
    usage = run_command("src", "preprocess", "--data", f"day={source}", *options.split())
    n_files = sum(1 for _ in (folder / "out" / "records").glob("**/*.npz"))
    if n_files != round(hours * 3600) // WINDOW_S:
        raise RuntimeError(f"{folder}: {n_files} record files for {hours:g} h")
    return usage


def measure_timeline(folder: Path, hours: float) -> Usage:
    """Predict a recording over time with the network of five classes."""
    folder.mkdir(parents=True, exist_ok=True)
    file = write_holter(folder / "holter.ecg", hours)
    # The network knows twelve leads, of which three are there.
    options = ("--predict-unfit", "--device", "cpu", "--timeline", str(folder / "timelines"))
    return run_command("src", "predict", *options, str(file))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure recordings of several lengths and print a row for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", default="1,24", help="lengths (default: %(default)s)")
    parser.add_argument("--data", help="folder to write to (default: a temporary one)")
    args = parser.parse_args(argv)
    setup_logging()
    sys.stdout.write(
        "| hours | command | seconds | of processor | peak memory in MB |\n|---|---|---|---|---|\n"
    )
    with TemporaryDirectory(dir=args.data) as scratch:
        for hours in map(float, args.hours.split(",")):
            for name, measure in {
                "preprocess --window-s 10": measure_windows,
                "predict --timeline": measure_timeline,
            }.items():
                used = measure(Path(scratch) / f"{name.split()[0]}{hours:g}", hours)
                sys.stdout.write(
                    f"| {hours:g} | `{name}` | {used.seconds:.0f} | {used.cpu_s:.0f} "
                    f"| {used.peak_mb:.0f} |\n"
                )
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
