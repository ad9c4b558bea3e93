from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from src.__main__ import build_parser
from src.classifier.inputs import LONG_MODES
from src.classifier.saliency import METHODS
from src.commands import arguments
from src.commands.options import (
    add_data,
    add_settings,
    at_least,
    count_or_none,
    file_to_write,
    folder_or_url_to_write,
    folder_to_write,
    lead_names,
    list_of,
    name_leads,
    name_number,
    read_data,
    read_settings,
    require_other_output,
    without_name,
)
from src.commands.predict_files import TABLE_FORMATS
from src.config import PreprocessConfig, SplitConfig
from src.labels.builders import BUILDERS
from src.learning.disturbances import KINDS
from src.learning.score_tables import TARGETS
from src.utils import UsageError


def test_option_types_parse_what_they_name() -> None:
    assert at_least(3)("3") == 3 and count_or_none("0") == 0
    assert list_of(int)("9, 10,") == (9, 10)
    assert name_number("a=257") == ("a", 257.0)
    assert lead_names("ECG1:II, ECG2:v5") == ("ECG1:II", "ECG2:v5")
    assert without_name(lead_names)("mine=ECG1:II") == ("ECG1:II",)
    assert without_name(float)("mine=500") == without_name(float)("500") == 500
    assert name_leads("mine=II,-,V5") == ("mine", ("II", "-", "V5"))


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (at_least(3), "2"),
        (count_or_none, "-1"),
        (list_of(int), "1,x"),
        (name_number, "a=b"),
        (name_leads, "a=ECG1"),
    ],
)
def test_option_types_refuse_other_text(parse: object, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected|not a number"):
        parse(text)  # type: ignore[operator]


def test_settings_are_those_given_and_otherwise_the_base() -> None:
    parser = argparse.ArgumentParser()
    add_settings(parser, [PreprocessConfig])
    add_settings(parser, [SplitConfig], skip=("seed",))
    args = parser.parse_args(["--fs", "100", "--hum-mv", "0.1", "--val-folds", "1,2"])
    config = read_settings(args, PreprocessConfig, PreprocessConfig(n_samples=1000))
    assert (config.fs, config.n_samples, config.quality.hum_mv) == (100.0, 1000, 0.1)
    assert read_settings(args, SplitConfig, SplitConfig(seed=7)) == SplitConfig(
        seed=7, val_folds=(1, 2)
    )


def test_a_value_out_of_range_is_wrong_usage() -> None:
    parser = argparse.ArgumentParser()
    add_settings(parser, [PreprocessConfig])
    with pytest.raises(UsageError, match=r"fs is -1\.0: expected 1 to 100000 Hz"):
        read_settings(parser.parse_args(["--fs", "-1"]), PreprocessConfig, PreprocessConfig())


def test_collections_are_read_from_their_options() -> None:
    parser = argparse.ArgumentParser()
    add_data(parser, required=True)
    args = parser.parse_args(["--data", "a=/x", "--data", "b=/y", "--source-fs", "b=257"])
    data = read_data(args)
    assert data.roots == {"a": "/x", "b": "/y"} and data.source_fs == {"b": 257.0}
    with pytest.raises(UsageError, match="--data names a more than once"):
        read_data(parser.parse_args(["--data", "a=/x", "--data", "a=/y"]))


def test_choices_are_those_of_the_heavy_modules() -> None:
    assert tuple(BUILDERS) == arguments.KINDS
    assert tuple(METHODS) == arguments.SALIENCY_METHODS
    assert KINDS == arguments.DISTURBANCES
    assert TABLE_FORMATS == arguments.TABLE_FORMATS
    assert TARGETS == arguments.TARGETS
    assert LONG_MODES == arguments.LONG_MODES


def test_an_output_is_checked_before_the_command_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for check, name in ((file_to_write, "."), (folder_to_write, "file"), (file_to_write, "file/a")):
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            check(str(tmp_path / name))
    assert folder_or_url_to_write("s3://bucket/folder") == "s3://bucket/folder"
    for check in (file_to_write, folder_to_write):
        with pytest.raises(argparse.ArgumentTypeError, match=r"folder: is a URL: expected a local"):
            check("s3://bucket/folder")
    folder_to_write(str(tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_output_of_every_command_is_checked() -> None:
    commands = next(
        action.choices for action in build_parser()._actions if isinstance(action.choices, dict)
    )
    checked = set()
    for name, parser in commands.items():
        for action in parser._actions:
            if action.type in (file_to_write, folder_to_write, folder_or_url_to_write):
                checked.add(f"{name} {action.dest}")
    assert checked == {
        *(f"{name} out" for name in commands if "--out" in commands[name]._option_string_actions),
        "evaluate save",
        "label-issues page",
        "preprocess figures",
        "predict saliency",
        "predict timeline",
        "sample-data dest",
    }


def test_an_output_is_no_file_that_the_command_reads(tmp_path: Path) -> None:
    (tmp_path / "best.pth").touch()
    (tmp_path / "link").symlink_to("best.pth")
    best, link = str(tmp_path / "best.pth"), str(tmp_path / "link")
    for given in ({"checkpoint": best}, {"paths": ["none", best]}):
        with pytest.raises(UsageError, match="is read by this command"):
            require_other_output(argparse.Namespace(out=link, **given))
    with pytest.raises(UsageError, match="another file for --page"):
        require_other_output(argparse.Namespace(out=None, page=link, predictions=best))
    require_other_output(argparse.Namespace(out=best, checkpoint=None, paths=[str(tmp_path)]))
