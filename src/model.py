"""`ResNet1d`: a residual network over leads and time, sized for laptops.

The residual block is that of He et al. (CVPR 2016) with GELU (Hendrycks and Gimpel, 2016) for ReLU;
the shortcut averages before it projects, as in "Bag of tricks" (He et al., CVPR 2019), and the head
concatenates mean and maximum over time as in the ECG networks of Strodthoff et al. (IEEE JBHI
2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import nn

from src.learning.checkpoints import Checkpoint, ModelCard
from src.learning.layers import GELU, AvgPool1d, BatchNorm1d, Conv1d
from src.utils import Float64Array, Rich, html_table, printable

MIN_SAMPLES = 250

# Weights of the classifier, whose rows are the outputs. All others belong to the features.
_HEAD = "head."


def conv_norm(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias and a batch norm, whose bias serves both."""
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
        # The block starts as its shortcut (Goyal et al., 2017).
        nn.init.zeros_(last_norm.weight)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(AvgPool1d(stride))
        if n_in != n_out:
            self.shortcut.append(conv_norm(n_in, n_out, 1))
        self.activation = GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (B, n_out, L / stride) of (B, n_in, L)."""
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
        million parameters.
    dropout
        Share of features dropped before the classifier.
    lead_mask
        Tell the network which leads are absent (zero throughout): each absent lead adds a trained
        value to every channel of the stem.

    Raises
    ------
    ValueError
        If there is no lead, no class or no channel.

    Notes
    -----
    Input (B, n_leads, n_samples) with n_samples of 250 or more; output (B, n_classes). The stem
    halves the sampling rate and the pool after it halves it again, and the early stages are narrow.
    Most weights therefore work on few samples, which makes the network fast. At 100 Hz a stem that
    quartered the rate at once lost accuracy.
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
        sizes = {"n_leads": n_leads, "n_classes": n_classes, "base_channels": base_channels}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} is {value}: expected 1 or more")
        self.n_leads = n_leads
        self.n_classes = n_classes
        self.base_channels = base_channels
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
        weights = {name: value[:n_classes] for name, value in classifier.state_dict().items()}
        kept.load_state_dict(weights)
        self.head[1] = kept.to(classifier.weight.device)
        self.n_classes = n_classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, n_classes) for signals (B, n_leads, n_samples).

        Raises
        ------
        ValueError
            If `x` has another shape, or fewer than 250 samples.
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
        # (B, 9 base_channels)
        pooled = torch.cat([features.mean(dim=2), features.amax(dim=2)], dim=1)
        logits: torch.Tensor = self.head(pooled)
        return logits


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@dataclass(frozen=True)
class Stage:
    """A part of a network: its layers in words, the shape of its output, its parameters."""

    layer: str
    shape: tuple[int, ...]
    n_parameters: int


@dataclass(frozen=True)
class StageTable(Rich):
    """The stages of a network in their order, as `list_stages` returns them."""

    stages: tuple[Stage, ...]

    @property
    def _rows(self) -> list[tuple[str, str, str]]:
        total = sum(stage.n_parameters for stage in self.stages)
        return [
            (stage.layer, " x ".join(map(str, stage.shape)), f"{stage.n_parameters:,}")
            for stage in (*self.stages, Stage("in all", (), total))
        ]

    def __str__(self) -> str:
        rows = [("layer", "output", "parameters"), *self._rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            f"{layer:{widths[0]}}  {shape:{widths[1]}}  {number:>{widths[2]}}"
            for layer, shape, number in rows
        )

    def _repr_html_(self) -> str:
        return html_table(["layer", "output", "parameters"], self._rows)


def list_stages(model: ResNet1d, n_samples: int) -> StageTable:
    """Return the stages of a network with the shapes that a record has after each.

    Parameters
    ----------
    model
        Not changed; a record of zeros passes through it.
    n_samples
        Length of the record, 250 or more.
    """
    parts = [model.stem, *model.stages]
    shapes: list[tuple[int, ...]] = []
    hooks = [
        part.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
        for part in parts
    ]
    was_training = model.training
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, model.n_leads, n_samples, device=device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    stages = [Stage("record: leads x samples", (model.n_leads, n_samples), 0)]
    for part, shape in zip(parts, shapes, strict=True):
        stages.append(Stage(_describe_layer(part), shape, count_parameters(part)))
    if model.lead_mask is not None:
        n_parameters = count_parameters(model.lead_mask)
        stages.insert(2, Stage("absent leads, added to the stem", shapes[0], n_parameters))
    stages.append(Stage("mean and maximum over time", (2 * shapes[-1][0],), 0))
    stages.append(Stage("dropout, linear", (model.n_classes,), count_parameters(model.head)))
    return StageTable(tuple(stages))


def _describe_layer(layer: nn.Module) -> str:
    """Return kind, kernel and stride of a stage of `ResNet1d` in words."""
    convolution = next((part for part in layer.modules() if isinstance(part, nn.Conv1d)), None)
    if convolution is None:
        return "mean of 2 samples" if isinstance(layer, AvgPool1d) else type(layer).__name__
    kind = "residual block" if isinstance(layer, ResidualBlock) else "convolution and batch norm"
    stride = convolution.stride[0]
    return (
        f"{kind}, kernel {convolution.kernel_size[0]}{f', stride {stride}' if stride > 1 else ''}"
    )


def build_model(card: ModelCard, n_outputs: int | None = None) -> ResNet1d:
    """Return an untrained network of the shape that a card describes.

    Parameters
    ----------
    card
        Leads, classes and settings of the network.
    n_outputs
        Number of outputs while training, with those of auxiliary classes; by default one for each
        of the card's classes.
    """
    return ResNet1d(len(card.leads), n_outputs or len(card.classes), **asdict(card.model))


def load_model(checkpoint: Checkpoint, device: str = "cpu") -> ResNet1d:
    """Return the trained network in evaluation mode.

    Raises
    ------
    ValueError
        If the weights do not fit the card, or are damaged.
    """
    try:
        # Compare shapes first: a hostile card may describe a network larger than the memory.
        with torch.device("meta"):
            expected = build_model(checkpoint.card).state_dict()
        problem = _find_misfit(expected, checkpoint.weights)
    except (RuntimeError, TypeError, OverflowError) as error:
        problem = printable(str(error))
    if problem:
        raise ValueError(
            f"{checkpoint.path}: weights do not fit the model it describes ({problem})"
        )
    model = build_model(checkpoint.card).eval()
    model.load_state_dict(checkpoint.weights)
    # Finite weights can still overflow.
    with torch.inference_mode():
        logits = model(torch.zeros(1, model.n_leads, MIN_SAMPLES))
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"{checkpoint.path}: the network returns no finite number for a flat line: its "
            "weights are damaged"
        )
    return model.to(device)


def _find_misfit(expected: Mapping[str, torch.Tensor], weights: Mapping[str, object]) -> str:
    """Return the first reason why `weights` do not fit a network, or an empty string."""
    for name, tensor in expected.items():
        value = weights.get(name)
        if value is None:
            return f"{name} is missing"
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            return f"{name} is no plain tensor"
        if value.shape != tensor.shape or value.dtype != tensor.dtype:
            return (
                f"{name} is {value.dtype} {tuple(value.shape)}, expected {tensor.dtype} "
                f"{tuple(tensor.shape)}"
            )
        if not torch.isfinite(value).all():
            return f"{name} is not finite"
    unknown = [str(name) for name in weights if name not in expected]
    return f"{printable(unknown[0])} is unknown" if unknown else ""


def start_from(model: ResNet1d, checkpoint: Checkpoint, card: ModelCard) -> None:
    """Copy the weights of a checkpoint into a network, to fine-tune it.

    All features are copied, but only the outputs of classes that both have by name.

    Parameters
    ----------
    model
        Changed in place.
    checkpoint
        Checkpoint to start from.
    card
        Card of the model to be trained.

    Raises
    ------
    ValueError
        If the checkpoint has another network shape, other leads or another sampling rate.
    """
    _check_start(checkpoint, card)
    source_classes = checkpoint.card.classes
    common = [name for name in card.classes if name in source_classes]
    rows = [card.classes.index(name) for name in common]
    source_rows = [source_classes.index(name) for name in common]
    weights = model.state_dict()
    for name, value in checkpoint.weights.items():
        if name.startswith(_HEAD):
            weights[name][rows] = value[source_rows]
        else:
            weights[name] = value
    model.load_state_dict(weights)


def _check_start(checkpoint: Checkpoint, card: ModelCard) -> None:
    """Raise ValueError if the features of a checkpoint do not fit a model to be trained."""
    source = checkpoint.card
    pairs: dict[str, tuple[object, object]] = {
        "base_channels": (source.model.base_channels, card.model.base_channels),
        "lead_mask": (source.model.lead_mask, card.model.lead_mask),
        "leads": (source.leads, card.leads),
        "fs": (source.preprocess.fs, card.preprocess.fs),
    }
    differences = []
    for name, (of_source, of_run) in pairs.items():
        if of_source != of_run:
            differences.append(f"{name} {of_source} where this run has {of_run}")
    if differences:
        raise ValueError(
            f"{checkpoint.path}: cannot start from it: it has {'; '.join(differences)}"
        )


def kept_weights(model: nn.Module, n_classes: int) -> dict[str, torch.Tensor]:
    """Return the weights of a network without its auxiliary outputs, which follow `n_classes`."""
    return select_outputs(model.state_dict(), slice(n_classes))


def select_outputs(
    weights: Mapping[str, torch.Tensor], rows: slice | list[int]
) -> dict[str, torch.Tensor]:
    """Return the weights of a network with some of its outputs, in the order of `rows`."""
    selected = {}
    for name, value in weights.items():
        selected[name] = value[rows] if name.startswith(_HEAD) else value
    return selected


def window_starts(n_samples: int, window: int) -> list[int]:
    """Return the starts of windows that overlap by about half and reach both ends.

    Parameters
    ----------
    n_samples
        Length of the signal.
    window
        Length of the windows; 0, or one as long as the signal, gives a single window.
    """
    if window <= 0 or window >= n_samples:
        return [0]
    span = n_samples - window
    count = math.ceil(2 * span / window) + 1
    return [round(i * span / (count - 1)) for i in range(count)]


def count_valid(signal: torch.Tensor) -> torch.Tensor:
    """Return the number of samples before the padding of each record, shape (B,).

    Samples at the end of a signal (B, n_leads, n_samples) that are 0 in all leads are padding. A
    record of zeros alone is taken as whole.
    """
    n_samples = signal.shape[2]
    is_valid = (signal != 0).any(dim=1)  # (B, n_samples)
    position = torch.arange(1, n_samples + 1, device=signal.device)
    n_valid = (is_valid * position).amax(dim=1)
    return torch.where(n_valid > 0, n_valid, n_samples)


def crop_starts(signal: torch.Tensor, crop_samples: int) -> torch.Tensor:
    """Return the starts of the crops of each record, which lie before its padding.

    They overlap by about half where the record fills its length. A shorter record has as many,
    which overlap more; one shorter than a crop has them all at 0.

    Parameters
    ----------
    signal
        Shape (B, n_leads, n_samples).
    crop_samples
        Length of the crops.

    Returns
    -------
    Tensor
        Shape (B, n_crops).
    """
    count = len(window_starts(signal.shape[2], crop_samples))
    n_valid = count_valid(signal)[:, None]  # (B, 1)
    span = (n_valid - crop_samples).clamp(min=0)
    numbers = torch.arange(count, device=signal.device)
    # In double precision, in which `window_starts` rounds
    return (numbers * span.double() / max(count - 1, 1)).round().long()


def predict_logits(
    model: nn.Module, signal: torch.Tensor, crop_samples: int = 0, unpadded_below: int = 0
) -> torch.Tensor:
    """Return the logits of signals, averaged over crops where the model was trained on crops.

    Parameters
    ----------
    model
        Maps (B, n_leads, T) to logits (B, n_classes).
    signal
        Shape (B, n_leads, n_samples).
    crop_samples
        Length of the crops; 0 means whole records. The crops lie inside the record, before its
        padding, as those of training do (`crop_starts`). Crops in which nothing moves do not count.
    unpadded_below
        Whole records with fewer samples before their padding than this are predicted without it
        (`src.learning.checkpoints.ModelCard.unpadded_below`).

    Returns
    -------
    Tensor
        Shape (B, n_classes).
    """
    n_records, n_leads, n_samples = signal.shape
    if len(window_starts(n_samples, crop_samples)) == 1:
        return predict_whole(model, signal, unpadded_below)
    starts = crop_starts(signal, crop_samples)  # (B, n_crops)
    count = starts.shape[1]
    samples = starts[:, :, None] + torch.arange(crop_samples, device=signal.device)
    samples = samples.flatten(1)[:, None].expand(-1, n_leads, -1)  # (B, n_leads, n_crops * T)
    crops = signal.gather(2, samples).view(n_records, n_leads, count, crop_samples)
    crops = crops.permute(2, 0, 1, 3)  # (n_crops, B, n_leads, T)
    logits = model(crops.flatten(0, 1)).view(count, n_records, -1)
    # A record that is constant throughout keeps all crops.
    is_moving = (crops != crops[..., :1]).flatten(2).any(dim=2)  # (n_crops, B)
    weights = (is_moving | ~is_moving.any(dim=0)).to(logits.dtype)[:, :, None]
    averaged: torch.Tensor = (logits * weights).sum(dim=0) / weights.sum(dim=0)
    return averaged


def predict_whole(
    model: Callable[[torch.Tensor], torch.Tensor], signal: torch.Tensor, unpadded_below: int
) -> torch.Tensor:
    """Return the output of a network for whole records, the short ones without their padding.

    Parameters
    ----------
    model
        Maps (B, n_leads, T) to (B, n_classes).
    signal, unpadded_below
        As for `predict_logits`; 0 keeps all padding.
    """
    if not unpadded_below:
        logits: torch.Tensor = model(signal)
        return logits
    n_kept = kept_samples(signal, unpadded_below)
    lengths = n_kept.unique().tolist()
    parts = [(n_kept == length, signal[n_kept == length, :, :length]) for length in lengths]
    of_parts = [(is_part, model(part)) for is_part, part in parts]
    logits = of_parts[0][1].new_empty(len(signal), of_parts[0][1].shape[1])
    for is_part, of_part in of_parts:
        logits[is_part] = of_part
    return logits


def kept_samples(signal: torch.Tensor, unpadded_below: int) -> torch.Tensor:
    """Return how many samples of each record (B, n_leads, n_samples) are predicted, shape (B,)."""
    n_samples = signal.shape[2]
    n_valid = count_valid(signal)
    unpadded = n_valid.clamp(min=min(MIN_SAMPLES, n_samples))
    return torch.where(n_valid < unpadded_below, unpadded, n_samples)


def to_probabilities(logits: torch.Tensor, single_label: bool) -> torch.Tensor:
    """Return probabilities (B, n_classes): a softmax for a single label, else a sigmoid each."""
    return logits.softmax(dim=1) if single_label else logits.sigmoid()


def to_scores(logits: torch.Tensor, single_label: bool) -> Float64Array:
    """Return probabilities (B, n_classes) in double precision."""
    scores: Float64Array = to_probabilities(logits.double(), single_label).numpy()
    return scores
