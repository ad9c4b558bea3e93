"""Networks by their cards: build, load, start from another, run on crops.

`ResNet1d` is the default; `src.learning.networks` says what any other network may rely on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from src.learning.checkpoints import Checkpoint, ModelCard
from src.learning.layers import AvgPool1d
from src.learning.networks import NETWORKS, NetworkFactory, describe_source, find_network
from src.learning.networks.resnet1d import MIN_SAMPLES, ResidualBlock, ResNet1d
from src.learning.unlike import Reference
from src.utils import Float64Array, Rich, html_table, printable

__all__ = ["MIN_SAMPLES", "ResNet1d"]

logger = logging.getLogger(__name__)

_SMALLEST_VARIANCE = 1e-6


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


def list_stages(model: nn.Module, n_leads: int, n_samples: int) -> StageTable:
    """Return the stages of a network with the shapes that a record has after each.

    These are those of `ResNet1d`, and of another network the modules that it is made of.

    Parameters
    ----------
    model
        Not changed; a record of zeros passes through it.
    n_leads, n_samples
        Shape of the record.
    """
    parts = [*model.children()]
    if isinstance(model, ResNet1d):
        parts = [model.stem, *model.stages]
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note_shape(part: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            shapes[part] = tuple(output.shape[1:])

    hooks = [part.register_forward_hook(note_shape) for part in parts]
    try:
        _try_network(model, torch.zeros(1, n_leads, n_samples))
    finally:
        for hook in hooks:
            hook.remove()
    stages = [Stage("record: leads x samples", (n_leads, n_samples), 0)]
    for part in parts:
        stages.append(Stage(_describe_layer(part), shapes.get(part, ()), count_parameters(part)))
    if isinstance(model, ResNet1d):
        shape_of_stem = shapes[model.stem]
        if model.lead_mask is not None:
            n_parameters = count_parameters(model.lead_mask)
            stages.insert(2, Stage("absent leads, added to the stem", shape_of_stem, n_parameters))
        stages.append(Stage("mean and maximum over time", (2 * stages[-1].shape[0],), 0))
        if model.rr is not None:
            width = (model.rr.n_features,)
            stages.append(Stage("RR intervals, beside them", width, count_parameters(model.rr)))
        if model.rhythm is not None:
            width = (model.rhythm.n_features,)
            n_parameters = count_parameters(model.rhythm)
            stages.append(Stage("rhythm of the QRS complexes, beside them", width, n_parameters))
        stages.append(Stage("dropout, linear", (model.n_classes,), count_parameters(model.head)))
    return StageTable(tuple(stages))


def _describe_layer(layer: nn.Module) -> str:
    """Return a stage in words: kind, kernel and stride of those of `ResNet1d`, else its type."""
    if isinstance(layer, AvgPool1d):
        return "mean of 2 samples"
    convolution = next((part for part in layer.modules() if isinstance(part, nn.Conv1d)), None)
    if convolution is None or not isinstance(layer, (nn.Sequential, ResidualBlock)):
        return type(layer).__name__
    kind = "residual block" if isinstance(layer, ResidualBlock) else "convolution and batch norm"
    stride = convolution.stride[0]
    return (
        f"{kind}, kernel {convolution.kernel_size[0]}{f', stride {stride}' if stride > 1 else ''}"
    )


# Build, load, start from another ------------------------------------------------------------------


def build_model(
    card: ModelCard, n_outputs: int | None = None, network: str | NetworkFactory | None = None
) -> nn.Module:
    """Return an untrained network of the kind that a card describes.

    Parameters
    ----------
    card
        Leads, classes and settings of the network.
    n_outputs
        Number of outputs while training, with those of auxiliary classes; by default one for each
        of the card's classes.
    network
        Its factory, or the import path of it; by default what the card names.

    Raises
    ------
    ValueError
        If the factory cannot be imported, fails, or makes something else than a network.
    """
    name = card.model.network
    factory = find_network(network or name)
    n_outputs = n_outputs or len(card.classes)
    sizes = {"n_leads": len(card.leads), "n_classes": n_outputs}
    try:
        model = factory(**sizes, **card.model.arguments)
    # A factory of others raises anything.
    except Exception as error:
        given = ", ".join(
            f"{key}={value!r}" for key, value in (sizes | card.model.arguments).items()
        )
        raise ValueError(
            f"network {printable(name)} cannot be made with {printable(given)}: "
            f"{_describe_error(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"network {printable(name)} made a {type(model).__name__}: expected a torch.nn.Module"
        )
    fs = getattr(model, "input_fs", None)
    if isinstance(fs, float | int) and fs != card.preprocess.fs:
        raise ValueError(
            f"network {printable(name)} is made for {fs:g} Hz, and its input has "
            f"{card.preprocess.fs:g} Hz: give it that rate by --network-args, or preprocess with "
            f"--fs {fs:g}"
        )
    if needs_lead_presence(model):
        model.register_forward_pre_hook(_add_lead_presence)
    if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
        # The first input makes the weights of lazy modules.
        n_samples = card.crop_samples or card.preprocess.n_samples
        _try_network(model, torch.zeros(2, len(card.leads), n_samples))
    return model


def _add_lead_presence(model: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Give a network that asks for it which leads (B, n_leads) are not zero throughout."""
    (x,) = inputs
    return x, (x != 0).any(dim=2)


