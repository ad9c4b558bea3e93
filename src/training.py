"""Fitting: epochs over the loaders, mixed precision, early stopping, checkpoints, resume."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from src.config import Config, PreprocessConfig, TrainConfig, config_paths
from src.dataloaders import DataLoaders, build_dataloaders
from src.eval import predict
from src.learning.augment import drop_leads, mix_records
from src.learning.checkpoints import ModelCard, load_checkpoint, save_checkpoint
from src.learning.distributed import Processes, join_processes
from src.learning.leaks import warn_trained_on
from src.learning.metrics import compute_metrics
from src.learning.optimization import (
    HistoryRow,
    Loss,
    TrainState,
    make_loss,
    start_training,
    with_auxiliary,
)
from src.learning.predictions import Predictions
from src.learning.tensorboard_log import log_epochs
from src.model import (
    MIN_SAMPLES,
    ResNet1d,
    build_model,
    count_parameters,
    kept_weights,
    start_from,
    to_scores,
)
from src.processed.datasets import Batch
from src.processed.files import remove_leftovers
from src.processed.locks import lock_folder
from src.processed.manifest import load_preprocess_config
from src.processed.mirror import local_copy
from src.processed.runs.log import environment, log_run
from src.processed.targets import LabelledRecords
from src.utils import (
    DeviceInfo,
    Rich,
    device_info,
    html_facts,
    html_table,
    keep_freed_memory,
    printable,
    save_json,
    seed_everything,
    shown_path,
    stable_hash,
    to_jsonable,
)

logger = logging.getLogger(__name__)


_SHOWN = ("train_loss", "val_loss", "val_f1_macro", "val_auroc_macro", "seconds")
AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainResult(Rich):
    """What a training run left: the network that did best on validation, its history and where it
    is kept.
    """

    model: ResNet1d
    card: ModelCard
    history: list[HistoryRow]
    best_epoch: int
    best_metric: float | None
    metric_name: str
    best_path: Path

    def __str__(self) -> str:
        score = "undefined" if self.best_metric is None else f"{self.best_metric:.4f}"
        return (
            f"best epoch {self.best_epoch} of {len(self.history)}: {self.metric_name} {score} "
            f"({shown_path(self.best_path)})"
        )

    def _repr_html_(self) -> str:
        facts = {
            "best epoch": self.best_epoch,
            "of": len(self.history),
            self.metric_name: self.best_metric,
            "kept in": shown_path(self.best_path),
        }
        rows = [[row[name] for name in ("epoch", *_SHOWN)] for row in self.history]
        return html_facts(facts) + html_table(
            [name.replace("_", " ") for name in ("epoch", *_SHOWN)], rows
        )


def train_epoch(
    state: TrainState,
    batches: Iterable[Batch],
    loss_fn: Loss,
    config: TrainConfig,
    *,
    device: str = "cpu",
    amp: torch.dtype | None = None,
) -> float:
    """Go once over the training batches; returns the mean loss per record.

    Parameters
    ----------
    state
        Changed in place.
    batches
        The training loader.
    loss_fn
        Of logits and targets.
    config
        Clipping and augmentation.
    device
        Where the model is.
    amp
        Reduced precision to compute the network in, or None.
    """
    state.network.train()
    if config.freeze_norm:
        freeze_norms(state.model)
    total = torch.zeros(
        (), device=device, dtype=torch.float32 if device.startswith("mps") else torch.float64
    )  # MPS has no doubles
    n_seen = 0
    for batch in batches:
        signal = drop_leads(
            batch.signal.to(device, non_blocking=True), config.lead_dropout
        )  # (B, n_leads, T)
        target = batch.target.to(device, non_blocking=True)  # (B, n_classes)
        signal, target = mix_records(signal, target, config.mixup)
        with torch.autocast(device.split(":")[0], dtype=amp, enabled=amp is not None):
            logits = state.network(signal)
        loss = loss_fn(logits.float(), target)
        state.step(loss, config.clip_norm)
        total += loss.detach() * len(signal)  # stays on the device: no wait for it in the step
        n_seen += len(signal)
    return float(total) / max(1, n_seen)


def freeze_norms(model: nn.Module) -> None:
    """Put the batch norms into evaluation mode, so that their statistics stay."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def validate(
    model: nn.Module,
    loaders: DataLoaders,
    loss_fn: Loss,
    *,
    device: str = "cpu",
    crop_samples: int = 0,
) -> dict[str, float | None]:
    """Return loss, macro F1 and macro AUROC on the validation records; nothing when there are
    none.
    """
    if loaders.val is None:
        return {"val_loss": None, "val_f1_macro": None, "val_auroc_macro": None}
    logits, targets = predict(model, loaders.val, device=device, crop_samples=crop_samples)
    logits = logits[:, : len(loaders.classes)]  # the auxiliary outputs only teach
    predictions = Predictions(
        keys=loaders.records["val"].keys,
        y_true=targets.numpy(),
        y_score=to_scores(logits, loaders.single_label),
        classes=loaders.classes,
        single_label=loaders.single_label,
    )
    metrics = compute_metrics(predictions)
    return {
        "val_loss": float(loss_fn(logits, targets)),
        "val_f1_macro": metrics["f1_macro"],
        "val_auroc_macro": metrics["auroc_macro"],
    }


