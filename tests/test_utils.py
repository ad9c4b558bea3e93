from __future__ import annotations

import importlib
import json
import logging
import math
import os
import random
import stat
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from src import utils
from src.utils import (
    LogFormatter,
    atomic_path,
    html_text,
    load_json,
    make_folder,
    output_file,
    printable,
    printable_lines,
    storable,
    temporary_folder,
    temporary_name,
)


@dataclass
class Point:
    x: float
    where: Path


def test_json_round_trip_converts_what_json_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    utils.save_json(
        {"p": Point(math.nan, Path("a/b")), "n": np.float32(0.5), "a": np.arange(2), "t": (1, 2)},
        path,
    )
    assert utils.load_json(path) == {
        "p": {"x": None, "where": "a/b"},
        "n": 0.5,
        "a": [0, 1],
        "t": [1, 2],
    }
    assert json.loads(path.read_text()) == utils.load_json(path)


def test_load_json_names_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json: not valid JSON"):
        utils.load_json(path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), utils.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_seeding_repeats_all_three_generators() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    utils.seed_everything(7)
    first = draw()
    utils.seed_everything(7, deterministic=True)
    assert draw() == first
    assert torch.are_deterministic_algorithms_enabled()
    utils.seed_everything(8)
    assert draw() != first
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_seed_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        utils.seed_everything(-1)


def test_device_info_describes_the_cpu_and_refuses_what_is_not_there() -> None:
    info = utils.device_info("cpu")
    assert info.device == "cpu" and info.cores >= 1 and info.amp_dtype is None
    with pytest.raises(
        ValueError, match=r"'tpu' is not available here: choose auto or one of .*cpu"
    ):
        utils.device_info("tpu")


def test_stable_hash_depends_on_content_only() -> None:
    assert utils.stable_hash({"b": 1, "a": [1.0]}) == utils.stable_hash({"a": (1.0,), "b": 1})
    assert utils.stable_hash(1) != utils.stable_hash(2)
    assert len(utils.stable_hash(None)) == 16


def test_paths_are_below_the_root(tmp_path: Path) -> None:
    paths = utils.project_paths(tmp_path)
    assert paths.mapping == tmp_path / "logs" / "unified_label_mapping.csv"
    assert paths.processed == tmp_path / "artifacts" / "processed"
    assert not any(tmp_path.iterdir())


def test_paths_are_shown_from_the_project_on() -> None:
    assert utils.shown_path(utils.PROJECT_ROOT / "artifacts" / "processed") == "artifacts/processed"
    assert utils.shown_path("/elsewhere/run") == str(Path("/elsewhere/run")) and utils.shown_path(
        "data/mine"
    ) == str(Path("data/mine"))


def test_paths_are_whole_where_the_user_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = utils.PROJECT_ROOT / "artifacts" / "runs" / "mine"
    assert utils.shown_path(run) == str(run)


@pytest.mark.parametrize(
    ("value", "text"), [(0.81249, "0.812"), (2, "2.000"), (None, "-"), (math.nan, "-")]
)
def test_a_missing_number_is_a_dash(value: float | None, text: str) -> None:
    assert utils.format_number(value) == text


def test_intervals_and_ranges_are_formatted() -> None:
    assert utils.format_interval([0.8, 0.9125]) == "[0.800, 0.912]"
    assert utils.format_interval(None) == "-"
    assert utils.format_range(0.8, 0.9125) == "0.800\N{EN DASH}0.912"
    assert utils.format_range(41.2, 60.0, digits=0) == "41\N{EN DASH}60"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (36000, "10.0 h")],
)
def test_a_duration_is_given_in_the_fitting_unit(seconds: float, text: str) -> None:
    assert utils.format_duration(seconds) == text


def test_the_units_of_a_duration_can_start_later() -> None:
    assert utils.format_duration(119, minutes_from=120) == "119 s"
    assert utils.format_duration(7199, minutes_from=120) == "120 min"
    assert utils.format_duration(7200, minutes_from=120) == "2.0 h"


def test_what_steers_or_hides_is_shown_by_its_code() -> None:
    """ESC, a C1 control, directions of text, zero width, fillers, selectors, tags and blanks."""
    hidden = (
        "\x1b\x9b\x07\n\u2028\u202e\u2066\u200b\u200d\ufeff\u00ad\u2060\u180e\u061c\u3164\ufe0f"
    )
    hidden += "\U000e0041\U000e0100\u2800\u00a0\ud800\x7f"
    for mark in hidden:
        shown = printable(f"a{mark}b")
        assert shown[0] == "a" and shown[1] == "\\" and shown[-1] == "b" and shown.isascii(), shown
    assert printable("\x1b[31m\u202e\U000e0041") == r"\x1b[31m\u202e\U000e0041"
    for plain in ("Müller", "re\u0301c", "心電図", "µV ≥ 5 °", "\N{EN DASH}", "a\\b"):
        assert printable(plain) == plain
    assert printable_lines("a\n\u202eb") == "a\n\\u202eb"
    assert html_text("<b>\u202e") == "&lt;b&gt;\\u202e"


def test_texts_that_are_compared_keep_their_invisible_marks() -> None:
    assert storable("a\x1b\n\u200b\u202e") == "a\\x1b\\n\u200b\u202e"


def test_log_lines_cannot_be_steered_or_forged() -> None:
    record = logging.LogRecord("src", logging.INFO, "", 1, "%s", ("a\x1b[2J\nERROR \u202eb",), None)
    line = LogFormatter("%(levelname)s %(message)s").format(record)
    assert line == "INFO a\\x1b[2J\n  ERROR \\u202eb"
    # Handlers of others get the record as it was.
    assert record.args


