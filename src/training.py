"""Fitting: loss, optimizer, schedule, mixed precision, early stopping, checkpoints, resume."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.augment import drop_leads, mix_records
from src.checkpoints import (
    ModelCard,
    build_model,
    load_checkpoint,
    restore_rng_state,
    rng_state,
    save_checkpoint,
)
from src.config import Config, PreprocessConfig, TrainConfig, config_paths
from src.dataloaders import DataLoaders, build_dataloaders
from src.eval import predict
from src.metrics import Predictions, compute_metrics
from src.model import ResNet1d, count_parameters
from src.preprocessing import load_preprocess_config
from src.utils import device_info, environment, load_json, save_json, seed_everything, to_jsonable

logger = logging.getLogger(__name__)

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


# The pieces ----------------------------------------------------------------------------------------------------------


def make_loss(single_label: bool, label_smoothing: float = 0.0) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a loss of logits (B, n_classes) and targets (B, n_classes) with NaN where not annotated.

    Cross-entropy for one label per record, with the logits of unannotated classes left out of the softmax; else binary
    cross-entropy over the annotated entries.
    """

    def cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        unknown = target.isnan()
        shares = target.nan_to_num()  # one-hot, or two classes where records are blended
        uniform = ~unknown / (~unknown).sum(dim=1, keepdim=True).clamp(min=1)
        shares = shares * (1 - label_smoothing) + uniform * label_smoothing
        return nn.functional.cross_entropy(logits.masked_fill(unknown, torch.finfo(logits.dtype).min / 2), shares)

    def binary_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        known = ~target.isnan()
        soft = target.nan_to_num() * (1 - label_smoothing) + 0.5 * label_smoothing
        loss = nn.functional.binary_cross_entropy_with_logits(logits, soft, reduction="none")
        return (loss * known).sum() / known.sum().clamp(min=1)

    return cross_entropy if single_label else binary_cross_entropy


def make_optimizer(model: nn.Module, lr: float, weight_decay: float, fused: bool = True) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter, ICLR 2019) that decays matrices and kernels, not biases and norms."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, fused=fused)


