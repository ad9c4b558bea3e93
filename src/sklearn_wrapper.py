"""The network as a scikit-learn estimator, for cross-validation, searches and pipelines."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch.utils.data import Dataset

from src.config import LoaderConfig, TrainConfig
from src.dataloaders import make_loader, sample_weights
from src.learning.losses import make_loss
from src.learning.optimization import start_training
from src.learning.predictions import DEFAULT_THRESHOLD
from src.model import MIN_SAMPLES, ResNet1d, predict_logits, to_scores
from src.processed.datasets import Batch, draw_starts
from src.training import check_finite, train_epoch
from src.utils import Float32Array, Float64Array, device_info

# A lead whose standard deviation (in the unit of X) is up to this stays 0, as in record files.
_FLAT = 1e-6


class ECGClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """`src.model.ResNet1d` with ``fit(X, y)``, ``predict_proba(X)`` and ``predict(X)``.

    X has the shape (n_records, n_leads, n_samples): any leads, 250 samples or more, all finite. y
    has one label per record, as numbers or strings. For several labels it has the shape (n_records,
    n_classes): 1 present, 0 absent, NaN unknown. There is no validation and no early stopping:
    cross-validation evaluates the last epoch.

    Parameters
    ----------
    epochs, lr, weight_decay, label_smoothing, mixup
        As in `src.config.TrainConfig`.
    batch_size, balanced_sampling
        As in `src.config.LoaderConfig`.
    base_channels, dropout
        As in `src.config.ModelConfig`.
    crop_samples
        Train on random crops of this length and average overlapping ones when predicting; 0 uses
        whole records.
    standardize
        Scale each lead of each record to mean 0 and standard deviation 1 first.
    device
        auto, cpu, cuda, cuda:N or mps.
    random_state
        Seed of weights, order and augmentation. The global state of torch is not changed.

    Attributes
    ----------
    classes_
        Labels in the order of the columns of `predict_proba`; with several labels per record, the
        column numbers of y.
    single_label_
        Whether each record carries one label.
    n_leads_in_
        Number of leads of X.
    model_
        The network, on the CPU.
    losses_
        Training loss of each epoch.
    """

    def __init__(
        self,
        epochs: int = 30,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        batch_size: int = 64,
        balanced_sampling: bool = False,
        base_channels: int = 64,
        dropout: float = 0.2,
        crop_samples: int = 0,
        standardize: bool = True,
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.epochs = epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.batch_size = batch_size
        self.balanced_sampling = balanced_sampling
        self.base_channels = base_channels
        self.dropout = dropout
        self.crop_samples = crop_samples
        self.standardize = standardize
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike) -> ECGClassifier:  # noqa: N803  scikit-learn's name
        """Train a new network.

        Raises
        ------
        ValueError
            If shapes disagree, a sample is not finite, or there are fewer than two records or
            classes.
        """
        signals = self._check_signals(X)
        encoded = _encode(y, len(signals))
        config = TrainConfig(
            epochs=self.epochs,
            lr=self.lr,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            mixup=self.mixup,
            compile="off",
        )
        device = device_info(self.device).device
        with torch.random.fork_rng():
            torch.manual_seed(self.random_state)
            model = ResNet1d(
                signals.shape[1], len(encoded.classes), self.base_channels, self.dropout
            )
            self.losses_ = self._train(model.to(device), signals, encoded, config, device)
        self.classes_ = encoded.classes
        self.single_label_ = encoded.single_label
        self.n_leads_in_ = signals.shape[1]
        self.model_ = model.eval().cpu()
        return self

    def _train(
        self,
        model: ResNet1d,
        signals: Float32Array,
        encoded: _EncodedLabels,
        config: TrainConfig,
        device: str,
    ) -> list[float]:
        """Train `model` and return the loss of each epoch."""
        loader = make_loader(
            _ArrayDataset(signals, encoded.targets, self.crop_samples),
            LoaderConfig(batch_size=self.batch_size),
            weights=sample_weights(encoded.targets) if self.balanced_sampling else None,
            train=True,
            seed=self.random_state,
        )
        state = start_training(model, len(loader), config)
        loss_fn = make_loss(encoded.single_label, config.label_smoothing)
        shape = (signals.shape[1], MIN_SAMPLES)
        losses = []
        for _ in range(config.epochs):
            losses.append(train_epoch(state, loader, loss_fn, config, device=device))
            check_finite(losses[-1], state, shape)
        return losses

    def predict_proba(self, X: ArrayLike) -> Float64Array:  # noqa: N803
        """Return probabilities (n_records, n_classes).

        They are a softmax with one label per record, else a sigmoid for each class.

        Raises
        ------
        ValueError
            If the shape does not fit, or a sample is not finite.
        NotFittedError
            Before `fit`.
        """
        check_is_fitted(self, "model_")
        signals = self._check_signals(X)
        if signals.shape[1] != self.n_leads_in_:
            raise ValueError(
                f"X has {signals.shape[1]} leads: expected {self.n_leads_in_}, as in fit"
            )
        device = device_info(self.device).device
        model = self.model_.to(device)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(signals), self.batch_size):
                batch = torch.from_numpy(signals[start : start + self.batch_size]).to(device)
                parts.append(predict_logits(model, batch, self.crop_samples).cpu())
        self.model_.cpu()
        return to_scores(torch.cat(parts), self.single_label_)

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable label of each record, shape (n_records,).

        With several labels per record, return 1 and 0 of shape (n_records, n_classes).
        """
        scores = self.predict_proba(X)
        if self.single_label_:
            labels: NDArray[Any] = self.classes_[scores.argmax(axis=1)]
            return labels
        return (scores >= DEFAULT_THRESHOLD).astype(np.int64)

    def _check_signals(self, X: ArrayLike) -> Float32Array:  # noqa: N803
        """Return X as contiguous single precision, standardized if set.

        Raises
        ------
        ValueError
            If the shape, the crops or a sample is impossible.
        """
        signals = np.asarray(X, np.float32)
        if signals.ndim != 3 or not len(signals) or signals.shape[2] < MIN_SAMPLES:
            raise ValueError(
                f"X has shape {signals.shape}: expected (n_records, n_leads, "
                f"{MIN_SAMPLES} samples or more)"
            )
        if self.crop_samples and self.crop_samples < MIN_SAMPLES:
            raise ValueError(
                f"crop_samples is {self.crop_samples}: expected 0, or {MIN_SAMPLES} or more"
            )
        if not np.isfinite(signals).all():
            raise ValueError(
                "X holds samples that are not finite: fill missing samples, or drop their records"
            )
        if not self.standardize:
            return np.ascontiguousarray(signals)
        centred = signals - signals.mean(axis=2, keepdims=True)
        spread = centred.std(axis=2, keepdims=True)
        standard: Float32Array = np.divide(
            centred, spread, out=np.zeros_like(centred), where=spread > _FLAT
        )
        return standard


