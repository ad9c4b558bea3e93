"""`S4`: a structured state space network, as Mehari and Strodthoff (2022) train it on ECGs.

An S4 layer (Gu et al., ICLR 2022) is a linear system with a state s of N numbers a channel:

    s[t] = A s[t - 1] + B u[t]        y[t] = C s[t] + D u[t]

A and B are those of HiPPO-LegS (Gu et al., NeurIPS 2020), whose state holds the past of the signal
in Legendre polynomials; the bilinear rule makes them discrete with a step dt of each channel. A, B
and dt stay as they were initialised. Only C and D are trained, so the kernel of the convolution
from u to y is linear in C: ``kernel[l] = C A^l B``. A second C reads the future in the same way.

`_StateSpace` cuts the signal into chunks. Inside a chunk it multiplies by the kernel as a Toeplitz
matrix; what lies before (and behind) a chunk reaches it through the N numbers of the state alone.
All steps are products of matrices, and their number grows in proportion to the length.

Processor time in ms of forward + backward, on one core for 128 records of 256 channels:

- 125 samples: 58 + 51 in chunks, 49 + 80 as one Toeplitz matrix, 40 + 157 by FFT of twice the
  length; the linear layer of the block takes 38 + 90.
- 250 samples: 121 + 106 in chunks, 126 + 351 as one Toeplitz matrix, 112 + 428 by FFT; the linear
  layer takes 80 + 164.

References
----------
Gu, Dao, Ermon, Rudra, Re: HiPPO: recurrent memory with optimal polynomial projections. NeurIPS 2020
Gu, Goel, Re: Efficiently modeling long sequences with structured state spaces. ICLR 2022
Mehari, Strodthoff: Advancing the state-of-the-art for ECG analysis through structured state space
models. ML4H 2022 (arXiv:2211.07579)
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from src.learning.networks.checks import (
    check_dropout,
    check_flag,
    check_outside,
    check_signal,
    check_whole,
)
from src.utils import Float64Array

# Samples of a chunk, as a power of two: `_CHUNK` = 2 ** `_DOUBLINGS`
_DOUBLINGS = 6
_CHUNK = 2**_DOUBLINGS

# Step of the continuous system from one sample to the next
_DT_MIN, _DT_MAX = 0.001, 0.1

# Along the eigenvectors of A, which grow alike with N, double precision errs by 2e-7 at 12 and
# 1e-4 at 16; exported networks need them.
_MAX_STATE_SIZE = 12


class _Hippo(NamedTuple):
    """The continuous system s' = A s + B u."""

    a: Float64Array
    """Shape (N, N)."""
    b: Float64Array
    """Shape (N,)."""


def _legendre(state_size: int) -> _Hippo:
    """Return HiPPO-LegS as it is derived: a number of the state for each Legendre polynomial."""
    order = np.arange(state_size)
    root = np.sqrt(2 * order + 1)
    a = -np.tril(np.outer(root, root), -1) - np.diag(order + 1.0)
    return _Hippo(a, root)


