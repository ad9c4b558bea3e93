"""The benchmarks run, on few generated records, and say what they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import main, plot_ratios
from benchmarks.measures import measure_inference, measure_preprocessing, run_command
from src.utils import load_json


def test_preprocessing_is_compared_on_the_same_records(tmp_path: Path) -> None:
    result = measure_preprocessing(None, 80, 257.0, 1, 1, tmp_path)
    assert result["largest_difference"] < 1e-5
    assert 0.3 < result["bytes_ratio"] < 1.5
    assert (
        result["ratio"]["n"] == result["cpu_ratio"]["n"] == 1
        and result["cpu_ms_per_record"]["median"] > 0
    )
    plot_ratios({"preprocessing": [result]}, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 1000


def test_a_command_tells_its_memory_and_its_failure() -> None:
    usage = run_command("src", "check", "--help")
    assert usage.seconds > 0 and usage.cpu_s > 0 and usage.peak_mb > 10
    with pytest.raises(RuntimeError, match="--nonsense"):
        run_command("src", "check", "--nonsense")


def test_sections_are_measured_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "benchmarks.__main__.measure_inference",
        lambda *arguments: {"records_per_s_per_core": 1.0, "ratio": {"median": 4.0}},
    )
    monkeypatch.setattr(
        "sys.argv", ["benchmarks", "--quick", "--only", "inference", "--out", str(tmp_path)]
    )
    for _ in range(2):
        main()
    results = load_json(tmp_path / "results.json")
    assert list(results["environment"]) == ["inference"] and not (tmp_path / "speed.png").exists()


def test_files_are_predicted_as_fast_as_the_plain_recipe_with_a_published_network() -> None:
    result = measure_inference(None, 32)
    assert result["plain_records_per_s"] > 0 and result["ratio"]["median"] > 1
