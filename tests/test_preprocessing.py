from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
from settings import SMALL

from src import preprocessing
from src.config import DataConfig, ExecutionConfig, PreprocessConfig, SplitConfig, config_hash
from src.preprocessing import build_tensor, run_preprocessing
from src.processed.manifest import Journal, load_manifest, load_preprocess_config
from src.processed.packed import load_packed
from src.processed.record_files import load_record_file, record_path, to_millivolts
from src.processed.runs.plan import choose_evenly
from src.processed.runs.tasks import RecordTask, RejectedError
from src.processed.splits import load_splits
from src.processed.targets import load_records
from src.records.reading import read_record
from src.records.record import ECGRecord, RecordError
from src.records.sample_collections import SampleData
from src.records.windows import cut_windows

ONE = ExecutionConfig(workers=1)
RNG = np.random.default_rng(5)


def record(
    signal: np.ndarray, fs: float = 100.0, leads: tuple[str, ...] = ("II", "V1")
) -> ECGRecord:
    return ECGRecord("r", np.asarray(signal, np.float32), fs, leads)


def bare_collection(folder: Path, n: int, n_samples: int = 1000) -> Path:
    """Write n two-lead WFDB records of 100 Hz."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        RNG.integers(-500, 500, (n_samples, 2)).astype("<i2").tofile(folder / f"r{i}.dat")
        (folder / f"r{i}.hea").write_text(
            f"r{i} 2 100 {n_samples}\nr{i}.dat 16 100/mV 16 0 0 0 0 II\nr{i}.dat 16 "
            "100/mV 16 0 0 0 0 V1\n"
        )
    return folder


# Several runs on one folder -----------------------------------------------------------------------


def test_an_interrupted_run_with_other_settings_leaves_no_wrong_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is killed, one with other settings is killed between its files and their rows, and the
    first is run again.
    """
    data, other = (
        DataConfig(roots={"d": str(bare_collection(tmp_path / "src", 3))}),
        PreprocessConfig(fs=50.0, n_samples=500),
    )

    def run_and_die(config: PreprocessConfig, calls: int) -> None:
        append, left = Journal.append, iter(range(calls))

        def die(journal: Journal, rows: object) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            append(journal, rows)

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", die)
            patch.setattr(
                preprocessing,
                "merge_manifest",
                lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt),
            )
            with pytest.raises(KeyboardInterrupt):
                run_preprocessing(data, tmp_path / "out", config=config, execution=ONE)

    run_and_die(SMALL, 1)
    run_and_die(other, 1)
    assert run_preprocessing(data, tmp_path / "out", config=SMALL, execution=ONE).n_skipped == 0
    for key in ("d__r0", "d__r1", "d__r2"):
        assert load_record_file(record_path(tmp_path / "out", key))["signal"].shape == (12, 1000)


