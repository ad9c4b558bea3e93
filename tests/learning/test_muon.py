from __future__ import annotations

import pytest
import torch

from src.learning.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_singular_values_become_about_one(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalize(matrix)
    assert (torch.linalg.svdvals(found)[:-1] - 1).abs().max() < 0.35
    assert float((found * (u @ v)).sum() / found.norm() / (u @ v).norm()) > 0.97


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8), (288, 864)])
@pytest.mark.parametrize("rank", [2, 1000])
def test_the_steps_are_those_of_newton_and_schulz(shape: tuple[int, int], rank: int) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    sizes[rank:] *= 1e-4
    matrix = left * sizes @ right
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    assert (orthogonalize(matrix) - x).abs().max() < 1e-3 * x.abs().max()


def test_a_step_is_as_long_as_the_rate_says() -> None:
    kernel = torch.nn.Parameter(torch.zeros(4, 2, 3))
    optimizer = Muon([kernel], lr=0.1, weight_decay=0.5)
    kernel.grad = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)) * 1e-3
    optimizer.step()
    assert 0.6 * 0.1 < float(torch.linalg.svdvals(kernel.detach().flatten(1)).mean()) < 1.3 * 0.1
    with pytest.raises(ValueError, match="closure is given"):
        optimizer.step(lambda: 0.0)


def test_it_goes_down_a_quadratic() -> None:
    target = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(1))
    kernel = torch.nn.Parameter(torch.zeros_like(target))
    optimizer = Muon([kernel], lr=0.05)
    first = float(target.square().sum())
    for _ in range(60):
        optimizer.zero_grad()
        (kernel - target).square().sum().backward()
        optimizer.step()
    assert float((kernel.detach() - target).square().sum()) < 0.05 * first
