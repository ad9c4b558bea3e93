"""The 10-record check: read, preprocess, batch, forward, train, evaluate, each step held to what it
must give.
"""

from __future__ import annotations

import logging
import math
import tempfile
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
from src.preprocessing import run_preprocessing
from src.processed.manifest import load_manifest
from src.processed.record_files import load_record_file, record_key, record_path, to_millivolts
from src.processed.targets import find_classes, load_records
from src.records.sample_collections import write_sample_collections
from src.training import TrainResult, build_card, run_training

logger = logging.getLogger(__name__)


N_RECORDS = 10


class SmokeError(RuntimeError):
    """A step of the check that did not give what it must."""


@dataclass(frozen=True)
class SmokeReport:
    """The steps that were passed, each with what was seen."""

    steps: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(
            [*(f"ok  {step}" for step in self.steps), f"smoke test passed: {len(self.steps)} steps"]
        )


def run_smoke(
    config: Config | None = None, data: DataConfig | None = None, mapping: str | Path | None = None
) -> SmokeReport:
    """Take 10 records through the whole pipeline in a temporary folder.

    Parameters
    ----------
    config
        Its `preprocess` and `model` settings are used; the rest is small on purpose.
    data, mapping
        Collections and label table; by default 10 generated recordings. No mapping is needed:
        records then carry the fallback label, which this check keeps.

    Raises
    ------
    SmokeError
        If a step does not give what it must.
    ValueError
        If a folder or the mapping is wrong.
    """
    config = config or Config()
    with tempfile.TemporaryDirectory(prefix="ecg-smoke-") as folder:
        if data is None or not data.roots:
            sample = write_sample_collections(Path(folder) / "data", n_records=N_RECORDS)
            data, mapping = (
                DataConfig(roots={name: str(root) for name, root in sample.data.items()}),
                sample.mapping,
            )
        return _run_steps(config, data, mapping, Path(folder))


def _run_steps(
    config: Config, data: DataConfig, mapping: str | Path | None, folder: Path
) -> SmokeReport:
    processed, out = folder / "processed", folder / "run"
    steps: list[str] = []

    def passed(text: str) -> None:
        logger.info("ok  %s", text)
        steps.append(text)

    summary = run_preprocessing(
        data,
        processed,
        mapping=mapping,
        config=config.preprocess,
        execution=ExecutionConfig(workers=1),
        limit=N_RECORDS,
    )
    n_ok = summary.by_status.get("ok", 0)
    reasons = "; ".join(f"{n} x {reason}" for reason, n in summary.reasons.items())
    _require(
        n_ok >= 2,
        f"{n_ok} of {summary.n_records} records could be processed, expected 2 or more "
        f"({reasons or 'no others'})",
    )
    passed(f"read and preprocessed {n_ok} of {summary.n_records} records")
    _check_record_files(processed, config)
    passed(
        f"{n_ok} record files are valid: (12, {config.preprocess.n_samples}), z-scored, "
        "in mV again within rounding"
    )
    config = _small(config, processed)
    loaders = build_dataloaders(config, processed)
    passed(f"batches load: {_check_batch(loaders, config)}, {_count(loaders.classes)}")
    passed(f"forward pass: {_check_forward(loaders, config)}")
    result = run_training(config, processed, out, loaders=loaders)
    passed(f"training runs and its loss falls: {_check_loss(result)}")
    split = next((name for name in ("test", "val", "train") if len(loaders.records[name])), "train")
    evaluation = evaluate(result.best_path, processed, split=split, out=out, keep_other=True)
    f1 = evaluation.metrics["f1_macro"]
    _require(f1 is not None and math.isfinite(f1), f"macro F1 of split {split} is {f1}")
    passed(f"metrics come out: macro F1 {f1:.3f} on split {split}")
    return SmokeReport(tuple(steps))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SmokeError(f"smoke test failed: {message}")


def _small(config: Config, processed: Path) -> Config:
    """Return settings for a handful of records; one class alone is trained as present against
    absent.
    """
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
    for dataset, record_id in manifest.loc[
        manifest["status"] == "ok", ["dataset", "record_id"]
    ].itertuples(index=False):
        path = record_path(processed, record_key(dataset, record_id))
        arrays = load_record_file(path)
        signal, valid = arrays["signal"], int(arrays["n_valid"])
        _require(
            signal.shape == (len(STANDARD_LEADS), config.preprocess.n_samples),
            f"{path}: signal is {signal.shape}",
        )
        _require(
            signal.dtype == np.float32 and bool(np.isfinite(signal).all()),
            f"{path}: signal is not finite float32",
        )
        live = arrays["lead_std"] > 0
        spread = signal[live, :valid].std(axis=1)
        _require(
            bool(np.allclose(spread, 1, atol=1e-3)),
            f"{path}: leads are not z-scored (std {spread})",
        )
        _require(bool(np.isfinite(to_millivolts(arrays)).all()), f"{path}: voltages are not finite")


def _check_batch(loaders: DataLoaders, config: Config) -> str:
    batch = next(iter(loaders.train))
    shape = tuple(batch.signal.shape)
    _require(
        shape[1:] == (len(STANDARD_LEADS), config.preprocess.n_samples),
        f"a batch has shape {shape}",
    )
    _require(bool(torch.isfinite(batch.signal).all()), "a batch is not finite")
    return f"{shape[0]} x {shape[1]} leads x {shape[2]} samples"


def _count(classes: tuple[str, ...]) -> str:
    return f"{len(classes)} {'class' if len(classes) == 1 else 'classes'} ({', '.join(classes)})"


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
