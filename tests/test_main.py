"""The command line: every command in process, a few as programs, and one clear line for each bad
input.
"""

from __future__ import annotations

import argparse
import csv
import logging
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import bad_records
import pytest
from bad_records import BAD

from src import __version__
from src.__main__ import build_parser, main
from src.commands import demo, smoke
from src.learning.checkpoints import load_checkpoint
from src.processed.manifest import load_manifest, save_manifest
from src.processed.record_files import load_record_file, record_path
from src.processed.splits import load_splits
from src.records.sample_collections import SampleData
from src.utils import load_json, save_json

SMALL = ["--fs", "100", "--n-samples", "1000", "--workers", "1"]
TINY = ["--epochs", "1", "--base-channels", "8", "--batch-size", "8", "--device", "cpu"]


@dataclass(frozen=True)
class Answer:
    """What a command gave; `error` is the last line on stderr."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        return self.err.rstrip().split("\n")[-1]


Run = Callable[..., Answer]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Call the command line in this process, and put back what it set for the whole process."""
    handlers, level, stop = (
        list(logging.root.handlers),
        logging.root.level,
        signal.getsignal(signal.SIGTERM),
    )

    def call(*arguments: object) -> Answer:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    yield call
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    signal.signal(signal.SIGTERM, stop)


def roots(sample: SampleData) -> list[str]:
    return [item for name, root in sample.data.items() for item in ("--data", f"{name}={root}")]


