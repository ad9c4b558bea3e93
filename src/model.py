"""`ResNet1d`: a residual network over leads and time, sized for laptops.

The residual block is that of He et al. (CVPR 2016) with GELU (Hendrycks and Gimpel, 2016) for ReLU;
the shortcut averages before it projects, as in "Bag of tricks" (He et al., CVPR 2019), and the head
concatenates mean and maximum over time as the ECG networks of Strodthoff et al. (IEEE JBHI 2021)
do.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from src.learning.checkpoints import Checkpoint, ModelCard
from src.learning.layers import GELU, AvgPool1d, BatchNorm1d, Conv1d
from src.utils import Float64Array, printable

MIN_SAMPLES = 250


def conv_norm(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution and its batch norm; the norm's bias serves for both."""
    return nn.Sequential(Conv1d(n_in, n_out, kernel, stride), BatchNorm1d(n_out))


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; maps (B, n_in, L) to (B, n_out, L / stride)."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_norm(n_in, n_out, kernel, stride),
            GELU(),
            conv_norm(n_out, n_out, kernel),
        )
        last_norm = self.body[2][1]  # type: ignore[index]
        assert isinstance(last_norm, BatchNorm1d)
        nn.init.zeros_(last_norm.weight)  # the block starts as its shortcut (Goyal et al., 2017)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(AvgPool1d(stride))
        if n_in != n_out:
            self.shortcut.append(conv_norm(n_in, n_out, 1))
        self.activation = GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block."""
        out: torch.Tensor = self.activation(self.body(x) + self.shortcut(x))
        return out


class ResNet1d(nn.Module):
    """Map a multi-lead ECG to class logits.

    Parameters
    ----------
    n_leads
        Input leads.
    n_classes
        Output classes.
    base_channels
        Unit of width: the four stages have 3/4, 3/2, 3 and 9/2 times as many channels. 64 gives 1.4
        M parameters.
    dropout
        Share of features dropped before the classifier.
    lead_mask
        Let the network know which leads are absent, that is zero throughout: each adds a learned
        value to every channel of the stem.

    Notes
    -----
    Input (B, n_leads, n_samples) of any n_samples from 250 up; output (B, n_classes). The stem
    halves the rate and the pool after it halves it again, and the early stages are narrow: most
    weights work on few samples, which makes the network fast. At 100 Hz a stem that takes a quarter
    of the rate at once lost accuracy.
    """

    def __init__(
        self,
        n_leads: int = 12,
        n_classes: int = 5,
        base_channels: int = 64,
        dropout: float = 0.2,
        lead_mask: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (
            ("n_leads", n_leads),
            ("n_classes", n_classes),
            ("base_channels", base_channels),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}: expected 1 or more")
        self.n_leads, self.n_classes, self.base_channels = n_leads, n_classes, base_channels
        widths = [round(base_channels * factor) for factor in (0.75, 1.5, 3, 4.5)]
        self.stem = conv_norm(n_leads, widths[0], kernel=11, stride=2)
        self.lead_mask = nn.Linear(n_leads, widths[0]) if lead_mask else None
        self.stages = nn.Sequential(
            GELU(),
            AvgPool1d(2),
            ResidualBlock(widths[0], widths[0], kernel=7),
            ResidualBlock(widths[0], widths[1], kernel=7, stride=2),
            ResidualBlock(widths[1], widths[2], kernel=5, stride=2),
            ResidualBlock(widths[2], widths[3], kernel=3, stride=2),
            ResidualBlock(widths[3], widths[3], kernel=3),
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * widths[3], n_classes))
        self._initialise()

    def _initialise(self) -> None:
        """Use He et al. (ICCV 2015) for the convolutions, and small weights for the classifier."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        classifier = self.head[1]
        assert isinstance(classifier, nn.Linear)
        nn.init.trunc_normal_(classifier.weight, std=0.01)
        nn.init.zeros_(classifier.bias)
        if self.lead_mask is not None:
            nn.init.zeros_(self.lead_mask.weight)
            nn.init.zeros_(self.lead_mask.bias)

    def keep_outputs(self, n_classes: int) -> None:
        """Drop all outputs but the first `n_classes`."""
        classifier = self.head[1]
        assert isinstance(classifier, nn.Linear)
        kept = nn.Linear(classifier.in_features, n_classes)
        kept.load_state_dict(
            {name: value[:n_classes] for name, value in classifier.state_dict().items()}
        )
        self.head[1], self.n_classes = kept.to(classifier.weight.device), n_classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, n_classes) for signals (B, n_leads, n_samples).

        Raises
        ------
        ValueError
            If the shape is another, or there are fewer than 250 samples.
        """
        if x.ndim != 3 or x.shape[1] != self.n_leads or x.shape[2] < MIN_SAMPLES:
            raise ValueError(
                f"input has shape {tuple(x.shape)}: expected (batch, {self.n_leads} "
                f"leads, {MIN_SAMPLES} samples or more)"
            )
        features = self.stem(x)  # (B, 3/4 base_channels, n_samples / 2)
        if self.lead_mask is not None:
            is_absent = (x == 0).all(dim=2).to(features.dtype)  # (B, n_leads)
            features = features + self.lead_mask(is_absent)[:, :, None]
        features = self.stages(features)  # (B, 9/2 base_channels, n_samples / 32)
        pooled = torch.cat([features.mean(dim=2), features.amax(dim=2)], dim=1)
        logits: torch.Tensor = self.head(pooled)
        return logits


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def build_model(card: ModelCard, n_auxiliary: int = 0) -> ResNet1d:
    """Return an untrained network of the shape that a card describes, with `n_auxiliary` outputs
    more.
    """
    return ResNet1d(len(card.leads), len(card.classes) + n_auxiliary, **asdict(card.model))


def load_model(checkpoint: Checkpoint, device: str = "cpu") -> ResNet1d:
    """Return the trained network in evaluation mode.

    Raises
    ------
    ValueError
        If the weights do not fit the card.
    """
    try:
        with torch.device(
            "meta"
        ):  # shapes alone, before memory is taken for a network that a hostile card describes
            problem = _misfit(build_model(checkpoint.card).state_dict(), checkpoint.weights)
    except (RuntimeError, TypeError, OverflowError) as error:
        problem = printable(str(error))
    if problem:
        raise ValueError(
            f"{checkpoint.path}: weights do not fit the model it describes ({problem})"
        )
    model = build_model(checkpoint.card).eval()
    model.load_state_dict(checkpoint.weights)
    with torch.inference_mode():
        if not torch.isfinite(model(torch.zeros(1, model.n_leads, MIN_SAMPLES))).all():
            raise ValueError(
                f"{checkpoint.path}: the network answers a flat line with no finite "
                "number: its weights are damaged"
            )
    return model.to(device)


def _misfit(expected: dict[str, torch.Tensor], weights: dict[str, Any]) -> str:
    """Return what is wrong with weights for a network with the `expected` ones, or nothing."""
    for name, wanted in expected.items():
        held = weights.get(name)
        if not isinstance(held, torch.Tensor) or held.layout != torch.strided:
            return f"{name} is {'missing' if held is None else 'no plain tensor'}"
        if held.shape != wanted.shape or held.dtype != wanted.dtype:
            return (
                f"{name} is {held.dtype} {tuple(held.shape)}, expected {wanted.dtype} "
                f"{tuple(wanted.shape)}"
            )
        if not torch.isfinite(held).all():
            return f"{name} is not finite"
    strangers = [str(name) for name in weights if name not in expected]
    return f"{printable(strangers[0])} is unknown" if strangers else ""


def start_from(model: ResNet1d, checkpoint: Checkpoint, card: ModelCard) -> None:
    """Copy the weights of a checkpoint into a network; of its outputs, those of classes that both
    have by name.

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
    facts = (
        *(
            (name, getattr(source.model, name), getattr(card.model, name))
            for name in ("base_channels", "lead_mask")
        ),
        ("leads", source.leads, card.leads),
        ("fs", source.preprocess.fs, card.preprocess.fs),
    )
    if differ := [
        f"{name} {there} where this run has {here}" for name, there, here in facts if there != here
    ]:
        raise ValueError(f"{checkpoint.path}: cannot be started from: it has {'; '.join(differ)}")
    own = model.state_dict()
    shared = [
        (row, source.classes.index(name))
        for row, name in enumerate(card.classes)
        if name in source.classes
    ]
    for name, value in checkpoint.weights.items():
        if not name.startswith("head."):
            own[name] = value
        elif shared:
            rows, theirs = zip(*shared, strict=True)
            own[name][list(rows)] = value[list(theirs)]
    model.load_state_dict(own)


