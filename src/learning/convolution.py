"""Convolution over time with half the multiplications, for training on CPUs (Toom-Cook).

A polynomial of n coefficients is determined by its values at n points. The product of two
polynomials therefore follows from n products of their values (Toom, 1963; Cook, 1966). Transposed,
this is minimal filtering F(4, k): four consecutive outputs of a kernel with k taps follow from
k + 3 products instead of 4 k (Winograd, 1980). With channels, each product is a product of matrices
(Lavin and Gray, CVPR 2016). With a stride of s, a group of s samples counts as one sample with s
times the channels.

A convolution takes three steps, and each gradient takes the same steps transposed:

1. evaluate signal and kernel at the points: `_signal_at_points`, `_weight_at_points`;
2. multiply them at each point, one matrix product a point;
3. combine the products to outputs: `_outputs`.

In the shapes below, *tiles* is the number of tiles per record, and *points* the number of points.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Outputs that are computed together
_TILE = 4

# The points beside infinity: those small fractions that round least in single precision.
_POINTS = (0, 1, -1, 2, -2, 1 / 2, -1 / 2, 4 / 3, -4 / 3)

_MAX_TAPS = len(_POINTS) + 2 - _TILE


class _Neighbours(NamedTuple):
    """Slices of the tiles of a record for the neighbour at some offset."""

    having: slice
    """Tiles that have this neighbour."""
    neighbours: slice
    """The neighbours of these tiles, in the same order."""
    lacking: slice
    """Tiles at an end of the record, which lack it."""


# By offset: the tile before, the tile itself and the tile after
_NEIGHBOURS = {
    -1: _Neighbours(slice(1, None), slice(None, -1), slice(None, 1)),
    0: _Neighbours(slice(None), slice(None), slice(0)),
    1: _Neighbours(slice(None, -1), slice(1, None), slice(-1, None)),
}


class _Tiling(NamedTuple):
    """Division of a signal into groups of `stride` samples, and of groups into tiles of four.

    A tile gives four outputs.
    """

    n_samples: int
    kernel: int
    stride: int

    @property
    def n_out(self) -> int:
        """Number of outputs, which is the number of groups."""
        return (self.n_samples - 1) // self.stride + 1

    @property
    def n_tiles(self) -> int:
        """Number of tiles; the last may be partly empty."""
        return -(-self.n_out // _TILE)

    @property
    def n_before(self) -> int:
        """Number of groups before its own that an output sees."""
        return -(-(self.kernel // 2) // self.stride)

    @property
    def n_zeros(self) -> int:
        """Number of zeros before the kernel, so that its middle value begins a group."""
        return self.n_before * self.stride - self.kernel // 2

    @property
    def n_taps(self) -> int:
        """Number of groups that an output sees."""
        return -(-(self.n_zeros + self.kernel) // self.stride)

    @property
    def n_points(self) -> int:
        """Number of points, which is the number of groups that the outputs of a tile see."""
        return self.n_taps + _TILE - 1

    def groups_in(self, offset: int) -> tuple[slice, slice]:
        """Return the groups seen by a tile's outputs that lie in the tile at `offset`.

        Parameters
        ----------
        offset
            0 for the tile itself, -1 and 1 for its neighbours.

        Returns
        -------
        tuple
            Their positions among the groups seen, and their positions in the tile at `offset`.
        """
        first = self.n_before + offset * _TILE
        seen = slice(max(first, 0), min(first + _TILE, self.n_points))
        return seen, slice(seen.start - first, seen.stop - first)


def check_kernel(kernel: int, stride: int) -> None:
    """Raise ValueError for a kernel that `convolve` does not take.

    Even kernels have no middle, and rounding errors grow with kernels that are long for the stride.
    """
    if kernel % 2 == 0:
        raise ValueError(f"kernel is {kernel}: expected an odd number of samples")
    if _Tiling(1, kernel, stride).n_taps > _MAX_TAPS:
        raise ValueError(
            f"kernel is {kernel}: expected {(_MAX_TAPS - 1) * stride + 1} samples or "
            f"fewer with a stride of {stride}"
        )


def convolve(signal: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Convolve as ``torch.nn.functional.conv1d`` with ``padding=kernel // 2``, channels last.

    Parameters
    ----------
    signal
        Shape (B, L, n_in), with L of 1 or more.
    weight
        Shape (n_out, n_in, kernel), for a kernel that `check_kernel` accepts.
    stride
        Samples from one output to the next.

    Returns
    -------
    Tensor
        Shape (B, L / stride rounded up, n_out).
    """
    # A kernel of one sample is a matrix already.
    if weight.shape[2] == 1:
        return torch.nn.functional.linear(signal[:, ::stride], weight[:, :, 0])
    out: Tensor = _Convolution.apply(signal, weight, stride)  # type: ignore[no-untyped-call]
    return out


