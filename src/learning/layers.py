"""Layers over time that keep the channels of a sample together in memory where that is faster: on a
CPU in full precision, to learn, and for batches of short signals.

A signal (B, C, L) is then stored as (B, L, C). What the kernel of a convolution sees lies together
in it, so that a convolution is a few products of matrices (`src/convolution.py`); means over
records and samples, and over neighbouring samples, take a fifth of the time or less. Weights, their
names and their shapes are those of `torch.nn`, and so are the numbers within rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from src.learning.convolution import check_kernel, convolve

# where no gradients follow, oneDNN is faster for longer records and for smaller batches (measured
# on AVX2)
_MAX_SAMPLES = 250  # of a record
_MIN_BATCH = 500  # samples of all records


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d` of stride 1 or more, padded by half its kernel, without bias; maps (B,
    n_in, L) to (B, n_out, L / stride).

    Parameters
    ----------
    n_in, n_out
        Channels.
    kernel
        Samples that an output sees; an odd number.
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
        """Convolve, the faster way."""
        n_records, _, n_samples = x.shape
        if _is_plain(x) and (
            torch.is_grad_enabled()
            or (n_samples <= _MAX_SAMPLES and n_records * n_samples >= _MIN_BATCH)
        ):
            return convolve(x.transpose(1, 2), self.weight, self.stride[0]).transpose(1, 2)
        return super().forward(x)


class BatchNorm1d(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`, as fast for channels that lie together as for samples that do."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each channel of (B, C, L)."""
        return _by_sample(super().forward, x)


class GELU(nn.GELU):
    """`torch.nn.GELU`, as fast for channels that lie together as for samples that do."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of (B, C, L)."""
        return _by_sample(super().forward, x)


class AvgPool1d(nn.AvgPool1d):
    """`torch.nn.AvgPool1d` over `size` samples and as many further on; the last are fewer where the
    signal does not divide.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size, ceil_mode=True, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the means (B, C, L / size) of (B, C, L)."""
        if self.kernel_size == (2,) and _is_plain(x) and x.is_contiguous():
            means: Tensor = _MeanOfTwo.apply(x)  # type: ignore[no-untyped-call]
            return means
        return super().forward(x)


def _is_plain(x: Tensor) -> bool:
    """Tell whether a signal is on the CPU in full precision, and the network is run rather than
    looked at.
    """
    is_run = not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
    return (
        is_run
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def _by_sample(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer that treats all samples alike to (B, C, L); where channels lie together, to the
    samples of all records as (B * L, C).
    """
    by_sample = x.transpose(1, 2)
    if not _is_plain(x) or x.is_contiguous() or not by_sample.is_contiguous():
        return layer(x)
    return layer(by_sample.flatten(0, 1)).view_as(by_sample).transpose(1, 2)


class _MeanOfTwo(torch.autograd.Function):
    """The mean of each two samples of (B, C, L), a last one alone as it is; torch takes seven times
    as long where samples lie together.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n_pairs = x.shape[2] // 2
        ctx.shape = x.shape
        out = x[:, :, ::2].clone(memory_format=torch.contiguous_format)
        out[:, :, :n_pairs].add_(x[:, :, 1::2]).mul_(0.5)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        n_pairs = ctx.shape[2] // 2
        of_signal = grads[0].new_empty(ctx.shape)
        of_signal[:, :, ::2] = grads[0]
        of_signal[:, :, : 2 * n_pairs : 2].mul_(0.5)
        of_signal[:, :, 1::2] = of_signal[:, :, : 2 * n_pairs : 2]
        return of_signal
