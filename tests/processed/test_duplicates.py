from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb
from scipy.signal import resample_poly

from src.config import STANDARD_LEADS, DataConfig, ExecutionConfig, PreprocessConfig, SplitConfig
from src.learning.leaks import refuse_overlap
from src.preprocessing import RunSummary, run_preprocessing
from src.processed.duplicates import report_duplicates
from src.processed.manifest import load_manifest
from src.processed.splits import load_splits
from src.utils import Float32Array

SMALL = PreprocessConfig(fs=100.0, n_samples=1000)
ONE = ExecutionConfig(workers=1)


def heart(seed: int) -> Float32Array:
    """Return twelve leads at 500 Hz of noise that fills the band of the fingerprint, which no other
    seed shares.
    """
    rng = np.random.default_rng(seed)
    return resample_poly(rng.normal(size=(12, 400)), 25, 2, axis=1).astype(np.float32)


def write(
    folder: Path,
    name: str,
    signal: Float32Array,
    fs: int = 500,
    leads: tuple[str, ...] = STANDARD_LEADS,
) -> None:
    folder.mkdir(exist_ok=True)
    rows = [STANDARD_LEADS.index(lead) for lead in leads]
    other = resample_poly(signal.astype(np.float64), fs, 500, axis=1)[rows].T
    wfdb.wrsamp(
        name,
        fs=fs,
        units=["mV"] * 12,
        sig_name=list(leads),
        p_signal=other,
        fmt=["16"] * 12,
        adc_gain=[400.0] * 12,
        baseline=[0] * 12,
        write_dir=str(folder),
    )


@pytest.fixture
def collections(tmp_path: Path) -> DataConfig:
    """Collection a holds records 0 to 19, b the first ten of them again at 100 Hz with other leads
    first, and ten more.
    """
    for seed in range(20):
        write(tmp_path / "a", f"a{seed:02d}", heart(seed))
        write(
            tmp_path / "b",
            f"b{seed:02d}",
            heart(seed if seed < 10 else 100 + seed),
            100,
            STANDARD_LEADS[::-1],
        )
    return DataConfig({"a": str(tmp_path / "a"), "b": str(tmp_path / "b")})


def only(data: DataConfig, *names: str) -> DataConfig:
    return DataConfig({name: data.roots[name] for name in names})


def run(
    data: DataConfig, out: Path, policy: str = "group", mapping: Path | None = None
) -> RunSummary:
    return run_preprocessing(
        data,
        out,
        mapping=mapping,
        config=SMALL,
        splits=SplitConfig(on_duplicate=policy),
        execution=ONE,
    )


