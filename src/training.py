"""Training a network: fit it to the loaders of a processed folder, resume, and write its run."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypedDict

import torch
from torch import nn
from torch.utils.data import DataLoader

from src.config import (
    Config,
    ModelConfig,
    PreprocessConfig,
    TrainConfig,
    config_paths,
    parse_augment,
)
from src.dataloaders import DataLoaders, build_dataloaders
from src.eval import predict
from src.learning.augment import Augmentation, Transform, build_augmentation
from src.learning.checkpoints import ModelCard, load_checkpoint, save_checkpoint
from src.learning.distributed import Processes, join_processes
from src.learning.leaks import warn_trained_on
from src.learning.losses import (
    Loss,
    LossFunction,
    make_loss,
    name_loss,
    prepare_loss,
    with_auxiliary,
)
from src.learning.metrics import compute_metrics
from src.learning.networks import (
    NETWORKS,
    NetworkFactory,
    describe_source,
    find_network,
    name_network,
    split_partial,
)
from src.learning.optimization import (
    HistoryRow,
    MetricName,
    TrainState,
    ValidationScores,
    rate_weights,
    settle_epochs,
    start_training,
)
from src.learning.predictions import Predictions
from src.learning.run_files import check_state
from src.learning.trackers import RunEnd, RunStart, Tracker, open_trackers
from src.locks import lock_folder
from src.model import (
    build_model,
    check_network,
    count_parameters,
    find_output_weights,
    needs_rr,
    predict_logits,
    run_network,
    select_outputs,
    shortest_input,
    start_from,
    to_scores,
)
from src.processed.datasets import AnyBatch
from src.processed.manifest import load_preprocess_config
from src.processed.mirror import local_copy
from src.processed.runs.log import environment, log_run
from src.utils import (
    DeviceInfo,
    Rich,
    device_info,
    html_facts,
    html_table,
    import_path,
    keep_freed_memory,
    printable,
    remove_leftovers,
    save_json,
    seed_everything,
    shown_path,
    stable_hash,
    to_jsonable,
)

logger = logging.getLogger(__name__)

_SHOWN: tuple[
    Literal["train_loss", "val_loss", "val_f1_macro", "val_auroc_macro", "seconds"], ...
] = ("train_loss", "val_loss", "val_f1_macro", "val_auroc_macro", "seconds")

_AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

# Settings that are part of the optimizers' saved state: a resumed run would log new values but
# train with the old ones.
_FIXED_BY_STATE = ("lr", "muon_lr", "weight_decay", "warmup_fraction", "tune")


_NO_SCORES: ValidationScores = {"val_loss": None, "val_f1_macro": None, "val_auroc_macro": None}


class DivergedError(ValueError):
    """Training has left the range of finite numbers."""


@dataclass(frozen=True)
class TrainResult(Rich):
    """The result of a training run.

    Attributes
    ----------
    model
        The network of the best epoch, in evaluation mode.
    card
        Its card, as in the checkpoint.
    history
        One row per epoch.
    best_epoch
        Number of the best epoch, from 1.
    best_metric
        Its validation metric; None where it is undefined.
    metric_name
        Column of the history that decides which epoch is best.
    best_path
        Checkpoint of the best epoch.
    """

    model: nn.Module
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
        header = [name.replace("_", " ") for name in ("epoch", *_SHOWN)]
        rows = [[row["epoch"], *(row[name] for name in _SHOWN)] for row in self.history]
        return html_facts(facts) + html_table(header, rows)


# One epoch ----------------------------------------------------------------------------------------


def train_epoch(
    state: TrainState,
    batches: Iterable[AnyBatch],
    loss_fn: Loss,
    config: TrainConfig,
    *,
    device: str = "cpu",
    amp: torch.dtype | None = None,
    augment: Augmentation | None = None,
) -> float:
    """Train on each batch once and return the mean loss per record.

    Parameters
    ----------
    state
        Changed in place.
    batches
        The training loader.
    loss_fn
        Loss of logits and targets, each (B, n_outputs).
    config
        Clipping and batch norms.
    device
        The torch device of the model.
    amp
        Reduced precision to compute the network in, or None.
    augment
        Transforms of the batches; by default those of `config`, without the facts of the records.
    """
    augment = augment or build_augmentation(config, device=device)
    takes_rr = needs_rr(state.model)
    state.network.train()
    if config.freeze_norm or config.tune == "head":
        freeze_norms(state.model)
    # MPS has no double precision.
    dtype = torch.float32 if device.startswith("mps") else torch.float64
    total = torch.zeros((), device=device, dtype=dtype)
    n_seen = 0
    for batch in batches:
        signal = batch.signal.to(device, non_blocking=True)  # (B, n_leads, T)
        target = batch.target.to(device, non_blocking=True)  # (B, n_outputs)
        rr = batch.rr.to(device) if takes_rr and batch.rr is not None else None
        signal, target = augment(signal, target, batch.row)
        with torch.autocast(device.split(":")[0], dtype=amp, enabled=amp is not None):
            logits = run_network(state.network, signal, rr)  # (B, n_outputs)
        # Losses are computed in full precision.
        loss = loss_fn(logits.float(), target)
        state.step(loss, config.clip_norm)
        # The sum stays on the device, so that no step waits for it.
        total += loss.detach() * len(signal)
        n_seen += len(signal)
    return float(total) / max(1, n_seen)


def freeze_norms(model: nn.Module) -> None:
    """Put batch norms into evaluation mode, so that their statistics do not change."""
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
) -> ValidationScores:
    """Return loss, macro F1 and macro AUROC on the validation records.

    Parameters
    ----------
    model
        The network; its auxiliary outputs are ignored.
    loaders
        The loaders; without validation records all scores are None.
    loss_fn
        Loss of logits and targets, each (B, n_classes).
    device
        The torch device of the model.
    crop_samples
        Length of the crops that logits are averaged over; 0 means whole records.

    Raises
    ------
    DivergedError
        If the network returns numbers that are not finite.
    """
    if loaders.val is None:
        return _NO_SCORES
    model.eval()

    def predict_crops(signal: torch.Tensor, rr: torch.Tensor | None = None) -> torch.Tensor:
        return predict_logits(model, signal, crop_samples, rr=rr)

    logits, targets = predict(predict_crops, loaders.val, device=device)
    logits = logits[:, : len(loaders.classes)]
    val_loss = float(loss_fn(logits, targets))
    if not (torch.isfinite(logits).all() and math.isfinite(val_loss)):
        raise DivergedError(
            "the network returns numbers that are not finite for the validation records"
        )
    predictions = Predictions(
        keys=loaders.records["val"].keys,
        y_true=targets.numpy(),
        y_score=to_scores(logits, loaders.single_label),
        classes=loaders.classes,
        single_label=loaders.single_label,
    )
    metrics = compute_metrics(predictions)
    return {
        "val_loss": val_loss,
        "val_f1_macro": metrics["f1_macro"],
        "val_auroc_macro": metrics["auroc_macro"],
    }


# All epochs ---------------------------------------------------------------------------------------


def fit(
    model: nn.Module,
    loaders: DataLoaders,
    card: ModelCard,
    config: TrainConfig,
    out: Path,
    *,
    network: str | NetworkFactory | None = None,
    resume: bool = False,
    tracker: Tracker | None = None,
    processes: Processes | None = None,
    loss_function: LossFunction | None = None,
    transform: Transform | None = None,
) -> TrainResult:
    """Train `model`, and save checkpoints and a log after each epoch.

    ``out/models`` gets ``best.pth`` and ``latest.pth``, `out` gets ``training_log.json``.

    Parameters
    ----------
    model
        Changed in place.
    loaders
        Batches; without validation records the last epoch is the best.
    card
        Stored in the checkpoints.
    config
        Settings of the training.
    out
        The folder of the run.
    network
        The factory of the network, or its import path; by default what the card names.
    resume
        Resume from ``latest.pth`` if it exists. On a CPU the result is bit for bit that of an
        uninterrupted run.
    tracker
        Follows the history.
    processes
        The processes of a distributed run; the main process validates and writes.
    loss_function
        Used instead of the loss of the settings.
    transform
        Runs after the transforms of the settings.

    Raises
    ------
    ValueError
        If the network fails on a batch (`src.model.check_network`), ``latest.pth`` belongs to
        another run, or training diverges: then the files are those of the last epoch that was
        sound.
    """
    config = settle_epochs(config, len(loaders.train))
    processes = processes or Processes()
    info = device_info(config.device)
    if info.device.startswith("cpu"):
        keep_freed_memory(2**30)
    amp = _amp_dtype(config.amp, info.amp_dtype)
    n_outputs, n_classes = len(loaders.task.outputs), len(card.classes)
    shape = (len(card.leads), loaders.view.crop_samples or card.preprocess.n_samples)
    check_network(model.to(info.device), card.model.network, shape, n_outputs)
    _check_rr(model, card, loaders, config)
    function = prepare_loss(
        loss_function or config.loss, loaders.single_label, len(loaders.classes), info.device
    )
    augment = _prepare_augmentation(
        config, loaders, card, info.device, transform, shortest_input(model)
    )
    # Auxiliary outputs, which follow the classes, are not saved.
    needs_outputs = n_outputs > n_classes or config.tune != "all"
    outputs = find_output_weights(card, network) if needs_outputs else frozenset()
    rates = rate_weights(model, config.tune, outputs)
    frozen = _freeze_weights(model, rates)
    state = start_training(
        model,
        len(loaders.train),
        config,
        amp=amp,
        processes=processes,
        example=torch.zeros(2, *shape, device=info.device),
        rates=rates,
    )
    facts = _describe_run(model, card, loaders, info, amp, outputs)
    files = RunFiles(out, card, facts, best_metric_name(loaders.single_label), outputs)
    if resume and files.latest.exists():
        _resume(state, files.latest, card)
        if processes.is_main:
            # The run may have been stopped between writing two of its files.
            files.save(state, config)
    elif processes.is_main:
        if files.latest.exists():
            logger.warning(
                "%s: replaces the earlier run in this folder; scores and a report there are of the "
                "earlier network until evaluate and report write them again",
                out,
            )
        # A later resume must not continue an earlier run in this folder.
        files.latest.unlink(missing_ok=True)

    smoothing = config.label_smoothing
    loss_fn = make_loss(loaders.single_label, smoothing, function=function)
    # The main process validates alone, so only the loss of training counts over all processes.
    train_loss_fn = make_loss(loaders.single_label, smoothing, processes, function)
    if loaders.auxiliary:
        train_loss_fn = with_auxiliary(
            train_loss_fn, len(loaders.classes), config.auxiliary_weight, processes
        )

    if tracker is not None:
        tracker.start(RunStart(out, {**facts}, state.epoch))
    while state.epoch < config.epochs and not _is_stale(state, config):
        start = time.perf_counter()
        lr = float(state.schedulers[0].get_last_lr()[0])
        batches = _batches_of(loaders, config, state.epoch)
        _seed_order(batches, config.seed, state.epoch, processes)
        loss = train_epoch(
            state, batches, train_loss_fn, config, device=info.device, amp=amp, augment=augment
        )
        loss = float(processes.mean(torch.tensor(loss, device=info.device)))
        problem, scores = "", _NO_SCORES
        if processes.is_main:
            try:
                check_finite(loss, state, shape)
                scores = validate(
                    state.evaluated,
                    loaders,
                    loss_fn,
                    device=info.device,
                    crop_samples=card.crop_samples,
                )
            except DivergedError as error:
                problem = str(error)
        problem, scores = processes.share((problem, scores))
        if problem:
            raise DivergedError(_advise_on_divergence(problem, state.epoch + 1, config))
        row: HistoryRow = {
            "epoch": state.epoch + 1,
            "train_loss": loss,
            **scores,
            "lr": lr,
            "seconds": round(time.perf_counter() - start, 3),
        }
        state.end_epoch(row, files.metric_name, has_validation=loaders.val is not None)
        if processes.is_main:
            files.save(state, config)
        logger.info("epoch %d/%d  %s", state.epoch, config.epochs, _format_row(row))
        if tracker is not None:
            tracker.epoch(row)

    processes.wait()
    for parameter in frozen:
        parameter.requires_grad_(True)
    if n_outputs > n_classes:
        model = build_model(card, network=network).to(info.device)
    model.load_state_dict(load_checkpoint(files.best).weights)
    result = TrainResult(
        model=model.eval(),
        card=card,
        history=state.history,
        best_epoch=state.best_epoch,
        best_metric=state.best_score(files.metric_name),
        metric_name=files.metric_name,
        best_path=files.best,
    )
    if tracker is not None:
        tracker.end(
            RunEnd(result.best_epoch, result.best_metric, result.metric_name, result.best_path)
        )
    return result


def _check_rr(model: nn.Module, card: ModelCard, loaders: DataLoaders, config: TrainConfig) -> None:
    """Refuse a network that asks for RR intervals where there are none, or where beats are mixed.

    Raises
    ------
    ValueError
        The message says which.
    """
    if not needs_rr(model):
        return
    name = printable(card.model.network)
    if not loaders.view.rr:
        raise ValueError(
            f"network {name} takes RR intervals, and the records have none: preprocess them with "
            "--beats CSV, or choose another network"
        )
    if config.mixup or "mixup" in parse_augment(config.augment)[0]:
        raise ValueError(
            f"mixup blends two beats, and network {name} takes the RR intervals of one: train it "
            "without mixup"
        )


def _freeze_weights(model: nn.Module, rates: Mapping[str, float]) -> list[nn.Parameter]:
    """Compute no gradients of weights that are not trained, and return these."""
    frozen = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and rates.get(name, 1.0) == 0:
            parameter.requires_grad_(False)
            frozen.append(parameter)
    if frozen:
        logger.info("tune: training the outputs alone, %d parameters", count_parameters(model))
    return frozen


def _prepare_augmentation(
    config: TrainConfig,
    loaders: DataLoaders,
    card: ModelCard,
    device: str,
    transform: Transform | None,
    shortest: int,
) -> Augmentation:
    """Return the augmentation of a run, whose transforms from elsewhere were tried.

    Raises
    ------
    ValueError
        If one is wrong, or cuts signals to fewer samples than the network needs.
    """
    per_mv = torch.from_numpy(
        loaders.view.normalization.units_per_mv(loaders.records["train"].datasets)
    )
    if (per_mv == per_mv[0]).all():
        per_mv = per_mv[:1].to(device)
    augment = build_augmentation(
        config, transform, fs=card.preprocess.fs, per_mv=per_mv, device=device
    )
    n_samples = loaders.view.crop_samples or card.preprocess.n_samples
    shortest_s = augment.strengths.get("crop", 0.0)
    # A network that gives no shortest input takes one length alone.
    least = shortest or n_samples
    if 0 < round(shortest_s * augment.fs) < least:
        raise ValueError(
            f"augment has crop={shortest_s:g}: expected {least / augment.fs:g} s and more, "
            f"which is {least} samples at {augment.fs:g} Hz"
        )
    augment.try_transforms(n_samples, len(loaders.task.outputs))
    return augment


def best_metric_name(single_label: bool) -> MetricName:
    """Return the column of the history that decides which epoch is best."""
    return "val_f1_macro" if single_label else "val_auroc_macro"


def _amp_dtype(setting: str, best: str | None) -> torch.dtype | None:
    """Return the reduced precision to compute in, or None for full precision."""
    if setting == "auto":
        return getattr(torch, best) if best else None
    return _AMP_DTYPES.get(setting)


def _batches_of(loaders: DataLoaders, config: TrainConfig, epoch: int) -> DataLoader[AnyBatch]:
    """Return the loader of an epoch: whole records in the last ones if set, else crops."""
    is_late = epoch >= config.epochs - config.whole_epochs
    return loaders.whole if is_late and loaders.whole is not None else loaders.train


def _seed_order(loader: DataLoader[AnyBatch], seed: int, epoch: int, processes: Processes) -> None:
    """Seed the order of an epoch by its number, so that a resumed run repeats it.

    The order is the same in every process; crops, dropout and augmentation differ.
    """
    if loader.generator is not None:
        loader.generator.manual_seed(seed * 1_000_003 + epoch)
    if processes.world > 1:
        torch.manual_seed((seed * 1_000_003 + epoch) * processes.world + processes.rank)


def check_finite(loss: float, state: TrainState, shape: tuple[int, int]) -> None:
    """Refuse an epoch after which the network is of no use.

    The statistics of batch norms may overflow, and a network with them, while the loss of training
    is still finite, since training normalizes by the batch.

    Parameters
    ----------
    loss
        Mean loss of the epoch.
    state
        The state after it.
    shape
        Leads and samples of a training input.

    Raises
    ------
    DivergedError
        If the loss, the weights, or what the network returns for a flat line or for noise is not
        finite.
    """
    if not math.isfinite(loss):
        raise DivergedError(f"the training loss is {loss}")
    tensors = [*state.model.state_dict().values(), *state.evaluated.state_dict().values()]
    are_finite = [torch.isfinite(tensor).all() for tensor in tensors if tensor.is_floating_point()]
    if not torch.stack(are_finite).all():
        raise DivergedError(f"weights of the network are not finite (training loss {loss:.4g})")
    # Weights may be finite and what they compute not. A generator of its own, as the random numbers
    # of the run must not change.
    first = next(state.model.parameters())
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(shape, generator=generator)
    signal = torch.stack([torch.zeros_like(noise), noise]).to(first.device)
    with torch.inference_mode():
        logits = state.evaluated.eval()(signal)
    if not torch.isfinite(logits).all():
        raise DivergedError(
            f"the network returns numbers that are not finite (training loss {loss:.4g})"
        )


def _advise_on_divergence(problem: str, epoch: int, config: TrainConfig) -> str:
    """Return the message of a training that diverged in an epoch (from 1)."""
    advice = f"try a smaller --lr (now {config.lr:g})"
    if config.muon_lr:
        advice += f" or --muon-lr (now {config.muon_lr:g})"
    if config.amp == "fp16":
        advice += ", or --amp bf16 or off"
    return f"training diverged in epoch {epoch}: {problem}; {advice}"


def _is_stale(state: TrainState, config: TrainConfig) -> bool:
    """Return whether training stops early, after `patience` epochs without a better metric."""
    # Epochs on whole records come last and are never skipped: the model is evaluated on such.
    if config.whole_epochs and state.epoch < config.epochs:
        return False
    return bool(config.patience) and state.epoch - state.best_epoch >= config.patience


def _format_row(row: HistoryRow) -> str:
    """Return a row of the history for a log line."""
    return "  ".join(f"{name} {row[name]:.4g}" for name in _SHOWN if row[name] is not None)


# The files of a run -------------------------------------------------------------------------------


class RunFacts(TypedDict):
    """The part of ``training_log.json`` that is known before the first epoch."""

    created: str
    environment: Mapping[str, object]
    device: Mapping[str, object]
    amp: str
    config: Mapping[str, object]
    classes: tuple[str, ...]
    single_label: bool
    loss: str
    n_parameters: int
    n_train: int
    n_val: int
    data_hash: str


class BestEpoch(TypedDict):
    """The best epoch so far and its metric; also part of the state in ``best.pth``."""

    best_epoch: int
    best_metric: float | None
    best_metric_name: MetricName


class TrainingLog(RunFacts, BestEpoch):
    """The content of ``training_log.json``."""

    history: list[HistoryRow]
    stopped: Literal["early", "finished", "not yet"]


@dataclass(frozen=True)
class RunFiles:
    """The files that a run writes after each epoch.

    Attributes
    ----------
    out
        The folder of the run.
    card, facts
        Stored in the checkpoints and in the log.
    metric_name
        Column of the history that decides which epoch is best.
    outputs
        Weights of which only the rows of the card's classes are saved.
    """

    out: Path
    card: ModelCard
    facts: RunFacts
    metric_name: MetricName
    outputs: frozenset[str] = frozenset()

    @property
    def latest(self) -> Path:
        """Checkpoint of the latest epoch, with all that is needed to resume."""
        return self.out / "models" / "latest.pth"

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch."""
        return self.out / "models" / "best.pth"

    def save(self, state: TrainState, config: TrainConfig) -> None:
        """Write the checkpoints and the log of the epochs so far."""
        kept = slice(len(self.card.classes))
        weights = select_outputs(state.evaluated.state_dict(), kept, self.outputs)
        best: BestEpoch = {
            "best_epoch": state.best_epoch,
            "best_metric": state.best_score(self.metric_name),
            "best_metric_name": self.metric_name,
        }
        # The latest checkpoint comes first: a resumed run can rewrite the other files from it.
        save_checkpoint(self.latest, self.card, weights, {**state.state_dict()})
        if state.best_epoch == state.epoch:
            save_checkpoint(self.best, self.card, weights, {"epoch": state.epoch, **best})
        stopped: Literal["early", "finished", "not yet"] = "not yet"
        if _is_stale(state, config):
            stopped = "early"
        elif state.epoch >= config.epochs:
            stopped = "finished"
        log: TrainingLog = {
            **self.facts,
            "history": state.history,
            **best,
            "stopped": stopped,
        }
        save_json(log, self.out / "training_log.json")