def compute_features(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the features (B, n_features) of a network that has them."""
    inputs = _add_lead_presence(model, (x,)) if needs_lead_presence(model) else (x,)
    features: torch.Tensor = model.features(*inputs)  # type: ignore[operator]
    return features


class PartFeatures(nn.Module):
    """What tells recordings apart that are unlike those of the training, in parts.

    The first part is computed of the signal alone: how the leads correlate, and their sizes. The
    others are the network's ``early_features``, or else its ``features``, or none. `sizes` has the
    number of features of each part, once the module has been called.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.sizes: tuple[int, ...] = ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (B, n_features) of signals (B, n_leads, n_samples)."""
        parts = [describe_leads(x)]
        if callable(early := getattr(self.model, "early_features", None)):
            parts += early(x)
        elif callable(getattr(self.model, "features", None)):
            parts.append(compute_features(self.model, x))
        self.sizes = tuple(part.shape[1] for part in parts)
        return torch.cat([part.float() for part in parts], dim=1)


def describe_leads(x: torch.Tensor) -> torch.Tensor:
    """Return correlations of the leads and logarithms of their sizes, for (B, n_leads, T)."""
    n_leads = x.shape[1]
    x = (x - x.mean(dim=2, keepdim=True)).float()
    covariance = x @ x.transpose(1, 2) / x.shape[2]
    # The smallest size is a lead without a signal.
    size = covariance.diagonal(dim1=1, dim2=2).clamp_min(_SMALLEST_VARIANCE).sqrt()
    correlation = covariance / (size[:, :, None] * size[:, None])
    first, second = torch.triu_indices(n_leads, n_leads, offset=1, device=x.device)
    return torch.cat([correlation[:, first, second], size.log()], dim=1)


def needs_lead_presence(model: nn.Module) -> bool:
    """Return whether a network is also given which leads are present."""
    return bool(getattr(model, "takes_lead_presence", False))


def needs_rr(model: object) -> bool:
    """Return whether a network is also given the RR intervals around the beat."""
    return bool(getattr(model, "takes_rr", False))


def run_network(
    model: Callable[..., torch.Tensor], signal: torch.Tensor, rr: torch.Tensor | None
) -> torch.Tensor:
    """Return the logits of signals, with the RR intervals of their beats if the network asks."""
    logits: torch.Tensor = model(signal) if rr is None else model(signal, rr=rr)
    return logits


def _describe_error(error: Exception) -> str:
    """Return the type and the first line of an error from code of others."""
    lines = str(error).strip().splitlines() or [""]
    return printable(f"{type(error).__name__}: {lines[0]}")


def check_network(model: nn.Module, name: str, shape: tuple[int, int], n_outputs: int) -> None:
    """Try a network on two records, so that mistakes show before the first epoch.

    Parameters
    ----------
    model
        Keeps its mode; no random numbers are taken from the run.
    name
        Its name, for messages.
    shape
        Leads and samples of a training input.
    n_outputs
        Number of outputs that it must have.

    Raises
    ------
    ValueError
        If it needs longer inputs, fails, or returns another shape or numbers that are not finite.
    """
    name = printable(name)
    shortest = getattr(model, "min_samples", 1)
    if shape[1] < shortest:
        raise ValueError(
            f"network {name} needs {shortest} samples or more, and inputs have {shape[1]}: raise "
            "--crop-s, or preprocess with a higher --fs or more --n-samples"
        )
    generator = torch.Generator().manual_seed(0)
    records = torch.stack([torch.zeros(shape), torch.randn(shape, generator=generator)])
    try:
        logits = _try_network(model, records)
    # A network of others raises anything.
    except Exception as error:
        raise ValueError(
            f"network {name} fails on a batch of shape {tuple(records.shape)}: "
            f"{_describe_error(error)}; --crop-s sets the length, and 0 gives whole records"
        ) from error
    expected = (2, n_outputs)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        is_tensor = isinstance(logits, torch.Tensor)
        found = f"shape {tuple(logits.shape)}" if is_tensor else f"a {type(logits).__name__}"
        raise ValueError(
            f"network {name} maps a batch of shape {tuple(records.shape)} to {found}: expected "
            f"logits of shape {expected}"
        )
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"network {name} returns numbers that are not finite for a flat line and noise"
        )


def _try_network(model: nn.Module, records: torch.Tensor) -> torch.Tensor:
    """Return the output of a network in evaluation mode, which changes neither it nor the run."""
    was_training = model.training
    device = next((parameter.device for parameter in model.parameters()), records.device)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            output: torch.Tensor = model.eval()(records.to(device))
    finally:
        model.train(was_training)
    return output


@dataclass(frozen=True)
class Member:
    """A trained network in evaluation mode, and its card. Several predict by their mean logits.

    `reference` sums up its training recordings, where the checkpoint does.
    """

    model: nn.Module
    card: ModelCard
    reference: Reference | None = None

    def predict(self, signal: torch.Tensor, rr: torch.Tensor | None = None) -> torch.Tensor:
        """Return calibrated logits (B, n_classes) of signals (B, n_leads, n_samples)."""
        card = self.card
        logits = predict_logits(self.model, signal, card.crop_samples, card.unpadded_below, rr)
        return card.calibration.apply(logits) if card.calibration else logits

    def rank_unlike(self, signal: torch.Tensor) -> Float64Array:
        """Return how unlike the training recordings signals are: the share of these that are less.

        Shape (B,); NaN where the checkpoint does not sum them up.
        """
        if self.reference is None:
            return np.full(len(signal), np.nan)
        features = describe_inputs(PartFeatures(self.model), self.card, signal).cpu().numpy()
        if features.shape[1] != self.reference.n_features:
            raise ValueError(
                f"reference has {self.reference.n_features} features, and the network "
                f"{features.shape[1]}: evaluate --unlike --save writes it anew"
            )
        return self.reference.rank(features)


def describe_inputs(parts: PartFeatures, card: ModelCard, signal: torch.Tensor) -> torch.Tensor:
    """Return the features (B, n_features) of signals, of whole records without their padding.

    A network of one length sees what it is trained on.
    """
    shortest = shortest_input(parts.model)
    n_samples = signal.shape[2]
    if not shortest:
        return predict_logits(parts, signal, card.crop_samples)
    return predict_whole(parts, signal, card.min_samples or n_samples, shortest)


def load_members(checkpoint: Checkpoint, device: str = "cpu") -> tuple[Member, ...]:
    """Return the network of a checkpoint, or those of several that are used as one.

    Raises
    ------
    ValueError
        As for `load_model`.
    """
    return tuple(
        Member(load_model(member, device), member.card, member.reference)
        for member in checkpoint.members or (checkpoint,)
    )


def load_model(checkpoint: Checkpoint, device: str = "cpu") -> nn.Module:
    """Return the trained network in evaluation mode.

    Raises
    ------
    ValueError
        If the weights do not fit the card or are damaged, the network comes from elsewhere and the
        checkpoint was loaded without naming it, or it stands for several.
    """
    card = checkpoint.card
    if checkpoint.members:
        raise ValueError(f"{checkpoint.name}: expected one checkpoint")
    _check_is_named(checkpoint)
    try:
        model = _load_weights(checkpoint)
        # Finite weights can still overflow.
        shortest = getattr(model, "min_samples", card.crop_samples or card.preprocess.n_samples)
        logits = _try_network(model, torch.zeros(1, len(card.leads), shortest))
    except ValueError as error:
        raise ValueError(f"{checkpoint.path}: {error}") from None
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"{checkpoint.path}: the network returns no finite number for a flat line: its "
            "weights are damaged"
        )
    return model.to(device)


def _check_is_named(checkpoint: Checkpoint) -> None:
    """Refuse to import code that only the file names, and warn if it has changed."""
    name, path = printable(checkpoint.card.model.network), checkpoint.path
    if checkpoint.card.model.network in NETWORKS:
        return
    if checkpoint.network is None:
        advice = f"name it with --network {name}, or network= in Python"
        if name.startswith("__main__:") or "<" in name:
            # A script, a notebook or a function inside of another cannot be imported by this name.
            advice = "give its factory by network= in Python, or name its file with --network"
        raise ValueError(
            f"{path}: its network is {name}, code that is not part of this program; if you trust "
            f"it, {advice}"
        )
    source = describe_source(checkpoint.network)
    trained_with = checkpoint.card.source.sha256
    if trained_with and source.sha256 != trained_with:
        logger.warning("%s: the file of its network %s has changed since the training", path, name)


def _load_weights(checkpoint: Checkpoint) -> nn.Module:
    """Return the network of a checkpoint with its weights, in evaluation mode."""
    card, weights = checkpoint.card, checkpoint.weights
    try:
        if card.model.network in NETWORKS:
            # Compare shapes first: a hostile card may describe a network larger than the memory.
            with torch.device("meta"):
                expected = build_model(card).state_dict()
            problem = _find_misfit(expected, weights)
            model = build_model(card) if not problem else None
        else:
            model = build_model(card, network=checkpoint.network)
            problem = _find_misfit(model.state_dict(), weights)
    except (ValueError, RuntimeError, TypeError, OverflowError) as error:
        problem = printable(str(error))
    if problem or model is None:
        raise ValueError(f"weights do not fit the model it describes ({problem})")
    model.load_state_dict(weights)
    return model.eval()


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


def start_from(
    model: nn.Module, checkpoint: Checkpoint, card: ModelCard, outputs: frozenset[str]
) -> None:
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
    outputs
        Its weights with a row for each output (`find_output_weights`).

    Raises
    ------
    ValueError
        If the checkpoint has another network, other leads or another sampling rate.
    """
    _check_start(checkpoint, card)
    source_classes = checkpoint.card.classes
    common = [name for name in card.classes if name in source_classes]
    rows = [card.classes.index(name) for name in common]
    source_rows = [source_classes.index(name) for name in common]
    weights = model.state_dict()
    for name, value in checkpoint.weights.items():
        if name in outputs:
            weights[name][rows] = value[source_rows]
        else:
            weights[name] = value
    model.load_state_dict(weights)


def _check_start(checkpoint: Checkpoint, card: ModelCard) -> None:
    """Raise ValueError if the features of a checkpoint do not fit a model to be trained."""
    source = checkpoint.card
    pairs: dict[str, tuple[object, object]] = {
        "network": (source.model.network, card.model.network),
        "leads": (source.leads, card.leads),
        "fs": (source.preprocess.fs, card.preprocess.fs),
    }
    of_source, of_run = source.model.arguments, card.model.arguments
    for name in sorted(of_source.keys() | of_run.keys()):
        # It has no weights.
        if name != "dropout":
            pairs[name] = (of_source.get(name), of_run.get(name))
    differences = []
    for name, (source_value, value) in pairs.items():
        if source_value != value:
            differences.append(f"{name} {source_value} where this run has {value}")
    if differences:
        raise ValueError(
            f"{checkpoint.path}: cannot start from it: it has {'; '.join(differences)}"
        )


def find_output_weights(
    card: ModelCard, network: str | NetworkFactory | None = None
) -> frozenset[str]:
    """Return the names of the weights of a network that have a row for each output.

    Raises
    ------
    ValueError
        If weights depend on the number of outputs in another way.
    """
    n_outputs = len(card.classes)
    in_box = card.model.network in NETWORKS
    # Networks of others may not know the device without memory.
    with torch.random.fork_rng(devices=[]), torch.device("meta" if in_box else "cpu"):
        weights, of_more = (
            build_model(card, n, network).state_dict() for n in (n_outputs, n_outputs + 1)
        )
    outputs = set()
    for name, value in weights.items():
        shape, shape_of_more = value.shape, of_more[name].shape if name in of_more else ()
        if shape_of_more == shape:
            continue
        if shape_of_more != (n_outputs + 1, *shape[1:]) or shape[0] != n_outputs:
            raise ValueError(
                f"network {printable(card.model.network)}: its weights {printable(name)} depend "
                "on the number of classes, but not by a row for each: it cannot be trained with "
                "auxiliary outputs or from a checkpoint"
            )
        outputs.add(name)
    return frozenset(outputs)


def select_outputs(
    weights: Mapping[str, torch.Tensor], rows: slice | list[int], outputs: frozenset[str]
) -> dict[str, torch.Tensor]:
    """Return the weights of a network with some of its outputs, in the order of `rows`.

    Parameters
    ----------
    weights
        Name -> weight.
    rows
        The outputs to keep.
    outputs
        The weights with a row for each output (`find_output_weights`).
    """
    return {name: value[rows] if name in outputs else value for name, value in weights.items()}


# Crops --------------------------------------------------------------------------------------------


def window_starts(n_samples: int, window: int) -> list[int]:
    """Return the starts of windows that overlap by about half and reach both ends.

    Parameters
    ----------
    n_samples
        Length of the signal.
    window
        Length of the windows; 0, or one as long as the signal, gives a single window.
    """
    count = count_windows(n_samples, window)
    return [round(i * (n_samples - window) / max(count - 1, 1)) for i in range(count)]


def count_windows(n_samples: int, window: int) -> int:
    """Return how many windows `window_starts` gives, without a branch that an export would fix."""
    if window <= 0 or window >= n_samples:
        return 1
    # Positive numbers alone: an exported division is cut off towards zero.
    return (2 * (n_samples - window) + window - 1) // window + 1


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
    count = count_windows(signal.shape[2], crop_samples)
    n_valid = count_valid(signal)[:, None]  # (B, 1)
    span = (n_valid - crop_samples).clamp(min=0)
    numbers = torch.arange(count, device=signal.device)
    # In double precision, in which `window_starts` rounds
    return (numbers * span.double() / max(count - 1, 1)).round().long()


def predict_logits(
    model: nn.Module,
    signal: torch.Tensor,
    crop_samples: int = 0,
    unpadded_below: int = 0,
    rr: torch.Tensor | None = None,
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
    rr
        RR intervals around the beats (B, 2 * RR_SIDE + 1), for a network that asks for them.

    Returns
    -------
    Tensor
        Shape (B, n_classes).
    """
    n_records, n_leads, n_samples = signal.shape
    rr = rr if needs_rr(model) else None
    if crop_samples <= 0 or crop_samples >= n_samples:
        return predict_whole(model, signal, unpadded_below, shortest_input(model), rr)
    starts = crop_starts(signal, crop_samples)  # (B, n_crops)
    count = starts.shape[1]
    samples = starts[:, :, None] + torch.arange(crop_samples, device=signal.device)
    samples = samples.flatten(1)[:, None].expand(-1, n_leads, -1)  # (B, n_leads, n_crops * T)
    crops = signal.gather(2, samples).view(n_records, n_leads, count, crop_samples)
    crops = crops.permute(2, 0, 1, 3)  # (n_crops, B, n_leads, T)
    of_crops = None if rr is None else rr.repeat(count, 1)
    logits = run_network(model, crops.flatten(0, 1), of_crops).view(count, n_records, -1)
    # A record that is constant throughout keeps all crops.
    is_moving = (crops != crops[..., :1]).flatten(2).any(dim=2)  # (n_crops, B)
    weights = (is_moving | ~is_moving.any(dim=0)).to(logits.dtype)[:, :, None]
    averaged: torch.Tensor = (logits * weights).sum(dim=0) / weights.sum(dim=0)
    return averaged


def shortest_input(model: nn.Module) -> int:
    """Return the fewest samples that a network takes; 0 if it takes one length alone."""
    return int(getattr(model, "min_samples", 0))


def predict_whole(
    model: Callable[..., torch.Tensor],
    signal: torch.Tensor,
    unpadded_below: int,
    shortest: int,
    rr: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the output of a network for whole records, the short ones without their padding.

    Parameters
    ----------
    model
        Maps (B, n_leads, T) to (B, n_classes).
    signal, unpadded_below
        As for `predict_logits`; 0 keeps all padding.
    shortest
        Fewest samples that the network takes (`shortest_input`); 0 keeps all padding.
    rr
        RR intervals for a network that asks for them.
    """
    if not (unpadded_below and shortest):
        return run_network(model, signal, rr)
    n_kept = kept_samples(signal, unpadded_below, shortest)
    lengths = n_kept.unique().tolist()
    of_parts = []
    for length in lengths:
        is_part = n_kept == length
        rr_of_part = None if rr is None else rr[is_part]
        of_part = run_network(model, signal[is_part, :, :length], rr_of_part)
        of_parts.append((is_part, of_part))
    logits = of_parts[0][1].new_empty(len(signal), of_parts[0][1].shape[1])
    for is_part, of_part in of_parts:
        logits[is_part] = of_part
    return logits


def kept_samples(signal: torch.Tensor, unpadded_below: int, shortest: int) -> torch.Tensor:
    """Return how many samples of each record (B, n_leads, n_samples) are predicted, shape (B,)."""
    n_samples = signal.shape[2]
    n_valid = count_valid(signal)
    if not shortest:
        return torch.full_like(n_valid, n_samples)
    unpadded = n_valid.clamp(min=min(shortest, n_samples))
    return torch.where(n_valid < unpadded_below, unpadded, n_samples)


def to_probabilities(logits: torch.Tensor, single_label: bool) -> torch.Tensor:
    """Return probabilities (B, n_classes): a softmax for a single label, else a sigmoid each."""
    return logits.softmax(dim=1) if single_label else logits.sigmoid()


def to_scores(logits: torch.Tensor, single_label: bool) -> Float64Array:
    """Return probabilities (B, n_classes) in double precision."""
    scores: Float64Array = to_probabilities(logits.double(), single_label).numpy()
    return scores
