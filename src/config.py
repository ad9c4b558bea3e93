"""Settings as frozen dataclasses with checks, read from and written to JSON.

Result settings (`PreprocessConfig`, `SplitConfig`, `ModelConfig`, `TrainConfig`) decide the
results, and are hashed or stored with the outputs. Execution settings (`ExecutionConfig`,
`LoaderConfig`) decide the speed only, with four exceptions in `LoaderConfig`: the batch size, the
sampling, the rounding of the packed cache, and the number of loader processes, since these draw the
crops.

The help text of each field is shown by ``--help``.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from src.utils import (
    PROJECT_ROOT,
    ProjectPaths,
    as_path,
    as_url,
    available_cores,
    load_json,
    printable,
    project_paths,
    save_json,
    stable_hash,
    to_jsonable,
)

T = TypeVar("T")

FALLBACK_LABEL = "OTHER"

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
NORMALIZATIONS = ("zscore", "global", "none")
AUGMENTATIONS = {
    "crop": "shortest length in seconds",
    "limb-swap": "share of records",
    "gain": "share",
    "lead-gain": "share",
    "shift": "seconds",
    "wander": "mV",
    "noise": "mV",
    "hum": "mV",
    "offset": "mV",
    "lead-subset": "share of records",
    "lead-dropout": "share of records",
    "mixup": "alpha",
}
"""Transforms of training batches and the unit of their strength, in the order in which they run."""
TRACKERS = ("tensorboard", "mlflow")
LOSSES = ("auto", "bce", "cross-entropy", "balanced", "focal", "asymmetric")
SINGLE_LABEL_LOSSES = ("cross-entropy", "balanced")
"""Losses that need one label per record."""
SPLIT_NAMES = ("train", "val", "test")

MIN_EPOCHS, MAX_EPOCHS, N_BATCHES = 8, 60, 3200
"""Bounds of the number of epochs that is chosen by size, and the number of batches aimed at."""

# Settings that earlier versions did not have; their defaults leave record files as they were.
_LATER_SETTINGS = ("window_labels", "min_cover", "before_s", "after_s")
_WINDOW_LABELS = re.compile(r"majority|any|all|count>=[1-9][0-9]{0,5}")

# Problems of a settings file that one error message lists.
_MAX_PROBLEMS = 20
_MAX_UNKNOWN = 5  # names in a problem


# Fields and their checks --------------------------------------------------------------------------


def option(
    default: Any, text: str, *, choices: tuple[str, ...] = (), is_common: bool = False
) -> Any:
    """Return a dataclass field.

    Parameters
    ----------
    default
        Its default.
    text
        Its help text.
    choices
        The values that it may have, if they are few; see `_require_choices`.
    is_common
        Whether help shows it among the first.
    """
    metadata = {"help": text, "choices": choices, "is_common": is_common}
    if isinstance(default, (dict, list)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    # Strict JSON, in which settings are stored, has no infinity.
    if not condition or value in (math.inf, -math.inf):
        raise ValueError(f"{name} is {printable(repr(value))}: expected {expected}")


def _require_share(name: str, value: float) -> None:
    _require(0 <= value <= 1, name, value, "a share from 0 to 1")


def _require_share_below_1(name: str, value: float) -> None:
    _require(0 <= value < 1, name, value, "a share from 0 up to below 1")


def _require_choices(settings: Any) -> None:
    """Refuse a value that is none of its field's choices."""
    for each in dataclasses.fields(settings):
        if choices := each.metadata.get("choices"):
            value = getattr(settings, each.name)
            _require(value in choices, each.name, value, f"one of {', '.join(choices)}")


# Preprocessing ------------------------------------------------------------------------------------


QUALITY_FLAGS = (
    "amplitude",
    "flat",
    "flat_part",
    "gap_filled",
    "no_samples",
    "lead_off",
    "offset",
    "clipped",
    "wander",
    "noise",
    "burst",
    "hum50",
    "hum60",
    "gain_low",
    "gain_high",
    "limb_equation",
    "limb_swap",
    "chest_order",
    "not_an_ecg",
)
"""Kinds of quality flags that `QualityConfig.reject_flags` may name."""


