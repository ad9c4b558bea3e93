"""What a fit is made of: loss, optimizer, schedule, and the state that a checkpoint keeps to go on
from.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from src.config import TrainConfig
from src.learning.distributed import Processes
from src.learning.muon import Muon
from src.utils import restore_rng_state, rng_state

logger = logging.getLogger(__name__)


HistoryRow = dict[str, float | int | None]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def make_loss(single_label: bool, label_smoothing: float = 0.0) -> Loss:
    """Return a loss of logits (B, n_classes) and targets (B, n_classes) with NaN where not
    annotated.

    Cross-entropy for one label per record, with the logits of unannotated classes left out of the
    softmax; else binary cross-entropy over the annotated entries.
    """

    def cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        unknown = target.isnan()
        shares = target.nan_to_num()  # one-hot, or two classes where records are blended
        uniform = ~unknown / (~unknown).sum(dim=1, keepdim=True).clamp(min=1)
        shares = shares * (1 - label_smoothing) + uniform * label_smoothing
        return nn.functional.cross_entropy(
            logits.masked_fill(unknown, torch.finfo(logits.dtype).min / 2), shares
        )

    def binary_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        known = ~target.isnan()
        soft = target.nan_to_num() * (1 - label_smoothing) + 0.5 * label_smoothing
        loss = nn.functional.binary_cross_entropy_with_logits(logits, soft, reduction="none")
        return (loss * known).sum() / known.sum().clamp(min=1)

    return cross_entropy if single_label else binary_cross_entropy


def with_auxiliary(main: Loss, n_classes: int, weight: float) -> Loss:
    """Return a loss that adds to `main`, on the first `n_classes` columns, `weight` times the
    binary cross-entropy of the others.
    """
    others = make_loss(single_label=False)

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return main(logits[:, :n_classes], target[:, :n_classes]) + weight * others(
            logits[:, n_classes:], target[:, n_classes:]
        )

    return loss


def make_optimizers(
    model: nn.Module, lr: float, weight_decay: float, *, muon_lr: float = 0.0, fused: bool = True
) -> list[torch.optim.Optimizer]:
    """Return AdamW (Loshchilov and Hutter, ICLR 2019), which decays matrices and kernels, not
    biases and norms.

    With a `muon_lr`, the kernels behind the stem go to Muon at that rate instead.
    """
    kernels = (
        [p for name, p in model.named_parameters() if p.ndim > 2 and not name.startswith("stem.")]
        if muon_lr
        else []
    )
    taken = {id(p) for p in kernels}
    decay = [p for p in model.parameters() if p.ndim > 1 and id(p) not in taken]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, fused=fused)]
    return (
        [*optimizers, Muon(kernels, lr=muon_lr, weight_decay=weight_decay)]
        if kernels
        else optimizers
    )


def cosine_with_warmup(step: int, n_steps: int, warmup: int) -> float:
    """Return the factor of the learning rate: a linear rise over `warmup` steps, then half a cosine
    down to 0.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, n_steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class WeightAverage(torch.optim.swa_utils.AveragedModel):
    """Moving average of weights and buffers, as of `AveragedModel` with an exponential average, but
    no step waits for the GPU.

    Parameters
    ----------
    model
        Copied.
    decay
        Share of the old average kept in each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.average_fn = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the weights of a model in."""
        ours, theirs = ([*m.parameters(), *m.buffers()] for m in (self.module, model))
        is_first = not self.n_averaged  # which is kept on the CPU
        self.n_averaged += 1
        if is_first:
            for average, value in zip(ours, theirs, strict=True):
                average.copy_(value)
            return
        for is_float in (True, False):  # the counters of batch norms are whole numbers
            pairs = [
                pair
                for pair in zip(ours, theirs, strict=True)
                if pair[0].is_floating_point() == is_float
            ]
            self.average_fn([average for average, _ in pairs], [value for _, value in pairs], None)


