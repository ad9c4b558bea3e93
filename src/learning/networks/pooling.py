"""`MaxPool1d` that can be exported for records of any length."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class MaxPool1d(nn.Module):
    """The maximum of 3 samples, padded by 1; from (B, C, L) to (B, C, L / stride), rounded up."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima of (B, C, L)."""
        if not torch.compiler.is_exporting():
            return functional.max_pool1d(x, 3, self.stride, padding=1)
        # The exporter takes the length for fixed in one dimension, but not in two.
        maxima = functional.max_pool2d(x[:, :, None], (1, 3), (1, self.stride), (0, 1))
        return maxima[:, :, 0]