def _describe_run(
    model: nn.Module,
    card: ModelCard,
    loaders: DataLoaders,
    info: DeviceInfo,
    amp: torch.dtype | None,
    outputs: frozenset[str],
) -> RunFacts:
    """Return what the log of a run says before the first epoch."""
    trainable = {name for name, _ in model.named_parameters()}
    n_parameters = 0
    saved = select_outputs(model.state_dict(), slice(len(card.classes)), outputs)
    for name, weights in saved.items():
        if name in trainable:
            n_parameters += weights.numel()
    # Keys, fingerprints and labels identify a set of records.
    identities = []
    for split in ("train", "val"):
        records = loaders.records[split]
        identities.append([records.keys, records.signal_hashes, records.labels, records.annotated])
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "device": asdict(info),
        "amp": str(amp).removeprefix("torch.") if amp else "off",
        "config": card.config,
        "classes": card.classes,
        "single_label": card.single_label,
        "loss": name_loss(card.config.get("train", {}).get("loss", "auto"), card.single_label),
        "n_parameters": n_parameters,
        "n_train": len(loaders.records["train"]),
        "n_val": len(loaders.records["val"]),
        "data_hash": stable_hash(identities),
    }


# Resuming -----------------------------------------------------------------------------------------


def _resume(state: TrainState, latest: Path, card: ModelCard) -> None:
    """Restore the state of the same run from its latest checkpoint.

    Raises
    ------
    ValueError
        If the checkpoint has another network or another input, or was trained on recordings that
        this run does not train on and may evaluate on.
    """
    checkpoint = load_checkpoint(latest)
    saved = checkpoint.card
    advice = "choose another --out, or start again without --resume"
    if saved.classes != card.classes:
        raise ValueError(
            f"{latest}: was trained on classes {', '.join(saved.classes)}, this run has "
            f"{', '.join(card.classes)}; {advice}"
        )
    if differences := _find_differences(saved, card):
        raise ValueError(
            f"{latest}: cannot resume from it: it has {'; '.join(differences)}; {advice}"
        )
    if lost := set(saved.train_hashes) - set(card.train_hashes) - {""}:
        raise ValueError(
            f"{latest}: was trained on {len(lost)} recordings that this run does not train on "
            f"(other splits, parts, seed or start); {advice}"
        )
    try:
        saved_state = check_state(checkpoint.state)
    except ValueError as error:
        raise ValueError(f"{latest}: its state is damaged: {error}; {advice}") from None
    try:
        state.load_state_dict(saved_state)
    # torch raises errors of any type for a state of another kind.
    except Exception as error:  # noqa: BLE001
        raise ValueError(
            f"{latest}: does not fit these settings, such as ema_decay, muon_lr or "
            f"auxiliary_weight ({printable(str(error))}); {advice}"
        ) from None
    logger.info("%s: resuming after epoch %d", latest, state.epoch)


