"""Which samples of which leads a network's answer rests on: integrated gradients, Grad-CAM and
occlusion.

A map has a value per input sample, positive where the sample speaks for the class and negative
where it speaks against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from src.classifier.inputs import to_input
from src.config import STANDARD_LEADS
from src.learning.checkpoints import ModelCard
from src.model import ResNet1d, predict_logits, window_starts
from src.processed.record_files import to_millivolts
from src.utils import Float32Array

METHODS = ("integrated_gradients", "grad_cam", "occlusion")

Forward = Callable[[torch.Tensor], torch.Tensor]
"""From signals (B, n_leads, n_samples) to logits (B, n_classes)."""

_OCCLUDED_S = 0.25  # about a QRS complex with the beginning of its T wave


@dataclass(frozen=True, eq=False)
class Saliency:
    """A map over the input of a model.

    Attributes
    ----------
    values
        Shape (n_leads, n_samples), in units of the class's logit.
    signal_mv
        The recording as the model saw it but in mV, shape (n_leads, n_samples); NaN for an absent
        lead and after the end.
    leads, fs
        Of both; `fs` in Hz.
    class_name, method
        What was asked, and how it was answered.
    window
        Which window of the recording this is, where the model works on windows.
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
        """The share of each lead in the sum of absolute values; all 0 where the map is."""
        weights = np.abs(self.values).sum(axis=1, dtype=np.float64)
        total = weights.sum() or 1.0
        return {
            lead: float(weight / total) for lead, weight in zip(self.leads, weights, strict=True)
        }


def explain(
    model: ResNet1d,
    card: ModelCard,
    arrays: dict[str, NDArray[Any]],
    class_name: str,
    method: str = "integrated_gradients",
) -> Saliency:
    """Return the map of a recording for one class.

    Parameters
    ----------
    model
        In evaluation mode.
    card
        Its card.
    arrays
        What `src.tensors.build_tensor` made of the recording, or the arrays of its record file.
    class_name
        One of the card's classes.
    method
        One of `METHODS`. Occlusion takes stretches of 0.25 s that overlap by half.

    Raises
    ------
    ValueError
        If the class or the method is unknown.
    """
    if class_name not in card.classes:
        raise ValueError(f"class is {class_name!r}: expected one of {', '.join(card.classes)}")
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: expected one of {', '.join(METHODS)}")
    signal, target = (
        to_input(arrays, card).to(next(model.parameters()).device),
        card.classes.index(class_name),
    )

    def forward(batch: torch.Tensor) -> torch.Tensor:
        return predict_logits(model, batch, card.crop_samples)

    if method == "integrated_gradients":
        values = integrated_gradients(forward, signal, target)
    elif method == "grad_cam":
        values = grad_cam(model, signal, target, crop_samples=card.crop_samples)
    else:
        values = occlude_stretches(
            forward, signal, target, window=max(1, round(_OCCLUDED_S * card.preprocess.fs))
        )
    return Saliency(
        values,
        _drawn_signal(arrays, card.leads),
        card.leads,
        card.preprocess.fs,
        class_name,
        method,
    )


def _drawn_signal(arrays: dict[str, NDArray[Any]], leads: tuple[str, ...]) -> Float32Array:
    millivolts = to_millivolts(arrays)
    drawn = np.full(arrays["signal"].shape, np.nan, np.float32)
    drawn[:, : millivolts.shape[1]] = np.where(arrays["lead_present"][:, None], millivolts, np.nan)
    return drawn[[STANDARD_LEADS.index(lead) for lead in leads]]


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
    """Integrate the gradient of a logit along the line from a baseline (Sundararajan et al., ICML
    2017).

    The sum of the map is the logit of the signal less that of the baseline, up to the error of the
    sum over the steps, whose points and weights are those of Gauss and Legendre. A network with
    `lead_mask` jumps at a baseline of zeros, where it takes every lead for absent; the sum leaves
    that jump out.

    Parameters
    ----------
    forward
        In evaluation mode and differentiable.
    signal
        Shape (n_leads, n_samples).
    target
        The class whose logit is explained.
    n_steps
        Points on the line.
    baseline
        Shape as `signal`; by default zeros: flat leads where signals are z-scored.
    batch_size
        Points at a time.

    Returns
    -------
    ndarray
        Shape (n_leads, n_samples).
    """
    baseline = torch.zeros_like(signal) if baseline is None else baseline
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)  # on [-1, 1]
    shares = torch.tensor((nodes + 1) / 2, dtype=signal.dtype, device=signal.device)[:, None, None]
    halved = torch.tensor(weights / 2, dtype=signal.dtype, device=signal.device)[:, None, None]
    total = torch.zeros_like(signal)
    for start in range(0, n_steps, batch_size):
        chunk = slice(start, start + batch_size)
        points = (
            baseline + shares[chunk] * (signal - baseline)
        ).requires_grad_()  # (n_points, n_leads, n_samples)
        (gradients,) = torch.autograd.grad(forward(points)[:, target].sum(), points)
        total += (halved[chunk] * gradients).sum(dim=0)
    return _to_numpy(total * (signal - baseline))