def _basis(state_size: int) -> Float64Array:
    """Return the orthogonal basis (N, N) in which the published code trains C.

    There the normal part of A is diagonal, with complex values in conjugate pairs. One of each pair
    is kept, and the kernel is ``2 Re(C s)``. As Re(C v^* s) is Re(C) Re(v) s + Im(C) Im(v) s, the
    real and imaginary parts of C are coordinates along those of the eigenvectors v.
    """
    a, b = _legendre(state_size)
    # A + b b^T / 2 is -1/2 on its diagonal and skew-symmetric beside it.
    skew = a + np.outer(b, b) / 2 + np.eye(state_size) / 2
    _, vectors = np.linalg.eigh(-1j * skew)
    vectors = vectors[:, state_size // 2 :]  # of the positive frequencies: (N, N / 2)
    # A library may return each vector with any phase: let each see B as a positive number, so that
    # the C of a checkpoint means the same on every machine.
    seen = vectors.conj().T @ b
    vectors = vectors * (seen / np.abs(seen))
    return math.sqrt(2) * np.concatenate([vectors.real, vectors.imag], axis=1).T


@cache
def _published(state_size: int) -> _Hippo:
    """Return HiPPO-LegS in the basis in which the published code trains C."""
    a, b = _legendre(state_size)
    basis = _basis(state_size)
    # Of the factor 2 of the kernel one root makes the basis orthogonal, and the other goes with B.
    return _Hippo(basis @ a @ basis.T, math.sqrt(2) * basis @ b)


class _Eigen(NamedTuple):
    """A as ``vectors @ diag(values) @ inverse``, all real, as lists that an exporter takes."""

    values: list[float]
    vectors: list[list[float]]
    inverse: list[list[float]]


@cache
def _eigen(state_size: int) -> _Eigen:
    """Return the eigenvalues and eigenvectors of A in the basis of `_published`.

    They are exact where A is triangular, and would not be if found in that basis.
    """
    values, vectors = np.linalg.eig(_legendre(state_size).a)
    basis = _basis(state_size)
    inverse = np.linalg.inv(vectors) @ basis.T
    return _Eigen(values.tolist(), (basis @ vectors).tolist(), inverse.tolist())


class _StateSpace(nn.Module):
    """The linear system of each channel, from (B, L, H) to (B, L, H).

    Parameters
    ----------
    n_channels
        H.
    state_size
        N.
    bidirectional
        Read the future too.
    """

    log_dt: Tensor
    powers: Tensor
    responses: Tensor

    def __init__(self, n_channels: int, state_size: int, bidirectional: bool) -> None:
        super().__init__()
        self.state_size = state_size
        n_directions = 2 if bidirectional else 1
        # Complex normal values, as N / 2 real and N / 2 imaginary parts
        values = torch.randn(n_directions, n_channels, state_size) * math.sqrt(0.5)
        self.C = nn.Parameter(values)
        self.D = nn.Parameter(torch.randn(n_channels))
        # Log-uniform. dt is saved, and the tables that C is multiplied by follow from it.
        log_dt = math.log(_DT_MIN) + torch.rand(n_channels) * math.log(_DT_MAX / _DT_MIN)
        self.register_buffer("log_dt", log_dt)
        powers, responses = self._make_tables()
        self.register_buffer("powers", powers, persistent=False)
        self.register_buffer("responses", responses, persistent=False)

    @torch.no_grad()
    def _make_tables(self) -> tuple[Tensor, Tensor]:
        """Return what does not depend on C.

        That is A^(2^i) for i up to `_DOUBLINGS`, shape (_DOUBLINGS + 1, H, N, N), and the states
        A^l B at l samples behind a pulse, shape (H, N, _CHUNK).
        """
        power, responses = self._discretize()
        powers = [power]
        for _ in range(_DOUBLINGS):
            responses = torch.cat([responses, power @ responses], dim=2)
            power = power @ power
            powers.append(power)
        return torch.stack(powers).to(self.C), responses.to(self.C)

    def _discretize(self) -> tuple[Tensor, Tensor]:
        """Return A (H, N, N) and B (H, N, 1) of the discrete system by the bilinear rule."""
        hippo = _published(self.state_size)
        # In double precision, which Apple's devices lack
        device = "cpu" if self.log_dt.device.type == "mps" else self.log_dt.device
        half_dt = self.log_dt.to(device, torch.float64).exp()[:, None, None] / 2  # (H, 1, 1)
        a = torch.tensor(hippo.a, device=device)
        b = torch.tensor(hippo.b, device=device)[:, None]
        identity = torch.eye(self.state_size, dtype=torch.float64, device=device)
        joined = torch.cat([identity + half_dt * a, 2 * half_dt * b], dim=2)  # (H, N, N + 1)
        # Unchecked: of a damaged dt come numbers that are not finite, as of other damaged weights.
        solved = torch.linalg.solve_ex(identity - half_dt * a, joined).result
        return solved[..., :-1], solved[..., -1:]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Load C, D and dt, and work out the tables of that dt."""
        super()._load_from_state_dict(*args, **kwargs)
        self.powers, self.responses = self._make_tables()

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, L, H) for the signals (B, L, H)."""
        n_samples = x.shape[1]
        # Half precision is too coarse for sums over long records.
        with _without_autocast(x.device.type):
            x = x.to(self.C.dtype).permute(2, 0, 1)  # (H, B, L)
            x = functional.pad(x, (0, -n_samples % _CHUNK))
            out = self._convolve(x.unflatten(2, (-1, _CHUNK))).flatten(2)
        return out[..., :n_samples].permute(1, 2, 0)

    def _convolve(self, chunks: Tensor) -> Tensor:
        """Return the outputs (H, B, chunks, _CHUNK) for the signals in the same shape."""
        rows = self._rows()
        # What a chunk does to itself and to the states beside it, in one product:
        # (H, B * chunks, _CHUNK + directions * N)
        weight = torch.cat([self._weights_inside(rows), *self._weights_to_states()], dim=2)
        products = chunks.flatten(1, 2) @ weight
        inside, states = products.split([_CHUNK, weight.shape[2] - _CHUNK], dim=2)
        begun = self._carry(states.unflatten(1, chunks.shape[1:3]))
        out = torch.baddbmm(inside, begun.flatten(1, 2), self._weights_of_states(rows))
        return out.view(chunks.shape)

    def _rows(self) -> Tensor:
        """Return C A^q for q below `_CHUNK`, shape (directions, H, _CHUNK, N)."""
        rows = self.C[:, :, None]
        for power in self.powers[:-1]:
            rows = torch.cat([rows, rows @ power], dim=2)
        return rows

    def _weights_inside(self, rows: Tensor) -> Tensor:
        """Return the weight of each sample of a chunk in each output: (H, _CHUNK, _CHUNK)."""
        # The kernel C A^q B of each direction; that of the future begins one sample ahead.
        past, *future = (rows @ self.responses[:, :, :1]).squeeze(3)  # (H, _CHUNK) each
        past = torch.cat([past[:, :1] + self.D[:, None], past[:, 1:]], dim=1)
        ahead = future[0].flip(1) if future else torch.zeros_like(past)
        # A circle of 2 * _CHUNK lags, laid out in rows that are one shorter, turns by one a row.
        n_lags = 2 * _CHUNK
        circle = torch.cat([past, ahead], dim=1).repeat(1, _CHUNK)
        turned = circle[:, : _CHUNK * (n_lags - 1)].view(-1, _CHUNK, n_lags - 1)
        return turned[..., :_CHUNK]

    def _weights_to_states(self) -> list[Tensor]:
        """Return the weight of each sample of a chunk in the states beside it.

        That is the state of the past at its last sample and, where there is one, that of the future
        just before its first; shape (H, _CHUNK, N) each.
        """
        return [self.responses.flip(2).mT, self.responses.mT][: len(self.C)]

    def _weights_of_states(self, rows: Tensor) -> Tensor:
        """Return the weight of the states beside a chunk in each of its outputs.

        Shape (H, directions * N, _CHUNK).
        """
        past, *future = rows
        weights: list[Tensor] = [past @ self.powers[0], *(row.flip(1) for row in future)]
        return torch.cat(weights, dim=2).mT

    def _carry(self, states: Tensor) -> Tensor:
        """Return the states that reach each chunk from those that each chunk adds.

        Both have shape (H, B, chunks, directions * N).
        """
        run = self._run_any_length if torch.compiler.is_exporting() else self._run
        past, *future = states.split(self.state_size, dim=3)
        reached = [run(past), *(run(part.flip(2)).flip(2) for part in future)]
        return torch.cat(reached, dim=3)

    def _run(self, added: Tensor) -> Tensor:
        """Return the state before each chunk, shape (H, B, chunks, N), as that of `added`."""
        decay = self.powers[-1].mT  # over a chunk: (H, N, N)
        states = [torch.zeros_like(added[:, :, 0])]
        for part in added[:, :, :-1].unbind(2):
            states.append(torch.baddbmm(part, states[-1], decay))
        return torch.stack(states, dim=2)

    def _run_any_length(self, added: Tensor) -> Tensor:
        """Do as `_run` without a loop, for an exported graph that takes any number of chunks.

        Along the eigenvectors of A, which all channels share, the state decays by a factor. They
        are far from orthogonal, so this takes double precision.
        """
        eigen = _eigen(self.state_size)
        half_dt = self.log_dt.double().exp()[:, None] / 2
        scaled = half_dt * torch.tensor(eigen.values, dtype=torch.float64)  # (H, N)
        log_decay = _CHUNK * torch.log((1 + scaled) / (1 - scaled))
        number = torch.arange(added.shape[2])
        n_between = (number[None, :] - number[:, None] - 1).double()  # (chunks, chunks)
        weight = torch.exp(log_decay[..., None, None] * n_between.clamp(min=0))
        weight = weight * (n_between >= 0)  # (H, N, chunks, chunks)
        to_eigen = torch.tensor(eigen.inverse, dtype=torch.float64).mT
        from_eigen = torch.tensor(eigen.vectors, dtype=torch.float64).mT
        along = (added.double() @ to_eigen).permute(0, 3, 1, 2)  # (H, N, B, chunks)
        states = (along @ weight).permute(0, 2, 3, 1) @ from_eigen
        return states.to(added.dtype)


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Return a context in which nothing is cast to half precision."""
    # A device that computes nothing has no autocast either.
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


class S4Block(nn.Module):
    """An S4 layer and what mixes its channels, with a residual; from (B, L, H) to (B, L, H)."""

    def __init__(
        self, n_channels: int, state_size: int, dropout: float, bidirectional: bool
    ) -> None:
        super().__init__()
        self.state_space = _StateSpace(n_channels, state_size, bidirectional)
        self.activation = nn.GELU()
        self.mix = nn.Linear(n_channels, 2 * n_channels)
        # Of whole channels
        self.dropout = nn.Dropout1d(dropout)
        self.norm = nn.LayerNorm(n_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B, L, H) of (B, L, H)."""
        out = self._drop(self.activation(self.state_space(x)))
        out = self._drop(functional.glu(self.mix(out), dim=2))
        normed: Tensor = self.norm(x + out)
        return normed

    def _drop(self, x: Tensor) -> Tensor:
        """Drop channels of (B, L, H)."""
        dropped: Tensor = self.dropout(x.mT)
        return dropped.mT


class S4(nn.Module):
    """Map a multi-lead ECG to class logits by structured state spaces.

    Parameters
    ----------
    n_leads
        Input leads, 1 to 4096.
    n_classes
        Output classes, 1 to 65536.
    d_model
        Channels, 1 to 4096. With 5 classes 256 gives 0.55 million parameters and 512 gives 2.15;
        the 71 statements of PTB-XL bring them to the published 0.57 and 2.18.
    n_blocks
        Blocks in a row, 1 to 64.
    state_size
        Numbers in the state of each channel and direction: even, 2 to 12.
    dropout
        Share of channels dropped, twice in each block.
    bidirectional
        Let each output depend on what comes after it too.
    stem_stride
        Samples that the first layer joins to one, 1 to 256. The published network keeps all (1).

    Raises
    ------
    ValueError
        If an argument is none of these.

    Notes
    -----
    Input (B, n_leads, n_samples) with n_samples of `stem_stride` or more; output (B, n_classes).
    Published training: mV at 100 Hz, crops of 2.5 s, binary cross-entropy, AdamW at a constant
    1e-3 with weight decay 1e-3, 100 epochs, means over four crops. dt counts samples, so a network
    sees ten times the time at a tenth of the rate.
    """

    def __init__(
        self,
        n_leads: int = 12,
        n_classes: int = 5,
        d_model: int = 256,
        n_blocks: int = 4,
        state_size: int = 8,
        dropout: float = 0.2,
        bidirectional: bool = True,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        check_outside(n_leads, n_classes)
        check_whole("d_model", d_model, 1, 4096)
        check_whole("n_blocks", n_blocks, 1, 64)
        check_whole("state_size", state_size, 2, _MAX_STATE_SIZE)
        if state_size % 2:
            raise ValueError(f"state_size is {state_size}: expected an even number")
        check_dropout("dropout", dropout)
        check_flag("bidirectional", bidirectional)
        check_whole("stem_stride", stem_stride, 1, 256)
        self.n_leads = n_leads
        self.n_classes = n_classes
        self.min_samples = stem_stride
        self.stem = nn.Conv1d(n_leads, d_model, stem_stride, stem_stride)
        self.blocks = nn.Sequential(
            *(S4Block(d_model, state_size, dropout, bidirectional) for _ in range(n_blocks))
        )
        self.head = nn.Linear(d_model, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the features (B, d_model) of signals (B, n_leads, n_samples): means over time.

        Raises
        ------
        ValueError
            If `x` has another shape, or too few samples.
        """
        check_signal(x, self.n_leads, self.min_samples)
        out = self.stem(x).mT  # (B, L, d_model), with L = n_samples / stem_stride
        means: Tensor = self.blocks(out).mean(dim=1)
        return means

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, n_classes) for signals (B, n_leads, n_samples)."""
        logits: Tensor = self.head(self.features(x))
        return logits
