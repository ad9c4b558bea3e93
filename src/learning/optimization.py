"""Optimizers, schedules, and the state of a training run that checkpoints save."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from src.config import MAX_EPOCHS, MIN_EPOCHS, N_BATCHES, TrainConfig, parse_tune
from src.learning.distributed import Processes
from src.learning.muon import Muon
from src.utils import restore_rng_state, rng_state

logger = logging.getLogger(__name__)


MetricName = Literal["val_f1_macro", "val_auroc_macro"]
"""A column of the history that can decide which epoch is best."""


class ValidationScores(TypedDict):
    """Scores on the validation records; None without such records or where undefined."""

    val_loss: float | None
    val_f1_macro: float | None
    val_auroc_macro: float | None


class HistoryRow(ValidationScores):
    """One epoch of a training run; `epoch` counts from 1, `lr` is the rate at its start."""

    epoch: int
    train_loss: float
    lr: float
    seconds: float


StateDict = dict[str, Any]
"""What ``state_dict`` of a torch object returns."""


class SavedState(TypedDict):
    """The state of a training run as tensors and plain values, from which it is resumed."""

    model: StateDict
    average: StateDict | None
    optimizers: list[StateDict]
    schedulers: list[StateDict]
    scaler: StateDict
    rng: StateDict
    epoch: int
    best_epoch: int
    best_metric: float
    history: list[HistoryRow]


def rate_weights(model: nn.Module, tune: str, outputs: frozenset[str]) -> dict[str, float]:
    """Return for each weight the share of the learning rate that fine-tuning trains it at.

    Parameters
    ----------
    model
        The network.
    tune
        As in `TrainConfig.tune`.
    outputs
        The weights with a row for each output (`src.model.find_output_weights`).

    Returns
    -------
    dict
        Name -> share; empty with ``all``, 0 for a weight that is not trained.

    Raises
    ------
    ValueError
        If only the outputs are to be trained and no weight has a row for each.
    """
    if tune == "all":
        return {}
    factor = parse_tune(tune)
    names = [name for name, _ in model.named_parameters()]
    if not factor:
        rates = {name: float(name in outputs) for name in names}
        if not any(rates.values()):
            raise ValueError("tune is 'head': the network has no weights of its outputs alone")
        return rates
    # The stage of the outputs is the last one, wherever the network defines it.
    stages = sorted(list_weight_stages(model), key=lambda stage: not outputs.isdisjoint(stage))
    return {name: factor**depth for depth, stage in enumerate(reversed(stages)) for name in stage}


def list_weight_stages(model: nn.Module) -> list[list[str]]:
    """Return the names of the weights of each stage of a network, in the order of definition.

    The stages are the modules that the network is made of. A sequence of blocks among them, which
    are modules of several layers themselves, counts as a stage for each block. Weights of the
    network itself belong to the first stage.
    """
    parts: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        is_sequence = isinstance(child, (nn.Sequential, nn.ModuleList))
        if is_sequence and any(any(block.children()) for block in child.children()):
            parts += [(f"{name}.{number}", block) for number, block in child.named_children()]
        else:
            parts.append((name, child))
    own = [name for name, _ in model.named_parameters(recurse=False)]
    # Of weights that are shared, the first name counts, as in `named_parameters`.
    left = {name for name, _ in model.named_parameters()}.difference(own)
    stages: list[list[str]] = []
    for prefix, part in parts:
        names = [f"{prefix}.{name}" for name, _ in part.named_parameters()]
        if stage := [name for name in names if name in left]:
            stages.append(stage)
            left.difference_update(stage)
    if not stages:
        return [own]
    return [own + stages[0], *stages[1:]]


def make_optimizers(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    *,
    muon_lr: float = 0.0,
    fused: bool = True,
    rates: Mapping[str, float] | None = None,
) -> list[torch.optim.Optimizer]:
    """Return AdamW (Loshchilov and Hutter, ICLR 2019), and Muon where it has a learning rate.

    Parameters
    ----------
    model
        The network.
    lr, muon_lr
        Learning rates of AdamW and Muon. Muon trains the convolutions after the stem; 0 trains all
        weights with AdamW.
    weight_decay
        Decoupled weight decay of matrices and kernels; biases and norms have none.
    fused
        Use the fused AdamW, which CPU and CUDA have.
    rates
        Share of the learning rate of each weight (`rate_weights`), 0 for one that is left out; by
        default 1 for all. The groups of the highest rate come first.
    """
    rates = rates or {}
    groups: list[dict[str, Any]] = []
    muon_groups: list[dict[str, Any]] = []
    for rate in sorted({*rates.values()} or {1.0}, reverse=True):
        if not rate:
            continue
        kernels, matrices, vectors = [], [], []
        for name, parameter in model.named_parameters():
            if rates.get(name, 1.0) != rate:
                continue
            if parameter.ndim <= 1:
                vectors.append(parameter)
            elif muon_lr and parameter.ndim > 2 and not name.startswith("stem."):
                kernels.append(parameter)
            else:
                matrices.append(parameter)
        own_lr = {"lr": lr * rate} if rates else {}
        groups.append({"params": matrices, "weight_decay": weight_decay, **own_lr})
        groups.append({"params": vectors, "weight_decay": 0.0, **own_lr})
        if kernels:
            muon_groups.append({"params": kernels, "lr": muon_lr * rate})
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, fused=fused)]
    if muon_groups:
        optimizers.append(Muon(muon_groups, lr=muon_lr, weight_decay=weight_decay))
    return optimizers


def cosine_with_warmup(step: int, n_steps: int, warmup: int) -> float:
    """Return the factor of the learning rate at a step: a linear rise, then half a cosine.

    Parameters
    ----------
    step
        Number of the step, from 0.
    n_steps
        Steps of the whole run; the factor reaches 0 there.
    warmup
        Steps of the linear rise.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, n_steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def settle_epochs(config: TrainConfig, n_batches: int) -> TrainConfig:
    """Return settings with a number of epochs: their own, or one for `n_batches` in each."""
    if config.epochs:
        return config
    epochs = min(MAX_EPOCHS, max(MIN_EPOCHS, math.ceil(N_BATCHES / n_batches)))
    return replace(config, epochs=epochs)


