"""Networks of others that training speed is compared with, built here after their papers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv_norm(
    n_in: int, n_out: int, kernel: int, stride: int = 1, act: bool = True
) -> nn.Sequential:
    """Return convolution and batch norm, with a ReLU behind them where `act`."""
    layers = [
        nn.Conv1d(n_in, n_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm1d(n_out),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))


class Bottleneck(nn.Module):
    """A residual block of a narrow convolution between two of width 1, pooled before its shortcut
    where it strides.
    """

    def __init__(self, n_in: int, width: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            conv_norm(n_in, width, 1),
            conv_norm(width, width, 5, stride),
            conv_norm(width, n_out, 1, act=False),
        )
        pool = [nn.AvgPool1d(2, ceil_mode=True)] if stride > 1 else []
        self.shortcut = nn.Sequential(
            *pool, *([conv_norm(n_in, n_out, 1, act=False)] if n_in != n_out else [])
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block of x (B, n_in, T)."""
        out: Tensor = self.act(self.path(x) + self.shortcut(x))
        return out


class XResNet1d101(nn.Module):
    """The network of the PTB-XL benchmark that does best on all its statements (Strodthoff et al.,
    IEEE JBHI 25:1519, 2021).

    An xresnet (He et al., CVPR 2019) of 3, 4, 23 and 3 bottlenecks, all 64 wide and 256 out, with
    kernels of 5 samples.
    """

    def __init__(self, n_leads: int, n_classes: int) -> None:
        super().__init__()
        stem = [
            conv_norm(n_leads, 32, 5, 2),
            conv_norm(32, 32, 5),
            conv_norm(32, 64, 5),
            nn.MaxPool1d(3, 2, 1),
        ]
        blocks, n_in = [], 64
        for stage, depth in enumerate((3, 4, 23, 3)):
            for number in range(depth):
                blocks.append(Bottleneck(n_in, 64, 256, 2 if stage and not number else 1))
                n_in = 256
        self.body = nn.Sequential(*stem, *blocks)
        self.average, self.highest = nn.AdaptiveAvgPool1d(1), nn.AdaptiveMaxPool1d(1)
        hidden = [
            nn.BatchNorm1d(512),
            nn.Dropout(0.25),
            nn.Linear(512, 128, bias=False),
            nn.ReLU(inplace=True),
        ]
        self.head = nn.Sequential(
            nn.Flatten(), *hidden, nn.BatchNorm1d(128), nn.Dropout(0.5), nn.Linear(128, n_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, n_classes) of x (B, n_leads, T)."""
        seen = self.body(x)
        logits: Tensor = self.head(torch.cat([self.average(seen), self.highest(seen)], dim=1))
        return logits
