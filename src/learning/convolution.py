"""Convolution over time with half the multiplications, to learn on a CPU: the algorithm of Toom and
Cook, on matrices.

A polynomial of n coefficients is determined by its values at n points, so that the product of two
follows from n products of their values (Toom, 1963; Cook, 1966). Transposed, this is minimal
filtering F(4, k): four outputs in a row of a kernel of k taps follow from k + 3 products instead of
4 k (Winograd, 1980), and with channels each of them is a product of matrices (Lavin and Gray, CVPR
2016). With a stride of s, groups of s samples count as one sample of s times the channels.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_TILE = 4  # outputs that are worked out together
_POINTS = (
    0,
    1,
    -1,
    2,
    -2,
    1 / 2,
    -1 / 2,
    4 / 3,
    -4 / 3,
)  # beside infinity: of small fractions those that round least in single precision
_MAX_TAPS = len(_POINTS) + 2 - _TILE
# by how many tiles to the right: the tiles that have one there, that one, and those that have none
_NEIGHBOURS = {
    -1: (slice(1, None), slice(None, -1), slice(None, 1)),
    0: (slice(None), slice(None), slice(0)),
    1: (slice(None, -1), slice(1, None), slice(-1, None)),
}


class _Tiling(NamedTuple):
    """How a signal is cut for a kernel: into groups of `stride` samples, and these into tiles of
    four, which give four outputs.
    """

    n_samples: int
    kernel: int
    stride: int

    @property
    def n_out(self) -> int:
        """Outputs, as many as groups."""
        return (self.n_samples - 1) // self.stride + 1

    @property
    def n_tiles(self) -> int:
        """Tiles, of which the last may be part empty."""
        return -(-self.n_out // _TILE)

    @property
    def n_before(self) -> int:
        """Groups that an output sees before its own."""
        return -(-(self.kernel // 2) // self.stride)

    @property
    def n_zeros(self) -> int:
        """Zeros put before the kernel, so that its middle value begins a group."""
        return self.n_before * self.stride - self.kernel // 2

    @property
    def n_taps(self) -> int:
        """Groups that an output sees."""
        return -(-(self.n_zeros + self.kernel) // self.stride)

    @property
    def n_points(self) -> int:
        """Points, as many as groups that the outputs of a tile see."""
        return self.n_taps + _TILE - 1

    def groups_in(self, neighbour: int) -> tuple[slice, slice]:
        """Return which of the groups that a tile's outputs see lie in its neighbour (-1, 1) or
        itself (0), and where in that they lie.
        """
        first = self.n_before + neighbour * _TILE
        groups = slice(max(first, 0), min(first + _TILE, self.n_points))
        return groups, slice(groups.start - first, groups.stop - first)


def check_kernel(kernel: int, stride: int) -> None:
    """Raise ValueError if `convolve` has no place for a kernel: an even one, or one so long for the
    stride that rounding would grow.
    """
    if kernel % 2 == 0:
        raise ValueError(f"kernel is {kernel}: expected an odd number of samples")
    if _Tiling(1, kernel, stride).n_taps > _MAX_TAPS:
        raise ValueError(
            f"kernel is {kernel}: expected {(_MAX_TAPS - 1) * stride + 1} samples or "
            f"fewer with a stride of {stride}"
        )


def convolve(signal: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return what ``torch.nn.functional.conv1d`` does with ``padding=kernel // 2``, with the
    channels last.

    Parameters
    ----------
    signal
        (B, L, n_in), L of 1 or more.
    weight
        (n_out, n_in, kernel), of a kernel that `check_kernel` lets pass.
    stride
        Samples from one output to the next.

    Returns
    -------
    Tensor
        (B, L / stride rounded up, n_out).
    """
    if weight.shape[2] == 1:
        return torch.nn.functional.linear(signal[:, ::stride], weight[:, :, 0])
    out: Tensor = _Convolution.apply(signal, weight, stride)  # type: ignore[no-untyped-call]
    return out