class _Convolution(torch.autograd.Function):
    """`convolve` with gradients by the transposed steps; there are no second derivatives."""

    @staticmethod
    def forward(ctx: Any, signal: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.tiling = tiling = _Tiling(signal.shape[1], weight.shape[2], stride)
        signal_at_points = _signal_at_points(signal, tiling)  # (points, B * tiles, stride * n_in)
        weight_at_points = _weight_at_points(weight, tiling)  # (points, stride * n_in, n_out)
        # The gradient of either needs the other; keep no more than that.
        needs_signal_grad, needs_weight_grad, _ = ctx.needs_input_grad
        ctx.save_for_backward(
            signal_at_points if needs_weight_grad else None,
            weight_at_points if needs_signal_grad else None,
        )
        products = torch.bmm(signal_at_points, weight_at_points)  # (points, B * tiles, n_out)
        return _outputs(products, tiling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        tiling: _Tiling = ctx.tiling
        signal_at_points, weight_at_points = ctx.saved_tensors
        signal_grad, weight_grad = None, None
        product_grads = _outputs_back(grads[0], tiling)  # (points, B * tiles, n_out)
        if weight_at_points is not None:
            at_points = torch.bmm(product_grads, weight_at_points.transpose(1, 2))
            signal_grad = _signal_back(at_points, tiling)
        if signal_at_points is not None:
            at_points = torch.bmm(signal_at_points.transpose(1, 2), product_grads)
            weight_grad = _weight_back(at_points, tiling)
        return signal_grad, weight_grad, None


class _Transforms(NamedTuple):
    """The matrices of the algorithm, with their usual letters."""

    signal: Tensor
    """B^T, shape (points, points)."""
    weight: Tensor
    """G, shape (points, taps)."""
    output: Tensor
    """A^T, shape (4, points)."""


@cache
def _transforms(n_taps: int, dtype: torch.dtype) -> _Transforms:
    """Return the matrices for kernels of `n_taps`.

    The product of two polynomials, of `n_taps` and four coefficients, is
    ``inv(powers) @ ((weight @ kernel) * (output.T @ four))``. Filtering is its transpose.
    """
    n_points = n_taps + _TILE - 1
    # Row i evaluates a polynomial at point i: (points, points)
    powers = np.vander((*_POINTS[: n_points - 1], 0), n_points, increasing=True)
    # At infinity only the highest power counts, which differs between the three lengths.
    powers[-1] = np.eye(n_points)[-1]
    weight = powers[:, :n_taps].copy()
    weight[-1, -1] = 1
    output = powers[:, :_TILE].copy()
    output[-1, -1] = 1
    signal = np.linalg.inv(powers).T
    # Rows of similar size lose least to rounding, and scaling by powers of two loses nothing.
    size = 2.0 ** np.round(np.log2(np.abs(signal).max(axis=1, keepdims=True)))
    return _Transforms(
        signal=torch.tensor(signal / size, dtype=dtype, device="cpu"),
        weight=torch.tensor(weight * size, dtype=dtype, device="cpu"),
        output=torch.tensor(output.T, dtype=dtype, device="cpu"),
    )


def _multiply(matrix: Tensor, values: Tensor) -> Tensor:
    """Return the product (m, ...) of a matrix (m, n) and values (n, ...)."""
    return torch.mm(matrix, values.flatten(1)).view(len(matrix), *values.shape[1:])


def _signal_at_points(signal: Tensor, tiling: _Tiling) -> Tensor:
    """Return a signal (B, L, n_in) at the points: (points, B * tiles, stride * n_in)."""
    n_records = len(signal)
    width = tiling.stride * signal.shape[2]
    # The samples of a group lie together, so a group is one sample with more channels.
    filled = _fill(signal, tiling.n_tiles * _TILE * tiling.stride)
    tiles = filled.view(n_records, tiling.n_tiles, _TILE, width)  # (B, tiles, 4, stride * n_in)
    # Gather the groups that the outputs of each tile see, from the tile and its neighbours. The
    # groups come first, so that the transform is one product of matrices.
    seen = tiles.new_empty(tiling.n_points, n_records, tiling.n_tiles, width)
    for offset, slices in _NEIGHBOURS.items():
        groups, in_tile = tiling.groups_in(offset)
        found = tiles[:, slices.neighbours, in_tile]  # (B, tiles, groups, stride * n_in)
        seen[groups, :, slices.having] = found.permute(2, 0, 1, 3)
        # Zeros pad the signal at its ends.
        seen[groups, :, slices.lacking] = 0
    at_points = _multiply(_transforms(tiling.n_taps, signal.dtype).signal, seen)
    return at_points.flatten(1, 2)  # (points, B * tiles, stride * n_in)


def _signal_back(at_points: Tensor, tiling: _Tiling) -> Tensor:
    """Return the gradients (B, L, n_in) of a signal from those at the points."""
    n_records = at_points.shape[1] // tiling.n_tiles
    width = at_points.shape[2]
    seen = _multiply(_transforms(tiling.n_taps, at_points.dtype).signal.T, at_points)
    seen = seen.view(tiling.n_points, n_records, tiling.n_tiles, width)
    seen = seen.permute(1, 2, 0, 3)  # (B, tiles, points, stride * n_in)
    # A sample was seen by the outputs of its own tile and of the neighbours: add their gradients.
    tiles = seen[:, :, tiling.groups_in(0)[0]].contiguous()  # (B, tiles, 4, stride * n_in)
    for offset in (-1, 1):
        slices = _NEIGHBOURS[offset]
        groups, in_tile = tiling.groups_in(offset)
        tiles[:, slices.neighbours, in_tile] += seen[:, slices.having, groups]
    samples = tiles.view(n_records, tiling.n_tiles * _TILE * tiling.stride, width // tiling.stride)
    # Drop the samples that filled the last tile: (B, L, n_in)
    return samples[:, : tiling.n_samples].contiguous()


def _weight_at_points(weight: Tensor, tiling: _Tiling) -> Tensor:
    """Return a kernel (n_out, n_in, kernel) at the points: (points, stride * n_in, n_out)."""
    n_out, n_in, kernel = weight.shape
    # Zeros around the kernel align it with the groups of the signal, so that a tap is a group.
    n_behind = tiling.n_taps * tiling.stride - tiling.n_zeros - kernel
    values = torch.nn.functional.pad(
        weight.permute(2, 1, 0), (0, 0, 0, 0, tiling.n_zeros, n_behind)
    )  # (taps * stride, n_in, n_out)
    taps = values.reshape(tiling.n_taps, tiling.stride * n_in, n_out)
    return _multiply(_transforms(tiling.n_taps, weight.dtype).weight, taps)


def _weight_back(at_points: Tensor, tiling: _Tiling) -> Tensor:
    """Return the gradients (n_out, n_in, kernel) of a kernel from those at the points."""
    n_in = at_points.shape[1] // tiling.stride
    n_out = at_points.shape[2]
    # (taps, stride * n_in, n_out)
    taps = _multiply(_transforms(tiling.n_taps, at_points.dtype).weight.T, at_points)
    values = taps.view(tiling.n_taps * tiling.stride, n_in, n_out)
    # Drop the zeros around the kernel.
    values = values[tiling.n_zeros : tiling.n_zeros + tiling.kernel]  # (kernel, n_in, n_out)
    return values.permute(2, 1, 0).contiguous()


def _outputs(products: Tensor, tiling: _Tiling) -> Tensor:
    """Return the outputs (B, L_out, n_out) from the products (points, B * tiles, n_out)."""
    n_records = products.shape[1] // tiling.n_tiles
    n_out = products.shape[2]
    # (4, B * tiles, n_out)
    outputs = _multiply(_transforms(tiling.n_taps, products.dtype).output, products)
    # Put the four outputs of a tile next to each other. The result is a tensor of its own: a view
    # returned by a Function must not be changed in place.
    filled = outputs.new_empty(n_records, tiling.n_tiles * _TILE, n_out)
    filled.view(n_records, tiling.n_tiles, _TILE, n_out).copy_(
        outputs.view(_TILE, n_records, tiling.n_tiles, n_out).permute(1, 2, 0, 3)
    )
    if tiling.n_out == filled.shape[1]:
        return filled
    # Drop the outputs of the empty part of the last tile.
    return filled[:, : tiling.n_out].clone()


def _outputs_back(output_grads: Tensor, tiling: _Tiling) -> Tensor:
    """Return the gradients (points, B * tiles, n_out) of the products.

    Those of the outputs have shape (B, L_out, n_out).
    """
    n_records, _, n_out = output_grads.shape
    # Outputs that fill the last tile have no influence, and so a gradient of zero.
    filled = _fill(output_grads, tiling.n_tiles * _TILE)
    tiles = filled.view(n_records, tiling.n_tiles, _TILE, n_out)
    tiles = tiles.permute(2, 0, 1, 3)  # (4, B, tiles, n_out)
    at_points = _multiply(_transforms(tiling.n_taps, tiles.dtype).output.T, tiles)
    return at_points.flatten(1, 2)


def _fill(signal: Tensor, n_samples: int) -> Tensor:
    """Return a signal (B, L, C) contiguous in memory, with zeros up to `n_samples`."""
    n_missing = n_samples - signal.shape[1]
    if n_missing:
        signal = torch.nn.functional.pad(signal, (0, 0, 0, n_missing))
    return signal.contiguous()
