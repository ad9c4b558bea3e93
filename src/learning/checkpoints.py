"""Checkpoints: all that is needed to use a model, loaded without running code from the file."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from src.config import STANDARD_LEADS, ModelConfig, PreprocessConfig, from_dict
from src.learning.conformal import CoverageLimits
from src.learning.unlike import Reference
from src.processed.normalization import Normalization
from src.utils import CODE_ROOT, atomic_path, printable, project_paths, to_jsonable

CHECKPOINT_FORMAT = 1

# Limits against hostile files. The input is the number of values of a record: a day of 12 leads at
# 48 Hz.
_MAX_CLASSES = 10_000
_MAX_INPUT = 50_000_000


@dataclass(frozen=True)
class NetworkSource:
    """The code that a network was trained with.

    Attributes
    ----------
    sha256
        Hash of the file that holds its factory; empty where there is no file.
    package
        Name and version of the package that it comes from; empty where it is not installed.
    """

    sha256: str = ""
    package: str = ""


@dataclass(frozen=True)
class LogitScale:
    """A calibration: what the logits of each class are multiplied by, and what is added then.

    The slopes of classes that exclude each other are equal: the inverse of a temperature.
    """

    slope: tuple[float, ...]
    intercept: tuple[float, ...]

    def __post_init__(self) -> None:
        is_finite = all(map(math.isfinite, self.slope + self.intercept))
        if not (is_finite and all(value > 0 for value in self.slope)):
            raise ValueError("calibration: expected positive slopes and finite intercepts")

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Return calibrated logits (B, n_classes)."""
        slope = torch.tensor(self.slope, dtype=logits.dtype, device=logits.device)
        intercept = torch.tensor(self.intercept, dtype=logits.dtype, device=logits.device)
        return logits * slope + intercept


@dataclass(frozen=True)
class FittedOn:
    """The records that thresholds, calibration or limits of a model were chosen on.

    Attributes
    ----------
    method
        The rule of the thresholds, such as ``f1``, the kind of the calibration, or the coverage.
    split
        Name of their split.
    n_records
        Their number.
    datasets
        The datasets that they come from.
    unchanged
        Classes without a positive or without a negative among them, which stayed as they were; of
        a coverage, those with too few patients to exclude an answer.
    """

    method: str
    split: str
    n_records: int
    datasets: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()

    def __str__(self) -> str:
        datasets = f" of {', '.join(self.datasets)}" if self.datasets else ""
        return f"{self.method}, chosen on {self.n_records} records of split {self.split}{datasets}"


