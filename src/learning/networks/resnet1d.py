"""`ResNet1d`: a residual network over leads and time, sized for laptops.

The residual block is that of He et al. (CVPR 2016) with GELU (Hendrycks and Gimpel, 2016) for ReLU;
the shortcut averages before it projects, as in "Bag of tricks" (He et al., CVPR 2019), and the head
concatenates mean and maximum over time as in the ECG networks of Strodthoff et al. (IEEE JBHI
2021).
"""

from __future__ import annotations

import torch
from torch import nn

from src.learning.layers import GELU, AvgPool1d, BatchNorm1d, Conv1d
from src.learning.networks.checks import check_flag
from src.learning.networks.rhythm import RhythmFeatures

MIN_SAMPLES = 250


def conv_norm(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias and a batch norm, whose bias serves both."""
    return nn.Sequential(Conv1d(n_in, n_out, kernel, stride), BatchNorm1d(n_out))


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; maps (B, n_in, L) to (B, n_out, L / stride)."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_norm(n_in, n_out, kernel, stride),
            GELU(),
            conv_norm(n_out, n_out, kernel),
        )
        last_norm = self.body[2][1]  # type: ignore[index]
        assert isinstance(last_norm, BatchNorm1d)
        # The block starts as its shortcut (Goyal et al., 2017).
        nn.init.zeros_(last_norm.weight)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(AvgPool1d(stride))
        if n_in != n_out:
            self.shortcut.append(conv_norm(n_in, n_out, 1))
        self.activation = GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (B, n_out, L / stride) of (B, n_in, L)."""
        out: torch.Tensor = self.activation(self.body(x) + self.shortcut(x))
        return out


class RRFeatures(nn.Module):
    """Features of the RR intervals around a beat, from seconds (B, 11) to (B, 64).

    Their logarithms, as shares of the record's median and of their mean beside the beat, tell a
    premature beat at any heart rate (cf. de Chazal et al., IEEE TBME 2004).
    """

    n_intervals = 11
    n_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(3 * (self.n_intervals - 1), 64),
            nn.GELU(),
            nn.Linear(64, self.n_features),
            nn.GELU(),
        )

    def forward(self, rr: torch.Tensor) -> torch.Tensor:
        """Return the features (B, 64) of RR intervals (B, 11), the record's median last."""
        intervals, median = rr[:, :-1], rr[:, -1:]  # (B, 10), (B, 1)
        is_known = (intervals > 0) & (median > 0)
        ratios = torch.where(is_known, intervals / median.clamp(min=1e-3), 1.0)
        logs = ratios.clamp(0.1, 10.0).log()
        beside = logs - logs.mean(dim=1, keepdim=True)
        features: torch.Tensor = self.body(
            torch.cat([logs, beside, is_known.to(logs.dtype)], dim=1)  # (B, 30)
        )
        return features