@dataclass(frozen=True)
class QualityConfig:
    """Limits of signal quality, and the flags that reject a record; see docs/quality.md."""

    flat_part_s: float = option(2.0, "flag leads that stay constant for at least this many seconds")
    clipped_share: float = option(
        0.005,
        "flag leads with more than this share of samples held at their highest or lowest value",
    )
    wander_mv: float = option(1.0, "flag leads whose baseline wanders by more than this many mV")
    noise_mv: float = option(
        0.025, "flag leads with more than this many mV at 30 to 40 Hz between beats"
    )
    burst_mv: float = option(
        0.03, "flag leads in which one second has this many mV more at 30 to 40 Hz than usual"
    )
    hum_mv: float = option(
        0.02, "flag leads with more than this many mV at 50 or 60 Hz between beats"
    )
    off_mv: float = option(
        0.08,
        "flag leads as off if their typical range within a second is below this many mV and they "
        "have no beats",
    )
    offset_mv: float = option(0.5, "flag leads whose mean is more than this many mV from zero")
    gain_ratio: float = option(
        4.0,
        "flag leads whose typical range within a second is more than this many times that of both "
        "neighbours: their gain may be wrong",
    )
    beat_evenness: float = option(
        0.72,
        "flag recordings as not_an_ecg if mean over root mean square of the slopes is above this "
        "in every lead; beats have a third, noise and sine waves 0.8 to 0.9",
    )
    amplitude_low_mv: float = option(
        0.35,
        "flag recordings whose typical range within a second is below this many mV: their "
        "gain may be wrong",
    )
    amplitude_high_mv: float = option(
        4.0, "flag recordings whose typical range within a second is above this many mV"
    )
    equation_share: float = option(
        0.1,
        "flag limb leads that violate III = II - I and similar equations by more than this share",
    )
    swap_ratio: float = option(
        1.65,
        "flag limb electrodes as swapped if the swap explains the chest leads this many "
        "times better",
    )
    reject_flags: tuple[str, ...] = option(
        (),
        "quality flags that reject a record, such as clipped; flat:3 rejects it from three "
        "flat leads on",
    )

    def __post_init__(self) -> None:
        for name in (
            "flat_part_s",
            "clipped_share",
            "wander_mv",
            "noise_mv",
            "burst_mv",
            "hum_mv",
            "off_mv",
            "offset_mv",
            "beat_evenness",
            "amplitude_low_mv",
            "equation_share",
        ):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(
            self.amplitude_high_mv > self.amplitude_low_mv,
            "amplitude_high_mv",
            self.amplitude_high_mv,
            f"more than amplitude_low_mv={self.amplitude_low_mv:g}",
        )
        _require(self.swap_ratio >= 1, "swap_ratio", self.swap_ratio, "1 or more")
        _require(self.gain_ratio >= 1, "gain_ratio", self.gain_ratio, "1 or more")
        for flag in self.reject_flags:
            kind, colon, number = flag.partition(":")
            known_kinds = "some of " + ", ".join(QUALITY_FLAGS)
            _require(kind in QUALITY_FLAGS, "reject_flags", flag, known_kinds)
            is_count = number.isdecimal() and int(number) > 0
            _require(
                not colon or is_count, "reject_flags", flag, f"{kind}:N with N leads, 1 or more"
            )


