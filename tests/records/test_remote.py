"""Collections and processed folders behind URLs give what local ones give; S3 is a server of our
own on this machine.
"""

from __future__ import annotations

import csv
import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
from crash_runs import CONFIG, write_collection
from settings import QUICK, SMALL

from src import preprocessing
from src.__main__ import main
from src.commands.dry_run import check_datasets
from src.commands.predict_files import find_record_files, predict_to_table
from src.config import DataConfig, ExecutionConfig
from src.preprocessing import run_preprocessing
from src.processed.manifest import ManifestRow, load_manifest
from src.processed.mirror import TABLES, local_copy
from src.processed.runs.staging import open_stage
from src.processed.runs.tasks import RecordTask
from src.processed.splits import load_splits
from src.records import remote
from src.records.fetching import fetched_records
from src.records.folders import index_folder
from src.records.remote import RemoteFolder, cache_folder, is_safe, join_root
from src.training import run_training
from src.utils import as_path, as_url

ONE = ExecutionConfig(workers=1, chunk_size=4)
BY_PLACE = ["source_path", "input_hash"]  # what depends on where the records are


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def store() -> Iterator[str]:
    """A store in this process."""
    yield "memory://box"
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("s3fs") is None:
        pytest.skip("moto and s3fs are not installed (requirements-dev.txt)")
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    ).create_bucket(Bucket="box")
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of the server; the endpoint and the keys are given as users give them."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return "s3://box"


def put(local: Path, url: str) -> None:
    files = [
        (path, path.relative_to(local).as_posix()) for path in local.rglob("*") if path.is_file()
    ]
    RemoteFolder(url).upload(files)


def run(
    roots: dict[str, str], out: str | Path, mapping: Path | None = None, **options: object
) -> object:
    return run_preprocessing(
        DataConfig(roots), out, mapping=mapping, config=CONFIG, execution=ONE, **options
    )  # type: ignore[arg-type]


def require_same(local: Path, url: str) -> None:
    """The folder behind the URL holds what the local one holds."""
    copy = local_copy(url)
    pd.testing.assert_frame_equal(
        load_manifest(copy).drop(columns=BY_PLACE), load_manifest(local).drop(columns=BY_PLACE)
    )
    assert (copy / "splits.json").read_bytes() == (local / "splits.json").read_bytes()
    files = {path.name: path.read_bytes() for path in (local / "records").iterdir()}
    assert {path.name: path.read_bytes() for path in (copy / "records").iterdir()} == files
    there = RemoteFolder(url).list_files()
    assert {name.removeprefix("records/") for name in there if name.startswith("records/")} == set(
        files
    )
    assert sum(name.startswith("logs/") for name in there) >= 1


# Names --------------------------------------------------------------------------------------------


def test_what_is_a_url_and_what_is_a_path() -> None:
    assert as_url("s3://bucket/a/") == as_url(Path("s3://bucket/a")) == "s3://bucket/a"
    assert not any(
        map(
            as_url,
            ("data/x", "/data/x", "C:/data", "C:\\data", "a:b/c", "file:///data/x", "::", ""),
        )
    )
    assert (
        as_path("file:///data/x")
        == as_path(Path("file:///data/x"))
        == as_path("/data/x")
        == Path("/data/x")
    )
    assert join_root("s3://b/a", "c/r.hea") == "s3://b/a/c/r.hea" and Path(
        join_root("d", "r.hea")
    ) == Path("d/r.hea")
    for root in ("d", "d/", "./d", "/", "/a/b", ".", "", "file:///a"):
        assert join_root(root, "c/r.hea") == str(as_path(root) / "c/r.hea")
    with pytest.raises(ValueError, match="holds a password") as error:
        as_url("sftp://me:secret@host/x")
    assert "secret" not in str(error.value)


def test_names_that_would_leave_their_folder_are_not_listed(store: str) -> None:
    assert not any(
        map(
            is_safe,
            (
                "../up.hea",
                "a/../../up.hea",
                "a//b.hea",
                "/up.hea",
                "a\\..\\up.hea",
                "x" * 300,
                "a\0",
                ".",
                "",
            ),
        )
    )
    fs = fsspec.filesystem("memory")
    for name in (
        "/box/ok.hea",
        "/box/a\\..\\up.hea",
        "/box/.hidden/r.hea",
        "/box/" + "x" * 300 + ".hea",
    ):
        fs.store[name] = fsspec.implementations.memory.MemoryFile(fs, name, b"x")
    assert [record.relative for record in index_folder(store)] == ["ok.hea"]


