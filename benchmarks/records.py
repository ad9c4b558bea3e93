"""The records that benchmarks run on: real ones or generated ones, brought to one rate, and links
to them.
"""

from __future__ import annotations

import dataclasses
import os
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from src.config import STANDARD_LEADS
from src.processed.resampling import resample
from src.processed.signals import order_leads
from src.records.reading import read_record
from src.records.record import ECGRecord
from src.records.sample_collections import write_wfdb
from src.records.synthetic import generate_ecg

DURATION_S = 10


def source_records(data: Path | None, n_distinct: int) -> list[ECGRecord]:
    """Return 12-lead records: from the WFDB records below `data`, or generated ones."""
    if data is None:
        rng = np.random.default_rng(0)
        return [generate_ecg("NORM", fs=500.0, rng=rng) for _ in range(n_distinct)]
    headers = list(islice(data.rglob("*.hea"), n_distinct))
    if not headers:
        raise ValueError(f"{data}: no .hea records here; expected a folder of WFDB records")
    return [read_record(header) for header in sorted(headers)]


def make_collection(
    folder: Path, n_records: int, fs: float, data: Path | None = None, n_distinct: int = 40
) -> list[Path]:
    """Write `n_records` WFDB records of 10 s at `fs`; beyond the distinct ones they are links.
    Returns the headers.
    """
    originals = []
    for number, record in enumerate(source_records(data, min(n_distinct, n_records))):
        ordered = np.nan_to_num(order_leads(record.signal, record.leads).signal)
        signal = resample(ordered, record.fs, fs)[:, : round(DURATION_S * fs)]
        made = dataclasses.replace(
            record, record_id=f"r{number:04d}", signal=signal, fs=fs, leads=STANDARD_LEADS
        )
        (folder / "c0000").mkdir(parents=True, exist_ok=True)
        write_wfdb(made, folder / "c0000")
        originals.append(folder / "c0000" / f"{made.record_id}.hea")
    headers = list(originals)
    for number, header in enumerate(
        islice(cycle(originals), n_records - len(originals)), start=len(originals)
    ):
        copy = folder / f"c{number // len(originals):04d}"
        copy.mkdir(exist_ok=True)
        for suffix in (".hea", ".dat"):
            os.link(header.with_suffix(suffix), copy / f"{header.stem}{suffix}")
        headers.append(copy / header.name)
    return headers
