"""Properties that hold for any input, with inputs that hypothesis makes and shrinks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from src.labels.mapping import iter_rows, load_mapping
from src.labels.text_tables import plain_cell, safe_cell
from src.learning.metrics import Ranking
from src.records.formats.wfdb_header import parse_header
from src.records.reading import read_record
from src.records.record import RecordError

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
SAMPLES = arrays(
    np.int16,
    st.tuples(st.integers(1, 40), st.integers(1, 3)),
    elements=st.integers(-(2**15) + 1, 2**15 - 1),
)


@QUICK
@given(SAMPLES, st.floats(0.01, 1e5), st.integers(-5000, 5000))
def test_any_samples_come_back_in_millivolts(
    samples: np.ndarray, gain: float, baseline: int
) -> None:
    n_samples, n_leads = samples.shape
    gain = float(f"{gain:.6g}")
    lines = [f"r {n_leads} 500 {n_samples}"]
    lines += [
        f"r.dat 16 {gain!r}({baseline})/mV 16 0 {column[0]} {int(column.sum()) % 65536} 0 L{i}"
        for i, column in enumerate(samples.T.astype(int))
    ]
    with TemporaryDirectory() as folder:
        Path(folder, "r.hea").write_text("\n".join(lines) + "\n")
        Path(folder, "r.dat").write_bytes(samples.astype("<i2").tobytes())
        record = read_record(Path(folder, "r.hea"))
    np.testing.assert_allclose(
        record.signal, (samples.T.astype(float) - baseline) / gain, rtol=1e-6
    )
    assert not [flag for flag in record.flags if "mismatch" in flag]


@QUICK
@given(st.text(max_size=300))
def test_any_text_is_a_header_or_none(text: str) -> None:
    for header in (text, f"r 1 500 100\n{text}", f"r 2 500 100\nr.dat 16 {text}\n"):
        try:
            parsed = parse_header(header, Path("r.hea"))
        except RecordError:
            continue
        assert parsed.fs > 0 and (parsed.n_samples is None or parsed.n_samples >= 0)


@QUICK
@given(st.lists(st.text(max_size=12), min_size=1, max_size=6))
def test_any_cells_are_a_label_table_or_none(cells: list[str]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "m.csv")
        path.write_bytes(
            ("dataset,record_id,mapped_label\n" + ",".join(cells) + "\n").encode("utf-8", "replace")
        )
        try:
            rows = list(iter_rows(load_mapping(path)))
        except ValueError as error:
            assert "m.csv" in str(error)
            return
    assert all(row.dataset and row.record_id for row in rows)


@QUICK
@given(st.text(max_size=20))
def test_any_cell_comes_back_from_a_spreadsheet(text: str) -> None:
    assert plain_cell(safe_cell(text)) == text and not safe_cell(text).startswith(("=", "@"))


@QUICK
@given(
    arrays(np.int8, 12, elements=st.integers(0, 1)), arrays(np.int8, 12, elements=st.integers(0, 3))
)
def test_the_area_is_the_share_of_pairs_in_order(outcome: np.ndarray, score: np.ndarray) -> None:
    positive, negative = score[outcome == 1], score[outcome == 0]
    (area,) = Ranking.of(outcome, score).auroc()
    if not len(positive) or not len(negative):
        assert np.isnan(area)
        return
    wins = (positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2
    assert abs(area - wins) < 1e-12
    assert abs(Ranking.of(1 - outcome, score).auroc()[0] - (1 - area)) < 1e-12
