"""How unlike the training recordings an input is, by distances in what a network computes of it.

The distance is Mahalanobis's in the space of some features (Lee et al., *A simple unified framework
for detecting out-of-distribution samples*, NeurIPS 2018), with the covariance of probabilistic
principal components (Tipping and Bishop, J. R. Statist. Soc. B 1999), which takes little room.
Features come in parts, such as the stages of a network; each is standardized on the training
recordings, and the greatest counts. The result is the share of them that lie closer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from src.utils import Float64Array

UNLIKE_FROM = 0.99
"""Share of the training recordings that lie closer, from which a recording is noted."""

MIN_RECORDS = 4
"""Fewest recordings that can be summed up."""

_MAX_COMPONENTS = 128
# Share of the mean variance that is added to each, so that no direction counts without limit
_SHRINKAGE = 0.01
_N_QUANTILES = 1001
_MAX_FEATURES = 16_384
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the features of the training recordings.

    Attributes
    ----------
    mean, scale
        Mean and standard deviation of each feature, shape (n_features,).
    basis
        Principal components of the standardized features, shape (n_features, n_components).
    variances
        Their variances, and last the mean variance of all that they leave, (n_components + 1,).
    log_mean, log_std
        Mean and standard deviation of the logarithm of the squared distance.
    """

    mean: Float64Array
    scale: Float64Array
    basis: Float64Array
    variances: Float64Array
    log_mean: float = 0.0
    log_std: float = 1.0

    @classmethod
    def fit(cls, features: Float64Array, others: Float64Array) -> Part:
        """Summarize features (n_records, n_features); `others` give the distances to expect."""
        mean, spread = features.mean(axis=0), features.std(axis=0)
        # A feature that never changes tells nothing of a size that does.
        scale = spread + 1e-3 * spread.mean() + _TINY
        covariance = np.cov((features - mean) / scale, rowvar=False).reshape(2 * [len(mean)])
        variances, vectors = np.linalg.eigh(covariance)
        variances = np.maximum(variances, 0) + _SHRINKAGE * max(variances.mean(), _TINY)
        n_kept = min(len(mean), _MAX_COMPONENTS)
        rest = variances[:-n_kept].mean() if n_kept < len(mean) else 1.0
        kept = np.append(variances[-n_kept:], rest)
        # In the precision of a checkpoint, so that one that is loaded measures the same.
        part = cls(
            _as_saved(mean), _as_saved(scale), _as_saved(vectors[:, -n_kept:]), _as_saved(kept)
        )
        logs = part._log_distance(others)
        log_mean, log_std = _as_saved(np.array([logs.mean(), logs.std() + _TINY])).tolist()
        return replace(part, log_mean=log_mean, log_std=log_std)

    def measure(self, features: Float64Array) -> Float64Array:
        """Return the standardized distances of features (n_records, n_features), (n_records,)."""
        distances: Float64Array = (self._log_distance(features) - self.log_mean) / self.log_std
        return distances

    def _log_distance(self, features: Float64Array) -> Float64Array:
        standardized = (features - self.mean) / self.scale
        along = (standardized @ self.basis) ** 2
        rest = np.maximum((standardized**2).sum(axis=1) - along.sum(axis=1), 0)
        squared = (along / self.variances[:-1]).sum(axis=1)
        if self.basis.shape[1] < self.basis.shape[0]:
            squared = squared + rest / self.variances[-1]
        logs: Float64Array = np.log(squared + _TINY)
        return logs


