from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest
from settings import QUICK

from src.learning.tensorboard_log import log_epochs
from src.training import run_training
from src.utils import load_json

ABSENT = importlib.util.find_spec("tensorboard") is None
ON = dataclasses.replace(QUICK, train=dataclasses.replace(QUICK.train, tensorboard=True))


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


@pytest.mark.skipif(ABSENT, reason="tensorboard is not installed (requirements-tracking.txt)")
def test_the_history_is_there_epoch_by_epoch(processed: Path, tmp_path: Path) -> None:
    run_training(ON, processed, tmp_path)
    longer = dataclasses.replace(ON, train=dataclasses.replace(ON.train, epochs=3))
    run_training(longer, processed, tmp_path, resume=True)
    history = load_json(tmp_path / "training_log.json")["history"]
    scalars = read_scalars(tmp_path / "tensorboard")
    assert set(scalars) == {name for name in history[0] if name != "epoch"}
    for name, points in scalars.items():
        assert [step for step, _ in points] == [1, 2, 3]
        assert [value for _, value in points] == pytest.approx(
            [row[name] for row in history], rel=1e-5
        )


def test_it_is_off_until_asked(trained: Path) -> None:
    assert not (trained / "tensorboard").exists()
    with log_epochs(trained / "tensorboard", enabled=False) as write:
        assert write is None


def test_a_missing_library_is_named_before_anything_is_done(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        ValueError,
        match=r"needs the package tensorboard: pip install -r requirements-tracking\.txt",
    ):
        run_training(ON, processed, tmp_path)
    assert not (tmp_path / "models").exists() and not (tmp_path / "training_log.json").exists()
