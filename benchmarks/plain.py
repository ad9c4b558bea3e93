"""The plain recipe that the speed of preprocessing is compared with: wfdb, SciPy's polyphase
filter, savez_compressed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import wfdb
from scipy.signal import resample_poly

from src.utils import Float32Array


def read_plain(stem: str, fs: float, n_samples: int) -> Float32Array:
    """Return the z-scored signal (n_leads, n_samples) of a WFDB record, resampled to `fs` in Hz."""
    record = wfdb.rdrecord(stem)
    signal = record.p_signal.T
    if record.fs != fs:
        ratio = Fraction(fs / record.fs).limit_denominator(1000)
        signal = resample_poly(signal, ratio.numerator, ratio.denominator, axis=1, padtype="edge")
    spread = signal.std(axis=1, keepdims=True)
    signal = ((signal - signal.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1))[
        :, :n_samples
    ]
    return np.pad(signal, ((0, 0), (0, n_samples - signal.shape[1]))).astype(np.float32)


def process_plain(header: Path, out: Path, fs: float, n_samples: int) -> int:
    """Write one record as ``np.savez_compressed`` does; returns its bytes."""
    signal = read_plain(str(header.with_suffix("")), fs, n_samples)
    target = out / f"{'-'.join(header.parts[-2:])}.npz"
    np.savez_compressed(target, signal=signal, fs=np.float32(fs), label="OTHER")
    return target.stat().st_size


def run_plain(headers: list[Path], out: Path, fs: float, n_samples: int, workers: int) -> int:
    """Process all records; returns the bytes written."""
    out.mkdir(parents=True, exist_ok=True)
    work = partial(process_plain, out=out, fs=fs, n_samples=n_samples)
    if workers == 1:
        return sum(map(work, headers))
    with ProcessPoolExecutor(workers) as pool:
        return sum(pool.map(work, headers, chunksize=32))


def main() -> None:
    """Process a folder: ``python -m benchmarks.plain SOURCE OUT WORKERS``; prints the rate as
    JSON.
    """
    source, out, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    headers = sorted(source.rglob("*.hea"))
    start, before = time.perf_counter(), sum(os.times()[:4])
    n_bytes = run_plain(headers, out, 500.0, 5000, workers)
    seconds = time.perf_counter() - start
    cpu_ms = 1e3 * (sum(os.times()[:4]) - before) / len(headers)  # of workers too, which have ended
    sys.stdout.write(
        json.dumps(
            {
                "records_per_s": len(headers) / seconds,
                "cpu_ms_per_record": cpu_ms,
                "bytes_per_record": n_bytes / len(headers),
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