def files_in(folder: Path) -> set[str]:
    """Return the files of a folder but for the logs of runs."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "logs"
    }


# Every command ------------------------------------------------------------------------------------


def test_samples_check_and_preprocess(run: Run, tmp_path: Path) -> None:
    made = run("sample-data", tmp_path / "s", "--records", 9, "--seed", 2)
    assert made.code == 0 and "wrote 9 records" in made.out
    command = made.out.split("next: python -m src preprocess ")[1].split(" --out")[0].split()
    checked = run("check", *command, "--probe", 1)
    assert checked.code == 0 and "estimate:" in checked.out and not (tmp_path / "p").exists()
    done = run("preprocess", *command, *SMALL, "--out", tmp_path / "p")
    assert done.code == 0 and "9 records: 9 ok (0 were done before)" in done.out
    assert {
        "manifest.csv",
        "splits.json",
        "preprocess_config.json",
        "records/synthetic_mat__sm00001.npz",
    } <= files_in(tmp_path / "p")
    again = run("--quiet", "preprocess", *command, *SMALL, "--out", tmp_path / "p")
    assert again.code == 0 and "(9 were done before)" in again.out and "INFO" not in again.err


def test_train_evaluate_and_compare(run: Run, processed: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    trained = run("train", "--processed", processed, "--out", one, *TINY)
    assert trained.code == 0 and "best epoch 1 of 1" in trained.out and "epoch 1/1" in trained.err
    assert files_in(one) == {
        "models/best.pth",
        "models/latest.pth",
        "training_log.json",
        "figures/training_history.png",
    }
    resumed = run("train", "--processed", processed, "--out", one, *TINY, "--epochs", 2, "--resume")
    assert resumed.code == 0 and len(load_json(one / "training_log.json")["history"]) == 2
    best = one / "models" / "best.pth"
    judged = run(
        "evaluate", "--checkpoint", best, "--processed", processed, "--out", one, "--device", "cpu"
    )
    assert judged.code == 0 and "macro" in judged.out
    names = (
        "metrics_test.json",
        "predictions_test.npz",
        "figures/test_f1_scores.png",
        "figures/test_confusion_matrix.png",
    )
    assert files_in(one) >= {*names, "figures/test_ecg_example.png"}
    assert run("train", "--processed", processed, "--out", two, *TINY, "--seed", 1).code == 0
    compared = run("compare", one, two)
    assert compared.code == 0 and all(
        text in compared.out for text in ("one", "two", "val_f1_macro", "test_f1_macro")
    )


def test_predictions_of_another_program_become_a_report(
    run: Run, processed: Path, tmp_path: Path
) -> None:
    keys = load_splits(processed / "splits.json").test
    lines = [f"{key},{i / 10:.2f},{1 - i / 10:.2f}" for i, key in enumerate(keys)]
    (tmp_path / "p.csv").write_text("\n".join(["key,AF,NORM", *lines]))
    source = ("--predictions", tmp_path / "p.csv", "--processed", processed, "--target", "multi")
    done = run("evaluate", *source, "--keep-negative", "--out", tmp_path / "a", "--intervals", 20)
    assert done.code == 0 and "Which recordings the model was trained on is unknown" in done.out
    assert files_in(tmp_path / "a") >= {"metrics_test.json", "figures/test_ecg_example.png"}
    written = run("report", "--run", tmp_path / "a", "--processed", processed)
    assert written.code == 0
    page = (tmp_path / "a" / "report.html").read_text()
    assert f"predictions from {tmp_path / 'p.csv'}" in page
    assert "Which recordings the model was trained on is unknown" in page
    assert run("evaluate", *source, "--keep-negative", "--out", tmp_path / "b").code == 0
    files = [tmp_path / name / "predictions_test.npz" for name in "ab"]
    compared = run("compare-predictions", *files, "--manifest", processed / "manifest.csv")
    assert compared.code == 0 and "+0.000" in compared.out


def test_features_are_written_and_probed(
    run: Run, processed: Path, trained: Path, tmp_path: Path
) -> None:
    best, file = trained / "models" / "best.pth", tmp_path / "f.npz"
    where = ("--processed", processed)
    done = run("embed", "--checkpoint", best, *where, "--out", file, "--device", "cpu")
    assert done.code == 0 and "features of 36 records" in done.out
    done = run("probe", "--features", file, *where, "--out", tmp_path / "r", "--intervals", 20)
    assert done.code == 0 and "the same, untrained" in done.out
    assert files_in(tmp_path / "r") >= {"metrics_test.json", "random/metrics_test.json"}


def test_a_file_of_settings_yields_to_options(run: Run, processed: Path, tmp_path: Path) -> None:
    save_json(
        {"train": {"epochs": 5, "lr": 0.001, "device": "cpu"}, "model": {"base_channels": 8}},
        tmp_path / "c.json",
    )
    arguments = ("--config", tmp_path / "c.json", "--epochs", 1, "--batch-size", 16)
    assert run("train", "--processed", processed, "--out", tmp_path / "r", *arguments).code == 0
    config = load_json(tmp_path / "r" / "training_log.json")["config"]
    assert (config["train"]["epochs"], config["train"]["lr"]) == (1, 0.001)
    assert (config["model"]["base_channels"], config["loader"]["batch_size"]) == (8, 16)


def test_predict(run: Run, sample: SampleData, trained: Path, tmp_path: Path) -> None:
    best = trained / "models" / "best.pth"
    bad = bad_records.zero_leads(tmp_path / "in")
    done = run(
        "predict",
        "--checkpoint",
        best,
        "--out",
        tmp_path / "p.csv",
        "--device",
        "cpu",
        sample.data["synthetic_wfdb"],
        bad,
    )
    assert done.code == 0 and "12 ok, 1 unreadable" in done.out
    with open(tmp_path / "p.csv", newline="") as stream:
        header, *rows = csv.reader(stream)
    classes = load_checkpoint(best).card.classes
    assert header == ["record_id", *classes, "status", "reason", "labels", "notes", "path"]
    assert [row[0] for row in rows[:2]] == ["sw00001", "sw00002"] and rows[-1][0] == "zero_leads"


def test_labels_are_extended(run: Run, sample: SampleData, tmp_path: Path) -> None:
    out = tmp_path / "m.csv"
    out.write_text("dataset,record_id,mapped_label\nmine,r1,AF\n")
    done = run(
        "labels",
        "challenge",
        "--root",
        sample.data["synthetic_challenge"],
        "--out",
        out,
        "--dataset",
        "c",
    )
    assert done.code == 0 and "rows of c" in done.out
    with open(out, newline="") as stream:
        datasets = [row["dataset"] for row in csv.DictReader(stream)]
    assert datasets.count("mine") == 1 and datasets.count("c") == 12


def test_smoke(run: Run) -> None:
    done = run("smoke")
    assert done.code == 0 and "smoke test passed" in done.out


def test_demo_runs_the_notebook(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(
        demo, "run_notebook", lambda **options: asked.append(options) or options["out"]
    )
    assert run("demo", "--out", tmp_path / "o.ipynb", "--config", "c.json").code == 0
    assert asked == [{"out": str(tmp_path / "o.ipynb"), "config": "c.json"}]


def test_an_interrupted_command_says_how_to_go_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(smoke, "run_smoke", interrupt)
    stopped = run("smoke")
    assert stopped.code == 130 and stopped.error == "interrupted; run the same command again"


# Help ---------------------------------------------------------------------------------------------


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = build_parser()._actions
    return next(
        action.choices for action in actions if isinstance(action, argparse._SubParsersAction)
    )


@pytest.mark.parametrize("name", commands())
def test_help_shows_every_option_with_its_default(name: str, run: Run) -> None:
    shown = run(name, "--help")
    assert shown.code == 0
    parser = commands()[name]
    either = [
        action for group in parser._mutually_exclusive_groups for action in group._group_actions
    ]
    # Those that others have replaced only say so.
    for action in (action for action in parser._actions if action.help != argparse.SUPPRESS):
        assert action.help and all(flag in shown.out for flag in action.option_strings)
        needs_none = action.required or action in either or isinstance(action, argparse._HelpAction)
        assert needs_none or not action.option_strings or "(default: " in action.help, (
            f"{action.option_strings} names no default"
        )


@pytest.mark.parametrize("name", commands())
def test_help_ends_with_an_example_to_copy(name: str, run: Run) -> None:
    before, _, example = run(name, "--help").out.rstrip().rpartition("\nexample: python -m src ")
    assert before and "\n" not in example and example.startswith(name)
    build_parser().parse_args(example.split())


def test_the_list_of_commands(run: Run) -> None:
    shown = run("--help")
    wanted = "sample-data check labels preprocess train evaluate predict smoke"
    assert shown.code == 0 and all(f"    {name} " in shown.out for name in wanted.split())
    assert run("--version").out.strip() == __version__


# Bad input: one clear line ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(
    processed: Path, sample: SampleData, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Names for the arguments of the table below."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "columns.csv").write_text("file,label\nsw00001,AF\n")
    (folder / "twice.csv").write_text("dataset,record_id,mapped_label\na,r1,AF\na,r1,AF\na,,AF\n")
    (folder / "text.pth").write_text("no checkpoint")
    (folder / "logits.csv").write_text("key,AF\na,2.5\n")
    (folder / "no.json").write_text("{")
    (folder / "setting.json").write_text('{"train": {"epoch": 3, "lr": "fast"}}')
    (folder / "empty").mkdir()
    bad_records.all_missing(folder / "nan")
    save_json({}, folder / "odd" / "training_log.json")
    (folder / "other").mkdir()
    (folder / "other" / "records").symlink_to(processed / "records")
    shutil.copy(processed / "splits.json", folder / "other")
    save_manifest(load_manifest(processed).assign(labels="ASTHMA"), folder / "other")
    paths = {path.name.replace(".", "_"): str(path) for path in folder.iterdir()}
    return {
        **paths,
        "processed": str(processed),
        "data": f"a={sample.data['synthetic_wfdb']}",
        "best": str(trained / "models" / "best.pth"),
        "out": str(folder / "out"),
        "table": str(folder / "out.csv"),
        "gone": str(folder / "gone"),
    }


FAILURES = [
    # command, what the error says
    ("preprocess --data a={gone} --out {out}", r"gone: no such folder; expected a collection"),
    (
        "preprocess --data {data} --mapping {gone} --out {out}",
        r"gone: 1 problem in the label mapping: no such file",
    ),
    (
        "preprocess --data {data} --mapping {columns_csv} --out {out}",
        r"columns dataset, record_id, mapped_label are missing: found file, label$",
    ),
    (
        "preprocess --data n={nan} --workers 1 --out {out}",
        r"out: not one record could be processed; python -m src check shows why",
    ),
    ("check --data a={gone}", r"gone: no such folder"),
    ("smoke --data a={gone}", r"gone: no such folder"),
    ("smoke --data a={nan}", r"smoke test failed: 0 of 1 records could be processed"),
    ("labels ptbxl --root {gone} --out {table}", r"gone"),
    ("labels csv --root {empty} --out {table}", r"empty"),
    (
        "train --processed {gone} --out {out}",
        r"gone: no processed records here; run preprocess with --out",
    ),
    ("train --processed {processed} --out {out} --config {gone}", r"gone"),
    ("train --processed {processed} --out {out} --config {no_json}", r"no\.json: not valid JSON"),
    (
        "train --processed {processed} --out {out} --config {setting_json}",
        r"setting\.json: unknown setting train\.epoch .*; train\.lr is 'fast': expected float",
    ),
    (
        "train --processed {processed} --out {out} --classes AF,NONE",
        r"classes NONE have no training record: there are AF,",
    ),
    (
        "train --processed {processed} --out {out} --device cuda:99",
        r"device 'cuda:99' is not available here",
    ),
    (
        "evaluate --checkpoint {gone} --processed {processed} --out {out}",
        r"gone: no such checkpoint; train one with",
    ),
    (
        "evaluate --checkpoint {text_pth} --processed {processed} --out {out}",
        r"text\.pth: not a checkpoint of this program",
    ),
    (
        "evaluate --checkpoint {best} --processed {gone} --out {out}",
        r"gone: no processed records here",
    ),
    (
        "evaluate --checkpoint {best} --processed {other} --out {out}",
        r"carries a class of the checkpoint \(AF, ",
    ),
    (
        "evaluate --predictions {gone} --processed {processed} --out {out}",
        r"gone: cannot be read .*: expected predictions as \.npz, CSV or Parquet",
    ),
    (
        "evaluate --predictions {logits_csv} --processed {processed} --out {out}",
        r"logits\.csv: record a, class AF is 2\.5: expected probabilities from 0 to 1",
    ),
    ("predict --checkpoint {gone} --out {table} {nan}", r"gone: no such checkpoint"),
    (
        "predict --checkpoint {best} --out {table} {gone}",
        r"not one of 1 records could be read, the last \(gone\) because: no such record",
    ),
    (
        "predict --checkpoint {best} --out {table} {empty}",
        r"empty: no record in this folder; expected",
    ),
    ("predict --checkpoint {best} --out {table} {empty}/*.hea", r"\*\.hea: matches no file"),
    (
        "check --data d={empty}",
        r"empty: no recording was found; docs/formats\.md lists what is read",
    ),
    ("compare {gone}", r"gone: no training_log\.json here"),
    ("compare {odd}", r"training_log\.json: not a log as train writes it; train again"),
]


@pytest.mark.parametrize(("command", "message"), FAILURES)
def test_what_fails_ends_with_one_clear_line(
    command: str, message: str, broken: dict[str, str], run: Run
) -> None:
    failed = run("--quiet", *(part.format_map(broken) for part in command.split()))
    assert failed.code == 1
    assert failed.error.startswith("error: ") and "Traceback" not in failed.err
    assert re.search(message, failed.error), failed.error
    lines = [line for line in failed.err.splitlines() if " WARNING " not in line]
    assert len(lines) == 1, failed.err


def test_every_wrong_row_of_a_label_file_is_reported(broken: dict[str, str], run: Run) -> None:
    failed = run("check", "--data", broken["data"], "--mapping", broken["twice_csv"])
    assert failed.code == 1 and "twice.csv: 2 problems in the label mapping" in failed.err
    assert "row 4, column record_id" in failed.err and "Traceback" not in failed.err
    assert (
        failed.error.endswith("2 problems in the label mapping")
        and failed.err.count("error: ") == 1
    )


WRONG_USE = [
    ("", "required: COMMAND"),
    ("fly", "invalid choice: 'fly'"),
    ("preprocess --out x", "required: --data"),
    ("preprocess --data a --out x", "'a' is not NAME=VALUE"),
    ("preprocess --data a=b --out x --fs fast", "invalid float value: 'fast'"),
    ("preprocess --data a=b --out x --fs -5", "fs is -5.0: expected 1 to 100000 Hz"),
    ("preprocess --data a=b --out x --n-samples 0", "n_samples is 0: expected a positive count"),
    (
        "preprocess --data a=b --out x --on-error stop",
        "argument --on-error: invalid choice: 'stop'",
    ),
    ("preprocess --data a=b --out x --val-folds 1,b", "'1,b': "),
    ("preprocess --data a=b --out x --val-folds 1 --test-folds 1", "val_folds and test_folds"),
    ("preprocess --data a=b --data a=c --out x", "--data names a more than once"),
    ("preprocess --data a=b --source-fs a=x --out x", "'x' is not a number"),
    ("train --out x --run y", "not allowed with argument"),
    ("train --out x --epochs -1", "epochs is -1: expected 1 or more, or 0 to choose it"),
    ("train --out x --amp fp8", "argument --amp: invalid choice: 'fp8'"),
    ("train --out x --leads I,V9", "leads is"),
    ("labels nowhere --root x --out y", "invalid choice: 'nowhere'"),
    (
        "evaluate --checkpoint x --processed y --out z --batch-size 0",
        "'0': expected a whole number of 1 or more",
    ),
    ("evaluate --checkpoint x --predictions p --processed y --out z", "not allowed with argument"),
    ("evaluate --processed y --out z", "one of the arguments --checkpoint --predictions is"),
    (
        "evaluate --checkpoint x --processed y --out z --allow-missing",
        "--allow-missing go with --predictions: a checkpoint knows its task",
    ),
    ("evaluate --checkpoint x --processed y --out z --split dev", "invalid choice: 'dev'"),
    (
        "evaluate --checkpoint x --processed y --out z --intervals -5",
        "'-5': expected a whole number, or 0 for none",
    ),
    ("sample-data x --records 1", "'1': expected a whole number of 3 or more"),
    ("compare-predictions x y --seed -1", "'-1': expected a whole number of 0 or more"),
    ("train --out x --seed -1", "seed is -1: expected 0 to 4294967295"),
    (
        "train --out x --keep-auxiliary",
        "keep_auxiliary is True: expected False, or an auxiliary_weight above 0",
    ),
    ("predict --out x", "required: PATH"),
    ("smoke --mapping x", "--mapping is given without --data"),
    ("labels ptbxl --root . --out y --task foo", "task 'foo' is unknown for ptbxl"),
    ("labels ptbxl --root . --out y --min-likelihood 200", "min_likelihood is 200"),
    ("check --data a__b=.", "'a__b' is no plain dataset name"),
    ("check --data a=. --source-fs b=500", "--source-fs names 'b'"),
    ("check --data a=. --source-fs a=-1", "--source-fs a=-1.0: expected a positive number"),
]


@pytest.mark.parametrize(("command", "message"), WRONG_USE)
def test_wrong_use_is_two(
    command: str, message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = run(*command.split())
    assert failed.code == 2 and message in failed.error, failed.err
    assert "Traceback" not in failed.err and not list(tmp_path.iterdir())


# Bad recordings -----------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A collection with every kind of bad record, and good ones before, between and after."""
    folder = tmp_path / "mixed"
    for write, _, _ in BAD.values():
        write(folder)
    for name in ("a_good", "n_good", "zz_good"):
        bad_records.good(folder, name)
    return folder


