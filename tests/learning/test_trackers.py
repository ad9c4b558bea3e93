from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from settings import QUICK

from src.__main__ import main
from src.config import Config, TrainConfig, build_config
from src.learning.checkpoints import load_checkpoint
from src.learning.trackers import RunEnd, RunStart, TrackerGroup, flatten, open_trackers
from src.training import run_training
from src.utils import load_json

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None,
    reason="tensorboard is not installed (requirements-tracking.txt)",
)
needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None,
    reason="mlflow is not installed (requirements-tracking.txt)",
)


def with_track(*names: str, epochs: int = 2) -> Config:
    return dataclasses.replace(
        QUICK, train=dataclasses.replace(QUICK.train, track=names, epochs=epochs)
    )


class Recorder:
    """A tracker that keeps what it is told, and fails in an epoch."""

    def __init__(self, fails_in: int = 0) -> None:
        self.told: list[Any] = []
        self.fails_in = fails_in

    def start(self, run: RunStart) -> None:
        self.told.append(run)

    def epoch(self, row: dict[str, Any]) -> None:
        if row["epoch"] == self.fails_in:
            raise ConnectionError("the server\nis away")
        self.told.append(row)

    def end(self, result: RunEnd | None) -> None:
        self.told.append(result)


# The interface ------------------------------------------------------------------------------------


def test_a_tracker_is_told_the_start_each_epoch_and_the_end(
    processed: Path, tmp_path: Path
) -> None:
    recorder = Recorder()
    result = run_training(with_track(), processed, tmp_path, trackers=[recorder])
    start, *rows, end = recorder.told
    log = load_json(tmp_path / "training_log.json")
    assert start.out == tmp_path and start.epoch == 0
    assert (
        start.facts["n_train"] == log["n_train"] and list(start.facts["classes"]) == log["classes"]
    )
    assert rows == result.history == log["history"]
    assert end == RunEnd(
        result.best_epoch, result.best_metric, "val_f1_macro", tmp_path / "models" / "best.pth"
    )
    recorder.told.clear()
    run_training(with_track(epochs=3), processed, tmp_path, trackers=[recorder], resume=True)
    assert recorder.told[0].epoch == 2 and [row["epoch"] for row in recorder.told[1:-1]] == [3]


def test_a_run_that_fails_ends_its_trackers(processed: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train = dataclasses.replace(QUICK.train, lr=1e30, clip_norm=0.0)
    with pytest.raises(ValueError, match="diverged"):
        run_training(
            dataclasses.replace(QUICK, train=train), processed, tmp_path, trackers=[recorder]
        )
    assert isinstance(recorder.told[0], RunStart) and recorder.told[-1] is None


def test_a_tracker_that_fails_costs_a_warning_and_no_training(
    processed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = Recorder(fails_in=1), Recorder()
    result = run_training(with_track(), processed, tmp_path, trackers=[broken, sound])
    assert len(result.history) == 2 and len(sound.told) == 4 and len(broken.told) == 1
    [line] = [line for line in caplog.messages if "Recorder" in line]
    assert "Recorder (1): failed (ConnectionError: the server\\nis away)" in line


def test_a_tracker_of_ones_own_is_named_by_its_path(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_trackers.py").write_text(
        "told = []\n"
        "class Mine:\n"
        "    def start(self, run): told.append(run.epoch)\n"
        "    def epoch(self, row): told.append(row['epoch'])\n"
        "    def end(self, result): told.append(result.best_epoch)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = run_training(with_track("own_trackers:Mine"), processed, tmp_path / "run")
    assert sys.modules["own_trackers"].told == [0, 1, 2, result.best_epoch]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("math:sqrt", "track math:sqrt: failed when called: TypeError"),
        ("builtins:dict", "a dict has no start and no epoch and no end: expected the methods"),
        ("not_here:Mine", "no module not_here"),
    ],
)
def test_what_is_no_tracker_is_one_line_before_anything_is_done(
    processed: Path, tmp_path: Path, name: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        run_training(with_track(name), processed, tmp_path)
    assert not (tmp_path / "models").exists()


def test_a_tracker_that_does_not_start_ends_the_run() -> None:
    class Away(Recorder):
        def start(self, run: RunStart) -> None:
            raise ConnectionError("refused")

    with pytest.raises(ValueError, match="track away: it did not start: ConnectionError: refused"):
        TrackerGroup({"away": Away()}).start(RunStart(Path(), {}, 0))


def test_other_processes_track_nothing() -> None:
    recorder = Recorder()
    with open_trackers(("tensorboard", "mlflow"), [recorder], enabled=False) as group:
        group.end(None)
    assert recorder.told == []


def test_settings_name_trackers_and_what_replaced_the_old_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match="track is 'wandb': expected tensorboard, mlflow, or"):
        TrainConfig(track=("wandb",))
    with pytest.raises(ValueError, match=r'use "track": \["tensorboard"\]'):
        build_config({"train": {"tensorboard": True}})
    assert build_config({"train": {"tensorboard": False}}).train == TrainConfig()
    with pytest.raises(SystemExit) as ended:
        main(["train", "--processed", "p", "--out", "o", "--tensorboard"])
    assert ended.value.code == 2
    assert "--tensorboard is no option any more: use --track tensorboard" in capsys.readouterr().err


def test_nested_settings_become_dotted_names() -> None:
    values = {"a": 1, "b": {"c": (2, 3), "d": {"e": None}}}
    assert list(flatten(values)) == [("a", 1), ("b.c", (2, 3)), ("b.d.e", None)]


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("tensorboard", "tensorboard", "tensorboard"), ("mlflow", "mlflow.tracking", "mlflow")],
)
def test_a_missing_library_is_named_before_anything_is_done(
    processed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    module: str,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ValueError,
        match=rf"--track {name} needs the package {package}: "
        r"pip install -r requirements-tracking\.txt",
    ):
        run_training(with_track(name), processed, tmp_path)
    assert not (tmp_path / "models").exists() and not (tmp_path / "training_log.json").exists()