def _find_differences(saved: ModelCard, card: ModelCard) -> list[str]:
    """Return the settings of a saved run that a resumed one must share but does not."""
    pairs: dict[str, tuple[object, object]] = {}
    for name in ("single_label", "model", "preprocess", "leads", "normalization", "crop_samples"):
        pairs[name] = (getattr(saved, name), getattr(card, name))
    saved_settings = saved.config.get("train", {})
    settings = card.config.get("train", {})
    for name in _FIXED_BY_STATE:
        if name in saved_settings:
            pairs[name] = (saved_settings[name], settings.get(name))
    differences = []
    for name, (of_saved, of_run) in pairs.items():
        if of_saved != of_run:
            differences.append(f"{name} {of_saved} where this run has {of_run}")
    return differences


# A run from its settings --------------------------------------------------------------------------


def run_training(
    config: Config,
    processed: str | Path | None = None,
    out: str | Path | None = None,
    *,
    loaders: DataLoaders | None = None,
    network: str | NetworkFactory | None = None,
    loss: LossFunction | None = None,
    transform: Transform | None = None,
    trackers: Sequence[Tracker] = (),
    resume: bool = False,
) -> TrainResult:
    """Train a network on a processed folder; see `fit` for the files that it writes.

    Parameters
    ----------
    config
        All settings.
    processed
        The processed folder, by default ``artifacts/processed`` below `config.root`.
    out
        The folder of the run, by default ``artifacts`` below `config.root`.
    loaders
        Built from `config` by default.
    network
        A network of your own: its factory, or ``package.module:factory``; see
        `src.learning.networks` for what is expected of it. By default that of `config`.
    loss
        A loss function of your own (`src.learning.losses.LossFunction`) instead of that of the
        settings.
    transform
        A transform of training batches (`src.learning.augment.Transform`) that runs after those of
        the settings.
    trackers
        Follow the history besides those of the settings.
    resume
        Resume from ``latest.pth``.

    Raises
    ------
    RuntimeError
        If another run writes to `out`.
    """
    paths = config_paths(config)
    processed = local_copy(processed if processed is not None else paths.processed)
    out = Path(out) if out is not None else paths.artifacts
    if network is not None:
        network, arguments = split_partial(network, config.model.network_args)
        settings_of_model = replace(
            config.model, network=name_network(network), network_args=arguments
        )
        config = replace(config, model=settings_of_model)
    config = adopt_network(config)
    network = network or config.model.network
    find_network(network)
    train = config.train
    with ExitStack() as stack:
        processes = stack.enter_context(join_processes(train.device))
        if processes.is_main:
            stack.enter_context(lock_folder(out, "train"))
            remove_leftovers([out, out / "models"])
            settings = {"processed": processed, "resume": resume, **to_jsonable(config)}
            log = stack.enter_context(log_run(out, "train", settings))
        tracker = stack.enter_context(
            open_trackers(train.track, trackers, enabled=processes.is_main)
        )
        seed_everything(train.seed, train.deterministic)
        if loaders is None:
            loaders = _build_loaders(config, processed, processes)
        train = settle_epochs(train, len(loaders.train))
        config = replace(config, train=train)
        # The log and the checkpoints name the functions that were given.
        named = train
        if loss is not None:
            named = replace(named, loss=import_path(loss))
        if transform is not None:
            named = replace(named, augment=(*train.augment, import_path(transform)))
        card = build_card(replace(config, train=named), loaders, load_preprocess_config(processed))
        card = replace(card, source=describe_source(network))
        model = build_model(card, len(loaders.task.outputs), network)
        if train.init_from:
            outputs = find_output_weights(card, network)
            card = _start_from_checkpoint(model, train.init_from, card, loaders, outputs)
        logger.info("%s", loaders)
        logger.info(
            "training %d parameters on %s",
            count_parameters(model),
            device_info(train.device).device,
        )
        result = fit(
            model,
            loaders,
            card,
            train,
            out,
            network=network,
            resume=resume,
            tracker=tracker,
            processes=processes,
            loss_function=loss,
            transform=transform,
        )
        if processes.is_main:
            log.result = _summarize(result, loaders)
        return result