class _ArrayDataset(Dataset[Batch]):
    """A dataset over records in memory; each access draws a new crop."""

    def __init__(self, signals: Float32Array, targets: Float32Array, crop_samples: int) -> None:
        self.signals = torch.from_numpy(signals)
        self.targets = torch.from_numpy(targets)
        n_samples = self.signals.shape[2]
        self.crop_samples = crop_samples if crop_samples < n_samples else 0

    def __len__(self) -> int:
        return len(self.signals)

    def __getitems__(self, indices: list[int]) -> Batch:
        signal = self.signals[indices]  # (B, n_leads, n_samples)
        size, n_samples = self.crop_samples, signal.shape[2]
        if size:
            starts = draw_starts(torch.full((len(signal),), n_samples), size, n_samples)
            columns = starts[:, None, None] + torch.arange(size)  # (B, 1, size)
            signal = signal.gather(2, columns.expand(-1, signal.shape[1], -1))
        return Batch(signal, self.targets[indices], torch.tensor(indices))


class _EncodedLabels(NamedTuple):
    """The labels y of an estimator as targets."""

    targets: Float32Array
    """Shape (n_records, n_classes)."""
    classes: NDArray[Any]
    """Shape (n_classes,): labels, or the column numbers of several."""
    single_label: bool


def _encode(y: ArrayLike, n_records: int) -> _EncodedLabels:
    """Return labels as targets.

    Raises
    ------
    ValueError
        If `y` has another shape, other values, or fewer than two classes.
    """
    labels = np.asarray(y)
    if labels.ndim not in (1, 2) or len(labels) != n_records:
        raise ValueError(
            f"y has shape {labels.shape}: expected ({n_records},) labels or ({n_records}, "
            "n_classes) columns of 0 and 1"
        )
    if n_records < 2:
        raise ValueError("there is one record: expected two or more to train on")
    return _encode_columns(labels) if labels.ndim == 2 else _encode_classes(labels)


def _encode_columns(labels: NDArray[Any]) -> _EncodedLabels:
    """Return the targets of several labels per record, given as a column for each class."""
    if not labels.shape[1]:
        raise ValueError("y has no column: expected one of 0 and 1 for each class")
    targets = labels.astype(np.float32)
    if not (np.isnan(targets) | (targets == 0) | (targets == 1)).all():
        raise ValueError(
            "y holds other values than 0, 1 and NaN: expected a column of these for each class"
        )
    return _EncodedLabels(targets, np.arange(labels.shape[1]), single_label=False)


def _encode_classes(labels: NDArray[Any]) -> _EncodedLabels:
    """Return the one-hot targets of one label per record."""
    if labels.dtype.kind == "f":
        is_whole = np.isfinite(labels) & np.equal(labels, np.floor(labels))
        if not is_whole.all():
            # scikit-learn's checks look for the first three words.
            raise ValueError(
                "Unknown label type: y holds fractions or NaN: expected a class per record"
            )
    try:
        classes, column = np.unique(labels, return_inverse=True)
    except TypeError:
        raise ValueError(
            "y holds None, or labels of several types: expected a class per record"
        ) from None
    if len(classes) < 2:
        raise ValueError(f"y holds one class, {classes[0]!r}: expected two or more")
    targets = np.eye(len(classes), dtype=np.float32)[column]
    return _EncodedLabels(targets, classes, single_label=True)
