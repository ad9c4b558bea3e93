"""The same results in odd places: strange folder names, other locales and time zones, one core, no
shared memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from crash_runs import outputs, preprocess, start, write_collection
from settings import QUICK, SMALL

from src.__main__ import main
from src.commands.predict_files import predict_to_table
from src.config import DataConfig, ExecutionConfig
from src.eval import evaluate
from src.preprocessing import run_preprocessing
from src.processed.manifest import load_manifest
from src.records.folders import index_folder
from src.records.reading import read_record
from src.training import run_training

ROOT = Path(__file__).resolve().parent.parent
ODD = ("a b", 'it\'s "x"', "Ärzte 心電図", "$HOME;&(1)[2]{3}*", "%20#?", "l" * 200)


@pytest.mark.parametrize("name", ODD)
def test_folders_of_any_name(tmp_path: Path, name: str) -> None:
    root = write_collection(tmp_path / name, 24)
    run_preprocessing(
        DataConfig({"d": str(root / "src")}),
        root / "out",
        mapping=root / "m.csv",
        config=SMALL,
        execution=ExecutionConfig(workers=1),
    )
    assert (load_manifest(root / "out")["status"] == "ok").sum() == 23
    if name not in (ODD[2], ODD[3]):
        return
    run_training(QUICK, root / "out", root / "run")
    evaluate(root / "run" / "models" / "best.pth", root / "out", split="val", out=root / "run")
    predict_to_table(
        root / "run" / "models" / "best.pth", [root / "src"], root / "p.csv", predict_unfit=True
    )
    assert len((root / "p.csv").read_text(encoding="utf-8").splitlines()) == 25


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\n"])
def test_headers_of_any_system(tmp_path: Path, ending: str) -> None:
    (tmp_path / "REC1.DAT").write_bytes(bytes(400))
    text = "\ufeffrec1 1 100 200\nrec1.dat 16 100/mV 16 0 0 0 0 II\n#Age: 50\n"
    (tmp_path / "REC1.HEA").write_bytes(text.replace("\n", ending).encode())
    (found,) = index_folder(tmp_path)
    record = read_record(tmp_path / found.relative)
    assert (record.record_id, record.leads, record.age) == ("REC1", ("II",), 50.0)
    assert read_record(tmp_path / "REC1").n_samples == 200


ENVIRONMENTS = (
    {
        "LC_ALL": "C",
        "TZ": "Pacific/Kiritimati",
        "PYTHONHASHSEED": "1",
        "PYTHONIOENCODING": "ascii",
        "COLUMNS": "20",
        "HOME": "/nonexistent",
    },
    {
        "LC_ALL": "tr_TR.UTF-8",
        "LANG": "de_DE",
        "TZ": "America/St_Johns",
        "PYTHONHASHSEED": "4242",
        "PYTHONWARNINGS": "error",
    },
)


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=["C", "tr"])
def test_locale_time_zone_and_hash_seed_change_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    root = write_collection(tmp_path, 20)
    for suffix in (".hea", ".dat"):
        shutil.copy(root / "src" / f"r0{suffix}", root / "src" / f"ÄÖ{suffix}")
    preprocess(root, root / "whole")
    command = [
        "preprocess",
        "--data",
        f"d={root / 'src'}",
        "--mapping",
        str(root / "m.csv"),
        "--out",
        str(root / "out"),
        "--workers",
        "1",
        "--fs",
        "100",
        "--n-samples",
        "500",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "src", *command],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert outputs(root / "out") == outputs(root / "whole") and b"Traceback" not in done.stderr


def test_a_script_without_a_guard_starts_its_workers_once(tmp_path: Path) -> None:
    """Processes that are spawned would otherwise run the script again, each of them."""
    root = write_collection(tmp_path, 12)
    script = root / "script.py"
    script.write_text(
        "import sys\nfrom src.config import DataConfig, ExecutionConfig\nfrom "
        "src.preprocessing import run_preprocessing\n"
        f"print('started')\nrun_preprocessing(DataConfig({{'d': {str(root / 'src')!r}}}), "
        f"{str(root / 'out')!r}, execution=ExecutionConfig(workers=2))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and done.stdout == "started\n" and "Traceback" not in done.stderr
    assert (load_manifest(root / "out")["status"] == "ok").all()


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="needs a system that can be held to one core"
)
def test_one_core(tmp_path: Path) -> None:
    root = write_collection(tmp_path, 6)
    process = start(preprocess_on_one_core, root)
    process.join()
    preprocess(root, root / "whole")
    assert process.exitcode == 0 and outputs(root / "out") == outputs(root / "whole")


def preprocess_on_one_core(root: Path) -> None:
    from src.utils import available_cores

    os.sched_setaffinity(0, {next(iter(os.sched_getaffinity(0)))})
    assert available_cores() == 1
    preprocess(root, root / "out", workers=0)


def test_no_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without it there are no semaphores, and so no pool."""
    import multiprocessing.synchronize

    def none(*arguments: object, **options: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", none)
    root = write_collection(tmp_path, 6)
    preprocess(root, root / "out", workers=2)
    assert "is /dev/shm missing?" in caplog.text
    monkeypatch.undo()
    preprocess(root, root / "whole")
    assert outputs(root / "out") == outputs(root / "whole")


def test_nothing_is_written_into_the_project(tmp_path: Path) -> None:
    write_collection(tmp_path, 24)
    process = start(work_and_watch, tmp_path)
    process.join()
    assert process.exitcode == 0


def work_and_watch(root: Path) -> None:
    """End with 7 when a file of the project is opened for writing."""

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if (
            event == "open"
            and isinstance(arguments[0], str)
            and arguments[0].startswith(f"{ROOT}/")
        ):
            writing = any(letter in str(arguments[1]) for letter in "wax+") or (
                isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            )
            if writing and "__pycache__" not in arguments[0]:
                os._exit(7)
        elif event in ("os.mkdir", "os.rename", "os.remove") and str(arguments[0]).startswith(
            f"{ROOT}/"
        ):
            os._exit(8)

    sys.addaudithook(watch)
    run_preprocessing(
        DataConfig({"d": str(root / "src")}),
        root / "out",
        mapping=root / "m.csv",
        config=SMALL,
        execution=ExecutionConfig(workers=1),
    )
    run_training(QUICK, root / "out", root / "run")
    predict_to_table(
        root / "run" / "models" / "best.pth",
        [root / "src" / "r0.hea"],
        root / "p.csv",
        predict_unfit=True,
    )


def test_relative_paths_and_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_collection(tmp_path, 6)
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            [
                "preprocess",
                "--data",
                "d=src",
                "--out",
                "out",
                "--workers",
                "1",
                "--fs",
                "100",
                "--n-samples",
                "500",
            ]
        )
        == 0
    )
    assert (tmp_path / "out" / "splits.json").exists()
