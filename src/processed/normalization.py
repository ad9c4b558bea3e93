"""How signals are scaled when they are loaded: per-lead z-score, one scale per collection, or mV as
they are.

Record files hold z-scored leads with what turns them back to mV, so the choice is made at load time
and costs one multiplication and one addition per lead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from src.config import NORMALIZATIONS
from src.utils import Float32Array

ANY_DATASET = ""


@dataclass(frozen=True)
class Normalization:
    """A way to scale signals.

    Attributes
    ----------
    mode
        ``zscore``: each lead of each record to mean 0 and standard deviation 1; ``global``: mV less
        the mean of the collection over its standard deviation, which keeps voltages comparable;
        ``none``: mV.
    mean_mv, std_mv
        For ``global``, by dataset; the entry with the empty name serves datasets that were not
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
        """Return gain and bias (n_records, n_leads): a z-scored lead times gain plus bias is
        normalized.

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
        centre, spread = (
            np.array(
                [[values.get(name, values[ANY_DATASET])] for name in datasets], np.float32
            ).reshape(-1, 1)
            for values in (self.mean_mv, self.std_mv)
        )
        return std / spread, np.where(present, (mean - centre) / spread, 0).astype(np.float32)


def fit_normalization(
    mode: str,
    mean: Float32Array,
    std: Float32Array,
    present: NDArray[np.bool_],
    datasets: Sequence[str],
) -> Normalization:
    """Return a normalization with the statistics of training records, each (n_records, n_leads) in
    mV.

    The mean and variance of a collection pool those of its present leads.
    """
    if mode != "global":
        return Normalization(mode)
    names = np.asarray(datasets)
    means: dict[str, float] = {}
    spreads: dict[str, float] = {}
    for name in (ANY_DATASET, *dict.fromkeys(datasets)):
        chosen = present & ((names == name) | (name == ANY_DATASET))[:, None]
        lead_means, lead_stds = mean[chosen].astype(np.float64), std[chosen].astype(np.float64)
        means[name] = round(float(lead_means.mean()), 6) if chosen.any() else 0.0
        variance = (
            float(np.mean(lead_stds**2 + (lead_means - means[name]) ** 2)) if chosen.any() else 1.0
        )
        spreads[name] = round(variance**0.5, 6) or 1.0
    return Normalization(mode, means, spreads)