def test_a_header_fetches_nothing_from_another_folder(store: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "secret.dat").write_bytes(bytes(2400))
    (tmp_path / "src" / "r.hea").write_text("r 1 100 600\n../secret.dat 16 1000/mV 16 0 0 0 0 II\n")
    put(tmp_path, store)
    with fetched_records([f"{store}/src/r.hea"]) as (path,):
        assert [file.name for file in path.parent.parent.rglob("*") if file.is_file()] == ["r.hea"]
        assert path.parent.parent not in (tmp_path, Path.cwd())
    assert not path.exists()


# Runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["store", "s3"])
@pytest.mark.filterwarnings("default")  # those of the libraries of a store
def test_a_run_on_urls_leaves_what_a_local_run_leaves(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue(place)
    write_collection(tmp_path, 40)
    put(tmp_path / "src", f"{url}/src")
    run({"d": str(tmp_path / "src")}, tmp_path / "local", tmp_path / "m.csv")
    run({"d": f"{url}/src"}, f"{url}/out", tmp_path / "m.csv")
    require_same(tmp_path / "local", f"{url}/out")
    rows = load_manifest(local_copy(f"{url}/out"))
    assert rows.loc[rows["status"] == "ok", "source_path"].str.startswith(f"{url}/src/r").all()
    assert rows.set_index("record_id").loc["r16", "reason"].endswith("the header promises 600")


def test_from_a_url_to_a_folder_and_back(store: str, tmp_path: Path) -> None:
    write_collection(tmp_path, 12)
    put(tmp_path / "src", f"{store}/src")
    run({"d": f"{store}/src"}, tmp_path / "a", tmp_path / "m.csv")
    run({"d": str(tmp_path / "src")}, f"{store}/b", tmp_path / "m.csv")
    require_same(tmp_path / "a", f"{store}/b")


@pytest.mark.filterwarnings("default")
def test_two_workers_on_s3_give_the_same(s3: str, tmp_path: Path) -> None:
    write_collection(tmp_path, 20)
    put(tmp_path / "src", f"{s3}/two/src")
    run({"d": str(tmp_path / "src")}, tmp_path / "local", tmp_path / "m.csv")
    run_preprocessing(
        DataConfig({"d": f"{s3}/two/src"}),
        f"{s3}/two/out",
        mapping=tmp_path / "m.csv",
        config=CONFIG,
        execution=ExecutionConfig(workers=2),
    )
    require_same(tmp_path / "local", f"{s3}/two/out")


def test_a_second_run_does_what_is_new_or_changed(store: str, tmp_path: Path) -> None:
    write_collection(tmp_path, 8)
    put(tmp_path / "src", f"{store}/src")

    def skipped() -> int:
        return run({"d": f"{store}/src"}, f"{store}/out").n_skipped  # type: ignore[attr-defined,no-any-return]

    assert [skipped(), skipped()] == [0, 8]
    put(tmp_path / "src", f"{store}/again")  # the store notes the time of each file
    RemoteFolder(f"{store}/src").upload([(tmp_path / "src" / "r3.dat", "r3.dat")])
    assert skipped() == 7
    RemoteFolder(f"{store}/out").remove("records/d__r5.npz")
    assert skipped() == 7
    before = local_copy(f"{store}/out") / "records" / "d__r3.npz"
    stamp = before.stat().st_mtime_ns
    (tmp_path / "src" / "r3.dat").write_bytes(np.arange(1200, dtype="<i2").tobytes())
    RemoteFolder(f"{store}/src").upload([(tmp_path / "src" / "r3.dat", "r3.dat")])
    assert skipped() == 7 and local_copy(f"{store}/out") and before.stat().st_mtime_ns != stamp


def test_an_interrupted_run_goes_on_and_another_machines_run_is_respected(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_collection(tmp_path, 16)
    put(tmp_path / "src", f"{store}/src")
    upload, left = RemoteFolder.upload, [2]

    def fail(self: RemoteFolder, files: list[tuple[Path, str]]) -> None:
        if files and files[0][1].startswith("records/"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError("memory://box: the network is gone")
        upload(self, files)

    monkeypatch.setattr(RemoteFolder, "upload", fail)
    with pytest.raises(OSError, match="the network is gone"):
        run({"d": f"{store}/src"}, f"{store}/out")
    there = RemoteFolder(f"{store}/out").list_files()
    assert not {"manifest.csv", "splits.json"} & set(there) and any(
        name.startswith("logs/") for name in there
    )
    monkeypatch.setattr(RemoteFolder, "upload", upload)
    assert run({"d": f"{store}/src"}, f"{store}/out").n_skipped == 8  # type: ignore[attr-defined]
    journal = cache_folder(f"{store}/out", "runs") / "manifest.partial.jsonl"
    journal.write_text("[]\n")
    (local_copy(f"{store}/out") / "manifest.csv").touch()
    RemoteFolder(f"{store}/out").upload(
        [(local_copy(f"{store}/out") / "manifest.csv", "manifest.csv")]
    )  # as another machine would
    assert run({"d": f"{store}/src"}, f"{store}/out").n_skipped == 16 and not journal.exists()  # type: ignore[attr-defined]


def test_samples_are_found_in_other_case_and_segments_too(store: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    samples = np.arange(1200, dtype="<i2").tobytes()
    (tmp_path / "src" / "seg.hea").write_text("seg/2 2 100 1200\nseg_1 600\nseg_2 600\n")
    for i in (1, 2):
        (tmp_path / "src" / f"seg_{i}.hea").write_text(
            f"seg_{i} 2 100 600\n"
            + f"SEG_{i}.DAT 16 1000/mV 16 0 0 0 0 II\n"
            + f"SEG_{i}.DAT 16 1000/mV 16 0 0 0 0 V1\n"
        )
        (tmp_path / "src" / f"seg_{i}.dat").write_bytes(samples)
    put(tmp_path / "src", f"{store}/src")
    run({"d": str(tmp_path / "src")}, tmp_path / "local")
    run({"d": f"{store}/src"}, f"{store}/out")
    assert (load_manifest(tmp_path / "local")["status"] == "ok").all()
    require_same(tmp_path / "local", f"{store}/out")


def test_a_dry_run_reads_urls(store: str, tmp_path: Path) -> None:
    write_collection(tmp_path, 5)
    put(tmp_path / "src", f"{store}/src")
    report = check_datasets(DataConfig({"d": f"{store}/src"}), tmp_path / "m.csv", CONFIG, ONE)
    assert (
        report.ok
        and report.datasets[0].n_records == 5
        and report.datasets[0].rates == {"100 Hz": 5}
    )


def test_files_are_predicted_through_copies(
    store: str, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_collection(tmp_path, 3)
    put(tmp_path / "src", f"{store}/src")
    fsspec.filesystem("memory").pipe("/box/src/many.h5", b"x")
    for name, places in (
        ("local", [tmp_path / "src"]),
        ("remote", [f"{store}/src/r0.dat", f"{store}/src/r1.hea", f"{store}/src"]),
    ):
        predict_to_table(
            trained / "models" / "best.pth", places, tmp_path / f"{name}.csv", predict_unfit=True
        )
    local, fetched = (
        list(csv.reader((tmp_path / f"{name}.csv").read_text().splitlines()))
        for name in ("local", "remote")
    )
    # The last column is the path
    assert [row[-1] for row in fetched[1:3]] == [f"{store}/src/r0.hea", f"{store}/src/r1.hea"]
    local, fetched = ([row[:-1] for row in rows] for rows in (local, fetched))
    assert fetched[:1] + fetched[3:] == local and fetched[1:3] == local[1:3]
    assert "1 files that may hold many records (many.h5) are skipped" in caplog.text
    with pytest.raises(ValueError, match="many records, which are not read over a URL"):
        list(find_record_files([f"{store}/src/many.h5"]))


def test_a_run_that_finds_another_going_on_leaves_its_logs_alone(
    store: str, tmp_path: Path
) -> None:
    root = write_collection(tmp_path, 2)
    with open_stage(f"{store}/out") as stage:
        log = stage.folder / "logs" / "first.log"
        log.parent.mkdir()
        log.touch()
        with pytest.raises(RuntimeError, match="preprocess runs here already"):
            run({"d": str(root / "src")}, f"{store}/out")
        assert log.exists()
    assert "logs/first.log" in RemoteFolder(f"{store}/out").list_files()


def test_few_records_are_copied_at_a_time(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_collection(tmp_path, 70)
    put(root / "src", f"{store}/src")
    process, copied = preprocessing.process_chunk, []

    def count(tasks: list[RecordTask], *args: Any, **options: Any) -> list[ManifestRow]:
        copied.append(len(list(Path(tasks[0].copy).parent.glob("*.hea"))))
        return process(tasks, *args, **options)

    monkeypatch.setattr(preprocessing, "process_chunk", count)
    run_preprocessing(
        DataConfig({"d": f"{store}/src"}),
        f"{store}/out",
        config=CONFIG,
        execution=ExecutionConfig(workers=1),
    )
    assert copied == [32, 32, 6] and len(load_manifest(local_copy(f"{store}/out"))) == 70


def test_records_too_short_for_a_fingerprint_are_copied_too(store: str, tmp_path: Path) -> None:
    root = write_collection(tmp_path, 3, n_samples=150)
    run({"d": str(root / "src")}, f"{store}/out")
    copy = local_copy(f"{store}/out")
    assert (
        set(load_manifest(copy)["signal_hash"]) == {""}
        and len(list((copy / "records").iterdir())) == 3
    )


# What is behind a URL is trained on and judged ----------------------------------------------------


def test_training_and_evaluation_work_on_a_copy(
    store: str, processed: Path, tmp_path: Path
) -> None:
    for name in TABLES:
        if (processed / name).exists():
            RemoteFolder(store).upload([(processed / name, name)])
    put(processed / "records", f"{store}/records")
    ours, theirs = (
        run_training(QUICK, place, tmp_path / name)
        for place, name in ((processed, "a"), (store, "b"))
    )
    assert [row["train_loss"] for row in theirs.history] == [
        row["train_loss"] for row in ours.history
    ]
    copied = sorted(path.stat().st_mtime_ns for path in (local_copy(store) / "records").iterdir())
    status = main(
        [
            "--quiet",
            "evaluate",
            "--checkpoint",
            str(tmp_path / "b/models/best.pth"),
            "--processed",
            store,
            "--out",
            str(tmp_path / "b"),
            "--device",
            "cpu",
        ]
    )
    assert status == 0 and (tmp_path / "b" / "metrics_test.json").exists()
    assert (
        sorted(path.stat().st_mtime_ns for path in (local_copy(store) / "records").iterdir())
        == copied
    )  # nothing is fetched twice


# Errors -------------------------------------------------------------------------------------------


def test_problems_are_one_line(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: str) -> str:
        assert main(["--quiet", *words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    out = ["--out", str(tmp_path / "out")]
    assert "memory://box/none: nothing is there" in said(
        "preprocess", "--data", f"d={store}/none", *out
    )
    assert "Protocol not known: nosuch" in said("preprocess", "--data", "d=nosuch://x/y", *out)
    assert "no processed records here; run preprocess with --out memory://box first" in said(
        "train", "--processed", store, *out
    )
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    assert "s3:// URLs needs the package fsspec: pip install -r requirements-remote.txt" in said(
        "preprocess", "--data", "d=s3://b/x", *out
    )


def test_a_missing_library_of_a_store_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(ValueError, match=r"s3://b/x: .*requirements-remote\.txt"):
        RemoteFolder("s3://b/x").list_files()


@pytest.mark.filterwarnings("default")
def test_an_absent_bucket_is_one_line(s3: str) -> None:
    with pytest.raises(OSError, match=r"s3://absent/x: there is no such bucket, folder or file"):
        RemoteFolder("s3://absent").upload([(Path(__file__), "x")])
    with pytest.raises(OSError, match="s3://absent: there is no such bucket"):
        index_folder("s3://absent")


@pytest.mark.filterwarnings("default")
def test_a_store_that_does_not_answer_is_one_line(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(OSError, match=r"s3://box: Could not connect to the endpoint URL") as error:
        RemoteFolder(s3).list_files()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert "\n" not in str(error.value)


def test_local_folders_need_no_fsspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("fsspec was asked for")

    monkeypatch.setattr(remote, "import_extra", refuse)
    write_collection(tmp_path, 4)
    run({"d": f"file://{tmp_path}/src"}, f"file://{tmp_path}/out")
    assert (
        len(load_splits(tmp_path / "out" / "splits.json").of_key()) == 4
        and SMALL
        and not (tmp_path / "cache").exists()
    )


def test_the_cache_folder_lies_in_the_cache_of_the_user(tmp_path: Path) -> None:
    folder = cache_folder("s3://box/my data", "runs")
    assert folder.parent == tmp_path / "cache" / "ecg-tensor-pipeline" / "runs"
    assert folder.name.startswith("my-data-") and not folder.exists()
    assert folder != cache_folder("s3://other/my data", "runs")
