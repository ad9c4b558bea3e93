"""The smoke test: 10 records through the whole pipeline, with a check after each step."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from src.config import (
    STANDARD_LEADS,
    Config,
    DataConfig,
    ExecutionConfig,
    LoaderConfig,
    TrainConfig,
)
from src.dataloaders import DataLoaders, build_dataloaders
from src.eval import evaluate
from src.model import build_model
from src.preprocessing import RunSummary, run_preprocessing
from src.processed.manifest import load_manifest
from src.processed.record_files import load_record_file, record_key, record_path, to_millivolts
from src.processed.targets import find_classes, load_records
from src.records.sample_collections import write_sample_collections
from src.training import TrainResult, build_card, run_training
from src.utils import temporary_folder

logger = logging.getLogger(__name__)

N_RECORDS = 10


class SmokeError(RuntimeError):
    """A step of the smoke test with a wrong result."""


@dataclass(frozen=True)
class SmokeReport:
    """The passed steps of a smoke test, each with its result."""

    steps: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"ok  {step}" for step in self.steps]
        lines.append(f"smoke test passed: {len(self.steps)} steps")
        return "\n".join(lines)


def run_smoke(
    config: Config | None = None, data: DataConfig | None = None, mapping: str | Path | None = None
) -> SmokeReport:
    """Take 10 records through the whole pipeline in a temporary folder.

    Parameters
    ----------
    config
        Its `preprocess` and `model` settings are used; the training settings are small instead.
    data, mapping
        Collections and label mapping; by default 10 generated recordings. Without a mapping the
        records get the fallback label, which this test trains on.

    Raises
    ------
    SmokeError
        If a step has a wrong result.
    ValueError
        If a folder or the mapping is wrong.
    """
    config = config or Config()
    with temporary_folder() as folder:
        if data is None or not data.roots:
            sample = write_sample_collections(folder / "data", n_records=N_RECORDS)
            data = DataConfig(roots={name: str(root) for name, root in sample.data.items()})
            mapping = sample.mapping
        # Ten records cannot bring each label and collection to three splits: that is no news.
        with _errors_only("src.processed.splits", "src.eval"):
            return _run_steps(config, data, mapping, folder)


def _run_steps(
    config: Config, data: DataConfig, mapping: str | Path | None, folder: Path
) -> SmokeReport:
    processed = folder / "processed"
    out = folder / "run"
    steps: list[str] = []

    def passed(text: str) -> None:
        logger.info("ok  %s", text)
        steps.append(text)

    # Preprocess.
    summary = run_preprocessing(
        data,
        processed,
        mapping=mapping,
        config=config.preprocess,
        execution=ExecutionConfig(workers=1),
        limit=N_RECORDS,
    )
    n_ok = _check_summary(summary)
    passed(f"read and preprocessed {n_ok} of {summary.n_records} records")
    _check_record_files(processed, config)
    passed(
        f"{n_ok} record files are valid: (12, {config.preprocess.n_samples}), z-scored, "
        "in mV again within rounding"
    )

    # Load and run the network.
    config = _shrink_training(config, processed)
    loaders = build_dataloaders(config, processed)
    passed(f"batches load: {_check_batch(loaders, config)}, {_list_classes(loaders.classes)}")
    passed(f"forward pass: {_check_forward(loaders, config)}")

    # Train and evaluate.
    result = run_training(config, processed, out, loaders=loaders)
    passed(f"training runs and its loss falls: {_check_loss(result)}")
    split = next((name for name in ("test", "val", "train") if len(loaders.records[name])), "train")
    evaluation = evaluate(result.best_path, processed, split=split, out=out, keep_other=True)
    f1 = evaluation.metrics["f1_macro"]
    _require(f1 is not None and math.isfinite(f1), f"macro F1 of split {split} is {f1}")
    passed(f"metrics come out: macro F1 {f1:.3f} on split {split}")
    return SmokeReport(tuple(steps))


@contextmanager
def _errors_only(*names: str) -> Iterator[None]:
    """Silence the warnings of modules meanwhile."""
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SmokeError(f"smoke test failed: {message}")


def _check_summary(summary: RunSummary) -> int:
    """Require two processed records, and return their number."""
    n_ok = summary.by_status.get("ok", 0)
    reasons = "; ".join(f"{n} x {reason}" for reason, n in summary.reasons.items())
    _require(
        n_ok >= 2,
        f"{n_ok} of {summary.n_records} records could be processed, expected 2 or more "
        f"({reasons or 'no others'})",
    )
    return n_ok


def _shrink_training(config: Config, processed: Path) -> Config:
    """Return training settings for a few records; a single class is trained against its absence."""
    records = load_records(processed, keep_other=True)["train"]
    target = "auto" if len(find_classes(records)) > 1 else "multi"
    train = TrainConfig(
        epochs=6,
        lr=1e-3,
        warmup_fraction=0.0,
        patience=0,
        keep_other=True,
        target=target,
        device="cpu",
        amp="off",
    )
    return replace(config, train=train, loader=LoaderConfig(batch_size=4, balanced_sampling=False))


def _check_record_files(processed: Path, config: Config) -> None:
    manifest = load_manifest(processed)
    ok = manifest[manifest["status"] == "ok"]
    for dataset, record_id in zip(ok["dataset"], ok["record_id"], strict=True):
        path = record_path(processed, record_key(dataset, record_id))
        arrays = load_record_file(path)
        signal = arrays["signal"]  # (n_leads, n_samples)
        n_valid = int(arrays["n_valid"])
        _require(
            signal.shape == (len(STANDARD_LEADS), config.preprocess.n_samples),
            f"{path}: signal is {signal.shape}",
        )
        _require(
            signal.dtype == np.float32 and bool(np.isfinite(signal).all()),
            f"{path}: signal is not finite float32",
        )
        is_live = arrays["lead_std"] > 0
        std = signal[is_live, :n_valid].std(axis=1)
        is_standardized = bool(np.allclose(std, 1, atol=1e-3))
        _require(is_standardized, f"{path}: leads are not z-scored (std {std})")
        _require(bool(np.isfinite(to_millivolts(arrays)).all()), f"{path}: voltages are not finite")


def _check_batch(loaders: DataLoaders, config: Config) -> str:
    batch = next(iter(loaders.train))
    shape = tuple(batch.signal.shape)
    _require(
        shape[1:]
        == (len(STANDARD_LEADS), loaders.view.crop_samples or config.preprocess.n_samples),
        f"a batch has shape {shape}",
    )
    _require(bool(torch.isfinite(batch.signal).all()), "a batch is not finite")
    return f"{shape[0]} x {shape[1]} leads x {shape[2]} samples"


def _list_classes(classes: tuple[str, ...]) -> str:
    noun = "class" if len(classes) == 1 else "classes"
    return f"{len(classes)} {noun} ({', '.join(classes)})"


def _check_forward(loaders: DataLoaders, config: Config) -> str:
    batch = next(iter(loaders.train))
    model = build_model(build_card(config, loaders, config.preprocess)).eval()
    with torch.inference_mode():
        logits = model(batch.signal)
    _require(
        logits.shape == batch.target.shape,
        f"logits have shape {tuple(logits.shape)}, targets {tuple(batch.target.shape)}",
    )
    _require(bool(torch.isfinite(logits).all()), "logits are not finite")
    return f"{logits.shape[0]} x {logits.shape[1]} finite logits"


def _check_loss(result: TrainResult) -> str:
    losses = [float(row["train_loss"] or 0.0) for row in result.history]
    _require(
        all(map(math.isfinite, losses)) and min(losses[1:]) < losses[0],
        f"training loss does not fall: {losses}",
    )
    return f"{losses[0]:.3f} to {min(losses[1:]):.3f} in {len(losses)} epochs"