@pytest.mark.parametrize("inside", [True, False])
def test_in_a_notebook_log_and_warnings_go_to_the_output(
    inside: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(utils, "in_notebook", lambda: inside)
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.root.level)
    try:
        utils.setup_logging("WARNING")
        logging.getLogger("src").warning("too rare")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            if inside:
                warnings.warn("old name", stacklevel=1)
    finally:
        logging.captureWarnings(False)
    shown = capsys.readouterr()
    log, other = (shown.out, shown.err) if inside else (shown.err, shown.out)
    assert "WARNING too rare" in log and other == ""
    assert ("old name" in log) == inside


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "sparse", "large"])
def test_what_is_no_file_of_text_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text("{}")
        os.truncate(path, 2**22 if kind == "sparse" else 2**40)
    expected = {"sparse": "a sparse file", "large": "expected at most"}
    with pytest.raises((OSError, ValueError), match=expected.get(kind, "expected a file")):
        load_json(path)


def test_a_setting_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": {"lr": 1, "lr": 2}}')
    with pytest.raises(ValueError, match="'lr' is repeated"):
        load_json(tmp_path / "x.json")


# Outputs ------------------------------------------------------------------------------------------


def test_an_output_replaces_no_pipe_device_or_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to pipe").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    cases = {
        "pipe": "is a pipe",
        "to pipe": "is a pipe",
        "folder": "is a folder",
        "file/new": "file: is a file: expected a folder",
        "pipe/new": "pipe: is a pipe: expected a folder",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message), atomic_path(tmp_path / name):
            pytest.fail("written")
    # Looked at, not written: a failure of atomic_path would take the device from the machine.
    with pytest.raises(ValueError, match="is a device"):
        output_file(os.devnull)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert (tmp_path / "file").read_text() == "old"


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, target in (("old", "there/a.csv"), ("new", "there/b.csv"), ("lost", "none/c.csv")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "there" / "a.csv").write_text("old")
    for name in ("old", "new"):
        with atomic_path(tmp_path / name) as temporary:
            temporary.write_text("new")
        assert (tmp_path / name).is_symlink()
    assert [path.read_text() for path in sorted((tmp_path / "there").iterdir())] == ["new", "new"]
    with pytest.raises(ValueError, match="folder does not exist"), atomic_path(tmp_path / "lost"):
        pytest.fail("written")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(ValueError, match="leads to itself"), atomic_path(tmp_path / "round"):
        pytest.fail("written")


def test_a_folder_for_output_is_no_file_and_no_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "lost").symlink_to("none")
    for name, message in (("file", "is a file"), ("file/a", "is a file"), ("lost", "to nothing")):
        with pytest.raises(ValueError, match=message):
            make_folder(tmp_path / name)
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_what_killed_commands_left_is_removed_by_the_next(tmp_path: Path) -> None:
    dead = temporary_name("a.csv").replace(f"-{os.getpid()}-", "-4194303-")
    (tmp_path / dead).touch()
    (tmp_path / dead.removesuffix(".csv")).mkdir()
    (tmp_path / ".tmp-notes").touch()
    os.utime(tmp_path / ".tmp-notes", (1, 1))
    with atomic_path(tmp_path / "a.csv") as temporary:
        temporary.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-notes", "a.csv"]


def test_a_temporary_folder_is_removed_and_so_are_those_of_the_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = tmp_path / temporary_name("").replace(f"-{os.getpid()}-", "-4194303-")
    dead.mkdir()
    (dead / "record.dat").touch()
    with temporary_folder() as folder:
        (folder / "record.dat").touch()
        assert list(tmp_path.iterdir()) == [folder]
    assert not list(tmp_path.iterdir())


# Import paths -------------------------------------------------------------------------------------


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that writes a module into the current folder, which sys.path lacks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, text: str) -> None:
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()

    return write


def test_an_import_path_leads_into_the_current_folder(
    own_module: Callable[[str, str], None],
) -> None:
    own_module("own_parts", "def half(x):\n    return x / 2\nclass Net: ...\n")
    half = utils.import_object("own_parts:half")
    assert callable(half) and half(3) == 1.5
    assert isinstance(utils.import_object("own_parts:Net"), type)
    assert utils.import_object("os.path:join") is os.path.join


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("own_parts", "own_parts: expected an import path, package.module:name"),
        ("own_parts:", "expected an import path"),
        (":half", "expected an import path"),
        ("own_parts:a:b", "expected an import path"),
        ("../own_parts.py:half", "expected an import path"),
        ("not_here:half", "not_here:half: no module not_here: expected one that is installed, or"),
        ("os.not_here:half", "no module os.not_here"),
        ("own_parts:third", r"own_parts:third: own_parts has no third: expected one of half"),
        ("own_parts:SIZE", "own_parts:SIZE: SIZE is of type int: expected a function or a class"),
        ("needs_more:half", "needs_more:half: needs_more needs the module not_here_either"),
        ("broken:half", r"broken:half: importing broken failed: SyntaxError: .*broken\.py, line 1"),
        ("fails:half", r"fails:half: importing fails failed: KeyError: 'a\\nb'"),
        ("ends:half", "ends:half: importing ends failed: SystemExit: 3"),
    ],
)
def test_a_wrong_import_path_is_one_line(
    own_module: Callable[[str, str], None], path: str, problem: str
) -> None:
    own_module("own_parts", "SIZE = 3\ndef half(x):\n    return x / 2\n")
    own_module("needs_more", "import not_here_either\n")
    own_module("broken", "def half(:\n")
    own_module("fails", "raise KeyError('a\\nb')\n")
    own_module("ends", "import sys\nsys.exit(3)\n")
    with pytest.raises(ValueError, match=problem) as raised:
        utils.import_object(path)
    assert "\n" not in str(raised.value)