@dataclass(frozen=True)
class PreprocessConfig:
    """How a recording becomes a tensor; the hash of these settings is in every record file."""

    fs: float = option(500.0, "target sampling rate in Hz", is_common=True)
    n_samples: int = option(
        5000,
        "samples per record file; longer records are cut, shorter ones padded with zeros",
        is_common=True,
    )
    max_gap_s: float = option(
        0.2,
        "longest gap of missing samples that is interpolated, in seconds; a longer one "
        "rejects the record",
    )
    max_amplitude_mv: float = option(10.0, "flag leads that exceed this many mV")
    flat_std_mv: float = option(
        1e-6, "flag leads as flat if their standard deviation is at most this many mV"
    )
    min_duration_s: float = option(0.5, "reject records shorter than this many seconds")
    derive_leads: bool = option(
        True,
        "compute absent limb leads that follow from two of I, II and III, and flag them as derived",
    )
    window_s: float = option(
        0.0,
        "cut each record into windows of this many seconds, one record file each; 0 = only "
        "its beginning",
        is_common=True,
    )
    stride_s: float = option(
        0.0, "seconds between the starts of two windows; 0 = the window length"
    )
    window_labels: str = option(
        "majority",
        "labels that a window takes from a label mapping with start_s and end_s: majority = those "
        "that cover most of it, all = those that cover it whole, any = all in it, count>=N = those "
        "of at least N beats or spans in it",
    )
    min_cover: float = option(
        0.5,
        "least share of a window that its labels must cover; a window below it is not annotated",
    )
    before_s: float = option(
        0.0, "with --beats: seconds of the window before its beat", is_common=True
    )
    after_s: float = option(
        0.0, "with --beats: seconds of the window after its beat", is_common=True
    )
    quality: QualityConfig = field(
        default_factory=QualityConfig, metadata={"help": "limits of signal quality"}
    )

    def __post_init__(self) -> None:
        _require(1 <= self.fs <= 100_000, "fs", self.fs, "1 to 100000 Hz")
        _require(
            1 <= self.n_samples <= 100_000_000, "n_samples", self.n_samples, "a positive count"
        )
        _require(self.max_gap_s >= 0, "max_gap_s", self.max_gap_s, "0 or more seconds")
        amplitude = self.max_amplitude_mv
        _require(amplitude > 0, "max_amplitude_mv", amplitude, "a positive voltage")
        _require(self.flat_std_mv >= 0, "flat_std_mv", self.flat_std_mv, "0 or more mV")
        duration = self.min_duration_s
        _require(duration >= 0, "min_duration_s", duration, "0 or more seconds")
        longest_s = self.n_samples / self.fs
        _require(
            0 <= self.window_s <= longest_s + 1e-9,
            "window_s",
            self.window_s,
            f"0 to {longest_s:g} s, the length of n_samples={self.n_samples} at {self.fs:g} Hz",
        )
        _require(self.stride_s >= 0, "stride_s", self.stride_s, "0 or more seconds")
        has_windows = self.window_s > 0
        _require(has_windows or self.stride_s == 0, "stride_s", self.stride_s, "0 without window_s")
        _require(
            _WINDOW_LABELS.fullmatch(self.window_labels) is not None,
            "window_labels",
            self.window_labels,
            "majority, any, all or count>=N",
        )
        _require(0 < self.min_cover <= 1, "min_cover", self.min_cover, "a share above 0, up to 1")
        self._check_beats(longest_s)

    def _check_beats(self, longest_s: float) -> None:
        """Refuse windows around beats that have no length, or that a record file cannot hold."""
        for name, value in (("before_s", self.before_s), ("after_s", self.after_s)):
            _require(value >= 0, name, value, "0 or more seconds")
        length_s = self.before_s + self.after_s
        _require(
            length_s <= longest_s + 1e-9,
            "before_s + after_s",
            length_s,
            f"at most {longest_s:g} s, the length of n_samples={self.n_samples} at {self.fs:g} Hz",
        )
        is_one = not (self.cuts_beats and self.window_s)
        _require(is_one, "window_s", self.window_s, "0 with windows around beats")

    @property
    def cuts_beats(self) -> bool:
        """Whether a record gives a window around each of its beats."""
        return self.before_s + self.after_s > 0

    @property
    def cuts_windows(self) -> bool:
        """Whether a record gives windows, one record file each."""
        return self.window_s > 0 or self.cuts_beats


@dataclass(frozen=True)
class SplitConfig:
    """How records are divided into train, val and test."""

    val_fraction: float = option(0.1, "share of records for validation")
    test_fraction: float = option(0.1, "share of records for test")
    seed: int = option(0, "seed of the split")
    restratify: bool = option(
        False, "place all records again, also those that an earlier run placed"
    )
    val_folds: tuple[int, ...] = option(
        (9,), "folds of the label mapping used for validation", is_common=True
    )
    test_folds: tuple[int, ...] = option(
        (10,), "folds of the label mapping used for test", is_common=True
    )
    on_duplicate: str = option(
        "group",
        "copies of a recording: group keeps them in one split, keep-first rejects all but "
        "the first, drop-all rejects all, fail stops",
        choices=("group", "keep-first", "drop-all", "fail"),
    )

    def __post_init__(self) -> None:
        _require_share_below_1("val_fraction", self.val_fraction)
        _require_share_below_1("test_fraction", self.test_fraction)
        held_out = self.val_fraction + self.test_fraction
        _require(
            held_out < 1,
            "val_fraction + test_fraction",
            held_out,
            "less than 1, so that training records remain",
        )
        _require_choices(self)
        both = set(self.val_folds) & set(self.test_folds)
        _require(not both, "val_folds and test_folds", sorted(both), "no fold in both")


@dataclass(frozen=True)
class ExecutionConfig:
    """How preprocessing runs; these settings do not change the results."""

    workers: int = option(
        0, "worker processes; 0 = one per core, 1 = work in this process", is_common=True
    )
    on_error: str = option(
        "skip",
        "bad records: skip lists them in the manifest and continues, raise stops at the first",
        choices=("skip", "raise"),
    )
    chunk_size: int = option(
        256, "records sent to a worker at a time; fewer in small collections and towards the end"
    )
    max_failed: float = option(
        1.0,
        "largest share of records that may fail; above it the run counts as failed, after "
        "everything is written",
    )
    shard_above: int = option(
        1_000_000,
        "put record files in 4096 subfolders of a new output folder if there are more "
        "records than this; 0 = always",
    )

    def __post_init__(self) -> None:
        _require(self.shard_above >= 0, "shard_above", self.shard_above, "0 or more")
        _require(self.workers >= 0, "workers", self.workers, "0 or more")
        _require_choices(self)
        _require(self.chunk_size >= 1, "chunk_size", self.chunk_size, "1 or more")
        _require_share("max_failed", self.max_failed)

    @property
    def n_workers(self) -> int:
        """The number of worker processes, with 0 replaced by the number of cores."""
        return self.workers or available_cores()