def fit(
    model: ResNet1d,
    loaders: DataLoaders,
    card: ModelCard,
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    on_epoch: Callable[[HistoryRow], None] | None = None,
    processes: Processes | None = None,
) -> TrainResult:
    """Fit `model` and keep ``best.pth`` and ``latest.pth`` under ``out/models``, and
    ``out/training_log.json``.

    Parameters
    ----------
    model
        Changed in place.
    loaders
        Batches; without a validation split the last epoch is kept.
    card
        Stored in the checkpoints.
    config
        How to fit.
    out
        The run's folder.
    resume
        Go on from ``latest.pth`` where there is one; the result is the same, bit for bit on a CPU,
        as without the break.
    on_epoch
        Called with each row of the history.
    processes
        Those that train together, where there are several; the main one validates and writes.

    Raises
    ------
    ValueError
        If ``latest.pth`` belongs to another task, or the loss is not finite.
    """
    processes = processes or Processes()
    info = device_info(config.device)
    if info.device.startswith("cpu"):
        keep_freed_memory(2**30)
    amp = _amp_dtype(config.amp, info.amp_dtype)
    state = start_training(
        model.to(info.device),
        len(loaders.train),
        config,
        amp=amp,
        processes=processes,
        example=torch.zeros(2, model.n_leads, MIN_SAMPLES, device=info.device),
    )
    files = _RunFiles(
        out,
        card,
        _new_log(model, card, config, loaders, info, amp),
        best_metric_name(loaders.single_label),
    )
    if resume and files.latest.exists():
        _resume(state, files.latest, card)
        if processes.is_main:
            files.keep(state, config)  # the run may have ended between its files
    elif processes.is_main:
        files.latest.unlink(
            missing_ok=True
        )  # of another run, from which a resume would not go on with this one
    loss_fn = train_loss = make_loss(loaders.single_label, config.label_smoothing)
    if loaders.auxiliary:
        train_loss = with_auxiliary(loss_fn, len(loaders.classes), config.auxiliary_weight)
    while state.epoch < config.epochs and not _is_stale(state, config):
        start, rate = time.perf_counter(), float(state.schedulers[0].get_last_lr()[0])
        batches = _batches_of(loaders, config, state.epoch)
        _order_epoch(batches, config.seed, state.epoch, processes)
        loss = train_epoch(state, batches, train_loss, config, device=info.device, amp=amp)
        loss = float(processes.mean(torch.tensor(loss, device=info.device)))
        if not math.isfinite(loss):
            raise ValueError(
                f"training loss is {loss} in epoch {state.epoch + 1}: try a smaller --lr "
                f"(now {config.lr:g})"
            )
        scores: dict[str, float | None] = {}
        if processes.is_main:
            scores = validate(
                state.evaluated,
                loaders,
                loss_fn,
                device=info.device,
                crop_samples=card.crop_samples,
            )
        scores = processes.share(scores)
        row: HistoryRow = {
            "epoch": state.epoch + 1,
            "train_loss": loss,
            **scores,
            "lr": rate,
            "seconds": round(time.perf_counter() - start, 3),
        }
        state.end_epoch(row, files.metric_name, has_validation=loaders.val is not None)
        if processes.is_main:
            files.keep(state, config)
        logger.info("epoch %d/%d  %s", state.epoch, config.epochs, _format_row(row))
        if on_epoch is not None:
            on_epoch(row)
    processes.wait()
    model.keep_outputs(len(card.classes))
    model.load_state_dict(load_checkpoint(files.best).weights)
    score = state.best_score(files.metric_name)
    return TrainResult(
        model.eval(), card, state.history, state.best_epoch, score, files.metric_name, files.best
    )


