"""Checkpoints: everything needed to use a model alone, loaded without running code from the file."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.config import ModelConfig, PreprocessConfig, from_dict
from src.leads import STANDARD_LEADS
from src.model import ResNet1d
from src.normalization import Normalization
from src.utils import atomic_path, to_jsonable

CHECKPOINT_FORMAT = 1


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
        Decision thresholds chosen on validation, or empty.
    config
        The whole configuration of the training run, as JSON values.
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


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint; `state` holds optimizer, scheduler, scaler, RNG, epoch and best metric to go on from."""

    card: ModelCard
    weights: dict[str, torch.Tensor]
    state: dict[str, Any]
    path: Path


def save_checkpoint(
    path: str | Path, card: ModelCard, weights: dict[str, torch.Tensor], state: dict[str, Any] | None = None
) -> None:
    """Write a checkpoint atomically; only tensors and plain Python values go in."""
    content = {"format": CHECKPOINT_FORMAT, "card": to_jsonable(asdict(card)), "weights": weights, "state": state or {}}
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: str | Path, device: str = "cpu") -> Checkpoint:
    """Read a checkpoint with ``weights_only=True``, so that no code in the file can run.

    Raises
    ------
    ValueError
        If the file is missing, no checkpoint, or of another version; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint; train one with: python -m src train --processed DIR --out RUN")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # noqa: BLE001  torch raises many kinds for a broken or hostile file
        raise ValueError(f"{path}: not a checkpoint of this program ({type(error).__name__})") from None
    if not isinstance(content, dict) or not {"format", "card", "weights", "state"} <= content.keys():
        raise ValueError(f"{path}: not a checkpoint of this program (expected format, card, weights and state)")
    if content["format"] != CHECKPOINT_FORMAT:
        raise ValueError(f"{path}: checkpoint format {content['format']!r}, this version reads {CHECKPOINT_FORMAT}")
    try:
        card = from_dict(ModelCard, content["card"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Checkpoint(card, content["weights"], content["state"], path)


def build_model(card: ModelCard, n_auxiliary: int = 0) -> ResNet1d:
    """Return an untrained network of the shape that a card describes, with `n_auxiliary` outputs more."""
    return ResNet1d(len(card.leads), len(card.classes) + n_auxiliary, **asdict(card.model))


def load_model(checkpoint: Checkpoint, device: str = "cpu") -> ResNet1d:
    """Return the trained network in evaluation mode.

    Raises
    ------
    ValueError
        If the weights do not fit the card.
    """
    model = build_model(checkpoint.card)
    try:
        model.load_state_dict(checkpoint.weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{checkpoint.path}: weights do not fit the model it describes ({first})") from None
    return model.to(device).eval()


def start_from(model: ResNet1d, checkpoint: Checkpoint, card: ModelCard) -> None:
    """Copy the weights of a checkpoint into a network, those of the outputs only where the classes are the same.

    Parameters
    ----------
    model
        Changed in place.
    checkpoint
        What to start from.
    card
        What `model` is trained for.

    Raises
    ------
    ValueError
        If the checkpoint has another shape, other leads or another sampling rate.
    """
    source = checkpoint.card
    facts = ("model", source.model, card.model), ("leads", source.leads, card.leads), ("fs", source.preprocess.fs, card.preprocess.fs)
    if differ := [f"{name} {there} where this run has {here}" for name, there, here in facts if there != here]:
        raise ValueError(f"{checkpoint.path}: cannot be started from: it has {'; '.join(differ)}")
    n_outputs = len(card.classes)
    weights = {name: value for name, value in checkpoint.weights.items() if source.classes == card.classes or not name.startswith("head.")}
    own = model.state_dict()
    for name, value in weights.items():
        if own[name].shape != value.shape:  # auxiliary outputs stand behind the classes and start afresh
            value = torch.cat([value, own[name][n_outputs:]])
        own[name] = value
    model.load_state_dict(own)


def rng_state() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators as tensors and plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Put the generators back to what `rng_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, normal = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, normal))
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])
