"""The layers against those of torch, in what they return and in their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from src.learning import layers
from src.learning.convolution import _transforms, convolve
from src.learning.layers import GELU, AvgPool1d, BatchNorm1d, Conv1d
from src.model import ResNet1d


def run(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the output, and the gradients of the input and of the weights."""
    layer.zero_grad()
    given = x.detach().requires_grad_()
    out = layer(given)
    (out * torch.arange(1.0, out.numel() + 1).view_as(out).cos()).sum().backward()
    assert given.grad is not None
    return [
        out.detach(),
        given.grad,
        *(weight.grad for weight in layer.parameters() if weight.grad is not None),
    ]


def both_layouts(x: torch.Tensor) -> list[torch.Tensor]:
    """Return (B, C, L) with the samples of a channel together, and with the channels of a sample
    together.
    """
    return [x, x.transpose(1, 2).contiguous().transpose(1, 2)]


@pytest.mark.parametrize(
    ("kernel", "stride", "n_samples"),
    [
        (3, 1, 8),
        (5, 2, 16),
        (5, 2, 17),
        (7, 3, 32),
        (3, 1, 1),
        (1, 1, 9),
        (1, 2, 9),
        (11, 2, 4),
        (7, 1, 200),
    ],
)
def test_convolutions_and_their_gradients_are_those_of_torch(
    kernel: int, stride: int, n_samples: int
) -> None:
    torch.manual_seed(0)
    mine, theirs = (
        Conv1d(6, 10, kernel, stride),
        nn.Conv1d(6, 10, kernel, stride, kernel // 2, bias=False),
    )
    theirs.load_state_dict(mine.state_dict())
    plain = torch.randn(5, 6, n_samples)
    wanted = run(theirs, plain)
    for x in both_layouts(plain):
        found = run(mine, x)
        assert len(found) == len(wanted) == 3
        for ours, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (5, 2), (1, 1)])
def test_gradients_agree_with_finite_differences(
    kernel: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_is_plain", lambda x: True)
    conv = Conv1d(2, 3, kernel, stride).double()
    assert torch.autograd.gradcheck(
        conv, torch.randn(3, 2, 9, dtype=torch.float64, requires_grad=True)
    )
    for weight in conv.parameters():
        weight.requires_grad_(False)
    assert torch.autograd.gradcheck(
        conv, torch.randn(3, 2, 9, dtype=torch.float64, requires_grad=True)
    )


def test_weights_alone_are_learned_where_the_input_needs_no_gradient() -> None:
    for stride in (1, 2):
        conv = Conv1d(4, 3, 3, stride)
        conv(torch.randn(2, 4, 20)).sum().backward()
        assert conv.weight.grad is not None and conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("n_samples", [1, 2, 7, 64])
def test_norm_activation_and_pool_are_those_of_torch_in_both_layouts(n_samples: int) -> None:
    torch.manual_seed(0)
    plain = torch.randn(5, 6, n_samples)
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (BatchNorm1d(6), nn.BatchNorm1d(6)),
        (GELU(), nn.GELU()),
        *(
            (AvgPool1d(size), nn.AvgPool1d(size, ceil_mode=True, count_include_pad=False))
            for size in (2, 3)
        ),
    ]
    for mine, theirs in pairs:
        wanted = run(theirs, plain)
        for x in both_layouts(plain):
            for ours, other in zip(run(mine, x), wanted, strict=True):
                torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)


def test_the_norm_keeps_the_statistics_that_torch_keeps() -> None:
    plain = torch.randn(5, 6, 20)
    for x in both_layouts(plain):
        mine, theirs = BatchNorm1d(6), nn.BatchNorm1d(6)
        mine(x), theirs(plain)
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], value)
        torch.testing.assert_close(mine.eval()(x), theirs.eval()(plain))


def test_frozen_weights_get_no_gradient() -> None:
    for stride in (1, 2):
        conv, x = Conv1d(4, 3, 3, stride), torch.randn(2, 4, 20, requires_grad=True)
        conv.weight.requires_grad_(False)
        conv(x).sum().backward()
        assert conv.weight.grad is None and x.grad is not None and x.grad.abs().sum() > 0


def test_gradients_have_the_layout_of_the_weights() -> None:
    model = ResNet1d(base_channels=8)
    gradients = torch.autograd.grad(model(torch.randn(2, 12, 300)).sum(), list(model.parameters()))
    assert all(
        gradient.stride() == weight.stride()
        for gradient, weight in zip(gradients, model.parameters(), strict=True)
    )


