"""Runs that are killed, out of disk, or lose their sources: nothing half-written is seen, and the
next run ends the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from crash_runs import (
    crash_after,
    descendants,
    forked,
    outputs,
    preprocess,
    require_whole,
    start,
    wait_until,
    write_collection,
)
from settings import QUICK

import src.preprocessing
from src.__main__ import main
from src.config import PreprocessConfig
from src.learning.checkpoints import load_checkpoint
from src.locks import lock_folder
from src.processed.manifest import Journal, load_manifest
from src.processed.npz import Archive
from src.processed.record_files import load_record_file
from src.processed.runs.tasks import RecordTask
from src.training import run_training
from src.utils import load_json

KILLS = int(os.environ.get("ECG_SOAK_KILLS", "10"))
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"
)


def memory_folder() -> Iterator[Path]:
    """A folder in memory where there is one: a kill is the same there, and syncing, which is
    counted here, costs nothing.
    """
    roomy = os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 8 * 2**30
    folder = Path(tempfile.mkdtemp(prefix="ecg-", dir="/dev/shm" if roomy else None))
    yield folder
    shutil.rmtree(folder)


tmp_path = pytest.fixture(memory_folder)
module_path = pytest.fixture(memory_folder, scope="module")


@pytest.fixture(scope="module")
def collection(module_path: Path) -> Path:
    return write_collection(module_path, 60)


@pytest.fixture(scope="module")
def whole(collection: Path) -> dict[str, bytes]:
    """What an uninterrupted run leaves."""
    preprocess(collection, collection / "whole")
    return outputs(collection / "whole")


# Killed -------------------------------------------------------------------------------------------


def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(
    collection: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    rng, out, kills = random.Random(4), tmp_path / "out", 0
    while kills < KILLS:
        options = {"workers": 2, "factory": partial(forked, 2)} if kills % 3 == 2 else {}
        process = start(preprocess, collection, out, **options)
        time.sleep(rng.uniform(0.0, 0.5))
        family = {process.pid} if rng.random() < 0.7 else descendants(process.pid) or {process.pid}
        kills += process.is_alive()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.join(20)
        process.kill()
        process.join()
        require_whole(out)
        if process.exitcode == 0:
            assert outputs(out) == whole
            shutil.rmtree(out)
    preprocess(collection, out)
    assert outputs(out) == whole


def test_a_crash_at_any_operation_on_the_disk_costs_nothing(tmp_path: Path) -> None:
    """Every sync, rename and removal in turn is the last thing that a run does."""
    root = write_collection(tmp_path, 6)
    preprocess(root, root / "whole")
    expected, step, exitcode = outputs(root / "whole"), 0, 9
    while exitcode == 9:
        process = start(crash_after, step, root, root / "out")
        process.join()
        exitcode = process.exitcode
        require_whole(root / "out")
        preprocess(root, root / "out")
        assert outputs(root / "out") == expected, f"after {step} operations"
        shutil.rmtree(root / "out")
        step += 1
    assert exitcode == 0 and step > 25


@pytest.mark.parametrize("step", range(3, 40, 4))
def test_a_crash_while_records_are_made_anew_leaves_no_manifest_that_lies(
    tmp_path: Path, step: int
) -> None:
    """Files of new settings may be there, but the manifest then vouches for none of them."""
    root, other = write_collection(tmp_path, 6), PreprocessConfig(fs=50.0, n_samples=500)
    for out in ("out", "whole"):
        preprocess(root, root / out)
    preprocess(root, root / "whole", config=other)
    process = start(crash_after, step, root, root / "out", config=other)
    process.join()
    manifest = load_manifest(root / "out")
    for record_id, config_hash in manifest.loc[
        manifest["status"] == "ok", ["record_id", "config_hash"]
    ].to_numpy():
        assert (
            str(load_record_file(root / "out" / "records" / f"d__{record_id}.npz")["config_hash"])
            == config_hash
        )
    preprocess(root, root / "out", config=other)
    assert outputs(root / "out") == outputs(root / "whole")


@needs_proc
def test_workers_killed_again_and_again_cost_no_record(
    collection: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out, rng = tmp_path / "out", random.Random(1)
    process = start(
        preprocess, collection, out, workers=2, chunk_size=2
    )  # real workers, started anew each time
    for _ in range(max(2, KILLS // 5)):
        wait_until(lambda: len(descendants(process.pid)) >= 2 or not process.is_alive())
        time.sleep(rng.uniform(0.0, 0.8))
        workers = [
            pid
            for pid in descendants(process.pid)
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        if workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
    process.join(60)
    assert process.exitcode == 0 and outputs(out) == whole


@needs_proc
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_takes_its_workers_with_it(tmp_path: Path, how: signal.Signals) -> None:
    root = write_collection(tmp_path, 400)
    arguments = [
        "preprocess",
        "--data",
        f"d={root / 'src'}",
        "--out",
        str(root / "out"),
        "--fs",
        "100",
        "--n-samples",
        "500",
    ]
    process = start(
        run_command, [*arguments, "--workers", "2", "--chunk-size", "1"], tmp_path / "stderr"
    )
    wait_until(Journal(root / "out").path.exists)
    family = descendants(process.pid)
    assert len(family) >= 2
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does, and an interrupted notebook cell
    else:
        os.kill(process.pid, how)
    process.join(10)
    assert process.exitcode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[how]
    wait_until(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in family), 5.0)
    if how is not signal.SIGKILL:
        word = "terminated" if how is signal.SIGTERM else "interrupted"
        assert (tmp_path / "stderr").read_text().splitlines()[
            -1
        ] == f"{word}; run the same command again to resume"
        assert "Traceback" not in (tmp_path / "stderr").read_text()


def run_command(arguments: list[str], stderr: Path) -> None:
    """Run the command line with the standard error in a file."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # what runs in a shell's background, as the tests may, ignores it
    handle = os.open(stderr, os.O_CREAT | os.O_WRONLY)
    os.dup2(handle, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.exit(main(arguments))


def test_a_record_that_kills_its_readers_is_listed_and_the_others_are_done(tmp_path: Path) -> None:
    root = write_collection(tmp_path, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(src.preprocessing, "process_chunk", die_on_r3)
        preprocess(root, root / "out", workers=2, factory=partial(forked, 2))
    manifest = load_manifest(root / "out").set_index("record_id")
    assert (
        manifest.loc["r3", "status"] == "unreadable"
        and "two worker processes" in manifest.loc["r3", "reason"]
    )
    assert (manifest.drop(["r3", "absent"])["status"] == "ok").all()
    preprocess(root, root / "out")  # a later run tries it again
    preprocess(root, root / "whole")
    assert (
        load_manifest(root / "out")["status"].tolist()
        == load_manifest(root / "whole")["status"].tolist()
    )


real_chunk = src.preprocessing.process_chunk


def die_on_r3(tasks: list[RecordTask], *args: object, **options: object) -> object:
    if any(task.record_id == "r3" for task in tasks):
        os.kill(os.getpid(), signal.SIGKILL)
    return real_chunk(tasks, *args, **options)


# Training -----------------------------------------------------------------------------------------


def test_training_killed_at_random_moments_ends_bit_for_bit_the_same(
    processed: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        QUICK, train=dataclasses.replace(QUICK.train, epochs=5, ema_decay=0.9, crop_s=5.0)
    )
    train = partial(run_training, config, processed)
    began = time.monotonic()
    start(train, tmp_path / "whole").join()
    rng, duration, kills = random.Random(2), time.monotonic() - began, 0
    while (
        not (tmp_path / "out" / "training_log.json").exists()
        or load_json(tmp_path / "out" / "training_log.json")["stopped"] != "finished"
    ):
        process = start(train, tmp_path / "out", resume=True)
        process.join(rng.uniform(0.3, 1.0) * duration if kills < KILLS // 2 else None)
        kills += process.is_alive()
        process.kill()
        process.join()
    for name in ("latest.pth", "best.pth"):
        one, other = (load_checkpoint(tmp_path / run / "models" / name) for run in ("whole", "out"))
        assert one.card == other.card and all(
            torch.equal(one.weights[key], other.weights[key]) for key in one.weights
        )
    one, other = (load_json(tmp_path / run / "training_log.json") for run in ("whole", "out"))
    for log in (one, other):
        log["history"] = [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in log["history"]
        ]
        del log["created"]
    assert one == other and not list((tmp_path / "out").rglob(".tmp-*"))


def test_a_resumed_run_mends_what_the_end_left_between_its_files(
    processed: Path, tmp_path: Path
) -> None:
    run_training(QUICK, processed, tmp_path)
    best = load_checkpoint(tmp_path / "models" / "best.pth")
    (tmp_path / "training_log.json").unlink()
    if best.state["epoch"] == 2:
        (tmp_path / "models" / "best.pth").unlink()
    run_training(QUICK, processed, tmp_path, resume=True)
    mended = load_checkpoint(tmp_path / "models" / "best.pth")
    assert all(torch.equal(best.weights[name], mended.weights[name]) for name in best.weights)
    assert load_json(tmp_path / "training_log.json")["stopped"] == "finished"


# Disk and sources ---------------------------------------------------------------------------------


def test_a_full_disk_ends_the_run_with_the_reason_and_the_next_goes_on(
    collection: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [25]

    write = Archive.write

    def full(archive: Archive, path: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            Path(path).write_bytes(b"PK")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(archive, path)

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "write", full)
        with pytest.raises(
            OSError,
            match=r"No space left on device; fix this and run the same command again: "
            r"'.*records/d__r\d+\.npz'",
        ):
            preprocess(collection, tmp_path / "out")
    require_whole(tmp_path / "out")
    assert not list(tmp_path.rglob(".tmp-*"))
    preprocess(collection, tmp_path / "out")
    assert outputs(tmp_path / "out") == whole


def test_files_that_may_not_grow_end_the_run_too(
    collection: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """The system itself refuses to write on, here in the journal."""
    process = start(with_small_files, collection, tmp_path / "out")
    process.join()
    assert process.exitcode == 1
    preprocess(collection, tmp_path / "out")
    assert outputs(tmp_path / "out") == whole


def with_small_files(root: Path, out: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
    preprocess(root, out)


def test_a_folder_that_cannot_be_written_is_named(
    collection: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/proc/version").exists():
        pytest.skip("needs a folder that even the administrator cannot write into")
    assert main(["preprocess", "--data", f"d={collection / 'src'}", "--out", "/proc/ecg"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and "/proc/ecg" in last


def test_a_vanished_collection_ends_the_run_and_the_next_ends_the_same(
    collection: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]

    def vanish(tasks: list[RecordTask], *args: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] == 4:
            (collection / "src").rename(collection / "away")
            (collection / "src").mkdir()  # where a removed mount leaves an empty folder
        return real_chunk(tasks, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(src.preprocessing, "process_chunk", vanish)
        with pytest.raises(
            OSError, match=r"the folder is gone, or is another one now; bring it back .*src"
        ):
            preprocess(collection, tmp_path / "out")
    (collection / "src").rmdir()
    (collection / "away").rename(collection / "src")
    assert len(Journal(tmp_path / "out").load()) == 12
    preprocess(collection, tmp_path / "out")
    assert outputs(tmp_path / "out") == whole


def test_a_file_that_vanishes_is_a_row_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_collection(tmp_path, 6)

    def lose(tasks: list[RecordTask], *args: object, **options: object) -> object:
        (root / "src" / "r5.hea").rename(root / "r5.hea") if (
            root / "src" / "r5.hea"
        ).exists() else None
        return real_chunk(tasks, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(src.preprocessing, "process_chunk", lose)
        preprocess(root, root / "out")
    row = load_manifest(root / "out").set_index("record_id").loc["r5"]
    assert row["status"] == "unreadable" and "no such record" in row["reason"]
    (root / "r5.hea").rename(root / "src" / "r5.hea")
    preprocess(root, root / "out")
    assert load_manifest(root / "out").set_index("record_id").loc["r5", "status"] == "ok"


# Two runs -----------------------------------------------------------------------------------------


def test_two_runs_on_one_folder(collection: Path, processed: Path, tmp_path: Path) -> None:
    with (
        lock_folder(tmp_path, "preprocess"),
        pytest.raises(RuntimeError, match="preprocess runs here already"),
    ):
        preprocess(collection, tmp_path)
    with (
        lock_folder(tmp_path, "train"),
        pytest.raises(RuntimeError, match="train runs here already"),
    ):
        run_training(QUICK, processed, tmp_path)


# In a notebook ------------------------------------------------------------------------------------


@needs_proc
@pytest.mark.slow
def test_an_interrupted_cell_stops_its_workers_and_can_be_run_again(tmp_path: Path) -> None:
    from jupyter_client.manager import KernelManager

    root = write_collection(tmp_path, 600)
    cell = (
        "from src.config import *\nfrom src.preprocessing import run_preprocessing\n"
        f"run_preprocessing(DataConfig({{'d': {str(root / 'src')!r}}}), "
        f"{str(root / 'out')!r}, config=PreprocessConfig(fs=100.0, n_samples=500),"
        " execution=ExecutionConfig(workers=2, chunk_size=1)).by_status"
    )
    manager = KernelManager()
    manager.start_kernel(cwd=str(Path(__file__).parent.parent))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        asked = client.execute(cell)
        wait_until(Journal(root / "out").path.exists, 60)
        manager.interrupt_kernel()
        message = client.get_shell_msg(timeout=20)
        while (
            message["parent_header"]["msg_id"] != asked
        ):  # a busy kernel answers late what it was asked when it started
            message = client.get_shell_msg(timeout=20)
        assert message["content"].get("ename") == "KeyboardInterrupt"
        kernel = manager.provisioner.pid  # type: ignore[union-attr]
        wait_until(
            lambda: not any(b"spawn_main" in _command_line(pid) for pid in descendants(kernel)), 5.0
        )
        require_whole(root / "out")
        reply = client.execute(cell, reply=True, timeout=120)["content"]
        assert (
            reply["status"] == "ok" and (load_manifest(root / "out")["status"] == "ok").sum() > 500
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
