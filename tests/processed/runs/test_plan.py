from __future__ import annotations

import errno
from pathlib import Path

import pytest

from src.config import DataConfig, PreprocessConfig
from src.processed.manifest import ManifestRow
from src.processed.runs.plan import SourceFolders, choose_evenly, plan_run
from src.processed.runs.tasks import RecordTask
from src.utils import UsageError


def tasks(dataset: str, n: int) -> list[RecordTask]:
    return [RecordTask(dataset, f"r{i}", f"/{dataset}/r{i}.hea") for i in range(n)]


def test_tasks_are_chosen_evenly_over_and_within_datasets() -> None:
    chosen = choose_evenly(tasks("large", 100) + tasks("small", 2), 6)
    assert [task.key for task in chosen] == [
        "small__r0",
        "small__r1",
        "large__r0",
        "large__r25",
        "large__r50",
        "large__r75",
    ]
    assert choose_evenly([], 3) == ()


def test_all_problems_of_the_data_settings_are_in_one_error(tmp_path: Path) -> None:
    data = DataConfig(
        roots={"a/b": str(tmp_path / "1"), "x": str(tmp_path), "X": str(tmp_path)},
        source_fs={"y": 500.0},
        source_gain_per_mv={"x": 0.0},
    )
    with pytest.raises(UsageError) as error:
        plan_run(data, None, PreprocessConfig())
    assert str(error.value).split("; ") == [
        "'a/b' is no plain dataset name: expected one without slashes, ':' or '__'",
        "dataset 'x' differs from another in case only",
        "dataset 'X' differs from another in case only",
        f"datasets 'x' and 'X' are the same folder {tmp_path}",
        "--source-fs names 'y', which no --data names",
        "--source-gain x=0.0: expected a positive number",
    ]


def test_an_unreadable_record_in_an_existing_folder_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "other.hea").touch()
    row = ManifestRow("d", "r", source_path=str(tmp_path / "r.hea"), status="unreadable")
    SourceFolders({"d": str(tmp_path)}).require([row])


def test_a_vanished_folder_stops_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    sources = SourceFolders({"d": str(folder)})
    folder.rmdir()
    row = ManifestRow("d", "r", source_path=str(folder / "r.hea"), status="unreadable")
    with pytest.raises(OSError, match="the folder is gone") as error:
        sources.require([row])
    assert error.value.errno == errno.ENOENT and error.value.filename == str(folder)