def best_metric_name(single_label: bool) -> str:
    """Return which column of the history decides what is best."""
    return "val_f1_macro" if single_label else "val_auroc_macro"


@dataclass(frozen=True)
class _RunFiles:
    """What a run leaves on disk after each epoch."""

    out: Path
    card: ModelCard
    log: dict[str, Any]
    metric_name: str

    @property
    def latest(self) -> Path:
        return self.out / "models" / "latest.pth"

    @property
    def best(self) -> Path:
        return self.out / "models" / "best.pth"

    def keep(self, state: TrainState, config: TrainConfig) -> None:
        """Write the checkpoints and the log, the latest one first: it holds what the others are
        made of.
        """
        weights = kept_weights(state.evaluated, len(self.card.classes))
        score = state.best_score(self.metric_name)
        summary = {
            "best_epoch": state.best_epoch,
            "best_metric": score,
            "best_metric_name": self.metric_name,
        }
        save_checkpoint(self.latest, self.card, weights, state.state_dict())
        if state.best_epoch == state.epoch:
            save_checkpoint(self.best, self.card, weights, {"epoch": state.epoch, **summary})
        stopped = (
            "early"
            if _is_stale(state, config)
            else "finished"
            if state.epoch >= config.epochs
            else "not yet"
        )
        save_json(
            {**self.log, "history": state.history, **summary, "stopped": stopped},
            self.out / "training_log.json",
        )


def _amp_dtype(setting: str, best: str | None) -> torch.dtype | None:
    """Return the reduced precision to compute in, or None for full precision."""
    if setting == "auto":
        return getattr(torch, best) if best else None
    return AMP_DTYPES.get(setting)


_KEPT = ("lr", "muon_lr", "weight_decay", "warmup_fraction")
"""Settings that the state of the optimizers and schedules holds, so that others would stand in the
log and do nothing.
"""


def _resume(state: TrainState, latest: Path, card: ModelCard) -> None:
    """Go on from a checkpoint of the same run.

    Raises
    ------
    ValueError
        If it is of another network or input, or learned from recordings that this run does not
        train on and may judge.
    """
    checkpoint = load_checkpoint(latest)
    there, again = checkpoint.card, "choose another --out, or start anew without --resume"
    if there.classes != card.classes:
        raise ValueError(
            f"{latest}: was trained on classes {', '.join(there.classes)}, this run has "
            f"{', '.join(card.classes)}; {again}"
        )
    names = ("single_label", "model", "preprocess", "leads", "normalization", "crop_samples")
    fitted, now = (known.config.get("train", {}) for known in (there, card))
    pairs = {name: (getattr(there, name), getattr(card, name)) for name in names} | {
        name: (fitted[name], now.get(name)) for name in _KEPT if name in fitted
    }
    if differ := [
        f"{name} {held} where this run has {wanted}"
        for name, (held, wanted) in pairs.items()
        if held != wanted
    ]:
        raise ValueError(f"{latest}: cannot be gone on with: it has {'; '.join(differ)}; {again}")
    if lost := set(there.train_hashes) - set(card.train_hashes) - {""}:
        raise ValueError(
            f"{latest}: learned from {len(lost)} recordings that this run does not train "
            f"on (other splits, parts, seed or start); {again}"
        )
    try:
        state.load_state_dict(checkpoint.state)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"{latest}: does not fit these settings, such as ema_decay, muon_lr or "
            f"auxiliary_weight ({printable(str(error))}); {again}"
        ) from None
    logger.info("%s: going on after epoch %d", latest, state.epoch)


