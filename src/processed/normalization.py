"""Scaling of signals at load time: z-score per lead, one scale per collection, or plain mV.

Record files hold z-scored leads with their mean and standard deviation in mV. So the choice is made
when they are loaded, at the cost of one multiplication per sample.

The mean of a lead is an offset of the electrode and the amplifier, not of the heart. Every mode
takes it out, and a high-pass takes out the wander of the baseline too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from src.config import NORMALIZATIONS
from src.utils import Float32Array, Float64Array

# Stands for every dataset that was not trained on
ANY_DATASET = ""
# Butterworth; the filter runs forwards and backwards, which doubles it.
HIGHPASS_ORDER = 2
# A z-scored lead with a smaller standard deviation than this after the high-pass is flat.
_FLAT = 1e-6


@dataclass(frozen=True)
class Normalization:
    """A way to scale signals.

    Attributes
    ----------
    mode
        ``zscore``: each lead of each record to mean 0 and standard deviation 1; ``global``: mV
        without the lead's mean, divided by the standard deviation of the whole collection, which
        keeps voltages comparable; ``none``: mV without the lead's mean.
    std_mv
        For ``global``, by dataset; the entry with the empty name is for datasets that were not
        trained on.
    highpass_hz
        Cutoff of a zero-phase high-pass that precedes the scaling; 0 means none.
    """

    mode: str = "zscore"
    std_mv: dict[str, float] = field(default_factory=dict)
    highpass_hz: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in NORMALIZATIONS:
            raise ValueError(
                f"normalization is {self.mode!r}: expected one of {', '.join(NORMALIZATIONS)}"
            )
        if self.mode == "global" and not self.std_mv.get(ANY_DATASET, 0) > 0:
            raise ValueError(
                "normalization global: expected a positive standard deviation for any dataset"
            )
        if not 0 <= self.highpass_hz < float("inf"):
            raise ValueError(f"highpass_hz is {self.highpass_hz}: expected 0 or more Hz")

    def gains(self, std: Float32Array, datasets: Sequence[str]) -> Float32Array:
        """Return gains (n_records, n_leads): z-score * gain is normalized, but for a high-pass.

        Parameters
        ----------
        std
            Shape (n_records, n_leads), as in the record files; 0 for an absent or flat lead.
        datasets
            The dataset of each record.
        """
        if self.mode == "zscore":
            return np.ones_like(std)
        if self.mode == "none":
            return std
        spread = [self.std_mv.get(name, self.std_mv[ANY_DATASET]) for name in datasets]
        return std / np.array(spread, np.float32).reshape(-1, 1)

    def units_per_mv(self, datasets: Sequence[str]) -> Float32Array:
        """Return what 1 mV is in a normalized signal of each dataset, shape (len(datasets),).

        With ``zscore``, whose unit depends on the lead, it is 1.
        """
        if self.mode != "global":
            return np.ones(len(datasets), np.float32)
        spread = [self.std_mv.get(name, self.std_mv[ANY_DATASET]) for name in datasets]
        return np.float32(1) / np.array(spread, np.float32)

    def remove_wander(self, signal: Float32Array, n_valid: int, fs: float) -> Float32Array:
        """Return a scaled signal (n_leads, n_samples) after the high-pass.

        Its leads have mean 0 again, and with ``zscore`` a standard deviation of 1.

        Parameters
        ----------
        signal
            Scaled by `gains`.
        n_valid
            Samples before the padding, which stays 0.
        fs
            Hz.

        Raises
        ------
        ValueError
            If the cutoff is half the sampling rate or more.
        """
        filtered = high_pass(signal[:, :n_valid], fs, self.highpass_hz)
        filtered -= filtered.mean(axis=1, keepdims=True)
        if self.mode == "zscore":
            spread = filtered.std(axis=1, keepdims=True)
            filtered /= np.where(spread > _FLAT, spread, 1)
        padded = np.zeros_like(signal)
        padded[:, :n_valid] = filtered
        return padded


def high_pass(signal: Float32Array, fs: float, hz: float) -> Float32Array:
    """Return a signal (n_leads, n_samples) after a zero-phase Butterworth high-pass.

    The ends are extended by up to one period of the cutoff, so that a filter at rest does not
    take them for a step.

    Raises
    ------
    ValueError
        If the cutoff is half the sampling rate or more.
    """
    # SciPy's filters take a tenth of a second to import.
    from scipy.signal import sosfiltfilt

    n_extended = min(signal.shape[1] - 1, round(fs / hz))
    filtered: Float64Array = sosfiltfilt(
        _high_pass_sections(fs, hz), signal, axis=1, padlen=max(0, n_extended)
    )
    return filtered.astype(np.float32)


@lru_cache(maxsize=16)
def _high_pass_sections(fs: float, hz: float) -> Float64Array:
    """Return the second-order sections of the filter."""
    from scipy.signal import butter

    if hz >= fs / 2:
        raise ValueError(
            f"highpass_hz is {hz:g}: expected less than half the sampling rate of {fs:g} Hz"
        )
    sections: Float64Array = butter(HIGHPASS_ORDER, hz, "highpass", fs=fs, output="sos")
    return sections


def fit_normalization(
    mode: str,
    std: Float32Array,
    present: NDArray[np.bool_],
    datasets: Sequence[str],
    highpass_hz: float = 0.0,
) -> Normalization:
    """Return a normalization with the statistics of training records.

    The variance of a collection pools those of its present leads.

    Parameters
    ----------
    mode
        One of `NORMALIZATIONS`; only ``global`` needs statistics.
    std
        Of each lead in mV, shape (n_records, n_leads).
    present
        Mask of the leads that the records have, shape (n_records, n_leads).
    datasets
        The dataset of each record.
    highpass_hz
        As in `Normalization`.
    """
    if mode != "global":
        return Normalization(mode, highpass_hz=highpass_hz)
    names = np.asarray(datasets)
    spreads: dict[str, float] = {}
    for name in (ANY_DATASET, *dict.fromkeys(datasets)):
        chosen = present & ((names == name) | (name == ANY_DATASET))[:, None]
        if not chosen.any():
            spreads[name] = 1.0
            continue
        variance = float(np.mean(std[chosen].astype(np.float64) ** 2))
        spreads[name] = round(variance**0.5, 6) or 1.0
    return Normalization(mode, spreads, highpass_hz)
