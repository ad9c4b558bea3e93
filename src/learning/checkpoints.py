"""Checkpoints: everything needed to use a model alone, loaded without running code from the
file.
"""

from __future__ import annotations

import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from src.config import STANDARD_LEADS, ModelConfig, PreprocessConfig, from_dict
from src.processed.normalization import Normalization
from src.utils import atomic_path, printable, project_paths, to_jsonable

CHECKPOINT_FORMAT = 1
_MAX_CLASSES = 10_000
_MAX_INPUT = 50_000_000  # values; a day of 12 leads at 48 Hz


@dataclass(frozen=True)
class ModelCard:
    """What a model expects and answers, kept with its weights.

    Attributes
    ----------
    classes
        Names of the outputs, in order.
    single_label
        True: softmax over exclusive classes; False: a sigmoid for each.
    model
        Shape of the network.
    preprocess
        What turns a recording into its input; `fs` and `n_samples` stand there.
    leads
        Input leads, in order.
    normalization
        How signals are scaled.
    crop_samples
        Length of the windows the model was trained on; 0 means whole records.
    thresholds
        Decision thresholds, or empty, which means 0.5. No command sets them;
        ``save_checkpoint(path, replace(card, thresholds=...), weights)`` does.
    config
        The settings of the training run without its folders, as JSON values.
    train_hashes
        Hashes of the recordings trained on.
    """

    classes: tuple[str, ...]
    single_label: bool
    model: ModelConfig = field(default_factory=ModelConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    leads: tuple[str, ...] = STANDARD_LEADS
    normalization: Normalization = field(default_factory=Normalization)
    crop_samples: int = 0
    thresholds: tuple[float, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    train_hashes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.classes
        if (
            not 1 <= len(names) <= _MAX_CLASSES
            or len(set(names)) != len(names)
            or any(printable(name) != name for name in names)
        ):
            raise ValueError(
                f"classes are {printable(', '.join(names))}: expected 1 to {_MAX_CLASSES} "
                "different names"
            )
        if (
            not self.leads
            or len(set(self.leads)) != len(self.leads)
            or not set(self.leads) <= set(STANDARD_LEADS)
        ):
            raise ValueError(
                f"leads are {printable(', '.join(self.leads))}: expected some of "
                f"{', '.join(STANDARD_LEADS)}"
            )
        n_samples = self.preprocess.n_samples
        if len(self.leads) * n_samples > _MAX_INPUT or not 0 <= self.crop_samples <= n_samples:
            raise ValueError(
                f"input is {len(self.leads)} leads of {n_samples} samples in crops of "
                f"{self.crop_samples}: expected {_MAX_INPUT} values at most, and crops no "
                "longer than that"
            )
        if self.thresholds and (
            len(self.thresholds) != len(names)
            or not all(0 <= value <= 1 for value in self.thresholds)
        ):
            raise ValueError(
                f"{len(self.thresholds)} thresholds for {len(names)} classes: expected "
                "one from 0 to 1 for each"
            )


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint; `state` holds optimizer, scheduler, scaler, RNG, epoch and best metric
    to go on from.
    """

    card: ModelCard
    weights: dict[str, torch.Tensor]
    state: dict[str, Any]
    path: Path


def save_checkpoint(
    path: str | Path,
    card: ModelCard,
    weights: dict[str, torch.Tensor],
    state: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint atomically; only tensors and plain Python values go in."""
    content = {
        "format": CHECKPOINT_FORMAT,
        "card": to_jsonable(asdict(card)),
        "weights": weights,
        "state": state or {},
    }
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        torch.save(
            content, stream
        )  # a stream, since a path's name would become part of the content


def load_checkpoint(path: str | Path, device: str = "cpu") -> Checkpoint:
    """Read a checkpoint with ``weights_only=True``, so that no code in the file can run.

    Raises
    ------
    ValueError
        If the file is missing, no checkpoint, or of another version; the message names it.
    """
    path = Path(path)
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
    if not all(isinstance(content[name], dict) for name in ("card", "weights", "state")):
        raise ValueError(
            f"{path}: not a checkpoint of this program (card, weights and state are no tables)"
        )
    try:
        card = from_dict(ModelCard, content["card"])
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from None
    return Checkpoint(card, content["weights"], content["state"], path)


def _check_archive(path: Path) -> None:
    """Refuse what torch would inflate or parse without a limit: it stores tensors as they are in a
    zip archive.
    """
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("compressed")


def default_checkpoint() -> Path:
    """Return ``artifacts/pretrained/superclass.pth`` where it exists, else
    ``artifacts/models/best.pth``, which training leaves.
    """
    artifacts = project_paths().artifacts
    pretrained = artifacts / "pretrained" / "superclass.pth"
    return pretrained if pretrained.exists() else artifacts / "models" / "best.pth"
