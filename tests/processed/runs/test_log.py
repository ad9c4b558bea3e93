from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from crash_runs import write_collection
from settings import QUICK, SMALL

from src.__main__ import main
from src.config import DataConfig, ExecutionConfig
from src.preprocessing import run_preprocessing
from src.processed.runs import log
from src.processed.runs.log import Progress, environment, log_run
from src.training import run_training


def logs(out: Path) -> list[list[str]]:
    return [path.read_text().splitlines() for path in sorted((out / "logs").glob("*.log"))]


def test_the_log_of_a_preprocessing_run_holds_its_settings_and_its_outcome(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_collection(tmp_path, 40)
    with caplog.at_level(logging.INFO):
        run_preprocessing(
            DataConfig({"d": str(root / "src")}),
            tmp_path / "out",
            mapping=root / "m.csv",
            config=SMALL,
            execution=ExecutionConfig(workers=1),
        )
    (lines,) = logs(tmp_path / "out")
    head, tail = json.loads(lines[0]), json.loads(lines[-1])
    assert head["run"] == tail["run"] and head["run"].startswith("preprocess-20")
    assert head["configuration"]["preprocess"]["fs"] == 100 and head["configuration"]["data"][
        "roots"
    ] == {"d": str(root / "src")}
    assert (
        head["environment"]["packages"]["numpy"] and head["environment"]["python"] and head["pid"]
    )
    assert (tail["outcome"], tail["n_records"], tail["by_status"]) == (
        "done",
        41,
        {"ok": 38, "unreadable": 2, "missing": 1},
    )
    assert (
        tail["records_per_s"] > 0
        and tail["seconds"] > 0
        and sum(tail["reasons"].values()) == 3
        and len(tail["reasons"]) <= 10
    )
    assert any("41 records: " in line for line in lines[1:-1])


def test_a_run_that_fails_says_so_in_its_log(tmp_path: Path) -> None:
    for error, outcome in (
        (ValueError("a\nb"), "failed: ValueError: a\\nb"),
        (KeyboardInterrupt(), "interrupted"),
    ):
        with pytest.raises(type(error)), log_run(tmp_path / outcome[:4], "test", {}):
            raise error
        (lines,) = logs(tmp_path / outcome[:4])
        assert json.loads(lines[-1])["outcome"] == outcome
    assert not [
        handler
        for handler in logging.getLogger("src").handlers
        if isinstance(handler, logging.StreamHandler)
    ]


def test_a_training_run_leaves_its_log(processed: Path, tmp_path: Path) -> None:
    result = run_training(QUICK, processed, tmp_path)
    (lines,) = logs(tmp_path)
    head, tail = json.loads(lines[0]), json.loads(lines[-1])
    assert head["configuration"]["train"]["epochs"] == 2 and tail["outcome"] == "done"
    assert (
        tail["epochs"] == 2
        and tail["best_epoch"] == result.best_epoch
        and tail["records"]["train"] > 0
        and tail["records_per_s"] > 0
    )


def test_progress_tells_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    monkeypatch.setitem(
        sys.modules, "ipykernel", ModuleType("ipykernel")
    )  # imported, as by a library, but not running
    with caplog.at_level(logging.INFO, logger="src"), Progress(1000, "preprocess") as progress:
        for _ in range(8):
            now[0] += 5
            progress.update(50)
    assert caplog.messages == [
        "preprocess: 100 of 1000 records, 10/s, 2 min left",
        "preprocess: 400 of 1000 records, 10/s, 60 s left",
    ]


def test_too_many_failures_end_the_command_after_everything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_collection(tmp_path, 40)
    arguments = [
        "preprocess",
        "--data",
        f"d={root / 'src'}",
        "--mapping",
        str(root / "m.csv"),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "1",
        "--fs",
        "100",
        "--n-samples",
        "1000",
    ]
    assert main([*arguments, "--max-failed", "0.05"]) == 1
    assert (
        "7.3% of 41 records failed, max_failed allows 5.0%; most often (2 x): holds 24 "
        "samples of 2 leads"
    ) in capsys.readouterr().err
    assert (tmp_path / "out" / "splits.json").exists() and not (
        tmp_path / "out" / "manifest.partial.jsonl"
    ).exists()
    assert main([*arguments, "--max-failed", "0.08"]) == 0
    assert main([*arguments, "--max-failed", "2"]) == 2


# Environment --------------------------------------------------------------------------------------


def test_environment_names_versions() -> None:
    facts = environment()
    assert (facts["packages"]["torch"] or "").startswith("2.") and facts["version"]
    assert facts == environment() and len(facts["source"]) == 16


def test_the_source_hash_covers_all_modules_of_src(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (log._SOURCE_FOLDER / "utils.py").is_file()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(log, "_SOURCE_FOLDER", tmp_path)
    before = environment()["source"]
    (tmp_path / "inner" / "a.py").write_text("x = 2\n")
    assert environment()["source"] != before


@pytest.mark.parametrize("place", ["folder", "packed", "detached", "worktree", "none", "broken"])
def test_the_commit_is_read_without_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    commit, root = "a" * 40, tmp_path / "project"
    git = root / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text(f"{commit}\n" if place == "detached" else "ref: refs/heads/main\n")
    if place == "packed":
        (git / "packed-refs").write_text(
            f"# pack-refs with: peeled\n{'b' * 40} refs/heads/xrefs/heads/main\n{commit} "
            "refs/heads/main\n"
        )
    elif place in ("folder", "worktree"):
        (git / "refs" / "heads" / "main").write_text(commit + "\n")
    if place == "worktree":
        inner = git / "worktrees" / "w"
        inner.mkdir(parents=True)
        (inner / "HEAD").write_text("ref: refs/heads/main\n")
        (inner / "commondir").write_text("../..\n")
        root = tmp_path / "w"
        root.mkdir()
        (root / ".git").write_text(f"gitdir: {inner}\n")
    elif place == "none":
        root = tmp_path
    elif place == "broken":
        (git / "HEAD").write_bytes(b"\xff\xfe")
    monkeypatch.setattr(log, "CODE_ROOT", root)
    assert environment()["commit"] == (None if place in ("none", "broken") else commit)
