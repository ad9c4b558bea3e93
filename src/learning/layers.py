"""Layers over time in the memory layout that trains fastest on CPUs.

In training, and for batches of short signals, a signal (B, C, L) in single precision on a CPU is
stored as (B, L, C): the channels of a sample lie together. All that the kernel of a convolution
sees is then contiguous, so that a convolution is a few products of matrices
(`src.learning.convolution`). Means over records and samples, and over neighbouring samples, take a
fifth of the time or less. The weights, their names and their shapes are those of `torch.nn`, and so
are the results up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from src.learning.convolution import check_kernel, convolve

# Without gradients, oneDNN is faster for longer records and for smaller batches (measured on AVX2).
# Most samples of a record, and fewest samples of all records together, for `convolve`:
_MAX_SAMPLES = 250
_MIN_BATCH_SAMPLES = 500


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d` padded by half its kernel, without bias.

    It maps (B, n_in, L) to (B, n_out, L / stride), rounded up.

    Parameters
    ----------
    n_in, n_out
        Number of channels.
    kernel
        Number of samples that an output sees; odd.
    stride
        Samples from one output to the next.

    Raises
    ------
    ValueError
        If the kernel is even, or too long for `convolve`.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> None:
        check_kernel(kernel, stride)
        super().__init__(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, n_in, L) by whichever implementation is faster."""
        if not (_is_plain(x) and _is_faster_by_tiles(x)):
            return super().forward(x)
        # Channels last, and back: both transposes are views.
        out = convolve(x.transpose(1, 2), self.weight, self.stride[0])  # (B, L / stride, n_out)
        return out.transpose(1, 2)  # (B, n_out, L / stride)


class BatchNorm1d(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` that is fast in either memory layout."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each channel of (B, C, L)."""
        return _by_sample(super().forward, x)


class GELU(nn.GELU):
    """`torch.nn.GELU` that is fast in either memory layout."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of (B, C, L)."""
        return _by_sample(super().forward, x)


class AvgPool1d(nn.AvgPool1d):
    """`torch.nn.AvgPool1d` with a stride of `size`, whose last window may be shorter."""

    def __init__(self, size: int) -> None:
        super().__init__(size, ceil_mode=True, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the means (B, C, L / size), rounded up, of (B, C, L)."""
        # torch is fast where channels lie together, which is not contiguous here.
        if self.kernel_size == (2,) and _is_plain(x) and x.is_contiguous():
            means: Tensor = _MeanOfTwo.apply(x)  # type: ignore[no-untyped-call]
            return means
        return super().forward(x)


class MaxPool1d(nn.Module):
    """The maximum of 3 samples, padded by 1; from (B, C, L) to (B, C, L / stride), rounded up."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima of (B, C, L)."""
        return max_pool(x, 3, self.stride)


def max_pool(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Return the maxima of (B, C, L) in windows of an odd number of samples, padded by half.

    They can be exported for records of any length.
    """
    half = kernel // 2
    if not torch.compiler.is_exporting():
        return functional.max_pool1d(x, kernel, stride, padding=half)
    # The exporter takes the length for fixed in one dimension, but not in two.
    maxima = functional.max_pool2d(x[:, :, None], (1, kernel), (1, stride), (0, half))
    return maxima[:, :, 0]


def _is_plain(x: Tensor) -> bool:
    """Return whether the network runs eagerly in single precision on a CPU."""
    # Compilers and exporters must see the layers of torch.
    if torch.compiler.is_compiling():
        return False
    is_tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return (
        not is_tracing
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def _is_faster_by_tiles(x: Tensor) -> bool:
    """Return whether `convolve` is faster than oneDNN for a signal (B, C, L)."""
    if torch.is_grad_enabled():
        return True
    n_records, _, n_samples = x.shape
    return n_samples <= _MAX_SAMPLES and n_records * n_samples >= _MIN_BATCH_SAMPLES


def _by_sample(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer that treats all samples alike to (B, C, L), without changing the layout."""
    channels_last = x.transpose(1, 2)  # (B, L, C)
    if not _is_plain(x) or x.is_contiguous() or not channels_last.is_contiguous():
        return layer(x)
    # The samples of all records are rows of one matrix: (B * L, C).
    out = layer(channels_last.flatten(0, 1))
    return out.view_as(channels_last).transpose(1, 2)  # (B, C, L)


class _MeanOfTwo(torch.autograd.Function):
    """The mean of each pair of samples of (B, C, L); an odd last sample stays as it is.

    Where the samples of a channel lie together, torch takes seven times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n_pairs = x.shape[2] // 2
        ctx.shape = x.shape
        # The first sample of each pair: (B, C, L / 2 rounded up)
        out = x[:, :, ::2].clone(memory_format=torch.contiguous_format)
        out[:, :, :n_pairs].add_(x[:, :, 1::2]).mul_(0.5)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        n_pairs = ctx.shape[2] // 2
        signal_grad = grads[0].new_empty(ctx.shape)  # (B, C, L)
        signal_grad[:, :, ::2] = grads[0]
        # Half for each sample of a pair; an odd last sample keeps the whole gradient.
        signal_grad[:, :, : 2 * n_pairs : 2].mul_(0.5)
        signal_grad[:, :, 1::2] = signal_grad[:, :, : 2 * n_pairs : 2]
        return signal_grad