def test_journalled_records_of_other_settings_are_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        bare_collection(tmp_path / name, 2)
    with monkeypatch.context() as patch:
        patch.setattr(
            preprocessing,
            "merge_manifest",
            lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            run_preprocessing(
                DataConfig(roots={"a": str(tmp_path / "a")}),
                tmp_path / "out",
                config=SMALL,
                execution=ONE,
            )
    with pytest.raises(ValueError, match="holds records of a made with other settings"):
        run_preprocessing(
            DataConfig(roots={"b": str(tmp_path / "b")}),
            tmp_path / "out",
            config=PreprocessConfig(fs=50.0, n_samples=500),
            execution=ONE,
        )


def test_a_record_named_like_a_window_is_no_window(tmp_path: Path) -> None:
    folder = bare_collection(tmp_path / "src", 2)
    for suffix in (".hea", ".dat"):
        (folder / f"r1{suffix}").rename(folder / f"r0__w00001{suffix}")
    header = folder / "r0__w00001.hea"
    header.write_text(header.read_text().replace("r1", "r0__w00001"))
    data = DataConfig(roots={"d": str(folder)})
    run_preprocessing(data, tmp_path / "out", config=SMALL, execution=ONE)
    os.utime(folder / "r0.hea", (0, 0))
    assert run_preprocessing(data, tmp_path / "out", config=SMALL, execution=ONE).by_status == {
        "ok": 2
    }


def test_a_record_with_a_changed_segment_is_processed_again(tmp_path: Path) -> None:
    folder = bare_collection(tmp_path / "src", 2)
    (folder / "m.hea").write_text("m/2 2 100 2000\nr0 1000\nr1 1000\n")
    data = DataConfig(roots={"d": str(folder)})
    assert run_preprocessing(data, tmp_path / "out", config=SMALL, execution=ONE).by_status == {
        "ok": 1
    }
    assert run_preprocessing(data, tmp_path / "out", config=SMALL, execution=ONE).n_skipped == 1
    os.utime(folder / "r1.dat", (0, 0))
    assert run_preprocessing(data, tmp_path / "out", config=SMALL, execution=ONE).n_skipped == 0


def test_training_waits_for_the_end_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataConfig(roots={"d": str(bare_collection(tmp_path / "src", 4))})
    run_preprocessing(data, tmp_path / "out", config=SMALL, execution=ONE)
    monkeypatch.setattr(
        preprocessing, "_process_chunks", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    os.utime(tmp_path / "src" / "r2.hea", (0, 0))
    with pytest.raises(KeyboardInterrupt):
        run_preprocessing(data, tmp_path / "out", config=SMALL, execution=ONE)
    with pytest.raises(
        ValueError, match="1 records were being rewritten when preprocessing was interrupted"
    ):
        load_records(tmp_path / "out", keep_other=True)


def test_age_and_sex_of_the_file_stand_in_for_those_of_the_table(tmp_path: Path) -> None:
    folder = bare_collection(tmp_path / "src", 3)
    for i in range(3):
        with open(folder / f"r{i}.hea", "a") as stream:
            stream.write("#Age: 61\n#Sex: F\n")
    (tmp_path / "m.csv").write_text(
        "dataset,record_id,mapped_label,age,sex\nd,r0,A,,\nd,r1,A,33,M\n"
    )
    run_preprocessing(
        DataConfig(roots={"d": str(folder)}),
        tmp_path / "out",
        mapping=tmp_path / "m.csv",
        config=SMALL,
        execution=ONE,
    )
    rows = load_manifest(tmp_path / "out")
    assert list(zip(rows["age"], rows["sex"], strict=True)) == [
        ("61.0", "female"),
        ("33.0", "male"),
        ("61.0", "female"),
    ]


# One record ---------------------------------------------------------------------------------------


def test_a_tensor_has_standard_leads_and_gives_the_voltages_back() -> None:
    signal = RNG.normal(size=(2, 700)) * 0.3 + 1.5
    arrays = build_tensor(record(signal), SMALL).arrays
    assert arrays["signal"].shape == (12, 1000) and arrays["n_valid"] == 700
    assert arrays["lead_present"].nonzero()[0].tolist() == [1, 6]
    assert not arrays["signal"][:, 700:].any() and not arrays["signal"][[0, 2, 5, 11]].any()
    np.testing.assert_allclose(arrays["signal"][1, :700].std(), 1, atol=1e-5)
    np.testing.assert_allclose(to_millivolts(arrays)[[1, 6]], signal, atol=1e-5)


def test_infinite_samples_are_missing_ones() -> None:
    signal = np.sin(np.arange(2000).reshape(2, 1000) / 30)
    signal[0, 10] = np.inf
    tensor = build_tensor(record(signal), SMALL)
    assert (
        "gap_filled:II" in tensor.flags
        and np.isfinite(tensor.arrays["signal"]).all()
        and tensor.fingerprint
    )
    signal[0, :900] = -np.inf
    with pytest.raises(RejectedError, match="missing in one gap"):
        build_tensor(record(signal), SMALL)


def test_a_record_that_cannot_be_written_to_is_used_as_it_is() -> None:
    signal = np.concatenate([np.sin(np.arange(1000) / 30)[None], np.full((1, 1000), 0.8)]).astype(
        np.float32
    )
    signal.setflags(write=False)
    assert "flat:V1" in build_tensor(record(signal), SMALL).flags


def test_statistics_are_over_the_samples_kept() -> None:
    signal = RNG.normal(size=(2, 1600))
    signal[:, 1000:] += 50
    arrays = build_tensor(record(signal), SMALL).arrays
    np.testing.assert_allclose(
        arrays["lead_mean"][[1, 6]], signal[:, :1000].mean(axis=1), atol=1e-5
    )


@pytest.mark.parametrize("fs", [100.0, 257.0])
def test_a_flat_lead_is_zeros_at_any_rate(fs: float) -> None:
    signal = np.stack([np.full(3000, 0.7), RNG.normal(size=3000)])
    tensor = build_tensor(record(signal, fs), SMALL)
    assert not tensor.arrays["signal"][1].any() and tensor.arrays["signal"][6].any()
    assert tensor.arrays["lead_present"][1] and tensor.arrays["lead_std"][1] == 0
    assert "flat:II" in tensor.flags


def test_gaps_are_filled_up_to_the_limit_and_reject_beyond() -> None:
    signal = RNG.normal(size=(2, 1000))
    signal[0, 100:120] = np.nan
    assert build_tensor(record(signal), SMALL).flags[0] == "gap_filled:II"
    signal[0, 100:121] = np.nan
    with pytest.raises(
        RejectedError,
        match=r"0\.21 s of samples are missing in one gap \(leads II\), the limit is 0\.2 s",
    ):
        build_tensor(record(signal), SMALL)


def test_limb_leads_are_derived_unless_switched_off() -> None:
    signal = RNG.normal(size=(3, 1000))
    source = record(signal, leads=("II", "III", "V1"))
    tensor = build_tensor(source, SMALL)
    voltages = to_millivolts(tensor.arrays)
    np.testing.assert_allclose(voltages[0], signal[0] - signal[1], atol=1e-5)
    np.testing.assert_allclose(voltages[5], (signal[0] + signal[1]) / 2, atol=1e-5)
    assert tensor.arrays["lead_present"].nonzero()[0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    derived = {flag for flag in tensor.flags if flag.startswith("derived:")}
    assert derived == {f"derived:{name}" for name in ("I", "aVR", "aVL", "aVF")}
    plain = build_tensor(source, replace(SMALL, derive_leads=False))
    assert plain.arrays["lead_present"].nonzero()[0].tolist() == [1, 2, 6]
    assert not [flag for flag in plain.flags if flag.startswith("derived:")]


def test_a_difference_of_leads_is_not_lead_iii() -> None:
    signal = RNG.normal(size=(3, 1000))
    tensor = build_tensor(record(signal, leads=("I", "II", "I-II")), SMALL)
    np.testing.assert_allclose(to_millivolts(tensor.arrays)[2], signal[1] - signal[0], atol=1e-5)
    assert {"unknown_lead:I-II", "derived:III"} <= set(tensor.flags)


def test_a_lead_without_any_sample_is_absent() -> None:
    signal = RNG.normal(size=(3, 1000))
    signal[1] = np.nan
    signal[0, 5] = np.nan
    tensor = build_tensor(record(signal, leads=("II", "V1", "V2")), SMALL)
    assert tensor.arrays["lead_present"].nonzero()[0].tolist() == [1, 7]
    assert "no_samples:V1" in tensor.flags and "gap_filled:II" in tensor.flags
    assert not tensor.arrays["signal"][6].any()
    # One that is missing only in part still decides by its gap.
    signal[1, :500] = 0.1
    with pytest.raises(RejectedError, match=r"5 s of samples .* \(leads V1\)"):
        build_tensor(record(signal[[1, 2]], leads=("V1", "V2")), SMALL)
    with pytest.raises(RejectedError, match="all samples are missing in every known lead"):
        build_tensor(record(np.full((2, 1000), np.nan)), SMALL)


def test_a_missing_limb_lead_is_derived_from_the_others() -> None:
    signal = RNG.normal(size=(3, 1000))
    signal[0] = np.nan
    tensor = build_tensor(record(signal, leads=("I", "II", "III")), SMALL)
    np.testing.assert_allclose(to_millivolts(tensor.arrays)[0], signal[1] - signal[2], atol=1e-5)
    assert {"no_samples:I", "derived:I"} <= set(tensor.flags)


@pytest.mark.parametrize("leads", [("II", "V1"), ("I", "II")])
def test_windows_are_what_the_whole_record_is(leads: tuple[str, str]) -> None:
    """Nothing of the filter's edge is left where a long record is cut."""
    source = record(RNG.normal(size=(2, 10_000)).cumsum(axis=1) / 100, 500.0, leads)
    config = PreprocessConfig(fs=100.0, n_samples=500, window_s=5.0)
    whole = to_millivolts(build_tensor(source, PreprocessConfig(fs=100.0, n_samples=2000)).arrays)
    for number, window in enumerate(cut_windows(source, 5.0)):
        voltages = to_millivolts(build_tensor(window, config).arrays)
        expected = whole[:, 500 * number : 500 * (number + 1)]
        np.testing.assert_allclose(voltages, expected, atol=1e-5)


def test_other_reasons_to_reject_and_to_flag() -> None:
    with pytest.raises(RejectedError, match="no known lead among 'RESP', 'ABP'"):
        build_tensor(record(np.ones((2, 500)), leads=("RESP", "ABP")), SMALL)
    with pytest.raises(RejectedError, match=r"lasts 0\.2 s, the limit is 0\.5 s"):
        build_tensor(record(np.ones((2, 20))), SMALL)
    signal = RNG.normal(size=(2, 1000))
    signal[1, 5] = -11
    assert build_tensor(record(signal), SMALL).flags[0] == "amplitude:V1"


# Many records -------------------------------------------------------------------------------------


def test_record_files_manifest_and_splits_agree(processed: Path, sample: SampleData) -> None:
    manifest = load_manifest(processed)
    assert (manifest["status"] == "ok").all() and len(manifest) == 36
    labels = pd.read_csv(sample.mapping, dtype=str).set_index(["dataset", "record_id"])[
        "mapped_label"
    ]
    where = load_splits(processed / "splits.json").of_key()
    for row in manifest.itertuples():
        arrays = load_record_file(record_path(processed, f"{row.dataset}__{row.record_id}"))
        assert arrays["signal"].shape == (12, 1000) and arrays["signal"].dtype == np.float32
        assert arrays["label"].tolist() == [labels[row.dataset, row.record_id]] == [row.labels]
        assert str(arrays["record_id"]) == row.record_id and str(arrays["dataset"]) == row.dataset
        assert str(arrays["config_hash"]) == row.config_hash
        assert where[f"{row.dataset}__{row.record_id}"] == row.split
    assert set(manifest["split"]) == {"train", "val", "test"}
    homes = (
        manifest[manifest["patient_id"] != ""].groupby(["dataset", "patient_id"])["split"].nunique()
    )
    assert (homes == 1).all() and len(homes)
    assert load_preprocess_config(processed) == SMALL


def test_voltages_equal_the_source_at_its_own_rate(sample: SampleData, tmp_path: Path) -> None:
    root = sample.data["synthetic_wfdb"]
    run_preprocessing(DataConfig(roots={"w": str(root)}), tmp_path, execution=ONE)
    for path in sorted(root.glob("*.hea"))[:4]:
        arrays = load_record_file(record_path(tmp_path, f"w__{path.stem}"))
        source = read_record(path).signal[:, :5000]
        np.testing.assert_allclose(to_millivolts(arrays), source, atol=2e-5)


def test_two_workers_give_the_same_bytes_as_one(
    sample_roots: DataConfig, processed: Path, sample: SampleData, tmp_path: Path
) -> None:
    run_preprocessing(
        sample_roots,
        tmp_path,
        mapping=sample.mapping,
        config=SMALL,
        execution=ExecutionConfig(workers=2, chunk_size=5),
    )
    for path in sorted((processed / "records").iterdir()):
        assert (tmp_path / "records" / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "manifest.csv").read_bytes() == (processed / "manifest.csv").read_bytes()
    assert (tmp_path / "splits.json").read_bytes() == (processed / "splits.json").read_bytes()


def test_records_of_every_kind_become_the_same_together_as_alone(
    sample_roots: DataConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    for name, n_samples in (("whole", 1000), ("longer", 1700), ("short", 15)):
        for path in bare_collection(tmp_path / name, 3, n_samples).iterdir():
            folder.mkdir(exist_ok=True)
            text = path.read_bytes()
            (folder / f"{name}_{path.name}").write_bytes(
                text.replace(b"r", f"{name}_r".encode()) if path.suffix == ".hea" else text
            )
    (folder / "whole_r1.dat").write_bytes(b"torn")
    made = {}
    for size in (1, 3, 64):
        out = tmp_path / f"out{size}"
        run_preprocessing(
            DataConfig({**sample_roots.roots, "odd": str(folder)}),
            out,
            config=SMALL,
            execution=ExecutionConfig(workers=1, chunk_size=size),
        )
        made[size] = (
            (out / "manifest.csv").read_bytes(),
            {path.name: path.read_bytes() for path in (out / "records").iterdir()},
        )
    assert made[1] == made[3] == made[64]
    status = load_manifest(tmp_path / "out64").query("dataset == 'odd'")["status"].value_counts()
    assert status.to_dict() == {"ok": 5, "rejected": 3, "unreadable": 1}


def test_very_many_records_go_to_subfolders_and_are_found_there(
    tmp_path: Path, processed: Path, sample_roots: DataConfig, sample: SampleData
) -> None:
    def run(out: Path, shard_above: int) -> int:
        execution = ExecutionConfig(workers=1, shard_above=shard_above)
        return run_preprocessing(
            sample_roots, out, mapping=sample.mapping, config=SMALL, execution=execution
        ).n_skipped

    assert (
        run(tmp_path, 35) == 0 and run(tmp_path, 1_000_000) == 36
    )  # once in subfolders, always there
    files = {path.name: path for path in (tmp_path / "records").glob("*/*.npz")}
    assert (
        len(files) == 36
        and len({path.parent for path in files.values()}) > 20
        and not list((tmp_path / "records").glob("*.npz"))
    )
    for path in sorted((processed / "records").iterdir()):
        assert files[path.name].read_bytes() == path.read_bytes()
    for name in ("manifest.csv", "splits.json"):
        assert (tmp_path / name).read_bytes() == (processed / name).read_bytes()
    np.testing.assert_array_equal(
        load_packed(tmp_path, "train").codes, load_packed(processed, "train").codes
    )
    leftover = next(iter(files.values())).with_name(
        ".tmp-000000-1-00000000.npz"
    )  # of another machine, long ago
    leftover.touch()
    os.utime(leftover, (1, 1))
    run(tmp_path, 0)
    assert not leftover.exists()


def test_a_folder_with_records_keeps_its_form(tmp_path: Path) -> None:
    roots = DataConfig(roots={"d": str(bare_collection(tmp_path / "src", 3))})
    for shard_above in (3, 0):
        run_preprocessing(
            roots,
            tmp_path / "out",
            config=SMALL,
            execution=ExecutionConfig(workers=1, shard_above=shard_above),
        )
    assert sorted(path.name for path in (tmp_path / "out" / "records").iterdir()) == [
        "d__r0.npz",
        "d__r1.npz",
        "d__r2.npz",
    ]


def test_a_factory_of_executors_serves_too(tmp_path: Path) -> None:
    roots = DataConfig(roots={"d": str(bare_collection(tmp_path / "src", 5))})
    summary = run_preprocessing(
        roots, tmp_path / "out", config=SMALL, executor_factory=lambda: ThreadPoolExecutor(2)
    )
    assert summary.by_status == {"ok": 5}


def test_without_a_mapping_every_record_gets_the_fallback(tmp_path: Path) -> None:
    run_preprocessing(
        DataConfig(roots={"d": str(bare_collection(tmp_path / "src", 2))}),
        tmp_path / "out",
        config=SMALL,
        execution=ONE,
    )
    manifest = load_manifest(tmp_path / "out")
    assert set(manifest["labels"]) == {"OTHER"} and set(manifest["label_source"]) == {"fallback"}
    assert load_record_file(record_path(tmp_path / "out", "d__r0"))["label"].tolist() == ["OTHER"]


def test_labels_that_a_run_takes_away_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    roots = DataConfig(roots={"d": str(bare_collection(tmp_path / "src", 2))})
    mapping = tmp_path / "labels.csv"
    mapping.write_text("dataset,record_id,mapped_label\nd,r0,AF\nd,r1,NORM\n")
    told = []
    for given in (mapping, mapping, None, None):
        caplog.clear()
        run_preprocessing(roots, tmp_path / "out", mapping=given, config=SMALL, execution=ONE)
        told.append("2 records lose the labels that an earlier run gave them" in caplog.text)
    assert told == [False, False, True, False]


def test_a_dataset_without_any_row_is_named_beside_those_that_have_some(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mapping = tmp_path / "m.csv"
    mapping.write_text("dataset,record_id,mapped_label\nchallenge,r0,AF\n")
    data = DataConfig({"challenge2021": str(bare_collection(tmp_path / "a", 2))})
    run_preprocessing(data, tmp_path / "out", mapping=mapping, config=SMALL, execution=ONE)
    assert (
        "no rows of dataset 'challenge2021'" in caplog.text
        and "it has rows of challenge:" in caplog.text
    )


def test_bad_records_become_rows_and_the_rest_is_processed(tmp_path: Path) -> None:
    root = bare_collection(tmp_path / "src", 6)
    (root / "r0.dat").write_bytes(b"")
    (root / "r1.hea").write_text("")
    np.full((1000, 2), -32768, "<i2").tofile(root / "r2.dat")
    (tmp_path / "m.csv").write_text(
        "dataset,record_id,mapped_label\n"
        + "".join(f"d,r{i},AF\n" for i in range(5))
        + "d,gone,AF\n"
    )
    summary = run_preprocessing(
        DataConfig(roots={"d": str(root)}),
        tmp_path / "out",
        mapping=tmp_path / "m.csv",
        config=SMALL,
        execution=ONE,
    )
    rows = load_manifest(tmp_path / "out").set_index("record_id")
    assert rows["status"].to_dict() == {
        "gone": "missing",
        "r0": "unreadable",
        "r1": "unreadable",
        "r2": "rejected",
        "r3": "ok",
        "r4": "ok",
        "r5": "ok",
    }
    assert "holds 0 samples of 2 leads, the header promises 1000" in rows.loc["r0", "reason"]
    assert "samples are missing" in rows.loc["r2", "reason"] and rows.loc["gone", "reason"]
    assert {p.stem for p in (tmp_path / "out" / "records").iterdir()} == {"d__r3", "d__r4", "d__r5"}
    assert summary.by_status == {"missing": 1, "unreadable": 2, "rejected": 1, "ok": 3}
    with pytest.raises(RecordError, match="d/gone"):
        run_preprocessing(
            DataConfig(roots={"d": str(root)}),
            tmp_path / "out",
            mapping=tmp_path / "m.csv",
            config=SMALL,
            execution=ExecutionConfig(workers=1, on_error="raise"),
        )


@pytest.mark.parametrize("where", ["in", "in/p", ".", "records"])
def test_an_output_folder_and_a_collection_do_not_mix(tmp_path: Path, where: str) -> None:
    source = bare_collection(tmp_path / ("records/in" if where == "records" else "in"), 3)
    out = tmp_path if where == "records" else tmp_path / where
    data = DataConfig(roots={"d": str(source)})
    if where in ("in", "records"):
        with pytest.raises(ValueError, match="choose another folder for --out"):
            run_preprocessing(data, out, config=SMALL)
        assert not (out / "manifest.csv").exists()
        return
    for _ in range(2):
        summary = run_preprocessing(data, out, config=SMALL, execution=ONE)
        # An array that training leaves is of a format that is read.
        (out / "packed").mkdir(exist_ok=True)
        np.save(out / "packed" / "train-0.npy", np.zeros((12, 1000), np.float32))
    assert summary.by_status == {"ok": 3} and summary.n_skipped == 3


def test_a_processed_folder_is_no_collection(processed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="written by preprocess"):
        run_preprocessing(DataConfig(roots={"d": str(processed)}), tmp_path / "out", config=SMALL)


def test_running_again_does_only_what_changed(tmp_path: Path) -> None:
    root, out = bare_collection(tmp_path / "src", 4), tmp_path / "out"
    mapping = tmp_path / "m.csv"
    mapping.write_text("dataset,record_id,mapped_label\nd,r0,AF\nd,r1,AF\nd,r2,AF\n")

    def run(config: PreprocessConfig = SMALL) -> tuple[int, dict[str, int]]:
        before = (
            {p.name: p.stat().st_mtime_ns for p in (out / "records").glob("*")}
            if out.exists()
            else {}
        )
        summary = run_preprocessing(
            DataConfig(roots={"d": str(root)}), out, mapping=mapping, config=config, execution=ONE
        )
        after = {p.name: p.stat().st_mtime_ns for p in (out / "records").glob("*")}
        return summary.n_skipped, {name: 1 for name in after if before.get(name) != after[name]}

    assert run() == (0, {f"d__r{i}.npz": 1 for i in range(4)})
    assert run() == (4, {})
    mapping.write_text("dataset,record_id,mapped_label\nd,r0,AF\nd,r1,PVC\nd,r2,AF\n")
    assert run() == (3, {"d__r1.npz": 1})
    os.utime(root / "r2.dat", ns=(1, 1))
    assert run() == (3, {"d__r2.npz": 1})
    (out / "records" / "d__r3.npz").unlink()
    assert run() == (3, {"d__r3.npz": 1})
    assert run(PreprocessConfig(fs=50, n_samples=500))[0] == 0


def test_a_killed_run_resumes_from_its_journal(
    sample_roots: DataConfig, sample: SampleData, processed: Path, tmp_path: Path
) -> None:
    def broken() -> ThreadPoolExecutor:
        raise KeyboardInterrupt

    done = 0

    class Stopping(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal done
            done += 1
            if done > 3:
                raise KeyboardInterrupt
            return super().submit(fn, *args, **kwargs)

    execution = ExecutionConfig(workers=1, chunk_size=4)
    with pytest.raises(KeyboardInterrupt):
        run_preprocessing(
            sample_roots,
            tmp_path,
            mapping=sample.mapping,
            config=SMALL,
            execution=execution,
            executor_factory=lambda: Stopping(1),
        )
    assert not (tmp_path / "manifest.csv").exists()
    n_journalled = len(Journal(tmp_path).load())
    summary = run_preprocessing(
        sample_roots, tmp_path, mapping=sample.mapping, config=SMALL, execution=execution
    )
    assert summary.n_skipped == n_journalled
    for name in ("manifest.csv", "splits.json"):
        assert (tmp_path / name).read_bytes() == (processed / name).read_bytes()
    assert not Journal(tmp_path).path.exists()


def test_adding_records_later_moves_none(tmp_path: Path) -> None:
    root, out = bare_collection(tmp_path / "src", 30), tmp_path / "out"
    mapping = tmp_path / "m.csv"

    def run(n: int) -> dict[str, str]:
        mapping.write_text(
            "dataset,record_id,mapped_label\n"
            + "".join(f"d,r{i},{'AB'[i % 2]}\n" for i in range(n))
        )
        run_preprocessing(
            DataConfig(roots={"d": str(root)}), out, mapping=mapping, config=SMALL, execution=ONE
        )
        return load_splits(out / "splits.json").of_key()

    before = run(30)
    bare_collection(root, 60)
    after = run(60)
    assert {key: after[key] for key in before} == before and len(after) == 60


@pytest.mark.parametrize("n_bytes", [0, 100, -1])
def test_a_truncated_record_file_is_rewritten(tmp_path: Path, n_bytes: int) -> None:
    data, out = DataConfig({"a": str(bare_collection(tmp_path / "a", 2))}), tmp_path / "out"
    run_preprocessing(data, out, config=SMALL, execution=ONE)
    path = record_path(out, "a__r0")
    whole = path.read_bytes()
    path.write_bytes(whole[:n_bytes])
    assert run_preprocessing(data, out, config=SMALL, execution=ONE).n_skipped == 1
    assert path.read_bytes() == whole
    assert run_preprocessing(data, out, config=SMALL, execution=ONE).n_skipped == 2


def test_a_damaged_splits_file_stops_the_run_before_its_work(tmp_path: Path) -> None:
    data = DataConfig({"a": str(bare_collection(tmp_path / "a", 3))})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "splits.json").write_text('{"train": [')
    with pytest.raises(
        ValueError, match=r"splits\.json: not a splits file.*delete it and run preprocess again"
    ):
        run_preprocessing(data, tmp_path / "out", config=SMALL, execution=ONE)
    assert not (tmp_path / "out" / "records").exists() or not list(
        (tmp_path / "out" / "records").iterdir()
    )


def test_a_second_dataset_joins_the_first(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("a", "b"):
        run_preprocessing(
            DataConfig(roots={name: str(bare_collection(tmp_path / name, 3))}),
            out,
            config=SMALL,
            execution=ONE,
        )
    assert load_manifest(out)["dataset"].tolist() == ["a"] * 3 + ["b"] * 3
    with pytest.raises(ValueError, match="holds records of a made with other settings"):
        run_preprocessing(
            DataConfig(roots={"b": str(tmp_path / "b")}),
            out,
            config=PreprocessConfig(fs=50, n_samples=500),
            execution=ONE,
        )
    run_preprocessing(
        DataConfig(roots={"b": str(tmp_path / "b")}), out, config=SMALL, execution=ONE, extend=False
    )
    assert load_manifest(out)["dataset"].tolist() == ["b"] * 3


def test_folds_of_the_mapping_make_the_splits(tmp_path: Path) -> None:
    root = bare_collection(tmp_path / "src", 20)
    mapping = tmp_path / "m.csv"
    mapping.write_text(
        "dataset,record_id,mapped_label,fold\n"
        + "".join(f"d,r{i},A,{i % 10 + 1}\n" for i in range(20))
    )
    run_preprocessing(
        DataConfig(roots={"d": str(root)}),
        tmp_path / "out",
        mapping=mapping,
        config=SMALL,
        execution=ONE,
    )
    splits = load_splits(tmp_path / "out" / "splits.json")
    assert set(splits.val) == {"d__r8", "d__r18"} and set(splits.test) == {"d__r9", "d__r19"}
    run_preprocessing(
        DataConfig(roots={"d": str(root)}),
        tmp_path / "out",
        mapping=mapping,
        config=SMALL,
        execution=ONE,
        splits=SplitConfig(val_folds=(1,), test_folds=()),
    )
    assert set(load_splits(tmp_path / "out" / "splits.json").val) == {"d__r0", "d__r10"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (DataConfig(), "no collection is named"),
        (DataConfig(roots={"a": "gone"}), "gone: no such folder"),
        (DataConfig(roots={"a__b": "."}), "'a__b' is no plain dataset name"),
        (DataConfig(roots={"a": ".", "b": "./"}), "datasets 'a' and 'b' are the same folder"),
        (
            DataConfig(roots={"a": "."}, source_fs={"b": 1.0}),
            "--source-fs names 'b', which no --data names",
        ),
        (DataConfig(roots={"a": "."}, source_fs={"a": 0.0}), "expected a positive number"),
    ],
)
def test_wrong_collections_are_refused(data: DataConfig, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=expected):
        run_preprocessing(data, tmp_path / "out", execution=ONE)
    assert not (tmp_path / "out").exists()


def test_source_rate_and_gain_reach_bare_files(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    adc = RNG.integers(-900, 900, (12, 2570)).astype(np.int16)
    scipy.io.savemat(tmp_path / "src" / "x.mat", {"val": adc})
    data = DataConfig(
        roots={"d": str(tmp_path / "src")}, source_fs={"d": 257.0}, source_gain_per_mv={"d": 1000.0}
    )
    run_preprocessing(data, tmp_path / "out", execution=ONE)
    arrays = load_record_file(record_path(tmp_path / "out", "d__x"))
    assert arrays["n_valid"] == 5000 and arrays["signal"].shape == (12, 5000)


def test_tasks_are_chosen_evenly_from_each_dataset() -> None:
    tasks = [
        RecordTask(d, f"{d}{i}", "") for d, n in (("a", 100), ("b", 2), ("c", 50)) for i in range(n)
    ]
    chosen = [task.record_id for task in choose_evenly(tasks, 10)]
    assert (
        len(chosen) == 10
        and chosen[:2] == ["b0", "b1"]
        and {c[0] for c in chosen} == {"a", "b", "c"}
    )
    assert len(choose_evenly(tasks[:3], 10)) == 3


def test_splits_file_is_what_the_design_says(processed: Path) -> None:
    content = json.loads((processed / "splits.json").read_text())
    assert set(content) == {"train", "val", "test", "seed", "rule"} and content["seed"] == 0


def test_all_real_challenge_records_go_through(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    summary = run_preprocessing(
        DataConfig(roots={"c": str(real_data("challenge2021"))}),
        tmp_path,
        execution=ExecutionConfig(workers=2),
    )
    assert summary.by_status == {"ok": 141}


def test_a_collection_of_implausible_voltages_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = DataConfig({"loud": str(bare_collection(tmp_path / "loud", 5))})
    run_preprocessing(data, tmp_path / "out", config=SMALL, execution=ONE)
    assert "loud: voltages of 100 % of the records are too large for an ECG" in caplog.text


def test_a_long_record_is_not_taken_for_a_short_one(tmp_path: Path) -> None:
    bare_collection(tmp_path / "src", 1, 12000)
    config = PreprocessConfig(fs=100, n_samples=1000, min_duration_s=60)
    run_preprocessing(
        DataConfig({"d": str(tmp_path / "src")}), tmp_path / "out", config=config, execution=ONE
    )
    assert load_manifest(tmp_path / "out")["status"].tolist() == ["ok"]


@pytest.mark.parametrize("fs", ["250000", "128000"])
def test_a_rate_far_above_the_target_rejects_the_record(fs: str, tmp_path: Path) -> None:
    folder = bare_collection(tmp_path / "src", 2, 4000)
    header = (folder / "r0.hea").read_text()
    (folder / "r0.hea").write_text(header.replace("r0 2 100 4000", f"r0 2 {fs} 4000"))
    config = PreprocessConfig(fs=100, n_samples=1000, min_duration_s=0.001)
    run_preprocessing(
        DataConfig({"d": str(folder)}), tmp_path / "out", config=config, execution=ONE
    )
    rows = load_manifest(tmp_path / "out").set_index("record_id")
    assert rows["status"].to_dict() == {"r0": "rejected", "r1": "ok"}
    assert f"its rate of {float(fs):g} Hz cannot be brought to 100 Hz" in rows.at["r0", "reason"]


@pytest.mark.parametrize("largest", [1e20, 6e37, 3e38])
def test_samples_beyond_any_voltage_are_refused_by_name(largest: float, tmp_path: Path) -> None:
    import h5py

    values = RNG.normal(size=(12, 1000)).astype(np.float32)
    values[:, ::7] = largest
    (tmp_path / "src").mkdir()
    with h5py.File(tmp_path / "src" / "a.h5", "w") as file:
        file["signal"], file.attrs["fs"] = values, 100.0
    run_preprocessing(
        DataConfig(
            {"d": str(tmp_path / "src")}, source_fs={"d": 100.0}, source_gain_per_mv={"d": 1.0}
        ),
        tmp_path / "out",
        config=SMALL,
        execution=ONE,
    )
    row = load_manifest(tmp_path / "out").iloc[0]
    assert row["status"] == "unreadable" and "samples beyond any voltage" in row["reason"]


def test_an_unreadable_file_in_a_folder_whose_name_is_no_text_ends_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "src" / os.fsdecode(b"Patienten_\xfc")
    try:
        folder.mkdir(parents=True)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    bare_collection(tmp_path / "src", 1)
    (folder / "a.hea").write_text("a 1 100 1000\na.dat 16 100/mV 16 0 0 0 0 II\n")
    run_preprocessing(
        DataConfig({"d": str(tmp_path / "src")}), tmp_path / "out", config=SMALL, execution=ONE
    )
    assert sorted(load_manifest(tmp_path / "out")["status"]) == ["ok", "unreadable"]


# Labels with a time -------------------------------------------------------------------------------

TIMED = PreprocessConfig(fs=100.0, n_samples=200, window_s=2.0)
RHYTHM = """dataset,record_id,mapped_label,annotated,start_s,end_s
d,r0,N,N;AFIB,0,3.5
d,r0,AFIB,N;AFIB,3.5,7.6
d,r1,N,,0,10
d,r2,MI,,,
"""


def write_mapping(folder: Path, text: str) -> Path:
    (folder / "m.csv").write_text(text)
    return folder / "m.csv"


def test_windows_take_the_labels_of_the_intervals_in_them(tmp_path: Path) -> None:
    data = DataConfig(roots={"d": str(bare_collection(tmp_path / "src", 3))})
    mapping = write_mapping(tmp_path, RHYTHM)
    out = tmp_path / "out"
    run_preprocessing(data, out, mapping=mapping, config=TIMED, execution=ONE)
    rows = load_manifest(out).set_index("record_id")
    columns = ["labels", "annotated", "label_source", "label_cover"]
    assert rows.loc[[f"r0__w0000{i}" for i in range(5)], columns].to_numpy().tolist() == [
        ["N", "N;AFIB", "mapping", "N 1"],
        ["N", "N;AFIB", "mapping", "N 0.75;AFIB 0.25"],
        ["AFIB", "N;AFIB", "mapping", "AFIB 1"],
        ["AFIB", "N;AFIB", "mapping", "AFIB 0.8"],
        ["OTHER", "", "fallback", ""],
    ]
    assert set(rows.loc[rows.index.str.startswith("r2"), "labels"]) == {"MI"}
    # A window that is not annotated is neither trained on nor evaluated, and all are of one split.
    kept = load_records(out)
    keys = [key for records in kept.values() for key in records.keys]
    assert "d__r0__w00003" in keys and "d__r0__w00004" not in keys
    assert rows.groupby("patient_id")["split"].nunique().max() == 1
    arrays = load_record_file(record_path(out, "d__r0__w00003"))
    assert arrays["label"].tolist() == ["AFIB"] and arrays["annotated"].tolist() == ["N", "AFIB"]
    again = run_preprocessing(data, out, mapping=mapping, config=TIMED, execution=ONE)
    assert again.n_skipped == 3
    write_mapping(tmp_path, RHYTHM.replace("7.6", "10"))
    again = run_preprocessing(data, out, mapping=mapping, config=TIMED, execution=ONE)
    assert again.n_skipped == 2
    assert load_manifest(out).set_index("record_id").loc["r0__w00004", "labels"] == "AFIB"


def test_a_record_that_is_not_cut_takes_the_labels_of_what_is_kept(tmp_path: Path) -> None:
    data = DataConfig(roots={"d": str(bare_collection(tmp_path / "src", 1))})
    config = PreprocessConfig(fs=50.0, n_samples=250, window_labels="any")
    run_preprocessing(
        data, tmp_path / "o", mapping=write_mapping(tmp_path, RHYTHM), config=config, execution=ONE
    )
    row = load_manifest(tmp_path / "o").iloc[0]
    assert (row["labels"], row["label_cover"]) == ("N;AFIB", "N 0.7;AFIB 0.3")


@pytest.mark.parametrize("window_s", [0.0, 2.0])
def test_a_label_beyond_the_end_rejects_its_record(tmp_path: Path, window_s: float) -> None:
    data = DataConfig(roots={"d": str(bare_collection(tmp_path / "src", 2))})
    mapping = write_mapping(tmp_path, RHYTHM.replace("0,10", "0,10.5").replace("d,r2,MI,,,\n", ""))
    run_preprocessing(
        data,
        tmp_path / "out",
        mapping=mapping,
        config=replace(TIMED, window_s=window_s),
        execution=ONE,
    )
    rows = load_manifest(tmp_path / "out")
    rejected = rows[rows["status"] == "rejected"]
    assert rejected[["record_id", "reason"]].to_numpy().tolist() == [
        [
            "r1",
            "the label N from 0 s to 10.5 s of the label mapping lies beyond the record's end at "
            "10 s: expected seconds from its beginning",
        ]
    ]


def test_beats_need_a_rule_that_counts_them(tmp_path: Path) -> None:
    data = DataConfig(roots={"d": str(bare_collection(tmp_path / "src", 1))})
    beats = "dataset,record_id,mapped_label,start_s,end_s\nd,r0,N,1,1\nd,r0,V,2.5,2.5\n"
    mapping = write_mapping(tmp_path, beats)
    with pytest.raises(ValueError, match=r"d/r0: the label N from 1 s to 1 s has no length.*any"):
        run_preprocessing(data, tmp_path / "out", mapping=mapping, config=TIMED, execution=ONE)
    config = replace(TIMED, window_labels="count>=1")
    run_preprocessing(data, tmp_path / "out", mapping=mapping, config=config, execution=ONE)
    rows = load_manifest(tmp_path / "out")
    assert rows["labels"].tolist() == ["N", "V", "OTHER", "OTHER", "OTHER"]
    assert rows["label_cover"].tolist() == ["N x1", "V x1", "", "", ""]


def test_settings_of_window_labels_leave_earlier_hashes_as_they_were() -> None:
    # Written by the version before there were any.
    assert config_hash(PreprocessConfig(), 2) == "eb0a0eb10f328c47"
    assert config_hash(TIMED, 2) == "028704c163cafdd4"
    assert config_hash(replace(TIMED, min_cover=0.6), 2) != config_hash(TIMED, 2)