def window_starts(n_samples: int, window: int) -> list[int]:
    """Return the starts of windows that overlap by half and reach both ends."""
    if window <= 0 or window >= n_samples:
        return [0]
    count = -(-2 * (n_samples - window) // window) + 1
    return [round(i * (n_samples - window) / (count - 1)) for i in range(count)]


def predict_logits(model: nn.Module, signal: torch.Tensor, crop_samples: int = 0) -> torch.Tensor:
    """Return logits (B, n_classes) of signals (B, n_leads, n_samples).

    A model trained on crops sees overlapping windows of that length, and its logits are averaged
    over them, but for windows of padding alone, which training does not show either.
    """
    starts = window_starts(signal.shape[2], crop_samples)
    if len(starts) == 1:
        logits: torch.Tensor = model(signal)
        return logits
    windows = torch.stack(
        [signal[:, :, start : start + crop_samples] for start in starts]
    )  # (n_windows, B, n_leads, T)
    logits = model(windows.flatten(0, 1)).view(len(starts), signal.shape[0], -1)
    moves = (windows != windows[..., :1]).flatten(2).any(dim=2)  # padding does not, in any lead
    weights = (moves | ~moves.any(dim=0)).to(logits.dtype)[:, :, None]
    averaged: torch.Tensor = (logits * weights).sum(dim=0) / weights.sum(dim=0)
    return averaged


def to_probabilities(logits: torch.Tensor, single_label: bool) -> torch.Tensor:
    """Return probabilities (B, n_classes): softmax over exclusive classes, else a sigmoid for
    each.
    """
    return logits.softmax(dim=1) if single_label else logits.sigmoid()


def to_scores(logits: torch.Tensor, single_label: bool) -> Float64Array:
    """Return probabilities in double precision."""
    scores: Float64Array = to_probabilities(logits.double(), single_label).numpy()
    return scores


def kept_weights(model: nn.Module, n_classes: int) -> dict[str, torch.Tensor]:
    """Return the weights without the auxiliary outputs."""
    weights = model.state_dict()
    return {
        name: value[:n_classes] if name.startswith("head.1.") else value
        for name, value in weights.items()
    }
