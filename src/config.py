"""Settings as frozen dataclasses with checks, read from and written to JSON.

Result settings (`PreprocessConfig`, `SplitConfig`, `ModelConfig`, `TrainConfig`) decide what comes
out and are hashed or stored with the outputs; execution settings (`ExecutionConfig`,
`LoaderConfig`) decide how fast it comes out, but for the batch size, the sampling, the rounding of
the packed cache, and the loader processes, which draw the crops.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from src.utils import (
    PROJECT_ROOT,
    ProjectPaths,
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
_PROBLEMS_SHOWN = 20

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
NORMALIZATIONS = ("zscore", "global", "none")


def _require(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition or value in (math.inf, -math.inf):  # JSON has no word for these
        raise ValueError(f"{name} is {printable(repr(value))}: expected {expected}")


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, name, value, "one of " + ", ".join(choices))


def option(default: Any, text: str) -> Any:
    """Return a dataclass field with its help text, which the command line and the guide show."""
    if isinstance(default, (dict, list)):
        return field(default_factory=default.copy, metadata={"help": text})
    return field(default=default, metadata={"help": text})


QUALITY_FLAGS = (
    "amplitude",
    "flat",
    "flat_part",
    "gap_filled",
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
)
"""Kinds of quality flags that `QualityConfig.reject_flags` may name."""


@dataclass(frozen=True)
class QualityConfig:
    """Limits beyond which a recording is flagged, and the flags that reject it; docs/quality.md
    explains them.
    """

    flat_part_s: float = option(2.0, "flag leads that stand still for this many seconds or longer")
    clipped_share: float = option(
        0.005,
        "flag leads with more than this share of samples at rest at their highest or lowest value",
    )
    wander_mv: float = option(1.0, "flag leads whose baseline moves over more than this many mV")
    noise_mv: float = option(
        0.0075, "flag leads with more than this many mV at 30 to 40 Hz between beats"
    )
    burst_mv: float = option(
        0.03, "flag leads where a second has this many mV more at 30 to 40 Hz than usual"
    )
    hum_mv: float = option(
        0.02, "flag leads with more than this many mV at 50 or 60 Hz between beats"
    )
    amplitude_low_mv: float = option(
        0.35,
        "flag a recording whose typical range in a second is below this many mV: the gain "
        "may be wrong",
    )
    amplitude_high_mv: float = option(
        4.0, "flag a recording whose typical range in a second is above this many mV"
    )
    equation_share: float = option(
        0.1, "flag limb leads that leave more than this share over in III = II - I and its like"
    )
    swap_ratio: float = option(
        1.65,
        "flag limb electrodes as swapped where that explains the chest leads this many "
        "times better",
    )
    reject_flags: tuple[str, ...] = option(
        (),
        "quality flags that reject a record, such as clipped; flat:3 means in three leads or more",
    )

    def __post_init__(self) -> None:
        for name in (
            "flat_part_s",
            "clipped_share",
            "wander_mv",
            "noise_mv",
            "burst_mv",
            "hum_mv",
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
        for text in self.reject_flags:
            kind, colon, number = text.partition(":")
            _require(
                kind in QUALITY_FLAGS, "reject_flags", text, "some of " + ", ".join(QUALITY_FLAGS)
            )
            _require(
                not colon or (number.isdecimal() and int(number) > 0),
                "reject_flags",
                text,
                f"{kind}:N with N leads, 1 or more",
            )


@dataclass(frozen=True)
class PreprocessConfig:
    """What turns a recording into a tensor; hashed into every record file."""

    fs: float = option(500.0, "target sampling rate in Hz")
    n_samples: int = option(
        5000, "samples per record file; longer records are cut, shorter ones padded with zeros"
    )
    max_gap_s: float = option(
        0.2,
        "longest gap of missing samples that is interpolated, in seconds; longer rejects "
        "the record",
    )
    max_amplitude_mv: float = option(10.0, "flag leads that go beyond this many mV")
    flat_std_mv: float = option(
        1e-6, "a lead whose standard deviation is at most this many mV is flat"
    )
    min_duration_s: float = option(0.5, "reject records shorter than this many seconds")
    window_s: float = option(
        0.0,
        "cut each record into windows of this many seconds, each a record file; 0 takes "
        "its beginning only",
    )
    stride_s: float = option(
        0.0, "seconds from the start of one window to the next; 0 means the window length"
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
        _require(
            self.max_amplitude_mv > 0,
            "max_amplitude_mv",
            self.max_amplitude_mv,
            "a positive voltage",
        )
        _require(self.flat_std_mv >= 0, "flat_std_mv", self.flat_std_mv, "0 or more mV")
        _require(
            self.min_duration_s >= 0, "min_duration_s", self.min_duration_s, "0 or more seconds"
        )
        longest = self.n_samples / self.fs
        _require(
            0 <= self.window_s <= longest + 1e-9,
            "window_s",
            self.window_s,
            f"0 to {longest:g} s, which is what n_samples={self.n_samples} hold at {self.fs:g} Hz",
        )
        _require(self.stride_s >= 0, "stride_s", self.stride_s, "0 or more seconds")
        _require(
            self.window_s > 0 or self.stride_s == 0, "stride_s", self.stride_s, "0 without window_s"
        )


@dataclass(frozen=True)
class SplitConfig:
    """How records are divided into train, val and test."""

    val_fraction: float = option(0.1, "share of records for validation")
    test_fraction: float = option(0.1, "share of records for test")
    seed: int = option(0, "seed of the split")
    val_folds: tuple[int, ...] = option((9,), "folds of the mapping that validate")
    test_folds: tuple[int, ...] = option((10,), "folds of the mapping that test")
    on_duplicate: str = option(
        "group",
        "one recording in several records: group keeps them in one split, keep-first and "
        "drop-all leave copies out, fail stops",
    )

    def __post_init__(self) -> None:
        for name in ("val_fraction", "test_fraction"):
            _require(
                0 <= getattr(self, name) < 1,
                name,
                getattr(self, name),
                "a share from 0 up to below 1",
            )
        _require(
            self.val_fraction + self.test_fraction < 1,
            "val_fraction + test_fraction",
            self.val_fraction + self.test_fraction,
            "less than 1, so that some records train",
        )
        _require_choice(
            "on_duplicate", self.on_duplicate, ("group", "keep-first", "drop-all", "fail")
        )
        both = set(self.val_folds) & set(self.test_folds)
        _require(not both, "val_folds and test_folds", sorted(both), "no fold in both")


@dataclass(frozen=True)
class ExecutionConfig:
    """How the preprocessing run is carried out; nothing here changes a result."""

    workers: int = option(0, "worker processes; 0 means one per core, 1 runs in this process")
    on_error: str = option(
        "skip", "skip lists a bad record in the manifest and goes on; raise stops at the first"
    )
    chunk_size: int = option(
        256, "records handed to a worker at a time; fewer where there are few, and towards the end"
    )
    max_failed: float = option(
        1.0,
        "share of the records that may fail; with more the run ends as failed, after "
        "everything is written",
    )
    shard_above: int = option(
        1_000_000,
        "records above which a new output folder gets its record files in 4096 "
        "subfolders; 0 always makes them",
    )

    def __post_init__(self) -> None:
        _require(self.shard_above >= 0, "shard_above", self.shard_above, "0 or more")
        _require(self.workers >= 0, "workers", self.workers, "0 or more")
        _require_choice("on_error", self.on_error, ("skip", "raise"))
        _require(self.chunk_size >= 1, "chunk_size", self.chunk_size, "1 or more")
        _require(0 <= self.max_failed <= 1, "max_failed", self.max_failed, "a share from 0 to 1")

    @property
    def n_workers(self) -> int:
        """The number of worker processes after 0 is resolved."""
        return self.workers or available_cores()


@dataclass(frozen=True)
class LoaderConfig:
    """How batches are read; batch size, sampling, the rounding of the packed cache and, where crops
    are drawn, loader processes change a result.
    """

    batch_size: int = option(64, "records per batch")
    loader_workers: int = option(0, "loader processes; 0 reads in the training process")
    pin_memory: bool | None = option(None, "pinned host memory; by default only when CUDA is used")
    balanced_sampling: bool = option(True, "draw rare classes more often in training")
    cache: str = option(
        "packed",
        "packed keeps each split as one memory-mapped array, built when it is first "
        "needed; off reads the record files",
    )

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _require(self.loader_workers >= 0, "loader_workers", self.loader_workers, "0 or more")
        _require_choice("cache", self.cache, ("packed", "off"))


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the network."""

    base_channels: int = option(
        64,
        "unit of width: the stages have 3/4, 3/2, 3 and 9/2 times as many channels; 64 "
        "gives 1.4 M parameters",
    )
    dropout: float = option(0.2, "dropout before the classifier")
    lead_mask: bool = option(
        False,
        "tell the network which leads are absent, for checkpoints that serve several lead sets",
    )

    def __post_init__(self) -> None:
        _require(self.base_channels >= 4, "base_channels", self.base_channels, "4 or more")
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "a share from 0 up to below 1")


