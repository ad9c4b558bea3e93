from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.utils.data import SequentialSampler

from src.config import Config, LoaderConfig, ModelConfig, TrainConfig, save_config
from src.learning.checkpoints import load_checkpoint
from src.learning.distributed import Processes, SharedBatchSampler, join_processes
from src.utils import load_json

ROOT = Path(__file__).resolve().parents[2]


def test_a_batch_is_dealt_out_evenly() -> None:
    order = SequentialSampler(range(11))
    shares = [list(SharedBatchSampler(order, 4, Processes(rank, 2))) for rank in (0, 1)]
    assert shares == [[[0, 2], [4, 6], [8]], [[1, 3], [5, 7], [9]]]
    assert len(SharedBatchSampler(order, 4, Processes(0, 2))) == 3
    assert len(SharedBatchSampler(SequentialSampler(range(9)), 4, Processes(0, 2))) == 2
    with pytest.raises(ValueError, match="expected a multiple of the 2 processes"):
        SharedBatchSampler(order, 5, Processes(0, 2))


def test_one_process_alone_joins_nothing() -> None:
    with join_processes() as processes:
        assert processes == Processes() and processes.is_main and processes.share(7) == 7


def hide_labels(processed: Path, copy: Path) -> None:
    """Copy a processed folder in which every third record is annotated for two classes only."""
    shutil.copytree(processed, copy)
    manifest = pd.read_csv(copy / "manifest.csv", dtype=str, keep_default_na=False)
    rows = manifest.index[::3]
    manifest.loc[rows, "annotated"] = manifest.loc[rows, "labels"] + ";NORM;AF"
    manifest.to_csv(copy / "manifest.csv", index=False)


@pytest.mark.parametrize("all_known", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_follow_the_losses_of_one(
    processed: Path, tmp_path: Path, all_known: bool
) -> None:
    if not all_known:
        hide_labels(processed, tmp_path / "processed")
        processed = tmp_path / "processed"
    config = Config(
        train=TrainConfig(
            epochs=2,
            lr=1e-3,
            patience=0,
            device="cpu",
            freeze_norm=True,
            target="auto" if all_known else "multi",
            # Crops and their order would differ between processes
            crop_s=0.0,
            normalization="zscore",
            ema_decay=0.0,
        ),
        model=ModelConfig(base_channels=8, dropout=0.0),
        loader=LoaderConfig(batch_size=4, balanced_sampling=False),
    )
    save_config(config, tmp_path / "config.json")
    common = [
        "-m",
        "src",
        "train",
        "--config",
        str(tmp_path / "config.json"),
        "--processed",
        str(processed),
        "--out",
    ]
    launch = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *common,
        str(tmp_path / "two"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    for arguments in ([*common, str(tmp_path / "one")], launch):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
    one, two = (load_json(tmp_path / name / "training_log.json") for name in ("one", "two"))
    assert len(two["history"]) == 2
    for a, b in zip(one["history"], two["history"], strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-4)
        assert b["val_loss"] == pytest.approx(a["val_loss"], rel=1e-4)
    assert two["best_epoch"] == one["best_epoch"]
    # With frozen norms the runs differ by the order of sums alone, down to their weights.
    alone, together = (
        load_checkpoint(tmp_path / name / "models" / "best.pth").weights for name in ("one", "two")
    )
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-2, atol=1e-4)
    assert torch.equal(together["stem.1.running_mean"], torch.zeros(6))