@dataclass(frozen=True, eq=False)
class Reference:
    """The training recordings in short, as a checkpoint holds them.

    Attributes
    ----------
    parts
        A summary of each part of the features.
    quantiles
        Evenly spaced quantiles of the greatest standardized distance, shape (n_quantiles,).
    n_records
        Number of the recordings.
    """

    parts: tuple[Part, ...]
    quantiles: Float64Array
    n_records: int

    @classmethod
    def fit(cls, features: Float64Array, sizes: Sequence[int]) -> Reference:
        """Summarize features (n_records, n_features) whose parts have `sizes`.

        Every other record is one of those whose distances are to be expected, since those that the
        components were fitted to lie closer than new ones.

        Raises
        ------
        ValueError
            If there are fewer than four records, or features are not finite.
        """
        if len(features) < MIN_RECORDS or not np.isfinite(features).all():
            raise ValueError(
                f"{len(features)} records to summarize: expected {MIN_RECORDS} or more, of finite "
                "features"
            )
        pairs = zip(_split(features[::2], sizes), _split(features[1::2], sizes), strict=True)
        parts = tuple(Part.fit(values, others) for values, others in pairs)
        distances = _measure(parts, features[1::2])
        quantiles = np.quantile(distances, np.linspace(0, 1, _N_QUANTILES))
        return cls(parts, _as_saved(quantiles), len(features))

    @property
    def n_features(self) -> int:
        """Number of features of all parts."""
        return sum(len(part.mean) for part in self.parts)

    def rank(self, features: Float64Array) -> Float64Array:
        """Return the share of the training recordings that lie closer, shape (n_records,).

        Parameters
        ----------
        features
            Shape (n_records, n_features).
        """
        distances = _measure(self.parts, features)
        places = np.searchsorted(self.quantiles, distances, side="right") - 1
        shares: Float64Array = np.clip(places, 0, None) / (len(self.quantiles) - 1)
        return shares

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint saves, in single precision."""
        tensors = {"quantiles": self.quantiles, "n_records": np.array([self.n_records])}
        for i, part in enumerate(self.parts):
            logs = np.array([part.log_mean, part.log_std])
            arrays = (part.mean, part.scale, part.basis, part.variances, logs)
            tensors |= {f"{i}.{name}": each for name, each in zip(_NAMES, arrays, strict=True)}
        return {
            name: torch.from_numpy(np.ascontiguousarray(values, np.float32))
            for name, values in tensors.items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, object]) -> Reference:
        """Read what `to_tensors` returned.

        Raises
        ------
        ValueError
            If tensors are missing, of other shapes, or not finite.
        """
        arrays = {name: _to_array(name, value) for name, value in tensors.items()}
        n_parts, rest = divmod(len(arrays) - 2, len(_NAMES))
        names = {f"{i}.{name}" for i in range(n_parts) for name in _NAMES}
        if rest or n_parts < 1 or arrays.keys() != names | {"quantiles", "n_records"}:
            raise ValueError("reference: expected quantiles, n_records and parts of features")
        parts = tuple(
            _read_part(*(arrays[f"{i}.{name}"] for name in _NAMES)) for i in range(n_parts)
        )
        quantiles, n_records = arrays["quantiles"], arrays["n_records"]
        is_sorted = quantiles.ndim == 1 and len(quantiles) > 1 and (np.diff(quantiles) >= 0).all()
        if not is_sorted or n_records.shape != (1,):
            raise ValueError(
                "reference: expected two or more quantiles in order, and one n_records"
            )
        return cls(parts, quantiles, int(n_records[0]))


_NAMES = ("mean", "scale", "basis", "variances", "logs")


def _as_saved(values: Float64Array) -> Float64Array:
    return values.astype(np.float32).astype(np.float64)


def _split(features: Float64Array, sizes: Sequence[int]) -> list[Float64Array]:
    return np.split(features.astype(np.float64), np.cumsum(sizes)[:-1], axis=1)


def _measure(parts: Sequence[Part], features: Float64Array) -> Float64Array:
    """Return the greatest standardized distance over the parts, shape (n_records,)."""
    values = _split(features, [len(part.mean) for part in parts])
    distances = [part.measure(each) for part, each in zip(parts, values, strict=True)]
    greatest: Float64Array = np.max(distances, axis=0)
    return greatest


def _to_array(name: str, value: object) -> Float64Array:
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        raise ValueError(f"reference: {name[:60]!r} is no plain tensor")
    array: Float64Array = value.detach().cpu().double().numpy()
    if not np.isfinite(array).all():
        raise ValueError(f"reference: {name[:60]!r} is not finite")
    return array


def _read_part(
    mean: Float64Array,
    scale: Float64Array,
    basis: Float64Array,
    variances: Float64Array,
    logs: Float64Array,
) -> Part:
    n_features, n_components = basis.shape if basis.ndim == 2 else (0, 0)
    fits = (
        0 < n_components <= n_features <= _MAX_FEATURES
        and mean.shape == scale.shape == (n_features,)
        and variances.shape == (n_components + 1,)
        and logs.shape == (2,)
    )
    if not fits or not ((scale > 0).all() and (variances > 0).all() and logs[1] > 0):
        raise ValueError("reference: the parts do not fit together")
    return Part(mean, scale, basis, variances, float(logs[0]), float(logs[1]))