def grad_cam(
    model: ResNet1d, signal: torch.Tensor, target: int, *, crop_samples: int = 0
) -> Float32Array:
    """Weight the last features by the mean gradient of a logit and keep what is positive (Selvaraju
    et al., ICCV 2017).

    The features are of all leads together: the map says when, not in which lead, and its rows are
    equal. Over crops, the maps are averaged as the logits are.

    Parameters
    ----------
    model
        In evaluation mode.
    signal
        Shape (n_leads, n_samples).
    target
        The class whose logit is explained.
    crop_samples
        Length of the windows that the model was trained on; 0 means whole records.

    Returns
    -------
    ndarray
        Shape (n_leads, n_samples), 0 or more.
    """
    n_leads, n_samples = signal.shape
    starts = window_starts(n_samples, crop_samples)
    size = n_samples if len(starts) == 1 else crop_samples
    total, count = (torch.zeros(n_samples, device=signal.device) for _ in range(2))
    stretches = [slice(start, start + size) for start in starts]
    moving = [
        stretch for stretch in stretches if (signal[:, stretch] != signal[:, stretch][:, :1]).any()
    ]  # padding does not
    for stretch in moving or stretches:
        total[stretch] += _class_activation(model, signal[:, stretch], target)
        count[stretch] += 1
    return _to_numpy((total / count.clamp(min=1)).expand(n_leads, -1))


def _class_activation(model: ResNet1d, signal: torch.Tensor, target: int) -> torch.Tensor:
    kept: list[torch.Tensor] = []
    handle = model.stages.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        logit = model(signal[None])[0, target]
    finally:
        handle.remove()
    (gradients,) = torch.autograd.grad(logit, kept[0])  # (1, n_channels, n_features)
    positive = (
        (gradients.mean(dim=2, keepdim=True) * kept[0]).sum(dim=1, keepdim=True).relu().detach()
    )
    spread: torch.Tensor = torch.nn.functional.interpolate(
        positive, size=signal.shape[1], mode="linear"
    )
    return spread[0, 0]


def occlude_stretches(
    forward: Forward,
    signal: torch.Tensor,
    target: int,
    *,
    window: int,
    fill: float = 0.0,
    batch_size: int = 64,
) -> Float32Array:
    """Return by how much a logit falls without each stretch of each lead (Zeiler and Fergus, ECCV
    2014).

    Parameters
    ----------
    forward, signal, target
        As for `integrated_gradients`, without the need for gradients.
    window
        Samples of a stretch. Stretches overlap by half; a sample gets the mean over those that hold
        it.
    fill
        What stands in for the samples.
    batch_size
        Stretches at a time.

    Returns
    -------
    ndarray
        Shape (n_leads, n_samples).
    """
    n_leads, n_samples = signal.shape
    starts = window_starts(n_samples, window)
    places = [(lead, slice(start, start + window)) for lead in range(n_leads) for start in starts]
    total, count = torch.zeros_like(signal), torch.zeros_like(signal)
    for begin in range(0, len(places), batch_size):
        chunk = places[begin : begin + batch_size]
        for place, fall in zip(chunk, _falls(forward, signal, target, chunk, fill), strict=True):
            total[place] += fall
            count[place] += 1
    return _to_numpy(total / count)


def occlude_leads(
    forward: Forward, signal: torch.Tensor, target: int, *, fill: float = 0.0
) -> Float32Array:
    """Return by how much a logit falls without each lead, shape (n_leads,)."""
    return _to_numpy(
        _falls(forward, signal, target, [(lead, slice(None)) for lead in range(len(signal))], fill)
    )


def _falls(
    forward: Forward,
    signal: torch.Tensor,
    target: int,
    places: list[tuple[int, slice]],
    fill: float,
) -> torch.Tensor:
    """Return the logit of the signal less that without each place, shape (n_places,)."""
    occluded = signal.repeat(len(places) + 1, 1, 1)
    for row, place in enumerate(places):
        occluded[(row, *place)] = fill
    with torch.inference_mode():
        logits = forward(occluded)[:, target]
    return logits[-1] - logits[:-1]


def _to_numpy(values: torch.Tensor) -> Float32Array:
    array: Float32Array = values.detach().cpu().float().numpy()
    return np.ascontiguousarray(array)
