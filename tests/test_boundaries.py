"""What comes from others stays where it belongs: no code runs, no path leaves its folder, no cell
is a formula, no network.
"""

from __future__ import annotations

import ast
import csv
import logging
import os
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from crash_runs import descendants, start, wait_until, write_collection
from settings import QUICK, SMALL
from test_preprocessing import bare_collection

from src.__main__ import main
from src.commands.predict_files import predict_to_table
from src.config import DataConfig, ExecutionConfig
from src.labels.mapping import COLUMNS, iter_rows, load_mapping, save_mapping
from src.labels.matching import match_records
from src.labels.text_tables import plain_cell, safe_cell
from src.locks import lock_folder
from src.preprocessing import run_preprocessing
from src.processed.manifest import load_manifest, save_manifest
from src.processed.packed import load_packed
from src.processed.record_files import record_path
from src.processed.targets import load_records
from src.records.folders import index_folder
from src.records.reading import read_record
from src.training import run_training

ROOT = Path(__file__).resolve().parent.parent
ONE = ExecutionConfig(workers=1)

# Code ---------------------------------------------------------------------------------------------

FORBIDDEN_MODULES = {
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "joblib",
    "cloudpickle",
    "yaml",
    "subprocess",
    "pty",
    "ctypes",
    "socket",
    "ssl",
    "http",
    "urllib",
    "ftplib",
    "smtplib",
    "requests",
    "httpx",
    "aiohttp",
    "fsspec",
}
C_LIBRARY = {
    "files",
    "locks",
    "utils",
}  # may call the C library of the process, for syncfs and mallopt, and load no other
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "system",
    "popen",
    "read_pickle",
    "to_pickle",
    "broadcast_object_list",
    "urlopen",
}


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_can_run_what_it_reads_or_reach_the_network(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module)]
            )
            allowed = {"ctypes"} if path.stem in C_LIBRARY else set()
            assert not {name.split(".")[0] for name in names} & FORBIDDEN_MODULES - allowed, (
                f"line {node.lineno}"
            )
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"CDLL", "LoadLibrary"}:
            assert isinstance(node.args[0], ast.Constant) and node.args[0].value is None, (
                f"line {node.lineno}: loads a library"
            )
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.startswith("fsspec")
        ):
            assert path.stem == "remote", (
                f"line {node.lineno}: URLs are followed in src/remote.py alone"
            )
        if not isinstance(node, ast.Call):
            continue
        function, options = node.func, {word.arg: ast.unparse(word.value) for word in node.keywords}
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
        assert name not in FORBIDDEN_CALLS or (owner and name in ("eval", "compile")), (
            f"line {node.lineno}: {name}"
        )
        if owner == "torch" and name == "load":
            assert options.get("weights_only") == "True", f"line {node.lineno}"
        if owner == "np" and name in ("load", "savez", "savez_compressed", "save"):
            assert options.get("allow_pickle") == "False", f"line {node.lineno}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs in a forked process")
def test_the_whole_way_opens_no_connection(tmp_path: Path) -> None:
    write_collection(tmp_path, 24)
    process = start(all_the_way, tmp_path)
    process.join()
    assert process.exitcode == 0 and (tmp_path / "p.csv").exists()


def all_the_way(root: Path) -> None:
    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(
            (
                "socket.",
                "urllib.",
                "http.",
                "ftplib.",
                "subprocess.",
                "os.system",
                "os.exec",
                "os.posix_spawn",
            )
        ):
            os._exit(7)

    sys.addaudithook(refuse)
    run_preprocessing(
        DataConfig({"d": str(root / "src")}),
        root / "out",
        mapping=root / "m.csv",
        config=SMALL,
        execution=ONE,
    )
    run_training(QUICK, root / "out", root / "run")
    predict_to_table(
        root / "run" / "models" / "best.pth",
        [root / "src" / "r0.hea"],
        root / "p.csv",
        predict_unfit=True,
    )