# TensorBoard --------------------------------------------------------------------------------------


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


@needs_tensorboard
def test_tensorboard_has_the_history_epoch_by_epoch(processed: Path, tmp_path: Path) -> None:
    run_training(with_track("tensorboard"), processed, tmp_path)
    run_training(with_track("tensorboard", epochs=3), processed, tmp_path, resume=True)
    history = load_json(tmp_path / "training_log.json")["history"]
    scalars = read_scalars(tmp_path / "tensorboard")
    assert set(scalars) == {name for name in history[0] if name != "epoch"}
    for name, points in scalars.items():
        assert [step for step, _ in points] == [1, 2, 3]
        assert [value for _, value in points] == pytest.approx(
            [row[name] for row in history], rel=1e-5
        )


def test_tensorboard_is_off_until_asked(trained: Path) -> None:
    assert not (trained / "tensorboard").exists()


# MLflow -------------------------------------------------------------------------------------------


@needs_mlflow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_settings_and_history_of_a_resumed_run(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    out = tmp_path / "run"
    run_training(with_track("mlflow"), processed, out)
    result = run_training(with_track("mlflow", epochs=3), processed, out, resume=True)

    client = MlflowClient(tracking_uri=(out / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("ecg")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == (out / "mlflow_run.txt").read_text()
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params["config.train.lr"] == "0.002" and run.data.params["n_train"]
    assert run.data.tags["best_epoch"] == str(result.best_epoch)
    for name in ("train_loss", "val_auroc_macro"):
        points = client.get_metric_history(run.info.run_id, name)
        assert [(point.step, point.value) for point in points] == [
            (row["epoch"], row[name]) for row in result.history
        ]

    run_training(with_track(), processed, tmp_path / "plain")
    run_training(with_track(epochs=3), processed, tmp_path / "plain", resume=True)
    plain = load_checkpoint(tmp_path / "plain" / "models" / "latest.pth").weights
    tracked = load_checkpoint(out / "models" / "latest.pth").weights
    assert all(torch.equal(value, tracked[name]) for name, value in plain.items())


@needs_mlflow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_says_which_runs_failed(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    config = with_track("mlflow")
    train = dataclasses.replace(config.train, lr=1e30, clip_norm=0.0)
    with pytest.raises(ValueError, match="diverged"):
        run_training(dataclasses.replace(config, train=train), processed, tmp_path / "run")
    client = MlflowClient(tracking_uri=(tmp_path / "store").as_uri())
    [run] = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.info.status == "FAILED"
