from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from src import utils


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
