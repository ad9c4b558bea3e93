"""A convolution over time that is one matrix product where that is faster: with many channels, on a CPU.

oneDNN reaches about half of a core's arithmetic on short signals of many channels, a matrix product nearly all of it. The
windows that the kernel sees are therefore laid out as rows (Chellapilla et al., IWFHR 2006), which costs little beside
the product. Weights, their names and their shapes are those of `torch.nn.Conv1d`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

MIN_CHANNELS, MAX_SAMPLES = 128, 32
"""Inputs of fewer channels or more samples are faster in oneDNN (measured from 12 to 288 channels on AVX2)."""


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
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, the faster way."""
        if self._is_faster_as_product(x):
            product: torch.Tensor = _WindowProduct.apply(x, self.weight, self.stride[0])  # type: ignore[no-untyped-call]
            return product
        return super().forward(x)

    def _is_faster_as_product(self, x: torch.Tensor) -> bool:
        is_plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        is_eager = not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
        is_small = self.in_channels >= MIN_CHANNELS and x.shape[2] <= MAX_SAMPLES and self.kernel_size[0] > 1
        return is_plain and is_eager and is_small


class _WindowProduct(torch.autograd.Function):
    """The convolution as windows times weights, with the gradients worked out the same way."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
        windows = _windows(x, weight.shape[2], stride)  # (B, L_out, kernel * n_in)
        ctx.save_for_backward(windows, weight)
        ctx.stride, ctx.n_samples = stride, x.shape[2]
        return (windows @ _as_matrix(weight)).transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        windows, weight = ctx.saved_tensors
        n_out, n_in, kernel = weight.shape
        of_output = grads[0].transpose(1, 2).reshape(-1, n_out)  # (B * L_out, n_out)
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_windows = (of_output @ _as_matrix(weight).T).view(*windows.shape[:2], kernel, n_in)
            of_input = _add_windows(of_windows, ctx.n_samples, ctx.stride)
        if ctx.needs_input_grad[1]:
            of_weight = (of_output.T @ windows.flatten(0, 1)).view(n_out, kernel, n_in).transpose(1, 2)
        return of_input, of_weight, None


def _as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """Return weights (n_out, n_in, kernel) as (kernel * n_in, n_out), in the order of `_windows`."""
    return weight.permute(2, 1, 0).reshape(-1, weight.shape[0])


def _windows(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Return what each output sees of (B, n_in, L), padded by half a kernel: (B, L_out, kernel * n_in)."""
    n_records, n_in, n_samples = x.shape
    margin = kernel // 2
    padded = x.new_zeros(n_records, n_samples + 2 * margin, n_in)
    padded[:, margin : margin + n_samples] = x.transpose(1, 2)
    n_out = (n_samples + 2 * margin - kernel) // stride + 1
    step = padded.stride(0), stride * n_in, 1
    return padded.as_strided((n_records, n_out, kernel * n_in), step).contiguous()


def _add_windows(windows: torch.Tensor, n_samples: int, stride: int) -> torch.Tensor:
    """Add windows (B, L_out, kernel, n_in) where they overlap: (B, n_in, L)."""
    n_records, n_out, kernel, n_in = windows.shape
    margin = kernel // 2
    padded = windows.new_zeros(n_records, n_samples + 2 * margin, n_in)
    for offset in range(kernel):
        padded[:, offset : offset + stride * (n_out - 1) + 1 : stride] += windows[:, :, offset]
    return padded[:, margin : margin + n_samples].transpose(1, 2).contiguous()