def cosine_with_warmup(step: int, n_steps: int, warmup: int) -> float:
    """Return the factor of the learning rate: a linear rise over `warmup` steps, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, n_steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


# The loop ------------------------------------------------------------------------------------------------------------


@dataclass
class TrainState:
    """Everything that changes while a model is fitted."""

    model: ResNet1d
    optimizer: torch.optim.AdamW
    scheduler: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler
    average: torch.optim.swa_utils.AveragedModel | None
    epoch: int = 0
    best_epoch: int = 0
    best_metric: float = -math.inf
    history: list[dict[str, float | int | None]] = field(default_factory=list)

    @property
    def judged(self) -> ResNet1d:
        """The network that validates and is kept: the average of the weights where one is made."""
        judged = self.average.module if self.average is not None else self.model
        assert isinstance(judged, ResNet1d)
        return judged

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() | {"lr_lambdas": None},  # a function is no plain value
            "scaler": self.scaler.state_dict(),
            "rng": rng_state(),
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_metric": self.best_metric,
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"] | {"lr_lambdas": [None] * len(self.scheduler.lr_lambdas)})
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.best_epoch = state["epoch"], state["best_epoch"]
        self.best_metric, self.history = state["best_metric"], list(state["history"])
        restore_rng_state(state["rng"])


@dataclass(frozen=True)
class TrainResult:
    """What a training run left: the network that did best on validation, its history and where it is kept."""

    model: ResNet1d
    card: ModelCard
    history: list[dict[str, float | int | None]]
    best_epoch: int
    best_metric: float
    metric_name: str
    best_path: Path

    def __str__(self) -> str:
        return f"best epoch {self.best_epoch} of {len(self.history)}: {self.metric_name} {self.best_metric:.4f} ({self.best_path})"


def train_epoch(
    state: TrainState,
    loaders: DataLoaders,
    loss_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    device: str,
    autocast: Callable[[], AbstractContextManager[Any]],
    config: TrainConfig,
    on_batch: Callable[[int], None] = lambda n: None,
) -> float:
    """Go once over the training records; returns the mean loss per record."""
    state.model.train()
    total = torch.zeros((), device=device, dtype=torch.float64)
    n_seen = 0
    for batch in loaders.train:
        signal = drop_leads(batch.signal.to(device, non_blocking=True), config.lead_dropout)  # (B, n_leads, T)
        target = batch.target.to(device, non_blocking=True)  # (B, n_classes)
        signal, target = mix_records(signal, target, config.mixup)
        with autocast():
            loss = loss_fn(state.model(signal).float(), target)
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if config.clip_norm:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.scheduler.step()
        if state.average is not None:
            state.average.update_parameters(state.model)
        total += loss.detach() * len(signal)  # stays on the device: no wait for it in the step
        n_seen += len(signal)
        on_batch(len(signal))
    return float(total) / max(1, n_seen)


def validate(
    model: nn.Module,
    loaders: DataLoaders,
    loss_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    device: str,
    crop_samples: int,
) -> dict[str, float | None]:
    """Return loss, macro F1 and macro AUROC on the validation records; nothing when there are none."""
    if loaders.val is None:
        return {"val_loss": None, "val_f1_macro": None, "val_auroc_macro": None}
    logits, targets = predict(model, loaders.val, device=device, crop_samples=crop_samples)
    loss = float(loss_fn(logits, targets))
    metrics = compute_metrics(to_predictions(logits, targets, loaders, "val"))
    return {"val_loss": loss, "val_f1_macro": metrics["f1_macro"], "val_auroc_macro": metrics["auroc_macro"]}


def to_predictions(logits: torch.Tensor, targets: torch.Tensor, loaders: DataLoaders, split: str) -> Predictions:
    """Return the `Predictions` of a split from its logits."""
    scores = logits.softmax(dim=1) if loaders.single_label else logits.sigmoid()
    return Predictions(
        keys=loaders.records[split].keys,
        y_true=targets.numpy(),
        y_score=scores.double().numpy(),
        classes=loaders.classes,
        single_label=loaders.single_label,
    )


def fit(
    model: ResNet1d,
    loaders: DataLoaders,
    card: ModelCard,
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    on_epoch: Callable[[dict[str, float | int | None]], None] | None = None,
) -> TrainResult:
    """Fit `model` and keep ``best.pth`` and ``latest.pth`` under ``out/models``, and ``out/training_log.json``.

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
        Go on from ``latest.pth`` where there is one; the result is the same, bit for bit on a CPU, as without the break.
    on_epoch
        Called with each row of the history.

    Raises
    ------
    ValueError
        If ``latest.pth`` belongs to another task, or the loss is not finite.
    """
    info = device_info(config.device)
    amp = _amp_dtype(config.amp, info.amp_dtype)
    state = _start(model.to(info.device), len(loaders.train), config, amp)
    log = _new_log(card, config, loaders, info, amp)
    latest, best = out / "models" / "latest.pth", out / "models" / "best.pth"
    if resume and latest.exists():
        _resume(state, latest, card)
    metric = "val_f1_macro" if loaders.single_label else "val_auroc_macro"
    loss_fn = make_loss(loaders.single_label, config.label_smoothing)
    kind = info.device.split(":")[0]

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast(kind, dtype=amp, enabled=amp is not None)

    while state.epoch < config.epochs and not _is_stale(state, config):
        start = time.perf_counter()
        rate = float(state.scheduler.get_last_lr()[0])
        _order_epoch(loaders, config.seed, state.epoch)
        loss = train_epoch(
            state, loaders, loss_fn, device=info.device, autocast=autocast, config=config
        )
        if not math.isfinite(loss):
            raise ValueError(f"training loss is {loss} in epoch {state.epoch + 1}: try a smaller --lr (now {config.lr:g})")
        scores = validate(state.judged, loaders, loss_fn, device=info.device, crop_samples=card.crop_samples)
        state.epoch += 1
        seconds = round(time.perf_counter() - start, 3)
        row = {"epoch": state.epoch, "train_loss": loss, **scores, "lr": rate, "seconds": seconds}
        state.history.append(row)
        if _is_better(scores[metric], state, loaders.val is None):
            state.best_epoch, state.best_metric = state.epoch, scores[metric] if scores[metric] is not None else -loss  # type: ignore[assignment]
            save_checkpoint(best, card, state.judged.state_dict(), {"epoch": state.epoch, "best_metric": state.best_metric, "metric": metric})
        save_checkpoint(latest, card, state.judged.state_dict(), state.state_dict())
        save_json({**log, "history": state.history, "best_epoch": state.best_epoch, "best_metric": state.best_metric,
                   "best_metric_name": metric, "stopped": "early" if _is_stale(state, config) else "finished"}, out / "training_log.json")  # fmt: skip
        logger.info("epoch %d/%d  %s", state.epoch, config.epochs, _format_row(row))
        if on_epoch is not None:
            on_epoch(row)
    kept = load_checkpoint(best)
    model.load_state_dict(kept.weights)
    return TrainResult(model.eval(), card, state.history, state.best_epoch, state.best_metric, metric, best)


def _start(model: ResNet1d, n_batches: int, config: TrainConfig, amp: torch.dtype | None) -> TrainState:
    device = next(model.parameters()).device.type
    optimizer = make_optimizer(model, config.lr, config.weight_decay, fused=device in ("cpu", "cuda"))
    n_steps = config.epochs * n_batches
    warmup = int(config.warmup_fraction * n_steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_with_warmup(step, n_steps, warmup))
    scaler = torch.amp.GradScaler(device, enabled=amp is torch.float16)
    average = None
    if config.ema_decay:
        average_fn = torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
        average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average_fn, use_buffers=True)
    return TrainState(model, optimizer, scheduler, scaler, average)


def _amp_dtype(setting: str, best: str | None) -> torch.dtype | None:
    """Return the reduced precision to compute in, or None for full precision."""
    if setting == "auto":
        return getattr(torch, best) if best else None
    return AMP_DTYPES.get(setting)


def _resume(state: TrainState, latest: Path, card: ModelCard) -> None:
    checkpoint = load_checkpoint(latest)
    if checkpoint.card.classes != card.classes or checkpoint.card.model != card.model:
        raise ValueError(
            f"{latest}: was trained on classes {', '.join(checkpoint.card.classes)}, this run has {', '.join(card.classes)}; "
            "choose another --out, or start anew without --resume"
        )
    state.load_state_dict(checkpoint.state)
    logger.info("%s: going on after epoch %d", latest, state.epoch)


def _order_epoch(loaders: DataLoaders, seed: int, epoch: int) -> None:
    """Seed the order of an epoch by its number, so that a resumed run draws what an uninterrupted one would."""
    generator = loaders.train.generator
    if generator is not None:
        generator.manual_seed(seed * 1_000_003 + epoch)
    sampler = getattr(loaders.train.sampler, "generator", None)
    if sampler is not None and sampler is not generator:
        sampler.manual_seed(seed * 1_000_003 + epoch)


def _is_stale(state: TrainState, config: TrainConfig) -> bool:
    return bool(config.patience) and state.epoch - state.best_epoch >= config.patience


def _is_better(metric: float | None, state: TrainState, no_validation: bool) -> bool:
    """Without validation, or where its metric is undefined, the latest epoch is kept."""
    if metric is None:
        return no_validation or not math.isfinite(state.best_metric) or state.best_metric < 0
    return metric > state.best_metric


def _new_log(card: ModelCard, config: TrainConfig, loaders: DataLoaders, info: Any, amp: torch.dtype | None) -> dict[str, Any]:
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "device": asdict(info),
        "amp": str(amp).removeprefix("torch.") if amp else "off",
        "config": card.config,
        "classes": card.classes,
        "single_label": card.single_label,
        "loss": "cross-entropy" if card.single_label else "binary cross-entropy",
        "n_parameters": count_parameters(build_model(card)),
        "n_train": len(loaders.records["train"]),
        "n_val": len(loaders.records["val"]),
    }


def _format_row(row: dict[str, float | int | None]) -> str:
    shown = ("train_loss", "val_loss", "val_f1_macro", "val_auroc_macro", "seconds")
    return "  ".join(f"{name} {row[name]:.4g}" for name in shown if row[name] is not None)


# From a configuration ------------------------------------------------------------------------------------------------


def build_card(config: Config, loaders: DataLoaders, preprocess: PreprocessConfig) -> ModelCard:
    """Return the card of a model to be trained with `config` on these loaders."""
    return ModelCard(
        classes=loaders.classes,
        single_label=loaders.single_label,
        model=config.model,
        preprocess=preprocess,
        leads=loaders.view.leads,
        normalization=loaders.view.normalization,
        crop_samples=loaders.view.crop_samples,
        config=to_jsonable(config),
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
    """
    paths = config_paths(config)
    processed = Path(processed) if processed is not None else paths.processed
    out = Path(out) if out is not None else paths.artifacts
    seed_everything(config.train.seed, config.train.deterministic)
    loaders = loaders or build_dataloaders(config, processed)
    card = build_card(config, loaders, load_preprocess_config(processed))
    model = model or build_model(card)
    logger.info("%s", loaders)
    logger.info("training %d parameters on %s", count_parameters(model), device_info(config.train.device).device)
    return fit(model, loaders, card, config.train, out, resume=resume)


def compare_runs(runs: list[str | Path]) -> list[dict[str, Any]]:
    """Return one row per run from its ``training_log.json``, and ``metrics_test.json`` where it has one.

    Raises
    ------
    ValueError
        If a run has no log.
    """
    rows = []
    for run in map(Path, runs):
        if not (run / "training_log.json").exists():
            raise ValueError(f"{run}: no training_log.json here; expected the folder of a training run")
        log = load_json(run / "training_log.json")
        row = {"run": run.name, "epochs": len(log["history"]), "best_epoch": log["best_epoch"], log["best_metric_name"]: log["best_metric"]}
        row["minutes"] = round(sum(epoch["seconds"] for epoch in log["history"]) / 60, 2)
        for path in sorted(run.glob("metrics_*.json")):
            metrics = load_json(path)
            split = path.stem.removeprefix("metrics_")
            row |= {f"{split}_{name}": metrics[name] for name in ("f1_macro", "auroc_macro", "accuracy")}
        rows.append(row)
    return rows