@dataclass(frozen=True)
class LoaderConfig:
    """How batches are read.

    Batch size, sampling, the rounding of the packed cache and, with crops, the number of loader
    processes change the results.
    """

    batch_size: int = option(128, "records per batch", is_common=True)
    loader_workers: int = option(0, "loader processes; 0 = read in the training process")
    pin_memory: bool | None = option(None, "use pinned host memory; by default only with CUDA")
    balanced_sampling: bool = option(False, "sample rare classes more often in training")
    cache: str = option(
        "packed",
        "packed stores each split as one memory-mapped array on first use; off reads the "
        "record files",
        choices=("packed", "off"),
    )

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _require(self.loader_workers >= 0, "loader_workers", self.loader_workers, "0 or more")
        _require_choices(self)


DEFAULT_NETWORK = "resnet1d"

# Settings of `src.learning.networks.resnet1d` that have options of their own.
_RESNET_SETTINGS = ("base_channels", "dropout", "lead_mask")


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of the network."""

    network: str = option(
        DEFAULT_NETWORK,
        "network to train: one that python -m src networks lists, or package.module:factory",
        is_common=True,
    )
    network_args: dict[str, Any] = option(
        {}, "arguments of the network as JSON, such as '{\"d_model\": 128}'"
    )
    base_channels: int = option(
        64,
        "resnet1d: unit of width; the four stages have 3/4, 3/2, 3 and 9/2 times as many channels; "
        "64 gives 1.4 M parameters",
    )
    dropout: float = option(0.2, "resnet1d: dropout before the classifier")
    lead_mask: bool = option(
        False,
        "resnet1d: tell the network which leads are absent, for checkpoints used with several "
        "lead sets",
    )

    def __post_init__(self) -> None:
        _require(self.base_channels >= 4, "base_channels", self.base_channels, "4 or more")
        _require_share_below_1("dropout", self.dropout)
        if self.network == DEFAULT_NETWORK:
            return
        for name in _RESNET_SETTINGS:
            value, default = getattr(self, name), self.__dataclass_fields__[name].default
            _require(
                value == default,
                name,
                value,
                f"{default}: it is a setting of {DEFAULT_NETWORK}, and network is "
                f"{self.network}; give its own by network_args",
            )

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that the network is made with, beside leads and classes."""
        if self.network != DEFAULT_NETWORK:
            return self.network_args
        of_resnet = {name: getattr(self, name) for name in _RESNET_SETTINGS}
        return of_resnet | self.network_args


