"""`XResNet1d101`: the network of the PTB-XL benchmark that does best on all its statements.

An xresnet ("Bag of tricks", He et al., CVPR 2019) of 101 layers over time, as Strodthoff et al.
(IEEE JBHI 25:1519, 2021) built it: 3, 4, 23 and 3 bottlenecks, all 64 channels wide and 256 out,
with kernels of 5 samples. With 12 leads and 5 classes it has 1.87 million parameters.

References
----------
Strodthoff, Wagner, Schaeffter, Samek: Deep learning for ECG analysis: benchmarks and insights from
PTB-XL. IEEE J Biomed Health Inform 25(5), 2021
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.learning.layers import MaxPool1d
from src.learning.networks.checks import (
    check_dropout,
    check_outside,
    check_signal,
    check_whole,
)

# Bottlenecks of each stage; all stages but the first halve the rate.
_DEPTHS = (3, 4, 23, 3)
_WIDTH = 64
_EXPANSION = 4
_KERNEL = 5

# Stem, pool and three stages halve the rate: the last stage needs one sample of 32.
_MIN_SAMPLES = 32


def _conv_norm(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias and a batch norm, whose bias serves both."""
    convolution = nn.Conv1d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(n_out))


def _conv_norm_relu(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return `_conv_norm` and a ReLU."""
    return _conv_norm(n_in, n_out, kernel, stride).append(nn.ReLU(inplace=True))


class Bottleneck(nn.Module):
    """Three convolutions, narrow in the middle, and a shortcut.

    It maps (B, n_in, L) to (B, n_out, L / stride), rounded up; the shortcut averages before it
    projects.
    """

    def __init__(self, n_in: int, width: int, n_out: int, stride: int) -> None:
        super().__init__()
        last = _conv_norm(width, n_out, 1)
        # The block starts as its shortcut (Goyal et al., 2017).
        nn.init.zeros_(last[1].weight)  # type: ignore[arg-type]
        self.body = nn.Sequential(
            _conv_norm_relu(n_in, width, 1),
            _conv_norm_relu(width, width, _KERNEL, stride),
            last,
        )
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.AvgPool1d(stride, ceil_mode=True))
        if n_in != n_out:
            self.shortcut.append(_conv_norm(n_in, n_out, 1))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B, n_out, L / stride) of (B, n_in, L)."""
        out: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return out


def _stages() -> nn.Sequential:
    """Return the bottlenecks; they map (B, 64, L) to (B, 256, L / 8)."""
    n_in, n_out = _WIDTH, _WIDTH * _EXPANSION
    blocks = nn.Sequential()
    for stage, depth in enumerate(_DEPTHS):
        for number in range(depth):
            stride = 2 if stage > 0 and number == 0 else 1
            blocks.append(Bottleneck(n_in, _WIDTH, n_out, stride))
            n_in = n_out
    return blocks


class XResNet1d101(nn.Module):
    """Map a multi-lead ECG to class logits by an xresnet of 101 layers.

    Parameters
    ----------
    n_leads
        Input leads, 1 to 4096.
    n_classes
        Output classes, 1 to 65536.
    dropout
        Share of the features dropped before the last layer; half of it is dropped before the layer
        ahead of that.
    n_hidden
        Width of the layer before the last one, 1 to 4096.

    Raises
    ------
    ValueError
        If an argument is none of these.

    Notes
    -----
    Input (B, n_leads, n_samples) with n_samples of 32 or more; output (B, n_classes). Published
    training: crops of 2.5 s at 100 Hz, batches of 128, 50 epochs of one cycle up to a rate of 1e-2,
    weight decay 1e-2.
    """

    min_samples = _MIN_SAMPLES

    def __init__(
        self, n_leads: int = 12, n_classes: int = 5, dropout: float = 0.5, n_hidden: int = 128
    ) -> None:
        super().__init__()
        check_outside(n_leads, n_classes)
        check_dropout("dropout", dropout)
        check_whole("n_hidden", n_hidden, 1, 4096)
        self.n_leads = n_leads
        self.n_classes = n_classes
        self.body = nn.Sequential(
            _conv_norm_relu(n_leads, 32, _KERNEL, stride=2),
            _conv_norm_relu(32, 32, _KERNEL),
            _conv_norm_relu(32, _WIDTH, _KERNEL),
            MaxPool1d(stride=2),
            *_stages(),
        )
        n_pooled = 2 * _WIDTH * _EXPANSION  # maximum and mean
        self.hidden = nn.Sequential(
            nn.BatchNorm1d(n_pooled),
            nn.Dropout(dropout / 2),
            nn.Linear(n_pooled, n_hidden),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(n_hidden),
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(n_hidden, n_classes))
        self.apply(_initialise)

    def features(self, x: Tensor) -> Tensor:
        """Return the features (B, n_hidden) of signals (B, n_leads, n_samples).

        Raises
        ------
        ValueError
            If `x` has another shape, or fewer than 32 samples.
        """
        check_signal(x, self.n_leads, self.min_samples)
        out = self.body(x)  # (B, 256, n_samples / 32)
        pooled = torch.cat([out.amax(dim=2), out.mean(dim=2)], dim=1)  # (B, 512)
        features: Tensor = self.hidden(pooled)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, n_classes) for signals (B, n_leads, n_samples)."""
        logits: Tensor = self.head(self.features(x))
        return logits


def _initialise(module: nn.Module) -> None:
    """Use He et al. (ICCV 2015) for all weights, and no bias."""
    # Without values there is nothing to draw, and PyTorch would load its compiler for it.
    if isinstance(module, nn.Conv1d | nn.Linear) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
