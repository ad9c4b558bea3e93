"""Long records as windows: their record files, rows and splits, and what a second run does."""

from __future__ import annotations

import csv
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from src import preprocessing
from src.commands.dry_run import check_datasets
from src.config import DataConfig, ExecutionConfig, PreprocessConfig, SplitConfig
from src.preprocessing import RunSummary, run_preprocessing
from src.processed.manifest import Journal, load_manifest
from src.processed.record_files import load_record_file, record_path, to_millivolts
from src.processed.splits import load_splits
from src.records.reading import find_start, iter_records, read_record
from src.records.record import Extent
from src.records.windows import (
    count_windows,
    cut_windows,
    window_name,
    window_number,
    window_parent,
    window_spans,
)

ONE = ExecutionConfig(workers=1)
WINDOWS = PreprocessConfig(fs=100.0, n_samples=1000, window_s=10.0, stride_s=5.0)
RNG = np.random.default_rng(17)


def write_long(folder: Path, name: str, seconds: float, fs: int = 100) -> None:
    """Write a two-lead WFDB record."""
    folder.mkdir(parents=True, exist_ok=True)
    n = round(seconds * fs)
    RNG.integers(-500, 500, (n, 2)).astype("<i2").tofile(folder / f"{name}.dat")
    (folder / f"{name}.hea").write_text(
        f"{name} 2 {fs} {n}\n{name}.dat 16 100/mV 16 0 0 0 0 II\n{name}.dat 16 100/mV 16 "
        "0 0 0 0 V1\n"
    )


@pytest.fixture
def collection(tmp_path: Path) -> tuple[DataConfig, Path]:
    for i in range(9):
        write_long(tmp_path / "src", f"r{i}", 30 + 5 * i)
    write_long(tmp_path / "src", "short", 7)
    rows = "".join(
        f"d,r{i},{'AF' if i % 2 else 'NORM'},{'p1' if i < 2 else ''}\n" for i in range(9)
    )
    (tmp_path / "m.csv").write_text("dataset,record_id,mapped_label,patient_id\n" + rows)
    return DataConfig(roots={"d": str(tmp_path / "src")}), tmp_path / "m.csv"


def run(
    collection: tuple[DataConfig, Path],
    out: Path,
    config: PreprocessConfig = WINDOWS,
    **options: object,
) -> RunSummary:
    data, mapping = collection
    return run_preprocessing(data, out, mapping=mapping, config=config, execution=ONE, **options)  # type: ignore[arg-type]