def write_mapping(path: Path, folds: dict[str, int]) -> Path:
    rows = [
        {"dataset": key[0], "record_id": key, "mapped_label": "A", "fold": fold}
        for key, fold in folds.items()
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_copies_stay_ok_share_a_split_and_are_reported(
    collections: DataConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    summary = run(collections, tmp_path / "out")
    assert summary.by_status == {"ok": 40} and summary.n_copied == 10
    assert (
        "10 recordings are in several records" in str(summary) and "a__a00 = b__b00" in caplog.text
    )
    where = load_splits(tmp_path / "out" / "splits.json").of_key()
    assert (
        all(where[f"a__a{i:02d}"] == where[f"b__b{i:02d}"] for i in range(10)) and len(where) == 40
    )
    table = pd.read_csv(tmp_path / "out" / "duplicates.csv")
    assert table["recording"].tolist() == [i for i in range(1, 11) for _ in range(2)]
    assert table["differing_bits"].max() <= 22 and (table["compared_bits"] == 256).all()
    assert table["split"].tolist()[::2] == table["split"].tolist()[1::2]


def test_a_later_copy_joins_the_split_of_the_earlier(
    collections: DataConfig, tmp_path: Path
) -> None:
    run(only(collections, "a"), tmp_path / "out")
    before = load_splits(tmp_path / "out" / "splits.json").of_key()
    assert not (tmp_path / "out" / "duplicates.csv").exists()
    run(collections, tmp_path / "out")
    after = load_splits(tmp_path / "out" / "splits.json").of_key()
    assert {key: after[key] for key in before} == before
    assert all(after[f"b__b{i:02d}"] == before[f"a__a{i:02d}"] for i in range(10))


def test_policies_leave_copies_out_and_can_be_changed_without_processing_anew(
    collections: DataConfig, tmp_path: Path
) -> None:
    run(only(collections, "b"), tmp_path / "out")
    kept = run(collections, tmp_path / "out", "keep-first")
    rows = load_manifest(tmp_path / "out").set_index("record_id")
    assert kept.by_status == {"ok": 30, "rejected": 10}  # b was placed first
    assert (
        rows.loc["a03", "reason"] == "the same recording as b__b03"
        and rows.loc["a03", "split"] == ""
    )
    dropped = run(collections, tmp_path / "out", "drop-all")
    assert dropped.by_status == {"ok": 20, "rejected": 20} and dropped.n_skipped == 40
    assert len(load_splits(tmp_path / "out" / "splits.json").of_key()) == 20
    again = run(collections, tmp_path / "out")
    assert again.by_status == {"ok": 40} and again.n_skipped == 40


def test_the_first_copy_is_that_of_the_dataset_named_first(
    collections: DataConfig, tmp_path: Path
) -> None:
    run(only(collections, "b", "a"), tmp_path / "out", "keep-first")
    rows = load_manifest(tmp_path / "out").set_index("record_id")
    assert rows.loc["b00", "status"] == "ok" and rows.loc["a00", "status"] == "rejected"


def test_fail_lists_the_copies_and_loses_no_work(collections: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"10 recordings are in several records: a__a00 = b__b00, .*--on-duplicate group",
    ):
        run(collections, tmp_path / "out", "fail")
    assert run(collections, tmp_path / "out").n_skipped == 40


def test_folds_that_part_copies_fail_with_list_and_remedy(
    collections: DataConfig, tmp_path: Path
) -> None:
    mapping = write_mapping(tmp_path / "map.csv", {"a00": 1, "b00": 9, "a01": 1, "b01": 2})
    with pytest.raises(
        ValueError,
        match=r"copies of 1 recordings in two splits: a__a00 \(train\) = b__b00 \(val\); give "
        r"copies one fold",
    ):
        run(collections, tmp_path / "out", mapping=mapping)
    assert run(collections, tmp_path / "out", "keep-first", mapping).by_status["rejected"] == 10


def test_copies_without_a_fold_follow_those_with_one(
    collections: DataConfig, tmp_path: Path
) -> None:
    mapping = write_mapping(tmp_path / "map.csv", {f"a{i:02d}": i % 10 + 1 for i in range(20)})
    run(collections, tmp_path / "out", mapping=mapping)
    where = load_splits(tmp_path / "out" / "splits.json").of_key()
    assert [where[f"b__b{i:02d}"] for i in range(10)] == ["train"] * 8 + ["val", "test"]


def test_a_fold_that_contradicts_an_earlier_place_fails(
    collections: DataConfig, tmp_path: Path
) -> None:
    run(only(collections, "b"), tmp_path / "out")
    where = load_splits(tmp_path / "out" / "splits.json").of_key()
    key = next(key for key in where if key < "b__b10" and where[key] == "train")
    mapping = write_mapping(tmp_path / "map.csv", {f"a{key[-2:]}": 10})
    with pytest.raises(ValueError, match=r"delete splits\.json to place every record again"):
        run(collections, tmp_path / "out", mapping=mapping)
    (tmp_path / "out" / "splits.json").unlink()
    run(collections, tmp_path / "out", mapping=mapping)
    assert load_splits(tmp_path / "out" / "splits.json").of_key()[key] == "test"


def test_ptbxl_and_its_copies_share_their_splits(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    data = DataConfig(
        {"challenge": str(real_data("challenge2021")), "ptbxl500": str(real_data("ptbxl500"))}
    )
    summary = run(data, tmp_path / "out")
    assert (
        summary.by_status["ok"] == 181 and summary.n_copied == 2
    )  # 00001 in both, and Georgia's E07509 is E07510
    assert pd.read_csv(tmp_path / "out" / "duplicates.csv")["record_id"].tolist() == [
        "E07509",
        "E07510",
        "HR00001",
        "00001_hr",
    ]


def test_many_copies_are_named_by_their_first(caplog: pytest.LogCaptureFixture) -> None:
    report_duplicates([tuple(f"d__{i}" for i in range(50))], "group")
    assert "1 recordings are in 50 records" in caplog.text and caplog.text.rstrip().endswith(
        "d__0 = d__1 = d__2 = d__3 = ..."
    )


def test_generated_records_of_one_wave_fill_every_split(tmp_path: Path) -> None:
    """They look like copies of each other, and so would all be in one split."""
    rng, time = np.random.default_rng(0), np.arange(5000) / 500
    for number in range(30):
        write(
            tmp_path / "toy",
            f"r{number:02d}",
            (np.sin(2 * np.pi * 1.2 * time) + rng.normal(scale=0.02, size=(12, 5000))).astype(
                np.float32
            ),
        )
    run(DataConfig({"toy": str(tmp_path / "toy")}), tmp_path / "out")
    splits = load_splits(tmp_path / "out" / "splits.json")
    assert len(splits.val) >= 2 and len(splits.test) >= 2 and len(splits.train) >= 20
    hashes = load_manifest(tmp_path / "out").groupby("split")["signal_hash"].agg(list)
    refuse_overlap(hashes["train"], splits.test, hashes["test"], "test")