def _batches_of(loaders: DataLoaders, config: TrainConfig, epoch: int) -> DataLoader[Batch]:
    """Return the loader of an epoch: crops first, whole records in the last ones where that is
    set.
    """
    is_late = epoch >= config.epochs - config.whole_epochs
    return loaders.whole if is_late and loaders.whole is not None else loaders.train


def _order_epoch(loader: DataLoader[Batch], seed: int, epoch: int, processes: Processes) -> None:
    """Seed the order of an epoch by its number, so that a resumed run draws what an uninterrupted
    one would.

    The order is the same in every process, while crops, dropout and augmentation differ.
    """
    if loader.generator is not None:
        loader.generator.manual_seed(seed * 1_000_003 + epoch)
    if processes.world > 1:
        torch.manual_seed((seed * 1_000_003 + epoch) * processes.world + processes.rank)


def _is_stale(state: TrainState, config: TrainConfig) -> bool:
    comes = (
        config.whole_epochs and state.epoch < config.epochs
    )  # the epochs on whole records, which the model is judged on
    return bool(config.patience) and not comes and state.epoch - state.best_epoch >= config.patience


def _new_log(
    model: ResNet1d,
    card: ModelCard,
    config: TrainConfig,
    loaders: DataLoaders,
    info: DeviceInfo,
    amp: torch.dtype | None,
) -> dict[str, Any]:
    trainable = {name for name, _ in model.named_parameters()}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "device": asdict(info),
        "amp": str(amp).removeprefix("torch.") if amp else "off",
        "config": card.config,
        "classes": card.classes,
        "single_label": card.single_label,
        "loss": "cross-entropy" if card.single_label else "binary cross-entropy",
        "n_parameters": sum(
            weights.numel()
            for name, weights in kept_weights(model, len(card.classes)).items()
            if name in trainable
        ),
        "n_train": len(loaders.records["train"]),
        "n_val": len(loaders.records["val"]),
        "data_hash": stable_hash([_identity(loaders.records[name]) for name in ("train", "val")]),
    }


def _identity(records: LabelledRecords) -> list[Any]:
    """Return what tells records from others: their names, their signals and what they are taught
    as.
    """
    return [records.keys, records.signal_hashes, records.labels, records.annotated]


def _format_row(row: HistoryRow) -> str:
    return "  ".join(f"{name} {row[name]:.4g}" for name in _SHOWN if row[name] is not None)