def test_each_window_is_a_record_file_of_its_own(
    collection: tuple[DataConfig, Path], tmp_path: Path
) -> None:
    run(collection, tmp_path / "out")
    manifest = load_manifest(tmp_path / "out").set_index("record_id")
    assert (manifest["status"] == "ok").all()
    assert len(manifest) == sum((30 + 5 * i - 10) // 5 + 1 for i in range(9)) + 1
    whole = read_record(tmp_path / "src" / "r2").signal
    for index in (0, 3, 6):
        arrays = load_record_file(record_path(tmp_path / "out", f"d__r2__w{index:05d}"))
        np.testing.assert_allclose(
            to_millivolts(arrays)[[1, 6]], whole[:, index * 500 : index * 500 + 1000], atol=1e-5
        )
        assert (str(arrays["record_id"]), arrays["label"].tolist()) == (
            f"r2__w{index:05d}",
            ["NORM"],
        )
    short = load_record_file(record_path(tmp_path / "out", "d__short__w00000"))
    assert short["n_valid"] == 700 and short["label"].tolist() == ["OTHER"]
    assert manifest.loc["r2__w00000", ["patient_id", "n_samples", "labels"]].tolist() == [
        "r2",
        "1000",
        "NORM",
    ]
    assert manifest.loc["r1__w00000", "patient_id"] == "p1"


def test_windows_of_a_record_or_patient_share_their_split(
    collection: tuple[DataConfig, Path], tmp_path: Path
) -> None:
    run(collection, tmp_path / "out", splits=SplitConfig(val_fraction=0.3, test_fraction=0.3))
    manifest = load_manifest(tmp_path / "out")
    homes = manifest.groupby("patient_id")["split"].nunique()
    assert (homes == 1).all() and set(manifest["split"]) == {"train", "val", "test"}
    both = manifest[manifest["record_id"].str.match("r[01]__")]
    assert both["split"].nunique() == 1


def test_running_again_does_only_what_changed(
    collection: tuple[DataConfig, Path], tmp_path: Path
) -> None:
    out, source = tmp_path / "out", tmp_path / "src"
    assert run(collection, out).n_skipped == 0
    assert run(collection, out).n_skipped == 10
    os.utime(source / "r2.dat", ns=(1, 1))
    record_path(out, "d__r3__w00004").unlink()
    assert run(collection, out).n_skipped == 8
    write_long(source, "r2", 15)  # shorter now: the rows of its old windows go
    (source / "r4.dat").write_bytes(b"")
    before = load_splits(out / "splits.json").of_key()
    summary = run(collection, out)
    manifest = load_manifest(out).set_index("record_id")
    assert [name for name in manifest.index if name.startswith("r2")] == [
        "r2__w00000",
        "r2__w00001",
    ]
    assert [name for name in manifest.index if name.startswith("r4")] == ["r4"] and manifest.loc[
        "r4", "status"
    ] == "unreadable"
    assert summary.by_status["unreadable"] == 1
    after = load_splits(out / "splits.json").of_key()
    assert {key: before[key] for key in after} == after
    write_long(source, "r4", 20)
    assert run(collection, out).by_status == {"ok": len(load_manifest(out))}
    assert run(collection, out).n_skipped == 10


def test_a_torn_journal_does_not_pass_for_a_whole_record(
    collection: tuple[DataConfig, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(collection, out)
    expected = (out / "manifest.csv").read_bytes()
    lines = [json.dumps(row) + "\n" for row in csv.reader(expected.decode().splitlines()[1:])]
    (out / "manifest.csv").unlink()
    Journal(out).path.write_text("".join(lines[:7]))  # all five windows of r0 and two of r1
    assert run(collection, out).n_skipped == 1
    assert (out / "manifest.csv").read_bytes() == expected


def test_the_dry_run_counts_windows(collection: tuple[DataConfig, Path]) -> None:
    data, mapping = collection
    report = check_datasets(data, mapping, WINDOWS, ONE)
    assert "windows: about 82 in all" in str(report)


def test_a_gap_rejects_a_window_and_not_the_record(tmp_path: Path) -> None:
    write_long(tmp_path / "src", "r", 30)
    adc = np.fromfile(tmp_path / "src" / "r.dat", "<i2").reshape(-1, 2)
    adc[1200:1400] = -(2**15)
    adc.tofile(tmp_path / "src" / "r.dat")
    config = PreprocessConfig(fs=100.0, n_samples=1000, window_s=10.0)
    summary = run_preprocessing(
        DataConfig(roots={"d": str(tmp_path / "src")}),
        tmp_path / "out",
        config=config,
        execution=ONE,
    )
    assert summary.by_status == {"ok": 2, "rejected": 1}
    assert load_manifest(tmp_path / "out")["status"].tolist() == ["ok", "rejected", "ok"]


def test_windows_and_starts_of_a_long_record_take_little_memory(tmp_path: Path) -> None:
    write_long(tmp_path, "r", 7200, 200)  # 11 MB as float32 for both leads, in windows of 16 kB
    data, config = (
        DataConfig(roots={"d": str(tmp_path)}),
        PreprocessConfig(fs=100.0, n_samples=1000, window_s=10.0, stride_s=100.0),
    )
    run_preprocessing(data, tmp_path / "warm", config=config, execution=ONE)
    tracemalloc.start()
    run_preprocessing(data, tmp_path / "out", config=config, execution=ONE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6
    record, n_samples = find_start(tmp_path / "r", 20).read()
    assert (record.n_samples, n_samples) == (4000, 1_440_000)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"window_s": 11.0},
            "window_s is 11.0: expected 0 to 10 s, the length of n_samples=5000 at 500 Hz",
        ),
        ({"stride_s": 5.0}, "stride_s is 5.0: expected 0 without window_s"),
        ({"window_s": -1.0}, "window_s is -1.0"),
    ],
)
def test_wrong_windows_are_refused(settings: dict[str, float], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        PreprocessConfig(**settings)


@pytest.mark.parametrize("name", ["mitdb", "cpsc2021_sample"])
def test_real_long_records(real_data: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    data = DataConfig(roots={"d": str(real_data(name))})
    config = PreprocessConfig(fs=100.0, n_samples=1000, window_s=10.0)
    summary = run_preprocessing(data, tmp_path, config=config, execution=ExecutionConfig(workers=2))
    assert set(summary.by_status) == {"ok"}
    manifest = load_manifest(tmp_path)
    lengths = {path.stem: read_record(path) for path in real_data(name).glob("*.hea")}
    assert len(manifest) == sum(
        int(record.n_samples / record.fs // 10) for record in lengths.values()
    )
    assert (manifest.groupby("patient_id")["split"].nunique() == 1).all()


def test_a_switch_to_windows_goes_on_where_it_was_killed(
    collection: tuple[DataConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(collection, out, PreprocessConfig(fs=100.0, n_samples=1000))
    with monkeypatch.context() as patch:
        patch.setattr(
            preprocessing,
            "merge_manifest",
            lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            run(collection, out)
    assert run(collection, out).n_skipped == 10
    run(collection, tmp_path / "fresh")
    assert load_manifest(out).equals(load_manifest(tmp_path / "fresh"))


def test_a_window_knows_its_record_by_name() -> None:
    for index in (0, 12, 123456):
        name = window_name("d__r__w1", index)
        assert (window_parent(name), window_number(name)) == ("d__r__w1", index)
    assert window_parent("r__w12") == "r__w12" and window_parent("r__w00001x") == "r__w00001x"
    assert window_number("r__w12") == 0


def test_spans_are_full_windows_or_the_whole_of_a_short_record() -> None:
    assert list(window_spans(Extent(1000, 100.0), 4.0, 3.0)) == [(0, 400), (300, 700), (600, 1000)]
    assert count_windows(1000, 100.0, 4.0, 3.0) == 3
    assert list(window_spans(Extent(99, 100.0), 4.0, 4.0)) == [(0, 99)]


def test_windows_know_the_samples_around_them(tmp_path: Path) -> None:
    """Read from disk one by one, or cut in memory, they are the same."""
    write_long(tmp_path, "r", 30)
    path = tmp_path / "r.hea"
    whole = read_record(path)
    cut = list(cut_windows(whole, 10.0))
    margin = round(whole.fs)
    for read, part in zip(iter_records(path, window_s=10.0), cut, strict=True):
        np.testing.assert_array_equal(read.signal, part.signal)
        assert read.before is not None and part.before is not None
        assert read.after is not None and part.after is not None
        np.testing.assert_array_equal(read.before, part.before)
        np.testing.assert_array_equal(read.after, part.after)
        assert (read.record_id, read.n_samples) == (part.record_id, part.n_samples)
    widths = [
        (part.before.shape[1], part.after.shape[1])
        for part in cut
        if part.before is not None and part.after is not None
    ]
    assert widths == [(0, margin), (margin, margin), (margin, 0)]