def adopt_network(config: Config) -> Config:
    """Return settings with the network of the checkpoint to start from, if they set none.

    A network that is not one of this program's has to be named.
    """
    if config.train.init_from is None or config.model != ModelConfig():
        return config
    model = load_checkpoint(config.train.init_from).card.model
    return replace(config, model=model) if model.network in NETWORKS else config


def _build_loaders(config: Config, processed: Path, processes: Processes) -> DataLoaders:
    """Build the loaders in the main process first, which may write the packed cache for all."""
    if not processes.is_main:
        processes.wait()
    loaders = build_dataloaders(config, processed, processes=processes)
    if processes.is_main:
        processes.wait()
    return loaders


def build_card(config: Config, loaders: DataLoaders, preprocess: PreprocessConfig) -> ModelCard:
    """Return the card of a model to be trained with `config` on these loaders.

    Raises
    ------
    ValueError
        If auxiliary classes are to be kept with one label per record.
    """
    if config.train.keep_auxiliary and loaders.single_label:
        raise ValueError(
            "keep_auxiliary is set, but each record carries one label: expected --target multi"
        )
    # Settings of other steps and folders say nothing about the model.
    settings = to_jsonable(replace(config, preprocess=preprocess))
    for name in ("root", "data", "splits", "execution"):
        del settings[name]
    return ModelCard(
        classes=loaders.task.outputs if config.train.keep_auxiliary else loaders.classes,
        single_label=loaders.single_label,
        model=config.model,
        preprocess=preprocess,
        leads=loaders.view.leads,
        normalization=loaders.view.normalization,
        crop_samples=0 if config.train.whole_epochs else loaders.view.crop_samples,
        min_leads=loaders.view.min_leads,
        min_samples=loaders.view.min_samples,
        config=settings,
        train_hashes=_known_recordings(loaders),
    )


