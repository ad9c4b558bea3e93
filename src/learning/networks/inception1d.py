"""`Inception1d`: InceptionTime, convolutions of several lengths side by side.

A module of InceptionTime (Ismail Fawaz et al., 2020) narrows its input to 32 channels, convolves
them with long, middle and short kernels, and puts the results beside those of a pool of 3 samples.
Six modules follow each other without a stride, and every third adds a shortcut. The paper averages
the outputs of five such networks; this is one of them. With 12 leads and 5 classes it has 0.47
million parameters.

References
----------
Ismail Fawaz, Lucas, Forestier, Pelletier, Schmidt, Weber, Webb, Idoumghar, Muller, Petitjean:
InceptionTime: finding AlexNet for time series classification. Data Min Knowl Disc 34, 2020
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.learning.layers import MaxPool1d
from src.learning.networks.checks import check_outside, check_signal, check_whole

# Odd kernels have a middle: the paper's 40, 20 and 10 samples, less one.
_KERNELS = (39, 19, 9)

# Modules between two shortcuts
_SPAN = 3


def _convolution(n_in: int, n_out: int, kernel: int) -> nn.Conv1d:
    """Return a convolution without bias that keeps the length; `kernel` is odd."""
    return nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2, bias=False)


class InceptionModule(nn.Module):
    """Convolutions of several lengths and a pool; maps (B, n_in, L) to (B, 4 width, L)."""

    def __init__(self, n_in: int, width: int, bottleneck: int) -> None:
        super().__init__()
        # A single lead is narrow enough.
        n_narrow = bottleneck if n_in > 1 else 1
        self.bottleneck = _convolution(n_in, n_narrow, 1) if n_in > 1 else nn.Identity()
        self.convolutions = nn.ModuleList(
            [_convolution(n_narrow, width, kernel) for kernel in _KERNELS]
        )
        self.pool = nn.Sequential(MaxPool1d(stride=1), _convolution(n_in, width, 1))
        self.norm = nn.BatchNorm1d(width * (len(_KERNELS) + 1))
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B, 4 width, L) of (B, n_in, L)."""
        narrow = self.bottleneck(x)
        branches = [convolution(narrow) for convolution in self.convolutions]
        joined = torch.cat([*branches, self.pool(x)], dim=1)
        features: Tensor = self.activation(self.norm(joined))
        return features


class InceptionBlock(nn.Module):
    """Three modules and a shortcut; maps (B, n_in, L) to (B, 4 width, L)."""

    def __init__(self, n_in: int, width: int, bottleneck: int) -> None:
        super().__init__()
        n_out = width * (len(_KERNELS) + 1)
        widths = [n_in, *[n_out] * (_SPAN - 1)]
        self.body = nn.Sequential(*(InceptionModule(n, width, bottleneck) for n in widths))
        self.shortcut = nn.Sequential(_convolution(n_in, n_out, 1), nn.BatchNorm1d(n_out))
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B, 4 width, L) of (B, n_in, L)."""
        features: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return features


class Inception1d(nn.Module):
    """Map a multi-lead ECG to class logits by InceptionTime.

    Parameters
    ----------
    n_leads
        Input leads, 1 to 4096.
    n_classes
        Output classes, 1 to 65536.
    width
        Channels of each of the four branches of a module, 1 to 1024.
    depth
        Number of modules: a multiple of 3, 3 to 96.
    bottleneck
        Channels that the convolutions of a module read, 1 to 1024.

    Raises
    ------
    ValueError
        If an argument is none of these.

    Notes
    -----
    Input (B, n_leads, n_samples) with n_samples of 39 or more, the longest kernel; output (B,
    n_classes). No layer strides, so the time of a step is that of all samples.
    """

    min_samples = max(_KERNELS)

    def __init__(
        self,
        n_leads: int = 12,
        n_classes: int = 5,
        width: int = 32,
        depth: int = 6,
        bottleneck: int = 32,
    ) -> None:
        super().__init__()
        check_outside(n_leads, n_classes)
        check_whole("width", width, 1, 1024)
        check_whole("depth", depth, _SPAN, 96)
        if depth % _SPAN:
            raise ValueError(f"depth is {depth}: expected a multiple of {_SPAN}")
        check_whole("bottleneck", bottleneck, 1, 1024)
        self.n_leads = n_leads
        self.n_classes = n_classes
        n_features = width * (len(_KERNELS) + 1)
        n_inputs = [n_leads, *[n_features] * (depth // _SPAN - 1)]
        self.body = nn.Sequential(*(InceptionBlock(n, width, bottleneck) for n in n_inputs))
        self.head = nn.Linear(n_features, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the features (B, 4 width) of signals (B, n_leads, n_samples): means over time.

        Raises
        ------
        ValueError
            If `x` has another shape, or fewer than 39 samples.
        """
        check_signal(x, self.n_leads, self.min_samples)
        means: Tensor = self.body(x).mean(dim=2)
        return means

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, n_classes) for signals (B, n_leads, n_samples)."""
        logits: Tensor = self.head(self.features(x))
        return logits
