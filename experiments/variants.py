"""Variants of `ResNet1d` and of its loss that the experiment log compares.

Each is trained by the ordinary command, with ``--network experiments.variants:NAME`` or
``--loss experiments.variants:NAME``; experiments/README.md gives the commands and the scores.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.learning.checkpoints import load_checkpoint
from src.learning.losses import binary_cross_entropy
from src.learning.networks.resnet1d import ResidualBlock, ResNet1d
from src.learning.networks.s4 import S4Block


def _count_channels(layer: nn.Module) -> int:
    """Return the number of channels that a convolution with a batch norm gives."""
    norm = list(layer.children())[-1]
    assert isinstance(norm, nn.BatchNorm1d)
    return norm.num_features


class ChannelDropout(ResNet1d):
    """`ResNet1d` that drops whole channels of each block's output, as S4 does."""

    def __init__(
        self, n_leads: int, n_classes: int, channels: float = 0.1, lead_mask: bool = True
    ) -> None:
        super().__init__(n_leads, n_classes, lead_mask=lead_mask)
        for index, stage in enumerate(self.stages):
            if isinstance(stage, ResidualBlock):
                self.stages[index] = nn.Sequential(stage, nn.Dropout1d(channels))


class _LongFilter(nn.Module):
    """Add to each channel what a long filter of its own makes of it; starts as the identity."""

    def __init__(self, n_channels: int, kernel: int) -> None:
        super().__init__()
        self.filter = nn.Conv1d(
            n_channels, n_channels, kernel, padding=kernel // 2, groups=n_channels, bias=False
        )
        self.norm = nn.BatchNorm1d(n_channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_channels, L) for (B, n_channels, L)."""
        out: Tensor = x + self.norm(self.filter(x))
        return out


class LongKernels(ResNet1d):
    """`ResNet1d` with a long depthwise filter behind each of its first three blocks."""

    def __init__(
        self, n_leads: int, n_classes: int, kernel: int = 25, lead_mask: bool = True
    ) -> None:
        super().__init__(n_leads, n_classes, lead_mask=lead_mask)
        blocks = [i for i, stage in enumerate(self.stages) if isinstance(stage, ResidualBlock)]
        for index in blocks[:3]:
            block = self.stages[index]
            assert isinstance(block, ResidualBlock)
            last = block.body[2]  # type: ignore[index]
            assert isinstance(last, nn.Module)
            n_channels = _count_channels(last)
            self.stages[index] = nn.Sequential(block, _LongFilter(n_channels, kernel))


class _WithRhythm(ResNet1d):
    """`ResNet1d` with features of the whole recording beside its own.

    The features come from the first block, at a quarter of the sampling rate. The weights of the
    classifier for them begin at zero, so that a network that starts from a checkpoint of `ResNet1d`
    begins with its answers.
    """

    n_rhythm_features: int

    def __init__(
        self, n_leads: int, n_classes: int, start: str = "", lead_mask: bool = True
    ) -> None:
        super().__init__(n_leads, n_classes, lead_mask=lead_mask)
        self.n_channels = _count_channels(self.stem)
        self.kept: list[Tensor] = []
        self._build()
        classifier = self.head[1]
        assert isinstance(classifier, nn.Linear)
        n_own = classifier.in_features
        widened = nn.Linear(n_own + self.n_rhythm_features, n_classes)
        with torch.no_grad():
            widened.weight.zero_()
            widened.weight[:, :n_own] = classifier.weight
            widened.bias.copy_(classifier.bias)
        self.head[1] = widened
        if start:
            self._load(start, n_own)

    def _build(self) -> None:
        raise NotImplementedError

    def _rhythm(self, x: Tensor) -> Tensor:
        """Return features (B, n_rhythm_features) of (B, L, n_channels)."""
        raise NotImplementedError

    def _load(self, path: str, n_own: int) -> None:
        weights = dict(load_checkpoint(path).weights)
        state = self.state_dict()
        if weights["head.1.bias"].shape != state["head.1.bias"].shape:
            return  # a trial with another number of outputs
        state["head.1.weight"][:, :n_own] = weights.pop("head.1.weight")
        state.update(weights)
        self.load_state_dict(state)

    def features(self, x: Tensor) -> Tensor:
        """Return the features of `ResNet1d` and those of the rhythm."""
        features = self.stem(x)
        if self.lead_mask is not None:
            is_absent = (x == 0).all(dim=2).to(features.dtype)
            features = features + self.lead_mask(is_absent)[:, :, None]
        early = self.stages[:3](features)  # (B, n_channels, n_samples / 4)
        late = self.stages[3:](early)
        rhythm = self._rhythm(early.mT)
        return torch.cat([late.mean(dim=2), late.amax(dim=2), rhythm], dim=1)


class Recurrent(_WithRhythm):
    """`ResNet1d` with a bidirectional GRU over the output of its first block."""

    n_rhythm_features = 256

    def _build(self) -> None:
        self.recurrent = nn.GRU(self.n_channels, 64, batch_first=True, bidirectional=True)

    def _rhythm(self, x: Tensor) -> Tensor:
        out, _ = self.recurrent(x)
        return torch.cat([out.mean(dim=1), out.amax(dim=1)], dim=1)


class StateSpaces(_WithRhythm):
    """`ResNet1d` with two S4 blocks over the output of its first block."""

    n_rhythm_features = 128

    def _build(self) -> None:
        self.widen = nn.Linear(self.n_channels, self.n_rhythm_features)
        self.blocks = nn.Sequential(
            *(S4Block(self.n_rhythm_features, 8, 0.1, bidirectional=True) for _ in range(2))
        )

    def _rhythm(self, x: Tensor) -> Tensor:
        means: Tensor = self.blocks(self.widen(x)).mean(dim=1)
        return means


_SUPERCLASSES = (11, 17, 47, 68)
"""Columns of CD, HYP, MI and STTC among the 75 outputs; NORM is a statement too."""


def statements_alone(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return the binary cross-entropy of the statements alone, as the mean over them."""
    entries = binary_cross_entropy(logits, target, known)
    counted = known.clone()
    counted[:, list(_SUPERCLASSES)] = False
    return (entries * counted).sum() / counted.sum().clamp(min=1)
