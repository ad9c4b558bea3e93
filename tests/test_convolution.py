from __future__ import annotations

import pytest
import torch
from torch import nn

from src.convolution import Conv1d


@pytest.mark.parametrize(("kernel", "stride", "n_samples"), [(3, 1, 8), (5, 2, 16), (5, 2, 17), (7, 3, 32), (3, 1, 1)])
def test_products_equal_the_convolution_of_torch_and_so_do_their_gradients(kernel: int, stride: int, n_samples: int) -> None:
    torch.manual_seed(0)
    conv = Conv1d(128, 6, kernel, stride).double().float()
    x = torch.randn(3, 128, n_samples)
    assert conv._is_faster_as_product(x)
    found, wanted = [], []
    for results, forward in ((found, conv.forward), (wanted, super(Conv1d, conv).forward)):
        conv.zero_grad()
        given = x.clone().requires_grad_()
        out = forward(given)
        (out * torch.arange(1.0, out.numel() + 1).view_as(out).cos()).sum().backward()
        results += [out.detach(), given.grad, conv.weight.grad]
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert found[0].is_contiguous()


def test_gradients_agree_with_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conv1d, "_is_faster_as_product", lambda self, x: True)
    conv = Conv1d(2, 3, 5, 2).double()
    assert torch.autograd.gradcheck(conv, torch.randn(2, 2, 9, dtype=torch.float64, requires_grad=True))


def test_few_channels_long_signals_and_other_precisions_take_the_convolution_of_torch() -> None:
    assert not Conv1d(64, 8, 3)._is_faster_as_product(torch.zeros(1, 64, 8))
    assert not Conv1d(128, 8, 3)._is_faster_as_product(torch.zeros(1, 128, 33))
    assert not Conv1d(128, 8, 1)._is_faster_as_product(torch.zeros(1, 128, 8))
    assert not Conv1d(128, 8, 3)._is_faster_as_product(torch.zeros(1, 128, 8, dtype=torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        assert not Conv1d(128, 8, 3)._is_faster_as_product(torch.zeros(1, 128, 8))


def test_weights_are_those_of_torch() -> None:
    mine, theirs = Conv1d(4, 8, 3, 2), nn.Conv1d(4, 8, 3, 2, padding=1, bias=False)
    theirs.load_state_dict(mine.state_dict())
    torch.testing.assert_close(mine(torch.ones(1, 4, 10)), theirs(torch.ones(1, 4, 10)))
