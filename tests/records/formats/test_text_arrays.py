from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from src.config import STANDARD_LEADS
from src.records.folders import index_folder, survey_folder
from src.records.reading import may_be_record, read_record
from src.records.record import ECGRecord, RecordError

RNG = np.random.default_rng(51)
N = 1000
TIMES = np.arange(N) / 250
BEATS = np.sin(2 * np.pi * 1.2 * TIMES) ** 15
LEADS = np.round(np.stack([BEATS, -BEATS / 2]) + RNG.normal(0, 0.01, (2, N)), 3)  # mV


def lines(*columns: np.ndarray, separator: str = ",", digits: int = 3) -> str:
    rows = zip(*columns, strict=True)
    return "".join(separator.join(f"{v:.{digits}f}" for v in row) + "\n" for row in rows)


def read(folder: Path, text: str, name: str = "r.csv", **given: float) -> ECGRecord:
    (folder / name).write_text(text, encoding="utf-8")
    assert may_be_record(folder / name)
    return read_record(folder / name, **given)


def clock(seconds: float) -> str:
    return f"0:{seconds:06.3f}"


PHYSIONET = "'Elapsed time','MLII','V5'\n'hh:mm:ss.mmm','mV','mV'\n" + "".join(
    f"'{clock(t)}',{a:.3f},{b:.3f}\n" for t, a, b in zip(TIMES, *LEADS, strict=True)
)
APPLE = "Name,A B\nSample Rate,512.348 hertz\n\n\nLead,Lead I\nUnit,\u00b5V\n\n" + lines(
    1000 * LEADS[0]
).replace(".", ",")
ISO = "timestamp,ecg,device\n" + "".join(
    f"2024-01-31T10:00:{t:06.3f},{a:.3f},x9\n" for t, a in zip(TIMES, LEADS[0], strict=True)
)


@pytest.mark.parametrize(
    ("text", "fs", "leads", "flags", "unused"),
    [
        (PHYSIONET, 250.0, ("MLII", "V5"), (), ()),
        (
            "Time (ms),ECG II (mV),Resp\n" + lines(1000 * TIMES, *LEADS),
            250.0,
            ("ECG II",),
            (),
            ("Resp",),
        ),
        (
            "t [s];I [uV];II [mV]\n"
            + lines(TIMES, 1000 * LEADS[0], LEADS[1], separator=";").replace(".", ","),
            250.0,
            ("I", "II"),
            (),
            (),
        ),
        ("#Fs=500 Hz, unit: mV\n#Leads: II\n" + lines(LEADS[0]), 500.0, ("II",), (), ()),
        (APPLE, 512.348, ("Lead I",), (), ()),
        (ISO, 250.0, ("ecg",), ("time_unit_assumed:s", "unit_assumed:mV"), ("device",)),
        (
            ",I,II\n" + lines(np.arange(N), *LEADS),
            100.0,
            ("I", "II"),
            ("fs_assumed", "unit_assumed:mV"),
            (),
        ),
        (
            lines(TIMES, *LEADS, separator=" "),
            250.0,
            ("", ""),
            ("time_unit_assumed:s", "unit_assumed:mV"),
            (),
        ),
    ],
)
def test_what_a_text_says_is_used_and_the_rest_is_flagged(
    tmp_path: Path,
    text: str,
    fs: float,
    leads: tuple[str, ...],
    flags: tuple[str, ...],
    unused: tuple[str, ...],
) -> None:
    record = read(tmp_path, text)
    np.testing.assert_allclose(record.signal, LEADS[: len(leads)], atol=1e-5)
    assert (record.fs, record.leads, record.flags, record.unused) == (fs, leads, flags, unused)


WATCH = (
    'Name,"Max"\nGeburtsdatum,"01.01.1970"\nSoftware-Version,"1.90"\nGer\u00e4t,"Watch6,1"\n'
    'Messrate,"512 Hertz"\n\n\nAbleitung,"Ableitung I"\nEinheit,"\u00b5V"\n\n'
)
SHIMMER = "sep=\t\nTimestamp\tECG_LL-RA\tECG_LA-RA\nCAL\tCAL\tCAL\nms\tmV\tmV\n"


