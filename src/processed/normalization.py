"""Scaling of signals at load time: z-score per lead, one scale per collection, or plain mV.

Record files hold z-scored leads with their mean and standard deviation in mV. So the choice is made
when they are loaded, at the cost of one multiplication and one addition per sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from src.config import NORMALIZATIONS
from src.utils import Float32Array

# Stands for every dataset that was not trained on
ANY_DATASET = ""


@dataclass(frozen=True)
class Normalization:
    """A way to scale signals.

    Attributes
    ----------
    mode
        ``zscore``: each lead of each record to mean 0 and standard deviation 1; ``global``:
        (mV - mean) / standard deviation of the whole collection, which keeps voltages comparable;
        ``none``: mV.
    mean_mv, std_mv
        For ``global``, by dataset; the entry with the empty name is for datasets that were not
        trained on.
    """

    mode: str = "zscore"
    mean_mv: dict[str, float] = field(default_factory=dict)
    std_mv: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in NORMALIZATIONS:
            raise ValueError(
                f"normalization is {self.mode!r}: expected one of {', '.join(NORMALIZATIONS)}"
            )
        if self.mode == "global" and not (
            ANY_DATASET in self.mean_mv and self.std_mv.get(ANY_DATASET, 0) > 0
        ):
            raise ValueError(
                "normalization global: expected a mean and a positive standard deviation "
                "for any dataset"
            )

    def affine(
        self,
        mean: Float32Array,
        std: Float32Array,
        present: NDArray[np.bool_],
        datasets: Sequence[str],
    ) -> tuple[Float32Array, Float32Array]:
        """Return gain and bias (n_records, n_leads): z-score * gain + bias is normalized.

        Parameters
        ----------
        mean, std, present
            Shape (n_records, n_leads), as in the record files; an absent lead stays 0.
        datasets
            The dataset of each record.
        """
        if self.mode == "zscore":
            return np.ones_like(std), np.zeros_like(std)
        if self.mode == "none":
            return std, mean
        centre = _column(self.mean_mv, datasets)
        spread = _column(self.std_mv, datasets)
        bias = np.where(present, (mean - centre) / spread, 0)
        return std / spread, bias.astype(np.float32)


def _column(values: Mapping[str, float], datasets: Sequence[str]) -> Float32Array:
    """Return the value for the dataset of each record, shape (n_records, 1)."""
    column = [values.get(name, values[ANY_DATASET]) for name in datasets]
    return np.array(column, np.float32).reshape(-1, 1)


def fit_normalization(
    mode: str,
    mean: Float32Array,
    std: Float32Array,
    present: NDArray[np.bool_],
    datasets: Sequence[str],
) -> Normalization:
    """Return a normalization with the statistics of training records.

    The mean and variance of a collection pool those of its present leads.

    Parameters
    ----------
    mode
        One of `NORMALIZATIONS`; only ``global`` needs statistics.
    mean, std
        Of each lead in mV, shape (n_records, n_leads).
    present
        Mask of the leads that the records have, shape (n_records, n_leads).
    datasets
        The dataset of each record.
    """
    if mode != "global":
        return Normalization(mode)
    names = np.asarray(datasets)
    means: dict[str, float] = {}
    spreads: dict[str, float] = {}
    for name in (ANY_DATASET, *dict.fromkeys(datasets)):
        chosen = present & ((names == name) | (name == ANY_DATASET))[:, None]
        if not chosen.any():
            means[name] = 0.0
            spreads[name] = 1.0
            continue
        lead_means = mean[chosen].astype(np.float64)
        lead_stds = std[chosen].astype(np.float64)
        means[name] = round(float(lead_means.mean()), 6)
        # Law of total variance: the variance within leads plus that of their means
        variance = float(np.mean(lead_stds**2 + (lead_means - means[name]) ** 2))
        spreads[name] = round(variance**0.5, 6) or 1.0
    return Normalization(mode, means, spreads)
