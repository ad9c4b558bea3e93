from __future__ import annotations

from collections import Counter
from pathlib import Path

import bad_records
import numpy as np
import pytest
from bad_records import BAD
from settings import SMALL

from src.commands.dry_run import CheckReport, DatasetCheck, check_datasets
from src.config import DataConfig, ExecutionConfig, PreprocessConfig
from src.preprocessing import run_preprocessing
from src.processed.manifest import load_manifest
from src.processed.record_files import record_key, record_path
from src.records.sample_collections import SampleData


def state_of(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    paths = [path for folder in folders for path in [folder, *folder.rglob("*")]]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def test_a_dry_run_writes_nothing(
    sample: SampleData, sample_roots: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state_of(tmp_path, sample.mapping.parent)
    check_datasets(sample_roots, sample.mapping, SMALL, n_probe=2)
    assert state_of(tmp_path, sample.mapping.parent) == before


def test_the_report_says_what_is_there(sample: SampleData, sample_roots: DataConfig) -> None:
    report = check_datasets(
        sample_roots, sample.mapping, SMALL, ExecutionConfig(workers=2), n_probe=4
    )
    assert report.ok and not report.unmatched
    wfdb, challenge, _ = report.datasets
    assert (wfdb.name, wfdb.n_records, wfdb.n_labelled, wfdb.n_probed) == (
        "synthetic_wfdb",
        12,
        12,
        4,
    )
    assert [check.formats for check in report.datasets] == [
        {".hea": 12},
        {".hea": 12},
        {".mat": 12},
    ]
    assert [check.rates for check in report.datasets] == [
        {"500 Hz": 4},
        {"1000 Hz": 4},
        {"257 Hz": 4},
    ]
    assert wfdb.leads == {"I II III aVR aVL aVF V1 V2 V3 V4 V5 V6": 4} and len(challenge.leads) > 1
    assert sum(report.labels.values()) == 36 and report.labels["NORM"] == 4
    text = str(report)
    assert f"synthetic_wfdb: 12 records in {sample.data['synthetic_wfdb']}, 12 with a label" in text
    assert "  rates: 257 Hz (4)" in text and "with 2 workers" in text


def test_rows_without_a_file_are_named(
    sample: SampleData, sample_roots: DataConfig, tmp_path: Path
) -> None:
    mapping = tmp_path / "mapping.csv"
    rows = "".join(f"synthetic_wfdb,lost{i:02d},NORM\n" for i in range(12))
    mapping.write_text(
        f"dataset,record_id,mapped_label\nsynthetic_wfdb,sw00001,AF\nelsewhere,x,AF\n{rows}"
    )
    report = check_datasets(sample_roots, mapping, SMALL, n_probe=1)
    assert len(report.unmatched) == 12, "rows of a collection that is not named are no matter"
    assert report.unmatched[0] == "synthetic_wfdb/lost00: no file of this name in the folder"
    assert report.datasets[0].n_labelled == 1 and report.labels == {"AF": 1}
    assert "12 rows of the mapping have no file:" in str(report) and "... and 2 more" in str(report)
    assert (
        f"{len(report.unlabelled)} records have no row of the mapping:" in str(report)
        and "synthetic_wfdb/sw00001" not in report.unlabelled
    )


def test_problems_are_counted_by_what_is_wrong(tmp_path: Path) -> None:
    for write, _, _ in BAD.values():
        write(tmp_path)
    bad_records.good(tmp_path)
    report = check_datasets(DataConfig({"mine": str(tmp_path)}), config=SMALL)
    check = report.datasets[0]
    assert not report.ok and check.n_probed == len(BAD) + 1 and check.problems.total() == len(BAD)
    for _, _, reason in BAD.values():
        assert any(reason in problem for problem in check.problems), reason
    assert "  problem in 1 of 11 probed: header is empty" in str(report)


def test_an_empty_folder_is_not_ok(tmp_path: Path) -> None:
    report = check_datasets(DataConfig({"mine": str(tmp_path)}))
    assert not report.ok and "mine: 0 records" in str(report)
    with pytest.raises(ValueError, match="no such folder"):
        check_datasets(DataConfig({"mine": str(tmp_path / "none")}))


def test_estimates_grow_with_the_collection() -> None:
    check = DatasetCheck(
        "a", "/a", n_records=1000, n_labelled=0, n_probed=4, seconds=2.0, n_bytes=600_000
    )
    check.problems["broken"] = 1
    assert check.estimated_seconds == 500
    assert check.estimated_bytes == 200_000_000
    assert str(CheckReport((check,), (), (), Counter(), workers=2)).endswith(
        "estimate: 4 min with 2 workers, 200.0 MB of record files"
    )
    assert DatasetCheck("a", "/a", 1000, 0).estimated_bytes == 0


def test_the_estimate_of_space_is_what_a_run_takes(
    sample: SampleData, sample_roots: DataConfig, processed: Path
) -> None:
    report = check_datasets(sample_roots, sample.mapping, SMALL, n_probe=4)
    manifest = load_manifest(processed)
    keys = map(record_key, manifest["dataset"], manifest["record_id"])
    taken = sum(record_path(processed, key).stat().st_size for key in keys)
    assert sum(check.estimated_bytes for check in report.datasets) == pytest.approx(taken, rel=0.2)


def test_lengths_are_reported_and_what_is_cut_away(tmp_path: Path) -> None:
    for name, seconds in (("a", 2), ("b", 10), ("c", 30)):
        samples = np.zeros((seconds * 100, 2), "<i2")
        samples[::7] = 100
        (tmp_path / f"{name}.dat").write_bytes(samples.tobytes())
        lines = "".join(f"{name}.dat 16 200/mV 16 0 0 0 0 {lead}\n" for lead in ("I", "II"))
        (tmp_path / f"{name}.hea").write_text(f"{name} 2 100 {len(samples)}\n{lines}")
    config = PreprocessConfig(fs=50, n_samples=500)
    report = check_datasets(DataConfig({"mine": str(tmp_path)}), config=config)
    assert (
        "lengths: 2 s at least, median 10 s, 30 s at most; 1 of 3 probed are longer than the "
        "10 s kept"
    ) in str(report)
    assert "1 of 3 probed are longer" in report._repr_html_()


def test_files_passed_over_are_listed_with_their_reason(tmp_path: Path) -> None:
    bad_records.good(tmp_path)
    (tmp_path / "p.xml").write_text("<MeasurementRecord/>")
    (tmp_path / "q.xml").write_text("<MeasurementRecord/>")
    (tmp_path / "README.txt").write_text("words")
    mapping = tmp_path / "mapping.csv"
    mapping.write_text("dataset,record_id,mapped_label\nmine,p,AF\nmine,lost,AF\n")
    report = check_datasets(DataConfig({"mine": str(tmp_path)}), mapping, SMALL)
    text = str(report)
    assert "  passed over: 2 files that are no records" in text
    assert "    p.xml and 1 more: is Schiller XML (root element MeasurementRecord)" in text
    assert len(report.unmatched) == 1 and report.unread[0].startswith("mine/p: is Schiller XML")
    assert "1 rows of the mapping name a file that is not read:" in text
    assert "Schiller" in report._repr_html_()

    run_preprocessing(
        DataConfig({"mine": str(tmp_path)}), tmp_path / "out", mapping=mapping, config=SMALL
    )
    manifest = load_manifest(tmp_path / "out").set_index("record_id")
    assert manifest["status"].to_dict() == {
        "good": "ok",
        "lost": "missing",
        "p": "unreadable",
        "q": "unreadable",
    }
    assert manifest.loc["p", "labels"] == "AF" and "Schiller" in manifest.loc["q", "reason"]


def test_windows_are_counted_by_label(tmp_path: Path) -> None:
    np.zeros((1000, 1), "<i2").tofile(tmp_path / "r.dat")
    (tmp_path / "r.hea").write_text("r 1 100 1000\nr.dat 16 100/mV 16 0 0 0 0 II\n")
    text = "dataset,record_id,mapped_label,start_s,end_s\nd,r,N,0,4.5\nd,r,AFIB,4.5,8\n"
    (tmp_path / "m.csv").write_text(text)
    data = DataConfig(roots={"d": str(tmp_path)})
    config = PreprocessConfig(fs=100.0, n_samples=200, window_s=2.0)
    report = check_datasets(data, tmp_path / "m.csv", config)
    assert report.datasets[0].windows == {"N": 2, "AFIB": 2, "not annotated": 1}
    assert "windows by label: N (2), AFIB (2), not annotated (1)" in str(report)
    (tmp_path / "m.csv").write_text(text.replace(",8\n", ",80\n"))
    report = check_datasets(data, tmp_path / "m.csv", config)
    assert "rejected, as in r: the label AFIB from 4.5 s to 80 s" in str(report)