def build_card(config: Config, loaders: DataLoaders, preprocess: PreprocessConfig) -> ModelCard:
    """Return the card of a model to be trained with `config` on these loaders.

    Raises
    ------
    ValueError
        If the crops are too short for the network or longer than the records, or auxiliary classes
        shall stay that there are none of.
    """
    size, fs = loaders.view.crop_samples, preprocess.fs
    if size and not MIN_SAMPLES <= size <= preprocess.n_samples:
        raise ValueError(
            f"crop_s is {config.train.crop_s:g}: expected 0, or {MIN_SAMPLES / fs:g} to "
            f"{preprocess.n_samples / fs:g} s, which is {MIN_SAMPLES} to "
            f"{preprocess.n_samples} samples at {fs:g} Hz"
        )
    if config.train.keep_auxiliary and loaders.single_label:
        raise ValueError(
            "keep_auxiliary is set, but each record carries one label: expected --target multi"
        )
    kept = to_jsonable(replace(config, preprocess=preprocess))
    return ModelCard(
        classes=loaders.classes + (loaders.auxiliary if config.train.keep_auxiliary else ()),
        single_label=loaders.single_label,
        model=config.model,
        preprocess=preprocess,
        leads=loaders.view.leads,
        normalization=loaders.view.normalization,
        crop_samples=0 if config.train.whole_epochs else loaders.view.crop_samples,
        config={
            name: settings
            for name, settings in kept.items()
            if name not in ("root", "data", "splits", "execution")
        },  # of other steps, or folders
        train_hashes=tuple(loaders.records["train"].signal_hashes),
    )


def run_training(
    config: Config,
    processed: str | Path | None = None,
    out: str | Path | None = None,
    *,
    loaders: DataLoaders | None = None,
    model: ResNet1d | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train with `config` on a processed folder; `fit` says what is kept where.

    Parameters
    ----------
    config
        All settings.
    processed
        Defaults to ``artifacts/processed`` below `config.root`.
    out
        Defaults to ``artifacts`` below `config.root`.
    loaders, model
        Built from `config` where left out.
    resume
        Go on from ``latest.pth``.

    Raises
    ------
    RuntimeError
        If another run holds `out`.
    """
    paths = config_paths(config)
    processed = local_copy(processed if processed is not None else paths.processed)
    out = Path(out) if out is not None else paths.artifacts
    train, board = config.train, out / "tensorboard"
    with ExitStack() as stack:
        processes = stack.enter_context(join_processes(train.device))
        if processes.is_main:
            stack.enter_context(lock_folder(out, "train"))
            remove_leftovers([out, out / "models"])
            log = stack.enter_context(
                log_run(
                    out, "train", {"processed": processed, "resume": resume, **to_jsonable(config)}
                )
            )
        on_epoch = stack.enter_context(log_epochs(board, train.tensorboard and processes.is_main))
        seed_everything(config.train.seed, config.train.deterministic)
        if loaders is None:
            loaders = _build_loaders(config, processed, processes)
        card = build_card(config, loaders, load_preprocess_config(processed))
        model = model or build_model(
            card, len(loaders.classes) + len(loaders.auxiliary) - len(card.classes)
        )
        if config.train.init_from:
            source = load_checkpoint(config.train.init_from)
            start_from(model, source, card)
            warn_trained_on(source, loaders.records["val"].signal_hashes)
            card = replace(
                card,
                train_hashes=tuple(dict.fromkeys((*card.train_hashes, *source.card.train_hashes))),
            )
        logger.info("%s", loaders)
        logger.info(
            "training %d parameters on %s",
            count_parameters(model),
            device_info(config.train.device).device,
        )
        result = fit(
            model, loaders, card, train, out, resume=resume, on_epoch=on_epoch, processes=processes
        )
        if processes.is_main:
            log.result = _facts(result, loaders)
        return result


def _facts(result: TrainResult, loaders: DataLoaders) -> dict[str, Any]:
    """Return what the log of a run says at its end."""
    seconds = sum(float(row["seconds"] or 0) for row in result.history)
    n_train = len(loaders.records["train"])
    return {
        "records": {name: len(records) for name, records in loaders.records.items()},
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        result.metric_name: result.best_metric,
        "records_per_s": round(n_train * len(result.history) / max(seconds, 1e-9), 1),
    }


def _build_loaders(config: Config, processed: Path, processes: Processes) -> DataLoaders:
    """Build the loaders in the main process first, which makes the packed cache for all."""
    if not processes.is_main:
        processes.wait()
    loaders = build_dataloaders(config, processed, processes=processes)
    if processes.is_main:
        processes.wait()
    return loaders