@dataclass(frozen=True)
class TrainConfig:
    """How the network is trained."""

    epochs: int = option(
        0,
        "passes over the training records; 0 = by their number: as many as make 3,200 batches, but "
        "at least 8 and at most 60",
        is_common=True,
    )
    lr: float = option(5e-3, "peak learning rate of AdamW", is_common=True)
    muon_lr: float = option(
        0.0,
        "learning rate of Muon for the convolutions after the stem; 0 = AdamW for all weights",
    )
    weight_decay: float = option(
        5e-2, "decoupled weight decay, also of Muon; biases and norms have none"
    )
    warmup_fraction: float = option(0.1, "share of the steps in which the learning rate rises")
    freeze_norm: bool = option(
        False, "keep the batch norm statistics fixed, for fine-tuning on few records"
    )
    clip_norm: float = option(1.0, "largest gradient norm; 0 = no clipping")
    patience: int = option(
        10, "epochs without a better validation metric before training stops; 0 = never stop early"
    )
    loss: str = option(
        "auto",
        "auto = cross-entropy with one label per record, else bce; or bce, cross-entropy, "
        "balanced = cross-entropy in which rare classes weigh more, focal, asymmetric, or a "
        "function of your own, package.module:function",
    )
    label_smoothing: float = option(0.0, "label smoothing of the loss")
    crop_s: float = option(
        2.5,
        "train on random crops of this many seconds, and average overlapping windows in "
        "prediction; 0, and any length over that of the records, = whole records",
        is_common=True,
    )
    whole_epochs: int = option(
        0,
        "last epochs that train on whole records instead of crops; the model is then also "
        "evaluated and used on whole records",
    )
    ema_decay: float = option(
        0.995,
        "decay of the weight average (EMA); the averaged weights are then validated and "
        "saved; 0 = no average",
    )
    init_from: str | None = option(
        None,
        "checkpoint to start from, for fine-tuning; its outputs are kept for classes of "
        "the same names",
        is_common=True,
    )
    tune: str = option(
        "all",
        "weights that fine-tuning trains: all; head = only those of the outputs; layerwise=F = "
        "all, each stage at F times the learning rate of the next one towards the outputs",
    )
    target: str = option(
        "auto",
        "single = one label per record (cross-entropy), multi = several (BCE), "
        "auto = single if every training record has one",
        choices=("auto", "single", "multi"),
        is_common=True,
    )
    classes: tuple[str, ...] = option(
        (),
        "classes to train on, in this order; by default those of the training records",
        is_common=True,
    )
    auxiliary_weight: float = option(
        0.0,
        "weight of the loss on labels outside `classes`, whose outputs are dropped after "
        "training; 0 = ignore them",
    )
    keep_auxiliary: bool = option(
        False,
        "several labels: keep the outputs for labels outside `classes` as classes of the "
        "checkpoint",
    )
    soft_targets: str | None = option(
        None,
        "predictions (.npz of cross-fit or evaluate) to train on beside the labels; "
        "matched by record and class",
    )
    soft_weight: float = option(
        0.5, "share of the soft targets in the training targets, 0 to 1; the labels have the rest"
    )
    keep_other: bool = option(False, "also train on records whose label is the fallback OTHER")
    keep_negative: bool = option(
        False,
        "several labels: also train and validate on records with none of the classes",
    )
    leads: tuple[str, ...] = option(STANDARD_LEADS, "input leads of the network, in this order")
    normalization: str = option(
        "global",
        "zscore = per lead; global = one standard deviation per collection; none = mV; all "
        "without the mean of each lead",
        choices=NORMALIZATIONS,
        is_common=True,
    )
    highpass_hz: float = option(
        0.0,
        "zero-phase high-pass of the signals at this many Hz, such as 0.5, against baseline "
        "wander; stored in the checkpoint; 0 = none",
    )
    augment: tuple[str, ...] = option(
        (),
        "transforms of training batches with their strengths, such as gain=0.2,noise=0.05: crop, "
        "limb-swap, gain, lead-gain, shift, wander, noise, hum, offset, lead-subset, lead-dropout, "
        "mixup; or functions of your own, package.module:function",
    )
    lead_dropout: float = option(
        0.0, "share of training records in which some leads are set to zero"
    )
    mixup: float = option(
        0.0, "mixup: alpha of the beta distribution that blends two records; 0 = off"
    )
    amp: str = option(
        "auto",
        "mixed precision: auto = bf16 or fp16 on CUDA, off elsewhere",
        choices=("auto", "bf16", "fp16", "off"),
    )
    compile: str = option("auto", "torch.compile: auto = on CUDA", choices=("auto", "on", "off"))
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", is_common=True)
    seed: int = option(0, "seed of weights, record order and augmentation", is_common=True)
    deterministic: bool = option(False, "ask torch for deterministic kernels")
    track: tuple[str, ...] = option(
        (),
        "also follow the history with tensorboard, mlflow (both need requirements-tracking.txt) or "
        "a tracker of your own, package.module:factory",
    )

    def __post_init__(self) -> None:
        self._check_optimization()
        self._check_classes()
        self._check_inputs()
        _require_choices(self)
        for name in self.track:
            _require(
                name in TRACKERS or ":" in name,
                "track",
                name,
                f"{', '.join(TRACKERS)}, or package.module:factory",
            )
        _require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")

    def _check_optimization(self) -> None:
        _require(self.epochs >= 0, "epochs", self.epochs, "1 or more, or 0 to choose it")
        _require(self.lr > 0, "lr", self.lr, "a positive rate")
        _require(self.muon_lr >= 0, "muon_lr", self.muon_lr, "0 or more")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _require_share_below_1("warmup_fraction", self.warmup_fraction)
        parse_tune(self.tune)
        _require(
            self.tune == "all" or self.init_from is not None,
            "tune",
            self.tune,
            "all, or a checkpoint to start from beside it (init_from, --init-from)",
        )
        _require(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 or more")
        _require(self.patience >= 0, "patience", self.patience, "0 or more")
        _require(
            self.loss in LOSSES or ":" in self.loss,
            "loss",
            self.loss,
            f"one of {', '.join(LOSSES)}, or package.module:function",
        )
        _require(
            not (self.loss in SINGLE_LABEL_LOSSES and self.target == "multi"),
            "loss",
            self.loss,
            "bce, focal, asymmetric or auto, since the target is multi",
        )
        _require_share_below_1("label_smoothing", self.label_smoothing)
        _require_share_below_1("ema_decay", self.ema_decay)

    def _check_classes(self) -> None:
        is_unique = len(set(self.classes)) == len(self.classes)
        _require(is_unique, "classes", self.classes, "each class once")
        weight = self.auxiliary_weight
        _require(weight >= 0, "auxiliary_weight", weight, "0 or more")
        _require(
            not weight or bool(self.classes),
            "auxiliary_weight",
            weight,
            "0, or classes beside it: all labels are classes otherwise",
        )
        _require(
            not (self.keep_auxiliary and self.target == "single"),
            "keep_auxiliary",
            self.keep_auxiliary,
            "False with one label per record, whose classes exclude each other",
        )
        _require(
            not self.keep_auxiliary or weight > 0,
            "keep_auxiliary",
            self.keep_auxiliary,
            "False, or an auxiliary_weight above 0: no other labels are trained otherwise",
        )
        _require_share("soft_weight", self.soft_weight)

    def _check_inputs(self) -> None:
        _require(self.crop_s >= 0, "crop_s", self.crop_s, "0 or more seconds")
        # Without epochs of its own, a training has eight or more
        most = self.epochs or MIN_EPOCHS
        _require(
            0 <= self.whole_epochs <= most, "whole_epochs", self.whole_epochs, f"0 to {most} epochs"
        )
        is_known = bool(self.leads) and set(self.leads) <= set(STANDARD_LEADS)
        _require(is_known, "leads", self.leads, f"some of {', '.join(STANDARD_LEADS)}")
        _require(len(set(self.leads)) == len(self.leads), "leads", self.leads, "each lead once")
        _require(self.highpass_hz >= 0, "highpass_hz", self.highpass_hz, "0 or more Hz")
        _require_share("lead_dropout", self.lead_dropout)
        _require(self.mixup >= 0, "mixup", self.mixup, "0 or more")
        strengths, _ = parse_augment(self.augment)
        for name, value in (("lead-dropout", self.lead_dropout), ("mixup", self.mixup)):
            _require(
                not (value and name in strengths),
                "augment",
                self.augment,
                f"no {name}, which has a setting of its own that is {value:g}",
            )
        _require(
            not (self.whole_epochs and "crop" in strengths),
            "augment",
            self.augment,
            "no crop beside whole_epochs, which train on whole records",
        )


def parse_tune(text: str) -> float:
    """Return the learning rate of a stage as a share of that of the next one towards the outputs.

    Parameters
    ----------
    text
        ``all`` (1), ``head`` (0) or ``layerwise=F``.

    Raises
    ------
    ValueError
        If it is something else.
    """
    named = {"all": 1.0, "head": 0.0}
    if text in named:
        return named[text]
    name, _, value = text.partition("=")
    try:
        factor = float(value) if name == "layerwise" else math.nan
    except ValueError:
        factor = math.nan
    # NaN lies in no range.
    expected = "all, head, or layerwise=F with F above 0 and up to 1"
    _require(0 < factor <= 1, "tune", text, expected)
    return factor


def parse_augment(items: Sequence[str]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the strengths of the named transforms, and the import paths of others.

    Parameters
    ----------
    items
        ``NAME=STRENGTH``, with a name of `AUGMENTATIONS`, or ``package.module:function``.

    Raises
    ------
    ValueError
        If a name is unknown or given twice, or a strength is out of range.
    """
    strengths: dict[str, float] = {}
    paths: list[str] = []
    for item in items:
        name, separator, text = item.partition("=")
        if ":" in name and not separator:
            paths.append(item)
            continue
        name = name.replace("_", "-")
        _require(
            bool(separator) and name in AUGMENTATIONS,
            "augment",
            item,
            f"NAME=STRENGTH with a name of {', '.join(AUGMENTATIONS)}, or package.module:function",
        )
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        most = 1.0 if AUGMENTATIONS[name].startswith("share") else math.inf
        unit = f"a strength ({AUGMENTATIONS[name]}) of 0 {'to 1' if most == 1 else 'or more'}"
        _require(math.isfinite(value) and 0 <= value <= most, "augment", item, unit)
        _require(name not in strengths, "augment", item, f"{name} only once")
        strengths[name] = value
    _require(len(set(paths)) == len(paths), "augment", items, "each function once")
    return strengths, tuple(paths)


# Data and everything together ---------------------------------------------------------------------


@dataclass(frozen=True)
class DataConfig:
    """Folders of the collections, and the rate, gain and leads of files that do not say them."""

    roots: dict[str, str] = option(
        {}, "dataset name -> folder or URL; empty = the synthetic collections"
    )
    mapping: str | None = option(None, "label mapping; None = logs/unified_label_mapping.csv")
    source_fs: dict[str, float] = option(
        {}, "dataset name -> sampling rate in Hz, for files that do not state it"
    )
    source_gain_per_mv: dict[str, float] = option(
        {}, "dataset name -> ADC units per mV, for files that do not state it"
    )
    leads: dict[str, tuple[str, ...]] = option(
        {},
        "dataset name -> leads of the channels, by place (II) or by name (ECG1:II), for files that "
        "do not state them",
    )
    n_sample_records: int = option(180, "recordings to generate if no roots are set")


@dataclass(frozen=True)
class Config:
    """All settings of a notebook or a command."""

    root: str = option(str(PROJECT_ROOT), "folder that contains logs, artifacts and figures")
    data: DataConfig = field(default_factory=DataConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    splits: SplitConfig = field(default_factory=SplitConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


PRESETS: Mapping[str, Mapping[str, object]] = {
    "quick": {"train": {"epochs": 6, "muon_lr": 0.02, "ema_decay": 0.0, "patience": 0}},
    "standard": {},
    "long": {"train": {"epochs": 60, "patience": 0}},
}
"""Name -> the settings in which a whole recipe differs from the defaults: ``quick`` for a first
answer in minutes, ``standard`` (the defaults), ``long`` for the last thousandths."""


# Sections whose settings may stand at the top level of a file; no two share a setting's name.
_TRAINING_SECTIONS = {
    "train": TrainConfig,
    "model": ModelConfig,
    "loader": LoaderConfig,
}


def config_paths(config: Config) -> ProjectPaths:
    """Return the `ProjectPaths` of a config, with its label mapping if it names one."""
    paths = project_paths(config.root)
    if config.data.mapping:
        return dataclasses.replace(paths, mapping=Path(config.data.mapping))
    return paths


def resolve_paths(config: Config) -> Config:
    """Return the settings with absolute paths: relative ones count from the project folder.

    A notebook runs in a folder of its own, so that the current folder would be a surprise.
    """
    root = PROJECT_ROOT / config.root

    def resolve(path: str | None) -> str | None:
        if not path or as_url(path):
            return path
        return str(root / as_path(path).expanduser())

    roots = {name: str(resolve(folder)) for name, folder in config.data.roots.items()}
    data = dataclasses.replace(config.data, roots=roots, mapping=resolve(config.data.mapping))
    train = dataclasses.replace(
        config.train,
        init_from=resolve(config.train.init_from),
        soft_targets=resolve(config.train.soft_targets),
    )
    return dataclasses.replace(config, root=str(root), data=data, train=train)


# Cached because it is needed several times per record.
@lru_cache(maxsize=64)
def config_hash(config: PreprocessConfig, format_version: int) -> str:
    """Return the hash of the result settings that is stored in a record file."""
    values = to_jsonable(config)
    for name in _LATER_SETTINGS:
        if values[name] == PreprocessConfig.__dataclass_fields__[name].default:
            del values[name]
    return stable_hash({"format": format_version, **values})


def list_changes(config: Config) -> list[tuple[str, str, str]]:
    """Return name, value and default of each setting that differs from its default.

    An example is ``("train.epochs", "12", "30")``.
    """
    values = to_jsonable(config)
    defaults = to_jsonable(Config())
    changes = []
    for section in values:
        if section == "root":
            continue
        for name, value in values[section].items():
            default = defaults[section][name]
            if value != default:
                changes.append((f"{section}.{name}", plain_value(value), plain_value(default)))
    return changes


def plain_value(value: object) -> str:
    """Return a setting's value as a user would type it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain_value, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}={plain_value(item)}" for name, item in value.items()) or "none"
    return str(value)


# JSON ---------------------------------------------------------------------------------------------


def build_config(values: Mapping[str, object] | None = None, **sections: object) -> Config:
    """Build a `Config` from nested dictionaries, as a JSON file holds them.

    Raises
    ------
    ValueError
        With every unknown name and every value of a wrong type or out of range at once.

    Notes
    -----
    ``preset`` names one of `PRESETS`, whose settings the others change.
    """
    return from_dict(Config, _apply_preset({**(values or {}), **sections}))


def load_config(path: str | Path) -> Config:
    """Read a `Config` from a JSON file.

    Settings of the sections train, model and loader may also stand at the top level, under the
    names of their options; ``preset`` names one of `PRESETS`, whose settings they change.

    Raises
    ------
    ValueError
        If the file is missing or has wrong settings; the message names the file.
    """
    return load_dataclass(Config, path, lambda values: _apply_preset(_move_into_sections(values)))


def save_config(config: Config, path: str | Path) -> None:
    """Write a `Config` as JSON."""
    save_json(config, path)


def merge_sections(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Return nested settings with changes: those of a section one by one, other values whole."""
    merged = dict(base)
    for name, value in changes.items():
        section = merged.get(name)
        if isinstance(section, dict) and isinstance(value, dict):
            merged[name] = {**section, **value}
        else:
            merged[name] = value
    return merged


def _apply_preset(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return nested settings with those of the preset that they name."""
    if "preset" not in values:
        return values
    name = values["preset"]
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"preset is {printable(repr(name))}: expected one of {', '.join(PRESETS)}")
    changes = {key: value for key, value in values.items() if key != "preset"}
    return merge_sections(PRESETS[name], changes)


def _move_into_sections(values: Mapping[str, object]) -> Mapping[str, object]:
    """Move top-level settings of `_TRAINING_SECTIONS` into their sections.

    A setting that its section already has stays where it is, and is then refused as unknown.
    """
    moved = {
        name: dict(value) if isinstance(value, dict) else value for name, value in values.items()
    }
    for section, kind in _TRAINING_SECTIONS.items():
        field_names = {field.name for field in dataclasses.fields(kind)}
        for written in values:
            name = written.replace("-", "_")
            if name not in field_names:
                continue
            target = moved.setdefault(section, {})
            if isinstance(target, dict) and name not in target:
                target[name] = moved.pop(written)
    return moved


def load_dataclass(
    kind: type[T],
    path: str | Path,
    arrange: Callable[[Mapping[str, object]], Mapping[str, object]] | None = None,
) -> T:
    """Read the settings class `kind` from a JSON file.

    Parameters
    ----------
    kind
        A dataclass of settings.
    path
        The file.
    arrange
        Rearranges the values of the file before they are converted.

    Raises
    ------
    ValueError
        If the file is missing or has wrong settings; the message names the file.
    """
    if not Path(path).is_file():
        raise ValueError(
            f"{path}: no such file; expected settings in JSON, as in recipes/ptbxl_quick.json"
        )
    values = load_json(path)
    try:
        if not isinstance(values, dict):
            raise ValueError(f"expected an object of settings, found {type(values).__name__}")
        return from_dict(kind, arrange(values) if arrange else values)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from None


def from_dict(kind: type[T], values: Mapping[str, object]) -> T:
    """Build the dataclass `kind` from plain values.

    Raises
    ------
    ValueError
        With all problems at once.
    """
    problems: list[str] = []
    built = _build_dataclass(kind, values, "", problems)
    if problems:
        n_more = len(problems) - _MAX_PROBLEMS
        shown = problems[:_MAX_PROBLEMS]
        if n_more > 0:
            shown.append(f"and {n_more} more")
        raise ValueError("; ".join(shown))
    return typing.cast(T, built)


def _build_dataclass(
    kind: Any, values: Mapping[str, object], prefix: str, problems: list[str]
) -> object:
    """Build a settings class, or append its problems to `problems`."""
    hints = get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    values = _replace_old(kind, values, prefix, problems)
    unknown = sorted(f"{prefix}{name}" for name in values.keys() - names)
    if unknown:
        shown = ", ".join(map(printable, unknown[:_MAX_UNKNOWN]))
        if len(unknown) > _MAX_UNKNOWN:
            shown += f" and {len(unknown) - _MAX_UNKNOWN} more"
        plural = "s" if len(unknown) > 1 else ""
        problems.append(f"unknown setting{plural} {shown} (known: {', '.join(sorted(names))})")
    arguments = {}
    for name in sorted(values.keys() & names):
        n_problems_before = len(problems)
        value = _convert(hints[name], values[name], f"{prefix}{name}", problems)
        if len(problems) == n_problems_before:
            arguments[name] = value
    required = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is field.default_factory is dataclasses.MISSING
    }
    if required - arguments.keys():
        for name in sorted(required - values.keys()):
            problems.append(f"setting {prefix}{name} is missing")
        return None
    try:
        return kind(**arguments)
    except ValueError as error:
        problems.append(f"{prefix}{error}")
        return None


def _replace_old(
    kind: Any, values: Mapping[str, object], prefix: str, problems: list[str]
) -> Mapping[str, object]:
    """Return settings without one that earlier versions wrote, or name what took its place."""
    if kind is not TrainConfig or "tensorboard" not in values:
        return values
    if values["tensorboard"]:
        problems.append(f'{prefix}tensorboard is no setting any more: use "track": ["tensorboard"]')
    return {name: value for name, value in values.items() if name != "tensorboard"}


def _convert(hint: Any, value: object, name: str, problems: list[str]) -> object:
    """Convert a JSON value to the type of a field, or append the problem to `problems`."""
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        if isinstance(value, dict):
            return _build_dataclass(hint, value, f"{name}.", problems)
    if hint is Any:
        return value

    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        inner = next(item for item in arguments if item is not type(None))
        return _convert(inner, value, name, problems)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_convert(arguments[0], item, name, problems) for item in value)
    if origin is dict and isinstance(value, dict):
        return {
            str(key): _convert(arguments[1], item, f"{name}.{key}", problems)
            for key, item in value.items()
        }

    # A bool is an int in Python, but not in a settings file.
    is_bool = isinstance(value, bool)
    if hint is float and isinstance(value, (int, float)) and not is_bool:
        return float(value)
    if hint is str and isinstance(value, Path):
        return str(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is not int or not is_bool):
        return value
    expected = getattr(hint, "__name__", hint)
    problems.append(f"{name} is {printable(repr(value))}: expected {expected}")
    return None
