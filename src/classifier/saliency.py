"""Saliency maps: integrated gradients, Grad-CAM and occlusion.

A map has a value per input sample: positive where the sample supports the class, negative where it
speaks against it.

Integrated gradients are captum's. Grad-CAM and occlusion are our own: Grad-CAM averages over crops
and ignores windows of padding, and the occluded stretches reach both ends of the record, where
captum's regular strides leave a shorter last one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from src.classifier.inputs import to_input
from src.config import STANDARD_LEADS
from src.learning.checkpoints import ModelCard
from src.model import crop_starts, kept_samples, predict_logits, shortest_input, window_starts
from src.processed.record_files import to_millivolts
from src.utils import Float32Array

METHODS = ("integrated_gradients", "grad_cam", "occlusion")

Forward = Callable[[torch.Tensor], torch.Tensor]
"""From signals (B, n_leads, n_samples) to logits (B, n_classes)."""

# An occluded stretch: about a QRS complex with the beginning of its T wave
_OCCLUDED_S = 0.25


@dataclass(frozen=True, eq=False)
class Saliency:
    """A saliency map over the input of a model.

    Attributes
    ----------
    values
        The map, shape (n_leads, n_samples), in units of the class's logit.
    signal_mv
        The input in mV, shape (n_leads, n_samples); NaN in absent leads and after the end.
    leads
        Names of the rows of both.
    fs
        Sampling rate of both, in Hz.
    class_name
        The explained class.
    method
        One of `METHODS`.
    window
        Number of the window of the recording, for models that take windows.
    """

    values: Float32Array
    signal_mv: Float32Array
    leads: tuple[str, ...]
    fs: float
    class_name: str
    method: str
    window: int = 0

    @property
    def lead_shares(self) -> dict[str, float]:
        """Share of each lead in the sum of absolute values; all 0 for a map of zeros."""
        sums = np.abs(self.values).sum(axis=1, dtype=np.float64)
        shares = sums / (sums.sum() or 1.0)
        return dict(zip(self.leads, shares.tolist(), strict=True))


def explain(
    model: nn.Module,
    card: ModelCard,
    arrays: dict[str, NDArray[Any]],
    class_name: str,
    method: str = "integrated_gradients",
    *,
    n_steps: int = 64,
) -> Saliency:
    """Return the saliency map of a recording for one class.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    card
        Its card.
    arrays
        The arrays of a record file, or those of `src.preprocessing.build_tensor`.
    class_name
        One of the card's classes.
    method
        One of `METHODS`. Occlusion uses stretches of 0.25 s that overlap by half.
    n_steps
        Points of integrated gradients between baseline and signal.

    Raises
    ------
    ValueError
        If the class or the method is unknown, or Grad-CAM is requested for a network without
        stages.
    """
    if class_name not in card.classes:
        raise ValueError(f"class is {class_name!r}: expected one of {', '.join(card.classes)}")
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: expected one of {', '.join(METHODS)}")
    signal = to_input(arrays, card).to(next(model.parameters()).device)  # (n_leads, n_samples)
    # As in the prediction, a short record loses its padding.
    signal = signal[
        :, : int(kept_samples(signal[None], card.unpadded_below, shortest_input(model)))
    ]
    target = card.classes.index(class_name)

    rr = torch.from_numpy(arrays["rr_s"]).to(signal.device) if "rr_s" in arrays else None

    def forward(batch: torch.Tensor) -> torch.Tensor:
        of_batch = None if rr is None else rr.expand(len(batch), -1)
        return predict_logits(model, batch, card.crop_samples, rr=of_batch)

    if method == "integrated_gradients":
        values = integrated_gradients(forward, signal, target, n_steps=n_steps)
    elif method == "grad_cam":
        if not isinstance(getattr(model, "stages", None), nn.Module):
            raise ValueError(
                f"method is {method!r}, which needs a network with a module named stages, whose "
                f"output it weighs, and {card.model.network} has none: expected another method"
            )
        values = grad_cam(model, signal, target, crop_samples=card.crop_samples)
    else:
        window = max(1, round(_OCCLUDED_S * card.preprocess.fs))
        values = occlude_stretches(forward, signal, target, window=window)
    n_padding = arrays["signal"].shape[1] - values.shape[1]
    return Saliency(
        values=np.pad(values, ((0, 0), (0, n_padding))),
        signal_mv=_input_mv(arrays, card.leads),
        leads=card.leads,
        fs=card.preprocess.fs,
        class_name=class_name,
        method=method,
    )


def _input_mv(arrays: dict[str, NDArray[Any]], leads: tuple[str, ...]) -> Float32Array:
    """Return the input of a model in mV, with NaN in absent leads and after the end."""
    millivolts = to_millivolts(arrays)  # (12, n_valid)
    signal = np.full(arrays["signal"].shape, np.nan, np.float32)
    signal[:, : millivolts.shape[1]] = np.where(arrays["lead_present"][:, None], millivolts, np.nan)
    return signal[[STANDARD_LEADS.index(lead) for lead in leads]]


# Methods ------------------------------------------------------------------------------------------


def integrated_gradients(
    forward: Forward,
    signal: torch.Tensor,
    target: int,
    *,
    n_steps: int = 64,
    baseline: torch.Tensor | None = None,
    batch_size: int = 16,
) -> Float32Array:
    """Integrate the gradient of a logit from a baseline (Sundararajan et al., ICML 2017).

    The map adds up to the logit of the signal minus that of the baseline, within the error of a
    Gauss-Legendre quadrature. A network with `lead_mask` takes all leads for absent at a baseline
    of zeros. The map leaves out the jump of its logit there, and what the measurements of the
    rhythm (`rhythm_fs`) add, since they have no gradient.

    Parameters
    ----------
    forward
        The network in evaluation mode; differentiable.
    signal
        Shape (n_leads, n_samples).
    target
        Index of the class to explain.
    n_steps
        Number of points between baseline and signal.
    baseline
        Shape as `signal`; by default zeros, which are flat leads where signals are z-scored.
    batch_size
        Points per call of `forward`.

    Returns
    -------
    ndarray
        Shape (n_leads, n_samples).
    """
    # captum takes a second to import, as it loads matplotlib. In a notebook, the progress bars that
    # it loads ask for widgets, which nothing here needs.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.attr import IntegratedGradients

    baseline = torch.zeros_like(signal) if baseline is None else baseline
    values: torch.Tensor = IntegratedGradients(forward).attribute(
        signal[None],
        baselines=baseline[None],
        target=target,
        n_steps=n_steps,
        method="gausslegendre",
        internal_batch_size=batch_size,
    )  # (1, n_leads, n_samples)
    return _to_numpy(values[0])


def grad_cam(
    model: nn.Module, signal: torch.Tensor, target: int, *, crop_samples: int = 0
) -> Float32Array:
    """Weight the last features by the mean gradient of a logit (Selvaraju et al., ICCV 2017).

    Negative values become 0. The features belong to all leads together, so the map shows times but
    not leads, and its rows are equal. Over crops, maps are averaged as the logits are.

    Parameters
    ----------
    model
        The network, in evaluation mode, with a module `stages` that returns (B, n_channels, L).
    signal
        Shape (n_leads, n_samples).
    target
        Index of the class to explain.
    crop_samples
        Length of the crops that the model was trained on; 0 means whole records.

    Returns
    -------
    ndarray
        Shape (n_leads, n_samples), 0 or more.
    """
    n_leads, n_samples = signal.shape
    starts, size = [0], n_samples
    if len(window_starts(n_samples, crop_samples)) > 1:
        starts, size = crop_starts(signal[None], crop_samples)[0].tolist(), crop_samples
    windows = [slice(start, start + size) for start in starts]
    # As in `predict_logits`, windows in which nothing moves do not count.
    moving = [window for window in windows if (signal[:, window] != signal[:, window][:, :1]).any()]
    total = torch.zeros(n_samples, device=signal.device)
    count = torch.zeros(n_samples, device=signal.device)
    for window in moving or windows:
        total[window] += _class_activation(model, signal[:, window], target)
        count[window] += 1
    return _to_numpy((total / count.clamp(min=1)).expand(n_leads, -1))


def _class_activation(model: nn.Module, signal: torch.Tensor, target: int) -> torch.Tensor:
    """Return the Grad-CAM map (n_samples,) of a signal (n_leads, n_samples)."""
    outputs: list[torch.Tensor] = []
    stages = model.get_submodule("stages")
    handle = stages.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        logit = model(signal[None])[0, target]
    finally:
        handle.remove()
    features = outputs[0]  # (1, n_channels, n_features)
    (gradients,) = torch.autograd.grad(logit, features)
    weights = gradients.mean(dim=2, keepdim=True)  # (1, n_channels, 1)
    positive = (weights * features).sum(dim=1, keepdim=True).relu().detach()  # (1, 1, n_features)
    activation: torch.Tensor = torch.nn.functional.interpolate(
        positive, size=signal.shape[1], mode="linear"
    )
    return activation[0, 0]


def occlude_stretches(
    forward: Forward,
    signal: torch.Tensor,
    target: int,
    *,
    window: int,
    fill: float = 0.0,
    batch_size: int = 64,
) -> Float32Array:
    """Return the drop of a logit without each stretch of each lead (Zeiler and Fergus, ECCV 2014).

    Parameters
    ----------
    forward, signal, target
        As for `integrated_gradients`, but `forward` need not be differentiable.
    window
        Samples of a stretch. Stretches overlap by half, and a sample gets the mean over those that
        hold it.
    fill
        Value that replaces the samples.
    batch_size
        Stretches per call of `forward`.

    Returns
    -------
    ndarray
        Shape (n_leads, n_samples).
    """
    n_leads, n_samples = signal.shape
    starts = window_starts(n_samples, window)
    stretches = [
        (lead, slice(start, start + window)) for lead in range(n_leads) for start in starts
    ]
    total = torch.zeros_like(signal)
    count = torch.zeros_like(signal)
    for first in range(0, len(stretches), batch_size):
        chunk = stretches[first : first + batch_size]
        drops = _compute_drops(forward, signal, target, chunk, fill)
        for stretch, drop in zip(chunk, drops, strict=True):
            total[stretch] += drop
            count[stretch] += 1
    return _to_numpy(total / count)


def occlude_leads(
    forward: Forward, signal: torch.Tensor, target: int, *, fill: float = 0.0
) -> Float32Array:
    """Return the drop of a logit without each lead, shape (n_leads,)."""
    leads = [(lead, slice(None)) for lead in range(len(signal))]
    return _to_numpy(_compute_drops(forward, signal, target, leads, fill))


def _compute_drops(
    forward: Forward,
    signal: torch.Tensor,
    target: int,
    stretches: list[tuple[int, slice]],
    fill: float,
) -> torch.Tensor:
    """Return the logit of the signal minus that without each stretch, shape (n_stretches,)."""
    # One copy for each stretch, and the signal itself last: (n_stretches + 1, n_leads, n_samples)
    occluded = signal.repeat(len(stretches) + 1, 1, 1)
    for row, (lead, samples) in enumerate(stretches):
        occluded[row, lead, samples] = fill
    with torch.inference_mode():
        logits = forward(occluded)[:, target]
    return logits[-1] - logits[:-1]


def _to_numpy(values: torch.Tensor) -> Float32Array:
    array: Float32Array = values.detach().cpu().float().numpy()
    return np.ascontiguousarray(array)