class WeightAverage(torch.optim.swa_utils.AveragedModel):
    """Exponential moving average (EMA) of weights and buffers, without waiting for the GPU.

    The numbers are those of `torch.optim.swa_utils.AveragedModel`, but that the decay rises to its
    value: in step n it is at most (1 + n) / (10 + n), so that the average of few steps is not that
    of the random weights.

    Parameters
    ----------
    model
        The network, which is copied.
    decay
        Share of the old average kept in each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average with the weights of a model."""
        averages = [*self.module.parameters(), *self.module.buffers()]
        values = [*model.parameters(), *model.buffers()]
        # The counter is on the CPU, so looking at it does not wait for the GPU.
        is_first = not self.n_averaged
        self.n_averaged += 1
        if is_first:
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)
            return
        n = int(self.n_averaged) - 1
        decay = min(self.decay, (1 + n) / (10 + n))
        average_fn = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
        # The function takes tensors of one kind: the counters of batch norms are integers.
        for is_integer in (False, True):
            old, new = [], []
            for average, value in zip(averages, values, strict=True):
                if is_integer != (average.is_floating_point() or average.is_complex()):
                    old.append(average)
                    new.append(value)
            # A network without batch norms has no counters.
            if old:
                average_fn(old, new, None)


@dataclass
class TrainState:
    """Everything that changes while a model is trained.

    Attributes
    ----------
    model
        The network.
    network
        The module that runs it: the network itself, compiled, or distributed over processes.
    optimizers, schedulers
        One scheduler for each optimizer.
    scaler
        Loss scaling, disabled but for fp16.
    average
        Moving average of the weights, or None.
    epoch
        Number of finished epochs.
    best_epoch, best_metric
        Number (from 1) and metric of the best epoch; 0 and minus infinity before the first.
    history
        One row per epoch.
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
        """The network to validate and save: the averaged weights, if there is an average."""
        return self.average.module if self.average is not None else self.model

    def step(self, loss: torch.Tensor, clip_norm: float) -> None:
        """Take one optimizer step on a loss.

        Parameters
        ----------
        loss
            Scalar; its graph is freed.
        clip_norm
            Largest norm of all gradients together; 0 does not clip.
        """
        # The scaler looks at the gradients of each optimizer alone. After an overflow, all must
        # skip the step, as clipping spreads it to the gradients of the others.
        skips_together = self.scaler.is_enabled() and len(self.optimizers) > 1
        has_overflow = False
        self.scaler.scale(loss).backward()
        if clip_norm or skips_together:
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm or math.inf)
            has_overflow = skips_together and not bool(torch.isfinite(norm))
        if not has_overflow:
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
        self.scaler.update()
        self.network.zero_grad(set_to_none=True)
        for scheduler in self.schedulers:
            scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def end_epoch(self, row: HistoryRow, metric_name: MetricName, *, has_validation: bool) -> bool:
        """Add an epoch to the history and return whether it is the best so far.

        Of epochs with one metric, that with the lowest validation loss is the best: on a few
        records the metric does not change for many epochs in which the network still learns.

        Without validation the latest epoch counts as the best, and so does it while the metric has
        been undefined in every epoch.
        """
        self.epoch += 1
        self.history.append(row)
        metric = row[metric_name]
        if metric is None:
            # Losses are stored as negative numbers, below every metric.
            is_best = not has_validation or self.best_metric < 0
            metric = -float(row["train_loss"] or 0.0)
        else:
            is_best = (metric, self._closeness(row)) > (
                self.best_metric,
                self._closeness(self.history[self.best_epoch - 1]),
            )
        if is_best:
            self.best_epoch, self.best_metric = self.epoch, float(metric)
        return is_best

    @staticmethod
    def _closeness(row: HistoryRow) -> float:
        """Return the validation loss as a number of which more is better."""
        loss = row["val_loss"]
        return -math.inf if loss is None else -loss

    def best_score(self, metric_name: MetricName) -> float | None:
        """Return the metric of the best epoch, None where it is undefined."""
        return self.history[self.best_epoch - 1][metric_name] if self.best_epoch else None

    def state_dict(self) -> SavedState:
        """Return all that is needed to resume."""
        # Functions are no plain values; `load_state_dict` keeps the schedules of the new state.
        schedulers = [scheduler.state_dict() for scheduler in self.schedulers]
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [values | {"lr_lambdas": None} for values in schedulers],
            "scaler": self.scaler.state_dict(),
            "rng": rng_state(),
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_metric": self.best_metric,
            "history": self.history,
        }

    def load_state_dict(self, state: SavedState) -> None:
        """Restore a state from `state_dict`.

        Raises
        ------
        ValueError
            If only one of the two runs averages its weights.
        """
        if (self.average is None) != (state["average"] is None):
            held = "no average" if state["average"] is None else "an average"
            raise ValueError(f"it has {held} of the weights")
        self.model.load_state_dict(state["model"])
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            _check_like(values["param_groups"], optimizer.state_dict()["param_groups"], "optimizer")
            optimizer.load_state_dict(values)
            _check_moments(optimizer)
        for scheduler, values in zip(self.schedulers, state["schedulers"], strict=True):
            _check_like(values | {"lr_lambdas": None}, scheduler.state_dict(), "scheduler")
        _check_like(state["scaler"], self.scaler.state_dict(), "scaler")
        for scheduler, values in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(values | {"lr_lambdas": [None] * len(scheduler.lr_lambdas)})
        self.scaler.load_state_dict(state["scaler"])
        self.epoch = state["epoch"]
        self.best_epoch = state["best_epoch"]
        self.best_metric = state["best_metric"]
        self.history = list(state["history"])
        restore_rng_state(state["rng"])


def _check_like(value: object, fresh: object, name: str) -> None:
    """Refuse a saved value of another kind than that of a new run, which torch would take.

    Keys that only one of them has are left to torch, as its versions differ.
    """
    if isinstance(fresh, dict) and isinstance(value, dict):
        for key in fresh.keys() & value.keys() - {"lr_lambdas"}:
            _check_like(value[key], fresh[key], f"{name}.{key}")
    elif isinstance(fresh, (list, tuple)) and isinstance(value, (list, tuple)):
        if len(value) != len(fresh):
            raise ValueError(f"{name} has {len(value)} entries: expected {len(fresh)}")
        for i, (item, fresh_item) in enumerate(zip(value, fresh, strict=True)):
            _check_like(item, fresh_item, f"{name}[{i}]")
    elif isinstance(fresh, (int, float)) and not isinstance(fresh, bool):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{name} is {value!r}: expected a number")
    elif fresh is not None and not isinstance(value, type(fresh)):
        raise ValueError(f"{name} is {value!r}: expected a {type(fresh).__name__}")


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Refuse moments of gradients that do not have the shape of their weights."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if not isinstance(value, torch.Tensor) or value.shape not in (parameter.shape, ()):
                raise ValueError(f"optimizer.state.{name} does not have the shape of its weights")


def start_training(
    model: nn.Module,
    n_batches: int,
    config: TrainConfig,
    *,
    amp: torch.dtype | None = None,
    processes: Processes | None = None,
    example: torch.Tensor | None = None,
    rates: Mapping[str, float] | None = None,
) -> TrainState:
    """Return the state before the first step.

    Parameters
    ----------
    model
        The network, on the device where it will be trained.
    n_batches
        Steps per epoch.
    config
        Settings of the training.
    amp
        Reduced precision to compute in, or None.
    processes
        The processes of a distributed run. Their gradients are averaged, and on CUDA the statistics
        of the batch norms are those of the whole batch.
    example
        Input (2, n_leads, n_samples) on the model's device, to try a compiled network on. If that
        fails, the network is not compiled.
    rates
        As for `make_optimizers`.
    """
    device = next(model.parameters()).device.type
    optimizers = make_optimizers(
        model,
        config.lr,
        config.weight_decay,
        muon_lr=config.muon_lr,
        fused=device in ("cpu", "cuda"),
        rates=rates,
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
    network = _distribute(model, processes)
    if config.compile == "on" or (config.compile == "auto" and device == "cuda"):
        network = compile_network(network, example)
    return TrainState(model, network, optimizers, schedulers, scaler, average)


def compile_network(network: nn.Module, example: torch.Tensor | None = None) -> nn.Module:
    """Return the network compiled by ``torch.compile``, or unchanged if that fails here.

    Parameters
    ----------
    network
        The network to compile.
    example
        Input to try the compiled network on, since compilation waits for the first one.
    """
    compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
    if example is None:
        return compiled
    try:
        with torch.no_grad():
            network.eval()
            compiled(example)
    # Compilers fail in many ways, and the result does not depend on them.
    except Exception as error:  # noqa: BLE001
        logger.warning(
            "torch.compile failed (%s: %s): training continues without it",
            type(error).__name__,
            str(error).strip().split("\n", 1)[0],
        )
        return network
    return compiled


def _distribute(model: nn.Module, processes: Processes | None) -> nn.Module:
    """Return a model that averages gradients over processes; one process needs none."""
    if processes is None or processes.world == 1:
        return model
    if next(model.parameters()).is_cuda:
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(synced, device_ids=[processes.local_rank])
    return DistributedDataParallel(model)