class ResNet1d(nn.Module):
    """Map a multi-lead ECG to class logits.

    Parameters
    ----------
    n_leads
        Input leads.
    n_classes
        Output classes.
    base_channels
        Unit of width: the four stages have 3/4, 3/2, 3 and 9/2 times as many channels. 64 gives 1.4
        million parameters.
    dropout
        Share of features dropped before the classifier.
    lead_mask
        Tell the network which leads are absent (zero throughout): each absent lead adds a trained
        value to every channel of the stem.
    rr_intervals
        Give the classifier the RR intervals around the beat as well, as shares of the record's
        median. The network then needs windows around beats.
    rhythm_fs
        Sampling rate of the input in Hz; the classifier then gets measurements of the rhythm too
        (`src.learning.networks.rhythm`). 0 gives none.
    late_pool
        Pool after the first block instead of before it. The block then sees twice the rate, and the
        network takes a third longer.

    Raises
    ------
    ValueError
        If there is no lead, no class or no channel, or `rhythm_fs` is neither 0 nor 50 to 4000 Hz.

    Notes
    -----
    Input (B, n_leads, n_samples) with n_samples of 250 or more; output (B, n_classes). The stem
    halves the sampling rate and the pool after it halves it again, and the early stages are narrow.
    Most weights therefore work on few samples, which makes the network fast. At 100 Hz a stem that
    quartered the rate at once lost accuracy.
    """

    min_samples = MIN_SAMPLES

    def __init__(
        self,
        n_leads: int = 12,
        n_classes: int = 5,
        base_channels: int = 64,
        dropout: float = 0.2,
        lead_mask: bool = False,
        rr_intervals: bool = False,
        rhythm_fs: float = 0,
        late_pool: bool = False,
    ) -> None:
        super().__init__()
        is_rate = isinstance(rhythm_fs, float | int) and not isinstance(rhythm_fs, bool)
        if not is_rate or (rhythm_fs and not 50 <= rhythm_fs <= 4000):
            raise ValueError(f"rhythm_fs is {rhythm_fs!r}: expected 0, or a rate of 50 to 4000 Hz")
        check_flag("late_pool", late_pool)
        sizes = {"n_leads": n_leads, "n_classes": n_classes, "base_channels": base_channels}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} is {value}: expected 1 or more")
        self.n_leads = n_leads
        self.n_classes = n_classes
        self.base_channels = base_channels
        widths = [round(base_channels * factor) for factor in (0.75, 1.5, 3, 4.5)]
        self.stem = conv_norm(n_leads, widths[0], kernel=11, stride=2)
        self.lead_mask = nn.Linear(n_leads, widths[0]) if lead_mask else None
        first = [AvgPool1d(2), ResidualBlock(widths[0], widths[0], kernel=7)]
        self.stages = nn.Sequential(
            GELU(),
            *(reversed(first) if late_pool else first),
            ResidualBlock(widths[0], widths[1], kernel=7, stride=2),
            ResidualBlock(widths[1], widths[2], kernel=5, stride=2),
            ResidualBlock(widths[2], widths[3], kernel=3, stride=2),
            ResidualBlock(widths[3], widths[3], kernel=3),
        )
        self.takes_rr = rr_intervals
        self.rr = RRFeatures() if rr_intervals else None
        self.input_fs = rhythm_fs or None
        self.rhythm = RhythmFeatures(rhythm_fs) if rhythm_fs else None
        n_features = 2 * widths[3]
        n_features += RRFeatures.n_features if rr_intervals else 0
        n_features += RhythmFeatures.n_features if rhythm_fs else 0
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(n_features, n_classes))
        self._initialise()

    def _initialise(self) -> None:
        """Use He et al. (ICCV 2015) for the convolutions, and small weights for the classifier."""
        classifier = self.head[1]
        assert isinstance(classifier, nn.Linear)
        # Without values there is nothing to draw, and PyTorch would load its compiler for it.
        if classifier.weight.is_meta:
            return
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.trunc_normal_(classifier.weight, std=0.01)
        nn.init.zeros_(classifier.bias)
        if self.lead_mask is not None:
            nn.init.zeros_(self.lead_mask.weight)
            nn.init.zeros_(self.lead_mask.bias)

    def early_features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return mean and spread over time of the stem and of the second block, (B, n) each.

        Later stages were trained to overlook what is wrong with a recording.
        """
        stem = self.stem(x)
        middle = self.stages[:4](self._note_absent_leads(stem, x))
        return [torch.cat([part.mean(dim=2), part.std(dim=2)], dim=1) for part in (stem, middle)]

    def _note_absent_leads(self, stem: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Add to the output of the stem what says which leads of the input are absent."""
        if self.lead_mask is None:
            return stem
        is_absent = (x == 0).all(dim=2).to(stem.dtype)  # (B, n_leads)
        noted: torch.Tensor = stem + self.lead_mask(is_absent)[:, :, None]
        return noted

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return mean and maximum over time of the last stage, (B, 9 base_channels).

        Those of the rhythm, (B, 32), follow where the network has them.

        Raises
        ------
        ValueError
            As for `forward`.
        """
        if x.ndim != 3 or x.shape[1] != self.n_leads or x.shape[2] < self.min_samples:
            raise ValueError(
                f"input has shape {tuple(x.shape)}: expected (batch, {self.n_leads} "
                f"leads, {self.min_samples} samples or more)"
            )
        stem = self.stem(x)  # (B, 3/4 base_channels, n_samples / 2)
        features = self.stages(
            self._note_absent_leads(stem, x)
        )  # (B, 9/2 base_channels, n_samples / 32)
        parts = [features.mean(dim=2), features.amax(dim=2)]
        if self.rhythm is not None:
            parts.append(self.rhythm(x))
        return torch.cat(parts, dim=1)

    def forward(self, x: torch.Tensor, rr: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits (B, n_classes) for signals (B, n_leads, n_samples).

        Parameters
        ----------
        x
            The signals.
        rr
            RR intervals (`src.learning.networks`); without them they count as unknown.

        Raises
        ------
        ValueError
            If `x` has another shape, or fewer than 250 samples.
        """
        features = self.features(x)
        if self.rr is not None:
            rr = x.new_zeros(len(x), RRFeatures.n_intervals) if rr is None else rr
            features = torch.cat([features, self.rr(rr)], dim=1)
        logits: torch.Tensor = self.head(features)
        return logits