def test_what_a_convolution_returns_may_be_changed_in_place() -> None:
    conv = Conv1d(4, 3, 3)
    torch.relu_(conv(torch.randn(2, 4, 20))).sum().backward()
    assert conv.weight.grad is not None


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [(kernel, stride) for stride in (1, 2, 3, 4) for kernel in range(1, 6 * stride + 2, 2)],
)
def test_every_kernel_and_length_gives_what_torch_gives(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 6, kernel, dtype=torch.float64, requires_grad=True)
    for n_samples in (*range(1, 18), 31, 33, 64):
        signal = torch.randn(3, n_samples, 6, dtype=torch.float64, requires_grad=True)
        found = convolve(signal, weight, stride)
        wanted = torch.nn.functional.conv1d(
            signal.transpose(1, 2), weight, stride=stride, padding=kernel // 2
        ).transpose(1, 2)
        torch.testing.assert_close(found, wanted)
        towards = torch.randn_like(wanted)
        for ours, theirs in zip(
            torch.autograd.grad(found, (signal, weight), towards),
            torch.autograd.grad(wanted, (signal, weight), towards),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("kernel", "stride"), [(3, 1), (5, 1), (7, 1), (3, 2), (5, 2), (7, 2), (11, 2), (13, 2)]
)
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_single_precision_rounds_to_a_hundred_thousandth(
    kernel: int, stride: int, offset: float
) -> None:
    torch.manual_seed(0)
    signal, weight = (
        torch.randn(4, 100, 96) + offset,
        torch.randn(64, 96, kernel) / (96 * kernel) ** 0.5,
    )
    towards = torch.randn(4, -(-100 // stride), 64)
    found = []
    for dtype in (torch.float32, torch.float64):
        given = [values.to(dtype).requires_grad_() for values in (signal, weight)]
        if dtype == torch.float32:
            out = convolve(given[0], given[1], stride)
        else:
            out = torch.nn.functional.conv1d(
                given[0].transpose(1, 2), given[1], stride=stride, padding=kernel // 2
            ).transpose(1, 2)
        found.append([out, *torch.autograd.grad(out, given, towards.to(dtype))])
    for ours, exact in zip(*found, strict=True):
        assert (ours - exact).abs().max() < 1e-5 * exact.abs().max()


def test_the_network_gives_what_it_gives_in_layers_of_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model, x = ResNet1d().eval(), torch.randn(4, 12, 1000)
    for norm in model.modules():
        if isinstance(norm, BatchNorm1d):
            nn.init.ones_(norm.weight)  # those that start at zero would hide their branch
    found = []
    for plain in (True, False):
        if not plain:
            monkeypatch.setattr(layers, "_is_plain", lambda x: False)
        logits = model(x)
        found.append(
            [logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))]
        )
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_no_records_are_convolved_to_none() -> None:
    for kernel, stride in ((1, 1), (3, 1), (7, 2)):
        conv, none = Conv1d(4, 3, kernel, stride), torch.empty(0, 4, 20, requires_grad=True)
        out = conv(none)
        out.sum().backward()
        assert (
            out.shape == (0, 3, 20 // stride)
            and none.grad is not None
            and none.grad.shape == none.shape
        )
        assert conv.weight.grad is not None and not conv.weight.grad.any()


def test_values_that_are_not_finite_stay_in_their_record() -> None:
    conv, x = Conv1d(4, 3, 5), torch.randn(3, 4, 20)
    x[1, 2, 7] = torch.inf
    given = x.requires_grad_()
    out = conv(given)
    out[[0, 2]].sum().backward()
    assert out[[0, 2]].isfinite().all() and not out[1].isfinite().all()
    assert given.grad is not None and given.grad.isfinite().all()


def test_a_graph_that_is_kept_gives_the_same_gradients_again() -> None:
    conv, x = Conv1d(4, 3, 5, 2), torch.randn(3, 4, 20, requires_grad=True)
    loss = conv(x).square().sum()
    first, again = (
        torch.autograd.grad(loss, [x, conv.weight], retain_graph=True) for _ in range(2)
    )
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("n_records", "n_samples", "together"),
    [(2, 250, True), (2, 251, False), (1, 250, False), (30, 16, False), (32, 16, True)],
)
def test_without_gradients_the_faster_way_is_taken(
    n_records: int, n_samples: int, together: bool
) -> None:
    with torch.no_grad():
        out = Conv1d(4, 3, 5)(torch.randn(n_records, 4, n_samples))
    assert out.transpose(1, 2).is_contiguous() == together


def test_what_is_learned_after_a_prediction_that_came_first() -> None:
    _transforms.cache_clear()
    conv = Conv1d(4, 3, 3)
    with torch.inference_mode():
        conv(torch.randn(20, 4, 40))
    assert _transforms.cache_info().currsize == 1
    conv(torch.randn(2, 4, 20)).sum().backward()
    assert conv.weight.grad is not None


def test_kernels_that_are_even_or_too_long_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel is 4: expected an odd number"):
        Conv1d(4, 3, 4)
    for stride in (1, 2, 3, 4):
        Conv1d(4, 3, 6 * stride + 1, stride)
        with pytest.raises(
            ValueError,
            match=f"expected {6 * stride + 1} samples or fewer with a stride of {stride}",
        ):
            Conv1d(4, 3, 6 * stride + 3, stride)


def test_the_layout_is_kept_through_the_network_while_it_learns() -> None:
    seen: list[tuple[str, bool]] = []
    model = ResNet1d(base_channels=8)
    for name, module in model.named_modules():
        if isinstance(module, (Conv1d, BatchNorm1d, GELU, AvgPool1d)):
            module.register_forward_hook(
                lambda _, __, out, name=name: seen.append(
                    (name, out.transpose(1, 2).is_contiguous())
                )
            )
    model(torch.randn(2, 12, 1000))
    assert len(seen) > 30 and all(together for _, together in seen)
    seen.clear()
    with torch.no_grad():
        model(torch.randn(1, 12, 2000))
    assert not any(together for _, together in seen)


def test_other_precisions_and_autocast_take_the_layers_of_torch() -> None:
    conv = Conv1d(128, 8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(torch.zeros(1, 128, 8)).is_contiguous()
    assert conv.double()(torch.zeros(1, 128, 8, dtype=torch.float64)).is_contiguous()


def test_weights_are_those_of_torch() -> None:
    mine, theirs = Conv1d(4, 8, 3, 2), nn.Conv1d(4, 8, 3, 2, padding=1, bias=False)
    theirs.load_state_dict(mine.state_dict())
    torch.testing.assert_close(mine(torch.ones(1, 4, 10)), theirs(torch.ones(1, 4, 10)))
    norm, pool = nn.BatchNorm1d(4), AvgPool1d(2)
    norm.load_state_dict(BatchNorm1d(4).state_dict())
    assert not pool.state_dict() and not GELU().state_dict()
