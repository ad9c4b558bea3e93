from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from src.processed import files
from src.processed.files import FileBatch
from src.utils import remove_leftovers, temporary_path


def test_a_batch_shows_nothing_before_it_is_committed(tmp_path: Path) -> None:
    with FileBatch() as batch:
        for name in "abc":
            Path(batch.add(tmp_path / name)).write_text(name)
        batch.discard(2)
        assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".tmp-")]
        batch.commit()
        Path(batch.add(tmp_path / "d")).write_text("d")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_files_of_a_batch_get_their_names_when_the_disk_has_them(tmp_path: Path) -> None:
    with FileBatch() as batch:
        for name in "abcd":
            Path(batch.add(tmp_path / name)).write_text(name)
            batch.flush()
            assert len(batch) == 0 and not (tmp_path / name).exists()
        assert (tmp_path / "c").read_text() == "c"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a",
        "b",
        "c",
    ]  # what was not committed is gone


@pytest.mark.parametrize("at_once", [True, False])
def test_a_disk_that_fails_to_sync_keeps_names_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "_syncs_at_once", lambda _: at_once)
    monkeypatch.setattr(files, "sync_file_system" if at_once else "sync_path", fail)
    with pytest.raises(OSError, match="Input/output"), FileBatch() as batch:
        Path(batch.add(tmp_path / "a")).write_text("a")
        batch.commit()
    assert not list(tmp_path.iterdir())


def test_a_file_system_of_unknown_kind_syncs_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(files, "_LOCAL_FILE_SYSTEMS", set())
    monkeypatch.setattr(files, "sync_path", asked.append)
    files._is_local.cache_clear()
    with FileBatch() as batch:
        Path(batch.add(tmp_path / "a")).write_text("a")
        batch.commit()
    files._is_local.cache_clear()
    assert (
        len(asked) == 2 and asked[1] == str(tmp_path) and (tmp_path / "a").read_text() == "a"
    )  # the file, then its name


def test_a_batch_over_very_many_folders_holds_one_of_them_open(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(300)]
    for folder in folders:
        folder.mkdir()
    n_open = len(os.listdir("/proc/self/fd"))
    with FileBatch() as batch:
        for folder in folders:
            Path(batch.add(folder / "a")).touch()
        assert len(os.listdir("/proc/self/fd")) <= n_open + 1
        batch.commit()
    assert all((folder / "a").exists() for folder in folders)


def test_links_and_folders_are_not_replaced_by_a_record_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "folder").mkdir()
    with FileBatch() as batch:
        for name in ("link", "folder"):
            with pytest.raises(OSError, match="remove it"):
                batch.add(tmp_path / name)
    assert (tmp_path / "elsewhere").read_text() == "kept"


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    mine = temporary_path(tmp_path / "a.npz")
    dead = tmp_path / mine.name.replace(f"-{os.getpid()}-", "-4194303-")
    strange = [tmp_path / f".tmp-ffffff-1-0000000{i}.npz" for i in (0, 1)]
    for path in (mine, dead, *strange):
        path.touch()
    os.utime(strange[0], (1, 1))
    assert remove_leftovers([tmp_path, tmp_path / "none"]) == 2
    assert sorted(tmp_path.iterdir()) == sorted([mine, strange[1]])