def quoted(*columns: np.ndarray) -> str:
    rows = zip(*columns, strict=True)
    cells = [",".join(f'"{value:.3f}"'.replace(".", ",") for value in row) for row in rows]
    return "\n".join(cells) + "\n"


@pytest.mark.parametrize(
    ("text", "fs", "leads", "flags"),
    [
        (WATCH + lines(1000 * LEADS[0]).replace(".", ","), 512.0, ("I",), ()),
        (WATCH + quoted(1000 * LEADS[0]), 512.0, ("I",), ()),
        (SHIMMER + lines(1000 * TIMES, *LEADS, separator="\t"), 250.0, ("ECG_LL-RA",), ()),
        ('"t [s]","I [mV]","II [mV]"\n' + quoted(TIMES, *LEADS), 250.0, ("I", "II"), ()),
        (
            lines(TIMES, *LEADS, separator=" ").replace(".", ","),
            250.0,
            ("", ""),
            ("time_unit_assumed:s", "unit_assumed:mV"),
        ),
        (
            "Zeit;I [mV]\n" + lines(TIMES, LEADS[0], separator=";").replace(".", ","),
            250.0,
            ("I",),
            ("time_unit_assumed:s",),
        ),
        ("time (min),I (mV)\n" + lines(TIMES / 60, LEADS[0], digits=8), 250.0, ("I",), ()),
        (
            "Time,I (mV)\n"
            + "".join(
                f"31/01/2024 10:00:{t:06.3f},{v:.3f}\n"
                for t, v in zip(TIMES, LEADS[0], strict=True)
            ),
            250.0,
            ("I",),
            ("time_unit_assumed:s",),
        ),
    ],
)
def test_exports_of_wearables_and_of_other_countries(
    tmp_path: Path, text: str, fs: float, leads: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    record = read(tmp_path, text)
    np.testing.assert_allclose(record.signal[: len(leads)], LEADS[: len(leads)], atol=1e-5)
    assert (record.fs, record.leads[: len(leads)], record.flags) == (fs, leads, flags)


def test_text_among_numbers_makes_no_recording_a_table(tmp_path: Path) -> None:
    for names in ("I,II\n", ""):
        text = names + lines(*LEADS[:, :500]) + "marker\n" + lines(*LEADS[:, 500:])
        line = 501 + bool(names)
        with pytest.raises(RecordError, match=f"r.csv: line {line}, column 1 is 'marker'"):
            read(tmp_path, text)


def test_whole_numbers_need_a_gain(tmp_path: Path) -> None:
    text = "I,II\n" + lines(*np.rint(LEADS * 200), digits=0)
    with pytest.raises(RecordError, match="holds whole numbers and says no unit and no gain"):
        read(tmp_path, text)
    record = read(tmp_path, text, source_gain_per_mv=200, source_fs=250)
    np.testing.assert_allclose(record.signal, LEADS, atol=0.003)
    assert (record.fs, record.flags) == (250, ())
    stated = read(tmp_path, f"Sampling frequency (Hz): 250\nGain: 200 adu/mV\n{text}")
    np.testing.assert_allclose(stated.signal, record.signal)
    assert (stated.fs, stated.flags) == (250, ())


def test_a_row_per_lead_and_missing_samples(tmp_path: Path) -> None:
    wide = "".join(",".join(f"{v:.3f}" for v in LEADS[0]) + "\n" for _ in range(12))
    record = read(tmp_path, wide, source_fs=250)
    assert record.leads == STANDARD_LEADS and record.n_samples == N
    assert record.flags == ("unit_assumed:mV", "lead_names_assumed")
    record = read(tmp_path, "I,II\n0.5,\nNaN,0.25\n" + lines(*LEADS), source_fs=250)
    np.testing.assert_array_equal(record.signal[:, :2], np.float32([[0.5, np.nan], [np.nan, 0.25]]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "I,II\n" + lines(*LEADS) + "0.1,lost\n",
            "line 1002, column 2 is 'lost': expected a number",
        ),
        ("I,II\n" + lines(*LEADS) + "1,2,3\n", "line 1002 has 3 columns: expected 2 as before"),
        (
            "I,II\n" + lines(*LEADS[:, :77]),
            "says no sampling rate: give --source-fs",
        ),
        ("I,II\n" + lines(*LEADS) + "1\n", "line 1002 has 1 columns: expected 2 as before"),
        ("t (s),II\n0,1.5\n0.1,2.5\n0.05,1\n0,3\n", "has times that do not rise"),
        ("t (s),II\n0,1.5\n0.1,2.5\n,1\n0,3\n", "has no time at sample 2: expected one in each"),
        ("time (days),II\n0,1.5\n1,2.5\n", "has times in 'days': expected s, ms, min"),
        (",".join(f"c{i}" for i in range(3000)) + "\n" + ("1.5," * 2999 + "1\n") * 5, "names 3000"),
        (
            "t (s),II\n" + lines(np.where(TIMES > 2, TIMES + 9, TIMES), LEADS[0]),
            "has uneven times",
        ),
        ("words only\n", "is no matrix of numbers"),
        (lines(*np.full((70, 80), 0.5)), "has 80 lines of 70 numbers: expected at most 64 leads"),
    ],
)
def test_bad_texts_give_one_clear_error(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(RecordError, match=expected):
        read_record(tmp_path / "r.csv")


AGES = RNG.integers(20, 90, 500)
TABLES = {
    "labels.csv": "dataset,record_id,mapped_label\nx,r,AF\n",
    "database.csv": "ecg_id,age,sex\n" + lines(np.arange(500), AGES, AGES % 2, digits=0),
    "classes.csv": "ecg_id,NORM,MI\n" + lines(np.arange(500), AGES % 2, AGES % 3, digits=0),
    "ages.csv": lines(np.arange(500), AGES, digits=0),
    "paths.csv": "ecg,label\n" + "".join(f"a/{i}.npy,1\n" for i in range(200)),
    "intervals.csv": "ecg_number,rr\n" + lines(np.arange(500), RNG.normal(0.8, 0.1, 500)),
    "README.txt": "This is 1 file\n1 2 3\n4 5 6\n",
    "RECORDS": "".join(f"{i}\n" for i in range(300)),
    "subjects.txt": "".join(f"{i}\n" for i in range(300)),
    "none.txt": "",
}


def test_tables_beside_recordings_are_no_recordings(tmp_path: Path) -> None:
    for name, text in TABLES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "ecg1.csv").write_text("I,II\n" + lines(*LEADS))
    (tmp_path / "ecg2.txt").write_text(lines(*LEADS, separator="\t"))
    assert [record.relative for record in index_folder(tmp_path)] == ["ecg1.csv", "ecg2.txt"]
    news = [file for file in survey_folder(tmp_path).passed_over if not file.unread.is_side_file]
    # Numbers without any name may be a recording, so that they are listed.
    assert [file.relative for file in news] == ["ages.csv"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings_of_text(tmp_path: Path, encoding: str) -> None:
    text = "Patient: M\u00fcller\nII [\u00b5V]\n" + lines(1000 * LEADS[0])
    (tmp_path / "r.txt").write_bytes(text.encode(encoding))
    record = read_record(tmp_path / "r.txt", source_fs=250)
    np.testing.assert_allclose(record.signal[0], LEADS[0], atol=1e-5)
    assert record.flags == ()


def test_long_lines_and_large_files_take_little_time_and_memory(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    for text in ("(" * 200_000 + "\n1\n2\n", "rate " * 100_000 + "\n1\n2\n", "1," * 10**6 + "\n"):
        path.write_text(text)
        assert not may_be_record(path)
    path.write_text("12\n13\n" * 500_000)
    tracemalloc.start()
    assert read_record(path, source_fs=250, source_gain_per_mv=10).n_samples == 10**6
    assert tracemalloc.get_traced_memory()[1] < 6e7
    tracemalloc.stop()
    path.write_bytes(b"1\n" * 2**23 + b"1\n")
    with pytest.raises(RecordError, match="over 16777216"):
        read_record(path)