class _Convolution(torch.autograd.Function):
    """`convolve`, with the gradients worked out the same way, each step transposed; they have no
    gradients of their own.
    """

    @staticmethod
    def forward(ctx: Any, signal: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.tiling = tiling = _Tiling(signal.shape[1], weight.shape[2], stride)
        signal_at_points, weight_at_points = (
            _signal_at_points(signal, tiling),
            _weight_at_points(weight, tiling),
        )
        wants_signal, wants_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(
            signal_at_points if wants_weight else None, weight_at_points if wants_signal else None
        )
        return _outputs(torch.bmm(signal_at_points, weight_at_points), tiling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        tiling: _Tiling = ctx.tiling
        signal_at_points, weight_at_points = ctx.saved_tensors
        of_signal, of_weight = None, None
        of_products = _outputs_back(grads[0], tiling)
        if weight_at_points is not None:
            of_signal = _signal_back(
                torch.bmm(of_products, weight_at_points.transpose(1, 2)), tiling
            )
        if signal_at_points is not None:
            of_weight = _weight_back(
                torch.bmm(signal_at_points.transpose(1, 2), of_products), tiling
            )
        return of_signal, of_weight, None


class _Transforms(NamedTuple):
    """The matrices of the algorithm, by usual letters: B^T (points, points) of signals, G (points,
    taps) of kernels, A^T (4, points) of outputs.
    """

    signal: Tensor
    weight: Tensor
    output: Tensor


@cache
def _transforms(n_taps: int, dtype: torch.dtype) -> _Transforms:
    """Return the matrices for kernels of `n_taps`.

    A product of polynomials is ``inv(powers) @ ((weight @ kernel) * (output.T @ four))``; to filter
    is to transpose it.
    """
    n_points = n_taps + _TILE - 1
    powers = np.vander((*_POINTS[: n_points - 1], 0), n_points, increasing=True)
    powers[-1] = np.eye(n_points)[
        -1
    ]  # at infinity only the highest power counts, which is another for each length
    weight, output = powers[:, :n_taps].copy(), powers[:, :_TILE].copy()
    weight[-1, -1] = output[-1, -1] = 1
    signal = np.linalg.inv(powers).T
    size = 2.0 ** np.round(
        np.log2(np.abs(signal).max(axis=1, keepdims=True))
    )  # rows of like size lose least to rounding
    return _Transforms(
        *(
            torch.tensor(values, dtype=dtype, device="cpu")
            for values in (signal / size, weight * size, output.T)
        )
    )


def _multiply(matrix: Tensor, values: Tensor) -> Tensor:
    """Return a matrix (m, n) times values (n, ...): (m, ...)."""
    return torch.mm(matrix, values.flatten(1)).view(len(matrix), *values.shape[1:])


def _signal_at_points(signal: Tensor, tiling: _Tiling) -> Tensor:
    """Return a signal (B, L, n_in) at the points: (points, B * tiles, stride * n_in)."""
    n_records, width = len(signal), tiling.stride * signal.shape[2]
    tiles = _fill(signal, tiling.n_tiles * _TILE * tiling.stride).view(
        n_records, tiling.n_tiles, _TILE, width
    )
    seen = tiles.new_empty(tiling.n_points, n_records, tiling.n_tiles, width)
    for neighbour, (here, there, without) in _NEIGHBOURS.items():
        groups, in_tile = tiling.groups_in(neighbour)
        seen[groups, :, here] = tiles[:, there, in_tile].permute(2, 0, 1, 3)
        seen[groups, :, without] = 0
    return _multiply(_transforms(tiling.n_taps, signal.dtype).signal, seen).flatten(1, 2)


def _signal_back(of_points: Tensor, tiling: _Tiling) -> Tensor:
    """Return the gradients (B, L, n_in) of a signal from those at the points: sums over all tiles
    whose outputs see a sample.
    """
    n_records, width = of_points.shape[1] // tiling.n_tiles, of_points.shape[2]
    seen = _multiply(_transforms(tiling.n_taps, of_points.dtype).signal.T, of_points)
    seen = seen.view(tiling.n_points, n_records, tiling.n_tiles, width).permute(1, 2, 0, 3)
    tiles = seen[:, :, tiling.groups_in(0)[0]].contiguous()
    for neighbour in (-1, 1):
        here, there, _ = _NEIGHBOURS[neighbour]
        groups, in_tile = tiling.groups_in(neighbour)
        tiles[:, there, in_tile] += seen[:, here, groups]
    samples = tiles.view(n_records, tiling.n_tiles * _TILE * tiling.stride, width // tiling.stride)
    return samples[:, : tiling.n_samples].contiguous()


def _weight_at_points(weight: Tensor, tiling: _Tiling) -> Tensor:
    """Return a kernel (n_out, n_in, kernel) at the points: (points, stride * n_in, n_out)."""
    n_out, n_in, kernel = weight.shape
    n_behind = tiling.n_taps * tiling.stride - tiling.n_zeros - kernel
    values = torch.nn.functional.pad(
        weight.permute(2, 1, 0), (0, 0, 0, 0, tiling.n_zeros, n_behind)
    )
    taps = values.reshape(tiling.n_taps, tiling.stride * n_in, n_out)
    return _multiply(_transforms(tiling.n_taps, weight.dtype).weight, taps)


def _weight_back(of_points: Tensor, tiling: _Tiling) -> Tensor:
    """Return the gradients (n_out, n_in, kernel) of a kernel from those at the points."""
    n_in, n_out = of_points.shape[1] // tiling.stride, of_points.shape[2]
    taps = _multiply(_transforms(tiling.n_taps, of_points.dtype).weight.T, of_points)
    values = taps.view(tiling.n_taps * tiling.stride, n_in, n_out)[
        tiling.n_zeros : tiling.n_zeros + tiling.kernel
    ]
    return values.permute(2, 1, 0).contiguous()


def _outputs(products: Tensor, tiling: _Tiling) -> Tensor:
    """Return the outputs (B, L_out, n_out) from the products (points, B * tiles, n_out)."""
    n_records, n_out = products.shape[1] // tiling.n_tiles, products.shape[2]
    outputs = _multiply(_transforms(tiling.n_taps, products.dtype).output, products)
    filled = outputs.new_empty(
        n_records, tiling.n_tiles * _TILE, n_out
    )  # no view: one that a Function returns may not be changed in place
    filled.view(n_records, tiling.n_tiles, _TILE, n_out).copy_(
        outputs.view(_TILE, n_records, tiling.n_tiles, n_out).permute(1, 2, 0, 3)
    )
    return filled if tiling.n_out == filled.shape[1] else filled[:, : tiling.n_out].clone()


def _outputs_back(of_outputs: Tensor, tiling: _Tiling) -> Tensor:
    """Return the gradients (points, B * tiles, n_out) of the products from those of the outputs (B,
    L_out, n_out).
    """
    tiles = _fill(of_outputs, tiling.n_tiles * _TILE).view(
        len(of_outputs), tiling.n_tiles, _TILE, of_outputs.shape[2]
    )
    return _multiply(
        _transforms(tiling.n_taps, tiles.dtype).output.T, tiles.permute(2, 0, 1, 3)
    ).flatten(1, 2)


def _fill(signal: Tensor, n_samples: int) -> Tensor:
    """Return a signal (B, L, C) with zeros up to `n_samples`, the channels of a sample together."""
    n_missing = n_samples - signal.shape[1]
    return (
        torch.nn.functional.pad(signal, (0, 0, 0, n_missing)) if n_missing else signal
    ).contiguous()