@dataclass(frozen=True)
class ModelCard:
    """The input and the output of a model, saved with its weights.

    Attributes
    ----------
    classes
        Names of the outputs, in order.
    single_label
        True for a softmax over exclusive classes, False for a sigmoid for each.
    model
        Settings of the network.
    preprocess
        Settings that turn a recording into the input, among them `fs` and `n_samples`.
    leads
        Input leads, in order.
    normalization
        How signals are scaled.
    crop_samples
        Length of the crops that the model was trained on; 0 means whole records.
    min_leads
        Leads that the records of the training collection with the fewest leads have; 0 if unknown.
    min_samples
        Samples before the padding that the records of the training collection with the shortest
        records have; 0 if unknown.
    thresholds
        Decision threshold of each class; empty means 0.5. ``evaluate --save`` and ``recalibrate``
        set them.
    calibration
        Calibration of the logits, from which all probabilities are then computed; None leaves them
        as they are.
    coverage
        Limits beyond which an answer is not sure (`list_unsure`); None where none were fitted.
        ``evaluate --coverage X --save`` sets them.
    thresholds_on, calibration_on, coverage_on
        The records that these were chosen on; None where that is not known.
    config
        The settings of the training run as JSON values, without its folders.
    train_hashes
        Fingerprints of the recordings that the model was trained on.
    source
        The code of the network.

    Raises
    ------
    ValueError
        If classes, leads, input or thresholds are impossible.
    """

    classes: tuple[str, ...]
    single_label: bool
    model: ModelConfig = field(default_factory=ModelConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    leads: tuple[str, ...] = STANDARD_LEADS
    normalization: Normalization = field(default_factory=Normalization)
    crop_samples: int = 0
    min_leads: int = 0
    min_samples: int = 0
    thresholds: tuple[float, ...] = ()
    calibration: LogitScale | None = None
    thresholds_on: FittedOn | None = None
    calibration_on: FittedOn | None = None
    coverage: CoverageLimits | None = None
    coverage_on: FittedOn | None = None
    config: dict[str, Any] = field(default_factory=dict)
    train_hashes: tuple[str, ...] = ()
    source: NetworkSource = field(default_factory=NetworkSource)

    def __post_init__(self) -> None:
        self._check_classes()
        self._check_input()
        is_share = all(0 <= value <= 1 for value in self.thresholds)
        if self.thresholds and not (is_share and len(self.thresholds) == len(self.classes)):
            raise ValueError(
                f"{len(self.thresholds)} thresholds for {len(self.classes)} classes: expected "
                "one from 0 to 1 for each"
            )
        scale = self.calibration
        if scale and not len(scale.slope) == len(scale.intercept) == len(self.classes):
            raise ValueError(
                f"calibration has {len(scale.slope)} slopes and {len(scale.intercept)} intercepts: "
                f"expected one for each of {len(self.classes)} classes"
            )
        self._check_coverage()

    @property
    def unpadded_below(self) -> int:
        """Samples below which a whole record is predicted without its padding; 0 means never.

        These are records shorter than those that the model was trained on. On the first 6 s of the
        records of fold 9 of PTB-XL, padding to 10 s changed one probability in a hundred by more
        than 0.36, its absence by 0.07. A model of crops takes these before the padding anyway.
        """
        return 0 if self.crop_samples else self.min_samples or self.preprocess.n_samples

    def predict_labels(self, scores: Sequence[float]) -> tuple[str, ...]:
        """Return the classes that probabilities (n_classes,) predict.

        With one label per record this is the most probable one, else all that reach their
        threshold, which may be none.
        """
        from src.learning.predictions import DEFAULT_THRESHOLD

        pairs = list(zip(self.classes, scores, strict=True))
        if self.single_label:
            return (max(pairs, key=lambda pair: pair[1])[0],)
        thresholds = self.thresholds or (DEFAULT_THRESHOLD,) * len(pairs)
        return tuple(
            name
            for (name, score), threshold in zip(pairs, thresholds, strict=True)
            if score >= threshold
        )

    def list_unsure(self, scores: Sequence[float], labels: Sequence[str]) -> tuple[str, ...]:
        """Return the classes whose answer is not sure, for probabilities and predicted classes.

        They are none without limits of coverage.
        """
        if self.coverage is None:
            return ()
        y_pred = np.array([[name in labels for name in self.classes]], np.int64)
        unsure = self.coverage.find_unsure(np.array([scores]), y_pred)[0].tolist()
        return tuple(
            name for name, is_unsure in zip(self.classes, unsure, strict=True) if is_unsure
        )

    def _check_classes(self) -> None:
        names = self.classes
        has_right_count = 1 <= len(names) <= _MAX_CLASSES and len(set(names)) == len(names)
        if not has_right_count or any(printable(name) != name for name in names):
            raise ValueError(
                f"classes are {printable(', '.join(names))}: expected 1 to {_MAX_CLASSES} "
                "different names"
            )

    def _check_coverage(self) -> None:
        limits = self.coverage
        if limits is None:
            return
        n_absent = 0 if self.single_label else len(self.classes)
        if (len(limits.present_from), len(limits.absent_to)) != (len(self.classes), n_absent):
            raise ValueError(
                f"coverage has {len(limits.present_from)} limits of presence and "
                f"{len(limits.absent_to)} of absence: expected {len(self.classes)} and {n_absent}"
            )

    def _check_input(self) -> None:
        leads = set(self.leads)
        if not leads or len(leads) != len(self.leads) or not leads <= set(STANDARD_LEADS):
            raise ValueError(
                f"leads are {printable(', '.join(self.leads))}: expected some of "
                f"{', '.join(STANDARD_LEADS)}"
            )
        n_samples = self.preprocess.n_samples
        if len(self.leads) * n_samples > _MAX_INPUT or not 0 <= self.crop_samples <= n_samples:
            raise ValueError(
                f"input is {len(self.leads)} leads of {n_samples} samples in crops of "
                f"{self.crop_samples}: expected at most {_MAX_INPUT} values, and crops no "
                "longer than the samples"
            )
        if self.min_leads < 0 or self.min_samples < 0:
            raise ValueError(
                f"min_leads is {self.min_leads} and min_samples {self.min_samples}: expected 0 or "
                "more"
            )


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes
    ----------
    card
        The input and the output of the model.
    weights
        The weights of the network.
    state
        In ``latest.pth`` the state to resume from (`src.learning.optimization.SavedState`), in
        ``best.pth`` epoch and metric.
    path
        The file.
    network
        The factory of the network, or its import path, where the user named it.
    reference
        The training recordings in short, by which unlike ones are told; None where
        ``evaluate --unlike --save`` did not add them.
    members
        Of several checkpoints that are used as one, each; then `card` has the recordings of all,
        and `weights` and `state` are empty.
    """

    card: ModelCard
    weights: dict[str, torch.Tensor]
    state: Mapping[str, Any]
    path: Path
    network: str | Callable[..., nn.Module] | None = None
    members: tuple[Checkpoint, ...] = ()
    reference: Reference | None = None

    @property
    def name(self) -> str:
        """The path, or the paths of all members."""
        return " + ".join(str(member.path) for member in self.members or (self,))


def save_checkpoint(
    path: str | Path,
    card: ModelCard,
    weights: dict[str, torch.Tensor],
    state: Mapping[str, object] | None = None,
    reference: Reference | None = None,
) -> None:
    """Write a checkpoint atomically.

    Parameters
    ----------
    path
        The file to write.
    card, weights, state, reference
        As in `Checkpoint`. Weights and state may hold tensors and plain Python values only.
    """
    content = {
        "format": CHECKPOINT_FORMAT,
        "card": to_jsonable(asdict(card)),
        "weights": weights,
        "state": state or {},
    }
    if reference is not None:
        content["reference"] = reference.to_tensors()
    # Given a path, torch would store its name in the file, so the bytes would depend on it.
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:
            # After a failed write torch complains about its archive; the write is what failed.
            raise _failed_write(error) or error from None


def _failed_write(error: BaseException) -> OSError | None:
    """Return the error of the disk that an error arose from, if there is one."""
    earlier = error.__context__
    while earlier is not None and not isinstance(earlier, OSError):
        earlier = earlier.__context__
    return earlier


def load_checkpoint(
    path: str | Path | Sequence[str | Path | Checkpoint] | Checkpoint,
    device: str = "cpu",
    *,
    network: str | Callable[..., nn.Module] | None = None,
) -> Checkpoint:
    """Read a checkpoint with ``weights_only=True``, so that no code in the file can run.

    Parameters
    ----------
    path
        The file, or the folder of a run, whose ``best.pth`` it is. Several, among them those of the
        folds of a cross-validation, are used as one, with the mean of their logits. A checkpoint
        that is loaded already is returned as it is, and may be one of several.
    device
        The torch device of the weights.
    network
        For a network from elsewhere: its factory, or ``package.module:factory``. A checkpoint names
        it, but code is only imported when the user names it too.

    Raises
    ------
    ValueError
        If a file is missing, is not a checkpoint, or has another version, or classes, leads or
        preprocessing of several differ; the message names it.
    """
    if isinstance(path, Checkpoint):
        return path
    if not isinstance(path, (str, Path)):
        return _join([load_checkpoint(each, device, network=network) for each in path])
    path = Path(path)
    if path.is_dir():
        return load_checkpoint(_list_best(path), device, network=network)
    if not path.is_file():
        raise ValueError(
            f"{path}: no such checkpoint; train one with: python -m src train --processed "
            "DIR --out RUN"
        )
    try:
        _check_archive(path)
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # noqa: BLE001  torch raises many kinds for a broken or hostile file
        raise ValueError(
            f"{path}: not a checkpoint of this program ({type(error).__name__})"
        ) from None
    if (
        not isinstance(content, dict)
        or not {"format", "card", "weights", "state"} <= content.keys()
    ):
        raise ValueError(
            f"{path}: not a checkpoint of this program (expected format, card, weights and state)"
        )
    if content["format"] != CHECKPOINT_FORMAT:
        shown = printable(repr(content["format"]))
        raise ValueError(
            f"{path}: checkpoint format {shown}, this version reads {CHECKPOINT_FORMAT}; "
            "train again, or use the version that wrote it"
        )
    tables = ("card", "weights", "state", *(["reference"] if "reference" in content else []))
    if not all(isinstance(content[name], dict) for name in tables):
        raise ValueError(
            f"{path}: not a checkpoint of this program ({', '.join(tables)} must be tables)"
        )
    try:
        card = from_dict(ModelCard, _current_fields(content["card"]))
        reference = None
        if "reference" in content:
            reference = Reference.from_tensors(content["reference"])
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from None
    return Checkpoint(
        card, content["weights"], content["state"], path, network, reference=reference
    )


def _list_best(run: Path) -> list[Path]:
    """Return the best checkpoint of a run, or that of each fold of a cross-validation."""
    best = run / "models" / "best.pth"
    found = [best] if best.exists() else sorted(run.glob("part_*/models/best.pth"))
    if not found:
        raise ValueError(
            f"{run}: has neither models/best.pth nor part_1/models/best.pth: expected a "
            "checkpoint, or the folder of a run or of a cross-validation"
        )
    return found


def _join(members: Sequence[Checkpoint]) -> Checkpoint:
    """Return several checkpoints as one; one alone stays as it is."""
    if not members:
        raise ValueError("no checkpoint is given: expected one or more")
    first = members[0]
    if len(members) == 1:
        return first
    for member in members[1:]:
        for name in ("classes", "single_label", "leads", "preprocess"):
            if getattr(member.card, name) != getattr(first.card, name):
                raise ValueError(
                    f"{member.path}: cannot be used together with {first.path}: it has other "
                    f"{'labels' if name == 'single_label' else name}"
                )
    hashes = (text for member in members for text in member.card.train_hashes)
    # All must have been trained for few leads, for their mean to predict them.
    cards = [member.card for member in members]
    strictest = min(cards, key=lambda card: card.config.get("train", {}).get("lead_dropout", 0))
    # Thresholds of one network say nothing about the mean of several.
    card = replace(
        strictest,
        thresholds=(),
        calibration=None,
        thresholds_on=None,
        calibration_on=None,
        coverage=None,
        coverage_on=None,
        min_leads=max(card.min_leads for card in cards),
        train_hashes=tuple(dict.fromkeys(hashes)),
    )
    return Checkpoint(card, {}, {}, first.path, members=tuple(members))


def _current_fields(card: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a card without those of older versions.

    They subtracted the mean of the collection (`mean_mv`), which is that of all its leads. Now each
    lead's own mean is subtracted. On fold 9 of PTB-XL this changes the macro AUROC of networks that
    were trained the old way from 0.9353 to 0.9354, and a lead with an offset no longer counts.
    """
    normalization = card.get("normalization")
    if not isinstance(normalization, dict):
        return card
    kept = {name: value for name, value in normalization.items() if name != "mean_mv"}
    return {**card, "normalization": kept}


def _check_archive(path: Path) -> None:
    """Raise if torch would decompress the file, which has no limit.

    torch itself writes uncompressed zip archives.
    """
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("compressed")


def default_checkpoint() -> Path:
    """Return the pretrained ``superclass.pth`` if it exists, else the trained ``best.pth``.

    The former lies in ``artifacts/pretrained``, or in the installed package; the latter is
    ``artifacts/models/best.pth``, which training writes by default.
    """
    artifacts = project_paths().artifacts
    for folder in (artifacts / "pretrained", CODE_ROOT / "src" / "pretrained"):
        if (folder / "superclass.pth").exists():
            return folder / "superclass.pth"
    return artifacts / "models" / "best.pth"
