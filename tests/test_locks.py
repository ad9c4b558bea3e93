from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from crash_runs import start

from src.locks import lock_file, lock_folder
from src.utils import is_alive


def test_the_lock_file_says_who_holds_the_folder(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "new", "train"):
        holder = json.loads((tmp_path / "new" / ".lock").read_text())
    assert list(holder) == ["pid", "host", "since", "what"]
    assert holder["pid"] == os.getpid() and holder["host"] == platform.node()
    assert not (tmp_path / "new" / ".lock").exists()


def test_this_process_is_alive_and_an_ended_one_is_not() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert is_alive(os.getpid()) and not is_alive(process.pid)


def test_a_folder_that_is_held_can_be_waited_for(tmp_path: Path) -> None:
    done = threading.Event()

    def wait() -> None:
        with lock_folder(tmp_path, "second", wait=True):
            done.set()

    thread = threading.Thread(target=wait)
    with lock_folder(tmp_path, "first"):
        thread.start()
        assert not done.wait(0.3)
    thread.join(10)
    assert done.is_set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process")
def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with lock_folder(tmp_path, "parent"):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # until the parent has taken the lock again
            os._exit(0)
    with lock_folder(tmp_path, "again"):
        assert is_alive(child)
    os.close(writing)
    os.close(reading)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": "1"}'])
def test_a_lock_of_the_system_needs_no_readable_file(tmp_path: Path, content: str) -> None:
    with lock_folder(tmp_path, "first"):
        (tmp_path / ".lock").write_text(content)
        with (
            pytest.raises(RuntimeError, match="another process holds this folder; wait for it"),
            lock_folder(tmp_path, "second"),
        ):
            pass


def test_a_held_folder_is_refused_with_who_holds_it(tmp_path: Path) -> None:
    with lock_folder(tmp_path, "train"):
        process = start(hold_briefly, tmp_path, tmp_path / "said")
        process.join()
    said = (tmp_path / "said").read_text()
    assert (
        f"train runs here already, process {os.getpid()} on " in said
        and " since 20" in said
        and "wait for it" in said
    )
    hold_briefly(tmp_path, tmp_path / "said")
    assert (tmp_path / "said").read_text() == "held" and not (tmp_path / ".lock").exists()


def test_a_lock_file_that_names_nobody_is_left_alone_while_it_is_young(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may just be made, where a file system has no locks of its own."""
    import fcntl

    def none(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / ".lock").touch()
    with (
        pytest.raises(RuntimeError, match="another process holds this folder"),
        lock_folder(tmp_path, "again"),
    ):
        pass
    os.utime(tmp_path / ".lock", (0, 0))
    with lock_folder(tmp_path, "again"):
        pass
    assert not (tmp_path / ".lock").exists()


def hold_briefly(folder: Path, said: Path) -> None:
    try:
        with lock_folder(folder, "test"):
            said.write_text("held")
    except RuntimeError as error:
        said.write_text(str(error))


@pytest.mark.parametrize("system_locks", [True, False])
def test_the_lock_of_a_dead_process_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system_locks: bool
) -> None:
    process = start(die_holding, tmp_path)
    process.join()
    assert process.exitcode == 9 and (tmp_path / ".lock").exists()
    if not system_locks:  # as on a file system without them
        import fcntl

        def none(*args: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", none)
    with (
        lock_folder(tmp_path, "again"),
        pytest.raises(RuntimeError, match="again runs here already"),
        lock_folder(tmp_path, "twice"),
    ):
        pass
    assert not (tmp_path / ".lock").exists()


def die_holding(folder: Path) -> None:
    with lock_folder(folder, "first"):
        os._exit(9)


def test_a_file_has_a_lock_of_its_own_however_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to("table.csv")
    with (
        lock_file(tmp_path / "link.csv", "first") as target,
        lock_file(tmp_path / "other.csv", "of another table"),
        lock_folder(tmp_path, "a run"),
    ):
        assert target == tmp_path / "table.csv"
        names = {".table.csv.lock", ".other.csv.lock", ".lock", "link.csv"}
        assert {path.name for path in tmp_path.iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["link.csv"]


def test_a_lock_that_is_a_pipe_or_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    for make in (lambda path: path.symlink_to("victim"), os.mkfifo):
        make(tmp_path / ".lock")
        with pytest.raises(ValueError, match="expected a lock file"), lock_folder(tmp_path, "test"):
            pass
        (tmp_path / ".lock").unlink()
    assert (tmp_path / "victim").read_text() == "kept"