# Paths --------------------------------------------------------------------------------------------

EVIL = (
    "../../up",
    "/etc/up",
    "C:\\up",
    "..\\..\\up",
    "NUL",
    "con",
    "a\x01b",
    "x" * 4000,
    "a\nb",
    "~",
    "$(touch up)",
    "=1+1",
    "é" * 200,
    ".",
    "..",
)


def test_ids_inside_an_archive_stay_in_the_output_folder(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    with h5py.File(tmp_path / "src" / "many.h5", "w") as file:
        file["tracings"] = np.random.default_rng(0).normal(0, 1, (len(EVIL), 1000, 12))
        file["exam_id"] = np.array([name.encode() for name in EVIL], dtype=h5py.string_dtype())
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    run_preprocessing(
        DataConfig({"d": str(tmp_path / "src")}),
        tmp_path / "a" / "out",
        config=SMALL,
        execution=ONE,
    )
    manifest = load_manifest(tmp_path / "a" / "out")
    assert len(manifest) == len(EVIL) and (manifest["status"] == "ok").all()
    files = list((tmp_path / "a" / "out" / "records").iterdir())
    assert len(files) == len(EVIL) and all(len(path.name.encode()) < 256 for path in files)
    assert {
        path for path in tmp_path.rglob("*") if "a" not in path.relative_to(tmp_path).parts[:1]
    } == before


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/secret",
        "..\\secret",
        "src/../../secret",
        "link/secret",
        "C:\\secret",
        "file://secret",
        "secret::x",
    ],
)
def test_paths_of_a_mapping_find_nothing_outside_their_folder(tmp_path: Path, name: str) -> None:
    bare_collection(tmp_path, 0)
    bare_collection(tmp_path / "src", 1)
    (bare_collection(tmp_path / "elsewhere", 1) / "r0.hea").rename(tmp_path / "secret.hea")
    mapping = tmp_path / "m.csv"
    mapping.write_text(f"dataset,record_id,mapped_label,path\nd,secret,A,{name}\n")
    matches = match_records(list(iter_rows(load_mapping(mapping))), index_folder(tmp_path / "src"))
    assert [match.found.relative for match in matches.records] == ["r0.hea"] and len(
        matches.missing
    ) == 1
    assert matches.records[0].row is None


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a__b", "", "a:b", "a\\b", "a.", "nul\0"])
def test_names_of_datasets_are_plain(tmp_path: Path, processed: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no plain dataset name"):
        run_preprocessing(DataConfig({name: str(tmp_path)}), tmp_path / "out", execution=ONE)
    manifest = load_manifest(processed)
    manifest.loc[0, "dataset"] = name
    save_manifest(manifest, tmp_path)
    with pytest.raises(ValueError, match="expected a valid dataset name"):
        load_manifest(tmp_path)


def test_ids_that_a_file_system_may_confuse_get_files_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "src"
    for folder in ("a/b-c", "a-b/c", "x"):
        bare_collection(root / folder, 1)
    for name in ("a-b-c-r0", "R0"):  # what the others would be called, and the same in other case
        (bare_collection(root / "y", 1) / "r0.hea").rename(root / f"{name}.hea")
        (root / f"{name}.hea").write_text(
            (root / f"{name}.hea").read_text().replace("r0.dat", f"{name}.dat")
        )
        (root / "y" / "r0.dat").rename(root / f"{name}.dat")
    run_preprocessing(DataConfig({"d": str(root)}), tmp_path / "out", config=SMALL, execution=ONE)
    manifest = load_manifest(tmp_path / "out")
    assert (manifest["status"] == "ok").all() and len(manifest) == 5
    names = [path.name.casefold() for path in (tmp_path / "out" / "records").iterdir()]
    assert len(set(names)) == len(manifest)
    with pytest.raises(ValueError, match="differs from another in case only"):
        run_preprocessing(
            DataConfig({"d": str(root), "D": str(tmp_path)}), tmp_path / "out2", execution=ONE
        )


def test_a_folder_with_keys_of_an_earlier_version_is_read_and_resumed(tmp_path: Path) -> None:
    """Earlier versions gave record b of dataset a_ the key and the file of record _b of a."""
    roots = {"a": str(bare_collection(tmp_path / "x", 2)), "a_": str(tmp_path / "y")}
    bare_collection(tmp_path / "y", 3)
    out = tmp_path / "out"
    run_preprocessing(DataConfig(roots), out, config=SMALL, execution=ONE)
    today = {path.name: path.read_bytes() for path in (out / "records").iterdir()}
    manifest = (out / "manifest.csv").read_bytes()
    splits = (out / "splits.json").read_text()
    assert "a_%3A__r0.npz" in today and "a_:__r0" in splits
    for path in (out / "records").glob("a_%3A*"):
        path.rename(path.with_name(path.name.replace("%3A", "")))
    (out / "splits.json").write_text(splits.replace("a_:__", "a___"))
    records = load_records(out, keep_other=True)
    assert all(path.is_file() for split in records.values() for path in split.paths)
    times = {path.stat().st_mtime_ns for path in (out / "records").iterdir()}

    summary = run_preprocessing(DataConfig(roots), out, config=SMALL, execution=ONE)
    assert "5 were done before" in str(summary)
    assert {path.name: path.read_bytes() for path in (out / "records").iterdir()} == today
    assert {path.stat().st_mtime_ns for path in (out / "records").iterdir()} == times
    assert (out / "manifest.csv").read_bytes() == manifest
    assert (out / "splits.json").read_text() == splits


def test_a_dataset_that_looks_like_one_of_the_folder_is_refused(tmp_path: Path) -> None:
    root = str(bare_collection(tmp_path / "x", 1))
    out = tmp_path / "out"
    run_preprocessing(DataConfig({"Ab": root}), out, config=SMALL, execution=ONE)
    for name in ("ab", "A\u200bb"):
        with pytest.raises(ValueError, match="differs in case or in marks that are not seen"):
            run_preprocessing(DataConfig({name: root}), out, config=SMALL, execution=ONE)


# Tables -------------------------------------------------------------------------------------------

TEXTS = (
    "=1+1",
    "+x",
    "-x",
    "@x",
    "\tx",
    "'=x",
    "''-x",
    "'x",
    "x=1",
    "-1",
    "+1.5e3",
    "",
    "'",
    "-",
    "=",
    "NORM",
    "-inf",
)


def test_cells_are_no_formulas_and_come_back() -> None:
    for text in TEXTS:
        cell = safe_cell(text)
        assert plain_cell(cell) == text
        assert cell == text or cell == f"'{text}"
        assert cell[:1] not in "=@\t" or not cell
    assert plain_cell(safe_cell("x;=1")) == "x;=1" and safe_cell("x;=1") == "x;'=1"
    assert [text for text in TEXTS if safe_cell(text) != text] == [
        "=1+1",
        "+x",
        "-x",
        "@x",
        "\tx",
        "'=x",
        "''-x",
        "-",
        "=",
    ]


def test_tables_that_we_write_are_safe_and_read_back(processed: Path, tmp_path: Path) -> None:
    manifest = load_manifest(processed)
    manifest.loc[0, ["record_id", "patient_id", "labels", "reason"]] = [
        "=cmd|' /C calc'!A0",
        "-7",
        "+AF",
        "@x",
    ]
    save_manifest(manifest, tmp_path)
    pd.testing.assert_frame_equal(load_manifest(tmp_path), manifest)
    blank = [""] * (len(COLUMNS) - 3)
    mapping = pd.DataFrame(
        [["d", "=r", "@A", *blank], ["d", "-1", "-AF;+B", *blank]], columns=list(COLUMNS), dtype=str
    )
    save_mapping(mapping, tmp_path / "m.csv")
    pd.testing.assert_frame_equal(load_mapping(tmp_path / "m.csv"), mapping)
    for name in ("manifest.csv", "m.csv"):
        cells = [
            cell for row in csv.reader((tmp_path / name).read_text().splitlines()) for cell in row
        ]
        assert not [
            cell
            for cell in cells
            if cell[:1] in ("=", "@", "+") or (cell[:1] == "-" and cell not in ("-7", "-1"))
        ]


def test_predictions_keep_their_ids_and_say_so(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare_collection(tmp_path, 1)
    (tmp_path / "r0.hea").rename(tmp_path / "=r0.hea")
    (tmp_path / "@bad.hea").write_text("")
    with caplog.at_level(logging.WARNING):
        predict_to_table(
            trained / "models" / "best.pth", [tmp_path], tmp_path / "p.csv", predict_unfit=True
        )
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert sorted(row["record_id"] for row in rows) == ["=r0", "@bad"]
    assert "2 record ids begin like a formula" in caplog.text


def test_names_of_files_and_cells_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = "\x1b]0;P\x07\u202e\u200b\U000e0041"
    table = tmp_path / f"t{marks}.csv"
    where = ("--root", str(tmp_path), "--out", str(tmp_path / "o.csv"))
    texts = (
        "record_id,mapped_label,age\nr1,A,old{}\n",  # a cell
        "x{},y\n1,2\n",  # a header
        "record_id,mapped_label\nr{},\nr2,A\n",  # an id without a label
        "record_id,mapped_label\nr1,A{}/B\nr2,|{}\n",  # a label
    )
    for text in texts:
        table.write_text(text.replace("{}", marks), encoding="utf-8")
        main(["labels", "csv", *where])
    table.write_bytes(b"\xff")
    assert main(["labels", "csv", *where]) == 1
    shown = "".join(capsys.readouterr())
    assert "\\x1b]0;P\\x07\\u202e\\u200b\\U000e0041" in shown
    assert not set(marks) & set(shown) - set("]0;P")


def test_what_a_file_says_is_text_in_a_page(tmp_path: Path) -> None:
    (tmp_path / "r.dat").write_bytes(bytes(400))
    (tmp_path / "r.hea").write_text(
        "r 1 100 200\nr.dat 16 100/mV 16 0 0 0 0 <script>alert(1)</script>\n#Dx: <img src=x>\n"
    )
    page = read_record(tmp_path / "r")._repr_html_()
    assert "<script>" not in page and "<img" not in page and "&lt;script&gt;" in page


def test_names_that_are_no_unicode_are_read_and_listed(tmp_path: Path) -> None:
    folder = os.fsencode(bare_collection(tmp_path / "src", 1))
    try:
        # a path of bytes
        os.rename(folder + b"/r0.hea", folder + b"/caf\xe9\x01.hea")  # noqa: PTH104
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    run_preprocessing(
        DataConfig({"d": str(tmp_path / "src")}), tmp_path / "out", config=SMALL, execution=ONE
    )
    (row,) = load_manifest(tmp_path / "out").to_dict("records")
    assert row["status"] == "ok" and row["record_id"] == "caf\\udce9\\x01"
    assert record_path(tmp_path / "out", "d__caf\\udce9\\x01").exists()


# Two at once --------------------------------------------------------------------------------------


def test_a_second_run_waits_for_the_cache_that_a_first_one_builds(
    processed: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(processed, tmp_path / "p", ignore=shutil.ignore_patterns("packed"))
    with lock_folder(folder / "packed", "packing"):
        process = start(pack, folder, tmp_path / "done")
        process.join(0.5)
        assert process.is_alive() and not (tmp_path / "done").exists()
    process.join(20)
    assert (tmp_path / "done").exists() and not descendants(os.getpid()) & {process.pid}
    assert wait_until(lambda: not (folder / "packed" / ".lock").exists()) < 1


def pack(folder: Path, done: Path) -> None:
    load_packed(folder, "train")
    done.touch()