def _known_recordings(loaders: DataLoaders) -> tuple[str, ...]:
    """Return the recordings that a network knows, of its own training and through soft targets."""
    hashes = tuple(loaders.records["train"].signal_hashes)
    if not loaders.teacher_hashes:
        return hashes
    return tuple(dict.fromkeys((*hashes, *loaders.teacher_hashes)))


def _start_from_checkpoint(
    model: nn.Module, path: str, card: ModelCard, loaders: DataLoaders, outputs: frozenset[str]
) -> ModelCard:
    """Copy the weights of a checkpoint into `model`, and return its card with their recordings."""
    source = load_checkpoint(path)
    start_from(model, source, card, outputs)
    warn_trained_on(source, loaders.records["val"].signal_hashes)
    # A dict drops duplicates and keeps the order.
    hashes = dict.fromkeys((*card.train_hashes, *source.card.train_hashes))
    return replace(card, train_hashes=tuple(hashes))


def _summarize(result: TrainResult, loaders: DataLoaders) -> dict[str, object]:
    """Return the result of a run for the last line of its log."""
    n_records = {name: len(records) for name, records in loaders.records.items()}
    n_epochs = len(result.history)
    seconds = sum(row["seconds"] for row in result.history)
    return {
        "records": n_records,
        "epochs": n_epochs,
        "best_epoch": result.best_epoch,
        result.metric_name: result.best_metric,
        "records_per_s": round(n_records["train"] * n_epochs / max(seconds, 1e-9), 1),
    }