@dataclass
class TrainState:
    """Everything that changes while a model is fitted; `network` is the model, or what wraps it to
    share the work.
    """

    model: nn.Module
    network: nn.Module
    optimizers: list[torch.optim.Optimizer]
    schedulers: list[torch.optim.lr_scheduler.LambdaLR]
    scaler: torch.amp.GradScaler
    average: torch.optim.swa_utils.AveragedModel | None
    epoch: int = 0
    best_epoch: int = 0
    best_metric: float = -math.inf
    history: list[HistoryRow] = field(default_factory=list)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and saved: the averaged weights, if there are any."""
        return self.average.module if self.average is not None else self.model

    def step(self, loss: torch.Tensor, clip_norm: float) -> None:
        """Take one step down the gradient of a loss; a `clip_norm` of 0 does not clip."""
        skipped, together = False, self.scaler.is_enabled() and len(self.optimizers) > 1
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if clip_norm or together:
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm or math.inf)
            skipped = together and not bool(
                torch.isfinite(norm)
            )  # by all, while the scaler asks for the gradients of each alone
        for optimizer in () if skipped else self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.network.zero_grad(set_to_none=True)
        for scheduler in self.schedulers:
            scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def end_epoch(self, row: HistoryRow, metric_name: str, *, has_validation: bool) -> bool:
        """Note an epoch; returns whether it is the best so far.

        Without validation the latest epoch is kept, and while the metric is undefined as well.
        """
        self.epoch += 1
        self.history.append(row)
        metric = row[metric_name]
        if metric is None:
            is_best = not has_validation or self.best_metric < 0
            metric = -float(row["train_loss"] or 0.0)
        else:
            is_best = metric > self.best_metric
        if is_best:
            self.best_epoch, self.best_metric = self.epoch, float(metric)
        return is_best

    def best_score(self, metric_name: str) -> float | None:
        """Return the metric of the best epoch, None where it is undefined."""
        return self.history[self.best_epoch - 1][metric_name] if self.best_epoch else None

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [
                s.state_dict() | {"lr_lambdas": None} for s in self.schedulers
            ],  # a function is no plain value
            "scaler": self.scaler.state_dict(),
            "rng": rng_state(),
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_metric": self.best_metric,
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned.

        Raises
        ------
        ValueError
            If that was of a training with an average of the weights and this one has none, or the
            other way round.
        """
        if (self.average is None) != (state["average"] is None):
            raise ValueError(
                f"it has {'no average' if self.average is not None else 'an average'} of "
                "the weights"
            )
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        for scheduler, values in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(values | {"lr_lambdas": [None] * len(scheduler.lr_lambdas)})
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.best_epoch = state["epoch"], state["best_epoch"]
        self.best_metric, self.history = state["best_metric"], list(state["history"])
        restore_rng_state(state["rng"])


def start_training(
    model: nn.Module,
    n_batches: int,
    config: TrainConfig,
    *,
    amp: torch.dtype | None = None,
    processes: Processes | None = None,
    example: torch.Tensor | None = None,
) -> TrainState:
    """Return the state before the first step.

    Parameters
    ----------
    model
        On the device where it will be trained.
    n_batches
        Steps of an epoch.
    config
        How to fit.
    amp
        Reduced precision to compute in, or None.
    processes
        Those that train together, where there are several: their gradients are averaged, and on
        CUDA the statistics of the batch norms are those of the whole batch.
    example
        Input (2, n_leads, n_samples) on the model's device. A compiled network is tried on it, and
        the plain one is used if that fails.
    """
    device = next(model.parameters()).device.type
    optimizers = make_optimizers(
        model,
        config.lr,
        config.weight_decay,
        muon_lr=config.muon_lr,
        fused=device in ("cpu", "cuda"),
    )
    n_steps = config.epochs * n_batches
    warmup = int(config.warmup_fraction * n_steps)

    def factor(step: int) -> float:
        return cosine_with_warmup(step, n_steps, warmup)

    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
    scaler = torch.amp.GradScaler(device, enabled=amp is torch.float16)
    average = None
    if config.ema_decay:
        average = WeightAverage(model, config.ema_decay)
    network = _wrap(model, processes)
    if config.compile == "on" or (config.compile == "auto" and device == "cuda"):
        network = compile_network(network, example)
    return TrainState(model, network, optimizers, schedulers, scaler, average)


def compile_network(network: nn.Module, example: torch.Tensor | None = None) -> nn.Module:
    """Return the network compiled by ``torch.compile``, or as it is, with a log line, where that
    does not work here.
    """
    compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
    if example is None:
        return compiled
    try:
        with torch.no_grad():
            network.eval()
            compiled(example)
    # compilers fail in many ways, and none of them matters to the result
    except Exception as error:  # noqa: BLE001
        first = str(error).strip().split("\n", 1)[0]
        logger.warning(
            "torch.compile does not work here (%s: %s): going on without it",
            type(error).__name__,
            first,
        )
        return network
    return compiled


def _wrap(model: nn.Module, processes: Processes | None) -> nn.Module:
    if processes is None or processes.world == 1:
        return model
    if next(model.parameters()).is_cuda:
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(synced, device_ids=[processes.local_rank])
    return DistributedDataParallel(model)
