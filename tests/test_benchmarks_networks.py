"""The table of the networks in the box is printed, on few records."""

from __future__ import annotations

import pytest
import torch

from benchmarks.networks import Measured, main, time_in_turns, to_markdown


@pytest.mark.slow
def test_the_table_has_a_row_for_each_network_and_length(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.networks.BATCH_SIZES", {250: 64, 300: 64})
    n_threads = torch.get_num_threads()
    try:
        assert main(["--quick", "--threads", "1", "--only", "resnet1d", "s4"]) == 0
    finally:
        torch.set_num_threads(n_threads)
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:6]]
    assert [row[:4] for row in cells] == [
        ["resnet1d", "1.41", "250", "2"],
        ["s4", "0.55", "250", "2"],
        ["resnet1d", "1.41", "300", "2"],
        ["s4", "0.55", "300", "2"],
    ]
    assert all(float(cell) > 0 for row in cells for cell in row[4:])
    assert lines[-1].startswith("A training step of s4 on 2 records of 250 samples takes ")


def test_networks_take_turns() -> None:
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    taken = time_in_turns(steps, turns=2, seconds=0)
    assert order == ["a", "b"] * 3 and set(taken) == {"a", "b"}


def test_figures_are_rounded() -> None:
    row = Measured("s4", 550_405, 250, 128, 99.6, 300.4, 512.7)
    assert to_markdown([row]).splitlines()[2] == "| s4 | 0.55 | 250 | 128 | 100 | 300 | 513 |"