def test_bad_records_are_rows_and_all_others_are_processed(
    mixed: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "p"
    done = run("preprocess", "--data", f"m={mixed}", "--out", out, *SMALL)
    assert done.code == 0 and "13 records: " in done.out and "3 ok" in done.out
    manifest = load_manifest(out).set_index("record_id")
    assert manifest.loc[["a_good", "n_good", "zz_good"], "status"].tolist() == ["ok"] * 3
    for name, (_, status, reason) in BAD.items():
        assert manifest.loc[name, "status"] == status and reason in manifest.loc[name, "reason"], (
            name
        )
        assert (
            str(mixed / name) in manifest.loc[name, "source_path"]
            and not manifest.loc[name, "split"]
        )
    records = {f"records/m__{name}.npz" for name in ("a_good", "n_good", "zz_good")}
    tables = {
        "manifest.csv",
        "splits.json",
        "preprocess_config.json",
        "duplicates.csv",
    }  # the good ones are one recording
    assert files_in(out) == records | tables, "and nothing half-written"
    assert load_record_file(record_path(out, "m__n_good"))["signal"].shape == (12, 1000)


def test_raise_stops_at_the_first_bad_record(mixed: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "p"
    arguments = ("preprocess", "--data", f"m={mixed}", "--out", out, *SMALL)
    stopped = run(*arguments, "--on-error", "raise")
    assert (
        stopped.code == 1
        and stopped.error
        == f"error: {mixed / 'all_missing.hea'}: " + stopped.error.split(": ", 2)[2]
    )
    assert "samples are missing" in stopped.error and "Traceback" not in stopped.err
    assert files_in(out) <= {
        "preprocess_config.json",
        "manifest.partial.jsonl",
        "records/m__a_good.npz",
    }
    assert run(*arguments).code == 0 and len(load_manifest(out)) == 13, (
        "the next run goes on from there"
    )


def test_rows_without_a_file_are_rows_too(mixed: Path, run: Run, tmp_path: Path) -> None:
    mapping, out = tmp_path / "m.csv", tmp_path / "p"
    mapping.write_text("dataset,record_id,mapped_label\nm,a_good,AF\nm,lost,AF\n")
    arguments = ("preprocess", "--data", f"m={mixed}", "--mapping", mapping, "--out", out, *SMALL)
    assert run(*arguments).code == 0
    manifest = load_manifest(out).set_index("record_id")
    assert manifest.loc["lost", "status"] == "missing"
    assert manifest.loc["a_good", "labels"] == "AF" and manifest.loc["n_good", "labels"] == "OTHER"
    stopped = run(*arguments, "--on-error", "raise")
    assert stopped.code == 1 and "m/lost: no file of this name" in stopped.error


# As a program -------------------------------------------------------------------------------------


def program(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "src", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_as_a_program_it_answers_by_its_exit_status(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    shown = program("--version", cwd=tmp_path / "cwd")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, f"{__version__}\n", "")
    wrong = program(
        "preprocess", "--data", f"m={mixed}", "--out", "p", "--fs", "0", cwd=tmp_path / "cwd"
    )
    assert (wrong.returncode, wrong.stderr) == (2, "error: fs is 0.0: expected 1 to 100000 Hz\n")
    failed = program("check", "--data", "m=nowhere", cwd=tmp_path / "cwd")
    assert (
        failed.returncode == 1
        and failed.stderr.count("\n") == 1
        and failed.stderr.startswith("error: nowhere: ")
    )
    assert not list((tmp_path / "cwd").iterdir())


def test_several_workers_stop_at_a_bad_record_too(mixed: Path, tmp_path: Path) -> None:
    arguments = (
        "--quiet",
        "preprocess",
        "--data",
        f"m={mixed}",
        "--out",
        "p",
        "--workers",
        2,
        "--chunk-size",
        2,
    )
    stopped = program(*arguments, "--on-error", "raise", cwd=tmp_path)
    assert stopped.returncode == 1 and "Traceback" not in stopped.stderr
    assert stopped.stderr.startswith(f"error: {mixed}") and stopped.stderr.count("\n") == 1
    assert not list(tmp_path.rglob(".tmp-*"))
    done = program(*arguments, cwd=tmp_path)
    assert done.returncode == 0 and "13 records" in done.stdout
