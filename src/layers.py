"""Layers over time that keep the channels of a sample together in memory where that is faster: on a CPU in full precision, to learn, and for short signals.

A signal (B, C, L) is then stored as (B, L, C). What the kernel of a convolution sees lies together in it, so that a
convolution is a matrix product of these windows (Chellapilla et al., IWFHR 2006), at nearly all of a core's arithmetic;
means over records and samples, and over neighbouring samples, take a fifth of the time or less. Weights, their names and
their shapes are those of `torch.nn`, and so are the numbers within rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_WINDOW_VALUES = 1_000_000  # of the windows that are laid out at a time, which then stay in the processor's caches
_SHORT = 32  # samples; longer signals are convolved faster by oneDNN where no gradients follow (measured on AVX2)


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d` of stride 1 or more, padded by half its kernel, without bias; maps (B, n_in, L) to (B, n_out, L / stride).

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
        If the kernel is even.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> None:
        if kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}: expected an odd number of samples")
        super().__init__(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, the faster way."""
        if _is_plain(x) and (torch.is_grad_enabled() or x.shape[2] <= _SHORT):
            product: Tensor = _WindowProduct.apply(x.transpose(1, 2), self.weight, self.stride[0])  # type: ignore[no-untyped-call]
            return product.transpose(1, 2)
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
    """`torch.nn.AvgPool1d` over `size` samples and as many further on; the last are fewer where the signal does not divide."""

    def __init__(self, size: int) -> None:
        super().__init__(size, ceil_mode=True, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the means (B, C, L / size) of (B, C, L)."""
        if self.kernel_size == (2,) and _is_plain(x) and x.is_contiguous():
            means: Tensor = _MeanOfTwo.apply(x)  # type: ignore[no-untyped-call]
            return means
        return super().forward(x)


def _is_plain(x: Tensor) -> bool:
    """Tell whether a signal is on the CPU in full precision, and the network is run rather than looked at."""
    is_run = not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
    return is_run and x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def _by_sample(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer that treats all samples alike to (B, C, L); where channels lie together, to the samples of all records as (B * L, C)."""
    by_sample = x.transpose(1, 2)
    if not _is_plain(x) or x.is_contiguous() or not by_sample.is_contiguous():
        return layer(x)
    return layer(by_sample.flatten(0, 1)).view_as(by_sample).transpose(1, 2)


class _WindowProduct(torch.autograd.Function):
    """The convolution of (B, L, n_in) to (B, L_out, n_out) as windows times weights, with the gradients worked out the same way."""

    @staticmethod
    def forward(ctx: Any, signal: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(signal, weight)
        ctx.stride = stride
        n_out, n_in, kernel = weight.shape
        matrix = weight.permute(2, 1, 0).reshape(-1, n_out)  # (kernel * n_in, n_out), in the order of the windows
        out = signal.new_empty(len(signal), (signal.shape[1] - 1) // stride + 1, n_out)
        for some in _parts(out, kernel * n_in):
            torch.mm(_windows(signal[some], kernel, stride), matrix, out=_samples(out[some]))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        signal, weight = (saved.contiguous() for saved in ctx.saved_tensors)
        of_output, (wants_signal, wants_weight, _) = grads[0].contiguous(), ctx.needs_input_grad
        if ctx.stride == 1 and wants_signal:
            both: tuple[Tensor | None, Tensor | None] = _convolve_back(signal, weight, of_output, wants_weight)
        else:
            both = _add_back(signal, weight, of_output, ctx.stride, wants_signal, wants_weight)
        return *both, None


class _MeanOfTwo(torch.autograd.Function):
    """The mean of each two samples of (B, C, L), a last one alone as it is; torch takes seven times as long where samples lie together."""

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


def _convolve_back(signal: Tensor, weight: Tensor, of_output: Tensor, wants_weight: bool) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of signal (B, L, n_in) and, where it is wanted, weights for stride 1, both from windows over that of the output (B, L, n_out)."""
    n_out, n_in, kernel = weight.shape
    matrix = weight.flip(2).permute(2, 0, 1).reshape(-1, n_in)  # (kernel * n_out, n_in): a sample sees the outputs in reverse
    of_signal, of_matrix = torch.empty_like(signal), torch.zeros_like(matrix)
    for some in _parts(of_output, kernel * n_out):
        windows = _windows(of_output[some], kernel, 1)
        torch.mm(windows, matrix, out=_samples(of_signal[some]))
        if wants_weight:
            of_matrix.addmm_(windows.T, _samples(signal[some]))
    return of_signal, _like(weight, of_matrix.view(kernel, n_out, n_in).flip(0).permute(1, 2, 0)) if wants_weight else None


def _add_back(
    signal: Tensor, weight: Tensor, of_output: Tensor, stride: int, wants_signal: bool, wants_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return those gradients of signal (B, L, n_in) and weights that are wanted, for any stride: that of a sample is the sum over its windows."""
    n_out, n_in, kernel = weight.shape
    matrix = weight.transpose(1, 2).reshape(n_out, -1)  # (n_out, kernel * n_in)
    of_signal, of_matrix = (torch.empty_like(signal) if wants_signal else None), torch.zeros_like(matrix)
    for some in _parts(of_output, kernel * n_in):
        outputs = _samples(of_output[some])
        if wants_weight:
            of_matrix.addmm_(outputs.T, _windows(signal[some], kernel, stride))
        if of_signal is not None:
            of_signal[some] = _add_windows((outputs @ matrix).view(-1, of_output.shape[1], kernel, n_in), signal.shape[1], stride)
    return of_signal, _like(weight, of_matrix.view(n_out, kernel, n_in).transpose(1, 2)) if wants_weight else None


def _like(weight: Tensor, values: Tensor) -> Tensor:
    """Return values in the layout of the weights, which several processes that average their gradients rely on."""
    return torch.empty_like(weight).copy_(values)


def _parts(records: Tensor, n_seen: int) -> Iterator[slice]:
    """Yield slices of about as many records (B, L, C) each, few enough for windows of `n_seen` values about each sample."""
    n_records, n_samples, _ = records.shape
    most = max(1, _WINDOW_VALUES // max(1, n_samples * n_seen))
    size = -(-n_records // -(-n_records // most)) if n_records else 1
    yield from (slice(start, start + size) for start in range(0, n_records, size))


def _samples(records: Tensor) -> Tensor:
    """Return records (B, L, C) as their samples (B * L, C)."""
    return records.view(-1, records.shape[2])


def _windows(signal: Tensor, kernel: int, stride: int) -> Tensor:
    """Return what each output sees of a signal (B, L, C), padded by half a kernel: (B * L_out, kernel * C)."""
    n_records, n_samples, n_channels = signal.shape
    if kernel == 1:
        return signal[:, ::stride].reshape(-1, n_channels)
    margin = kernel // 2
    padded = signal.new_empty(n_records, n_samples + 2 * margin, n_channels)
    padded[:, :margin] = padded[:, margin + n_samples :] = 0
    padded[:, margin : margin + n_samples] = signal
    n_out = (n_samples - 1) // stride + 1
    step = padded.stride(0), stride * n_channels, 1
    return padded.as_strided((n_records, n_out, kernel * n_channels), step).reshape(-1, kernel * n_channels)


def _add_windows(windows: Tensor, n_samples: int, stride: int) -> Tensor:
    """Add windows (B, L_out, kernel, C) where they overlap: (B, L, C)."""
    n_records, n_out, kernel, n_channels = windows.shape
    margin = kernel // 2
    padded = windows.new_zeros(n_records, n_samples + 2 * margin, n_channels)
    for offset in range(kernel):
        padded[:, offset : offset + stride * (n_out - 1) + 1 : stride] += windows[:, :, offset]
    return padded[:, margin : margin + n_samples]