@dataclass(frozen=True)
class TrainConfig:
    """How the network is fitted."""

    epochs: int = option(30, "passes over the training records")
    lr: float = option(2e-3, "peak learning rate of AdamW")
    muon_lr: float = option(
        0.0,
        "learning rate of Muon, which then takes the kernels behind the stem; 0 leaves "
        "all to AdamW",
    )
    weight_decay: float = option(
        1e-2, "decoupled weight decay, of Muon too; not of biases and norms"
    )
    warmup_fraction: float = option(0.1, "share of the steps in which the learning rate rises")
    freeze_norm: bool = option(
        False, "keep the statistics of the batch norms as they are, for fine-tuning on few records"
    )
    clip_norm: float = option(1.0, "largest gradient norm; 0 turns clipping off")
    patience: int = option(
        10, "epochs without a better validation metric before training stops; 0 never stops early"
    )
    label_smoothing: float = option(0.0, "label smoothing of the loss")
    crop_s: float = option(
        0.0,
        "train on random crops of this many seconds and average overlapping windows "
        "later; 0 uses whole records",
    )
    whole_epochs: int = option(
        0,
        "last epochs, which see whole records instead of crops; whole records are then "
        "judged and predicted",
    )
    ema_decay: float = option(
        0.0,
        "decay of a moving average of the weights, which is then what validates and is "
        "kept; 0 turns it off",
    )
    init_from: str | None = option(
        None,
        "checkpoint to start from, for fine-tuning; its outputs are kept for classes of "
        "the same names",
    )
    target: str = option(
        "auto",
        "single trains one label per record with cross-entropy, multi several with BCE; auto looks",
    )
    classes: tuple[str, ...] = option(
        (), "classes to train on, in this order; by default those of the training records"
    )
    auxiliary_weight: float = option(
        0.0,
        "weight of the loss on labels outside `classes`, learned through outputs that are "
        "dropped in the end; 0 ignores them",
    )
    keep_auxiliary: bool = option(
        False,
        "several labels: keep the outputs of the labels beside `classes` as classes of "
        "the checkpoint, instead of dropping them",
    )
    soft_targets: str | None = option(
        None,
        "predictions (.npz, as cross-fit and evaluate leave them) to learn from beside "
        "the labels; matched by record and class",
    )
    soft_weight: float = option(
        0.5, "share of the soft targets in what is learned, 0 to 1; the labels have the rest"
    )
    keep_other: bool = option(False, "train on records whose label is the fallback OTHER as well")
    keep_negative: bool = option(
        False,
        "several labels: train and validate on records that carry none of the classes as well",
    )
    leads: tuple[str, ...] = option(STANDARD_LEADS, "leads that the network sees, in this order")
    normalization: str = option(
        "zscore", "zscore per lead; global: one mean and spread per collection; none: mV"
    )
    lead_dropout: float = option(0.0, "share of training records of which some leads are zeroed")
    mixup: float = option(
        0.0, "mixup: alpha of the beta distribution that blends two records; 0 turns it off"
    )
    amp: str = option(
        "auto", "mixed precision: auto (bf16 or fp16 on CUDA, off elsewhere), bf16, fp16, off"
    )
    compile: str = option("auto", "torch.compile: auto (on CUDA), on, off")
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps")
    seed: int = option(0, "seed of weights, order and augmentation")
    deterministic: bool = option(False, "ask torch for deterministic kernels")
    tensorboard: bool = option(
        False,
        "write the history for TensorBoard as well, in tensorboard/ of the run; needs "
        "requirements-tensorboard.txt",
    )

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _require(self.lr > 0, "lr", self.lr, "a positive rate")
        _require(self.muon_lr >= 0, "muon_lr", self.muon_lr, "0 or more")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _require(
            0 <= self.warmup_fraction < 1,
            "warmup_fraction",
            self.warmup_fraction,
            "a share from 0 up to below 1",
        )
        _require(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 or more")
        _require(self.patience >= 0, "patience", self.patience, "0 or more")
        _require(
            0 <= self.label_smoothing < 1,
            "label_smoothing",
            self.label_smoothing,
            "a share from 0 up to below 1",
        )
        _require(self.crop_s >= 0, "crop_s", self.crop_s, "0 or more seconds")
        _require(
            0 <= self.whole_epochs <= self.epochs,
            "whole_epochs",
            self.whole_epochs,
            f"0 to the {self.epochs} epochs",
        )
        _require(self.auxiliary_weight >= 0, "auxiliary_weight", self.auxiliary_weight, "0 or more")
        _require(
            not self.auxiliary_weight or bool(self.classes),
            "auxiliary_weight",
            self.auxiliary_weight,
            "0, or classes beside it: all labels are classes otherwise",
        )
        _require(0 <= self.soft_weight <= 1, "soft_weight", self.soft_weight, "a share from 0 to 1")
        _require(
            not (self.keep_auxiliary and self.target == "single"),
            "keep_auxiliary",
            self.keep_auxiliary,
            "False with one label per record, whose classes exclude each other",
        )
        _require(
            not self.keep_auxiliary or self.auxiliary_weight > 0,
            "keep_auxiliary",
            self.keep_auxiliary,
            "False, or an auxiliary_weight above 0: nothing is learned beside the classes "
            "otherwise",
        )
        _require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        _require(
            0 <= self.lead_dropout <= 1, "lead_dropout", self.lead_dropout, "a share from 0 to 1"
        )
        _require(self.mixup >= 0, "mixup", self.mixup, "0 or more")
        _require_choice("normalization", self.normalization, NORMALIZATIONS)
        unknown = [lead for lead in self.leads if lead not in STANDARD_LEADS]
        _require(
            bool(self.leads) and not unknown,
            "leads",
            self.leads,
            f"some of {', '.join(STANDARD_LEADS)}",
        )
        _require(len(set(self.leads)) == len(self.leads), "leads", self.leads, "each lead once")
        _require(
            0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "a share from 0 up to below 1"
        )
        _require_choice("target", self.target, ("auto", "single", "multi"))
        _require_choice("amp", self.amp, ("auto", "bf16", "fp16", "off"))
        _require_choice("compile", self.compile, ("auto", "on", "off"))
        _require(
            len(set(self.classes)) == len(self.classes), "classes", self.classes, "each class once"
        )


@dataclass(frozen=True)
class DataConfig:
    """Where collections lie and what their files do not say; empty `roots` means the synthetic
    collections.
    """

    roots: dict[str, str] = option({}, "dataset name -> folder")
    mapping: str | None = option(None, "label table; None means logs/unified_label_mapping.csv")
    source_fs: dict[str, float] = option(
        {}, "dataset name -> Hz, for files that do not say their rate"
    )
    source_gain_per_mv: dict[str, float] = option(
        {}, "dataset name -> ADC units per mV, for files that do not say it"
    )
    n_sample_records: int = option(180, "recordings to generate where no roots are set")


@dataclass(frozen=True)
class Config:
    """Everything a notebook or a command needs."""

    root: str = option(str(PROJECT_ROOT), "folder below which logs, artifacts and figures are kept")
    data: DataConfig = field(default_factory=DataConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    splits: SplitConfig = field(default_factory=SplitConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


_TRAINING_SECTIONS = {
    "train": TrainConfig,
    "model": ModelConfig,
    "loader": LoaderConfig,
}  # no two have a setting of one name


@lru_cache(maxsize=64)  # asked for several times per record
def config_hash(config: PreprocessConfig, format_version: int) -> str:
    """Return the hash that names the result settings of a record file."""
    return stable_hash({"format": format_version, **to_jsonable(config)})


def list_changes(config: Config) -> list[tuple[str, str, str]]:
    """Return name, value and default of every setting that is not the default, such as
    ``("train.epochs", "12", "30")``.
    """
    values, defaults = to_jsonable(config), to_jsonable(Config())
    sections = [name for name in values if name != "root"]
    changed = [
        (f"{section}.{name}", value, defaults[section][name])
        for section in sections
        for name, value in values[section].items()
    ]
    return [
        (name, plain_value(value), plain_value(default))
        for name, value, default in changed
        if value != default
    ]


def plain_value(value: object) -> str:
    """Return a setting as it would be typed."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain_value, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}={plain_value(item)}" for name, item in value.items()) or "none"
    if value is None:
        return "none"
    return (
        f"{value:g}"
        if isinstance(value, float)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )


def build_config(values: dict[str, Any] | None = None, **sections: Any) -> Config:
    """Build a `Config` from nested dictionaries, as a JSON file holds them.

    Raises
    ------
    ValueError
        With every unknown name and every value of a wrong type or out of range at once.
    """
    return from_dict(Config, {**(values or {}), **sections})


def load_config(path: str | Path) -> Config:
    """Read a `Config` from a JSON file; errors name the file.

    Settings of training may also stand outside their section, under the names that their options
    have.
    """
    return load_dataclass(Config, path, _sorted_into_sections)


def _sorted_into_sections(values: dict[str, Any]) -> dict[str, Any]:
    """Move the settings of `_TRAINING_SECTIONS` that stand beside the sections into theirs; one
    that is there already stays.
    """
    sorted_values = {
        name: dict(value) if isinstance(value, dict) else value for name, value in values.items()
    }
    for section, kind in _TRAINING_SECTIONS.items():
        known = {field.name for field in dataclasses.fields(kind)}
        loose = {name.replace("-", "_"): name for name in values if name.replace("-", "_") in known}
        place = sorted_values.setdefault(section, {}) if loose else None
        if isinstance(place, dict):
            place.update(
                {
                    name: sorted_values.pop(written)
                    for name, written in loose.items()
                    if name not in place
                }
            )
    return sorted_values


def load_dataclass(
    kind: type[T], path: str | Path, arrange: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> T:
    """Read the settings class `kind` from a JSON file, after `arrange` put its values in order;
    errors name the file.
    """
    if not Path(path).is_file():
        raise ValueError(
            f"{path}: no such file; expected settings in JSON, as in recipes/ptbxl_quick.json"
        )
    values = load_json(path)
    try:
        if not isinstance(values, dict):
            raise ValueError(f"expected an object of settings, found {type(values).__name__}")
        return from_dict(kind, arrange(values))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from None


def save_config(config: Config, path: str | Path) -> None:
    """Write a `Config` as JSON."""
    save_json(config, path)


def config_paths(config: Config) -> ProjectPaths:
    """Return the `ProjectPaths` of a config, with its own mapping where one is set."""
    paths = project_paths(config.root)
    return (
        dataclasses.replace(paths, mapping=Path(config.data.mapping))
        if config.data.mapping
        else paths
    )


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """Build the dataclass `kind` from plain values, reporting every problem at once."""
    problems: list[str] = []
    built = _from_dict(kind, values, "", problems)
    if problems:
        more = (
            [f"and {len(problems) - _PROBLEMS_SHOWN} more"]
            if len(problems) > _PROBLEMS_SHOWN
            else []
        )
        raise ValueError("; ".join([*problems[:_PROBLEMS_SHOWN], *more]))
    return typing.cast(T, built)


def _from_dict(kind: Any, values: dict[str, Any], prefix: str, problems: list[str]) -> Any:
    hints = get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    for name in values.keys() - known:
        problems.append(
            f"unknown setting {prefix}{printable(str(name))} (known: {', '.join(sorted(known))})"
        )
    arguments = {}
    for name in sorted(values.keys() & known):
        before = len(problems)
        value = _convert(hints[name], values[name], f"{prefix}{name}", problems)
        if len(problems) == before:
            arguments[name] = value
    needed = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is f.default_factory is dataclasses.MISSING
    }
    if needed - arguments.keys():
        problems.extend(
            f"setting {prefix}{name} is missing" for name in sorted(needed - values.keys())
        )
        return None
    try:
        return kind(**arguments)
    except ValueError as error:
        problems.append(f"{prefix}{error}")
        return None


def _convert(hint: Any, value: Any, name: str, problems: list[str]) -> Any:
    """Convert a JSON value to the type that a field declares, or note why it cannot be."""
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        if isinstance(value, dict):
            return _from_dict(hint, value, f"{name}.", problems)
    if hint is Any:
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, name, problems)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_convert(arguments[0], item, name, problems) for item in value)
    if origin is dict and isinstance(value, dict):
        return {
            str(key): _convert(arguments[1], item, f"{name}.{key}", problems)
            for key, item in value.items()
        }
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, Path):
        return str(value)
    if (
        isinstance(hint, type)
        and isinstance(value, hint)
        and not (hint is int and isinstance(value, bool))
    ):
        return value
    problems.append(
        f"{name} is {printable(repr(value))}: expected {getattr(hint, '__name__', hint)}"
    )
    return None
