from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.holter import FS, LEADS, write_holter
from src.records.reading import find_windows, read_record
from src.records.record import NO_HINTS


def test_the_file_is_a_recording_of_its_length(tmp_path: Path) -> None:
    path = write_holter(tmp_path / "r.ecg", 0.25)
    record = read_record(path)
    assert (record.n_samples, record.fs, record.leads) == (900 * FS, FS, tuple(LEADS))
    assert record.flags == ()
    # The ten minutes that are generated begin again.
    np.testing.assert_array_equal(record.signal[:, 600 * FS :], record.signal[:, : 300 * FS])
    assert len(find_windows(path, NO_HINTS, 10.0, 10.0)[1]) == 90
